"""Scores of a regression do not depend on the unit of its labels, and predictions speak it."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import tiny
import torch
from short_runs import CPU, one

from peftbench.cli.show import describe
from peftbench.config.sweep import plan
from peftbench.data import batching, loading, tokenization
from peftbench.data.tokenizer import load_tokenizer
from peftbench.exporting.folder import export_run
from peftbench.methods import peft_export
from peftbench.methods.base import build_method
from peftbench.metrics import task_metrics
from peftbench.models import heads, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.reports import scores
from peftbench.results.store import ResultsFolder
from peftbench.training.packing.runner import train as train_packed
from peftbench.training.trainer import TrainingOutput, execute
from peftbench.training.warm_cache import WarmCache


def task(folder: Path, scale: float, shift: float = 0.0) -> tuple[str, ...]:
    """How many of the letters are vowels, in some unit."""
    generator = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    for name, count in (("train", 64), ("validation", 40)):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            for _ in range(count):
                vowels = int(generator.integers(0, 9))
                letters = [*generator.choice(list("aeiou"), vowels)]
                letters += [*generator.choice(list("bcdfg"), 8 - vowels)]
                writer.writerow(["".join(generator.permutation(letters)), scale * vowels + shift])
    paths = f"task.path='{folder}/train.csv'", f"task.validation_path='{folder}/validation.csv'"
    return ("task=file", "task.name=own", "task.kind=regression", *paths)


MORE = ("size=64", "budget.steps=60", "train.precision=fp32", "train.lr=3e-3", "train.batch_size=8")


@pytest.mark.parametrize("method", ["full", "bayes_hybrid"])
def test_the_unit_of_the_labels_changes_nothing_but_the_unit(tmp_path, method):
    first = None
    for number, (scale, shift) in enumerate([(1.0, 0.0), (0.001, 0.0), (1000.0, -4000.0)]):
        words = (*MORE, f"method={method}")
        done = execute(one(task(tmp_path / str(number), scale, shift), *words), CPU)
        scores = (done.predictions["scores"].astype(np.float64) - shift) / scale
        labels = (done.predictions["label"].astype(np.float64) - shift) / scale
        losses = [point["loss"] for point in done.record.curve]
        variance = done.predictions.get("variance", np.zeros(1)).astype(np.float64) / scale**2
        if first is None:
            first = scores, labels, losses, done.record.score, variance
            assert method != "full" or done.record.score > 0.3
            assert np.abs(scores.mean() - labels.mean()) < 0.5  # in the unit, not about 0
            assert done.record.work["label_mean"] == pytest.approx(4, abs=0.7)
            continue
        np.testing.assert_allclose(labels, first[1], rtol=1e-4)
        np.testing.assert_allclose(losses, first[2], rtol=1e-3)
        np.testing.assert_allclose(scores, first[0], rtol=1e-2, atol=1e-2)
        np.testing.assert_allclose(variance, first[4], rtol=0.05, atol=1e-8)
        assert method != "full" or done.record.score == pytest.approx(first[3], abs=5e-3)


def logits(model: AdaptedModel | torch.nn.Module, run) -> np.ndarray:
    texts = loading.load_split(run.task, "validation", None)
    tokens = tokenization.encode(texts, load_tokenizer(run.model), run.train.max_length)
    batch = batching.collate(tokens, np.arange(len(tokens)), 0, run.model.family_config.mask)
    with torch.inference_mode():
        if isinstance(model, AdaptedModel):
            return model(batch).numpy()
        mask = batch["attention_mask"].flatten(1).long()
        names = ("input_ids", "token_type_ids")
        given = {name: batch[name] for name in names} | {"attention_mask": mask}
        return model(**given).logits.numpy()


@pytest.mark.parametrize("selection", ["last", "best_on_holdout"])
def test_kept_exported_and_merged_weights_speak_the_unit(tmp_path, selection):
    words = ("method=lora", *MORE, f"checkpoint_selection={selection}", "train.lr=1e-2")
    run = one(task(tmp_path / "data", 1000.0, 5000.0), *words)
    done = execute(run, replace(CPU, save_weights=True))
    known = done.predictions["scores"]
    assert 5000 < known.mean() < 13000
    state = safetensors.torch.load(done.trained)
    kept = AdaptedModel(Backbone(run.model), 1, seed=0)
    build_method(run.method).insert(kept)
    kept.restore(state)
    np.testing.assert_allclose(logits(kept.eval(), run), known, rtol=1e-5)
    peft = pytest.importorskip("peft")
    results = ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "adapter")
    plain = pretrained.skeleton(run.model)
    plain.classifier = torch.nn.Linear(plain.config.hidden_size, 1)
    plain.num_labels = plain.config.num_labels = 1
    loaded = peft.PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    np.testing.assert_allclose(logits(loaded, run), known, rtol=1e-5)
    np.testing.assert_allclose(logits(loaded.merge_and_unload(), run), known, rtol=1e-4)


def test_a_head_without_a_bias_gets_one_for_the_mean(tmp_path):
    """Llama's head has none; outside of peftbench the mean would be lost, so it is not exported."""
    run = one(task(tmp_path, 1.0, 900.0), *MORE, "method=lora", "model=tiny", "model.family=llama")
    done = execute(run, replace(CPU, save_weights=True))
    assert 900 < done.predictions["scores"].mean() < 910
    model = AdaptedModel(Backbone(run.model), 1, seed=0)
    assert model.added_bias == "score.bias"
    with pytest.raises(ValueError, match="would lose the mean of its labels"):
        peft_export.peft_form(build_method(run.method), model)
    assert AdaptedModel(Backbone(run.model), 2, seed=0).added_bias is None


