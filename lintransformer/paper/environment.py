"""What a result depends on besides its configuration: versions, machine and the kernel of its BLAS."""
from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path

PACKAGES = ("lintransformer", "numpy", "scipy", "matplotlib", "threadpoolctl", "tqdm", "jinja2", "filelock")


def versions() -> dict:
    """Return the versions of Python and the packages, without importing them; None if not installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def machine() -> dict:
    """Return processor, cores this process may use, system, and BLAS."""
    return {"processor": _processor(), "cores": available_cores(),
            "system": f"{platform.system()} {platform.machine()}", "blas": blas()}


def environment() -> dict:
    """Return what is recorded with every run and every command."""
    return {"versions": versions(), "machine": machine()}


def blas() -> list[str]:
    """Return what NumPy and SciPy multiply matrices with, such as ``openblas 0.3.31, kernel Haswell, pthreads``.

    The same seeds give other last digits on another kernel, and in Setting 2 other numbers.
    """
    import numpy  # noqa: F401  (both load their library)
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_info
    found = []
    for pool in threadpool_info():
        if pool["user_api"] == "blas":
            kernel = pool.get("architecture")
            parts = [f"{pool['internal_api']} {pool['version']}", kernel and f"kernel {kernel}",
                     pool.get("threading_layer")]
            found.append(", ".join(part for part in parts if part))
    return sorted(set(found))


def same_numbers(one: dict, other: dict) -> bool:
    """Whether two environments give the same last digits: versions, processor, system, and BLAS where recorded."""
    ran, runs = one["machine"], other["machine"]
    return one["versions"] == other["versions"] and all(
        ran[name] == runs[name] for name in ("processor", "system", "blas") if name in ran)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
