"""Workers and threads, tried out before a sweep on a CPU."""

import json

import pytest
from click.testing import CliRunner
from records import runs, tiny

from peftbench.cli.main import main
from peftbench.results.store import Results
from peftbench.runner import probe, sweep
from peftbench.system import hardware


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
    (run,) = runs("method=bitfit")
    results = Results(tmp_path)
    assert probe.kept(run, 2, results) is None
    first = probe.fastest(run, 2, results)
    assert first in [(2, 1), (1, 2)]
    assert probe.kept(run, 2, results) == first
    assert probe.kept(run, 1, results) is None
    (kept,) = (tmp_path / "cache").glob("threads-*.json")
    found = json.loads(kept.read_text())
    assert [option[:2] for option in found] == [[2, 1], [1, 2]]
    assert all(rate > 0 for _, _, rate in found)
    for rates, expected in (([100, 109], (2, 1)), ([100, 111], (1, 2))):
        one, other = found
        kept.write_text(json.dumps([[*one[:2], rates[0]], [*other[:2], rates[1]]]))
        assert probe.kept(run, 2, results) == expected
    kept.write_text("{")
    assert probe.kept(run, 2, results) is None


def test_a_probe_that_ends_early_says_why():
    asked = {"width": 8, "blocks": 1, "inner": 8, "heads": 3, "batch": 2, "precision": "fp32"}
    with pytest.raises(probe.ProbeError, match="invalid for input of size"):
        probe._measure(asked, [(1, 1)])


def test_workers_start_anew_with_the_threads_that_are_faster(monkeypatch, tmp_path):
    for module in (hardware, probe, sweep):
        monkeypatch.setattr(module, "cores", lambda: 2)
    monkeypatch.setattr(probe, "_measure", lambda asked, options: [100.0, 150.0])
    words = tiny("method=bitfit", "size=16", "budget.steps=1", "seed=0,1,2")
    command = ["run", *words, "--device", "cpu", "--results", str(tmp_path)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "workers: 2 on CPU, threads of each: 1" in done.stderr
    assert "faster here, so workers start anew: 1, threads of each: 2" in done.stderr
    records = Results(tmp_path).scan()[0]
    assert [record.environment["threads"] for record in records] == [2, 2, 2]
    assert probe.kept(records[0].run, 2, Results(tmp_path)) == (1, 2)
