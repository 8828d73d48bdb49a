"""A combination has the task's loss and predictions, and all that its members say of themselves."""

from dataclasses import replace

import pytest
import tiny

from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.methods.combined import Combined

FOUR = "model.shape={num_hidden_layers:4}"


def member(*words: str):
    return build_method(tiny.one_run(*words).method)


@pytest.mark.parametrize(
    ("words", "todo"),
    [
        (("method=adalora",), "AdaLoRA has a loss or predictions of its own.*: train it alone"),
        (("method=bayes_hybrid",), "BayesHybrid has .*: give it method.base_method=combined"),
        (("method=blob",), "BLoB has"),
        (("method=mc_dropout",), "MCDropout has"),
        (("method=robust_partial", "method.penalty=r3f"), "RobustPartial has"),
        (("method=sparse_adapter", "method.score=learned"), "SparseAdapter has"),
        (
            ("method=robust_partial", "method.penalty=none", "method.base_method=adalora"),
            "RobustPartial has",
        ),
    ],
    ids=lambda given: given[-1].rpartition("=")[2] if isinstance(given, tuple) else "",
)
def test_members_that_would_lose_their_own_loss_are_refused(words, todo):
    members = {"prefix": member("method=prefix"), "other": member(*words)}
    with pytest.raises(ValueError, match=f"members.other: {todo}"):
        Combined(members=members).on_train_begin(None, iter([]))


@pytest.mark.parametrize(
    "words",
    [
        ("method=adalora", "method.orthogonality=0"),
        ("method=robust_partial", "method.penalty=none"),
        ("method=sparse_adapter", "method.score=random"),
        ("method=combined",),
        ("method=unipelt",),
    ],
    ids=lambda words: words[0],
)
def test_members_whose_loss_is_the_tasks_are_taken(words):
    assert member(*words).task_alone


def test_blocks_that_a_member_names_are_there_in_the_rehearsal():
    words = ("method=robust_partial", "method.base_method=bitfit", "method.penalty=none")
    run = tiny.one_run(*words, FOUR, "method.choose=manual", "method.which=[3]")
    combined = tiny.one_run("method=combined", FOUR).method.to_json()
    combined["members"] = {"blocks": run.method.to_json()}
    run = replace(run, method=MethodConfig.from_json(combined))
    dry_run.validate_run(run)
    combined["members"]["blocks"]["which"] = [4]
    with pytest.raises(ConfigError, match="tiny has 4 blocks"):
        dry_run.validate_run(replace(run, method=MethodConfig.from_json(combined)))


def test_heads_together_are_a_head():
    head, lora = member("method=head"), member("method=lora")
    assert Combined(members={"a": head, "b": head}).head_alone
    assert not Combined(members={"a": head, "b": lora}).head_alone
    assert not Combined(members={"a": head, "b": lora}).names_blocks
