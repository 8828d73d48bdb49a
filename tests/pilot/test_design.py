"""The overrides that a pilot takes, and what is made of them."""

import numpy as np
import pytest

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, OldName
from peftbench.pilot.design import Request, design


def test_names_of_the_release_before_are_taken_as_run_takes_them(tmp_path):
    said = ("model=tiny", "method=lora", "form=head", "augment=noise", "train.batch=2")
    words = Request(tmp_path / "rows.csv", said).words("accuracy")
    with pytest.warns(OldName) as notes:
        (run,) = plan(*said, "task=synthetic_opinion").runs
    assert {str(note.message).partition(" now")[0] for note in notes} == {
        "form is called prompt",
        "augment is called augmentation",
        "train.batch is called train.batch_size",
    }
    assert run.train.batch_size == 2
    assert words[-len(said) :] == list(said)


def test_a_rate_is_refused_under_its_other_names(tmp_path):
    for word in ("lr=1e-3", "learning_rate=1e-3", "train.learning_rate=1e-3"):
        with pytest.raises(ConfigError, match="use --rates"):
            Request(tmp_path / "rows.csv", (word,)).words("accuracy")


def test_a_class_that_lies_in_one_group_is_refused_before_any_training(tmp_path):
    """Held out together, its rows leave a fold nothing to learn the class from."""
    draw, letters = np.random.default_rng(0), list("abcdefghijklmnopqrstuvwxyz")
    texts = ["".join(draw.choice(letters, 20)) for _ in range(200)]

    def ask(customers, **more):
        lines = [
            f"{text},{'bad' if number < 20 else 'good'},{customer}"
            for number, (text, customer) in enumerate(zip(texts, customers, strict=True))
        ]
        path = tmp_path / "mine.csv"
        path.write_text("\n".join(["sentence,label,customer", *lines]) + "\n")
        words = ("model=tiny", "method=full")
        return design(Request(path, words, group="customer", **more), "accuracy", tmp_path)

    with pytest.raises(ConfigError, match=r"all 20 rows of class bad .* 1 group \(near dup") as one:
        ask([0] * 20 + list(range(1, 181)))
    assert "rows with the same customer stay together" in str(one.value)
    found = ask([number % 4 for number in range(20)] + list(range(4, 184)), folds=2)
    assert found.classes == {"bad": 20, "good": 180}
    assert len(found.tasks) == 2
