"""The Pareto front of score and cost."""

import numpy as np

from peftbench.analysis.pareto import fronts, pareto_front


def test_the_front_holds_what_nothing_beats():
    points = {
        "a": (0.9, 10.0),
        "b": (0.8, 5.0),
        "c": (0.7, 6.0),
        "d": (None, 1.0),
        "e": (0.9, 12.0),
    }
    assert set(pareto_front(points)) == {"a", "b"}


def test_a_cost_that_is_not_known_is_on_no_front():
    assert pareto_front({"a": (0.9, None), "b": (0.8, 5.0), "c": (0.7, None)}) == ["b"]
    alike = dict.fromkeys(("seven", "one", "three", "nine", "two"), (0.5, 2.0))
    assert pareto_front({"cheap": (0.1, 1.0)} | alike) == ["cheap", *alike]


def test_the_front_is_what_nothing_dominates():
    random = np.random.default_rng(0)
    for _ in range(200):
        every = {n: (int(random.integers(6)) / 6, float(random.integers(6))) for n in range(12)}
        every |= {12: (None, 0.0)}
        better = {
            (a, b)
            for a, (one, cheap) in every.items()
            for b, (other, dear) in every.items()
            if None not in (one, other)
            and one >= other  # type: ignore[operator]
            and cheap <= dear
            and (one > other or cheap < dear)  # type: ignore[operator]
        }
        assert set(pareto_front(every)) == set(range(12)) - {b for _, b in better}


def test_kinds_of_points_have_a_front_each():
    points = {"short": (0.7, 5.0), "long": (0.9, 5.0), "dear": (0.6, 6.0)}
    assert pareto_front(points) == ["long"]
    assert fronts(points, {"short": 4, "long": 8, "dear": 4}.__getitem__) == [["short"], ["long"]]
