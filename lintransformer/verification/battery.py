"""The battery: every check on every model, as rows of one table; behind `lintransformer verify`.

Checks of the first kind compare a derivative with its definition, at one point; of the second kind two routes
to the same number. `predict_by_loops` is the one that knows the paper's formula rather than our code.
"""

import warnings

import numpy as np

from lintransformer import objective
from lintransformer.checks import InputError
from lintransformer.diagnostics.hessian import hessian
from lintransformer.diagnostics.products import hessian_vector_product
from lintransformer.diagnostics.spectrum import dense_spectrum, lanczos
from lintransformer.distributions import PromptDistribution
from lintransformer.kernels.layouts import BLAS_FROM_DIMENSION
from lintransformer.verification.derivatives import check_duality, check_gradient, check_hessian
from lintransformer.verification.exact import check_exact_gradient, rational
from lintransformer.verification.optimizers import OPTIMIZER_CHECKS
from lintransformer.verification.population import covariances, one_layer_population
from lintransformer.verification.problems import Problem, problem, rational_problem, select_models
from lintransformer.verification.reference import predict_by_loops
from lintransformer.verification.results import Check, Row, combine, relative_error
from lintransformer.verification.taylor import taylor_test
from lintransformer.workspace import Workspace

ROUTE_TOLERANCE = 1e-12          # two exact routes to the same number, in float64
FLOAT32_TOLERANCE = 2e-5
SPECTRUM_TOLERANCE = 1e-9
HESSIAN_DIFFERENCE_TOLERANCE = 1e-8           # of the zoo at its points; measured: up to 4e-9
NOT_COVERED = ("points on kinks or far out, large batches (but for --full), training, sampling beyond its moments, "
               "what is drawn and stored; the tests cover these")


def run_battery(name=None, full=False, progress=None, stop_at_first=False):
    """Run every check on the models that `name` selects.

    Parameters
    ----------
    name : None or str, see `select_models`; None adds the optimizers and the exact solution of one layer
    full : bool, adds exact rational arithmetic, and the paper's size L = 3, d = 5, n = 20
    progress : None, or called with each model's name before its checks
    stop_at_first : bool, end after the first model with a check that does not pass

    Returns
    -------
    list of `Row`
    """
    rows = []
    for model in select_models(name):
        if progress is not None:
            progress(model.name)
        rows += run_checks(model.name, CHECKS, problem(model))
        if full:
            rows += run_checks(model.name, FULL_CHECKS, model)
        if stop_at_first and not all(row.check.passed for row in rows):
            return rows
    if name is None:
        rows += [row for group, checks in COMMON_CHECKS for row in run_checks(group, checks)]
    return rows


def run_checks(name, functions, *arguments):
    """The rows of some checks; one that is refused its input (a derivative that is not finite) fails."""
    rows = []
    for function in functions:
        try:
            checks = function(*arguments)
        except InputError as error:
            checks = Check(function.__name__.replace("_", " "), np.inf, 0, str(error))
        rows += [Row(name, check) for check in ([checks] if isinstance(checks, Check) else checks)]
    return rows


# --- a derivative and its definition ---


def gradient_by_complex_step(problem):
    return check_gradient(*_functions(problem), problem.theta, method="complex")


def gradient_by_differences(problem):
    return check_gradient(*_functions(problem), problem.theta, method="difference")


def taylor_orders(problem):
    """Along three directions, at steps far below the distance to any kink."""
    return taylor_test(*_functions(problem), problem.theta, directions=3, every_entry=False,
                       hessian_vector_product=lambda theta, v: _exact_product(problem, theta, v))


def duality(problem):
    return check_duality(problem.model, problem.theta, problem.batch)


def exact_hessian(problem):
    """Symmetry, and the complex step of the gradient: two rows."""
    _, gradient = _functions(problem)
    return check_hessian(lambda theta, v: _exact_product(problem, theta, v), gradient, problem.theta).parts


# --- two routes to the same number ---


def definition(problem):
    """Eq. 7-8 by loops over tokens: a forward pass that is wrong but differentiated rightly fails here."""
    expected = predict_by_loops(problem.model, problem.theta, problem.batch)
    prediction = objective.predict(problem.model, problem.theta, problem.batch)
    value = objective.value(problem.model, problem.theta, problem.batch)
    expected_value = np.mean((expected - problem.batch.target) ** 2)
    return combine("eq. 7-8 by loops over tokens", [
        Check("prediction", relative_error(prediction, expected), ROUTE_TOLERANCE),
        Check("loss", relative_error(value, expected_value), ROUTE_TOLERANCE)])


def forms_agree(problem):
    """Token and Gram form: value, gradient, Hessian-vector product; linear attention only."""
    if len(problem.row.forms) == 1:
        return []
    gram, token = (_all_outputs(problem.row.build(form=form), problem) for form in problem.row.forms)
    return combine("forms agree (token, Gram)", [Check(what, relative_error(left, right), ROUTE_TOLERANCE)
                                                 for what, left, right in zip(OUTPUTS, gram, token)])


