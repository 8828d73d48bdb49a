"""What scripts/next_runs.sh trains next, from what is in the folders."""

import importlib
import sys

import pytest
from paths import ROOT

import peftbench
from peftbench.core.evaluation import Failure
from peftbench.core.tuning import Choice, subject
from peftbench.results import choices
from peftbench.results.store import Results

sys.path.append(str(ROOT / "scripts"))
next_runs = importlib.import_module("next_runs")


@pytest.mark.slow  # plans 600 runs, and each choice
def test_rates_come_first_then_cells_of_five_seeds_at_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *rest = next_runs.missing("glue")
    assert first.title == "Learning rate of full on mrpc: minilm, 1,000 examples"
    assert len(rest) == 19 * 3 - 1 + 4 * 3
    for part in (first, *rest):
        words = [word for word in part.words if "=" in word]
        (run,) = peftbench.plan(*words).runs
        made = Choice(subject(run), 7e-4, run.task.metric, "a test", [], None)
        choices.save(Results(part.folder), made)
    first, *rest = next_runs.missing("glue")
    assert first.title == "doering2024: full on mrpc, size 0.1, 5 seeds"
    assert [run.seed for run in first.runs] == [0, 1, 2, 3, 4]
    assert {run.train.lr for part in (first, *rest) for run in part.runs} == {7e-4}
    assert 1 + len(rest) == 3 * 9 + 19 * 3 + 6 * 9 + 4 * 3
    assert first.command.startswith("peftbench run sweep=doering2024_mini 'seed=range(0,5)'")
    kept = sorted(path.name for path in (tmp_path / first.folder / "choices").iterdir())
    assert len(kept) == 9
    assert kept[0].startswith("adapter-cola-minilm-1000-")


def test_a_cell_is_whole_when_each_seed_has_a_record_or_diverged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Results(tmp_path / "made")
    runs = peftbench.plan("method=lora", "task=mrpc", "seed=0,1").runs
    monkeypatch.setattr(Results, "has", lambda self, key: key == runs[0].key)
    assert next_runs.is_whole(folder, runs[:1])
    assert not next_runs.is_whole(folder, runs)
    for kind, whole in (("error", False), ("diverged", True)):
        folder.fail(Failure(runs[1], kind, "as a test wants it"))
        assert next_runs.is_whole(folder, runs) is whole
