"""A user's own data from planning to a record: checked in a worker, trained on as planned."""

import json
import os
from dataclasses import replace

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import short_runs

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import loading
from peftbench.runner.worker import classify, preflight
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache


def write(path, count, seed=0, names=("good", "bad")):
    rows = [f"This is text {seed} {n}.,{names[n % len(names)]}\n" for n in range(count)]
    path.write_text("sentence,label\n" + "".join(rows))
    return ("task=file", f"task.path='{path}'")


def test_a_file_that_changes_between_planning_and_training(tmp_path, cache_folder):
    path = tmp_path / "mine.csv"
    task = write(path, 60)
    run = short_runs.one(task, "method=bitfit", "size=full")
    first = path.read_bytes()
    write(path, 40, seed=1)
    with pytest.raises(ConfigError, match="has changed since it was planned") as told:
        execute(run, short_runs.CPU)
    assert classify(told.value) == "data"
    path.write_bytes(first)
    record = execute(run, short_runs.CPU).record
    assert record.work["train_size"] == 48
    write(path, 60, names=("bad", "good"))  # as long as before; tokens of the first are cached
    os.utime(path, ns=(1, 1))
    with pytest.raises(ConfigError, match="has changed since it was planned"):
        execute(run, short_runs.CPU)
    again = execute(short_runs.one(task, "method=bitfit", "size=full"), short_runs.CPU)
    assert again.record.run.key != record.run.key
    assert (again.predictions["label"] != execute_labels(path, first, run)).all()


def execute_labels(path, body, run):
    path.write_bytes(body)
    return execute(run, short_runs.CPU).predictions["label"]


def test_a_worker_that_is_warm_sees_the_change_of_the_next_run(tmp_path, cache_folder):
    path = tmp_path / "mine.csv"
    task = write(path, 60)
    runs = [
        short_runs.one(task, "method=bitfit", f"task.validation_fraction={f}") for f in (0.2, 0.3)
    ]
    warm = WarmCache()
    execute(runs[0], short_runs.CPU, warm=warm)
    write(path, 60, seed=1)
    with pytest.raises(ConfigError, match="has changed since it was planned"):
        execute(runs[1], short_runs.CPU, warm=warm)


def test_the_check_before_training_reports_in_ten_lines(tmp_path):
    path = tmp_path / "mine.csv"
    task = write(path, 60, names=("a", "b", "c"))
    path.write_text(path.read_text() + ",a\n" + "This is text 0 0.,b\nnan,none\n")
    words = ("task.classes=4", "model=tiny", "method=lora,bitfit", "seed=0,1")
    found = preflight(plan(*task, *words).runs, [], short_runs.CPU)
    assert found["errors"] == []
    assert len(found["told"]) <= 10
    told = "\n".join(found["told"])
    for part in (
        "mine: 50 training and 13 validation examples (20% of the file)",
        "4 classes (training + validation): ",
        "characters of a text: median 18",
        "training texts repeat another one",
        "carry more than one label",
        "mine.csv: 1 empty cells in 'sentence' (line 62)",
        "'none' is taken as a class (line 64)",
        "mine, tokenizer of tiny: median 20 tokens, longest 20; 0.0% unknown; 0 of 50 texts",
    ):
        assert part in told
    path.write_text("sentence,label\n")
    found = preflight(plan(*write(tmp_path / "two.csv", 20), *words[1:]).runs, [], short_runs.CPU)
    assert found["errors"] == []


def test_a_change_is_seen_by_the_check(tmp_path):
    path = tmp_path / "mine.csv"
    runs = plan(*write(path, 20), "model=tiny", "method=lora").runs
    write(path, 30)
    (error,) = preflight(runs, [], short_runs.CPU)["errors"]
    assert "has changed since it was planned" in error


def test_other_rows_than_a_task_has_are_refused_before_training(tmp_path):
    """A folder in the hub's layout with 24 of MRPC's 3,668 training examples."""
    rows = {"sentence1": [f"first {n}" for n in range(24)], "sentence2": ["second"] * 24}
    rows |= {"label": [n % 2 for n in range(24)], "idx": list(range(24))}
    (tmp_path / "mrpc").mkdir()
    for split in ("train", "validation"):
        pd.DataFrame(rows).to_parquet(tmp_path / "mrpc" / f"{split}-00000-of-00001.parquet")
    planned = plan("task=mrpc", "model=tiny", f"data.root='{tmp_path}'")
    setting = replace(short_runs.CPU, data_root=planned.data_root)
    (told,) = preflight(planned.runs, [], setting)["errors"]
    assert "mrpc has 3668 training examples, 24 were found: these are not its data" in told


@pytest.mark.parametrize("size", ["2", "0.01"])
def test_fewer_examples_than_classes_are_refused(tmp_path, size):
    words = write(tmp_path / "mine.csv", 60, names=("a", "b", "c"))
    with pytest.raises(ConfigError, match=rf"size={size}: [12] of 48 examples cannot hold all 3"):
        plan(*words, f"size={size}", "model=tiny")
    plan(*words, "size=3", "model=tiny")


@pytest.mark.parametrize("ends", ["[5,0]", "[0]", "[1,1]", "[1,2,3]"])
def test_a_scale_has_two_ends(tmp_path, ends):
    words = write(tmp_path / "mine.csv", 20, names=("1", "2", "3"))
    with pytest.raises(ConfigError, match=r"task.range is \[LOWEST,HIGHEST\], or null"):
        plan(*words, "task.kind=regression", f"task.range={ends}", "model=tiny")