def workspace_agrees(problem):
    """The training loop's fast path against the reference, wherever it takes another form or kernel: by depth and by d.

    Five prompts in chunks of two: a part of a chunk is left over. In float32 it must compute in float32.
    """
    if not Workspace(problem.model, problem.batch.size).is_fast:
        return []
    parts = []
    for layers, dimension in ((1, 3), (2, 3), (3, 3), (4, 3), (3, BLAS_FROM_DIMENSION), (4, BLAS_FROM_DIMENSION)):
        model, rng = problem.row.build(layers=layers, dimension=dimension), np.random.default_rng(layers)
        theta = 0.3 / np.sqrt(dimension) / model.heads * rng.standard_normal(model.size)
        batch = PromptDistribution(dimension, 2 * dimension).draw(rng, 5)
        expected = (*objective.value_and_gradient(model, theta, batch), objective.prompt_losses(model, theta, batch))
        for chunk, dtype in ((None, "float64"), (2, "float64"), (2, "float32")):
            workspace = Workspace(model, batch.size, dtype, chunk)
            found = (*workspace.value_and_gradient(theta, batch), workspace.prompt_losses(theta, batch))
            where = f"{layers} layers, d = {dimension}, chunk {chunk}, {dtype}"
            tolerance = ROUTE_TOLERANCE if dtype == "float64" else FLOAT32_TOLERANCE
            parts += [Check(f"{what}, {where}", relative_error(left, right), tolerance)
                      for what, left, right in zip(("value", "gradient", "losses"), found, expected)]
            if not found[1].dtype == found[2].dtype == dtype:                 # the losses are the kernel's own
                parts.append(Check(f"dtype, {where}", np.inf, 0))
    return combine("fast path agrees with the reference", parts)


def large_scores(problem):
    """Softmax of scores of 1000 and more: weights are 0 or 1, nothing overflows, differences of the value agree."""
    if problem.row.options["attention"] != "softmax":
        return []
    theta = problem.theta * 40
    with np.errstate(all="ignore"):
        expected, found = predict_by_loops(problem.model, theta, problem.batch, shift=True), \
            objective.predict(problem.model, theta, problem.batch)
        gradient = objective.gradient(problem.model, theta, problem.batch)
        product = _exact_product(problem, theta, np.ones(problem.model.size))
        workspace = Workspace(problem.model, problem.batch.size)
        fast, losses = workspace.value_and_gradient(theta, problem.batch), workspace.prompt_losses(theta, problem.batch)
    finite = all(np.isfinite(part).all() for part in (found, gradient, product, losses, *fast))
    error = max(relative_error(found, expected), relative_error(losses, (expected - problem.batch.target) ** 2))
    return Check("softmax of large scores", error if finite else np.inf, 1e-9)


def hessian_routes(problem):
    """Differences of the gradient, the complex step and the default route, against hand-derived tangents."""
    v = np.random.default_rng(1).standard_normal((2, problem.model.size))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)                         # the point lies away from every kink
        products = {method: hessian_vector_product(problem.model, problem.theta, problem.batch, v, method=method)
                    for method in ("exact", "difference", "complex")}
    tolerances = {"difference": HESSIAN_DIFFERENCE_TOLERANCE, "complex": ROUTE_TOLERANCE}
    default = hessian(problem.model, problem.theta, problem.batch)
    across = problem.row.has_kinks and default.method == "difference"
    error = np.inf if across else relative_error(default @ v[0], products["exact"][0])
    return [*(Check(f"H v, {method} against exact", relative_error(products[method], products["exact"]),
                    tolerances[method]) for method in tolerances),
            Check("H v, the default against exact", error, HESSIAN_DIFFERENCE_TOLERANCE,
                  f"by {default.method}" + (", across kinks" if across else ""))]


def idle_entries(problem):
    """Parameters that cannot reach the prediction: gradient and H v are exactly 0 there."""
    gradient = objective.gradient(problem.model, problem.theta, problem.batch)
    v = np.random.default_rng(1).standard_normal(problem.model.size)
    product, idle = _exact_product(problem, problem.theta, v), ~problem.model.reaches_prediction()
    wrong = np.sum((gradient != 0) & idle) + np.sum((product != 0) & idle)
    if not problem.row.has_kinks:                                    # a dead ReLU makes zeros of its own
        wrong += np.sum((gradient == 0) & ~idle)
    return Check("idle parameters have derivative 0", float(wrong), 0, f"{idle.sum()} of {idle.size} idle")


