"""No number from NaN: predictions and losses that are not finite are `diverged`."""

import numpy as np
import pytest
import short_runs
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.evaluation import evaluator
from peftbench.methods.bitfit import BitFit
from peftbench.results.store import Results
from peftbench.runner.worker import classify
from peftbench.training import predictor
from peftbench.training.packing.pack import Pack
from peftbench.training.packing.runner import drive
from peftbench.training.runtime import RuntimeConfig
from peftbench.training.trainer import TrainingJob, execute
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

    def predict(self, encoder, batch):
        found = before(self, encoder, batch)
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
    jobs = [(r.key, drive(TrainingJob(r, short_runs.CPU, warm, alike=True))) for r in (good, bad)]
    left = {one.key: one for one in Pack(torch.device("cpu"), 2).train(iter(jobs))}
    assert isinstance(left[bad.key].error, FloatingPointError)
    assert left[good.key].error is None
    assert np.isfinite(left[good.key].end.predictions["scores"]).all()


@pytest.mark.parametrize("suite", ["noise", "calibration"])
def test_suites(suite, task, tmp_path, monkeypatch):
    words = (*task, "model=tiny", "method=bitfit", "size=24", "budget=steps", "budget.steps=2")
    more = (
        ("suite=noise", "suite.kinds={typos:0.1}") if suite == "noise" else ("suite=calibration",)
    )
    (evaluation,) = plan(*words, *more).evaluations
    results = Results(tmp_path / "runs")
    done = execute(evaluation.run, KEPT)
    results.save(done.record, done.predictions, done.trained)
    some_not_finite(monkeypatch)
    with pytest.raises(FloatingPointError, match="predictions are not finite"):
        evaluator.evaluate_suite(evaluation, results, short_runs.CPU)


def test_kept_predictions_of_an_earlier_release(task, tmp_path):
    """Which recorded NaN: a calibration of these is none."""
    words = (*task, "model=tiny", "method=bitfit", "size=24", "budget=steps", "budget.steps=2")
    (evaluation,) = plan(*words, "suite=calibration").evaluations
    results = Results(tmp_path / "runs")
    done = execute(evaluation.run, KEPT)
    done.predictions["scores"][3] = np.nan
    results.save(done.record, done.predictions, done.trained)
    with pytest.raises(FloatingPointError, match="1 of 24 predictions are not finite"):
        evaluator.evaluate_suite(evaluation, results, short_runs.CPU)


def test_spreads_and_findings():
    whole = {"scores": np.zeros((3, 2)), "variance": np.array([0.0, np.inf, 1.0])}
    with pytest.raises(FloatingPointError, match=r"1 of 3 predictions are not finite \(variance\)"):
        predictor.require_finite(whole)
    with pytest.raises(FloatingPointError, match=r"noise\.rates\[1\] is nan"):
        evaluator.require_finite_findings({"noise": {"rates": [0.1, float("nan")]}})
    assert evaluator.require_finite_findings({"a": [None, 1, 0.5]}) == {"a": [None, 1, 0.5]}
