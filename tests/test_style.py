"""The tree is as CONTRIBUTING.md says: ruff finds nothing, imports stand in order, files stay short."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("lintransformer", "tests", "benchmarks", "derivations")
               for path in (ROOT / folder).rglob("*.py"))
LONGEST = 300
LONGER = {"tests/test_diagnostic_figures.py": 410}      # until its figures are exhibits; no new ones

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())


def test_ruff_finds_nothing():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format", "concise", ROOT],
                          capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 0, f"\n{done.stdout}{done.stderr}"


def test_ruff_finds_an_unused_import_with_this_configuration():
    done = subprocess.run([sys.executable, "-m", "ruff", "check", "--stdin-filename", "lintransformer/planted.py", "-"],
                          input='"""A module."""\nimport os\n', capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert done.returncode == 1 and "F401" in done.stdout


@each_file
def test_files_stay_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGER.get(path.relative_to(ROOT).as_posix(), LONGEST)


def place(node):
    """Where an import belongs: __future__, the standard library, packages, this project; `import` before `from`."""
    name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
    top = name.split(".")[0]
    if top == "__future__":
        section = 0
    elif top in sys.stdlib_module_names:
        section = 1
    else:
        section = 3 if top in ("lintransformer", "benchmarks") else 2
    return section, isinstance(node, ast.ImportFrom), name.lower()


def runs(path):
    """The imports of a file, in runs of statements that stand together in one body."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        run = []
        for statement in [*getattr(node, "body", []), None] if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                run.append(statement)
            elif run:
                yield run
                run = []


@each_file
def test_imports_stand_in_order(path):
    for run in runs(path):
        assert [ast.unparse(node) for node in run] == [ast.unparse(node) for node in sorted(run, key=place)]
