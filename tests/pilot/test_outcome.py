"""What a pilot writes and shows: the same JSON as ever, and the page that follows from it."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records

from peftbench.analysis.costs import Prices
from peftbench.analysis.proportions import Proportion
from peftbench.analysis.review import CutOff
from peftbench.core.plan import Plan
from peftbench.pilot import page
from peftbench.pilot.criterion import CriterionVersion, PilotCriterion, WrittenCriterion
from peftbench.pilot.decision import decide
from peftbench.pilot.design import PilotDesign, Request
from peftbench.pilot.final_model import FinalModel
from peftbench.pilot.intervals import Interval
from peftbench.pilot.learning_curve import Crossing, Curve
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.pilot.outcome import PilotOutcome, summarize
from peftbench.pilot.study import Study
from peftbench.reports.decisions import plan_after
from peftbench.results.store import ResultsFolder

#: The JSON of `made_outcome`, as pilots wrote it before its parts had classes.
KNOWN = Path(__file__).with_name("outcome.json")


def predictions(rows=200):
    draw = np.random.default_rng(7)
    label = np.arange(rows) % 2
    probability = {}
    for name, wrong in (("lora", 11), ("tf-idf", 7)):
        predicted = np.where(np.arange(rows) % wrong == 0, 1 - label, label)
        one = 0.5 + 0.5 * draw.random(rows)
        one = np.where(predicted == 1, one, 1 - one)
        probability[name] = np.stack([1 - one, one], axis=1)[None]
    constant = np.full((1, rows, 2), 0.5)
    seconds = {"lora": [3.0, 3.5, 4.25], "tf-idf": [0.25, 0.25]}
    return OutOfFold(label, np.arange(rows) // 2, constant, probability, seconds)


def interval(value):
    return Interval(value, value - 0.0625, value + 0.03125, 200)


def made_outcome(tmp_path, exported=True, changed=False):
    run = records.runs("method=lora")[0]
    criterion = PilotCriterion("ab" * 32, "accuracy", 0.75, 60.0, 0.5, 0.125)
    first = CriterionVersion("cd" * 32, "2026-01-02T03:04:05+00:00", 0, criterion)
    later = replace(first, sha256="ef" * 32, runs=4)
    written = WrittenCriterion(criterion, "ef" * 32, [first, later] if changed else [first])
    plan = Plan([run], 1, [], [], None)
    request = Request(Path("mine.csv"), (), folds=5, repeats=1, rates=2, group="customer")
    classes, table = {"bad": 100, "good": 100}, predictions()
    found = PilotDesign(request, plan, plan, "accuracy", 200, classes, 4, table.group)
    curve = Curve(
        "lora", [53.0, 106.0], [interval(0.75), interval(0.875)], *map(interval, (0.9, 0.95, 0.05))
    )
    crossing = Crossing("tf-idf", "lora", interval(250.0), None)
    study = Study(
        table, {"lora": [run]}, {"full": "it diverged"}, [curve], crossing, frozenset({"1"})
    )
    decided = decide(table, criterion)
    cut_off = CutOff("estimate", 0.125, None, 0.625, Proportion(150, 200), Proportion(3, 150))
    final = FinalModel(Path("out/model"), records.record(run), 180, 20, [cut_off])
    model = final if exported else "the answer is no-go"
    after = plan_after([cut_off], Prices(), 0.9, 0.05)
    results = ResultsFolder(tmp_path / "pilot")
    return summarize(found, written, study, decided, model, after, results)


def rounded(value):
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 9) if isinstance(value, float) else value


@pytest.mark.parametrize("exported", [True, False])
def test_the_json_is_what_pilots_have_written_before(tmp_path, exported):
    made = made_outcome(tmp_path, exported, changed=not exported).to_json()
    del made["version"]
    known = json.loads(KNOWN.read_text())["exported" if exported else "refused"]
    assert json.dumps(rounded(made)) == json.dumps(known)  # the order of the keys as well


@pytest.mark.parametrize("exported", [True, False])
def test_the_page_of_a_stored_outcome_is_that_of_the_one_that_was_stored(tmp_path, exported):
    made = made_outcome(tmp_path, exported, changed=not exported)
    stored = PilotOutcome.from_json(json.loads(json.dumps(made.to_json())))
    assert stored.to_json() == json.loads(json.dumps(made.to_json()))
    assert (stored.criterion, stored.candidates) == (made.criterion, made.candidates)
    assert page.html(stored, []) == page.html(made, [])


def test_what_a_terminal_shows(tmp_path):
    made = made_outcome(tmp_path, exported=False, changed=True)
    told = page.sentences(made)
    assert told[1:5] == [
        "500 further labels are projected to change the accuracy of lora by 5.0 [-1.2, 8.1] points,"
        " to 95.0 [88.8, 98.1].",
        "lora overtakes tf-idf at 250 training rows (250 to 250).",
        "Latency: no measurement was finished.",
        "No model is exported: the answer is no-go.",
    ]
    assert told[-1].startswith("THE CRITERION CHANGED once")
    (table,) = page.brief(made)
    assert table.rows[0][3:] == [
        "3.6 [2.0, 5.1]",
        "–",
        "undecided: wrong answers that nobody checks",
    ]
    assert table.rows[1][3] == "0.2 (n = 2)"
