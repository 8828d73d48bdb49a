"""Claims on records whose verdict is known by construction, numbers against scipy."""

import io
import re
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import own_configs
import pytest
import records
from click.testing import CliRunner
from rich.console import Console
from scipy import stats

from peftbench.analysis import significance
from peftbench.analysis.comparison import Resamples
from peftbench.analysis.failures import Diverged
from peftbench.claims import matching, missing_runs, schema, tuning, verdicts
from peftbench.claims.schema import Claim, Paper
from peftbench.claims.tuning import TunedRate, TunedRates
from peftbench.claims.verdicts import Verdict
from peftbench.cli.main import main
from peftbench.config import catalog
from peftbench.config.composer import Composer
from peftbench.config.grid import Grid, spell
from peftbench.config.override_parsing import OverrideParser
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record, canonical, identity
from peftbench.core.tuning import Choice, Trial, subject
from peftbench.reports import claims as told
from peftbench.results.choices import save as save_choice
from peftbench.results.store import ResultsFolder

EXAMPLES = 600
PAIR = "method=full,bitfit"


def said(
    *words: str, good: dict[str, float], jump: dict[str, float] | None = None
) -> tuple[list[Record], Resamples]:
    """Runs that are right on a share of the examples; `jump` moves it from seed to seed."""
    made, answers = [], {}
    label = np.arange(EXAMPLES) % 2
    hard = np.random.default_rng(0).random(EXAMPLES)
    for run in records.runs(*words):
        name = run.method.name
        moved = (jump or {}).get(name, 0.0) * (run.seed % 3 - 1)
        wobble = np.random.default_rng(run.seed).normal(0, 0.01, EXAMPLES)
        right = hard + wobble < good[name] + moved
        scores = 2.0 * np.eye(2)[np.where(right, label, 1 - label)]
        answers[run.key] = {"item": np.arange(EXAMPLES), "label": label, "scores": scores}
        made.append(records.record(run, float(right.mean())))
    return made, Resamples(lambda record: answers[record.run.key])


def claim(kind: str, ours: str = "bitfit", against: str | None = "full", **more: Any) -> Claim:
    rows = ({"method": ours}, against and {"method": against})
    said = {"name": "c", "says": "", "source": "", "tag": "found", "published": ""}
    return Claim(**said, kind=kind, pairs=[rows], **more)


def judged(one: Claim, made: list[Record], resamples: Resamples, *found: Evaluated) -> Verdict:
    paper = Paper("p", "P", "none", [one], [])
    (tested,) = verdicts.test([paper], made, list(found), resamples, chosen(made), None, Diverged())
    return tested


def chosen(made: list[Record]) -> TunedRates:
    """As if the rates of these runs had been chosen among three."""
    runs = [record.run for record in made]
    known = {
        (r.model.name, canonical(identity(r.method.to_json())), r.task.name, r.train.lr)
        for r in runs
    }
    return TunedRates(tuple(TunedRate(*one, size=100, trials=3, edge=False) for one in known))


@pytest.mark.parametrize(
    ("bitfit", "verdict"), [(0.8, "supported"), (0.7, "contradicted"), (0.79, "undecided")]
)
def test_not_worse_within_a_margin(bitfit, verdict):
    made = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": bitfit})
    found = judged(claim("not_worse", margin=0.01), *made)
    (cell,) = found.cells
    assert (found.verdict, cell.verdict) == (verdict, verdict)
    assert (cell.null, cell.seeds, cell.examples) == (-0.01, 3, EXAMPLES)
    effect = np.mean([r.score for r in made[0] if r.run.method.name == "bitfit"]) - np.mean(
        [r.score for r in made[0] if r.run.method.name == "full"]
    )
    assert cell.effect.value == pytest.approx(effect)


def test_better_is_told_from_nothing():
    good = {"full": 0.8, "bitfit": 0.9}
    assert judged(claim("better"), *said(PAIR, "seed=0,1,2", good=good)).verdict == "supported"
    good = {"full": 0.9, "bitfit": 0.8}
    assert judged(claim("better"), *said(PAIR, "seed=0,1,2", good=good)).verdict == "contradicted"


def test_one_seed_decides_nothing_and_says_what_would():
    found = judged(claim("better"), *said(PAIR, good={"full": 0.5, "bitfit": 0.9}))
    (cell,) = found.cells
    assert (found.verdict, cell.p, cell.why) == ("undecided", None, "one seed decides nothing")
    assert cell.needed == 3
    assert cell.effect.value == pytest.approx(0.4, abs=0.05)


def test_without_runs_there_is_no_verdict():
    found = judged(claim("better"), *said("method=full", good={"full": 0.8}))
    assert (found.verdict, found.cells) == ("no runs", [])


def test_every_pair_of_rows_must_be_tested_in_as_many_settings():
    good = {"full": 0.8, "bitfit": 0.9, "lora": 0.8}
    made, resamples = said("method=full,bitfit,lora", "seed=0,1,2", "size=32,64", good=good)
    pairs = [({"method": "bitfit"}, {"method": other}) for other in ("full", "lora")]
    one = replace(claim("better", least={"sizes": 2}), pairs=pairs)
    assert judged(one, made, resamples).verdict == "supported"
    once = [r for r in made if r.run.row != "lora" or r.run.size == 32]
    found = judged(one, once, resamples)
    assert (found.verdict, found.why) == ("undecided", "1 of 2 sizes of each pair of rows")


def test_all_cells_must_hold_and_one_contradicts():
    made, resamples = said(PAIR, "seed=0,1,2", "size=32,64", good={"full": 0.8, "bitfit": 0.8})
    one = claim("not_worse", margin=0.01)
    assert judged(one, made, resamples).verdict == "supported"
    assert judged(replace(one, least={"sizes": 3}), made, resamples).verdict == "undecided"
    assert judged(replace(one, least={"sizes": 3}), made, resamples).why == "2 of 3 sizes"
    load = resamples._load
    worse = {
        r.run.key: load(r) | {"scores": load(r)["scores"][:, ::-1]}
        for r in made
        if r.run.size == 64 and r.run.method.name == "bitfit"
    }
    halves = Resamples(lambda r: worse.get(r.run.key) or load(r))
    found = judged(one, made, halves)
    assert found.verdict == "contradicted"
    assert [cell.verdict for cell in found.cells] == ["supported", "contradicted"]
    assert found.deciding.title == "synthetic_paraphrase 64"
    some = judged(
        replace(one, needs="some"), made, Resamples(lambda r: worse.get(r.run.key) or load(r))
    )
    assert some.verdict == "supported"
    raw = sorted(cell.p for cell in found.cells)
    assert sorted(cell.adjusted for cell in found.cells) == pytest.approx(significance.holm(raw))
    most = judged(replace(one, needs="most"), made, halves)
    assert most.verdict == "undecided"  # one of two for it, one against it


