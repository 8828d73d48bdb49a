"""Classes that weigh the same: against a weighted cross entropy made by hand."""

import numpy as np
import pytest
import short_runs
import torch
from torch.nn import functional as F

from peftbench.methods.base import task_loss
from peftbench.training.predictor import class_weights
from peftbench.training.trainer import TrainingJob, execute, prepare, requests_of

STILL = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"


@pytest.fixture
def task(tmp_path):
    """40 texts of three classes, 1 : 2 : 5."""
    labels = ["rare", "some", "some", "many", "many", "many", "many", "many"]
    rows = [f"This is text {n}.,{labels[n % 8]}\n" for n in range(64)]
    path = tmp_path / "mine.csv"
    path.write_text("sentence,label\n" + "".join(rows))
    return ("task=file", f"task.path='{path}'")


def test_weights_are_inverse_to_counts_and_one_in_the_mean():
    label = np.array([0, 2, 2, 2, 2, 4, 4, 4])
    found = class_weights(label)
    assert found.tolist() == pytest.approx([8 / 3, 1, 8 / 12, 1, 8 / 9])
    assert float(found[label].mean()) == pytest.approx(1)


def test_the_loss_of_a_whole_epoch_is_torchs_weighted_mean():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] + [1] * 3 + [2] * 8)
    logits = torch.randn(12, 3, generator=generator)
    weights = class_weights(labels.numpy())
    expected = F.cross_entropy(logits, labels, weight=weights)
    assert float(task_loss(logits, labels, weights[labels])) == pytest.approx(float(expected))
    parts = [task_loss(logits[s], labels[s], weights[labels[s]]) * len(labels[s]) / 12
             for s in (slice(0, 5), slice(5, 12))]  # fmt: skip
    assert float(sum(parts)) == pytest.approx(float(expected))


def test_the_first_loss_of_a_run_is_the_weighted_one(task):
    words = ("method=full", STILL, "train.precision=fp32", "size=full", "train.batch_size=16")
    run = short_runs.one(task, *words, "train.class_weights=balanced")
    prepared = prepare(TrainingJob(run, short_runs.CPU), micro=None)
    training = prepared.training
    batch = training.next_batch()
    labels = prepared.data.labels
    counts = np.bincount(labels)
    weights = torch.tensor(len(labels) / (3 * counts), dtype=torch.float32)
    model = training.predictor.model
    with torch.no_grad():
        each = F.cross_entropy(model(batch), batch["labels"], reduction="none")
    by_hand = float((each * weights[batch["labels"]]).sum() / len(each))
    assert float(training.predictor.gradients(batch, None)) == pytest.approx(by_hand, rel=1e-6)
    assert float(training.predictor.gradients(batch, 5)) == pytest.approx(by_hand, rel=1e-6)
    assert by_hand != pytest.approx(float(each.mean()), rel=1e-3)


def test_a_pack_trains_with_the_same_weights(task):
    from peftbench.training.packing.pack import Pack
    from peftbench.training.warm_cache import WarmCache

    words = ("method=full", STILL, "train.precision=fp32", "train.class_weights=balanced")
    runs = [short_runs.one(task, *words, f"seed={seed}") for seed in (0, 1)]
    warm = WarmCache()
    jobs = ((r.key, requests_of(TrainingJob(r, short_runs.CPU, warm, alike=True))) for r in runs)
    for left in Pack(torch.device("cpu"), 2).train(jobs):
        (run,) = (one for one in runs if one.key == left.key)
        alone = execute(run, short_runs.CPU)
        found = [point["loss"] for point in left.end.record.curve]
        assert found == pytest.approx([point["loss"] for point in alone.record.curve], rel=1e-4)


def test_records_of_three_classes(task):
    run = short_runs.one(task, "method=bitfit")
    record = execute(run, short_runs.CPU).record
    assert list(record.metrics) == ["accuracy", "macro_f1"]
    assert run.task.metrics == ["accuracy"]
    figures = record.work["per_class"]
    assert [one["class"] for one in figures] == ["many", "rare", "some"]
    assert sum(one["examples"] for one in figures) == 13
    assert record.metrics["macro_f1"] <= 1
    assert type(record).from_json(record.to_json()).work == record.work
