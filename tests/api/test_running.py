"""Planning, training and evaluating from a program."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny

import peftbench
from peftbench.core.plan import RunOptions

WORDS = ("model=tiny", "method=bitfit", "budget=steps", "budget.steps=3", "train.num_evals=1")


def test_the_data_root_of_a_plan_counts_when_a_run_is_executed(tmp_path):
    """Else the run would silently ask the hub."""
    planned = peftbench.plan(*WORDS, "task=mrpc", f"data.root={tmp_path}")
    peftbench.plan(*WORDS, "task=mrpc", f"data.root={tmp_path / 'other'}")  # another plan's own
    with pytest.raises(peftbench.ConfigError, match=f"{tmp_path}(?!/other)"):
        peftbench.execute(planned.runs[0])


def test_a_sweep_is_trained_into_a_folder_and_runs_that_fail_raise_with_their_reason(tmp_path):
    words = [*tiny.own_task(tmp_path), *WORDS]
    planned = peftbench.plan(*words, "train.lr=1e-3,1e30")
    with pytest.raises(peftbench.RunsFailed, match="without a record: 1 of 2 runs") as failed:
        peftbench.run(planned, results=tmp_path / "made", workers=1, quiet=True)
    assert "diverged" in str(failed.value)
    assert len(failed.value.results.keys()) == 1
    # the same words find what the plan made, and nothing is left to do
    results = peftbench.run(*words, "train.lr=1e-3", results=tmp_path / "made", quiet=True)
    assert results.keys() == [planned.runs[0].key]
    assert results.frame("run.train.lr")["run.train.lr"].tolist() == [1e-3]


def test_a_dry_run_checks_and_returns_the_folder_as_it_is(tmp_path):
    words = [*tiny.own_task(tmp_path), *WORDS]
    results = peftbench.run(*words, results=tmp_path / "made", dry_run=True, quiet=True)
    assert results.keys() == []
    with pytest.raises(peftbench.ConfigError, match=r"train\.lr"):
        peftbench.run(*words, "train.lr=-1", results=tmp_path / "made", dry_run=True)


def test_a_program_trains_in_any_of_its_threads(tmp_path):
    """Only the main thread may listen to signals."""
    words = [*tiny.own_task(tmp_path), *WORDS]
    with ThreadPoolExecutor(1) as aside:
        made = aside.submit(peftbench.run, *words, results=tmp_path / "made", quiet=True).result()
    assert len(made.keys()) == 1


def test_what_the_commands_refuse_is_refused_to_programs(tmp_path):
    with pytest.raises(peftbench.ConfigError, match=r"peftbench.run\('sweep=quickstart'\)"):
        peftbench.run(results=tmp_path)
    with pytest.raises(peftbench.ConfigError, match="no suite given"):
        peftbench.evaluate(*WORDS, results=tmp_path)


def test_evaluate_wants_records(tmp_path):
    words = [*tiny.own_task(tmp_path), *WORDS, "suite=noise"]
    with pytest.raises(peftbench.ConfigError, match=r"without a record in .*/made: 1 of 1 run;"):
        peftbench.evaluate(*words, results=tmp_path / "made", quiet=True)


def test_an_option_that_is_none_is_refused(tmp_path):
    with pytest.raises(TypeError, match="worker"):
        peftbench.run(*WORDS, results=tmp_path, worker=1)
    with pytest.raises(TypeError, match=r"run\(\) and evaluate\(\) have no option as_json"):
        peftbench.run(*WORDS, results=tmp_path, as_json=True)


def test_status_shows_a_program_as_what_it_is(tmp_path, monkeypatch):
    """The words that started a notebook are no command of peftbench."""
    shown = []

    def write(results, what, *more):
        shown.append(what)
        raise KeyboardInterrupt

    monkeypatch.setattr("peftbench.results.in_flight.write", write)
    words = [*tiny.own_task(tmp_path), *WORDS]
    with pytest.raises(KeyboardInterrupt):
        peftbench.run(*words, results=tmp_path / "made", workers=1, quiet=True)
    assert shown == ["peftbench.run in a program"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", 0),
        ("threads", 1.5),
        ("gpus_per_run", 0),
        ("curve_part", 0),
        ("curve_part", 2),
        ("checkpoint_minutes", 0),
    ],
)
def test_values_of_options_are_those_of_the_command(name, value, tmp_path):
    with pytest.raises(peftbench.ConfigError, match=f"^{name} must be .*, got {value}$"):
        peftbench.run(*WORDS, results=tmp_path, **{name: value})


def test_options_may_be_given_as_a_program_has_them():
    given = RunOptions(pack=8, track="csv,wandb")
    assert (given.pack, given.track) == ("8", ("csv", "wandb"))
