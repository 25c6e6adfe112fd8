"""Imports run one way: down the list below, never up and never in a circle."""

import ast
from pathlib import Path

import lintransformer

ROOT = Path(lintransformer.__file__).parent

# From the ground up; a module may import from its own line or from any line above it.
LAYERS = [
    ["checks", "memory"],
    ["files"],
    ["random"],
    ["prompts", "responses"],
    ["distributions"],
    ["layers.compose", "layers.attention", "layers.readout"],
    ["layers"],
    ["losses"],
    ["objective"],
    ["kernels.layouts"],
    ["kernels.chunks", "kernels.block", "kernels.vectors", "kernels.softmax", "kernels.embedding"],
    ["kernels.evaluator"],
    ["models.transformer"],
    ["models.build"],
    ["models.zoo"],
    ["workspace"],
    ["optimizers"],
    ["training"],
    ["diagnostics"],
    ["verification"],
    ["paper"],
    ["cli"],
]


def modules():
    for path in sorted(ROOT.rglob("*.py")):
        yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(path.read_text())


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written in full"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rank(name):
    ranks = [i for i, names in enumerate(LAYERS) for layer in names
             if name == layer or name.startswith((layer + ".", layer + "_"))]
    return max(ranks, default=None)


def edges():
    for module, tree in modules():
        for target in imported(tree):
            name = target.removeprefix("lintransformer.")
            if name != target and (ROOT / Path(*name.split("."))).with_suffix(".py").exists():
                yield module, name


def test_every_module_has_its_place():
    placeless = [name for name, _ in modules() if rank(name) is None and not name.endswith(("__init__", "__main__"))]
    assert not placeless


def test_no_import_runs_upward():
    upward = [(module, target) for module, target in edges()
              if rank(module) is not None and rank(target) > rank(module)]
    assert not upward


def test_no_circle():
    graph = {}
    for module, target in edges():
        graph.setdefault(module, set()).add(target)

    def reachable(start):
        seen, todo = set(), [start]
        while todo:
            for target in graph.get(todo.pop(), ()):
                if target not in seen:
                    seen.add(target)
                    todo.append(target)
        return seen

    assert len(graph) > 10
    assert not [module for module in graph if module in reachable(module)]


def test_the_package_and_its_tests_know_no_autograd():
    forbidden = {"torch", "jax", "autograd", "tensorflow", "numba", "cupy", "benchmarks"}
    tests = [ast.parse(path.read_text()) for path in Path(__file__).parent.glob("*.py")]
    trees = [tree for _, tree in modules()] + tests
    assert not {name.split(".")[0] for tree in trees for name in imported(tree)} & forbidden


def test_no_string_names_a_module():
    """A string that names a module is an import that nothing here sees; docstrings may name what they like."""
    names = {".".join(("lintransformer", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
             for path in ROOT.rglob("*.py")} - {"lintransformer"}
    for module, tree in modules():
        docstrings = {node.body[0].value for node in ast.walk(tree)
                      if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                assert node.value.partition(":")[0] not in names, (module, node.lineno, node.value)
            if isinstance(node, ast.FormattedValue):
                assert not (isinstance(node.value, ast.Name) and node.value.id == "__name__"), (module, node.lineno)
            if isinstance(node, ast.Call):
                called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
                assert called not in ("import_module", "__import__"), (module, node.lineno)
