"""Adapters and prefixes are what the adapters library computes, from the same weights.

The library cannot be installed beside our transformers: scripts/golden_adapters.py made its side.
"""

import pytest
import tiny
import torch
from paths import GOLDEN as FOLDER
from safetensors.torch import load_file

from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel

GOLDEN = load_file(FOLDER / "adapters.safetensors")
WORDS = {
    "adapter": ("method.width=8",),
    "pfeiffer": ("method.width=8",),
    "parallel": ("method.width=8", "method.scale=2.0"),
    "prefix": ("method.length=5", "method.width=8"),
}


def ours(name: str, method: str) -> str:
    """Our name of a tensor of the library's model."""
    wrapped = {
        "adapter": ("attention.output.dense", ".output.dense"),
        "pfeiffer": (".output.LayerNorm",),
        "parallel": (".output.dense", "intermediate.dense"),
        "prefix": (),
    }[method]
    place = {"adapter": "dense", "pfeiffer": "LayerNorm", "parallel": "dense", "prefix": ""}[method]
    if "adapter_" in name:
        name = name.replace(f"adapters.{method}.adapter_down.0", f"{place}.bottleneck.down")
        return "bert." + name.replace(f"adapters.{method}.adapter_up", f"{place}.bottleneck.up")
    if "prefix_tunings" in name:
        last = name.partition("self_prefix.")[2]
        last = last.replace("control_trans.0", "down").replace("control_trans.2", "up")
        return "prefix." + last.replace("wte.weight", "start")
    for part in wrapped:
        inside_attention = "attention." in name and not part.startswith("attention")
        if part in f".{name}" and not inside_attention:
            name = name.replace(part.strip("."), part.strip(".") + ".part")
            break
    return "bert." + name


@pytest.mark.parametrize("method", WORDS)
def test_hidden_states_are_the_librarys(method):
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    build_method(tiny.one_run(f"method={method}", *WORDS[method]).method).insert(model)
    start = f"{method}/weights/"
    theirs = {n.removeprefix(start): t for n, t in GOLDEN.items() if n.startswith(start)}
    targets = dict(model.module.named_parameters())
    given = {ours(name, method): tensor for name, tensor in theirs.items()}
    missing = {n for n in targets if n not in given}
    assert all(model.in_head(name) for name in missing), sorted(missing)
    with torch.inference_mode():
        made = torch.func.functional_call  # the backbone's tensors are shared: none is written to
        ids, mask = GOLDEN["input_ids"], GOLDEN["attention_mask"].bool()[:, None, None]
        named = {f"module.{name}": given[name] for name in targets if name in given}
        batch = {"input_ids": ids, "attention_mask": mask}
        kept: list[torch.Tensor] = []
        model.eval().module.bert.encoder.register_forward_hook(
            lambda module, arguments, output: kept.append(output.last_hidden_state)
        )
        made(model, named, (batch,))
    real = GOLDEN["attention_mask"].bool()
    torch.testing.assert_close(
        kept[0][real], GOLDEN[f"{method}/states"][real], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("method", ["adapter", "pfeiffer", "parallel"])
def test_an_export_has_the_librarys_names_and_values(method):
    """The library's own tensors, put into our model, come out under the names that they had."""
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    maker = build_method(tiny.one_run(f"method={method}", *WORDS[method]).method)
    maker.insert(model)
    start = f"{method}/weights/"
    theirs = {n.removeprefix(start): t for n, t in GOLDEN.items() if n.startswith(start)}
    own = model.state()
    for name, tensor in theirs.items():
        if ours(name, method) in own:
            own[ours(name, method)].copy_(tensor)
    config, tensors = maker.to_adapters(model, method)
    adapters = {n: t for n, t in tensors.items() if f".adapters.{method}." in n}
    assert {f"bert.{name}" for name in theirs if ".adapters." in name} == set(adapters)
    for name, tensor in adapters.items():
        assert torch.equal(tensor, theirs[name.removeprefix("bert.")])
    others = set(tensors) - set(adapters)
    assert others <= {f"bert.{name}" for name in theirs} | {"classifier.weight", "classifier.bias"}
    assert config["reduction_factor"] == 4
    assert config["mh_adapter"] == (method == "adapter")
    assert config["original_ln_before"] == (method == "pfeiffer")
    assert config["is_parallel"] == (method == "parallel")
    assert config["scaling"] == (2.0 if method == "parallel" else 1.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method=adapter", "method.width=5"), "no width of 5, which does not divide 32"),
        (("method=adapter", "method.at=[attn_out]"), "no adapters at attn_out"),
        (("method=adapter", "model.family=distilbert"), "calls the parts of .* otherwise"),
    ],
)
def test_what_the_library_has_not_is_refused(words, message):
    run = tiny.one_run(*words)
    model = AdaptedModel(tiny.backbone(run.model.family), classes=2, seed=0)
    maker = build_method(run.method)
    maker.insert(model)
    with pytest.raises(ValueError, match=message):
        maker.to_adapters(model, "name")
