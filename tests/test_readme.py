"""What the README says is true: its Python blocks run, its commands exist, its links resolve."""

import re
from pathlib import Path

import pytest

from lintransformer.cli import build_parser

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_python_blocks_run_in_order():
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert len(blocks) == 2 and namespace["gradient"].shape == (150,)


def test_shell_commands_are_those_of_the_command_line():
    commands = re.findall(r"lintransformer (run [^`|\n]*|verify|list|info)", README)
    assert any(command.startswith("run fig2") for command in commands)
    for command in ("run fig2", "run fig2 fig4 --preset smoke", "verify --full", "list", "info"):
        build_parser().parse_args(command.split())


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\((?!https?:)([^)#]+)", README))))
def test_links_resolve(target):
    assert (ROOT / target).exists()


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text()
    assert "<!-- test command -->" in script and "<!-- test command -->" in README
    command = re.search(r"<!-- test command -->\n```sh\n(.*?)\n```", README, re.DOTALL).group(1)
    assert command.endswith("-m pytest") and "\n" not in command
