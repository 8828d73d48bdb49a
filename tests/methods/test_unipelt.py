"""Gates by hand: open they are the host, they see no padding, and each part has one of its own."""

from dataclasses import replace

import full_size
import numpy as np
import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.methods.layers.gaussian import GaussianLinear
from peftbench.methods.unipelt import Gated, Gates
from peftbench.models.adapted_model import AdaptedModel


def adapted_model(family: str, *words: str, seed: int = 0) -> AdaptedModel:
    made = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(seed)
    build_method(tiny.one_run("method=unipelt", *words).method).insert(made)
    return made.eval()


def parts(made: AdaptedModel, kind: type) -> list:
    return [part for part in made.module.modules() if isinstance(part, kind)]


def set_gates(made: AdaptedModel, bias: float) -> None:
    with torch.no_grad():
        for gates in parts(made, Gates):
            gates.linear.bias.fill_(bias)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_open_gates_are_the_host_and_closed_adapters_the_plain_model(family):
    batch = tiny.batch(tiny.tokens(), family)
    made = adapted_model(family)
    host = AdaptedModel(tiny.backbone(family), classes=2, seed=0)
    torch.manual_seed(0)
    build_method(tiny.one_run("method=unipelt").method).base_method.insert(host)
    with torch.inference_mode():
        gated, plain = made(batch), host.eval()(batch)
        assert not torch.allclose(gated, plain, atol=1e-4)
        set_gates(made, 60.0)
        torch.testing.assert_close(made(batch), plain, rtol=1e-5, atol=1e-6)
        alone = adapted_model(family, "method.base_method=pfeiffer")
        set_gates(alone, -60.0)
        untouched = AdaptedModel(tiny.backbone(family), classes=2, seed=0).eval()(batch)
        torch.testing.assert_close(alone(batch), untouched, rtol=1e-5, atol=1e-6)


def test_a_gate_is_the_mean_of_sigmoids_over_real_tokens():
    made = adapted_model("bert", seed=1)
    set_gates(made, 0.3)
    batch = tiny.batch(tiny.tokens(), "bert")
    with torch.inference_mode():
        made(batch)
        x = made.module.bert.embeddings(batch["input_ids"])
        gates = parts(made, Gates)[0]
        weight, bias = gates.linear.weight, gates.linear.bias
        for number, length in enumerate(batch["lengths"].tolist()):
            expected = torch.sigmoid(x[number, :length] @ weight.T + bias).mean(0)
            torch.testing.assert_close(gates.open[number], expected)
    assert gates.open.shape == (8, 2)  # an adapter's and the prefix's
    assert float(gates.open.std(0).min()) > 1e-4


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_an_answer_does_not_depend_on_what_else_is_in_the_batch(family):
    data = tiny.tokens()
    made = adapted_model(family)
    short = int(np.argmin(data.lengths))
    start = data.ends[short] - data.lengths[short]
    own = slice(start, data.ends[short])
    one = replace(data, ids=data.ids[own], ends=data.lengths[[short]], label=data.label[[short]])
    with torch.inference_mode():
        alone, among = made(tiny.batch(one, family)), made(tiny.batch(data, family))
    assert data.lengths.max() > data.lengths[short]
    torch.testing.assert_close(alone[0], among[short], rtol=1e-4, atol=1e-5)


def test_lora_has_a_gate_for_each_target():
    batch = tiny.batch(tiny.tokens(), "bert")
    made = adapted_model("bert", "method.base_method=lora")
    assert len(parts(made, Gated)) == 2 * 2
    assert [gates.linear.out_features for gates in parts(made, Gates)] == [2, 2]
    tiny.fit(
        made,
        build_method(tiny.one_run("method=unipelt", "method.base_method=lora").method),
        batch,
        steps=3,
    )
    assert all(gates.linear.bias.any() for gates in parts(made, Gates))


def test_a_method_around_it_leaves_the_gates():
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    words = ("method=bayes_hybrid", "method.base_method=unipelt", "method.matrices=[down,up]")
    build_method(tiny.one_run(*words).method).insert(made)
    assert all(isinstance(part.up, GaussianLinear) for part in parts(made, Gated))
    assert len(parts(made, Gated)) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["method.base_method=bitfit"], "BitFit inserts nothing that a gate could close"),
        (
            ["method.base_method=lora", "model.family=deberta_v2"],
            "has no gates for updates of queries",
        ),
        (["method.base_method=unipelt"], "UniPELT as it is configured has matrices that no gate"),
        (
            ["method.base_method=bayes_hybrid", "method.base_method.matrices=[down,up]"],
            "BayesHybrid as it is configured has matrices that no gate can stand behind",
        ),
        (
            ["method.base_method=sparse_adapter", "method.base_method.score=random"],
            "put it around method.base_method=unipelt",
        ),
        (["method.base_method=lora", "method.base_method.use_dora=true"], "LoRA as it is conf"),
        (["method.base_method=adalora"], "AdaLoRA as it is configured"),
    ],
)
def test_methods_without_a_place_for_gates_are_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(plan("model=tiny", "method=unipelt", *words).runs[0])
    value = (
        "model.family=deberta_v2",
        "method.base_method=lora",
        "method.base_method.target_modules=[value]",
    )
    dry_run.validate_run(plan("model=tiny", "method=unipelt", *value).runs[0])
    down = ("method.base_method=bayes_hybrid", "method.base_method.matrices=[down]")
    dry_run.validate_run(plan("model=tiny", "method=unipelt", *down).runs[0])


def test_counts_of_the_paper():
    """UniPELT's table 1 less its rounding: adapters 895 K, prefix 184 K, two gates a block."""
    words = (
        "method.base_method.members.prefix.width=0",
    )  # without the MLP, as it is used in the end
    count = full_size.trained("bert_base", "unipelt", *words)
    assert count == 894_528 + 10 * 12 * 2 * 768 + 12 * 2 * (768 + 1) == 1_097_304
