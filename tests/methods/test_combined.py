"""A combination has the task's loss and predictions, and all that its members say of themselves."""

from dataclasses import replace

import pytest
import tiny

from peftbench.config.sweep import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.methods.combined import Combined
from peftbench.models.adapted_model import AdaptedModel

FOUR = "model.shape={num_hidden_layers:4}"


def member(*words: str):
    return build_method(tiny.one_run(*words).method)


def test_members_that_would_lose_their_own_loss_are_refused():
    members = {"prefix": member("method=prefix"), "other": member("method=adalora")}
    with pytest.raises(ValueError, match=r"members\.other: AdaLoRA has a loss .*: train it alone"):
        Combined(members=members).on_train_begin(None, iter([]))


@pytest.mark.parametrize(
    "name",
    ["bayes_hybrid", "blob", "mc_dropout", "robust_partial", "sparse_adapter", "unipelt"],
)
def test_members_that_act_on_their_neighbours_are_refused_at_planning(tmp_path, name):
    """SparseAdapter around a prefix pruned the adapters beside it too."""
    members = {"prefix": member("method=prefix"), "other": member(f"method={name}")}
    with pytest.raises(ConfigError, match="a method around another one acts on all that"):
        Combined(members=members)
    (tmp_path / "method").mkdir()
    text = f"defaults: [combined, /method@members.other: {name}, _self_]\nname: mine\n"
    (tmp_path / "method" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"^method\.members\.other: .*method\.base_method=comb"):
        plan("model=tiny", "method=mine", configs=str(tmp_path))


@pytest.mark.parametrize(
    "words",
    [
        ("method=adalora", "method.orthogonality=0"),
        ("method=combined",),
        ("method=lora",),
    ],
    ids=lambda words: words[0],
)
def test_members_whose_loss_is_the_tasks_are_taken(words):
    assert member(*words).task_alone


def trained(*names: str) -> dict[str, int]:
    """Trained weights by the last part of their names, of members in this order."""
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    Combined(members={name: member(f"method={name}") for name in names}).insert(made)
    return {n: p.numel() for n, p in made.trained().items() if not made.in_head(n)}


@pytest.mark.parametrize(
    ("first", "then", "what"),
    [
        ("lora", "bitfit", "query.linear.bias and 3 others before .* each bias"),
        ("pfeiffer", "layernorm", "LayerNorm.part.bias and 3 others before .* each norm"),
        ("lora", "full", "query.linear.bias and 7 others before .* each parameter"),
        ("parallel", "bitfit", "before .* each bias"),
    ],
)
def test_weights_inside_of_what_came_before_are_not_left_out_without_a_word(first, then, what):
    with pytest.raises(ValueError, match=f"another method has put something around .*{what}"):
        trained(first, then)
    both = trained(then, first)
    alone = trained(then)
    assert sum(both.values()) == sum(alone.values()) + sum(trained(first).values())


def test_blocks_that_a_member_names_are_there_in_the_rehearsal():
    run = tiny.one_run("method=peft", "method.config.layers_to_transform=[3]", FOUR)
    combined = tiny.one_run("method=combined", FOUR).method.to_json()
    combined["members"] = {"blocks": run.method.to_json()}
    dry_run.validate_run(replace(run, method=MethodConfig.from_json(combined)))
    combined["members"]["blocks"]["config"] = {"layers_to_transform": [4]}
    with pytest.raises(ConfigError, match="has no place for peft's LORA"):
        dry_run.validate_run(replace(run, method=MethodConfig.from_json(combined)))


def test_heads_together_are_a_head():
    head, lora = member("method=head"), member("method=lora")
    assert Combined(members={"a": head, "b": head}).head_alone
    assert not Combined(members={"a": head, "b": lora}).head_alone
    assert not Combined(members={"a": head, "b": lora}).names_blocks
