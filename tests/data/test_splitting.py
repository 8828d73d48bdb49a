"""How the training examples of a run are cut."""

import numpy as np
import pytest
from records import runs

from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.data.splitting import split_training

LABEL = np.arange(400) % 2


def split(fold, size=100):
    (run,) = runs("method=lora", f"size={size}")
    selection = CheckpointSelection(fraction=0.25, patience=1, fold=fold)
    return split_training(run, LABEL, selection)


def test_folds_hold_every_example_out_once():
    parts = [split(fold) for fold in range(4)]
    held = np.concatenate([rows.selection for rows in parts])
    assert sorted(held) == sorted(np.concatenate([parts[0].train, parts[0].selection]))
    assert len(set(held)) == 100
    for rows in parts:
        assert len(rows.train) == 75
        assert not set(rows.train) & set(rows.selection)
        assert 8 <= LABEL[rows.selection].sum() <= 17  # stratified
        assert set(rows.unused) == set(parts[0].unused)


def test_a_last_part_is_what_is_left_and_none_is_empty():
    """Seven examples in four parts: two, two, two and one; of six the last would be empty."""
    selection = [CheckpointSelection(fraction=0.25, patience=1, fold=fold) for fold in range(4)]
    assert [one.held_of(7) for one in selection] == [2, 2, 2, 1]
    assert [one.held_of(6) for one in selection[:3]] == [2, 2, 2]
    with pytest.raises(ConfigError, match="of 6 examples leaves nothing to select on"):
        selection[3].held_of(6)


@pytest.mark.parametrize(("size", "last"), [(7, 1), (75, 18), (163, 40), (166, 40)])
def test_a_shorter_last_part_repeats_no_row_of_the_others(size, last):
    held = [split(fold, size).selection for fold in range(4)]
    assert len(held[3]) == last
    assert len(set(np.concatenate(held))) == size


def test_the_first_fold_is_the_split_of_a_run_without_one():
    plain, first = split(None), split(0)
    assert np.array_equal(plain.selection, first.selection)
    assert np.array_equal(plain.train, first.train)
