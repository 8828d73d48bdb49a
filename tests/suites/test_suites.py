"""Suites: what they ask, of which texts, and what they say to answers that are known."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from records import predictions, record, runs, tiny
from suite_records import found as found_by_hand
from suite_records import trained

from peftbench.cli.main import main
from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import batching, loading, prompt_config
from peftbench.data.loading import LabelledTexts
from peftbench.data.text_noise import EDITS
from peftbench.data.tokenization import TokenizedSplit
from peftbench.evaluation import evaluator
from peftbench.metrics import task_metrics
from peftbench.reports import calibration as calibration_report
from peftbench.results.store import ResultsFolder
from peftbench.suites import base, noise
from peftbench.suites.in_context import InContext
from peftbench.suites.noise import area
from peftbench.training.trainer import execute

SUITES = sorted(catalog.options("suite", (catalog.packaged(),)))


def planned(*words):
    return plan(*tiny(*words)).evaluations


def one(*words):
    (evaluation,) = planned(*words)
    return evaluation, base.build_suite(evaluation.suite)


def outputs(label, good=1.0, seed=0):
    """Log odds that are right for a share of the labels."""
    generator = np.random.default_rng(seed)
    right = generator.random(len(label)) < good
    said = np.where(right, label, 1 - label)
    scores = generator.random((len(label), 2)) + np.eye(2)[said]
    return scores.astype(np.float32)


# planning


def test_suites_are_crossed_with_runs_and_change_no_run():
    found = plan(*tiny("method=lora,bitfit", "seed=0,1", "suite=noise,calibration"))
    assert found.runs == plan(*tiny("method=lora,bitfit", "seed=0,1")).runs
    assert (found.cells, len(found.evaluations), found.repeats) == (4, 8, [])
    assert len({evaluation.key for evaluation in found.evaluations}) == 8


def test_key_depends_on_the_run_and_the_suite_and_not_on_prose():
    (first,), (other,) = planned("suite=noise"), planned("suite=noise", "suite.seed=1")
    (third,) = planned("suite=noise", "seed=1")
    (fewer,) = planned("suite=noise", "suite.examples=200")
    assert len({first.key, other.key, third.key, fewer.key}) == 4
    targets = [f"suite.targets={{synthetic_paraphrase:{{examples:{n}}}}}" for n in (20, 40, 40)]
    keys = [planned("suite=shift", words)[0].key for words in targets]
    assert (len(set(keys)), keys[1]) == (2, keys[2])
    assert Evaluation(first.run, first.suite | {"about": "x"}).key == first.key
    assert Evaluation.from_json(json.loads(json.dumps(first.to_json()))) == first


def test_a_suite_in_a_sweep_and_under_a_condition(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "own.yaml").write_text(
        "grid: [seed=0, 'suite=noise,calibration']\nwhen:\n  - suite=noise: suite.examples=40\n"
    )
    found = plan(*tiny("sweep=own"), configs=tmp_path).evaluations
    assert {e.suite["name"]: e.suite["examples"] for e in found} == {
        "noise": 40,
        "calibration": 500,
    }


def test_word_order_is_no_noise_to_acceptability():
    (first,), (other,) = (
        planned("suite=noise", f"task=synthetic_{task}") for task in ("paraphrase", "acceptability")
    )
    kinds = base.build_suite(first.suite).rates(), base.build_suite(other.suite).rates()
    assert set(kinds[0]) == set(EDITS)
    assert set(kinds[0]) - set(kinds[1]) == {"order", "dropout"}


@pytest.mark.parametrize(
    ("task", "left_out"),
    [("wnli", {"order", "dropout"}), *((name, {"dropout"}) for name in ("mnli", "rte", "qnli"))],
)
def test_a_lost_word_is_no_noise_where_it_may_be_the_answer(task, left_out):
    (evaluation,) = planned("suite=noise", f"task={task}")
    kinds = evaluation.suite["kinds"]
    assert {kind for kind, rate in kinds.items() if rate is None} | (
        EDITS.keys() - kinds.keys()
    ) == left_out


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["suite=nois"], "did you mean noise?"),
        (["suite=noise", "suite.kind=1"], "noise has no suite.kind; did you mean suite.kinds"),
        (["suite.examples=3"], "no suite is named; set suite=NAME"),
        (["suite=noise", "suite.intensities=[0.5,0.2]"], "rise from above 0"),
        (["suite=noise", "suite.intensities=[2]"], "rise from above 0 to at most 1"),
        (["suite=noise", "suite.kinds.typos=3"], "suite.kinds.typos is a rate"),
        (["suite=noise", "suite.kinds={sneeze:0.1}"], "no noise sneeze"),
        (["suite=noise", "suite.kinds={typos:abc}"], "suite.kinds.typos is a rate"),
        (["suite=noise", "suite.kinds={typos:true}"], "at most 1, got True"),
        (["suite=noise", "suite.kinds=null"], "suite.kinds must be a mapping, got None"),
        (["suite=noise", "suite.intensities=null"], "suite.intensities must be a list, got None"),
        (["suite=noise", "suite.intensities=[x]"], "at most 1, got ['x']"),
        (["suite=noise", "suite.intensities=[[1]]"], "at most 1, got [[1]]"),
        (["suite=noise", "suite.examples=1"], "at least 2"),
        (["suite=in_context", "suite.counts=null"], "suite.counts must be a list, got None"),
        (["suite=in_context", "suite.counts=[0,2.5]"], "suite.counts must be a whole number"),
        (["suite=in_context", "suite.counts=[0,4,2]"], "rise from 0, got [0, 4, 2]"),
        (["suite=calibration", "suite.levels=[x]"], "suite.levels holds numbers"),
        (["suite=calibration", "suite.review=null"], "suite.review must be a list"),
        (["suite=shift", "suite.seed=null"], "suite.seed must be a whole number"),
        (["suite=shift", "suite.targets={mrpc:3}"], "suite.targets.mrpc must be a mapping, got 3"),
        (["suite=transfer", "suite.targets=null"], "transfer: the head of one task"),
        (["suite=calibration", "suite.review=[2]"], "between 0 and 1"),
        (["suite=shift", "task=sst2"], "no targets are known for sst2"),
        (["suite=shift", "suite.targets={qpp:{}}"], "did you mean qqp?"),
        (["suite=shift", "suite.targets={cola:{}}"], "1 text an example"),
        (["suite=shift", "suite.targets={mnli:{}}"], "2 classes, mnli 3"),
        (["suite=shift", "suite.targets={mrpc:{above:1}}"], "mrpc has classes"),
        (["suite=shift", "suite.targets={stsb:{above:high}}"], "suite.targets.stsb.above"),
    ],
)
def test_bad_words_are_refused_when_planning(words, told):
    with pytest.raises(ConfigError) as caught:
        planned(*words)
    assert told in str(caught.value)


# noise


@pytest.mark.parametrize("counts", [[0, 2.5], [0, "2"], [0, True], [0, -1], [-1, 0]])
def test_numbers_of_demonstrations_are_whole(counts):
    with pytest.raises(ValueError, match=r"suite\.counts must be a whole number of at least 0"):
        InContext(counts=counts, examples=None, seed=0)


def test_noise_asks_about_clean_texts_and_every_kind_at_every_intensity():
    evaluation, noise = one("suite=noise", "suite.examples=50", "suite.kinds.casing=null")
    sets = noise.sets(evaluation.run, None)
    assert len(sets) == 1 + 8 * 3
    clean = sets["clean"]
    assert len(clean.label) == 50
    assert all(np.array_equal(table.label, clean.label) for table in sets.values())
    assert sets["typos/1"].texts[0] != clean.texts[0]
    assert sets["typos/1"].texts[0] != sets["typos/1"].texts[1]
    again = noise.sets(evaluation.run, None)
    assert all(again[name].texts == sets[name].texts for name in sets)


def test_a_dry_run_makes_no_noisy_text(monkeypatch):
    evaluation, suite = one("suite=noise")
    monkeypatch.setattr(noise, "noisy", lambda *_: pytest.fail("a noisy text was made"))
    suite.check_data(evaluation.run, None)
    (lost,) = plan(*tiny("task=mrpc", "suite=noise")).evaluations
    with pytest.raises(ConfigError, match="/nowhere is not a folder"):
        suite.check_data(lost.run, "/nowhere")


def test_other_suites_make_their_sets_to_check_the_data(monkeypatch):
    evaluation, suite = one("suite=calibration")
    made = []
    monkeypatch.setattr(type(suite), "sets", lambda self, run, root: made.append((run, root)))
    suite.check_data(evaluation.run, "/somewhere")
    assert made == [(evaluation.run, "/somewhere")]


def test_noise_by_hand():
    evaluation, noise = one(
        "suite=noise", "suite.kinds={typos:0.1,order:0.2}", "suite.intensities=[0.5,1.0]"
    )
    noise = base.build_suite(evaluation.suite | {"kinds": {"typos": 0.1, "order": 0.2}})
    label = np.arange(100) % 2
    right = np.eye(2, dtype=np.float32)[label]
    half = right.copy()
    half[:50] = 1 - half[:50]
    tenth = right.copy()
    tenth[:10] = 1 - tenth[:10]
    answers = {"clean": right, "typos/0.5": right, "typos/1": tenth}
    answers |= {"order/0.5": tenth, "order/1": half}
    found = {name: {"label": label, "scores": scores} for name, scores in answers.items()}
    told = noise.findings(record(evaluation.run), {}, found)
    assert told["kinds"]["typos"]["scores"] == [1.0, 0.9]
    assert told["kinds"]["typos"]["flips"] == [0.0, 0.1]
    assert told["kinds"]["order"]["drop"] == pytest.approx(0.5)
    assert told["kinds"]["typos"]["area"] == pytest.approx(0.975)
    assert told["kinds"]["order"]["area"] == pytest.approx((0.95 + 0.7) / 2)
    assert told["area"] == pytest.approx(0.9)
    assert (told["worst_kind"], told["worst"]) == ("order", 0.5)


def test_area_is_undefined_where_a_score_is():
    assert area([0, 1], [0.5, None]) is None
    assert area([0, 0.25, 1], [1.0, 0.5, 0.5]) == pytest.approx(0.5625)


# shift


def test_shift_cuts_and_shortens_targets():
    evaluation, shift = one(
        "suite=shift", "suite.targets={synthetic_similarity:{above:3.5,examples:80}}"
    )
    table = shift.sets(evaluation.run, None)["synthetic_similarity"]
    whole = loading.load_split(runs("task=synthetic_similarity")[0].task, "validation", None)
    assert set(table.label.tolist()) == {0, 1}
    assert len(table.label) == 80
    share = np.mean(whole.label > 3.5)
    assert table.label.mean() == pytest.approx(share, abs=0.02)


def test_shift_scores_classes_by_classes_and_values_by_their_order():
    evaluation, shift = one("suite=shift")
    label = np.arange(200) % 2
    known = {"label": label, "scores": outputs(label, 0.9)}
    found = {
        "synthetic_similarity": {"label": label, "scores": outputs(label, 0.7)},
        "untrained/synthetic_similarity": {"label": label, "scores": outputs(label, 0.5)},
    }
    told = shift.findings(record(evaluation.run), known, found)["targets"]["synthetic_similarity"]
    home = task_metrics.METRICS["accuracy"].compute(known["scores"].argmax(1), label)
    away = task_metrics.METRICS["accuracy"].compute(
        found["synthetic_similarity"]["scores"].argmax(1), label
    )
    assert (told["home"], told["scores"]["accuracy"]) == (home, away)
    assert told["gap"] == pytest.approx(home - away)
    assert told["trivial"] == 0.5
    assert told["untrained"]["accuracy"] == pytest.approx(0.5, abs=0.1)

    evaluation, shift = one("suite=shift", "task=synthetic_similarity")
    value = (label + np.linspace(0, 0.5, 200))[:, None].astype(np.float32)
    found = {
        name: {"label": label, "scores": value}
        for name in ("synthetic_paraphrase", "untrained/synthetic_paraphrase")
    }
    known = {"label": label.astype(np.float32), "scores": value}
    told = shift.findings(record(evaluation.run), known, found)["targets"]["synthetic_paraphrase"]
    assert told["scores"] == {"auc": 1.0}
    assert told["gap"] is None


@pytest.mark.parametrize(("metrics", "best"), [("accuracy", 0.62), ("f1", 2 * 0.38 / 1.38)])
def test_the_best_constant_of_a_target_is_its_own(metrics, best):
    """Of accuracy its most frequent class, of F1 everything positive."""
    evaluation, shift = one("suite=shift", f"task.metrics=[{metrics}]")
    label = (np.arange(100) >= 62).astype(int)
    answers = {"label": label, "scores": outputs(label, 0.7)}
    target = "synthetic_similarity"
    found = {target: answers, f"untrained/{target}": answers}
    told = shift.findings(record(evaluation.run), answers, found)["targets"][target]
    assert (told["metric"], told["trivial"]) == (metrics, pytest.approx(best))


@pytest.mark.parametrize("home", ["synthetic_similarity", "synthetic_paraphrase"])
@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_shift_to_values_of_another_unit_is_judged_in_the_runs_own(home, unit, tmp_path):
    """Predictions between 0 and 5, or log odds, are less than 1 % of the spread of such labels."""
    label = unit * np.linspace(0, 1, 50).astype(np.float32)
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["one,two,label", *(f"a{n},b{n},{v}" for n, v in enumerate(label))]))
    target = f"mine:{{path:{path},texts:[one,two],kind:regression}}"
    evaluation, shift = one("suite=shift", f"task={home}", f"suite.targets={{{target}}}")
    assert evaluation.suite["revision"] == 3
    value = np.linspace(0, 0.5, 50, dtype=np.float32)[::-1]
    columns = [value] if home == "synthetic_similarity" else [0 * value, value]
    answers = {"label": label, "scores": np.stack(columns, axis=1)}
    still = answers | {"scores": np.full_like(answers["scores"], 0.25)}
    known = {"label": np.arange(50) % 2, "scores": outputs(np.arange(50) % 2)}
    if home == "synthetic_similarity":
        known = {"label": 5 * np.linspace(0, 1, 50, dtype=np.float32), "scores": value[:, None]}
    found = {"mine": answers, "untrained/mine": still}
    told = shift.findings(record(evaluation.run), known, found)["targets"]["mine"]
    assert told["scores"] == pytest.approx({"pearson": -1.0, "spearman": -1.0})
    assert told["untrained"] == {"pearson": None, "spearman": None}


def test_sets_of_one_unit_keep_their_key_and_scores():
    asked = [("stsb", "sts_onwn:{}"), ("mrpc", "stsb:{above:3.5}"), ("stsb", "sts_onwn:{},mrpc:{}")]
    found = [
        one(f"task={task}", "suite=shift_local", f"suite.targets={{{targets}}}")[0]
        for task, targets in asked
    ]
    assert [evaluation.suite["revision"] for evaluation in found] == [2, 2, 3]


@pytest.mark.parametrize(("spread", "auc"), [(0.5, 1.0), (0.009, None)])
@pytest.mark.parametrize("unit", [1.0, 1e-7])
def test_values_order_classes_where_they_are_more_than_one_value_at_home(spread, unit, auc):
    """By the rule of `metrics.base.FLAT`, whatever the unit."""
    evaluation, shift = one("suite=shift", "task=synthetic_similarity")
    label = np.arange(200) % 2
    home = unit * (label - 0.5).astype(np.float32) * 2  # standard deviation 1
    value = (spread * home)[:, None]
    answers = {"label": label, "scores": value}
    target = "synthetic_paraphrase"
    found = {target: answers, f"untrained/{target}": answers}
    known = {"label": home, "scores": value}
    told = shift.findings(record(evaluation.run), known, found)["targets"][target]
    assert told["scores"] == told["untrained"] == {"auc": auc}


def test_shift_to_a_users_file(tmp_path):
    path = tmp_path / "pairs.csv"
    rows = [f"a{n},b{n},{n % 2}" for n in range(20)]
    path.write_text("\n".join(["one,two,same", *rows]))
    evaluation, shift = one(
        "suite=shift", f"suite.targets={{mine:{{path:{path},texts:[one,two],label:same}}}}"
    )
    table = shift.sets(evaluation.run, None)["mine"]
    assert table.texts[0][:2] == ["a0", "a1"]
    assert table.label.tolist() == [n % 2 for n in range(20)]


@pytest.mark.parametrize(
    ("names", "fits"),
    [
        (("not_equivalent", "equivalent"), False),  # sorted, the first is the equivalent one
        (("entailment", "not_entailment"), False),
        (("0", "1"), True),
    ],
)
def test_classes_of_a_users_file_are_those_of_the_target(tmp_path, names, fits):
    path = tmp_path / "mine.csv"
    path.write_text("\n".join(["one,two,label", *(f"a{n},b{n},{names[n % 2]}" for n in range(40))]))
    words = ("task=file", f"task.path={path}", "task.texts=[one,two]")
    there = [*words, "suite=shift", "suite.targets={mrpc:{}}"]
    back = ["task=mrpc", "suite=shift", f"suite.targets={{mine:{{path:{path},texts:[one,two]}}}}"]
    for asked in (there, back):
        if fits:
            assert len(planned(*asked)) == 1
            continue
        with pytest.raises(ConfigError, match="not_equivalent, equivalent or 0, 1"):
            planned(*asked)


# calibration


def test_calibration_fits_on_training_examples_that_the_run_does_not_use():
    evaluation, calibration = one("suite=calibration", "suite.examples=100")
    held = calibration.sets(evaluation.run, None)["held"]
    train = loading.load_split(evaluation.run.task, "train", None)
    seed = evaluation.run.seeds()["subset"]
    used = loading.stratified(train.label, 2, seed)[: evaluation.run.size]
    rows = set(zip(*held.texts, strict=True))
    assert len(held.label) == 100
    assert not rows & {(train.texts[0][i], train.texts[1][i]) for i in used}
    evaluation, calibration = one("suite=calibration", "size=full")
    assert calibration.sets(evaluation.run, None) == {}


def test_calibration_of_a_run_on_everything_fits_on_its_selection_split():
    evaluation, calibration = one(
        "suite=calibration", "size=full", "checkpoint_selection=best_on_holdout"
    )
    held = calibration.sets(evaluation.run, None)["held"]
    train = loading.load_split(evaluation.run.task, "train", None)
    tokens = TokenizedSplit(*[np.zeros(0)] * 3, label=train.label, truncated=0)
    selection = evaluation.run.checkpoint_selection
    _, rows = batching.split_rows(
        evaluation.run, tokens, selection, evaluation.run.seeds()["subset"]
    )
    assert held.texts[0] == [train.texts[0][i] for i in rows[:500]]


FORMS = {
    "head": (),
    "words": ("prompt=words",),
    "demonstrations": ("prompt=words", "prompt.num_demonstrations=4", "prompt.reserved=12"),
}
SIZES = ("100", "0.5", "2950", "2992", "2999", "full")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("selection", ["last", "best_on_holdout"])
@pytest.mark.parametrize("form", FORMS)
def test_calibration_holds_out_what_training_never_saw(form, selection, size):
    """For each prompt, selection and size: no example in common with training or demonstrations."""
    evaluation, calibration = one(
        *("suite=calibration", f"checkpoint_selection={selection}", f"size={size}", *FORMS[form])
    )
    run = evaluation.run
    train = loading.load_split(run.task, "train", None)
    numbered = LabelledTexts([[str(n) for n in range(len(train.label))]], train.label)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load_split", lambda *_: numbered)
        held = calibration.sets(run, None).get("held")
    tokens = TokenizedSplit(*[np.zeros(0)] * 3, label=train.label, truncated=0)
    seed = run.seeds()["subset"]
    seen, chosen_on = batching.split_rows(run, tokens, run.checkpoint_selection, seed)
    reserved = prompt_config.reserved(run, train.label)
    left = len(train.label) - len({*seen, *chosen_on, *reserved})
    if (left or len(chosen_on)) < 50:
        assert held is None
        return
    rows = {int(text) for text in held.texts[0]}
    assert len(rows) == min(500, left or len(chosen_on))
    assert rows.isdisjoint(seen)
    assert rows.isdisjoint(reserved)
    assert rows.isdisjoint(chosen_on) or not left


def test_calibration_by_hand():
    evaluation, calibration = one("suite=calibration")
    label = np.arange(1000) % 2
    scores = np.where(np.eye(2, dtype=bool)[label], 2.0, 0.0)
    scores[:200] = scores[:200, ::-1]  # 80 % right, 88 % sure
    known = {"label": label, "scores": scores}
    told = calibration.findings(record(evaluation.run), known, {"held": known})
    sure = np.exp(2) / (1 + np.exp(2))
    assert told["before"]["ece"] == pytest.approx(sure - 0.8)
    assert told["temperature"] == pytest.approx(2 / np.log(4), rel=1e-3)  # 80 % has odds of 4
    assert told["after"]["ece"] == pytest.approx(0, abs=1e-3)
    assert told["after"]["nll"] < told["before"]["nll"]
    assert told["to_check"]["0.9"] == 0.5  # all are equally sure: half of them, in any order
    without = calibration.findings(record(evaluation.run), known, {})
    assert (without["temperature"], without["after"], without["held"]) == (None, None, 0)
    assert "left fewer than 50 training examples" in without["nothing_held"]
    assert without["before"] == told["before"]


def test_calibration_fits_nothing_on_a_handful():
    """Eight examples without a mistake would make every answer of the reporting split certain."""
    total = runs("task=synthetic_opinion")[0].task.examples["train"]
    for left, held, revision in ((49, 0, 2), (50, 50, None), (0, 0, None)):
        words = ("suite=calibration", "task=synthetic_opinion", f"size={total - left}")
        evaluation, calibration = one(*words)
        found = calibration.sets(evaluation.run, None)
        assert sum(len(one.label) for one in found.values()) == held
        assert evaluation.suite.get("revision") == revision


def test_a_temperature_that_its_bound_decides_is_marked():
    evaluation, calibration = one("suite=calibration")
    label = np.arange(100) % 2
    right = {"label": label, "scores": 2.0 * np.eye(2)[label]}
    told = calibration.findings(record(evaluation.run), right, {"held": right})
    assert told["at_bound"]
    assert told["temperature"] < 0.1
    mixed = right | {"scores": np.where(np.arange(100)[:, None] < 90, 1, -1) * right["scores"]}
    assert "at_bound" not in calibration.findings(record(evaluation.run), right, {"held": mixed})
    made = [found_by_hand(evaluation, told)]
    (table,) = calibration_report.tables(made, trained(made))
    row = dict(zip(table.columns, table.rows[0], strict=True))
    assert row["held"] == "100"
    assert "in 1 of 1 evaluations" in table.notes[-1]


def test_calibration_of_values():
    evaluation, calibration = one("suite=calibration", "task=synthetic_similarity")
    generator = np.random.default_rng(0)
    value = generator.random((2000, 1)) * 5
    label = value[:, 0] + generator.normal(size=2000) * 0.5
    known = {"label": label, "scores": value, "variance": np.full(2000, 0.05)}
    told = calibration.findings(record(evaluation.run), known, {"held": known})
    assert told["noise"] == pytest.approx(0.2, abs=0.02)
    assert told["coverage"]["0.95"] == pytest.approx(0.95, abs=0.01)
    assert told["variance"] == pytest.approx(0.05)
    assert calibration.findings(record(evaluation.run), known, {})["noise"] is None


# weights to findings


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Kept weights: of a method that trains what was there, and of one that samples."""
    results = ResultsFolder(tmp_path_factory.mktemp("results"))
    for run in runs("method=full,mc_dropout"):
        outcome = execute(run, RuntimeConfig(save_weights=True))
        results.save(outcome.record, outcome.predictions, outcome.trained)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("method", ["full", "mc_dropout"])
