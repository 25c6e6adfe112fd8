"""Who is measured: ours, and the same model written for PyTorch, JAX and C.

The other implementations are written from the paper's formulas, not from this package's code, so that
agreement means something. Each module has `value_and_gradient(theta, Z, target, case)` and a `Runner(case)`
with one method for each figure it supports.
"""
import importlib
import importlib.util
import os
import shutil

# key: (module, what it needs, whether that is here); the order is that of tables and plots
PEERS = {
    "torch": ("torch_literal", "PyTorch", lambda: importlib.util.find_spec("torch")),
    "jax": ("jax_literal", "JAX", lambda: importlib.util.find_spec("jax")),
    "jax-gram": ("jax_gram", "JAX", lambda: importlib.util.find_spec("jax")),
    "native": ("native", "a C compiler", lambda: compiler()),
    "ours": ("ours", "NumPy", lambda: True),
}
NAMES = {
    "torch": "PyTorch eager, token form",
    "jax": "jax.jit, token form",
    "jax-gram": "jax.jit, Gram form",
    "native": "C, Gram form",
    "ours": "ours (NumPy)",
}


def compiler():
    """Path of a C compiler: $CC, cc, gcc or clang; None if there is none."""
    candidates = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((found for found in map(shutil.which, filter(None, candidates)) if found), None)


def missing(key):
    """What a peer lacks on this machine, or None if it can run."""
    _, needs, is_here = PEERS[key]
    return None if is_here() else needs


def supports(key, case, figure):
    """Whether a peer can show a figure ("step", "gradient", "hessian", "noise") of a case."""
    if key == "native":              # the gradient of one head of linear attention with block matrices
        model = case.attention, case.parametrization, case.heads, case.embedding
        return figure == "gradient" and model == ("linear", "block", 1, None)
    if key == "jax-gram" and case.attention != "linear":
        return False                 # softmax and ReLU have no Gram form
    return figure != "hessian" or key in ("torch", "ours")


def load(key):
    """The peer's module, imported now."""
    return importlib.import_module(f"benchmarks.peers.{PEERS[key][0]}")
