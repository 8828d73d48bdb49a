"""Dropout in prediction: samples differ, their mean is the prediction, and nothing stays on."""

import tiny
import torch

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
