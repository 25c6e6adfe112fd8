"""Values, gradients and Hessians of every model against PyTorch's float64 autodiff of the literal token form.

    python -m benchmarks.gradients_against_autodiff [--jax]

Prints one line a model with the largest error relative to the largest entry, and exits with 1 if any exceeds
the bar. "Fast path" is the gradient of `lt.Workspace` where it has one of its own; "Hessian" the exact one,
column by column. `--jax` adds JAX (token form, and Gram form for linear attention) in float64 to the
comparison.
"""
import argparse
import itertools
import sys
import zlib

import numpy as np

import lintransformer as lt
from benchmarks import peers
from benchmarks.cases import Case, prompts
from benchmarks.peers import layout, torch_literal
from lintransformer.objective import exact_hessian_vector_product

BAR = 1e-10
WIDTH = 21
VARIANTS = {"linear": [{"form": form} for form in ("gram", "token")],
            "softmax": [{"mask": mask} for mask in ("after", "before")],
            "relu": [{"mask": mask} for mask in ("after", "before")]}


def rows():
    """(case, keyword arguments of build_model) of every combination, at sizes where every axis differs."""
    for attention, parametrization, heads, embedding in itertools.product(
            VARIANTS, ("block", "full", "separate"), (1, 2), (None, 7)):
        for variant in VARIANTS[attention]:
            case = Case("", layers=2 + (heads == 1), dimension=4, context_length=6, batch_size=5,
                        attention=attention, parametrization=parametrization, heads=heads,
                        embedding=embedding, mask=variant.get("mask", "after"))
            yield case, {**case.model, **variant}


def point(case, label):
    """theta (p,) far from zero, and a batch: other numbers for every row, the same ones every time."""
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    return rng.normal(size=layout.size(case)) * 0.5, *prompts(case, int(rng.integers(1000)))


def error(ours, theirs):
    """Largest difference relative to the largest entry of theirs."""
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


def label(case, arguments):
    """The row's name: attention, parametrization, heads, embedding, variant."""
    return (f"{case.attention:8} {case.parametrization:9} {case.heads} {case.embedding or 'none'!s:>5}"
            f"  {arguments.get('form', 'mask ' + case.mask):12}")


def compare(case, arguments, name, jax_peers):
    """Errors of one row: {"value": ..., "gradient": ..., ...}, without what the model does not have."""
    theta, Z, target = point(case, name)
    model, batch = lt.build_model(**arguments), lt.Prompts(Z, target)
    value, gradient = lt.value_and_gradient(model, theta, batch)
    expected_value, expected_gradient = torch_literal.value_and_gradient(theta, Z, target, case)
    H = exact_hessian_vector_product(model, theta, batch, np.eye(model.size))
    errors = {"value": error(value, expected_value), "gradient": error(gradient, expected_gradient),
              "Hessian": error(H, torch_literal.hessian(theta, Z, target, case))}
    workspace = lt.Workspace(model, batch.size)
    if workspace.is_fast:
        errors["fast path"] = error(workspace.value_and_gradient(theta, batch)[1], expected_gradient)
    for peer in jax_peers:
        if peers.supports(peer, case, "gradient"):
            errors[peer] = error(gradient, peers.load(peer).value_and_gradient(theta, Z, target, case)[1])
    return errors


def jax_in_float64():
    """Names of the JAX peers, with JAX set to float64."""
    import jax
    jax.config.update("jax_enable_x64", True)
    return ["jax", "jax-gram"]


def main(argv=None):
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gradients_against_autodiff",
                                     description=__doc__.split("\n")[0])
    parser.add_argument("--jax", action="store_true", help="compare with JAX too")
    jax_peers = jax_in_float64() if parser.parse_args(argv).jax else []
    columns = ["value", "gradient", "fast path", "Hessian", *jax_peers]
    title = "attention parametrization heads embedding variant"
    print(f"{title:46}" + "".join(f"{column:>{WIDTH}}" for column in columns))
    failures, worst = 0, 0.0
    models = list(rows())
    for case, arguments in models:
        row = label(case, arguments)
        errors = compare(case, arguments, row, jax_peers)
        passed = all(value <= BAR for value in errors.values())              # NaN fails
        failures, worst = failures + (not passed), float(np.max([worst, *errors.values()]))
        cells = "".join(f"{errors[name]:>{WIDTH}.1e}" if name in errors else " " * WIDTH for name in columns)
        print(f"{row:46}{cells}  {'ok' if passed else 'FAILS'}")
    print(f"{len(models)} models, {failures} above the bar of {BAR:g}; largest error {worst:.1e}")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
