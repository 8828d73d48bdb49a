"""The report of errors: from predictions alone, and with a user's own file beside them."""

import json

import numpy as np
import pytest
import records
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.data import loading
from peftbench.reports.errors import ErrorOptions, errors_tables, summary_tables
from peftbench.results.store import ResultsFolder

WORDS = ("task=file", "method=lora,full", "seed=0,1")


@pytest.fixture
def mine(tmp_path):
    """A file whose rows say where they are from; half of it is held out."""
    path = tmp_path / "mine.jsonl"
    rows = [
        {
            "text": f"text {'long ' * (i % 5)}{i}",
            "label": ("no", "yes")[i % 2],
            "source": "ab"[i % 3 > 0],
        }
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def results(mine, tmp_path):
    """Runs that are wrong on the rows from source a."""
    made = ResultsFolder(tmp_path / "r")
    own = (f"task.path={mine}", "task.texts=[text]", "task.validation_fraction=0.5", "size=10")
    for run in plan(*records.tiny(*WORDS, *own)).runs:
        columns, _ = loading.load_columns(run.task, run.task.splits["validation"], None)
        label = loading.load_split(run.task, run.task.splits["validation"], None).label
        wrong = np.array([source == "a" for source in columns["source"]])
        sure = np.linspace(1, 3, len(label))
        scores = sure[:, None] * np.eye(2)[np.where(wrong, 1 - label, label)]
        arrays = {"item": np.arange(len(label)), "label": label, "scores": scores}
        made.save(records.record(run), arrays)
    return made


def test_columns_lengths_and_rows_are_those_of_the_users_file(mine, results):
    tables, notes = errors_tables(results, [], ErrorOptions(columns=("source",), top=3))
    by_title = {table.title: table for table in tables}
    assert notes == []
    assert list(by_title) == [
        "Confusions: mine",
        "By label: mine",
        "By words: mine",
        "By source: mine",
        "Most confident errors: mine, full",
        "Most confident errors: mine, lora",
    ]
    source = by_title["By source: mine"]
    assert source.columns == ["row", "a", "b"]
    assert [line[1:] for line in source.rows[1:]] == [["0.0 ± 0.0 (2)", "100.0 ± 0.0 (2)"]] * 2
    counts = list(map(int, source.rows[0][1:]))
    assert sum(counts) == 20
    rows = [json.loads(line) for line in mine.read_text().splitlines()]
    for line in by_title["Most confident errors: mine, full"].rows:
        row = rows[int(line[0]) - 1]
        assert (row["source"], row["label"]) == ("a", line[1])
        assert line[4] == "2 of 2"
    assert not any("long" in cell for table in tables for line in table.rows for cell in line)


def test_texts_are_printed_only_if_asked_for(mine, results):
    words = ["report", "errors", "method=lora", "--results", str(results.folder), "--top", "2"]
    quiet = CliRunner().invoke(main, words)
    told = CliRunner().invoke(main, [*words, "--show-texts"])
    assert (quiet.exit_code, told.exit_code) == (0, 0)
    assert "text " not in quiet.output
    rows = [json.loads(line)["text"] for line in mine.read_text().splitlines()]
    assert sum(row in told.output for row in rows) >= 2


def test_data_that_changed_or_went_are_not_used(mine, results):
    text = mine.read_text()
    mine.write_text(text.replace("no", "NO").replace("yes", "no").replace("NO", "yes"))
    tables, notes = errors_tables(results, [], ErrorOptions())
    assert "By words: mine" not in [table.title for table in tables]
    assert "has changed since it was planned" in notes[0]
    mine.unlink()
    tables, notes = errors_tables(results, [], ErrorOptions(texts=True))
    assert "there is no file" in notes[0]
    assert tables[-1].columns[0] == "example"
    assert "Row of the reporting split" in tables[-1].notes[0]


def test_unknown_columns_and_missing_predictions_are_said(results):
    done = CliRunner().invoke(
        main, ["report", "errors", "--by", "sorce", "--results", str(results.folder)]
    )
    assert done.exit_code == 2
    assert "did you mean source" in done.output
    key = results.keys()[0]
    (path,) = (results.folder / "predictions").glob(f"{key}.*")
    path.unlink()
    tables, notes = errors_tables(results, [], ErrorOptions())
    assert any(key in note for note in notes)
    assert tables


def test_a_folder_has_confusions_and_residuals_from_predictions_alone():
    made, arrays = [], {}
    for task, shape in (("mrpc", 2), ("stsb", 1)):
        for run in records.runs("method=lora", f"task={task}", "seed=0,1"):
            label = np.arange(10) % 2 if shape == 2 else np.arange(10.0)
            scores = np.eye(2)[label] if shape == 2 else label[:, None] + run.seed
            arrays[run.key] = {"item": np.arange(10), "label": label, "scores": scores}
            made.append(records.record(run))
    confusions, residuals = summary_tables(made, lambda record: arrays[record.run.key])
    assert confusions.rows == [
        ["lora", "0", "5", "100.0", "0.0"],
        ["lora", "1", "5", "0.0", "100.0"],
    ]
    assert residuals.rows == [["lora", *["0.50"] * 6]]


def test_many_classes_list_their_most_frequent_confusions():
    from dataclasses import replace

    (run,) = records.runs("method=lora", "task=mnli")
    run = replace(run, task=replace(run.task, classes=8))
    label = np.repeat(np.arange(8), 4)
    said = label.copy()
    said[:3] = 5
    said[4] = 0
    arrays = {"item": np.arange(32), "label": label, "scores": np.eye(8)[said]}
    (table,) = summary_tables([records.record(run)], lambda record: arrays)
    assert table.rows == [["lora", "0", "5", "3.0", "75.0"], ["lora", "1", "0", "1.0", "25.0"]]