def test_a_cell_that_cannot_be_tested_stays_in_the_family():
    made, resamples = said(PAIR, "seed=0,1,2", "size=32,64,128", good={"full": 0.8, "bitfit": 0.9})
    one = replace(claim("better"), needs="some")
    whole = judged(one, made, resamples)
    alone = [r for r in made if r.run.size == 32 or r.run.seed == 0]
    few = judged(one, alone, resamples)
    assert [cell.p is None for cell in few.cells] == [False, True, True]
    p = few.cells[0].p
    assert p == whole.cells[0].p
    assert few.cells[0].adjusted == pytest.approx(min(1, 3 * p))


def test_most_cells_decide():
    words = (PAIR, "seed=0,1,2", "size=32,64,128")
    made, resamples = said(*words, good={"full": 0.8, "bitfit": 0.9})
    one = replace(claim("better"), needs="most")
    assert judged(one, made, resamples).verdict == "supported"
    load = resamples._load
    swapped = {
        r.run.key: load(r) | {"scores": load(r)["scores"][:, ::-1]}
        for r in made
        if r.run.size != 128 and r.run.method.name == "bitfit"
    }
    some = judged(one, made, Resamples(lambda r: swapped.get(r.run.key) or load(r)))
    assert sorted(c.verdict for c in some.cells) == ["contradicted", "contradicted", "supported"]
    assert some.verdict == "contradicted"


def test_what_one_cell_does_not_decide_takes_all_that_the_claim_speaks_of():
    """One size does not refute "sometimes"; one is enough to show it."""
    below, above = ({"full": 0.8, "bitfit": bitfit} for bitfit in (0.7, 0.9))
    one = replace(claim("better", least={"sizes": 2}), needs="some")
    for sizes, good, verdict, why in (
        ("32", below, "undecided", "1 of 2 sizes"),
        ("32,64", below, "contradicted", ""),
        ("32", above, "supported", ""),
    ):
        found = judged(one, *said(PAIR, "seed=0,1,2", f"size={sizes}", good=good))
        assert (found.verdict, found.why) == (verdict, why)
    most = replace(one, needs="most")
    assert judged(most, *said(PAIR, "seed=0,1,2", "size=32", good=below)).verdict == "undecided"
    assert (
        judged(most, *said(PAIR, "seed=0,1,2", "size=32,64", good=below)).verdict == "contradicted"
    )
    pairs = [*one.pairs, ({"method": "lora"}, {"method": "full"})]
    found = judged(replace(one, pairs=pairs), *said(PAIR, "seed=0,1,2", "size=32,64", good=below))
    assert (found.verdict, found.why) == ("undecided", "1 of 2 pairs of rows")


def test_packaged_claims_of_some_cells_say_which_they_speak_of():
    papers = schema.read(None, [catalog.packaged()])
    some = [one for paper in papers for one in paper.claims if one.needs == "some"]
    assert {one.name for one in some} == {
        "bitfit_ahead_in_between",
        "adapters_sometimes_gain_nothing",
    }
    assert all(one.least == {"tasks": 3, "sizes": 3} for one in some)


def test_a_cell_of_which_a_seed_diverged_decides_nothing():
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.5, "bitfit": 0.9})
    runs = records.runs(PAIR, "seed=3")
    one, paper = claim("better"), Paper("p", "P", "none", [claim("better")], [])
    assert judged(one, made, resamples).verdict == "supported"
    gone = Diverged.from_runs(run for run in runs if run.method.name == "bitfit")
    (tested,) = verdicts.test([paper], made, [], resamples, chosen(made), None, gone)
    (cell,) = tested.cells
    assert (tested.verdict, cell.verdict) == ("undecided", "undecided")
    assert cell.why == "seeds of bitfit diverged (1); without them supported"
    assert cell.p < 0.05
    summed, cells, *_ = told.tables([tested], made)
    assert summed.rows[0][-1] == "in 1 of 1 settings a rate at which no seed diverges"
    assert cells.rows[0][-1] == ""  # more seeds do not help
    assert missing_runs.wanted([tested], {"tiny"}) == ([], [])
    assert missing_runs.waiting([tested]) == ["# a rate is needed at which no seed diverges: p c"]


def test_more_seeds_are_not_asked_for_beside_seeds_that_diverged():
    made, resamples = said(
        PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.85}, jump={"bitfit": 0.05}
    )
    paper, runs = Paper("p", "P", "none", [claim("better")], []), records.runs(PAIR, "seed=3")
    for gone, needed in ((runs[:0], True), (runs[:1], False)):
        diverged = Diverged.from_runs(gone)
        (tested,) = verdicts.test([paper], made, [], resamples, chosen(made), None, diverged)
        (cell,) = tested.cells
        assert (cell.verdict, cell.needed is not None) == ("undecided", needed)
    assert cell.why == f"seeds of {runs[0].row} diverged (1)"


def test_p_is_about_the_margin():
    generator = np.random.default_rng(3)
    found = generator.normal(-0.02, 0.004, 8)
    drawn = found + generator.normal(0, 0.003, (20_000, 1))
    at_margin = significance.effect(found, drawn, null=-0.01)
    moved = significance.effect(found + 0.01, drawn + 0.01)
    assert at_margin.p == pytest.approx(moved.p)
    assert at_margin.value == pytest.approx(found.mean())


# spreads


def test_steadier_is_brown_and_forsythe():
    generator = np.random.default_rng(5)
    ours, theirs = generator.normal(0, 0.5, 9), generator.normal(0, 2, 9)
    found = significance.steadier(ours, theirs)
    reference = stats.levene(ours, theirs, center="median")
    assert found.p == pytest.approx(reference.pvalue)
    deviations = [np.abs(side - np.median(side)) for side in (theirs, ours)]
    interval = stats.ttest_ind(*deviations).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx(tuple(interval))
    assert significance.steadier(ours[:2], theirs[:2]) is None


def test_means_and_spreads_over_seeds_against_scipy():
    values = np.random.default_rng(6).normal(1, 2, 7)
    found = significance.student(values, 0.5)
    reference = stats.ttest_1samp(values, 0.5)
    assert found.p == pytest.approx(reference.pvalue)
    assert (found.low, found.high) == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert significance.student(np.array([1.0, 1.0])) is None
    spread = significance.spread(values, 2.0)
    assert spread.low**2 == pytest.approx(6 * np.var(values, ddof=1) / stats.chi2.ppf(0.975, 6))
    assert spread.low < spread.value < spread.high
    seeds = significance.seeds_to_tell(0.0, 1.0, 1.0)
    assert (
        significance.detectable(0.0, 1 / seeds, seeds)
        <= 1
        < significance.detectable(0.0, 1 / (seeds - 1), seeds - 1)
    )
    assert significance.seeds_to_tell(1.0, 1.0, 1.0) is None  # the examples alone leave more open


