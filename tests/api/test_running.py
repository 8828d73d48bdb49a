"""Planning, training and evaluating from a program."""

import pytest
import tiny

import peftbench

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
    with pytest.raises(peftbench.RunsFailed, match="1 of 2 runs have no record") as failed:
        peftbench.run(planned, results=tmp_path / "made", workers=1, quiet=True)
    assert "diverged" in str(failed.value)
    assert len(failed.value.results.keys()) == 1
    # the same words find what the plan made, and nothing is left to do
    results = peftbench.run(*words, "train.lr=1e-3", results=tmp_path / "made", quiet=True)
    assert results.keys() == [planned.runs[0].key]
    assert results.frame("run.train.lr")["run.train.lr"].tolist() == [1e-3]


def test_evaluate_wants_records(tmp_path):
    words = [*tiny.own_task(tmp_path), *WORDS, "suite=noise"]
    with pytest.raises(peftbench.ConfigError, match="1 of 1 runs have no record"):
        peftbench.evaluate(*words, results=tmp_path / "made", quiet=True)


def test_an_option_that_is_none_is_refused(tmp_path):
    with pytest.raises(TypeError, match="worker"):
        peftbench.run(*WORDS, results=tmp_path, worker=1)
