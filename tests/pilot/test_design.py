"""The overrides that a pilot takes, and what is made of them."""

import pytest

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, OldName
from peftbench.pilot.design import Request


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
        with pytest.raises(ConfigError, match="say --rates"):
            Request(tmp_path / "rows.csv", (word,)).words("accuracy")
