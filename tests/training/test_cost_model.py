"""Costs of packed runs, from a measurement of one that ran alone."""

from dataclasses import replace
from unittest import mock

import pytest
from records import record, runs

from peftbench.results.store import ResultsFolder
from peftbench.training.cost_model import CostModel
from peftbench.training.session import TrainingInterrupted
from peftbench.training.trainer import execute


def test_a_calibration_that_another_process_claims_is_waited_for_until_told_to_stop(tmp_path):
    """A claim may be of a process that was killed on another machine."""
    results = ResultsFolder(tmp_path)
    run = runs("method=lora", "budget=seconds", "budget.seconds=3", "budget.calibrated=true")[0]
    stop = iter([False, True]).__next__
    told = "waits while another process measures its speed: "
    with (
        mock.patch.object(ResultsFolder, "claim", return_value=False),
        pytest.warns(UserWarning, match=told),
        pytest.raises(TrainingInterrupted),
    ):
        execute(run, results=results, stop=stop)


def test_evaluations_cost_what_their_examples_do():
    made = record(runs("method=lora")[0])
    selected = replace(made, work=made.work | {"evaluated": 4 * 1000 + 1043})
    known = CostModel("0" * 12, step=0.1, token=0.01, example=0.002, memory={})
    assert known.costs(selected, []).seconds["evaluate"] == pytest.approx(10.086)
