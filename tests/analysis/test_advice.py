"""Advice from records whose best method is known, and what they cannot tell."""

import json
from dataclasses import replace

import numpy as np
import pytest
import records
from click.testing import CliRunner
from scipy import stats

from peftbench.analysis import advice, expected_scores
from peftbench.analysis.expected_scores import (
    SeedScores,
    draw_expected_scores,
    share_of_draws_won,
)
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record
from peftbench.reports import advice as told
from peftbench.results.predictions import Load
from peftbench.results.store import ResultsFolder

EXAMPLES = 400
ASKED = ("task=synthetic_paraphrase", "model=tiny")


def said(*words: str, good: dict[str, float]) -> tuple[list[Record], Load]:
    made, answers = [], {}
    label = np.arange(EXAMPLES) % 2
    hard = np.random.default_rng(0).random(EXAMPLES)
    for run in records.runs(*words):
        shaky = np.random.default_rng(run.seed).normal(0, 0.02, EXAMPLES)
        right = hard + shaky < good[run.method.name]
        scores = 2.0 * np.eye(2)[np.where(right, label, 1 - label)]
        answers[run.key] = {"item": np.arange(EXAMPLES), "label": label, "scores": scores}
        made.append(records.record(run, float(right.mean())))
    return made, lambda record: answers[record.run.key]


def advised(*words: str, made: list[Record], load: Load) -> advice.Advice:
    return advice.advise(advice.ask(*ASKED, *words), made, load)


def test_the_best_by_far_is_told():
    good = {"lora": 0.9, "bitfit": 0.6, "ia3": 0.65}
    made, load = said("method=lora,bitfit,ia3", "seed=0,1,2", "size=32", good=good)
    found = advised("size=32", made=made, load=load)
    assert [one.label for one in found.options] == ["lora", "ia3", "bitfit"]
    assert sum(one.chance for one in found.options) == pytest.approx(1)
    assert found.options[0].chance > 0.99
    assert told.sentence(found).startswith("lora: almost surely the best")
    assert found.over == "seeds and examples"
    assert (found.options[0].seconds, found.options[0].peak_bytes) == (2.0, 100 * 2**20)
    assert "constant prediction: 50.0" in found.distance


def test_alike_methods_share_the_chance():
    made, load = said(
        "method=lora,bitfit", "seed=0,1,2", "size=32", good={"lora": 0.8, "bitfit": 0.8}
    )
    found = advised("size=32", made=made, load=load)
    assert all(0.2 < one.chance < 0.8 for one in found.options)


def test_rows_that_tie_share_a_draw():
    drawn = np.array([[0.5, 0.5, 0.7], [0.5, 0.5, 0.6], [0.4, 0.5, 0.7]])
    shares = expected_scores.share_of_draws_won(drawn)
    assert shares == pytest.approx([(1 / 2 + 1 / 3 + 1 / 2) / 3, (1 / 2 + 1 / 3) / 3, 5 / 18])


def test_a_chance_over_seeds_is_that_of_two_mixtures():
    """By the definition: Beta for the rate, Student's t of a moderated variance for the mean."""
    scores = [[0.70, 0.74, 0.72], [0.71, 0.75, 0.76]]
    rows = [SeedScores(one, 0, None, seed) for seed, one in enumerate(scores)]
    drawn = draw_expected_scores(rows, 0.5, (0.0, 1.0), 100_000)
    generator = np.random.default_rng(9)
    pooled = np.median([2 * np.var(one, ddof=1) for one in scores]) / stats.chi2.median(2)
    sides = []
    for one in scores:
        error = np.sqrt((4 * pooled + 2 * np.var(one, ddof=1)) / 6 / 3)
        mean = stats.t.rvs(6, np.mean(one), error, 400_000, random_state=generator)
        rate = generator.beta(2 * 0.5 / 7, 2 * (1 - 0.5 / 7) + 3, 400_000)
        sides.append((1 - rate) * mean + rate * 0.5)
    assert share_of_draws_won(drawn)[0] == pytest.approx(np.mean(sides[0] > sides[1]), abs=0.01)


def test_a_row_that_failed_is_no_favourite_and_no_draw_leaves_the_range():
    """Where three rows have 0.8 and one has 0.8, 0.8 and a failure (main: 15 %)."""
    steady = [[0.80, 0.81, 0.79], [0.79, 0.80, 0.80], [0.78, 0.80, 0.79]]
    rows = [SeedScores(one, 0, None, seed) for seed, one in enumerate(steady)]
    rows.append(SeedScores([0.80, 0.81], 1, None, 9))
    drawn = draw_expected_scores(rows, 0.0, (-1.0, 1.0), 20_000)
    chances = share_of_draws_won(drawn)
    assert chances[3] < 0.15
    assert chances[0] > chances[3]
    near_one = draw_expected_scores([SeedScores([0.99, 0.9, 1.0], 0, None, 1)], 0.5, (0, 1), 9_000)
    assert near_one.max() <= 1
    nothing = draw_expected_scores([SeedScores([], 3, None, 1)], 0.4, (0, 1), 10)
    assert nothing.tolist() == [[0.4] * 10]
    other = draw_expected_scores([SeedScores([], 3, None, 1, failed_score=0.3)], 0.4, (0, 1), 10)
    assert other.tolist() == [[0.3] * 10]
    mixed = draw_expected_scores([SeedScores([0.8] * 3, 3, None, 1, 0.2)], 0.4, (0, 1), 20_000)
    # Beta(1 + 3, 1 + 3), as the rate of all rows is a half
    assert mixed.mean() == pytest.approx((0.8 + 0.2) / 2, abs=0.005)