def test_steadier_and_stable_rows():
    words = (PAIR, "seed=range(0,10)")
    made = said(*words, good={"full": 0.8, "bitfit": 0.7}, jump={"full": 0.1})
    assert judged(claim("steadier"), *made).verdict == "supported"
    assert judged(claim("steadier", "full", "bitfit"), *made).verdict == "contradicted"
    stable = claim("stable_from", "bitfit", None, bound=0.03)
    assert judged(stable, *made).verdict == "supported"
    assert judged(claim("stable_from", "full", None, bound=0.03), *made).verdict == "contradicted"
    few = said(PAIR, "seed=range(0,9)", good={"full": 0.8, "bitfit": 0.7}, jump={"full": 0.1})
    found = judged(claim("steadier"), *few)
    assert (found.verdict, found.cells[0].why) == ("undecided", "fewer than 10 seeds")


def test_collapses_are_spread_only_where_some_runs_do_not_collapse():
    made, resamples = said("method=bitfit", "seed=range(0,6)", "task=cola", good={"bitfit": 0.9})
    load = resamples._load
    constant = np.tile([1.0, 0.0], (EXAMPLES, 1))
    stable = claim("stable_from", "bitfit", None, bound=0.1)
    for collapsed, verdict in ((0, "supported"), (3, "contradicted"), (6, "undecided")):
        some = [
            replace(r, collapsed=r.run.seed < collapsed, trivial={"matthews": None}) for r in made
        ]
        flat = {r.run.key: load(r) | {"scores": constant} for r in some if r.collapsed}
        found = judged(stable, some, Resamples(lambda r, flat=flat: flat.get(r.run.key) or load(r)))
        assert found.verdict == verdict
        if collapsed == 3:  # Matthews of a constant prediction is 0: three at 0, three near 0.8
            whole = np.array([0.0] * 3 + [_matthews(load(r)) for r in some if not r.collapsed])
            assert found.cells[0].effect.value == pytest.approx(np.std(whole, ddof=1))
    assert found.cells[0].why == "undefined: 6 of 6 runs collapsed, which is not steadiness"


def test_a_row_of_dead_runs_is_not_steadier():
    words = (PAIR, "seed=range(0,10)")
    made, resamples = said(*words, good={"full": 0.8, "bitfit": 0.7}, jump={"full": 0.1})
    assert judged(claim("steadier"), made, resamples).verdict == "supported"

    def dead(method):
        return [replace(r, collapsed=r.run.row == method and r.run.seed > 4) for r in made]

    found = judged(claim("steadier"), dead("bitfit"), resamples)
    assert found.verdict == "undecided"
    assert found.cells[0].why == "undefined: 5 of 10 runs collapsed, which is not steadiness"
    summed, cells, *_ = told.tables([found], made)
    rate = "a rate at which fewer than half of the runs collapse"
    assert summed.rows[0][-1] == f"in 1 of 1 settings {rate}"
    assert cells.rows[0][-1] == ""
    assert missing_runs.waiting([found]) == [f"# {rate.replace('rate', 'rate is needed')}: p c"]
    assert judged(claim("steadier"), dead("full"), resamples).verdict == "supported"


def _matthews(arrays: dict[str, np.ndarray]) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(arrays["label"], arrays["scores"].argmax(axis=1)))


def test_undefined_scores_are_said():
    made, resamples = said(PAIR, "seed=0,1", "task=cola", good={"full": 0.8, "bitfit": 0.9})
    load = resamples._load
    flat = {
        r.run.key: load(r) | {"scores": np.tile([1.0, 0.0], (EXAMPLES, 1))}
        for r in made
        if r.run.method.name == "bitfit"
    }
    found = judged(claim("better"), made, Resamples(lambda r: flat.get(r.run.key) or load(r)))
    assert found.verdict == "contradicted"  # a constant prediction counts as 0
    assert found.cells[0].effect.value < -0.5
    all_flat = [replace(r, collapsed=True) for r in made]
    assert "on both sides" in judged(claim("better"), all_flat, resamples).cells[0].why


def test_of_several_rows_the_one_with_most_seeds_counts():
    words = ("method=full,bitfit", "when=method=bitfit: train.lr=1e-3,2e-3")
    made, resamples = said(*words, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.8})
    (cell,) = judged(claim("better"), made, resamples).cells
    assert "several rows fit" in cell.why
    fewer = [r for r in made if not (r.run.train.lr == 2e-3 and r.run.seed)]
    (cell,) = judged(claim("better"), fewer, resamples).cells
    assert (cell.seeds, cell.sides[0].run.train.lr) == (3, 1e-3)


# evaluations


def test_what_suites_found_is_paired_over_seeds():
    words = records.tiny(PAIR, "seed=0,1,2", "suite=noise")
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.8})
    lost = {"full": [0.30, 0.34, 0.33], "bitfit": [0.1, 0.12, 0.14]}
    found = []
    for e in plan(*words).evaluations:
        drop = lost[e.run.method.name][e.run.seed]
        findings = {"clean": 0.8, "area": 0.8 - drop}
        found.append(Evaluated(e, findings, {}, {}, records.ENVIRONMENT, None))
    tested = judged(claim("better", measure="noise_drop"), made, resamples, *found)
    (cell,) = tested.cells
    reference = stats.ttest_rel(lost["full"], lost["bitfit"])
    assert tested.verdict == "supported"
    assert cell.p == pytest.approx(reference.pvalue)
    assert cell.effect.value == pytest.approx(np.mean(lost["full"]) - np.mean(lost["bitfit"]))


def shifted(gains: list[float], untrained: float = 0.5, examples: int = 400) -> tuple[Any, ...]:
    """Runs, their evaluations on two sets, and the predictions: each has what it says."""
    words = records.tiny("method=full", f"seed=range(0,{len(gains)})", "suite=shift")
    made, resamples = said("method=full", f"seed=range(0,{len(gains)})", good={"full": 0.8})
    found, arrays, generator = [], {}, np.random.default_rng(0)
    hard = generator.random(examples)
    for e in plan(*words).evaluations:
        here: dict[str, np.ndarray] = {}
        targets = {}
        for name, gain in (("near", gains[e.run.seed]), ("far", 0.0)):
            label = np.arange(examples) % 2
            parts = {"": hard < untrained + gain, "untrained/": hard < untrained}
            for start, right in parts.items():
                chosen_class = np.where(right, label, 1 - label)
                here[f"scores/{start}{name}"] = 2.0 * np.eye(2)[chosen_class]
            here[f"label/{name}"] = here[f"label/untrained/{name}"] = label
            scores = {"accuracy": float(parts[""].mean()), "auc": 0.5}
            before = {"accuracy": float(parts["untrained/"].mean()), "auc": 0.5}
            targets[name] = {"metric": "accuracy", "scores": scores, "untrained": before}
            targets[name] |= {"trivial": 0.5}
        arrays[e.key] = here
        found.append(Evaluated(e, {"targets": targets}, {}, {}, records.ENVIRONMENT, None))
    return made, resamples, found, lambda one: arrays[one.evaluation.key]


