"""A checkpoint with a wrong bit is dropped, said, and made again; it never becomes a result."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from records import tiny
from safetensors import safe_open
from safetensors.torch import save
from short_runs import after
from stage import Stage, one

from peftbench.config.sweep import plan
from peftbench.core.errors import RecordError
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import continual
from peftbench.methods.lora import LoRA
from peftbench.results.store import ResultsFolder
from peftbench.training import checkpointing, loop, session, trainer

CPU = RuntimeConfig(device="cpu", threads=1)

TENSORS = {
    "state.head": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "state.lora": torch.full((4, 2), 0.5, dtype=torch.bfloat16),
    "optimizer.0.step": torch.tensor(3.0),
    "optimizer.0.nothing": torch.zeros(0, 4),
    "random.cpu": torch.arange(16, dtype=torch.uint8),
    "best.mask": torch.tensor([True, False]),
}

NOTE = {"run": "0123456789ab", "made_with": "{}", "progress": json.dumps({"step": 3})}


def test_what_is_sealed_comes_back_and_is_a_file_of_safetensors(tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(checkpointing.sealed(TENSORS, NOTE))
    tensors, note = checkpointing.unsealed(path)
    assert note == NOTE
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    with safe_open(path, framework="pt") as file:
        assert len(file.metadata()["sha256"]) == 64


def test_a_flipped_bit_anywhere_is_found_or_changes_nothing(tmp_path):
    """Every byte of the file, one after the other; padding of the header may change."""
    path = tmp_path / "a.safetensors"
    whole = checkpointing.sealed(TENSORS, NOTE)
    found, same = 0, 0
    for place in range(len(whole)):
        body = bytearray(whole)
        body[place] ^= 1
        path.write_bytes(body)
        try:
            tensors, note = checkpointing.unsealed(path)
        except RecordError:
            found += 1
            continue
        assert note == NOTE
        assert all(torch.equal(tensors[name], tensor) for name, tensor in TENSORS.items())
        same += 1
    assert found > 0.9 * len(whole)
    assert same < 16


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda body: body[: len(body) // 2], "is torn"),
        (lambda body: b"", "is torn"),
        (lambda body: b"\0" * len(body), "is torn"),
        (lambda body: save(TENSORS, metadata=NOTE), "was altered"),  # of an older release
        (lambda body: save(TENSORS), "was altered"),
        (lambda body: save(TENSORS, metadata=NOTE | {"sha256": "0" * 64}), "was altered"),
    ],
)
def test_what_has_no_good_seal_is_refused(tmp_path, spoil, reason):
    path = tmp_path / "a.safetensors"
    path.write_bytes(spoil(checkpointing.sealed(TENSORS, NOTE)))
    with pytest.raises(RecordError, match=f"checkpoint a.safetensors {reason}"):
        checkpointing.unsealed(path)


def test_a_missing_checkpoint_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        checkpointing.unsealed(tmp_path / "a.safetensors")


def flip(path, part):
    """Flip a bit of a tensor whose name starts so."""
    body = bytearray(path.read_bytes())
    end = 8 + int.from_bytes(body[:8], "little")
    header = json.loads(body[8:end])
    name = next(n for n in sorted(header) if n.startswith(part) and header[n]["shape"])
    body[end + header[name]["data_offsets"][0]] ^= 0x10
    path.write_bytes(body)


@pytest.mark.parametrize("part", ["state.", "optimizer.", "random.cpu"])
def test_a_run_goes_on_from_no_flipped_bit(tmp_path, monkeypatch, part):
    """The weights, the moments and the random numbers: each would give another result."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    stage = Stage(tmp_path)
    run = one(stage, "method=lora", "method.dropout=0.5", "budget.steps=8", "train.lr=1e-2")
    whole = trainer.execute(run, CPU)
    with pytest.raises(session.TrainingInterrupted):
        trainer.execute(run, CPU, results=stage.results, stop=after(4))
    path = stage.results.checkpoint(run.key)
    flip(path, part)
    with pytest.warns(UserWarning, match=r"was altered: .* the run starts again"):
        again = trainer.execute(run, CPU, results=stage.results)
    assert not path.exists()
    assert again.record.work == whole.record.work
    np.testing.assert_array_equal(again.predictions["scores"], whole.predictions["scores"])


