"""Linear Transformers from scratch in NumPy, every gradient derived by hand and proved right.

Importing this package loads NumPy only; SciPy, matplotlib and tqdm load where they are used.
"""

from importlib import import_module

from lintransformer.checks import InputError
from lintransformer.distributions import PromptDistribution, ResponseNetwork
from lintransformer.memory import keep_freed_memory
from lintransformer.models.build import build_model
from lintransformer.objective import gradient, predict, prompt_losses, value, value_and_gradient
from lintransformer.optimizers import SGD, Adam, SignDescent, clip
from lintransformer.prompts import GramPrompts, Prompts
from lintransformer.random import stream
from lintransformer.training import evaluation_batch, train
from lintransformer.workspace import Workspace

__version__ = "0.1.0"

_LATER = {
    "hessian": "lintransformer.diagnostics.hessian",
    "hessian_vector_product": "lintransformer.diagnostics.products",
    "lanczos": "lintransformer.diagnostics.spectrum",
    "dense_spectrum": "lintransformer.diagnostics.spectrum",
    "spectral_density": "lintransformer.diagnostics.spectrum",
    "gradient_noise": "lintransformer.diagnostics.noise",
    "verification": None,
}


def __getattr__(name):
    """Load what needs SciPy when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module 'lintransformer' has no attribute {name!r}")
    if _LATER[name] is None:
        return import_module(f"lintransformer.{name}")
    return getattr(import_module(_LATER[name]), name)


def __dir__():
    return sorted({*globals(), *_LATER})
