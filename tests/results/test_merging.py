"""Results folders as one: what is copied once, what is refused, what an interruption leaves."""

import errno
import os
import shutil
from dataclasses import replace

import pytest
import records
import suite_records

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.tuning import Choice, Trial, subject
from peftbench.results import choices, merging
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder

WORDS = ("method=lora,bitfit", "seed=0,1")


def folder(path, runs, score=0.75):
    """A folder with a record, predictions and weights of each run."""
    made = ResultsFolder(path)
    for run in runs:
        trained = b"weights of " + run.key.encode()
        made.save(records.record(run, score), records.predictions(), trained)
    return made


@pytest.fixture
def two(tmp_path):
    """Three runs each, two of them the same files; the second has an evaluation and a choice."""
    runs = records.runs(*WORDS)
    a, b = folder(tmp_path / "a", runs[:3]), folder(tmp_path / "b", runs[3:])
    for run in runs[1:3]:
        for kind, suffix in (
            ("records", "json"),
            ("predictions", "npz"),
            ("trained", "safetensors"),
        ):
            name = f"{kind}/{run.key}.{suffix}"
            shutil.copy(a.folder / name, b.folder / name)
    (evaluation,) = suite_records.planned("suite=noise", "method=bitfit", "seed=1")
    b.save_evaluated(suite_records.noisy(evaluation, 0.75), records.predictions())
    choices.save(b, choice(runs[3]))
    b.trials().save(records.record(runs[3], 0.5), records.predictions())
    b.keep_revisions({"models/x": "abc"})
    return a, b


def choice(run, rate=1e-3):
    trials = [Trial(run.key, rate, 1000, None, 0, 0.7, False, 1.0)]
    return Choice(subject(run), rate, "accuracy", "a test", trials, None)


def content(place):
    return {
        path.relative_to(place.folder): path.read_bytes()
        for path in sorted(place.folder.rglob("*"))
        if path.is_file() and path.name != "claims"
    }


def test_what_folders_hold_is_copied_once(two, tmp_path):
    into = ResultsFolder(tmp_path / "all")
    done = merging.merge(two, into)
    assert content(into) == content(two[0]) | content(two[1])
    assert done.counts == {
        "run": (4, 4),
        "evaluation": (1, 1),
        "choice": (1, 1),
        "trial": (1, 1),
    }
    assert done.left_out == done.notes == []
    for record in into.scan()[0]:
        assert into.weights(record) == b"weights of " + record.run.key.encode()
        assert len(into.predictions(record)["label"]) == 5
    again = merging.merge([*two, into], into)
    assert again.counts["run"] == (4, 0)
    assert content(into) == content(two[0]) | content(two[1])


def test_other_numbers_under_a_key_are_listed_and_nothing_is_written(two, tmp_path):
    a, b = two
    run = records.runs(*WORDS)[3]
    a.save(records.record(run, 0.625), records.predictions())
    into = ResultsFolder(tmp_path / "all")
    with pytest.raises(ConfigError) as told:
        merging.merge([a, b], into)
    lines = str(told.value).splitlines()
    assert lines[0] == "1 key has other numbers in another folder; nothing was written:"
    assert lines[1] == f"{run.key}  {run.title}"
    assert lines[2] == f"  {a.folder}: accuracy 62.5, f1 62.5, 4.0 s, Some CPU"
    assert lines[3] == f"  {b.folder}: accuracy 75, f1 75, 4.0 s, Some CPU"
    assert not into.folder.exists()
    done = merging.merge([a, b], into, keep_first=True)
    assert into.load(run.key).score == 0.625
    assert [str(a.folder) in note for note in done.notes] == [True]
    assert done.counts["run"] == (4, 4)


def test_what_the_output_holds_comes_first(two, tmp_path):
    into = folder(tmp_path / "all", records.runs(*WORDS)[:1], 0.25)
    with pytest.raises(ConfigError, match="1 key has other numbers"):
        merging.merge(two, into)
    merging.merge(two, into, keep_first=True)
    key = records.runs(*WORDS)[0].key
    assert (into.load(key).score, len(into.keys())) == (0.25, 4)


