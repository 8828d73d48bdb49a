"""AdaLoRA by its paper: the form of the update, importance, the cubic budget, the final rank."""

from dataclasses import asdict

import pytest
import short_runs
import tiny
import torch
from peft import AdaLoraConfig
from peft.tuners.adalora.layer import RankAllocator

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run
from peftbench.methods.adalora import AdaLoRA, Triplets
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training import session
from peftbench.training.trainer import execute

WORDS = ("method.initial_rank=6", "method.target_rank=4", "method.dropout=0")
MATRICES = 12  # six roles of two blocks


def made(*words: str) -> tuple[AdaLoRA, AdaptedModel]:
    method = build_method(tiny.one_run("method=adalora", *WORDS, *words).method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    torch.manual_seed(0)
    method.insert(model)
    return method, model


def parts(model: AdaptedModel) -> list[Triplets]:
    return [part for part in model.module.modules() if isinstance(part, Triplets)]


def test_the_budget_falls_by_the_cube():
    """Equation 12 at points that are easily counted, and the library's schedule at all of them."""
    method, _ = made("method.initial=0.1", "method.final=0.3")
    b = [method.triplets(step, 100, MATRICES) for step in range(101)]
    assert b[:11] == [72] * 11
    assert b[40] == 48 + 24 / 8  # half way from 10 to 70
    assert b[55] == int(48 + 24 / 64)
    assert b[70:] == [48] * 31
    config = AdaLoraConfig(init_r=6, target_r=4, tinit=10, tfinal=30, total_step=100)
    library = RankAllocator(torch.nn.Module(), config, "default")
    library.init_bgt, library.target_bgt = 72, 48
    assert b[1:] == [library.budget_schedule(step)[0] for step in range(1, 101)]


def test_importance_by_hand():
    """Equations 7 to 11, for one matrix of rank 1 after two steps."""
    part = Triplets(torch.nn.Linear(2, 1), rank=1, scale=1.0, dropout=0.0)
    with torch.no_grad():
        part.singular.copy_(torch.tensor([2.0]))
        part.up.weight.copy_(torch.tensor([[3.0]]))
        part.down.weight.copy_(torch.tensor([[1.0, -2.0]]))
    for factor in (1.0, 3.0):
        part.singular.grad = torch.tensor([1.0 * factor])
        part.up.weight.grad = torch.tensor([[-1.0 * factor]])
        part.down.weight.grad = torch.tensor([[0.5, 1.0]]) * factor
        part.observe(0.5, 0.8)

    def s(sensitivity: float) -> float:
        mean = 0.5 * sensitivity
        spread = 0.2 * abs(sensitivity - mean)
        mean = 0.5 * mean + 0.5 * 3 * sensitivity
        spread = 0.8 * spread + 0.2 * abs(3 * sensitivity - mean)
        return mean * spread

    assert float(part.importance()) == pytest.approx(s(2) + s(3) + (s(0.5) + s(2)) / 2)


def test_the_final_average_rank_is_the_target():
    method, model = made()
    batch = tiny.batch(tiny.tokens(), "bert")
    ranks: dict[int, int] = {}

    class Watched(AdaLoRA):
        def on_step_end(self, model, step, steps):
            super().on_step_end(model, step, steps)
            ranks[step] = int(sum(part.singular.count_nonzero() for part in parts(model)))

    watched = Watched(**asdict(method))
    tiny.fit(model, watched, batch, steps=40)
    start, end = 7, 40 - 21  # 17 % and 52 % of 40 steps
    assert ranks[0] == 0  # all singular values start at 0
    assert {ranks[step] for step in range(1, start + 1)} == {6 * MATRICES}
    falling = [ranks[step] for step in range(start + 1, end + 1)]
    assert falling == [method.triplets(step, 40, MATRICES) for step in range(start + 1, end + 1)]
    assert {ranks[step] for step in range(end, 41)} == {4 * MATRICES}
    assert method.diagnostics(model) == {"rank": 4}
    assert len({int(part.kept.sum()) for part in parts(model)}) > 1  # shared out unevenly


def test_frozen_updates_are_not_ranked():
    """Of the six matrices of the block that trains four ranks stay on average, as of all."""
    words = ("method=robust_partial", "method.choose=manual", "method.which=[1]")
    inner = [word.replace("method.", "method.base_method.") for word in WORDS]
    run = tiny.one_run(*words, "method.penalty=none", "method.base_method=adalora", *inner)
    method, model = build_method(run.method), AdaptedModel(tiny.backbone("bert"), 2, seed=0)
    method.insert(model)
    batch = tiny.batch(tiny.tokens(), "bert")
    method.on_train_begin(model, iter([batch]))
    tiny.fit(model, method, batch, steps=40)
    first, second = parts(model)[: MATRICES // 2], parts(model)[MATRICES // 2 :]
    assert sum(int(part.singular.count_nonzero()) for part in second) == 4 * MATRICES / 2
    assert not any(part.singular.any() for part in first)
    assert all(part.kept.all() for part in first)
    assert method.diagnostics(model) == {"rank": 4}


@pytest.mark.parametrize("choose", ["rgn", "fisher"])
def test_blocks_may_be_chosen_by_their_gradients(tmp_path, choose):
    words = ("method=robust_partial", "method.base_method=adalora", f"method.choose={choose}")
    run = short_runs.one(tiny.own_task(tmp_path), *words, "method.penalty=none", "budget.steps=8")
    dry_run.rehearse(run, None)
    assert len(execute(run, short_runs.CPU).record.curve) == 2


def test_a_reduction_waits_for_its_interval():
    method, model = made("method.interval=100")
    tiny.fit(model, method, tiny.batch(tiny.tokens(), "bert"), steps=12)
    assert method.diagnostics(model) == {"rank": 4}  # at the end of the schedule all the same


def test_the_regulariser_is_the_distance_from_orthogonal_matrices():
    part = Triplets(torch.nn.Linear(8, 8), rank=3, scale=1.0, dropout=0.0)
    with torch.no_grad():
        part.up.weight.copy_(torch.eye(8)[:, :3])
        part.down.weight.copy_(2 * torch.eye(8)[:3])
    up, down = (float(distance) for distance in part.distances())
    assert up == 0
    assert down == pytest.approx(3 * 3**0.5)  # 4 I - I in three dimensions


def test_the_library_gets_the_same_update():
    """As a LoRA: B is s P diag(l)."""
    method, model = made()
    with torch.no_grad():
        for p in model.trained().values():
            p.add_(0.1 * torch.randn(p.shape))
    config, tensors = method.to_peft(model)
    assert config["r"] == config["lora_alpha"] == 6
    (path, part), *_ = [
        (path, part) for path, part in model.module.named_modules() if isinstance(part, Triplets)
    ]
    update = tensors[f"base_model.model.{path}.lora_B.weight"]
    update = update @ tensors[f"base_model.model.{path}.lora_A.weight"]
    torch.testing.assert_close(update, part.to_plain().weight - part.linear.weight)


def test_a_continued_training_keeps_the_averages():
    method, model = made()
    tiny.fit(model, method, tiny.batch(tiny.tokens(), "bert"), steps=12)
    again = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    method.insert(again)
    again.restore(model.state())
    for one, other in zip(parts(model), parts(again), strict=True):
        assert one.importance().any()
        assert torch.equal(one.importance(), other.importance())
        assert torch.equal(one.kept, other.kept)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("budget=seconds",), "ranks fall by steps; take a budget of steps or epochs"),
        (("budget=steps", "budget.steps=1"), "1 steps are too few"),
        (("method.target_rank=13",), "initial_rank must be a whole number of at least 13"),
        (("method.initial=0.5",), r"initial \+ final must be below 1, got 0.5 \+ 0.52"),
    ],
)
def test_what_leaves_no_room_is_refused_when_planning(words, message):
    with pytest.raises(ConfigError, match=message):
        plan("model=tiny", "method=adalora", *words)


def test_it_is_not_packed():
    method, model = made()
    assert not method.supports_packing
    groups = session.parameter_groups(model.trained(), tiny.recipe(weight_decay=0.1), {})
    decayed = {id(p) for group in groups if group["decayed"] for p in group["params"]}
    assert not decayed & {id(part.singular) for part in parts(model)}


def test_a_budget_of_no_steps_is_the_model_before_training(tmp_path):
    words = ("method=adalora", "budget.steps=0")
    found = execute(short_runs.one(tiny.own_task(tmp_path), *words), short_runs.CPU).record
    plain = execute(
        short_runs.one(tiny.own_task(tmp_path), "method=lora", "budget.steps=0"), short_runs.CPU
    ).record
    assert found.metrics == plain.metrics
