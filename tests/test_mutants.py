"""The battery notices planted mistakes: proof that its checks can fail, and which check finds what."""

import re
from pathlib import Path

import pytest
from mutants import MUTANTS, Mutant, planted

from lintransformer.losses import SquaredError
from lintransformer.models.zoo import ZOO
from lintransformer.verification.battery import CHECKS, COMMON_CHECKS, run_checks
from lintransformer.verification.problems import problem

DERIVATIONS = Path(__file__).parents[1] / "derivations"


def failures(model_name):
    """The names of the failing checks of one row of the table, or of the optimizers."""
    if model_name is None:
        rows = [row for name, checks in COMMON_CHECKS for row in run_checks(name, checks)]
    else:
        row, = (row for row in ZOO if row.name == model_name)
        rows = run_checks(row.name, CHECKS, problem(row))
    return {row.check.name for row in rows if not row.check.passed}


@pytest.mark.parametrize("model_name", sorted({str(mutant.model) for mutant in MUTANTS}))
def test_nothing_fails_before_planting(model_name):
    assert failures(None if model_name == "None" else model_name) == set()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_battery_catches(mutant):
    with planted(mutant):
        caught = failures(mutant.model)
    assert mutant.caught_by in caught, f"caught by {sorted(caught)}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_names_an_equation_of_a_chapter(mutant):
    chapter, equation = re.fullmatch(r"(\d\d), eq\. (\d+\.\d+)", mutant.chapter).groups()
    path, = DERIVATIONS.glob(f"{chapter}-*.md")
    assert f"\\tag{{{equation}}}" in path.read_text()


def test_a_mutant_whose_pattern_is_gone_fails_loudly():
    absent = Mutant("absent", SquaredError.value, "no such source", "", "linear-block", "", "01, eq. 1.10")
    with pytest.raises(AssertionError, match="stands 0 times in SquaredError.value"), planted(absent):
        pass


def test_planting_leaves_nothing_behind():
    mutant = MUTANTS[0]
    before = mutant.function.__code__
    with planted(mutant):
        assert mutant.function.__code__ is not before
    assert mutant.function.__code__ is before