def test_evaluations_of_weights_that_are_not_kept_are_left_out(two, tmp_path):
    """Of a run that was trained twice, only what was measured on the kept weights counts."""
    a, b = two
    run = records.runs(*WORDS)[3]
    a.save(records.record(run, 0.5), records.predictions(), b"other weights")
    (key,) = b.evaluations()
    found = b.evaluated(key)
    b.save_evaluated(replace(found, trained_sha256=b.load(run.key).trained_sha256), {})
    first, second = ResultsFolder(tmp_path / "first"), ResultsFolder(tmp_path / "second")
    done = merging.merge([a, b], first, keep_first=True)
    assert first.evaluations() == []
    assert [line.startswith(f"{key}  noise of") for line in done.left_out] == [True]
    assert merging.merge([b, a], second, keep_first=True).left_out == []
    assert second.evaluations() == [key]


def test_an_interrupted_merge_continues(two, tmp_path, monkeypatch):
    into = ResultsFolder(tmp_path / "all")
    write, left = ResultsFolder.write, [5]

    def full(self, path, body):
        left[0] -= 1
        if not left[0]:
            raise OSError(28, "No space left on device")
        write(self, path, body)

    monkeypatch.setattr(ResultsFolder, "write", full)
    with pytest.raises(OSError, match="No space"):
        merging.merge(two, into)
    monkeypatch.undo()
    assert 0 < len(into.keys()) < 4
    for record in into.scan()[0]:
        into.predictions(record)
        into.weights(record)
    merging.merge(two, into)
    assert content(into) == content(two[0]) | content(two[1])


def test_damaged_files_are_left_out_or_come_from_another_folder(two, tmp_path):
    a, b = two
    lost, shared, *_ = records.runs(*WORDS)
    (a.folder / "records" / f"{lost.key}.json").write_text("{")
    (a.folder / "predictions" / f"{shared.key}.npz").write_bytes(b"PK")
    into = ResultsFolder(tmp_path / "all")
    done = merging.merge([a, b], into)
    assert [lost.key in line and "is not whole" in line for line in done.left_out] == [True]
    assert len(into.predictions(into.load(shared.key))["label"]) == 5
    (b.folder / "predictions" / f"{shared.key}.npz").unlink()
    into = ResultsFolder(tmp_path / "without")
    done = merging.merge([a, b], into)
    assert [shared.key in line and "without predictions" in line for line in done.notes] == [True]
    with pytest.raises(RecordError, match="is gone"):
        into.predictions(into.load(shared.key))


def test_predictions_of_another_training_are_replaced_or_noted(two, tmp_path):
    """As an interrupted training leaves them: they are written before the record."""
    a, b = two
    lost, shared, *_ = records.runs(*WORDS)
    into = ResultsFolder(tmp_path / "all")
    for run in (lost, shared):
        other = {name: array[:3] for name, array in records.predictions().items()}
        into.save(records.record(run, 0.5), other, b"other weights")
        (into.folder / "records" / f"{run.key}.json").unlink()
    (a.folder / "predictions" / f"{lost.key}.npz").unlink()
    done = merging.merge([a, b], into)
    assert len(into.predictions(into.load(shared.key))["label"]) == 5
    assert into.weights(into.load(shared.key)) == b"weights of " + shared.key.encode()
    assert [lost.key in line and "without predictions" in line for line in done.notes] == [True]


def test_a_record_that_arrives_meanwhile_keeps_its_predictions(two, tmp_path, monkeypatch):
    """A sweep may train into the folder that others are merged into."""
    into = ResultsFolder(tmp_path / "all")
    run = records.runs(*WORDS)[0]
    claim = ResultsFolder.claim

    def late(self, key):
        if key == run.key and not self.has(key):
            self.save(records.record(run, 0.5), records.predictions(), b"its own weights")
        return claim(self, key)

    monkeypatch.setattr(ResultsFolder, "claim", late)
    done = merging.merge(two, into)
    told = f"{run.key}  {run.title}: {into.folder} got another one meanwhile; merge again"
    assert done.left_out == [told]
    made = into.load(run.key)
    assert (made.score, into.weights(made)) == (0.5, b"its own weights")