def test_kept_weights_answer_as_they_did_after_training(method, finished):
    (evaluation,) = planned("suite=noise", f"method={method}", "suite.kinds.typos=0.1")
    found, arrays = evaluator.evaluate_suite(evaluation, finished)
    record = finished.load(evaluation.run.key)
    stored = finished.predictions(record)
    assert np.array_equal(arrays["label/clean"], stored["label"])
    if method == "full":  # a sampling method draws other samples for other batches
        # batches are others, so the last digits of bf16 are
        np.testing.assert_allclose(arrays["scores/clean"], stored["scores"], atol=2e-2)
    assert found.findings["clean"] == pytest.approx(record.score, abs=0.03)
    assert found.trained_sha256 == record.trained_sha256
    assert ("variance/clean" in arrays) == (method == "mc_dropout")
    assert (found.findings["moved"]["l2"] > 0) == (method == "full")
    assert (found.findings["moved"]["inserted_l2"] > 0) == (method == "mc_dropout")


def test_texts_that_noise_leaves_alone_are_predicted_on_once(finished):
    (evaluation,) = planned("suite=noise", "method=full", "suite.examples=60")
    told = []
    _, arrays = evaluator.evaluate_suite(evaluation, finished, report=told.append)
    noise = base.build_suite(evaluation.suite)
    sets = noise.sets(evaluation.run, None)
    distinct = {row for table in sets.values() for row in zip(*table.texts, strict=True)}
    assert told[-1]["fraction"] == 1.0
    assert len(distinct) < len(sets) * 60
    rows = list(zip(*sets["clean"].texts, strict=True))
    same = [
        n for n, row in enumerate(zip(*sets["contractions/1"].texts, strict=True)) if row == rows[n]
    ]
    assert same
    assert np.array_equal(arrays["scores/clean"][same], arrays["scores/contractions/1"][same])


