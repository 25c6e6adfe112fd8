"""Checks that any reader can run on any gradient, ours or their own, and the battery behind `verify`.

    check_gradient(f, gradient, theta)            complex steps, differences with error estimates
    check_vjp(forward, backward, inputs)          a backward pass, on named arrays
    check_hessian(product, gradient, theta)       symmetry, derivatives of the gradient
    taylor_test(f, gradient, theta, ...)          orders of the Taylor remainders
    check_optimizer(optimizer, "adam")            the iterates of a reference, step by step
    check_exact_gradient(f, gradient, theta, degree=...)    equality, in rational arithmetic
    strategies                                    hypothesis strategies for generic data
    MODELS, run_battery                           every model of this package, every check

All but the last line work on functions that know nothing of this package, and need NumPy alone.
"""

from importlib import import_module

from lintransformer.verification.derivatives import check_duality, check_gradient, check_hessian, check_vjp
from lintransformer.verification.exact import check_exact_gradient
from lintransformer.verification.optimizers import check_optimizer
from lintransformer.verification.results import Check, assert_close, assert_mean, relative_error
from lintransformer.verification.taylor import taylor_test

_LATER = {"MODELS": "models", "select_models": "models", "Row": "battery", "run_battery": "battery"}


def __getattr__(name):
    """Load what needs SciPy or hypothesis when it is first asked for."""
    if name == "strategies":
        return import_module("lintransformer.verification.strategies")
    if name not in _LATER:
        raise AttributeError(f"module 'lintransformer.verification' has no attribute {name!r}")
    return getattr(import_module(f"lintransformer.verification.{_LATER[name]}"), name)


def __dir__():
    return sorted([*globals(), *_LATER, "strategies"])