def test_scores_on_other_sets_are_resampled_over_seeds_and_examples():
    made, resamples, found, load = shifted([0.10, 0.12])
    one = claim("better", "full", None, measure="over_untrained", targets=["near"], rates="given")
    paper = Paper("p", "P", "none", [one], [])
    (seeds,) = verdicts.test([paper], made, found, resamples, TunedRates(), None, Diverged())
    (cell,) = seeds.cells  # the other set is left out
    assert (cell.examples, cell.why, seeds.verdict) == (None, "fewer than 3 seeds", "undecided")
    (both,) = verdicts.test([paper], made, found, resamples, TunedRates(), load, Diverged())
    (cell,) = both.cells
    assert (cell.examples, both.verdict) == (400, "supported")
    # differences of 0 and 1: on resamples their mean is a binomial share
    gaps = [t["near"] for t in (f.findings["targets"] for f in found)]
    gap = [g["scores"]["accuracy"] - g["untrained"]["accuracy"] for g in gaps]
    assert cell.effect.value == pytest.approx(np.mean(gap))
    error = np.sqrt(np.mean(gap) * (1 - np.mean(gap)) / 400)
    assert cell.effect.low < np.mean(gap) - 1.9 * error
    assert cell.effect.high > np.mean(gap) + 1.9 * error
    worse = replace(one, measure="below_untrained")
    (tested,) = verdicts.test(
        [replace(paper, claims=[worse])], made, found, resamples, None, load, Diverged()
    )
    assert tested.verdict == "contradicted"
    assert tested.cells[0].effect.value == pytest.approx(-np.mean(gap))
    majority = replace(one, measure="over_majority", metric={"near": "auc"})
    (tested,) = verdicts.test(
        [replace(paper, claims=[majority])], made, found, resamples, None, load, Diverged()
    )
    assert tested.cells[0].why == "undefined for 2 of 2 runs", "of another metric it is not known"


@pytest.mark.parametrize(
    ("trivial", "why"),
    [
        ((0.5, 0.5), ""),
        ((0.79, 0.7), ""),  # one that fails does not undo what the other shows
        ((0.79, 0.79), "undefined: 2 runs of full are on average -1.75 points above the constant"),
    ],
)
def test_a_model_that_has_not_learned_its_task_decides_nothing(trivial, why):
    """Whoever predicts one class for all but a text forgets nothing, and transfers nothing."""
    made, resamples, found, load = shifted([0.10, 0.12])
    made = [replace(one, trivial={"accuracy": trivial[one.run.seed]}) for one in made]
    one = claim("better", "full", None, measure="over_untrained", targets=["near"], rates="given")
    paper = Paper("p", "P", "none", [one, replace(one, learned=0.02)], [])
    plain, guarded = verdicts.test([paper], made, found, resamples, TunedRates(), load, Diverged())
    assert plain.verdict == "supported"
    assert guarded.verdict == ("undecided" if why else "supported")
    assert guarded.cells[0].why.startswith(why)
    both = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.8})
    low = [replace(r, trivial={"accuracy": max(trivial)}) for r in both[0]]
    tested = judged(claim("not_worse", margin=0.05, learned=0.02), low, both[1])
    assert tested.verdict == ("supported" if trivial == (0.5, 0.5) else "undecided")


@pytest.mark.parametrize(("who", "verdict"), [("both", "undecided"), ("ours", "supported")])
def test_a_side_that_learns_nothing_may_be_what_is_claimed(who, verdict):
    """That something does not help is shown by its learning nothing."""
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.5, "bitfit": 0.8})
    made = [replace(r, trivial={"accuracy": 0.5}) for r in made]
    one = replace(claim("not_worse", margin=0.05, learned=0.02), learned_by=who)
    assert judged(one, made, resamples).verdict == verdict


@pytest.mark.parametrize(("room", "why"), [(0.1, ""), (0.2, "15.0 points above a constant")])
def test_what_a_model_did_not_know_before_training_it_cannot_lose(room, why):
    made, resamples, found, load = shifted([-0.01, 0.01, 0.0], untrained=0.65, examples=2000)
    for one in found:
        one.findings["targets"]["near"]["untrained"]["accuracy"] = 0.65
    one = claim("not_worse", "full", None, measure="over_untrained", targets=["near"], margin=0.1)
    one = replace(one, rates="given", room=room)
    paper = Paper("p", "P", "none", [one], [])
    (tested,) = verdicts.test([paper], made, found, resamples, TunedRates(), load, Diverged())
    assert why in tested.cells[0].why
    assert tested.verdict == ("undecided" if why else "supported")


def test_demonstrations_that_leave_one_answer_are_no_small_gain():
    words = records.tiny("method=full", "seed=0,1,2", "suite=in_context")
    made, resamples = said("method=full", "seed=0,1,2", good={"full": 0.8})
    found = []
    for e in plan(*words, "prompt=demonstrations", "prompt.num_demonstrations=0").evaluations:
        gain = -0.01 * e.run.seed
        findings = {"counts": [0, 2, 4], "differences": [0.0, gain, gain - 0.3]}
        findings["constant"] = [False, False, e.run.seed == 1]
        found.append(Evaluated(e, findings, {}, {}, records.ENVIRONMENT, None))
    made = [replace(r, run=e.evaluation.run) for r, e in zip(made, found, strict=True)]
    one = claim("not_worse", "full", None, measure="demonstration_loss", margin=0.05)
    one = replace(one, rates="given")
    two, four = judged(one, made, resamples, *found).cells
    assert (two.verdict, four.verdict) == ("supported", "undecided")
    told = "undefined for 1 of 3 runs: all texts get one answer behind the demonstrations"
    assert four.why == told


def test_a_setting_without_a_common_seed_stays_in_the_family():
    words = records.tiny(PAIR, "seed=0,1,2", "size=32,64", "suite=noise")
    made, resamples = said(PAIR, "seed=0,1,2", "size=32,64", good={"full": 0.8, "bitfit": 0.8})
    lost = {"full": [0.30, 0.34, 0.33], "bitfit": [0.1, 0.12, 0.14]}
    found = [
        Evaluated(
            e,
            {"clean": 0.8, "area": 0.8 - lost[e.run.method.name][e.run.seed]},
            {},
            {},
            records.ENVIRONMENT,
            None,
        )
        for e in plan(*words).evaluations
        if e.run.size == 32 or e.run.seed == (e.run.method.name == "full")
    ]
    tested = judged(claim("better", measure="noise_drop"), made, resamples, *found)
    first, second = tested.cells
    assert (first.verdict, second.verdict, tested.verdict) == ("supported", *["undecided"] * 2)
    assert (second.seeds, second.why) == (0, "no seed in common")
    some = replace(claim("better", measure="noise_drop"), needs="some")
    assert judged(some, made, resamples, *found).cells[0].adjusted == pytest.approx(2 * first.p)


