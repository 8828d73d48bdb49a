"""Reports of suites: one section a task and training size, and nothing pooled in it but seeds."""

import numpy as np
import pytest
import records
from suite_records import abroad, found, lines, noisy, planned, sure, trained

from peftbench.analysis import grouping
from peftbench.reports import calibration, cheap_validation, in_context, noise, shift
from peftbench.reports.plotting.palette import Palette


def test_sizes_are_sections_and_named_only_where_there_are_several():
    every = [
        noisy(e, e.run.size / 1000) for e in planned("suite=noise", "size=100,200", "seed=0,1")
    ]
    made = noise.tables(every, trained(every))
    assert [table.title for table in made] == [
        "Noise: synthetic_paraphrase 100, accuracy",
        "Noise: synthetic_paraphrase 200, accuracy",
    ]
    assert [line["clean"] for table in made for line in lines(table)] == [
        "10.0 ± 0.0 (2)",
        "20.0 ± 0.0 (2)",
    ]
    assert [bool(table.notes) for table in made] == [False, True]
    (alone,) = noise.tables(every[:2], trained(every))
    assert alone.title == "Noise: synthetic_paraphrase, accuracy"


def test_sizes_are_sections_of_calibration_and_shift():
    every = [sure(e, e.run.size / 200) for e in planned("suite=calibration", "size=100,200")]
    made = calibration.tables(every, trained(every))
    assert [table.title for table in made] == [
        "Calibration: synthetic_paraphrase 100",
        "Calibration: synthetic_paraphrase 200",
    ]
    confidence = 100 / (1 + np.exp(-2))
    assert [line["ECE"] for table in made for line in lines(table)] == [
        f"{confidence - 50:.1f} (1)",
        f"{100 - confidence:.1f} (1)",
    ]
    every = [abroad(e, e.run.size / 1000, 0.3) for e in planned("suite=shift", "size=100,200")]
    made = shift.tables(every, trained(every))
    assert [lines(table)[-1]["away accuracy"] for table in made] == ["10.0 (1)", "20.0 (1)"]
    assert [table.rows[0][0] for table in made] == ["best constant"] * 2


def test_sizes_and_settings_of_demonstrations_are_not_pooled():
    def solved(e, score):
        told = {"metric": "accuracy", "counts": [0], "scores": [score], "differences": [0.0]}
        return found(e, told | {"truncated": {"0": 0}})

    words = ("suite=in_context", "prompt=words", "size=100,200", "seed=0,1")
    every = [solved(e, e.run.size / 1000) for e in planned(*words)]
    made = in_context.tables(every, trained(every))
    assert [table.title for table in made] == [
        "In context: synthetic_paraphrase 100, accuracy",
        "In context: synthetic_paraphrase 200, accuracy",
    ]
    assert [line["0"] for table in made for line in lines(table)] == [
        "10.0 ± 0.0 (2)",
        "20.0 ± 0.0 (2)",
    ]


def test_half_of_the_examples_and_as_many_are_one_section():
    every = [noisy(e, 0.5) for e in planned("suite=noise", "size=0.5,1500,full")]
    parts = grouping.sections(every, trained(every))
    assert [part.title for part in parts] == [
        "synthetic_paraphrase 1,500",
        "synthetic_paraphrase 3,000",
    ]


def test_settings_of_a_suite_that_differ_are_columns():
    every = [
        noisy(e, examples / 1000)
        for examples in (200, 400)
        for e in planned("suite=noise", "method=lora,bitfit", "seed=0,1", examples=examples)
    ]
    (table,) = noise.tables(every, trained(every))
    assert table.columns[:3] == ["method", "suite.examples", "clean"]
    assert {(line["method"], line["suite.examples"], line["clean"]) for line in lines(table)} == {
        (method, str(examples), f"{examples / 10:.1f} ± 0.0 (2)")
        for method in ("lora", "bitfit")
        for examples in (200, 400)
    }


def test_a_setting_of_the_suite_that_comes_with_the_method_is_a_column_too():
    one, two = (
        planned("suite=noise", "method=lora"),
        planned("suite=noise", "method=bitfit", seed=1),
    )
    every = [noisy(e, 0.5) for e in [*one, *two]]
    (table,) = noise.tables(every, trained(every))
    assert [line["suite.seed"] for line in lines(table)] == ["1", "0"]


def test_intensities_of_a_curve_are_its_own():
    every = [
        noisy(e, 0.5)
        for intensities in ([1.0], [0.5])
        for e in planned("suite=noise", intensities=intensities)
    ]
    assert noise.plot_noise(every, trained(every), Palette())
    (part,) = grouping.sections(every, trained(every))
    assert sorted(grouping.labels(part.rows, part.split).values()) == [
        "lora, intensities=[0.5]",
        "lora, intensities=[1.0]",
    ]
    assert grouping.series([part], trained(every)) == [
        "lora, intensities=[0.5]",
        "lora, intensities=[1.0]",
    ]


