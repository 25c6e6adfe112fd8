"""Checks that any reader can run on any gradient, ours or their own, and the battery behind `verify`.

    check_gradient(f, gradient, theta)            complex steps, or central differences
    taylor_test(f, gradient, theta, ...)          orders of the Taylor remainders
    check_hessian(hvp, gradient, theta)           symmetry, complex step of the gradient
    check_exact_gradient(f, gradient, theta, direction, degree)    equality, in rational arithmetic
    MODELS, run_battery                           every model, every check
"""

from lintransformer.verification.battery import Row, run_battery
from lintransformer.verification.derivatives import check_duality, check_gradient, check_hessian, taylor_test
from lintransformer.verification.exact import check_exact_gradient
from lintransformer.verification.models import MODELS, select_models
from lintransformer.verification.results import Check, assert_close, assert_mean, relative_error