@pytest.mark.parametrize(
    ("task", "point", "failed"),
    [
        ("mrpc", {"accuracy": 0.68, "f1": 0.81}, True),
        ("mrpc", {"accuracy": 0.32, "f1": 0.0}, True),
        ("mrpc", {"accuracy": 0.7, "f1": 0.81}, False),
        ("stsb", {"pearson": 0.0, "spearman": 0.0}, True),
        ("stsb", {"pearson": 0.1, "spearman": 0.1}, False),
    ],
)
def test_a_point_of_a_curve_is_constant_whichever_class_it_is_of(task, point, failed):
    (run,) = records.runs(f"task={task}")
    trivial = {"accuracy": 0.68, "f1": 0.81, "pearson": 0.0, "spearman": 0.0}
    trivial = {name: trivial[name] for name in run.task.metrics}
    assert advice._constant(point, records.record(run, trivial=trivial)) is failed


def test_another_metric_of_the_task_is_another_question():
    """F1 of one sweep and accuracy of another would stand in one ranking."""
    good = {"lora": 0.8, "bitfit": 0.7}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=32", good=good)
    other, more = said(
        "method=lora", "seed=0,1,2,3,4,5,6", "size=32", "task.metrics=[f1,accuracy]", good=good
    )
    known = {record.run.key: load for record in made} | {record.run.key: more for record in other}
    found = advised("size=32", made=made + other, load=lambda r: known[r.run.key](r))
    assert found.metric == "accuracy"
    assert {one.label: one.seeds for one in found.options} == {"lora": 3, "bitfit": 3}
    assert "7 records left out, of other metrics or folds of that task" in found.distance


def test_nobody_above_the_constant_prediction_is_said():
    good = {"lora": 0.5, "bitfit": 0.51}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=32", good=good)
    found = advised("size=32", made=made, load=load)
    doubt = "no method is shown to be above the constant prediction (50.0)"
    assert found.doubts == [doubt]
    assert told.sentence(found) == f"The records cannot tell: {doubt}."
    collapsed = [replace(r, collapsed=r.run.seed == 0) for r in made]
    found = advised("size=32", made=collapsed, load=load)
    assert {one.collapsed for one in found.options} == {1}
    assert "collapsed 1 of 3: 1 to 91 %" in told.advice_table(found).rows[0][-1]


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        (["size=320"], "sizes are 10.0 times apart"),
        (["size=32", "budget.seconds=0.5"], "no run had a score after 0.5 s"),
        (["size=32", "model=minilm"], "none is of minilm"),
        (["size=32", "task=synthetic_acceptability"], "none is of synthetic_acceptability"),
    ],
)
def test_what_records_cannot_tell(words, doubt):
    good = {"lora": 0.9, "bitfit": 0.6}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=32", good=good)
    asked = {word.partition("=")[0]: word for word in (*ASKED, *words)}
    found = advice.advise(advice.ask(*asked.values()), made, load)
    assert doubt in found.doubts
    assert told.sentence(found).startswith("The records cannot tell")


def test_few_seeds_are_a_doubt():
    good = {"lora": 0.9, "bitfit": 0.6}
    made, load = said("method=lora,bitfit", "seed=0,1", "size=32", good=good)
    assert advised("size=32", made=made, load=load).doubts == [
        "lora has but 2 seeds, 3 are the least"
    ]
    made, load = said("method=lora,bitfit", "size=32", good=good)
    found = advised("size=32", made=made, load=load)
    assert found.doubts == ["fewer than two methods have two seeds with scores"]
    assert {one.why for one in found.options} == {"one seed"}


SELECTED = ("seed=0,1,2", "size=32", "checkpoint_selection=best_on_holdout")


