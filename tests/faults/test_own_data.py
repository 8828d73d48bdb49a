"""A user's own data from planning to a record: checked in a worker, trained on as planned."""

import os
from dataclasses import replace

import pandas as pd
import pytest
import short_runs

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.runner.worker import _check, classify
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
    found = _check(plan(*task, *words).runs, [], short_runs.CPU)
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
    found = _check(plan(*write(tmp_path / "two.csv", 20), *words[1:]).runs, [], short_runs.CPU)
    assert found["errors"] == []


def test_a_change_is_seen_by_the_check(tmp_path):
    path = tmp_path / "mine.csv"
    runs = plan(*write(path, 20), "model=tiny", "method=lora").runs
    write(path, 30)
    (error,) = _check(runs, [], short_runs.CPU)["errors"]
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
    (told,) = _check(planned.runs, [], setting)["errors"]
    assert "mrpc has 3668 training examples, 24 were found: these are not its data" in told


def test_metrics_by_kind_of_label_are_refused_at_planning(tmp_path):
    three = write(tmp_path / "three.csv", 30, names=("a", "b", "c"))
    for metric in ("f1", "precision", "recall"):
        with pytest.raises(
            ConfigError, match=f"{metric} is defined for 2 classes.*say macro_{metric}"
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