def test_evaluations_during_training_may_look_at_a_part(finished):
    (run,) = runs("method=full", "train.num_evals=2")
    whole, part = (execute(run, RuntimeConfig(curve_part=p)) for p in (1.0, 0.1))
    assert part.record.metrics == whole.record.metrics
    assert np.array_equal(part.predictions["scores"], whole.predictions["scores"])
    assert [point["accuracy"] for point in part.record.curve] != [
        point["accuracy"] for point in whole.record.curve
    ]
    label = whole.predictions["label"]
    shown, count = round(0.1 * len(label)), len(label)
    assert part.record.work["curve_examples"] == shown
    assert part.record.work["evaluated"] == 2 * shown + count
    assert "curve_examples" not in whole.record.work
    items = np.sort(loading.stratified(label, 2, seed=0)[:shown])
    scores = whole.predictions["scores"][items]
    assert part.record.curve[-1]["accuracy"] == task_metrics.METRICS["accuracy"].compute(
        scores.argmax(1), label[items]
    )


def test_what_was_found_is_kept_whole(finished, tmp_path):
    (evaluation,) = planned("suite=shift", "method=full")
    found, arrays = evaluator.evaluate_suite(evaluation, finished)
    results = ResultsFolder(tmp_path)
    found = results.save_evaluated(found, arrays)
    assert results.evaluations() == [evaluation.key]
    again = results.evaluated(evaluation.key)
    assert isinstance(again, Evaluated)
    assert again.to_json() == found.to_json()
    assert set(results.evaluated_predictions(again)) == set(arrays)
    path = tmp_path / "evaluations" / f"{evaluation.key}.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(RecordError, match="altered"):
        results.evaluated(evaluation.key)
    assert evaluation.key in results.scan_evaluated()[1]


