"""Costs of packed runs, from a measurement of one that ran alone."""

from dataclasses import replace

import pytest
from records import record, runs

from peftbench.training.cost_model import CostModel


def test_evaluations_cost_what_their_examples_do():
    made = record(runs("method=lora")[0])
    selected = replace(made, work=made.work | {"evaluated": 4 * 1000 + 1043})
    known = CostModel("0" * 12, step=0.1, token=0.01, example=0.002, memory={})
    assert known.costs(selected, []).seconds["evaluate"] == pytest.approx(10.086)
