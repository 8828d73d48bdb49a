"""Rows that both models of a gate answer."""

import numpy as np
import pytest

from peftbench.core.errors import ConfigError
from peftbench.data import own_file
from peftbench.gate import held_out


def classes(path, labels, names):
    path.write_text("\n".join(["sentence,label", *(f"text {n},{one}" for n, one in labels)]))
    content = own_file.content_of(path)
    table = own_file.read_table(str(path), content, ["sentence"], "label", None)
    return held_out._label(table, "label", names)


def test_labels_that_are_numbers_are_not_taken_for_numbers_of_classes(tmp_path):
    """Stars from 1 to 5, a row that nobody rated, and no 5: each label would move up by one."""
    stars, path = list("12345"), tmp_path / "stars.csv"
    rated = [*enumerate("1234" * 5)]
    assert classes(path, rated, stars).tolist() == [0, 1, 2, 3] * 5
    with pytest.raises(ConfigError, match=r"0 \(line 22\)"):
        classes(path, [*rated, (20, "0")], stars)


def test_classes_are_given_by_name_or_by_number(tmp_path):
    for labels in ("bad good", "0 1"):
        found = classes(tmp_path / "mine.csv", [*enumerate(labels.split() * 5)], ["bad", "good"])
        assert np.array_equal(found, [0, 1] * 5)
