"""Precision: what auto is where, what a record says of it, and who may mix what."""

from types import SimpleNamespace

import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import RunOptions
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder
from peftbench.runner.sweep import run_plan
from peftbench.training import precision
from peftbench.training.precision import resolve_precision, restore_scaler, scaler_state
from peftbench.training.trainer import execute

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


def words(task, *more):
    return [*task, "model=tiny", "method=lora", "budget=steps", "budget.steps=4", *more]


@pytest.mark.parametrize(
    ("native", "found"), [(True, "bf16"), (False, "fp32")], ids=["native", "not"]
)
def test_auto_is_bf16_where_the_device_multiplies_it(monkeypatch, native, found):
    monkeypatch.setattr(precision, "bf16_on_cpu", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert resolve_precision("auto", CPU) == found
    assert resolve_precision("auto", GPU) == found
    for asked in ("bf16", "fp32"):
        assert resolve_precision(asked, CPU) == asked
    assert resolve_precision("fp16", GPU) == "fp16"
    with pytest.raises(ConfigError, match="for GPUs"):
        resolve_precision("fp16", CPU)


def test_fp16_without_a_gpu_is_refused_before_anything_starts(task, tmp_path):
    planned = plan(*words(task, "train.precision=auto,fp16"))
    with pytest.raises(ConfigError, match=r"1 of 2 runs ask for train\.precision=fp16"):
        run_plan(planned, ResultsFolder(tmp_path / "r"), RunOptions(device="cpu"))


def test_a_plan_finds_what_another_machine_made_of_auto(task, tmp_path, monkeypatch):
    """The key says auto; whatever that is where the plan is made, the record is found."""
    results = ResultsFolder(tmp_path / "r")
    planned = plan(*words(task))
    (run,) = planned.runs
    made = {}
    for native in (True, False):
        monkeypatch.setattr(precision, "bf16_on_cpu", lambda native=native: native)
        made[native] = execute(run, RuntimeConfig("cpu", save_weights=True))
    assert [one.record.environment["precision"] for one in made.values()] == ["bf16", "fp32"]
    assert made[True].record.run == made[False].record.run
    assert run.to_json()["train"]["precision"] == "auto"
    assert (made[True].predictions["scores"] != made[False].predictions["scores"]).any()
    asked = [
        execute(plan(*words(task, f"train.precision={name}")).runs[0], RuntimeConfig("cpu"))
        for name in ("bf16", "fp32")
    ]
    for one, other in zip(made.values(), asked, strict=True):
        assert (one.predictions["scores"] == other.predictions["scores"]).all()
    results.save(made[True].record, made[True].predictions, made[True].trained)
    assert sweep_status(planned, results).done  # here auto is fp32 now


def test_kept_weights_are_asked_in_the_precision_they_were_trained_in(task, tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path / "r")
    (one,) = plan(*words(task, "suite=calibration")).evaluations
    assert isinstance(one, Evaluation)
    monkeypatch.setattr(precision, "bf16_on_cpu", lambda: True)
    made = execute(one.run, RuntimeConfig("cpu", save_weights=True))
    results.save(made.record, made.predictions, made.trained)
    monkeypatch.setattr(precision, "bf16_on_cpu", lambda: False)
    done, _ = evaluate_suite(one, results, RuntimeConfig("cpu"))
    assert done.environment["precision"] == "bf16"


def test_the_loss_scale_is_in_the_checkpoint():
    accelerator = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    accelerator.scaler.scale(torch.ones(()))  # it starts with the first loss
    accelerator.scaler.update(512.0)
    saved = scaler_state(accelerator)
    other = SimpleNamespace(scaler=torch.amp.GradScaler("cpu", init_scale=1024.0))
    restore_scaler(saved | {"state.a": torch.zeros(2)}, other)
    assert other.scaler.get_scale() == 512.0
    assert scaler_state(SimpleNamespace(scaler=None)) == {}
    restore_scaler({}, SimpleNamespace(scaler=None))