def test_within_a_budget_the_curve_is_read():
    good = {"lora": 0.9, "bitfit": 0.6}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=32", good=good)
    early = {"lora": 0.55, "bitfit": 0.58}
    curved = []
    for record in made:
        point = {"step": 2, "seconds": 0.9, "loss": 1.0, "fraction": 0.5, "examples": 32}
        point["accuracy"] = early[record.run.method.name] + record.run.seed / 100
        curved.append(replace(record, curve=[point, *record.curve]))
    found = advised("size=32", "budget.seconds=1", made=curved, load=load)
    assert [one.label for one in found.options] == ["bitfit", "lora"]
    assert found.options[0].score == pytest.approx(0.59)
    assert all(one.early for one in found.options)
    assert (found.over, found.options[0].seconds) == ("seeds alone", 0.9)
    whole = advised("size=32", "budget.seconds=2", made=curved, load=load)
    assert whole.options[0].label == "lora"
    assert not whole.options[0].early
    part = [replace(one, work=one.work | {"curve_examples": 5}) for one in curved]
    early = advised("size=32", "budget.seconds=1", made=part, load=load)
    why = "what it scored by then is of a part of the split"
    assert {one.why for one in early.options} == {why}
    held, load = said("method=lora,bitfit", *SELECTED, good=good)
    held = [replace(one, curve=curved[0].curve) for one in held]
    early = advised("size=32", "budget.seconds=1", made=held, load=load)
    why = "what it scored by then is of its selection split"
    assert {one.why for one in early.options} == {why}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=mrcp", "size=3"], "did you mean mrpc"),
        (["task=mrpc", "size=3", "budget.second=3"], "did you mean budget.seconds"),
        (["task=mrpc", "size=3,4"], "a single setting, got 2"),
        (["task=mrpc"], "no record here is of task=mrpc, so give size=N"),
        (["size=3"], "advise needs task=NAME, for example"),
        (["task=small", "size=3"], "give task=NAME of trained runs and size=N"),
    ],
)
def test_bad_questions_name_what_was_meant(words, message):
    with pytest.raises(ConfigError, match=message):
        advice.ask(*words)


def own_file(path, rows=60):
    """A user's own file, and words of runs on it."""
    lines = [f"text {n} of some words,{'no' if n % 2 else 'yes'}\n" for n in range(rows)]
    path.write_text("sentence,label\n" + "".join(lines))
    return ("task=file", f"task.path={path}")


def test_a_users_own_file_is_named_as_in_its_records(tmp_path):
    """Its size, model and rows are those of the records; its path means the same."""
    words = own_file(tmp_path / "tickets.csv")
    good = {"lora": 0.9, "bitfit": 0.6}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=16,32", *words, good=good)
    asked = advice.ask("task=tickets", records=made)
    assert (asked.size, asked.run.model.name, asked.run.task.name) == (32, "tiny", "tickets")
    assert advice.ask("task=tickets", "size=20", records=made).size == 20
    assert advice.ask(*words, "model=tiny", records=made).size == 32
    found = advice.advise(asked, made, load)
    assert (found.source, found.doubts) == ("tickets, 32 examples, tiny", [])
    assert found.options[0].label == "lora"
    with pytest.raises(ConfigError, match=r"did you mean tickets\?"):
        advice.ask("task=ticket", records=made)
    other = own_file(tmp_path / "others.csv")
    with pytest.raises(ConfigError, match=r"no record is of these rows.*peftbench pilot FILE"):
        advice.ask(*other, records=made)
    own_file(tmp_path / "tickets.csv", rows=70)
    with pytest.raises(ConfigError, match="no record is of these rows"):
        advice.ask(*words, records=made)


def test_the_size_is_that_of_the_records_where_none_is_given():
    good = {"lora": 0.9, "bitfit": 0.6}
    made, _ = said("method=lora,bitfit", "size=32,50", good=good)
    assert advice.ask(*ASKED, records=made).size == 50


def test_scores_of_other_examples_have_no_chances():
    made, load = said(
        "method=lora,bitfit", "seed=0,1,2", "size=32", good={"lora": 0.6, "bitfit": 0.9}
    )
    near = told.advice_table(advised("size=32", made=made, load=load))
    assert near.title == "Advice: synthetic_paraphrase, 32 examples, tiny"
    assert near.columns[:2] == ["method", "best"]
    far = told.advice_table(advised("size=320", made=made, load=load))
    assert far.title == "Nearest records: synthetic_paraphrase, 32 examples, tiny"
    assert far.columns[:2] == ["method", "accuracy"]
    assert [row[0] for row in far.rows] == ["bitfit", "lora"]
    assert "Best:" not in " ".join(far.notes)


def test_the_verb(tmp_path):
    good = {"lora": 0.9, "bitfit": 0.6}
    made, load = said("method=lora,bitfit", "seed=0,1,2", "size=32", good=good)
    results = ResultsFolder(tmp_path / "some")
    for record in made:
        results.save(record, load(record))
    words = ["advise", *ASKED, "size=40", "--results"]
    done = CliRunner().invoke(main, [*words, str(results.folder), "--json"])
    assert done.exit_code == 0
    found = json.loads(done.output)
    assert found["options"][0]["label"] == "lora"
    assert "1.2 times as few examples" in found["distance"]
    done = CliRunner().invoke(main, [*words, str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "none does not exist; name the folder" in done.output
    (tmp_path / "none").mkdir()
    done = CliRunner().invoke(main, [*words, str(tmp_path / "none")])
    assert done.exit_code == 2
    assert "none holds no records; `peftbench run` makes them" in done.output
