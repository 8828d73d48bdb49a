"""Precision: what auto is where, what a record says of it, and who may mix what."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import tiny
import torch
from accelerate import Accelerator

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import RunOptions
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.methods.bitfit import BitFit
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder
from peftbench.runner.sweep import run_plan
from peftbench.training import precision, trainer
from peftbench.training.precision import (
    build_accelerator,
    kept_precision,
    resolve_precision,
    restore_scaler,
    scaler_state,
)
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
    with pytest.raises(
        ConfigError,
        match=r"train\.precision=fp16, which is for GPUs: 1 of 2 runs, and no GPU is used",
    ):
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


def test_weights_of_an_fp16_run_answer_in_fp32_on_a_cpu(task, tmp_path):
    assert (kept_precision("fp16", CPU), kept_precision("fp16", GPU)) == ("fp32", "fp16")
    assert kept_precision("bf16", CPU) == "bf16"
    results = ResultsFolder(tmp_path / "r")
    (one,) = plan(*words(task, "suite=calibration", "train.precision=fp32")).evaluations
    made = execute(one.run, RuntimeConfig("cpu", save_weights=True))
    environment = made.record.environment | {"precision": "fp16"}  # as a GPU would have it
    results.save(replace(made.record, environment=environment), made.predictions, made.trained)
    said = "trained in fp16, which is for GPUs; on this CPU it answers in fp32"
    with pytest.warns(UserWarning, match=said):
        done, _ = evaluate_suite(one, results, RuntimeConfig("cpu"))
    assert done.environment["precision"] == "fp32"


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


@pytest.fixture
def fp16_on_cpu(monkeypatch):
    """Let a CPU train in fp16, as slow as it is; the scalers of the runs come here."""
    scalers = []

    class Scaling(Accelerator):
        def __init__(self, cpu, mixed_precision):
            super().__init__(cpu=cpu, mixed_precision="no")
            if mixed_precision == "fp16":
                self.state._mixed_precision, self.native_amp = "fp16", True
                self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**20)
                scalers.append(self.scaler)

    monkeypatch.setattr(precision, "Accelerator", Scaling)
    monkeypatch.setattr(trainer, "resolve_precision", lambda asked, device: asked)
    return scalers


@pytest.mark.parametrize("clip", ["1.0", "null"])
def test_an_fp16_run_leaves_out_steps_that_overflow_and_follows_fp32(
    task, fp16_on_cpu, clip, monkeypatch
):
    """Gradients are clipped, and seen by the method, in their own unit."""

    def note(self, model):
        grads = [p.grad for p in model.trained().values() if p.grad is not None]
        norms.append(float(torch.nn.utils.get_total_norm(grads)))

    monkeypatch.setattr(BitFit, "on_gradients", note)
    still = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
    given = (still, "method=bitfit", f"train.max_grad_norm={clip}", "train.lr=1e-3", "seed=0")
    common = [*task, "model=tiny", "budget=steps", "budget.steps=16", "train.num_evals=2", *given]
    losses, seen = {}, {}
    for name in ("fp16", "fp32"):
        (run,) = plan(*common, f"train.precision={name}").runs
        norms = seen[name] = []
        record = execute(run, RuntimeConfig("cpu", threads=1)).record
        assert record.environment["precision"] == name
        losses[name] = [point["loss"] for point in record.curve]
    (scaler,) = fp16_on_cpu
    assert 2.0**8 < scaler.get_scale() < 2.0**20
    assert losses["fp16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert 8 <= len(seen["fp16"]) < len(seen["fp32"]) == 16
    assert max(seen["fp16"]) == pytest.approx(max(seen["fp32"]), rel=0.1)


def test_tf32_is_for_gpus_that_are_asked_for_it():
    found = []
    try:
        for device, asked in ((GPU, True), (GPU, False), (CPU, True)):
            build_accelerator(device, "fp32", tf32=asked)
            found.append(torch.get_float32_matmul_precision())
    finally:
        build_accelerator(CPU, "fp32")
    assert found == ["high", "highest", "highest"]
    assert torch.backends.cudnn.allow_tf32 is False
