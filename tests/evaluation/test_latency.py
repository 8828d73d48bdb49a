"""Merged weights: whether a method folds, and whether the logits stay the same."""

import pytest
import tiny
import torch

from peftbench.config.sweep import plan
from peftbench.evaluation import latency
from peftbench.methods.base import Method, build_method
from peftbench.models import heads
from peftbench.models.adapted_model import AdaptedModel
from peftbench.suites.latency import Latency
from peftbench.training.precision import build_accelerator
from peftbench.training.predictor import Predictor


def viewing(method: Method, classes: int = 2, spoil=False) -> latency.View:
    """Views of a model whose method's values are far from their start."""

    def view(precision: str, merged: bool) -> Predictor:
        made = AdaptedModel(tiny.backbone("bert"), classes=classes, seed=0)
        torch.manual_seed(0)
        method.insert(made)
        with torch.no_grad():
            for p in made.trained().values():
                p.add_(0.2 * torch.randn(p.shape))
        made.eval().requires_grad_(False)
        if merged:
            method.merge(made)
            if spoil:
                made.module.classifier.bias.add_(0.01)
        accelerator = build_accelerator(torch.device("cpu"), precision)
        mask = made.backbone.family_config.mask
        return Predictor(0, mask, torch.device("cpu"), method, made, accelerator)

    return view


def merging(*words, spoil=False) -> latency.Merging:
    """What is said of merging a method."""
    method = build_method(tiny.one_run(*words, tiny.WIDE).method)
    with torch.random.fork_rng():
        return latency.compare_merged(method, viewing(method, spoil=spoil), tiny.tokens())


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_both_forms_are_timed_also_of_a_regression(classes, precision):
    """Its head multiplies fp32 by fp32, whatever the other linears are stored in."""
    method = build_method(tiny.one_run("method=lora", tiny.WIDE).method)
    asked = Latency(batch_size=4, repeats=20, warmup=1, seed=0)
    with torch.random.fork_rng():
        seconds, merging = latency.measure(
            *(asked, method, viewing(method, classes), tiny.tokens(classes=classes), precision),
            report=lambda news: None,
            stop=lambda: False,
        )
    assert merging.why_not is None
    assert seconds.keys() == {"unmerged", "merged"}
    for kinds in seconds.values():
        assert all((taken > 0).all() for taken in kinds.values())


@pytest.mark.parametrize(
    ("name", "precision", "stored"),
    [
        ("full", "bf16", {torch.bfloat16}),
        ("full", "fp32", {torch.float32}),
        ("adapter", "bf16", {torch.float32}),  # what is inserted computes as it trained
    ],
)
def test_a_model_without_inserted_parts_is_timed_with_weights_that_are_not_cast(
    name, precision, stored, monkeypatch
):
    def timed(predictor, batch):
        modules = [one for one in predictor.model.modules() if heads.is_cast(one)]
        found.update(p.dtype for one in modules for p in one.parameters(recurse=False))
        return 1.0

    found = set()
    monkeypatch.setattr(latency, "timed", timed)
    method = build_method(tiny.one_run(f"method={name}", tiny.WIDE).method)
    asked = Latency(batch_size=4, repeats=20, warmup=1, seed=0)
    with torch.random.fork_rng():
        seconds, merging = latency.measure(
            *(asked, method, viewing(method), tiny.tokens(), precision),
            report=lambda news: None,
            stop=lambda: False,
        )
    assert (found, seconds.keys()) == (stored, {"unmerged"})
    assert set(merging.to_json()) == {"not_merged", "difference"}


@pytest.mark.parametrize(
    ("words", "revision"),
    [
        (("method=full",), 2),
        (("method=robust_partial", "train.precision=bf16"), 2),
        (("method=full", "train.precision=fp32"), None),
        (("method=lora",), None),
    ],
)
def test_only_evaluations_that_were_timed_with_casts_have_new_keys(words, revision):
    [evaluation] = plan(
        "model=tiny", "task=synthetic_acceptability", "suite=latency", *words
    ).evaluations
    assert evaluation.suite.get("revision") == revision


@pytest.mark.parametrize(
    "words",
    [
        ("method=lora",),
        ("method=lora", "method.use_dora=true"),
        ("method=ia3",),
        ("method=peft", "method.type=LOHA"),
    ],
    ids=["lora", "dora", "ia3", "library"],
)
@pytest.mark.filterwarnings("ignore")  # the library's own, of many kinds
def test_merged_logits_are_those_of_the_other(words):
    found = merging(*words)
    assert found.why_not is None
    assert 0 < found.difference < 1e-4  # not 0: sums in another order
    assert merging(*words).to_json() == {"difference": found.difference, "tolerance": 1e-4}


@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("adapter", "Adapter has no place in the model's own weights"),
        ("prefix", "Prefix has no place in the model's own weights"),
        ("bitfit", "BitFit inserts nothing beside the model"),
        ("full", "Full inserts nothing beside the model"),
        ("mc_dropout", "averages passes with dropout"),
        ("blob", "averages draws from a posterior"),
    ],
)
def test_what_is_not_merged_says_why(method, why):
    found = merging(f"method={method}")
    assert why in found.why_not
    assert found.difference is None


def test_other_logits_are_not_timed():
    found = merging("method=lora", spoil=True)
    assert found.difference == pytest.approx(0.01, rel=0.01)
    assert found.why_not == "merged logits differ by 0.01 in fp32"