def test_weights_that_were_not_kept_or_are_others_are_refused(finished, tmp_path):
    (evaluation,) = planned("suite=noise", "method=full")
    results = ResultsFolder(tmp_path)
    bare = record(evaluation.run)
    results.save(bare, predictions())
    with pytest.raises(ConfigError, match="no weights of"):
        evaluator.evaluate_suite(evaluation, results)
    body = finished.trained(evaluation.run.key).read_bytes()
    results.save(bare, predictions(), body)
    results.write(results.trained(evaluation.run.key), body[:-1] + b"x")
    with pytest.raises(RecordError, match="not the file"):
        evaluator.evaluate_suite(evaluation, results)


# the command


def call(*words, code):
    done = CliRunner().invoke(main, words, prog_name="peftbench")
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def test_evaluate_asks_for_suites_records_and_weights(tmp_path):
    folder = ["--results", str(tmp_path)]
    assert "no suite given" in call("evaluate", *tiny(), *folder, code=2)
    told = call("evaluate", *tiny("suite=noise"), *folder, code=2)
    assert "1 of 1 run;" in told
    ResultsFolder(tmp_path).save(record(runs()[0]), predictions())
    for verb in ("evaluate", "run"):
        told = call(verb, *tiny("suite=noise"), *folder, code=2)
        assert "without saved weights: 1 finished run (" in told


