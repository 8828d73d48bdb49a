"""Rates that differ by layer, as the optimizer gets them."""

import pytest
import tiny

from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training import session
from peftbench.training.lr_schedule import learning_rate


def groups(*words: str) -> tuple[AdaptedModel, dict[str, dict]]:
    made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    method = build_method(tiny.one_run("method=full", *words).method)
    method.insert(made)
    names = {id(p): n for n, p in made.trained().items()}
    found = session.parameter_groups(
        made.trained(), tiny.recipe(weight_decay=0.1), method.lr_multipliers(made)
    )
    return made, {names[id(p)]: group for group in found for p in group["params"]}


def test_each_block_has_a_smaller_rate_than_the_one_above():
    made, found = groups("method.layer_decay=0.5")
    assert found.keys() == made.trained().keys()
    expected = {-1: 0.25, 0: 0.5, 1: 1.0, None: 1.0}
    for name, group in found.items():
        assert group["factor"] == expected[made.block_of(name)], name
        matrix = made.trained()[name].ndim >= 2
        assert group["weight_decay"] == (0.1 if matrix else 0.0)


def test_one_rate_is_two_groups():
    _, found = groups()
    assert len({id(group) for group in found.values()}) == 2


def test_a_factor_scales_the_step():
    """One step of AdamW moves every weight by its rate, whatever the gradient's size."""
    made, _ = groups("method.layer_decay=0.1")
    before = {n: p.detach().clone() for n, p in made.trained().items()}
    method = build_method(tiny.one_run("method=full", "method.layer_decay=0.1").method)
    tiny.fit(made, method, tiny.batch(tiny.tokens(), "bert"), steps=1, lr=1e-3, max_grad_norm=None)
    for name, p in made.trained().items():
        moved = float((p - before[name]).detach().abs().max())
        rate = 1e-3 * 0.1 ** {-1: 2, 0: 1}.get(made.block_of(name), 0)
        assert moved <= 1.01 * rate
        if name.endswith("dense.weight"):  # others may have gradients near AdamW's epsilon
            assert moved == pytest.approx(rate, rel=0.01)


def test_spreads_and_gates_are_not_decayed():
    for words in (["method=bayes_hybrid"], ["method=sparse_adapter", "method.score=learned"]):
        made = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
        build_method(tiny.one_run(*words).method).insert(made)
        decayed, plain = session.parameter_groups(made.trained(), tiny.recipe(weight_decay=0.1), {})
        names = {id(p): n for n, p in made.trained().items()}
        left = {names[id(p)].rpartition(".")[2] for p in plain["params"]}
        assert left & {"log_std", "openness"}
        assert not {names[id(p)] for p in decayed["params"] if "log_std" in names[id(p)]}
        assert decayed["weight_decay"] == 0.1


@pytest.mark.parametrize(
    ("schedule", "warmup", "rates"),
    [
        ("linear", 0.2, [0.0, 0.5, 1.0, 0.5, 0.0]),
        ("linear", 2, [0.0, 0.5, 1.0, 0.5, 0.0]),
        ("constant", 0.2, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("constant", 2, [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("linear", 0.0, [1.0, 0.9, 0.8, 0.4, 0.0]),
    ],
)
def test_the_rate_rises_and_falls_as_the_schedule_says(schedule, warmup, rates):
    """Of 10 steps; a warm-up of 2 steps is one of 0.2 of the budget."""
    config = tiny.recipe(lr=2.0, lr_scheduler_type=schedule, warmup_steps=warmup)
    found = [learning_rate(config, fraction, 10 * fraction) for fraction in (0, 0.1, 0.2, 0.6, 1)]
    assert found == pytest.approx([2 * rate for rate in rates])