def test_the_model_before_training_is_one_for_each_model():
    small, large = (
        planned("suite=shift", "method=lora,full", "seed=0,1", f"model={name}")
        for name in ("tiny", "minilm")
    )
    every = [abroad(e, 0.7, 0.4) for e in small] + [abroad(e, 0.8, 0.6) for e in large]
    (table,) = shift.tables(every, trained(every))
    shown = [(line["method"], line["model"], line["away accuracy"]) for line in lines(table)]
    assert shown[:3] == [
        ("best constant", "", "50.0"),
        ("untrained", "minilm", "60.0 ± 0.0 (2)"),
        ("untrained", "tiny", "40.0 ± 0.0 (2)"),
    ]
    assert shift.plot_shift(every, trained(every), Palette())


def test_models_are_told_apart_also_where_each_has_a_method_of_its_own():
    one, two = planned("suite=shift", "method=lora"), planned("suite=shift", "model=minilm")
    every = [abroad(e, 0.7, 0.4) for e in [*one, *two]]
    (table,) = shift.tables(every, trained(every))
    assert "model" in table.columns


@pytest.mark.parametrize("report", [calibration, noise, shift])
def test_pictures_have_a_panel_for_each_section(report):
    name = report.__name__.rpartition(".")[2]
    make = {"calibration": sure, "noise": noisy}.get(name, lambda e, good: abroad(e, good, 0.4))
    every = [make(e, 0.75) for e in planned(f"suite={name}", "size=100,200", "method=lora,full")]
    plot = getattr(report, f"plot_{name}")
    (picture,) = plot(every, trained(every), Palette())
    titles = [axis.get_title() for axis in picture.figure.axes if axis.get_title()]
    assert [title.removeprefix("trained on ") for title in titles] == [
        "Synthetic paraphrase, 100 examples",
        "Synthetic paraphrase, 200 examples",
    ]


def test_rows_that_are_ranked_are_those_of_the_score_table():
    """A method at three rates is three things to rank, not their mean."""
    words = ("method=lora", "train.lr=1e-4,1e-3,1e-2")
    label = np.arange(400) % 2
    right = {1e-4: 0.5, 1e-3: 0.75, 1e-2: 1.0}
    answers = {}
    for run in records.runs(*words):
        said = np.where(np.arange(400) % 4 < 4 * right[run.train.lr], label, 1 - label)
        answers[run.key] = {"item": np.arange(400), "label": label, "scores": np.eye(2)[said]}
    made = [records.record(run) for run in records.runs(*words)]
    table = cheap_validation.cheap_validation_table(made, lambda record: answers[record.run.key])
    assert table is not None
    assert table.rows[0][:2] == ["synthetic_paraphrase 32", "3"]


def test_a_budget_that_methods_do_not_share_is_told_but_by_the_row_that_trained_nothing():
    def split(*runs):
        return grouping.of_records([records.record(run) for run in runs])[1]

    (full,), (lora,) = records.runs("method=full"), records.runs("method=lora", "budget.steps=8")
    (none,) = records.runs("method=full", "budget.steps=0")
    assert split(full, lora) == ["budget.steps"]
    assert split(full, none) == []


def test_labels_say_in_words_what_tells_rows_apart():
    split = ["budget.seconds", "budget.epochs", "train.num_evals", "train.lr"]
    every = [
        ("lora", "20", "None", "1", "0.001"),
        ("lora", "None", "1", "2", "0.001"),
        ("lora", "None", "3", "2", "0.001"),
        ("full", "20", "None", "1", "0.001"),
        ("full", "20", "None", "2", "0.001"),
        ("head", "20", "None", "1", "0.001"),
    ]
    assert list(grouping.labels(every, split).values()) == [
        "lora, 20 s",
        "lora, 1 epoch",
        "lora, 3 epochs",
        "full, 20 s, num_evals=1",
        "full, 20 s, num_evals=2",
        "head, 20 s",
    ]


def test_runs_of_one_title_are_told_apart_by_the_settings_in_which_they_differ():
    several = records.runs("method=lora,bitfit", "train.lr=1e-3,3e-4")
    found = grouping.differences([*several[:3], several[0]])
    assert found == {
        several[0].key: " · lr=0.001",
        several[1].key: " · lr=0.0003",
        several[2].key: "",
    }


@pytest.mark.parametrize(
    "words",
    [
        ("task.metrics=[accuracy],[f1]",),
        ("model=tiny", "model.family=llama", "task=xsum", "task.max_new_tokens=20,60"),
        ("model=tiny", "model.family=llama", "task=xsum", "task.stop=a,b"),
    ],
)
def test_what_is_asked_of_a_task_tells_rows_apart(words):
    by_row, split = grouping.of_records([records.record(run) for run in records.runs(*words)])
    assert len(by_row) == 2
    assert len(split) == 1


def test_what_trained_nothing_stands_beside_any_budget_but_not_beside_two():
    full, lora, none = (
        records.record(*records.runs(*words))
        for words in (("method=full",), ("method=lora", "budget.steps=8"), ("budget.steps=0",))
    )
    assert not grouping.have_several_conditions([full, none])
    assert grouping.have_several_conditions([full, lora])
    assert grouping.conditions(full) != grouping.conditions(none)
    other = records.record(none.run, environment=none.environment | {"precision": "fp32"})
    assert grouping.have_several_conditions([full, other])
