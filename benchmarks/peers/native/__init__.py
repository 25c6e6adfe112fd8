"""The Gram recurrence in C, compiled when a C compiler is there: how fast one core can go. The package never
uses it.
"""
import ctypes
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from benchmarks import cases
from benchmarks.peers import compiler, layout

SOURCE = Path(__file__).with_name("gram_step.c")
FLAGS = ("-O3", "-march=native", "-ffast-math", "-funroll-loops", "-shared", "-fPIC", "-std=gnu11",
         "-Wno-psabi")


def library(case, lanes=16):
    """The compiled function for one number of layers and one dimension, kept in the temporary directory."""
    command = [compiler(), *FLAGS, f"-DDIM={case.dimension}", f"-DLAYERS={case.layers}", f"-DLANES={lanes}"]
    name = hashlib.sha256((" ".join(command) + SOURCE.read_text()).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"lintransformer-native-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    path = folder / f"{name}.so"
    if not path.exists():
        unfinished = folder / f"{name}.{os.getpid()}.tmp"
        subprocess.run([*command, "-o", unfinished, SOURCE], check=True)
        os.replace(unfinished, path)
    function = ctypes.CDLL(path).loss_and_gradient
    function.restype = ctypes.c_float
    pointer, integer = ctypes.POINTER(ctypes.c_float), ctypes.c_int
    function.argtypes = [pointer] * 5 + [integer] * 3 + [pointer]
    return function


def batch_last(Z, target, case, lanes):
    """(S, g, x, target) in float32, contiguous, batch last, padded with zeros to a multiple of lanes."""
    G, z = cases.gram(Z, case.context_length)
    d = case.dimension
    padding = -len(target) % lanes
    to_last = lambda array: np.ascontiguousarray(
        np.pad(np.moveaxis(array, 0, -1), [(0, 0)] * (array.ndim - 1) + [(0, padding)]), np.float32)
    return to_last(G[:, :d, :d]), to_last(G[:, :d, d]), to_last(z[:, :d]), to_last(target)


class Runner:
    """What is timed: loss and gradient on a fixed batch. There is no training step in C."""

    def __init__(self, case, seed=0, lanes=16):
        theta = case.init_scale * np.random.default_rng(seed).standard_normal(layout.size(case))
        self.prepare(theta, *cases.prompts(case, seed), case, lanes)

    def prepare(self, theta, Z, target, case, lanes=16):
        """Compile and lay out the arrays; NumPy in."""
        self.theta = np.ascontiguousarray(theta, np.float32)
        self.out = np.empty_like(self.theta)
        self.arrays = batch_last(Z, target, case, lanes)
        pointer = lambda array: array.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        self.function = library(case, lanes)
        sizes = self.arrays[-1].size, len(target), case.context_length
        self.arguments = (pointer(self.theta), *map(pointer, self.arrays), *sizes, pointer(self.out))
        return self

    def gradient(self):
        """Loss; the gradient is left in `self.out`."""
        return self.function(*self.arguments)


def value_and_gradient(theta, Z, target, case):
    """Loss and gradient in float32; NumPy in, NumPy out."""
    runner = Runner.__new__(Runner).prepare(theta, Z, target, case)
    return runner.gradient(), runner.out.copy()
