"""Workers and threads, tried out before a sweep on a CPU."""

import json

import pytest
from records import runs

from peftbench import probe
from peftbench.store import Results


@pytest.mark.parametrize(
    ("cores", "workers", "expected"),
    [
        (1, 4, [(1, 1)]),
        (2, 9, [(2, 1), (1, 2)]),
        (8, 64, [(8, 1), (4, 2), (2, 4), (1, 8)]),
        (8, 3, [(3, 2), (2, 4), (1, 8)]),
        (6, 6, [(6, 1), (3, 2), (1, 6)]),
    ],
)
def test_every_candidate_uses_the_cores_that_memory_lets_it(monkeypatch, cores, workers, expected):
    monkeypatch.setattr(probe, "cores", lambda: cores)
    assert probe.candidates(workers) == expected


def test_a_sweep_that_goes_on_has_the_threads_it_began_with(monkeypatch, tmp_path):
    monkeypatch.setattr(probe, "cores", lambda: 2)
    monkeypatch.setattr(probe, "SECONDS", 0.05)
    (run,), told = runs("method=bitfit"), []
    results = Results(tmp_path)
    first = probe.fastest(run, 2, results, told.append)
    assert first in [(2, 1), (1, 2)]
    assert len(told) == 1
    assert probe.fastest(run, 2, results, told.append) == first
    assert len(told) == 1
    (kept,) = (tmp_path / "cache").glob("threads-*.json")
    found = json.loads(kept.read_text())
    assert [option[:2] for option in found] == [[2, 1], [1, 2]]
    assert all(rate > 0 for _, _, rate in found)
    for rates, expected in (([100, 109], (2, 1)), ([100, 111], (1, 2))):
        one, other = found
        kept.write_text(json.dumps([[*one[:2], rates[0]], [*other[:2], rates[1]]]))
        assert probe.fastest(run, 2, results, told.append) == expected
    kept.write_text("{")
    assert probe.fastest(run, 2, results, told.append) in [(2, 1), (1, 2)]
    assert len(told) == 2


def test_a_probe_that_ends_early_says_why():
    asked = {"width": 8, "blocks": 1, "inner": 8, "heads": 3, "batch": 2, "precision": "fp32"}
    with pytest.raises(probe.ProbeError, match="invalid for input of size"):
        probe._measure(asked, [(1, 1)])