def float32_agrees(problem):
    theta, batch = problem.theta.astype(np.float32), problem.batch.astype(np.float32)
    value, gradient = objective.value_and_gradient(problem.model, theta, batch)
    expected = objective.value_and_gradient(problem.model, theta.astype(np.float64), batch.astype(np.float64))
    error = max(relative_error(value, expected[0]), relative_error(gradient, expected[1]))
    if gradient.dtype != np.float32:
        error = np.inf
    return Check("float32 against float64", error, FLOAT32_TOLERANCE, f"the gradient is {gradient.dtype}")


def spectrum(problem):
    """The largest eigenvalues by Lanczos (eigsh) and by the dense solver, one Hessian."""
    H = hessian(problem.model, problem.theta, problem.batch, method="exact")
    dense, found = dense_spectrum(H), lanczos(H, k=3, which="LA")
    scale = np.max(np.abs(dense))
    error = np.max(np.abs(found.values - dense[-3:])) / scale if found.converged else np.inf
    return Check("eigenvalues, Lanczos against dense", float(error), SPECTRUM_TOLERANCE,
                 f"residuals {np.max(found.residuals) / scale:.1e}, {found.products} products")


def lanczos_residuals():
    """Residuals that are not small: converged ones are rounding, whatever they say; a loose tolerance leaves some."""
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((300, 300)))
    matrix = rotation * np.linspace(0, 1, 300) @ rotation.T
    rough = lanczos((matrix + matrix.T) / 2, k=2, which="LA", tolerance=0.1)
    expected = np.linalg.norm(matrix @ rough.vectors - rough.vectors * rough.values, axis=0)
    error = np.max(np.abs(expected - rough.residuals)) / np.max(expected) if np.max(expected) > 1e-6 else np.inf
    return Check("residuals of Lanczos, eq. 12.4", float(error), SPECTRUM_TOLERANCE, f"up to {np.max(expected):.1e}")


# --- --full ---


def exact_derivatives(row):
    """Gradient and H v as rational numbers EQUAL the derivatives of interpolating polynomials.

    In every form; behind an embedding, where the degree is 52 and more, in the default form only.
    """
    if not row.is_polynomial:
        return []
    checks = {"exact gradient": [], "exact Hessian-vector product": []}
    every_form = row.options["attention"] == "linear" and row.options["embedding"] is None
    for form in row.forms if every_form else (None,):
        point = rational_problem(row, form)
        v, u = rational(np.random.default_rng(3).uniform(-1, 1, (2, point.model.size)))
        f, gradient = _functions(point)
        checks["exact gradient"].append(check_exact_gradient(f, gradient, point.theta, v, row.degree()))
        # the derivative of <gradient, u> along v is <H u, v>
        checks["exact Hessian-vector product"].append(check_exact_gradient(
            lambda theta, g=gradient, u=u: np.sum(g(theta) * u),
            lambda theta, at=point, u=u: _exact_product(at, theta, u), point.theta, v, row.degree() - 1))
    return [combine(name, parts) for name, parts in checks.items()]


def paper_size(row):
    """Gradient by complex step in 40 coordinates at L = 3, d = 5, n = 20."""
    model = row.build(layers=3, dimension=5)
    rng = np.random.default_rng(11)
    theta = 0.2 * rng.standard_normal(model.size)
    f, gradient = _functions(Problem(row, model, theta, PromptDistribution(5, 20).draw(rng, 3)))
    coordinates = rng.permutation(model.size)[:40]

    def embedded(entries):
        point = theta.astype(entries.dtype)
        point[coordinates] = entries
        return point

    check = check_gradient(lambda entries: f(embedded(entries)), gradient(theta)[coordinates],
                           theta[coordinates], method="complex")
    return Check("gradient, complex, L = 3, d = 5, n = 20", check.error, check.tolerance, check.detail)


CHECKS = [gradient_by_complex_step, gradient_by_differences, taylor_orders, duality, exact_hessian,
          hessian_routes, definition, forms_agree, workspace_agrees, large_scores,
          idle_entries, float32_agrees, spectrum]
FULL_CHECKS = [exact_derivatives, paper_size]
COMMON_CHECKS = [("optimizers", OPTIMIZER_CHECKS), ("one layer", [one_layer_population, covariances]),
                 ("spectra", [lanczos_residuals])]
OUTPUTS = ("value", "gradient", "Hessian-vector product")


def _functions(problem):
    return (lambda theta: objective.value(problem.model, theta, problem.batch),
            lambda theta: objective.gradient(problem.model, theta, problem.batch))


def _exact_product(problem, theta, v):
    return objective.exact_hessian_vector_product(problem.model, theta, problem.batch, v)


def _all_outputs(model, problem):
    v = np.random.default_rng(1).standard_normal(model.size)
    return (*objective.value_and_gradient(model, problem.theta, problem.batch),
            objective.exact_hessian_vector_product(model, problem.theta, problem.batch, v))