def test_metrics_by_kind_of_label_are_refused_at_planning(tmp_path):
    three = write(tmp_path / "three.csv", 30, names=("a", "b", "c"))
    for metric in ("f1", "precision", "recall"):
        with pytest.raises(
            ConfigError, match=f"{metric} is defined for 2 classes.*use macro_{metric}"
        ):
            plan(*three, f"task.metrics=[accuracy,{metric}]", "model=tiny")
    with pytest.raises(ConfigError, match="rmse is no metric of classification"):
        plan(*three, "task.metrics=[accuracy,rmse]", "model=tiny")
    values = write(tmp_path / "values.csv", 30, names=("1", "2", "3.5"))
    with pytest.raises(ConfigError, match="accuracy is no metric of regression"):
        plan(*values, "task.kind=regression", "task.metrics=[accuracy]", "model=tiny")
    run = short_runs.one(
        values, "task.kind=regression", "task.metrics=[r2,rmse,mae,pearson]", "method=bitfit"
    )
    record = execute(run, short_runs.CPU).record
    assert list(record.metrics) == ["r2", "rmse", "mae", "pearson"]
    assert record.metrics["rmse"] >= record.metrics["mae"] > 0
    assert "per_class" not in record.work


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1", "1."),
        ("0.5", ".5"),
        ("1000", "1e3"),
        ("-1", "\u22121"),
        ("non-toxic", "non\u2011toxic"),
        ("can't", "can\u2019t"),
        ("yes", "'yes'"),
    ],
)
def test_labels_that_a_person_reads_as_one_are_refused(tmp_path, one, other):
    words = write(tmp_path / "mine.csv", 24, names=(one, "else", other))
    with pytest.raises(ConfigError, match="labels differ in case or blanks alone, or in how a num"):
        plan(*words, "model=tiny")
    assert plan(*words, "task.classes=3", "model=tiny").runs[0].task.classes == 3


@pytest.mark.parametrize("header", ["\ufeffsentence,label", "Sentence,LABEL", "sentence, label "])
def test_files_that_were_put_together_with_their_headers(tmp_path, header):
    """As `cat a.csv b.csv` of files from a spreadsheet: the mark of UTF-8 stands in the middle."""
    path = tmp_path / "mine.csv"
    words = write(path, 12)
    path.write_text(f"{path.read_text()}{header}\n" + path.read_text().partition("\n")[2])
    with pytest.raises(ConfigError, match="line 14 holds the column names again; remove it"):
        plan(*words, "model=tiny")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ('"1_000"', "must hold numbers: line 5 holds '1_000'"),
        ("true", "must hold numbers: line 5 holds 'True'"),
        ("1" + 400 * "0", r"has empty or infinite values \(line 5\)"),
        (5000 * "1", "cannot read .*: Exceeds the limit .* for integer string conversion"),
        (100_000 * "[", "cannot read .*: maximum recursion depth exceeded"),
    ],
)
def test_what_python_alone_takes_for_a_number_is_refused(tmp_path, value, said):
    path = tmp_path / "mine.jsonl"
    labels = ["1", "2.5", "3", "4", value, *"6789"]
    rows = [f'{{"sentence": "text {n}", "label": {one}}}' for n, one in enumerate(labels)]
    path.write_text("\n".join(rows))
    with pytest.raises(ConfigError, match=said):
        plan("task=file", f"task.path='{path}'", "task.kind=regression", "model=tiny")


@pytest.mark.parametrize("column", ["sentence", "label"])
def test_half_of_a_character_is_refused_with_its_lines(tmp_path, column):
    """As of an emoji at the end of a text that was cut: JSON can say it, no tokenizer takes it."""
    path = tmp_path / "mine.jsonl"
    rows = [{"sentence": f"text {n}", "label": "ab"[n % 2]} for n in range(20)]
    for place in (7, 9):
        rows[place][column] += "\ud83d"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ConfigError, match=rf"lines 8, 10: column '{column}' holds half of a char"):
        plan("task=file", f"task.path='{path}'", "model=tiny")


TASK = """\
name: mine
kind: classification
classes: 2
texts: [sentence]
label: label
source: {hub: null, config: mine, revision: null}
splits: {train: train, validation: validation}
extra: {}
metrics: [accuracy]
"""


@pytest.mark.parametrize(
    ("sentence", "label", "said"),
    [
        ("text", 0.4, "mine train: row 3: column 'label' must hold the numbers of classes, got 0"),
        ("text", None, "mine train: row 3: column 'label' must hold the numbers of .*, got None"),
        ("text", [1], "column 'label' must hold numbers"),
        (["text"], 0, "rows 1, 2, 3, 4, 5 and 7 more: column 'sentence' holds a list where a text"),
        ({"en": "text"}, 0, "column 'sentence' holds an object where a text is expected"),
    ],
)
def test_a_task_in_the_hubs_layout_is_read_as_it_is(tmp_path, sentence, label, said):
    (tmp_path / "configs" / "task").mkdir(parents=True)
    (tmp_path / "configs" / "task" / "mine.yaml").write_text(TASK)
    (tmp_path / "data" / "mine").mkdir(parents=True)
    labels = [[n % 2] if isinstance(label, list) else n % 2 for n in range(12)]
    table = pa.table({"sentence": [sentence] * 12, "label": [*labels[:2], label, *labels[3:]]})
    for split in ("train", "validation"):
        pq.write_table(table, tmp_path / f"data/mine/{split}-00000-of-00001.parquet")
    words = ("task=mine", f"data.root='{tmp_path / 'data'}'", "model=tiny")
    (run,) = plan(*words, configs=tmp_path / "configs").runs
    with pytest.raises(ConfigError, match=said):
        loading.load_split(run.task, "train", str(tmp_path / "data"))