def test_an_evaluation_of_other_weights_than_the_record_is_made_again(two, tmp_path):
    """The record was torn and trained again, on a device that gives other weights."""
    _, b = two
    run = records.runs(*WORDS)[3]
    (key,) = b.evaluations()
    found = replace(b.evaluated(key), trained_sha256=b.load(run.key).trained_sha256)
    found = b.save_evaluated(found, {})
    planned = plan(*records.tiny(*WORDS), "suite=noise")
    assert b.done(found.evaluation)
    assert key in sweep_status(planned, b).done
    b.save(records.record(run, 0.75), records.predictions(), b"other weights")
    assert not b.done(found.evaluation)
    now = sweep_status(planned, b)
    assert key not in now.done
    line = f"  made again: the evaluation {key} is of other weights than the record {run.key}"
    assert now.unreadable() == [line]
    done = merging.merge([b], ResultsFolder(tmp_path / "all"))
    assert [text.startswith(f"{key}  noise of") for text in done.left_out] == [True]


def test_a_run_in_progress_is_left_as_it_is(two, tmp_path, monkeypatch):
    into = ResultsFolder(tmp_path / "all")
    run = records.runs(*WORDS)[0]
    claim = ResultsFolder.claim
    monkeypatch.setattr(
        ResultsFolder, "claim", lambda self, key: key != run.key and claim(self, key)
    )
    done = merging.merge(two, into)
    assert not into.has(run.key)
    assert [f"{run.key} is in progress" in line for line in done.left_out] == [True]


def test_folders_that_cannot_be_meant_are_refused(two, tmp_path):
    a, b = two
    (tmp_path / "empty").mkdir()
    for given, into, said in (
        ([a, ResultsFolder(tmp_path / "c")], tmp_path / "all", "no such folder"),
        ([a, ResultsFolder(tmp_path / "empty")], tmp_path / "all", "holds no records"),
        ([a, b], a.folder / "all", "one lies in the other"),
        ([a, b.trials()], b.folder, "one lies in the other"),
    ):
        with pytest.raises(ConfigError, match=said):
            merging.merge(given, ResultsFolder(into))
    assert not (tmp_path / "all").exists()
    merging.merge([b], a)
    assert len(a.keys()) == 4


def test_folders_of_trials_alone_are_merged(tmp_path):
    """As two machines leave them that each made a share of a search."""
    one, other = records.runs("method=lora", "seed=0,1")
    folders = [ResultsFolder(tmp_path / name) for name in "ab"]
    for place, run in zip(folders, (one, other), strict=True):
        place.trials().save(records.record(run), records.predictions())
    into = ResultsFolder(tmp_path / "all")
    assert merging.merge(folders, into).counts == {"trial": (2, 2)}
    assert into.trials().keys() == sorted([one.key, other.key])


def test_trials_are_claimed_by_files_too_where_there_are_no_locks(two, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    into = ResultsFolder(tmp_path / "all")
    said = [note for note in merging.merge(two, into).notes if "has no locks" in note]
    assert len(into.trials().keys()) == 1
    assert len(said) == 2
    assert f"claimed by files in {into.trials().folder / 'claim_files'}" in said[1]


def test_a_torn_choice_is_left_out_or_comes_from_another_folder(two, tmp_path):
    a, b = two
    (path,) = b.choices().iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:200])
    into = ResultsFolder(tmp_path / "without")
    (line,) = merging.merge([a, b], into).left_out
    assert line.startswith(f"unreadable, {b.folder}: {path} is not whole")
    assert f"makes it again from the trials in {b.trials().folder}" in line
    assert (len(into.keys()), into.choices().exists()) == (4, False)
    a.write(a.choices() / path.name, whole)
    into = ResultsFolder(tmp_path / "all")
    assert merging.merge([a, b], into).left_out == []
    assert (into.choices() / path.name).read_bytes() == whole


def test_another_commit_of_a_repository_is_noted(two, tmp_path):
    a, b = two
    a.keep_revisions({"models/x": "def", "datasets/y": "123"})
    into = ResultsFolder(tmp_path / "all")
    done = merging.merge([a, b], into)
    assert into.revisions() == {"models/x": "def", "datasets/y": "123"}
    assert "another commit of models/x, abc" in done.notes[0]