@pytest.mark.parametrize("outputs", ["two classes", "another unit", "one value"])
def test_values_on_another_set_are_scored_as_the_suite_scores_them(outputs):
    """Log odds of two classes; values of 0 to 5 are not flat beside labels of 0 to 1,000."""
    made, resamples, found, _ = shifted([0.0] * 3)
    generator, arrays = np.random.default_rng(1), {}
    label = generator.uniform(0, 1000, 400)
    for one in found:
        near = {"metric": "pearson", "trivial": 0.0}
        here = {"label/near": label}
        for start, noise in (("", 300), ("untrained/", 3000)):
            value = (label + generator.normal(0, noise, 400)) / 1000
            if outputs == "one value" and not start:
                value = 0.5 + 1e-3 * value
            scores = (
                np.stack([-value, value], axis=1) if outputs == "two classes" else value[:, None]
            )
            here[f"scores/{start}near"] = scores.astype(np.float32)
            score = float(np.corrcoef(value, label)[0, 1])
            flat = outputs == "one value" and not start
            near["untrained" if start else "scores"] = {"pearson": 0.0 if flat else score}
        one.findings["targets"] = {"near": near}
        arrays[one.evaluation.key] = here
    asked = claim("better", "full", None, measure="over_untrained", rates="given")
    paper = Paper("p", "P", "none", [asked], [])

    def cell():
        (tested,) = verdicts.test(
            [paper],
            made,
            found,
            resamples,
            None,
            lambda one: arrays[one.evaluation.key],
            Diverged(),
        )
        return tested.cells[0]

    gaps = [
        one["scores"]["pearson"] - one["untrained"]["pearson"]
        for one in (each.findings["targets"]["near"] for each in found)
    ]
    assert cell().examples == 400
    assert cell().effect.value == pytest.approx(np.mean(gaps), abs=1e-5)
    assert (cell().effect.value > 0.3) == (outputs != "one value")
    found[0].findings["targets"]["near"]["scores"]["pearson"] += 0.01
    assert cell().examples is None  # predictions of another score: seeds alone


def test_a_constant_prediction_does_not_win_by_losing_nothing():
    words = records.tiny(PAIR, "seed=0,1,2", "suite=noise")
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.8})
    made = [
        replace(one, collapsed=one.run.method.name == "bitfit" and one.run.seed == 1)
        for one in made
    ]
    found = [
        Evaluated(
            e,
            {"clean": 0.8, "area": 0.8 - (e.run.method.name == "full") * 0.1 * e.run.seed},
            {},
            {},
            records.ENVIRONMENT,
            None,
        )
        for e in plan(*words).evaluations
    ]
    tested = judged(claim("better", measure="noise_drop"), made, resamples, *found)
    assert (tested.verdict, tested.cells[0].why) == (
        "undecided",
        "undefined: 1 of 6 runs collapsed, for which this figure is at its best",
    )


def test_a_pair_without_runs_leaves_a_claim_open():
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.6, "bitfit": 0.8})
    one = claim("better")
    assert judged(one, made, resamples).verdict == "supported"
    more = replace(one, pairs=[*one.pairs, ({"method": "lora"}, {"method": "full"})])
    tested = judged(more, made, resamples)
    assert (tested.verdict, tested.why) == ("undecided", "1 of 2 pairs of rows")
    assert judged(replace(more, needs="some"), made, resamples).verdict == "supported"


# papers, words, verbs


def test_every_paper_reads_and_its_words_compose():
    searched = catalog.folders()
    composer, parser = Composer(searched), OverrideParser(searched)
    found = schema.read(None, searched)
    assert {paper.name for paper in found} >= {"doering2024", "unipelt2022", "bh_peft2025"}
    seen = set()
    for one in (one for paper in found for one in paper.claims if one.pairs):
        sides = {key for pair in one.pairs for side in pair if side for key in side}
        picked = [
            [f"{k}={v}" for k, v in s.items() if k != matching.FRACTION]
            for pair in one.pairs
            for s in pair
            if s
        ]
        assert one.runs
        for words in [*(text.split() for text in one.runs), *picked]:
            for cell in Grid.read(words, parser, None).cells(composer):
                apart = {k: v for k, v in cell.items() if k not in ("task", "size", "seed")}
                if spell(apart) in seen:
                    continue
                seen.add(spell(apart))
                node = composer.nodes(cell)
                assert node["method"]["name"] == cell["method"]
                if "suite" in cell:
                    composer.suite(cell, node["task"]["name"])
        assert "method" in sides


def sides(one: Claim) -> list[schema.Conditions]:
    """What picks a claim's rows, but for what is of a suite or of a part of the data."""
    told = [side for pair in one.pairs for side in pair if side]
    return [
        {
            key: value
            for key, value in side.items()
            if key != matching.FRACTION and not key.startswith("suite.")
        }
        for side in told
    ]


@pytest.mark.parametrize("name", sorted(catalog.options("paper", (catalog.packaged(),))))
def test_the_runs_of_a_claim_are_those_that_it_picks(name):
    (paper,) = schema.read([name], [catalog.packaged()])
    for one in paper.claims:
        made = [
            records.record(run)
            for text in one.runs
            for run in plan(*re.sub(r"seed=range\S+", "seed=0", text).split()).runs
        ]
        for side in sides(one):
            assert matching.picked(made, side), (one.name, side)


