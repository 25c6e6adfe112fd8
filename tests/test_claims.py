"""The ledger: verdicts follow from the numbers, and every verdict can come out."""
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from toy_claims import FALSE, MIXED, TRUE, World, nothing

from lintransformer.checks import InputError
from lintransformer.paper.claims import CLAIMS, claim_cells, ledger
from lintransformer.paper.claims.registry import decide
from lintransformer.paper.claims.study import Convention
from lintransformer.paper.claims.verdicts import (AGREES, DEPENDS, DIFFERS, NOT_TESTABLE, UNDECIDED, Reading,
                                                  Region, above, below, combine, t_interval, within)
from lintransformer.paper.figures.ledger import FIGURES, SINGLE
from lintransformer.paper.options import Options
from lintransformer.paper.store import plain

PAPER = Options(preset="paper")
SAMPLED = sorted(set(CLAIMS) - {15})  # claim 15 is arithmetic: no world can change it


def verdicts(world, options=PAPER, ids=None):
    return {entry["id"]: entry["verdict"] for entry in ledger(world, options, ids)["claims"]}


def reading(values, region, **more):
    return Reading("part", "statistic", dict(enumerate(values)), region, **more)


@pytest.mark.parametrize("world, verdict", [(TRUE, AGREES), (FALSE, DIFFERS), (MIXED, UNDECIDED)],
                         ids=["true", "false", "mixed"])
def test_every_claim_is_judged_by_the_numbers(world, verdict):
    found = verdicts(world)
    assert {id: found[id] for id in SAMPLED} == dict.fromkeys(SAMPLED, verdict)


def test_claim_15_depends_on_what_variance_means():
    entry, = ledger(nothing, PAPER, [15])["claims"]
    assert entry["verdict"] == DEPENDS
    assert {convention["name"]: convention["verdict"]
            for convention in entry["conventions"]} == {
                "variance of the squared length ||x||^2": AGREES,
                "variance of the covariates themselves": DIFFERS, "variance of ||x||^2, sampled": AGREES,
                "variance of the covariates, sampled": DIFFERS
            }
    assert [part["value"] for part in entry["parts"]][1:] == pytest.approx([1, 0.2])


@pytest.mark.parametrize("options, world", [(PAPER, nothing), (Options(preset="smoke"), TRUE),
                                            (Options(preset="paper", settings=("L8d20n60",)), nothing)],
                         ids=["not run", "smoke", "settings left out"])
def test_what_was_not_run_or_too_small_is_not_testable(options, world):
    found = verdicts(world, options)
    assert {found[id] for id in SAMPLED} == {NOT_TESTABLE}


def test_one_seed_decides_nothing():
    assert verdicts(TRUE, Options(preset="paper", seeds=(0,)), [1, 3, 4, 5, 18]) == dict.fromkeys(
        (1, 3, 4, 5, 18), UNDECIDED)


@pytest.mark.parametrize("status", ["diverged", "failed", "timed out", "missing"])
def test_an_unfinished_run_keeps_a_claim_from_agreeing(status):
    world = World(TRUE.sign, lambda cell: status if cell.config["seed"] == 3 else "done")
    entry, = ledger(world, PAPER, [1])["claims"]
    assert entry["verdict"] == UNDECIDED and status in entry["why"]
    assert entry["parts"][0]["by_seed"]["3"] is None and entry["parts"][0]["n"] == 5


@pytest.mark.parametrize("id, settings", [(1, ("S1", "S3")), (7, ("S1", "separate")), (13, ("L2", "L4")),
                                          (16, ("S1",))])
def test_a_part_of_a_claim_is_not_the_claim(id, settings):
    options = Options(preset="paper", settings=settings)
    entry, = ledger(TRUE, options, [id])["claims"]
    assert entry["verdict"] == UNDECIDED and entry["why"].startswith("not run: ")
    assert verdicts(FALSE, options, [id])[id] == DIFFERS


def test_one_setting_against_the_claim_is_enough_to_differ():
    class World2(World):
        def final(self, config):
            sgdm_wins = config["distribution"]["context_length"] == 5 and config["optimizer"]["name"] == "sgd"
            return super().final(config) - 5 * sgdm_wins

    entry, = ledger(World2(TRUE.sign), PAPER, [1])["claims"]
    assert entry["verdict"] == DIFFERS and "Setting 2" in entry["why"] and "Setting 1" not in entry["why"]


def test_a_verdict_that_hangs_on_a_convention_says_so():
    class World2(World):
        def train(self, cell):
            trace = super().train(cell)
            if trace and cell.config["optimizer"]["name"] == "adam":
                trace["evaluation_median"] = 100 * trace["evaluation_median"]
            return trace

    entry, = ledger(World2(TRUE.sign), PAPER, [1])["claims"]
    assert entry["verdict"] == AGREES
    assert [name for name in entry["hangs_on"] if name.startswith("median")] == [
        f"median over prompts, evaluation seed {seed}" for seed in (99, 100, 101)
    ]


def test_the_ledger_is_plain_and_says_what_it_rests_on():
    book = ledger(TRUE, PAPER)
    json.dumps(plain(book), allow_nan=False)
    assert [entry["id"] for entry in book["claims"]] == list(range(1, 20))
    known = {cell.key for cell in claim_cells(PAPER)}
    for entry in book["claims"]:
        assert set(entry["cells"]) <= known and (entry["cells"] or entry["id"] == 15)
        assert entry["command"] == f"lintransformer run claim{entry['id']} --preset paper"
        assert entry["why"] and entry["decided_by"] and sum(c["primary"] for c in entry["conventions"]) >= 1
    printed = {part["part"]: part["paper"] for part in book["claims"][2]["parts"]}
    assert printed["Setting 3: n = 20, heavy-tailed, iteration 750"] == "9.57 (13.3)" and len(printed) == 6