def test_a_pack_predicts_in_the_unit(tmp_path):
    """As each run alone, though the packed runs train on z-scores of their own."""
    words = (*task(tmp_path / "data", 1000.0), *MORE[:4], "model=tiny", "budget=steps")
    runs = plan(*words, "method=lora", "method.dropout=0", "seed=0,1", "train.num_evals=2").runs
    packed = train_packed(
        list(runs),
        replace(CPU, pack=2),
        ResultsFolder(tmp_path / "runs"),
        WarmCache(),
        lambda run: True,
        lambda run, news: None,
        lambda: False,
        lambda told: None,
    )
    for _, end in packed:
        assert isinstance(end, TrainingOutput)
        assert 1000 < end.predictions["scores"].mean() < 7000


def test_a_head_goes_into_the_unit_and_back():
    model = AdaptedModel(tiny.backbone("bert"), 1, seed=0).eval()
    batch = tiny.batch(tiny.tokens(), "bert")
    before = model(batch).detach()
    state = {name: tensor.clone() for name, tensor in model.state().items()}
    model.standardise(900.0, 20.0)
    with model.in_unit():
        inside = model(batch).detach()
        torch.testing.assert_close(inside, 20 * before + 900)
    assert torch.equal(model(batch), before)
    model.to_unit()
    assert torch.equal(model(batch), inside)
    with model.in_unit():
        assert torch.equal(model(batch), inside)  # once
    other = AdaptedModel(tiny.backbone("bert"), 1, seed=1).eval()
    other.standardise(900.0, 20.0)
    other.restore(model.state())
    other.from_unit()
    for name, tensor in state.items():
        torch.testing.assert_close(other.state()[name], tensor, rtol=1e-5, atol=1e-5)


def test_labels_that_are_all_one_value_are_learnt(tmp_path):
    run = one(task(tmp_path, 0.0, 7.0), *MORE, "method=full", "budget.steps=2")
    done = execute(run, CPU)
    assert done.record.work["label_std"] == 1
    np.testing.assert_allclose(done.predictions["scores"], 7, atol=1.5)


def test_bf16_does_not_round_what_is_far_from_zero(tmp_path):
    """Years: bf16 has eight between 1984 and 2048, and a seventh of a sentence is none of them."""
    words = ("size=64", "budget.steps=40", "train.precision=bf16", "train.lr=3e-3", "method=full")
    done = execute(one(task(tmp_path, 2.0, 1990.0), *words), CPU)
    scores = done.predictions["scores"]
    assert len(np.unique(scores)) > 20
    assert np.abs(scores.mean() - done.predictions["label"].mean()) < 2
    assert done.record.score > 0.2


def test_the_unit_is_folded_into_the_layer_that_gives_the_scores():
    """Not into a pooler that the checkpoint did not have, which is named after it."""
    model = AdaptedModel(tiny.backbone("bert"), 1, seed=0).module
    last = heads.last_layer(model, ["classifier", "bert.pooler.dense"])
    assert last is model.classifier


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_predictions_far_out_of_the_range_of_the_labels_are_counted(scale):
    labels = scale * np.array([1.0, 2.0, 5.0])
    values = scale * np.array([-3.1, -2.9, 0.0, 5.0, 8.9, 9.1, 4e6])
    label = scale * np.full(7, 3.0)
    assert task_metrics.out_of_range(values[:, None], label, labels) == 3
    assert task_metrics.out_of_range(values[:, None], label * 40, labels) == 1, "of both parts"
    assert task_metrics.out_of_range(values[:, None], np.full(7, scale), labels[:1]) == 0


@pytest.mark.parametrize("far", [1e6, -1e6])
def test_a_run_whose_predictions_are_far_out_is_told(far, tmp_path, monkeypatch):
    """Correlations do not depend on the scale, so a score looks as good as any."""
    words = ("method=bitfit", "size=64", "budget.steps=2")
    run = one(task(tmp_path / "data", 1.0), *words)
    assert "out_of_range" not in execute(run, CPU).record.work
    monkeypatch.setattr(
        AdaptedModel,
        "standardise",
        lambda self, mean, std, real=AdaptedModel.standardise: real(self, mean, far * std),
    )
    record = execute(run, CPU).record
    assert 20 < record.work["out_of_range"] <= 40
    note = next(n for n in scores.scores([record]).notes if "far out of the range" in n)
    assert f"({record.work['out_of_range']} predictions)" in note
    results = ResultsFolder(tmp_path / "runs")
    results.save(record, {"item": np.arange(1)})
    assert "out of range" in describe(results, run.key)