@pytest.mark.slow
def test_run_trains_and_evaluates_and_does_it_once(tmp_path):
    words = tiny("method=lora,head", "suite=calibration,shift")
    folder = ["--results", str(tmp_path), "--workers", "1"]
    first = call("run", *words, *folder, code=0)
    assert "4 evaluations of these runs: 0 done, 4 missing, on top of the time below\n" in first
    assert "Calibration" in first
    assert "Trained on synthetic_paraphrase" in first
    assert (tmp_path / "reports" / "shift.md").is_file()
    again = call("run", *words, *folder, code=0)
    assert "4 evaluations of these runs: 4 done, 0 missing\n" in f"{again}\n"
    assert "workers" not in again
    lost = sorted((tmp_path / "evaluations").glob("*.json"))[0]
    lost.write_text("{")
    assert "3 done, 1 missing" in call("evaluate", *words, *folder, code=0)
    report = call("report", "--all", "--results", str(tmp_path), code=0)
    assert "untrained" in report
    call("report", "--check", "--results", str(tmp_path), code=0)
    told = CliRunner().invoke(main, ["evaluate", *words, *folder, "--json"])
    titles = [table["title"] for table in json.loads(told.stdout)["tables"]]
    assert "Calibration: synthetic_paraphrase" in titles


def test_every_suite_is_listed_with_its_purpose():
    told = call("list", "suites", code=0)
    assert all(f"suite={name}" in told for name in SUITES)
    assert "shift_dataset=qqp_sample" in call("list", "shift_datasets", code=0)