@pytest.mark.parametrize("form", ["mini", "paper"])
def test_claims_of_unipelt_are_about_the_methods_of_its_sweeps(form):
    (paper,) = schema.read(["unipelt2022"], [catalog.packaged()])
    swept = {canonical(run.method.to_json()) for run in plan(f"sweep=unipelt2022_{form}").runs}
    asked = {
        canonical(run.method.to_json())
        for one in paper.claims
        for text in one.runs
        for run in plan(*text.split()).runs
    }
    assert asked == swept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind: betr", "did you mean better"),
        ("tag: foun", "did you mean found"),
        ("kind: stable_from", "has a bound"),
        ("marjin: 0.1", "did you mean margin"),
        ("measure: noise_dro", "did you mean noise_drop"),
        ("measure", "not a yaml"),
        ("says: 3", "c: says must be a text, got 3; put it in quotes"),
        ("ours: [method=a]", "a row is a text such as method=lora, got ['method=a']"),
        ("ours: rank=3", "'rank=3' names no method"),
        ("against: [3]", "a row is a text such as method=lora, got 3"),
        ("against: []", "nothing to compare"),
        ("pairs: [method=a]", "c: pairs: each is [OURS, AGAINST], got 'method=a'"),
        ("pairs: 3", "c: pairs must be a list, got 3"),
        ("fraction: 0.3", "c: fraction must be [FROM, TO], two rising numbers from 0 to 1"),
        ("fraction: [a, b]", "two rising numbers from 0 to 1, got ['a', 'b']"),
        ("sizes: [1]", "c: sizes must be [FROM, TO], two rising numbers from 0 on, got [1]"),
        ("sizes: [5, 1]", "two rising numbers from 0 on, got [5, 1]"),
        ("margin: abc", "c: margin must be a number of at least 0, got 'abc'"),
        ("learned: yes", "c: learned must be a number of at least 0, got True"),
        ("learned_by: theirs", "c: learned_by theirs; allowed: both, ours"),
        ("room: 0.1", "c: room is of a measure against the model before training"),
        ("margin: .nan", "c: margin must be a number of at least 0, got nan"),
        ("tasks: [3]", "c: tasks: each must be a text, got 3"),
        ("budget: 3", "c: budget 3; allowed: epochs, seconds, steps"),
        ("least: 3", "c: least must be a mapping, got 3"),
        ("least: {tasks: x}", "c: least: tasks must be a whole number of at least 1, got 'x'"),
        ("runs: method", "c: runs: write key=value words, got 'method'"),
    ],
)
def test_a_paper_that_says_what_no_claim_can(tmp_path, change, message):
    with pytest.raises(ConfigError) as caught:
        mine(tmp_path, change)
    assert message in str(caught.value)
    assert "mine.yaml" in str(caught.value)


def mine(folder: Path, change: str, figures: str = "") -> Paper:
    """A user's own paper with one claim, of which a line is changed or added."""
    lines = ["says: s", "source: s", "tag: found", "kind: better", "published: none"]
    key = change.partition(":")[0]
    ours = [] if key in ("ours", "pairs") else ["ours: method=lora"]
    body = [*(line for line in lines if not line.startswith(f"{key}:")), *ours, change]
    if key == "ours":
        body.append("against: method=full")
    (folder / "paper").mkdir()
    text = "paper: P\nidentifier: none\nclaims:\n  c:\n" + "".join(f"    {one}\n" for one in body)
    (folder / "paper" / "mine.yaml").write_text(text + figures)
    (found,) = schema.read(["mine"], catalog.folders(folder))
    return found


