"""What a person sees of a training, in a terminal and in a log."""

import io
import json
import re
from dataclasses import replace
from functools import partial

import pytest
from records import predictions, record, runs
from rich.console import Console

from peftbench.core.text import format_duration
from peftbench.results import in_flight
from peftbench.results.runtime_estimates import STEP_COSTS, Forecast
from peftbench.results.store import ResultsFolder
from peftbench.runner import progress
from peftbench.runner.progress import Display
from peftbench.runner.worker_pool import Event
from peftbench.system import processes

RUNS = runs("method=lora,bitfit", "seed=0,1")


@pytest.fixture
def screen(monkeypatch, tmp_path):
    """A display of two workers, and what it shows; `terminal` and `quiet` as given."""
    shown = io.StringIO()

    def make(terminal=False, quiet=False, width=120):
        console = partial(Console, file=shown, force_terminal=terminal, width=width)
        monkeypatch.setattr(progress, "Console", lambda **_: console(highlight=False))
        results = ResultsFolder(tmp_path)
        for run in RUNS:
            results.save(record(run), predictions())
        weights = Forecast([]).weights(RUNS)
        return Display(RUNS, weights, 2, results, quiet), shown

    return make


def step(run, fraction, worker=0):
    news = {"step": int(4 * fraction), "fraction": fraction, "loss": 0.5, "speed": 32.0}
    return Event("step", worker, run, news)


EVENTS = [
    step(RUNS[0], 0.5),
    Event("done", 0, RUNS[0], {"elsewhere": False, "seconds": 4.0}),
    Event("waiting", 1, RUNS[1], {}),
    Event("waiting", 1, RUNS[1], {}),
    Event("done", 1, RUNS[1], {"elsewhere": True}),
    Event("failed", 0, RUNS[2], {"kind": "error", "reason": "ValueError: [red]no markup[/] here"}),
]


def test_a_log_gets_a_line_for_each_end_and_none_for_steps(screen):
    display, shown = screen()
    with display:
        for event in EVENTS:
            display(event)
    lines = [line.rstrip() for line in shown.getvalue().splitlines()]
    assert len(lines) == 4
    assert lines[0].startswith(
        "1/4 lora · synthetic_paraphrase · tiny · size 32 · seed 0  accuracy"
    )
    assert "accuracy 75.0, f1 75.0" in lines[0]
    assert lines[0].endswith("left")
    assert lines[1] == f"wait {RUNS[1].title}: another process has it"
    assert "(done elsewhere)" in lines[2]
    assert lines[3] == f"3/4 failed {RUNS[2].title}: error ValueError: [red]no markup[/] here"


def test_a_trial_has_the_score_of_what_it_holds_out(screen):
    display, shown = screen()
    made = record(RUNS[0], None)
    trial = replace(
        made, work=made.work | {"trial": True}, selection={"accuracy": 0.625, "f1": 0.5}
    )
    display._results.save(trial, predictions())
    with display:
        display(Event("done", 0, RUNS[0], {"elsewhere": False}))
    assert "accuracy held out 62.5, f1 held out 50.0  2.0 s training" in shown.getvalue()


def test_quiet_says_failures_alone(screen):
    display, shown = screen(terminal=True, quiet=True)
    with display:
        for event in EVENTS:
            display(event)
    assert len(shown.getvalue().splitlines()) == 1
    assert "failed" in shown.getvalue()


def test_a_terminal_shows_a_bar_for_all_runs_and_a_line_for_each_worker(screen):
    display, shown = screen(terminal=True)
    with display:
        display(step(RUNS[0], 0.5))
        display(step(RUNS[1], 0.25, worker=1))
        display._live.refresh()
        now = shown.getvalue()
        assert "all" in now
        assert "0 of 4" in now
        assert "left" in now
        assert "lora · seed 0 · step 2 · loss 0.500" in now  # what all runs share is left out
        assert "seed 1 · step 1" in now
        display(EVENTS[1])
        shown.truncate(0)
        display._live.refresh()
        assert "1 of 4" in shown.getvalue()
        assert "idle" in shown.getvalue()


