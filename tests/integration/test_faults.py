"""What goes wrong on real machines, done to trainings in this process."""

import errno
import json

import numpy as np
import pytest
import torch
from records import tiny
from short_runs import after, losses
from stage import Stage, no_traceback, one
from tiny import METHODS

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.failures import FAILURE_KINDS
from peftbench.core.runtime import RuntimeConfig
from peftbench.data.tokenization import cache_folder
from peftbench.runner.worker import classify, preflight
from peftbench.training import session, trainer

CPU = RuntimeConfig(device="cpu", threads=1)

#: Methods that stand for their kind in the default set; the others are marked as slow.
FEW = ("full", "adapter", "lora", "bayes_hybrid", "robust_partial", "peft")


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """A stage for runs in this process."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    return Stage(tmp_path)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FloatingPointError("the loss is nan"), "diverged"),
        (torch.OutOfMemoryError("CUDA"), "memory"),
        (MemoryError(), "memory"),
        (OSError(errno.ENOSPC, "full"), "disk"),
        (OSError(errno.EROFS, "read-only"), "disk"),
        (OSError(errno.ENOENT, "no such file"), "error"),
        (ConfigError("no data"), "data"),
        (ValueError("a bug"), "error"),
    ],
)
def test_an_exception_has_a_class(error, kind):
    assert classify(error) == kind
    assert kind in FAILURE_KINDS


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "words",
    [
        ("method=lora", "method.dropout=0.5"),
        slow(("method=full", "train.precision=fp32")),
        (
            "method=full",
            "checkpoint_selection=best_on_holdout",
            "checkpoint_selection.fraction=0.25",
            "train.num_evals=4",
        ),
        ("method=robust_partial", "method.choose=lisa", "method.interval=3", "method.part=0.5"),
        slow(("method=bayes_hybrid", "method.noise=flipout")),
        slow(("method=sparse_adapter", "method.score=learned")),
        *(
            pytest.param((f"method={name}",), marks=[pytest.mark.slow] * (name not in FEW))
            for name in METHODS
        ),
    ],
    ids=" ".join,
)
def test_an_interrupted_training_continues_exactly(stage, words):
    run = one(stage, *words, "budget.steps=12", "train.lr=1e-2")
    whole = trainer.execute(run, CPU)
    again = trainer.execute(run, CPU)
    assert whole.record.work["steps"] == again.record.work["steps"]
    np.testing.assert_array_equal(whole.predictions["scores"], again.predictions["scores"])
    for steps in (2, 4):
        with pytest.raises(session.TrainingInterrupted, match="stopped at step"):
            trainer.execute(run, CPU, results=stage.results, stop=after(steps))
        assert stage.results.checkpoint(run.key).exists()
    parts = trainer.execute(run, CPU, results=stage.results)
    for name, array in whole.predictions.items():
        np.testing.assert_array_equal(parts.predictions[name], array)
    assert parts.record.metrics == whole.record.metrics
    assert parts.record.work == whole.record.work | {"resumed": True}
    assert losses(parts.record) == losses(whole.record)


def test_a_torn_checkpoint_costs_time_and_nothing_else(stage):
    run = one(stage, "method=lora", "budget.steps=6")
    whole = trainer.execute(run, CPU)
    path = stage.results.checkpoint(run.key)
    for torn in (lambda body: body[:-100], lambda body: b""):
        with pytest.raises(session.TrainingInterrupted):
            trainer.execute(run, CPU, results=stage.results, stop=after(3))
        path.write_bytes(torn(path.read_bytes()))
        with pytest.warns(UserWarning, match="is torn; the run starts again"):
            parts = trainer.execute(run, CPU, results=stage.results)
        np.testing.assert_array_equal(parts.predictions["scores"], whole.predictions["scores"])
        assert not path.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        slow(("method=starved", "method.room=null"), ""),
        (("method._target_=zoo.Nothing",), "cannot import zoo.Nothing"),
        slow(("method._target_=os.system",), "os.system is no peftbench.methods.base.Method"),
        slow(("method._target_=zoo.Steady",), "takes [], got ['alpha'"),
        slow(("task=mrpc", "data.root=/nowhere"), "/nowhere is not a folder"),
        (("task=mrpc", "data.root=."), "no mrpc/train-*.parquet in ."),
    ],
)
def test_what_planning_cannot_see_is_refused_before_the_first_run(stage, words, message):
    planned = plan(*tiny(*words), configs=stage.configs)
    setting = RuntimeConfig(device="cpu", data_root=planned.data_root)
    errors = preflight(planned.runs, [], setting)["errors"]
    assert message in " ".join(errors)
    assert bool(errors) == bool(message)


@pytest.fixture
def small_run(stage):
    """A run on a hundred texts, which take no time to tokenise."""
    rows = [{"sentence": f"text {n}", "label": ("no", "yes")[n % 2]} for n in range(100)]
    path = stage.folder / "small.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return one(stage, "method=lora", "task=file", f"task.path={path}")


def test_a_corrupt_cache_of_tokens_is_named_and_made_again(stage, small_run, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", str(stage.folder / "cache"))
    whole = trainer.execute(small_run, CPU)
    files = sorted(cache_folder().glob("*.tokens"))
    assert len(files) == 2
    flipped = bytearray(files[0].read_bytes())
    flipped[-5] ^= 1
    files[0].write_bytes(flipped)
    files[1].write_bytes(files[1].read_bytes()[:100])
    with pytest.warns(UserWarning, match="corrupt and are made again") as warned:
        again = trainer.execute(small_run, CPU)
    assert len(warned) == 2
    np.testing.assert_array_equal(again.predictions["scores"], whole.predictions["scores"])
    trainer.execute(small_run, CPU)  # without a warning


def test_a_cache_that_cannot_be_written_costs_time_and_nothing_else(stage, small_run, monkeypatch):
    (stage.folder / "file").write_text("")
    monkeypatch.setenv("PEFTBENCH_CACHE", str(stage.folder / "file"))
    with pytest.warns(UserWarning, match="tokens are not kept"):
        trainer.execute(small_run, CPU)


def test_a_budget_of_seconds_counts_training_alone(stage):
    run = one(stage, "method=clocked", "budget=seconds", "budget.seconds=1", "train.num_evals=3")
    record = trainer.execute(run, CPU).record
    assert record.seconds["evaluate"] > 3 * 0.2
    step = record.seconds["train"] / record.work["steps"]
    overshoot = record.work["overshoot_seconds"]
    assert record.work["steps"] > 2
    assert 0 <= overshoot < 5 * step
    assert record.seconds["train"] == pytest.approx(1 + overshoot, abs=0.1)
    assert record.curve[-1]["seconds"] == pytest.approx(1 + overshoot)
    assert [point["fraction"] for point in record.curve] == sorted(
        point["fraction"] for point in record.curve
    )
    assert len(record.curve) == 3


def test_a_folder_that_cannot_be_written_to_is_bad_input(stage):
    (stage.folder / "file").write_text("")
    done = stage.run("method=steady", results="file/runs")
    assert done.code == 2
    assert no_traceback(done)
    assert "cannot write to the results folder file/runs" in done.err
    assert stage.journal == []
