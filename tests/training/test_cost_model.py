"""Costs of packed runs, from a measurement of one that ran alone."""

from dataclasses import replace

import pytest
from records import record, runs

from peftbench.training.cost_model import CostModel


def test_the_evaluation_of_a_trial_costs_what_its_held_out_examples_do():
    made = record(runs("method=lora")[0])
    trial = replace(made, work=made.work | {"held_out": 24}, selection=made.curve[-1])
    whole = CostModel("0" * 12, step=0.1, token=0.01, evaluation=3.0, memory={})
    assert whole.costs(trial, []).seconds["evaluate"] == 3.0
    of_eight = replace(whole, held_out=8)
    assert of_eight.costs(trial, []).seconds["evaluate"] == pytest.approx(9.0)