def test_80_columns_hold_the_bar_and_the_figures(screen):
    display, shown = screen(terminal=True, width=80)
    with display:
        display(step(RUNS[0], 0.5))
        display._live.refresh()
        lines = re.sub(r"\x1b\[[0-9;?]*\w", "", shown.getvalue()).splitlines()
    (line,) = {one.strip() for one in lines if one.startswith("0")}
    assert "━" * 8 in line
    assert line.endswith("lora · seed 0 · step 2 · loss 0.500 · 32 ex/s")


def test_without_a_terminal_there_is_a_line_a_minute(screen, monkeypatch):
    clock = iter([0.0, 30.0, 61.0, 70.0])
    display, shown = screen()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with display:
        for part in (0.25, 0.5, 0.75, 1.0):
            display(step(RUNS[0], part))
    (line,) = shown.getvalue().splitlines()
    assert line.startswith(f"0/4 {RUNS[0].title}: 75 %, loss 0.500")
    assert line.endswith("4.4 min left")  # of four alike, 0.75 took 61 s


def test_the_file_for_status_lives_as_long_as_the_display(screen, monkeypatch, tmp_path):
    display, _ = screen()
    clock = iter([100.0, 102.0, 110.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with display:
        for part in (0.25, 0.375, 0.5):
            display(step(RUNS[0], part))
        (found,) = in_flight.read(ResultsFolder(tmp_path))
        assert (found.finished, found.total) == (0, 4)
        assert found.left == pytest.approx(10 * 3.5 / 0.5, rel=0.02)  # weights are nearly alike
        told = {"title": RUNS[0].title, "fraction": 0.5, "step": 2, "loss": 0.5}
        assert found.jobs == [told]
        assert found.lines[1] == f"   50 % {RUNS[0].title}, step 2, loss 0.500"
        monkeypatch.setattr(processes.Process, "is_alive", lambda self: False)
        assert in_flight.read(ResultsFolder(tmp_path)) == []
        monkeypatch.undo()
    assert in_flight.read(ResultsFolder(tmp_path)) == []


def test_a_worker_with_a_pack_shows_how_many_runs_it_has(screen):
    display, shown = screen(terminal=True)
    with display:
        display(step(RUNS[0], 0.5))
        display(step(RUNS[1], 0.25))
        display._live.refresh()
        assert "2 runs, one of them lora" in shown.getvalue()
        assert display._bars.tasks[1].completed == 0.375
        display(EVENTS[1])
        shown.truncate(0)
        display._live.refresh()
        assert "2 runs" in shown.getvalue()  # as it was, until the other one tells of itself
        display(step(RUNS[1], 0.5))
        shown.truncate(0)
        display._live.refresh()
        assert "one of them" not in shown.getvalue()
        assert "seed 1 · step 2" in shown.getvalue()
        display(Event("done", 0, RUNS[1], {"elsewhere": False, "seconds": 4.0}))
        assert display._bars.tasks[1].completed == 0
        shown.truncate(0)
        display._live.refresh()
        assert "idle" in shown.getvalue()


def test_a_forecast_takes_the_nearest_records():
    made = [record(run) for run in RUNS if run.method.name == "lora"]  # 2 s for 64, 2 s beside
    forecast = Forecast(made)
    (same,) = runs("method=lora", "budget=steps", "budget.steps=8", "seed=7")
    assert forecast.seconds(same) == pytest.approx(2 + 8 * 16 / 32)
    (epochs,) = runs("method=lora", "budget=epochs", "budget.epochs=3", "size=100", "seed=7")
    assert forecast.seconds(epochs) == pytest.approx(2 + 300 / 32)
    (seconds,) = runs("method=lora", "budget=seconds", "budget.seconds=60", "size=100")
    assert forecast.seconds(seconds) == pytest.approx(62)
    (task,) = runs("method=lora", "task=mrpc")
    (method,) = runs("method=bitfit", "task=mrpc")
    assert forecast.seconds(task) == forecast.seconds(method) == pytest.approx(2 + 64 / 32)
    (model,) = runs("method=lora", "model=minilm")
    assert forecast.seconds(model) is None
    assert Forecast([]).seconds(same) is None


def test_weights_are_seconds_or_else_forward_passes_or_else_alike():
    small, large = runs("task=mrpc", "budget=epochs", "budget.epochs=2", "size=100,300")
    costs = json.loads(STEP_COSTS.read_text())
    assert costs["head"] < 0.6 < costs["bitfit"] < costs["full"]
    step = 2 * costs["lora"]  # a plain step is two forward passes
    evaluated = 408 * small.train.num_evals  # on the validation split, at each point of the curve
    assert Forecast([]).weights([small, large]) == {
        small.key: pytest.approx(step * 200 + evaluated),
        large.key: pytest.approx(step * 600 + evaluated),
    }
    (held,) = runs(
        "task=mrpc",
        "budget=epochs",
        "budget.epochs=2",
        "size=300",
        "train.num_evals=4",
        "checkpoint_selection=best_on_holdout",
        "checkpoint_selection.fraction=0.2",
        "checkpoint_selection.patience=4",
    )
    assert Forecast([]).weights([held]) == {held.key: pytest.approx(step * 600 + 4 * 60 + 408)}
    (timed,) = runs("task=mrpc", "budget=seconds", "budget.seconds=9", "size=100")
    assert Forecast([]).weights([small, timed]) == {small.key: 1.0, timed.key: 1.0}
    known = Forecast([record(small)]).weights([small, large])
    assert known[large.key] - known[small.key] == pytest.approx(400 / 32)


def test_the_time_left_is_counted_from_the_first_training_step(screen, monkeypatch):
    clock = iter([100.0, 110.0])  # asked at the first step, and when its run is done
    display, shown = screen()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with display:
        display(step(RUNS[0], 0.1))
        display(Event("done", 0, RUNS[0], {"elsewhere": False}))
    assert shown.getvalue().rstrip().endswith("30 s left")  # of four alike, one took 10 s


def test_an_evaluation_that_times_itself_has_no_speed(screen):
    display, shown = screen(terminal=True)
    with display:
        display(Event("step", 0, RUNS[0], {"fraction": 0.5}))  # of suite=latency
        display._live.refresh()
    assert "ex/s" not in shown.getvalue()


def test_what_an_earlier_command_did_says_nothing_of_the_speed(screen, monkeypatch):
    clock = iter([0.0, 61.0])
    display, shown = screen()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with display:
        for part in (0.9, 0.95):
            event = step(RUNS[0], part)
            display(replace(event, fields=event.fields | {"resumed": 0.9}))
    assert shown.getvalue().rstrip().endswith("61 min left")  # 0.05 of a run took a minute


def test_a_run_that_failed_counts_for_what_it_did(screen, monkeypatch):
    clock = iter([0.0, 0.0, 0.0, 61.0])  # at the first step, at both ends, at the last step
    display, shown = screen()
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    with display:
        display(step(RUNS[0], 0.25))
        display(Event("failed", 0, RUNS[1], {"kind": "error", "reason": "at its first step"}))
        display(Event("failed", 0, RUNS[0], {"kind": "diverged", "reason": "loss"}))
        display(step(RUNS[2], 0.25))
    assert shown.getvalue().rstrip().endswith("3.5 min left")  # 0.5 of a run took 60 s, 1.75 to do


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.4, "4 s"), (89, "89 s"), (90, "1.5 min"), (600, "10 min"), (5400, "1.5 h")],
)
def test_spell(seconds, text):
    assert format_duration(seconds) == text
