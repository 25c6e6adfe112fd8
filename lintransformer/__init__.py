"""Linear Transformers from scratch in NumPy, every gradient derived by hand and proved right.

Importing this package loads NumPy only; SciPy, matplotlib and tqdm load where they are used.
"""

from lintransformer.checks import InputError
from lintransformer.distributions import PromptDistribution
from lintransformer.layers.compose import Chain, Residual, Sum
from lintransformer.losses import CrossEntropy, SquaredError
from lintransformer.memory import keep_freed_memory
from lintransformer.models.build import build_model
from lintransformer.objective import Objective, gradient, predict, prompt_losses, value, value_and_gradient
from lintransformer.optimizers import SGD, Adam, SignDescent, clip
from lintransformer.prompts import Batch, GramPrompts, Prompts
from lintransformer.random import stream
from lintransformer.responses import ResponseNetwork
from lintransformer.training import evaluation_batch, train
from lintransformer.workspace import Workspace

__version__ = "0.1.0"

_LATER = ("dense_spectrum", "gradient_noise", "hessian", "hessian_vector_product", "lanczos", "spectral_density",
          "verification")


def __getattr__(name):
    """Load what needs SciPy when it is first asked for."""
    if name == "verification":
        import lintransformer.verification as found
        return found
    if name not in _LATER:
        raise AttributeError(f"module 'lintransformer' has no attribute {name!r}")
    if name == "gradient_noise":
        from lintransformer.diagnostics import noise as home
    elif name.startswith("hessian"):
        from lintransformer.diagnostics import hessian as home
    else:
        from lintransformer.diagnostics import spectrum as home
    return getattr(home, name)


def __dir__():
    return sorted({*globals(), *_LATER})