def test_a_good_checkpoint_is_still_gone_on_from(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO", str(tmp_path))
    stage = Stage(tmp_path)
    run = one(stage, "method=lora", "budget.steps=8", "train.precision=fp32")
    whole = trainer.execute(run, CPU)
    with pytest.raises(session.TrainingInterrupted):
        trainer.execute(run, CPU, results=stage.results, stop=after(4))
    _, note = checkpointing.unsealed(stage.results.checkpoint(run.key))
    made_with = json.loads(note["made_with"])
    assert len(made_with.pop("trained")) == 12
    assert made_with == {
        **{"device": "cpu", "processes": 1, "steps": None},
        **{"micro_batch_size": None, "words": [], "precision": "fp32"},
    }
    parts = trainer.execute(run, CPU, results=stage.results)
    assert parts.record.work["resumed"]
    np.testing.assert_array_equal(parts.predictions["scores"], whole.predictions["scores"])


def test_a_run_whose_micro_batch_was_halved_goes_on_with_it_where_memory_suffices_now(
    tmp_path, monkeypatch
):
    def refuse(self, model, batch):
        if len(batch["labels"]) > 4:
            raise torch.OutOfMemoryError("as CUDA says it")
        return compute(self, model, batch)

    monkeypatch.setenv("ZOO", str(tmp_path))
    stage, compute = Stage(tmp_path), LoRA.compute_loss
    words = ("method=lora", "budget.steps=8", "train.precision=fp32", "train.batch_size=8")
    run, fourths = one(stage, *words), one(stage, *words, "train.micro_batch_size=4")
    with monkeypatch.context() as patch:
        patch.setattr(LoRA, "compute_loss", refuse)
        with (
            pytest.warns(UserWarning, match="no memory for 8 examples"),
            pytest.raises(session.TrainingInterrupted),
        ):
            trainer.execute(run, CPU, results=stage.results, stop=after(4))
    parts = trainer.execute(run, CPU, results=stage.results)  # a warning would be an error
    assert (parts.record.work["resumed"], parts.record.work["micro_batch_size"]) == (True, 4)
    expected = trainer.execute(fourths, CPU).predictions["scores"]
    np.testing.assert_array_equal(parts.predictions["scores"], expected)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("device", "cuda", r'with \{"device":"cuda"\}, here is \{"device":"cpu"\}; the run starts'),
        ("processes", 2, r'\{"processes":2\}, here is \{"processes":1\}'),
        ("steps", 40, r'\{"steps":40\}, here is \{"steps":50\}'),
        ("words", [7], r'\{"words":\[7\]\}, here is \{"words":\[\]\}'),
        ("curve_part", 0.1, r'\{"curve_part":0.1\}, here is \{"curve_part":null\}'),
    ],
)
def test_a_checkpoint_of_other_sums_is_not_gone_on_from(tmp_path, name, value, told):
    results, key = ResultsFolder(tmp_path), "0123456789ab"
    made = {"device": "cpu", "processes": 1, "steps": 50, "words": []}
    checkpointing.Checkpoint(results, key, made).save(TENSORS, {"step": 3})
    assert checkpointing.Checkpoint(results, key, made).load()[1] == {"step": 3}
    checkpointing.Checkpoint(results, key, made | {name: value}).save(TENSORS, {"step": 3})
    with pytest.warns(UserWarning, match=told):
        assert checkpointing.Checkpoint(results, key, made).load() is None


def test_a_calibrated_training_does_not_go_on_with_other_steps(tmp_path, monkeypatch):
    """The calibration was measured again, as after an update of a library."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    stage = Stage(tmp_path)
    words = ("budget=seconds", "budget.seconds=1", "budget.calibrated=true")
    run = one(stage, "method=bitfit", *words)
    job = trainer.TrainingJob(run, CPU, results=stage.results, steps=8, stop=after(4))
    with pytest.raises(session.TrainingInterrupted):
        loop.run_alone(trainer.requests_of(job))
    with pytest.warns(UserWarning, match=r'\{"steps":8\}, here is \{"steps":6\}'):
        made = loop.run_alone(trainer.requests_of(replace(job, steps=6, stop=lambda: False)))
    assert (made.record.work["resumed"], made.record.work["steps"]) == (False, 6)


@pytest.mark.parametrize("place", [-3, 300])
def test_a_stream_goes_on_from_no_flipped_bit(tmp_path, place):
    """In the tensors, and in the header."""
    (evaluation,) = plan(*tiny("suite=continual", "size=70", "suite.chunks=[10,20]")).evaluations
    results = ResultsFolder(tmp_path)
    state = {"head.weight": torch.ones(2, 4)}
    progress = continual.ContinualState(state, {0: state}, {"0/x": {"scores": np.ones(3)}}, [{}])
    continual.save_progress(results, evaluation, progress)
    kept = continual.load_progress(results, evaluation)
    assert kept.spent == [{}]
    assert torch.equal(kept.heads[0]["head.weight"], state["head.weight"])
    path = results.checkpoint(evaluation.key)
    body = bytearray(path.read_bytes())
    body[place] ^= 1
    path.write_bytes(body)
    with pytest.warns(UserWarning, match="the stream starts again"):
        assert continual.load_progress(results, evaluation) is None
    assert not path.exists()
