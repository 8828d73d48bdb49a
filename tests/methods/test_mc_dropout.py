"""Dropout in prediction: samples differ, their mean is the prediction, and nothing stays on."""

import pytest
import tiny
import torch
from short_runs import one

from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel


def test_prediction_is_the_mean_over_masks():
    method = build_method(tiny.one_run("method=mc_dropout", "method.samples=50").method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    method.insert(model)
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.inference_mode():
        torch.manual_seed(0)
        found = method.predict(model.eval(), batch)
        assert not model.training
        model.train()
        passes = torch.stack([model(batch).softmax(-1) for _ in range(400)])
    assert found["variance"].min() > 1e-6
    torch.testing.assert_close(found["scores"].exp(), passes.mean(0), rtol=0, atol=0.05)
    variance = passes.var(0).sum(-1)
    torch.testing.assert_close(found["variance"], variance, rtol=0.8, atol=1e-4)


def test_a_base_method_that_samples_is_refused(tmp_path):
    words = ("method=mc_dropout", "method.base_method=bayes_hybrid")
    with pytest.raises(ConfigError, match="BayesHybrid averages samples of its own"):
        dry_run.rehearse(one(tiny.own_task(tmp_path), *words), None)


NO_DROPOUT = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"


@pytest.mark.parametrize(
    "words",
    [
        ("model.family=modernbert", "method.base_method=ia3"),
        ("model.family=modernbert", "method.base_method=full"),
        ("model.family=llama", "method.base_method.dropout=0"),
        (NO_DROPOUT, "method.base_method=adapter"),
    ],
    ids=["ia3", "full", "lora", "shape"],
)
def test_passes_that_would_be_alike_are_refused(tmp_path, words):
    run = one(tiny.own_task(tmp_path), "method=mc_dropout", *words)
    with pytest.raises(ConfigError, match="as it is configured drops anything, so that all passes"):
        dry_run.rehearse(run, None)


@pytest.mark.parametrize(
    "words",
    [
        ("model.family=modernbert",),  # LoRA has its own
        ("model.shape={hidden_dropout_prob:0.0}", "method.base_method=ia3"),
        ("model.family=llama", "model.shape={attention_dropout:0.1}", "method.base_method=ia3"),
    ],
    ids=["lora", "attention", "llama"],
)
def test_any_dropout_is_enough(tmp_path, words):
    dry_run.rehearse(one(tiny.own_task(tmp_path), "method=mc_dropout", *words), None)


def test_repeats_of_a_batch_are_samples_side_by_side():
    """Without dropout all samples are one: no variance, the plain prediction."""
    method = build_method(tiny.one_run("method=mc_dropout", "method.base_method=head").method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.inference_mode():
        found = method.predict(model.eval(), batch)
        plain = model(batch).log_softmax(-1)
    torch.testing.assert_close(found["scores"], plain, rtol=1e-5, atol=1e-6)
    assert found["variance"].max() < 1e-10
    assert found["mutual_information"].max() < 1e-6
