"""The criterion of a pilot: written once, and every change of it shows."""

import hashlib

import pytest

from peftbench.core.errors import ConfigError, RecordError
from peftbench.pilot import criterion
from peftbench.pilot.criterion import PilotCriterion
from peftbench.results.store import ResultsFolder


def wanted(**more):
    return PilotCriterion(**{"data": "ab" * 32, "metric": "accuracy", "least": 0.85} | more)


def test_it_is_written_once_and_its_hash_is_that_of_the_file(tmp_path):
    results = ResultsFolder(tmp_path)
    assert criterion.read(results) is None
    first = criterion.fix(results, wanted(), 0)
    body = (tmp_path / "criterion.yaml").read_bytes()
    assert first.sha256 == hashlib.sha256(body).hexdigest()
    assert criterion.read(results) == wanted()
    again = criterion.fix(results, criterion.read(results), 40)
    assert again == first
    assert not again.changes
    assert [version.runs for version in again.versions] == [0]


def test_a_change_after_trainings_shows_with_both_versions(tmp_path):
    results = ResultsFolder(tmp_path)
    criterion.fix(results, wanted(), 0)
    path = tmp_path / "criterion.yaml"
    path.write_text(path.read_text().replace("0.85", "0.6"))
    changed = criterion.fix(results, criterion.read(results), 12)
    assert [one.criterion.least for one in changed.versions] == [0.85, 0.6]
    assert [one.runs for one in changed.changes] == [12]
    path.write_text(wanted().text())  # changed back: the change still shows
    assert len(criterion.fix(results, criterion.read(results), 12).changes) == 2


def test_versions_that_were_altered_are_refused(tmp_path):
    results = ResultsFolder(tmp_path)
    criterion.fix(results, wanted(), 0)
    notes = tmp_path / "criterion.json"
    notes.write_text(notes.read_text().replace("0.85", "0.60"))
    with pytest.raises(RecordError, match="altered"):
        criterion.fix(results, wanted(), 3)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"least": 85}, "from 0 to 1"),
        ({"metric": "acc"}, "accuracy"),
        ({"largest_review": 0.2}, "belong together"),
        ({"largest_review": 0.2, "review_error": 0.9}, "from 0 to 0.5"),
        ({"largest_review": 0.2, "review_error": 0}, "greater than 0"),
        ({"largest_seconds": 0}, "greater than 0"),
    ],
)
def test_a_criterion_that_cannot_be_meant_is_refused(more, told):
    with pytest.raises(ConfigError, match=told):
        wanted(**more)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("least: 0.9\n", "without data and metric; write it back"),
        ("- 1\n", ""),
        ("a: [\n", ""),
        ("data: x\nmetric: f1\nleest: 1\n", r"unknown key leest; did you mean least\?"),
    ],
)
def test_a_file_that_is_no_criterion_is_refused(tmp_path, text, told):
    (tmp_path / "criterion.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"criterion\.yaml.*{told}"):
        criterion.read(ResultsFolder(tmp_path))
