"""What is declared is what is true: dependencies, lowest versions, licence, citation, what a distribution holds."""

import ast
import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import lintransformer
from lintransformer.cli import build_parser

ROOT = Path(__file__).parents[1]
OPTIONAL = {"hypothesis": "test"}       # may be imported by the package though only an extra brings it
SKIPPED = {"build", "dist", "results", "__pycache__"}

CONFIG = configparser.ConfigParser()
CONFIG.read(ROOT / "setup.cfg", encoding="utf-8")


def entries(section, option):
    return [line.strip() for line in CONFIG[section][option].splitlines() if line.strip()]


def requirements(lines):
    """{name: lowest version} of lines such as "numpy>=2.0" and "ruff>=0.16,<0.18"."""
    found = {}
    for line in lines:
        match = re.fullmatch(r"([a-z][a-z0-9-]*)>=(\d+(?:\.\d+)*)(?:,<\d+(?:\.\d+)*)?", line)
        assert match, f"{line!r} does not say its lowest version"
        found[match[1]] = match[2]
    return found


REQUIRED = requirements(entries("options", "install_requires"))
EXTRAS = {name: requirements(entries("options.extras_require", name)) for name in CONFIG["options.extras_require"]}


def tracked():
    """Every file of the repository, as a path from its top; of an unpacked distribution, every file in it."""
    try:
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT,
                                capture_output=True, text=True, check=True).stdout.split("\0")
        return sorted(name for name in listed if name and (ROOT / name).is_file()) or walked()
    except (OSError, subprocess.CalledProcessError):
        return walked()


def walked():
    names = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name not in SKIPPED and not name.endswith(".egg-info")
                      and (not name.startswith(".") or name == ".ci")]
        names += [(Path(folder) / name).relative_to(ROOT).as_posix() for name in files]
    return sorted(names)


