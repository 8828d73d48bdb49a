"""No number from NaN: predictions and losses that are not finite are `diverged`."""

import json
from dataclasses import replace

import numpy as np
import pytest
import short_runs
import tiny
import torch

from peftbench.cli.show import describe
from peftbench.config.sweep import plan
from peftbench.core import figures
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import evaluator
from peftbench.methods.bitfit import BitFit
from peftbench.metrics import task_metrics
from peftbench.results.store import ResultsFolder
from peftbench.runner.worker import classify
from peftbench.suites.calibration import Calibration
from peftbench.training import predictor
from peftbench.training.packing.pack import Pack
from peftbench.training.trainer import TrainingJob, execute, requests_of
from peftbench.training.warm_cache import WarmCache

KEPT = RuntimeConfig(device="cpu", save_weights=True)
HUGE = (
    *("train.lr=1e30", "train.warmup_steps=0", "train.lr_scheduler_type=constant"),
    *("train.max_grad_norm=null", "train.precision=fp32", "train.num_evals=1"),
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


def some_not_finite(monkeypatch):
    """Let the first prediction of every batch be no number."""
    before = BitFit.predict

    def predict(self, model, batch):
        found = before(self, model, batch)
        scores = found["scores"].clone()
        scores[0] = float("nan")
        return found | {"scores": scores}

    monkeypatch.setattr(BitFit, "predict", predict)


def test_predictions_after_the_last_step(task):
    run = short_runs.one(task, "method=full", "budget.steps=1", *HUGE)
    with pytest.raises(FloatingPointError, match="24 of 24 predictions are not finite") as told:
        execute(run, short_runs.CPU)
    assert classify(told.value) == "diverged"


def test_predictions_of_a_regression(tmp_path):
    path = tmp_path / "reg.csv"
    path.write_text("sentence,label\n" + "".join(f"text {n},{n % 5}\n" for n in range(40)))
    words = ("task=file", f"task.path='{path}'", "task.kind=regression", "method=full", *HUGE)
    run = short_runs.one((), *words, "budget.steps=1")
    with pytest.raises(FloatingPointError):
        execute(run, short_runs.CPU)


def test_a_loss_names_its_step(task):
    run = short_runs.one(task, "method=full", "budget.steps=6", *HUGE)
    with pytest.raises(FloatingPointError, match="the loss is nan at step 2"):
        execute(run, short_runs.CPU)


def test_some_predictions_of_a_training(task, monkeypatch):
    some_not_finite(monkeypatch)
    run = short_runs.one(task, "method=bitfit")
    with pytest.raises(FloatingPointError, match=r"\d of 24 predictions are not finite \(scores\)"):
        execute(run, short_runs.CPU)


def test_one_of_a_pack_does_not_take_the_others_along(task):
    still = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
    words = ("method=full", "budget.steps=2", still, *HUGE[1:])
    good, bad = (
        short_runs.one(task, *words, f"train.lr={rate}", "seed=1") for rate in ("1e-4", "1e30")
    )
    warm = WarmCache()
    jobs = [
        (r.key, requests_of(TrainingJob(r, short_runs.CPU, warm, alike=True))) for r in (good, bad)
    ]
    left = {one.key: one for one in Pack(torch.device("cpu"), 2).train(iter(jobs))}
    assert isinstance(left[bad.key].error, FloatingPointError)
    assert left[good.key].error is None
    assert np.isfinite(left[good.key].end.predictions["scores"]).all()


@pytest.mark.parametrize("suite", ["noise", "calibration"])
def test_suites(suite, tmp_path, monkeypatch):
    task = tiny.own_task(tmp_path, train=80)
    words = (*task, "model=tiny", "method=bitfit", "size=24", "budget=steps", "budget.steps=2")
    more = (
        ("suite=noise", "suite.kinds={typos:0.1}") if suite == "noise" else ("suite=calibration",)
    )
    (evaluation,) = plan(*words, *more).evaluations
    results = ResultsFolder(tmp_path / "runs")
    done = execute(evaluation.run, KEPT)
    results.save(done.record, done.predictions, done.trained)
    some_not_finite(monkeypatch)
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        evaluator.evaluate_suite(evaluation, results, short_runs.CPU)


def test_kept_predictions_of_an_earlier_release(task, tmp_path):
    """Which recorded NaN: a calibration of these is none."""
    words = (*task, "model=tiny", "method=bitfit", "size=24", "budget=steps", "budget.steps=2")
    (evaluation,) = plan(*words, "suite=calibration").evaluations
    results = ResultsFolder(tmp_path / "runs")
    done = execute(evaluation.run, KEPT)
    done.predictions["scores"][3] = np.nan
    results.save(done.record, done.predictions, done.trained)
    with pytest.raises(FloatingPointError, match="1 of 24 predictions are not finite"):
        evaluator.evaluate_suite(evaluation, results, short_runs.CPU)


def test_spreads_and_findings():
    whole = {"scores": np.zeros((3, 2)), "variance": np.array([0.0, np.inf, 1.0])}
    with pytest.raises(FloatingPointError, match=r"1 of 3 predictions are not finite \(variance\)"):
        predictor.require_finite(whole)
    with pytest.raises(FloatingPointError, match=r"headline\.ece of the suite is not finite"):
        evaluator.finite_findings({"headline": {"ece": np.float32("nan")}})


#: Figures of others' code, what a record holds of them, and the names of those that were no number.
FIGURES = [
    ({"kl": float("nan"), "mu": -1.5}, {"kl": None, "mu": -1.5}, ["kl"]),
    ({"kl": torch.tensor(float("inf"))}, {"kl": None}, ["kl"]),
    ({"a": np.float32(0.5), "b": np.int64(3)}, {"a": 0.5, "b": 3}, []),
    ({"a": torch.tensor([1.0, float("nan")])}, {"a": [1.0, None]}, ["a[1]"]),
    ({"a": {"b": (1, float("-inf"))}}, {"a": {"b": [1, None]}}, ["a.b[1]"]),
    ({"a": None, "b": True, "c": "text"}, {"a": None, "b": True, "c": "text"}, []),
]


@pytest.mark.parametrize(("given", "plain", "undefined"), FIGURES)
def test_figures_of_others_are_plain_data(given, plain, undefined):
    found = figures.plain_figures(given)
    assert found == (plain, undefined)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("given", [object(), {1, 2}, 1j])
def test_a_figure_that_no_record_can_hold_is_named(given):
    with pytest.raises(TypeError, match=r"kl is a .*, which a record cannot hold"):
        figures.plain_figures({"kl": given})


@pytest.mark.parametrize("value", [float("nan"), torch.tensor(float("inf"))])
def test_diagnostics_that_are_not_finite_do_not_cost_the_run(task, tmp_path, monkeypatch, value):
    given = {"kl": value, "norm": np.float32(0.5)}
    monkeypatch.setattr(BitFit, "diagnostics", lambda self, model: given)
    run = short_runs.one(task, "method=bitfit", "train.num_evals=2")
    with pytest.warns(UserWarning, match="kl of the method's diagnostics is not finite"):
        done = execute(run, KEPT)
    results = ResultsFolder(tmp_path / "runs")
    results.save(done.record, done.predictions, done.trained)
    record = results.load(run.key)
    assert [(point["kl"], point["norm"]) for point in record.curve] == [(None, 0.5)] * 2
    assert record.work["undefined"] == {"kl": 2}
    assert "undefined    kl of the method, at 2 of 2 evaluations" in describe(results, run.key)


@pytest.mark.parametrize("name", ["accuracy", "loss"])
def test_diagnostics_do_not_replace_a_score(task, monkeypatch, name):
    """The best evaluation would be chosen by it."""
    monkeypatch.setattr(BitFit, "diagnostics", lambda self, model: {name: 0.99})
    with pytest.raises(ValueError, match=f"diagnostics have the names {name}, which are those"):
        execute(short_runs.one(task, "method=bitfit"), short_runs.CPU)


@pytest.mark.parametrize("value", [float("nan"), float("-inf"), np.float32("nan")])
def test_a_metric_that_is_not_finite_is_undefined(task, tmp_path, monkeypatch, value):
    own = replace(task_metrics.METRICS["accuracy"], compute=lambda predicted, label: value)
    monkeypatch.setitem(task_metrics.METRICS, "accuracy", own)
    run = short_runs.one(task, "method=bitfit")
    with pytest.warns(UserWarning, match=r"the metric accuracy is .*it is recorded as null"):
        done = execute(run, KEPT)
    results = ResultsFolder(tmp_path / "runs")
    results.save(done.record, done.predictions, done.trained)
    assert results.load(run.key).metrics["accuracy"] is None


@pytest.mark.parametrize("value", [float("nan"), np.float32("inf")])
def test_a_finding_that_is_not_finite_does_not_cost_the_others(task, tmp_path, monkeypatch, value):
    words = (*task, "model=tiny", "method=bitfit", "size=24", "budget=steps", "budget.steps=2")
    (evaluation,) = plan(*words, "suite=calibration").evaluations
    results = ResultsFolder(tmp_path / "runs")
    done = execute(evaluation.run, KEPT)
    results.save(done.record, done.predictions, done.trained)
    found = {"bins": [0.5, value], "headline": {"ece": np.float32(0.25)}}
    monkeypatch.setattr(Calibration, "findings", lambda *given: dict(found))
    with pytest.warns(UserWarning, match=r"bins\[1\] of the suite is not finite"):
        told, _ = evaluator.evaluate_suite(evaluation, results, short_runs.CPU)
    assert told.findings["bins"] == [0.5, None]
    assert told.findings["undefined"] == ["bins[1]"]
    assert told.headline == {"ece": 0.25}
    json.dumps(told.to_json(), allow_nan=False)