def test_the_command_repeats_the_options():
    options = Options(preset="laptop", seeds=(0, 4), settings=("S1",), rates={"adam": 0.02}, steps=2000)
    entry, = ledger(nothing, options, [1])["claims"]
    assert entry["command"] == (
        "lintransformer run claim1 --preset laptop --seeds 0,4 --settings S1 --adam-rate 0.02 "
        "--steps 2000")


def test_the_cells_found_are_those_that_are_read():
    for id in CLAIMS:
        asked = set()

        def get(cell):
            asked.add(cell.key)
            return TRUE(cell)

        ledger(get, PAPER, [id])
        assert asked <= {cell.key for cell in claim_cells(PAPER, [id])}


@pytest.mark.parametrize("world", [TRUE, nothing], ids=["all there", "nothing there"])
def test_the_ledger_is_drawn_and_written(world):
    drawing = FIGURES[0].draw(world, PAPER)
    assert set(drawing.files) == {
        "claims.json", *(f"tables/{name}.{ending}" for name in ("claims", "claims-conventions")
                         for ending in ("csv", "json", "md"))
    }
    assert len(json.loads(drawing.files["claims.json"])["claims"]) == 19
    assert drawing.files["tables/claims.csv"].count("\n") == 20
    assert set(SINGLE["claim7"].draw(
        world, PAPER).files) == {f"tables/claim7.{ending}"
                                 for ending in ("csv", "json", "md")}


def test_an_unknown_claim_is_refused():
    with pytest.raises(InputError, match="claim 20 is not known; allowed: 1, 2, "):
        claim_cells(PAPER, [20])


@pytest.mark.parametrize("values, region, verdict", [([2.0, 2.1, 1.9], above(1), AGREES),
                                                     ([0.5, 0.6, 0.4], above(1), DIFFERS),
                                                     ([0.5, 2.0, 1.0], above(1), UNDECIDED),
                                                     ([0.5, 0.6, 0.4], below(1), AGREES),
                                                     ([1.1, 0.9, 1.0], within(2), AGREES),
                                                     ([5.0, 5.1, 4.9], within(2), DIFFERS),
                                                     ([0.1, 0.11, 0.09], within(2), DIFFERS),
                                                     ([1.8, 2.2, 2.0], within(2), UNDECIDED),
                                                     ([2.0], above(1), UNDECIDED),
                                                     ([None, None], above(1), NOT_TESTABLE),
                                                     ([2.0, 2.1, None], above(1), UNDECIDED),
                                                     ([0.5, 0.51, None], above(1), UNDECIDED),
                                                     ([math.inf, 2.0, 2.1], above(1), UNDECIDED)])
def test_a_reading_is_judged(values, region, verdict):
    assert reading(values, region).verdict == verdict


def test_ratios_are_averaged_on_their_logarithms():
    estimate, low, high = reading([0.5, 2.0], above(1)).interval
    assert estimate == pytest.approx(1) and low * high == pytest.approx(1)
    assert reading([-1.0, 3.0], above(0), ratio=False).interval[0] == pytest.approx(1)


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(1, 2, 6)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((values.mean(), expected.low, expected.high))
    assert np.isnan(t_interval([1.0])[1:]).all() and np.isnan(t_interval([])).all()


def test_a_claim_that_is_not_true_agrees_seldom():
    """Under mu = 0, the claim mu > 0 may agree in 2.5 % of the cases, and differ in as many."""
    draws = np.random.default_rng(1).standard_normal((4000, 6))
    found = [above(0).judge(*t_interval(values)[1:]) for values in draws]
    for verdict in (AGREES, DIFFERS):
        assert stats.binomtest(found.count(verdict), 4000, 0.025).pvalue > 1e-3


numbers = st.floats(-1e6, 1e6)


@given(st.lists(numbers, min_size=2, max_size=8), numbers)
def test_the_opposite_claim_has_the_opposite_verdict(values, edge):
    opposite = {AGREES: DIFFERS, DIFFERS: AGREES, UNDECIDED: UNDECIDED}
    one, other = (reading(values, region, ratio=False).verdict for region in (above(edge), below(edge)))
    mirrored = reading([-value for value in values], below(-edge), ratio=False).verdict
    low, high = reading(values, above(edge), ratio=False).interval[1:]
    if edge not in (low, high):
        assert other == opposite[one]
    assert mirrored == one


@given(st.lists(st.sampled_from([AGREES, DIFFERS, UNDECIDED, NOT_TESTABLE]), min_size=1))
def test_combined_verdicts(parts):
    verdict = combine(parts)
    assert (verdict == DIFFERS) == (DIFFERS in parts)
    assert (verdict == AGREES) == (set(parts) == {AGREES})
    assert (verdict == NOT_TESTABLE) == (set(parts) == {NOT_TESTABLE})


def test_contradicting_primary_conventions_depend():
    yes, no = (Convention(name, (reading(values, above(1)),), True)
               for name, values in (("a", [2, 2.01]), ("b", [0.5, 0.49])))
    assert decide([yes, no])[0] == DEPENDS and decide([yes])[0] == AGREES and decide([])[0] == NOT_TESTABLE
    assert str(Region(1, 2)) == "between 1 and 2"