def test_a_task_of_a_claim_is_a_name_and_not_a_part_of_one(tmp_path):
    (one,) = mine(tmp_path, "tasks: mrpc").claims
    assert one.tasks == ["mrpc"]


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("3", "figures: scores must be a mapping, got 3"),
        ("{method=lora: 3}", "scores: method=lora must be a mapping, got 3"),
        ("{lora: {}}", "write key=value words, got 'lora'"),
        ("{method=lora: {mrpc: {}}}", "'mrpc' is no TASK METRIC"),
        ("{method=lora: {mrpc f1: {most: '3'}}}", "examples (full is all) must be a whole number"),
        ("{method=lora: {mrpc f1: {100: 81.80}}}", "100 must be a text, got 81.8; put it in"),
    ],
)
def test_figures_that_no_paper_prints(tmp_path, scores, message):
    told = f"figures:\n  - {{source: s, tag: found, model: M, caveat: c, scores: {scores}}}\n"
    with pytest.raises(ConfigError) as caught:
        mine(tmp_path, "margin: 0", told)
    assert message in str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own configs: a method and a claim of it."""
    folder = own_configs.with_wrappers(tmp_path / "own", {"wrapped": "lora"})
    (folder / "paper").mkdir()
    (folder / "paper" / "mine.yaml").write_text(
        "paper: P\nidentifier: none\nclaims:\n  c: {says: s, source: s, tag: found, kind: better, "
        "published: none, ours: method=wrapped, against: method=full, "
        "runs: 'method=wrapped,full task=mrpc'}\n"
    )
    return folder


def test_commands_that_would_decide_claims_search_the_users_own_configs(own, tmp_path):
    words = records.tiny("method=wrapped,full", "seed=0,1")
    results = ResultsFolder(tmp_path / "some")
    label = np.arange(20) % 2
    for run in plan(*words, configs=own).runs:
        right = np.random.default_rng(run.seed).random(20) < 0.7
        scores = 2.0 * np.eye(2)[np.where(right, label, 1 - label)]
        arrays = {"item": np.arange(20), "label": label, "scores": scores}
        results.save(records.record(run, float(right.mean())), arrays)
    lines = missing_runs.commands(results, ("paper=mine",), own)
    assert not [line for line in lines if line.startswith("# no words")]
    commands = [shlex.split(line) for line in lines if not line.startswith("#")]
    assert commands
    keys = set()
    for command in commands:
        assert command[:6] == [
            *("peftbench", "run", "--results", str(results.folder), "--configs", str(own))
        ]
        keys |= {run.key for run in plan(*command[6:], configs=own).runs}
    assert keys >= {record.run.key for record in results.scan()[0]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.79})
    results = ResultsFolder(tmp_path / "some")
    for record in made:
        results.save(record, resamples._load(record))
    return results.folder


def report(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(main, ["report", "claims", *map(str, words)])
    return done.exit_code, done.output


def test_the_verb_prints_verdicts_and_words_that_plan(folder):
    code, text = report("paper=unipelt2022", "--results", folder)
    assert (code, "no runs" in text) == (0, True)
    code, text = report("paper=robust2024", "--plan", "--results", folder)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert code == 0
    assert lines
    for line in lines:
        verb, words = shlex.split(line)[:2], shlex.split(line)[4:]
        assert verb == ["peftbench", "run"]
        assert plan(*words).runs


def test_the_terminal_says_it_in_a_hundred_columns(folder):
    made, resamples = said(PAIR, "seed=0,1,2", "size=32,64", good={"full": 0.8, "bitfit": 0.79})
    asked = claim("better"), claim("not_worse", margin=0.01)
    tested = [judged(one, made, resamples) for one in asked]
    wide, narrow = (told.tables(tested, made, narrow=here) for here in (False, True))
    cells = [line for table in narrow if table.columns[0] == "setting" for line in table.rows]
    assert [line[0] for line in cells] == [line[2] for line in wide[1].rows]
    assert len(cells) > 2
    for table in narrow:
        file = io.StringIO()
        Console(width=100, file=file).print(table.rich())
        assert "…" not in file.getvalue()
        assert max(map(len, file.getvalue().splitlines())) <= 100
    assert "threshold" in " ".join(table.title for table in narrow)
    code, text = report("paper=unipelt2022", "--results", folder)
    assert (code, "deciding setting" in text) == (0, False)


def test_seeds_that_would_decide_are_words_of_the_same_runs():
    good = {"full": 0.8, "bitfit": 0.85}
    made, resamples = said(PAIR, "seed=0,1,2", good=good, jump={"bitfit": 0.05})
    tested = judged(claim("better"), made, resamples)
    (cell,) = tested.cells
    assert tested.verdict == "undecided"
    found, lost = missing_runs.wanted([tested], {"tiny"})
    assert not lost
    assert cell.needed > 3
    keys = {run.key for one in found for run in plan(*one.overrides).runs}
    assert keys >= {record.run.key for record in made}
    assert len(keys) == 2 * cell.needed


def test_seeds_needed_count_what_seeds_answer_to_examples_once():
    """Seeds that err on examples of their own: more of them lessen that, so fewer are asked for."""
    generator, label = np.random.default_rng(4), np.arange(EXAMPLES) % 2
    made, answers = [], {}
    for run in records.runs(PAIR, "seed=range(0,4)"):
        right = generator.random(EXAMPLES) < (0.82 if run.method.name == "bitfit" else 0.8)
        made.append(records.record(run, float(right.mean())))
        scores = np.eye(2)[np.where(right, label, 1 - label)]
        answers[run.key] = {"item": np.arange(EXAMPLES), "label": label, "scores": scores}
    resamples = Resamples(lambda record: answers[record.run.key])
    (cell,) = judged(claim("better"), made, resamples).cells
    drawn = resamples.for_records(made)
    full, bitfit = (
        drawn.places([r for r in made if r.run.method.name == name]) for name in ("full", "bitfit")
    )
    gaps = drawn.drawn[:, bitfit] - drawn.drawn[:, full]
    each, mean = gaps.var(axis=0).mean(), gaps.mean(axis=1).var()
    between = np.var(drawn.whole[bitfit] - drawn.whole[full], ddof=1)
    items = mean - min((each - mean) / 3, mean, between / 4)
    assert cell.needed == significance.seeds_to_tell(items, between, cell.effect.value)
    twice = significance.seeds_to_tell(mean, between, cell.effect.value)
    assert (cell.needed, twice) == (24, None)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["paper=doring2024"], "did you mean doering2024"),
        (["task=synthetic_paraphras"], "did you mean synthetic_paraphrase"),
        (["metod=lora"], "did you mean method"),
        (["paper"], "write paper=NAME"),
    ],
)
def test_bad_words_name_what_was_meant(folder, words, message):
    code, text = report(*words, "--results", folder)
    assert code == 2
    assert message in text


def test_published_figures_stand_beside_ours_alone():
    paper = schema.read(["unipelt2022"], catalog.folders())
    runs = records.runs("method=full,bitfit", "task=stsb", "size=1000", "seed=0,1")
    made = [records.record(run, 0.5 + run.seed / 10) for run in runs]
    load = {"item": np.arange(9), "label": np.arange(9.0), "scores": np.arange(9.0)[:, None]}
    tested = verdicts.test(paper, made, [], Resamples(lambda record: load), None, None, Diverged())
    table = told.tables(tested, made)[-1]
    rows = {row[3]: row for row in table.rows}
    assert rows["bitfit"][5:] == ["55.0 ± 7.1 (2)", "79.04 ± 0.61"]
    assert "BERT-base, theirs" in table.columns


# rates, metrics, sizes, conjectures


def trials(method: str, rates: dict[float, float], task: str = "stsb") -> list[Record]:
    """Runs of a grid of rates, each with its score on a selection split."""
    words = (f"method={method}", f"task={task}", "size=800", "checkpoint_selection=best_on_holdout")
    made = []
    for run in records.runs(*words, f"train.lr={','.join(map(str, rates))}"):
        selection = {"step": 4, "loss": 1.0, "pearson": rates[run.train.lr]}
        made.append(replace(records.record(run, 0.1), selection=selection))
    return made


def test_the_smallest_rate_within_a_point_of_the_best_is_the_choice():
    made = trials("bitfit", {1e-4: 0.5, 1e-3: 0.795, 3e-3: 0.8, 1e-2: 0.1})
    choices = TunedRates.from_records(made)
    (choice,) = choices.known
    assert (choice.rate, choice.trials, choice.size, choice.edge) == (1e-3, 4, 800, False)
    by_rate = {record.run.train.lr: record.run for record in made}
    assert choices.of_run(by_rate[1e-3]) == choice
    assert choices.of_run(by_rate[3e-3]) is None
    (elsewhere,) = records.runs("method=bitfit", "task=mrpc", "train.lr=1e-3")
    assert choices.of_run(elsewhere) is None
    assert not TunedRates.from_records(
        trials("bitfit", {1e-3: 0.7, 3e-3: 0.8})
    ).known  # two are no search


@pytest.mark.parametrize(
    ("tuned", "good", "verdict"),
    [
        ([], 0.9, "undecided"),
        (["bitfit"], 0.9, "undecided"),  # the other one may only have been trained badly
        (["full"], 0.9, "supported"),
        (["full"], 0.7, "undecided"),
        (["bitfit"], 0.7, "contradicted"),
    ],
)
def test_only_the_side_that_is_behind_has_to_be_tuned(tuned, good, verdict):
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": good})
    choices = chosen([record for record in made if record.run.method.name in tuned])
    paper = Paper("p", "P", "none", [claim("better")], [])
    (found,) = verdicts.test([paper], made, [], resamples, choices, None, Diverged())
    (cell,) = found.cells
    assert found.verdict == verdict
    if verdict == "undecided":
        behind = "full" if good > 0.8 else "bitfit"
        at = "supported" if good > 0.8 else "contradicted"
        rate = {r.run.method.name: r.run.train.lr for r in made}[behind]
        assert cell.why == (
            f"rate not chosen for synthetic_paraphrase here: {behind} {rate:g}; at these rates {at}"
        )
        assert "rates that are chosen on the task" in told.tables([found], made)[0].rows[0][-1]
        assert missing_runs.wanted([found], {"tiny"}) == ([], [])
        assert missing_runs.untuned([found]) == ["p c"]


def test_a_choice_at_the_edge_of_its_grid_is_told():
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.7})
    known = tuple(replace(one, edge=True) for one in chosen(made).known)
    paper = Paper("p", "P", "none", [claim("better")], [])
    (found,) = verdicts.test([paper], made, [], resamples, TunedRates(known), None, Diverged())
    (cell,) = found.cells
    rate = {r.run.method.name: r.run.train.lr for r in made}["bitfit"]
    assert (cell.verdict, cell.why) == (
        "contradicted",
        f"rate at the edge of its grid: bitfit {rate:g}",
    )


@pytest.mark.parametrize("same_size", [True, False])
def test_a_choice_among_collapsed_trials_says_nothing_of_other_sizes(same_size):
    """At its own size no rate trains the method; at another one nobody has tried."""
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.7})
    size = made[0].run.counted_size if same_size else 7
    known = tuple(replace(one, size=size, collapsed=True) for one in chosen(made).known)
    paper = Paper("p", "P", "none", [claim("better")], [])
    (found,) = verdicts.test([paper], made, [], resamples, TunedRates(known), None, Diverged())
    (cell,) = found.cells
    rate = {r.run.method.name: r.run.train.lr for r in made}["bitfit"]
    why = f"rate chosen at 7 examples, where all its trials collapsed: bitfit {rate:g}"
    assert cell.verdict == ("contradicted" if same_size else "undecided")
    assert cell.why == ("" if same_size else f"{why}; at these rates contradicted")
    assert missing_runs.untuned([found]) == ([] if same_size else ["p c"])


def test_choices_are_those_of_a_folder_and_of_the_trials_beside_it(tmp_path):
    for record in trials("bitfit", {1e-4: 0.5, 1e-3: 0.8, 3e-3: 0.6}):
        ResultsFolder(tmp_path / "tuning").save(record, records.predictions())
    choices = tuning.beside(ResultsFolder(tmp_path / "mine"), [])
    assert [one.rate for one in choices.known] == [1e-3]
    assert tuning.beside(ResultsFolder(tmp_path / "other" / "mine"), []) == TunedRates()


def test_choices_that_tune_made_count(tmp_path):
    (run,) = records.runs("method=bitfit", "train.lr=1e-3", "size=64")
    made = [Trial("0" * 12, rate, 1000, None, 1, 0.8, False, 1.0) for rate in (1e-4, 1e-3, 3e-3)]
    few = Choice(subject(run), 1e-3, "accuracy", "", made[:2], None)
    save_choice(ResultsFolder(tmp_path), few)
    assert tuning.beside(ResultsFolder(tmp_path), []) == TunedRates()  # two are no search
    save_choice(ResultsFolder(tmp_path), replace(few, trials=made, edge="highest"))
    found = tuning.beside(ResultsFolder(tmp_path), []).of_run(run)
    assert found is not None
    assert (found.rate, found.size, found.trials, found.edge) == (1e-3, 64, 3, True)


def test_a_change_of_one_method_needs_equal_rates():
    grid = ("method=full,bitfit", "when=method=full: train.lr=RATE", "seed=0,1,2")
    for rate, verdict in (("1e-3", "supported"), ("2e-3", "undecided")):
        words = [word.replace("RATE", rate) for word in grid]
        made, resamples = said(*words, "train.lr=1e-3", good={"full": 0.8, "bitfit": 0.9})
        one = claim("better", rates="alike")
        paper = Paper("p", "P", "none", [one], [])
        (found,) = verdicts.test([paper], made, [], resamples, TunedRates(), None, Diverged())
        assert found.verdict == verdict
    assert "0.001 and 0.002 are neither equal nor chosen from as many" in found.cells[0].why
    assert judged(one, made, resamples).verdict == "supported"  # both chosen among three


def test_a_claim_is_tested_on_the_metric_that_it_names():
    made, resamples = said(PAIR, "seed=0,1,2", "task=mrpc", good={"full": 0.7, "bitfit": 0.8})
    (accuracy,) = judged(claim("better"), made, resamples).cells
    (f1,) = judged(claim("better", metric={"mrpc": "f1"}), made, resamples).cells
    assert (accuracy.of, f1.of) == ("accuracy", "f1")
    from sklearn.metrics import f1_score

    scores = {}
    for record in made:
        arrays = resamples._load(record)
        one = f1_score(arrays["label"], arrays["scores"].argmax(axis=1))
        scores.setdefault(record.run.method.name, []).append(one)
    gap = np.mean(scores["bitfit"]) - np.mean(scores["full"])
    assert f1.effect.value == pytest.approx(gap)
    assert accuracy.effect.value != pytest.approx(gap)


def test_parts_of_the_data_are_compared_over_sizes():
    words = ("method=bitfit", "task=mrpc", "seed=0,1,2")
    made, answers = [], {}
    for part, good, steps in ((0.3, 0.8, 4), (1.0, 0.9, 6)):
        own = (f"size={part}", f"budget.steps={steps}")
        here, resamples = said(*words, *own, good={"bitfit": good})
        made += [replace(r, work=r.work | {"train_size": r.run.counted_size}) for r in here]
        answers |= {record.run.key: resamples._load(record) for record in here}
    one = replace(
        claim("not_worse", margin=0.02),
        pairs=[({"method": "bitfit", "fraction": 0.3}, {"method": "bitfit", "fraction": 1})],
    )
    paper = Paper("p", "P", "none", [one], [])
    resamples = Resamples(lambda record: answers[record.run.key])
    (found,) = verdicts.test([paper], made, [], resamples, TunedRates(), None, Diverged())
    (cell,) = found.cells
    assert (found.verdict, cell.title) == ("contradicted", "mrpc")  # at one rate: no choice needed
    assert (cell.ours, cell.against) == ("bitfit, fraction=0.3", "bitfit, fraction=1")
    score = {part: np.mean([r.score for r in made if r.run.size == part]) for part in (0.3, "full")}
    assert cell.effect.value == pytest.approx(score[0.3] - score["full"])


def test_a_part_of_the_data_is_so_many_whole_examples():
    """30 % of MRPC is 1,100 of 3,668, which is less than 0.3; of CoLA too, of STS-B more."""
    words = ("method=full", "task=mrpc,cola,stsb", "size=0.29,0.3,0.9,full")
    made = [
        replace(r, work=r.work | {"train_size": r.run.counted_size})
        for r in map(records.record, records.runs(*words))
    ]
    by_method, _ = matching.items(made, [])
    found = matching.places(claim("stable_from", "full", None, fraction=(0.3, 0.9)), by_method)
    assert {one.place[:2] for one in found} == {
        *(("mrpc", 1100), ("cola", 2565), ("stsb", 1725)),
        *(("mrpc", 3301), ("cola", 7696), ("stsb", 5174)),
    }


def test_what_no_paper_claims_stands_apart():
    made, resamples = said(PAIR, "seed=0,1,2", good={"full": 0.8, "bitfit": 0.9})
    papers = schema.read(None, catalog.folders())
    tested = verdicts.test(papers, made, [], resamples, None, None, Diverged())
    tables = {table.title: table for table in told.tables(tested, made)}
    papers_own = {line[0] for line in tables["Claims"].rows}
    ours = [line[:2] for line in tables["Our conjectures"].rows]
    assert "robust2024" not in papers_own
    assert {line[0] for line in ours} >= {"robust2024"}
    assert ["bh_peft2025", "chained_priors_forget_less"] in ours
    (line,) = [line for line in tables["Claims"].rows if line[1] == "best_on_average"]
    assert (line[2], line[-1]) == (
        "not testable",
        "averages over GLUE's eight tasks; three of them are here",
    )