def imported_packages():
    for path in sorted((ROOT / "lintransformer").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (alias.name.split(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module.split(".")[0]


def test_every_import_is_declared_and_every_dependency_is_imported():
    third_party = set(imported_packages()) - set(sys.stdlib_module_names) - {"lintransformer"}
    assert third_party - set(OPTIONAL) == set(REQUIRED)
    assert all(name in EXTRAS[extra] for name, extra in OPTIONAL.items())


def test_every_lowest_version_is_one_that_can_be_tested():
    """tests/lowest.txt pins each dependency, the extra of the tests included, to the lowest that is declared."""
    lines = (ROOT / "tests" / "lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    declared = REQUIRED | EXTRAS["test"]
    assert set(pinned) == set(declared)
    for name, lowest in declared.items():
        assert f"{pinned[name]}.".startswith(f"{lowest}."), (name, lowest, pinned[name])


def test_the_python_that_runs_is_among_those_named():
    lowest = re.fullmatch(r">=3\.(\d+)", CONFIG["options"]["python_requires"])[1]
    named = re.findall(r"Python :: 3\.(\d+)$", CONFIG["metadata"]["classifiers"], re.M)
    assert named == [str(minor) for minor in range(int(lowest), int(lowest) + len(named))]
    assert sys.version_info >= (3, int(lowest))


def test_what_is_no_module_is_packaged():
    patterns = entries("options.package_data", "lintransformer")
    assert "py.typed" in patterns
    folder = ROOT / "lintransformer"
    covered = {path.relative_to(ROOT).as_posix() for pattern in patterns for path in folder.glob(pattern)}
    data = {name for name in tracked() if name.startswith("lintransformer/") and not name.endswith(".py")}
    assert data == covered


def test_the_licence_is_there_and_named_alike_everywhere():
    assert CONFIG["metadata"]["license_expression"] == "MIT"
    assert entries("metadata", "license_files") == ["LICENSE"]
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").startswith("MIT License\n\nCopyright (c) ")
    assert re.search(r"^license: MIT$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)


def test_the_citation_reads_as_yaml_and_has_the_version():
    """Without a YAML parser: every line is a key, a list item, or both, indented by twos; texts are quoted."""
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    for line in text.splitlines():
        indent, value = re.fullmatch(r"( *(?:- )?)[a-z-]+:(?: (.+))?", line).groups()
        assert len(indent) % 2 == 0, line
        assert value is None or re.fullmatch(r'"[^"]*"|[\w.-]+', value), line
    top = dict(re.findall(r"^([a-z-]+): ?(.*)$", text, re.M))
    assert {"cff-version", "message", "title", "authors", "version", "license", "references"} <= set(top)
    assert top["version"] == lintransformer.__version__
    assert "arXiv:2310.01082" in text


def test_the_changelog_has_this_version():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.M)
    assert len(headings) == text.count("\n## ") and headings[0] == ("Unreleased", "")
    assert all(date for _, date in headings[1:])
    version = lintransformer.__version__
    assert version in dict(headings) or ".dev" in version


def test_a_source_distribution_holds_all_that_the_tests_read():
    """Everything that is tracked goes in: by MANIFEST.in, or by itself."""
    manifest = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split("\n")
    words = [line.split() for line in manifest if line]
    grafted = tuple(f"{folder}/" for command, *folders in words if command == "graft" for folder in folders)
    included = {name for command, *names in words if command == "include" for name in names}
    by_itself = {"README.md", "MANIFEST.in", "pyproject.toml", "setup.cfg", "PKG-INFO"}
    left_out = {name for name in tracked()
                if not name.startswith(("lintransformer/", *grafted)) and name not in included | by_itself}
    assert left_out <= {".gitignore"}
    assert all((ROOT / name).exists() for name in (*grafted, *included))


CONTRIBUTING = ROOT / "CONTRIBUTING.md"


def test_what_contributors_are_told_exists():
    text = CONTRIBUTING.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 280
    named = re.findall(r"\]\(([^)]+)\)", text)
    named += re.findall(r"\b(?:tests|derivations|benchmarks)/[\w./-]+\.(?:py|md|txt)", text)
    assert len(named) > 20 and not [name for name in named if not (ROOT / name).exists() and "NN" not in name]
    commands = re.findall(r"\.venv/bin/lintransformer ([^\n`]+)", text)
    assert commands
    for command in commands:
        build_parser().parse_args(command.split())


def test_no_file_names_a_registry():
    """Where packages come from is the reader's choice: pip's configuration, not ours."""
    hosts = [".".join(parts) for parts in (
        ("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "com"), ("npmjs", "org"), ("anaconda", "org"),
        ("crates", "io"), ("debian", "org"), ("piwheels", "org"))]
    texts = [name for name in tracked() if not name.endswith((".npz", ".png", ".pdf"))]
    naming = [(name, host) for name in texts for host in hosts
              if host in (ROOT / name).read_text(encoding="utf-8").lower()]
    assert not naming


HEAVY = ("scipy", "matplotlib", "hypothesis", "jinja2", "tqdm", "threadpoolctl", "filelock")


@pytest.mark.parametrize("hidden", [(), HEAVY], ids=["with everything", "with NumPy alone"])
def test_the_public_checks_need_numpy_alone(hidden, tmp_path):
    """An engineer who copies the checks installs nothing else: what is None in sys.modules cannot be imported."""
    code = f"""
import sys
for name in {hidden!r}:
    sys.modules[name] = None
import numpy
import lintransformer, lintransformer.verification
check = lintransformer.verification.check_gradient(lambda x: (x**3).sum(), lambda x: 3 * x**2, numpy.ones(3))
assert check.passed, check
loaded = [name for name in {HEAVY!r} if sys.modules.get(name)]
assert not loaded, f"loaded: {{loaded}}"
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                          env=environment)
    assert done.returncode == 0, done.stderr


def test_numpy_is_the_version_that_is_asked_for():
    assert tuple(map(int, np.__version__.split(".")[:2])) >= tuple(map(int, REQUIRED["numpy"].split(".")))
