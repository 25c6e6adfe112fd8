"""Linear Transformers from scratch in NumPy, every gradient derived by hand and proved right."""

from lintransformer.checks import InputError
from lintransformer.distributions import PromptDistribution, ResponseNetwork
from lintransformer.models.build import build_model
from lintransformer.objective import gradient, predict, prompt_losses, value, value_and_gradient
from lintransformer.prompts import GramPrompts, Prompts
from lintransformer.random import stream

__version__ = "0.1.0"
