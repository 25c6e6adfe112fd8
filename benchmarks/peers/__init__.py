"""Who is measured: ours, and the same model written for PyTorch, JAX and C.

The other implementations are written from the paper's formulas, not from this package's code, so that
agreement means something. Each module has `value_and_gradient(theta, Z, target, case)` and a `Runner(case)`
with one method for each figure it supports; optionally `check()`, which raises if the peer cannot run here.
"""
import importlib
import importlib.util
import os
import shutil

# key: (module, what it needs, whether that is here); the order is that of tables and plots
_torch, _jax = (lambda: importlib.util.find_spec("torch")), (lambda: importlib.util.find_spec("jax"))
PEERS = {
    "torch": ("torch_literal", "PyTorch", _torch),
    "torch-compile": ("torch_compile", "PyTorch", _torch),
    "jax": ("jax_literal", "JAX", _jax),
    "torch-gram": ("torch_gram", "PyTorch", _torch),
    "torch-compile-gram": ("torch_compile_gram", "PyTorch", _torch),
    "jax-gram": ("jax_gram", "JAX", _jax),
    "jax-scan-gram": ("jax_scan_gram", "JAX", _jax),
    "native": ("native", "a C compiler", lambda: compiler()),
    "ours": ("ours", "NumPy", lambda: True),
}
NAMES = {
    "torch": "PyTorch eager, token form",
    "torch-compile": "torch.compile, token form",
    "jax": "jax.jit, token form",
    "torch-gram": "PyTorch eager, Gram form",
    "torch-compile-gram": "torch.compile, Gram form",
    "jax-gram": "jax.jit, Gram form",
    "jax-scan-gram": "jax.jit over many steps, Gram form",
    "native": "C, Gram form",
    "ours": "ours (NumPy)",
}
TOKENS = ("torch", "torch-compile", "jax")               # token form; all others need linear attention or are ours
GRAM = ("torch-gram", "torch-compile-gram", "jax-gram", "jax-scan-gram")


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
    if key in GRAM and case.attention != "linear":
        return False                 # softmax and ReLU have no Gram form
    if key == "jax-scan-gram":
        return figure == "step"      # its gradient is that of jax-gram
    return figure != "hessian" or key in ("torch", "ours")


def load(key):
    """The peer's module, imported now."""
    return importlib.import_module(f"benchmarks.peers.{PEERS[key][0]}")
