"""The grids of the papers, and the scripts that run them."""

import re
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

from peftbench.config import catalog
from peftbench.config.sweep import plan

SCRIPTS = sorted((ROOT / "scripts").glob("reproduce_*.sh"))
SWEEPS = sorted(catalog.options("sweep", (catalog.packaged(),)))


def grids(script: Path) -> tuple[str, list[str]]:
    """The paper and the grids that a script names."""
    found = re.search(r"^reproduce (.+) -- ", script.read_text(), re.MULTILINE)
    paper, *names = found[1].split()
    return paper, names


def test_every_grid_of_a_paper_has_both_forms_and_a_script():
    named = [name for script in SCRIPTS for name in grids(script)[1]]
    forms = {name for name in SWEEPS if name.endswith(("_mini", "_paper"))}
    assert forms == {f"{name}_{form}" for name in named for form in ("mini", "paper")}
    assert len(SCRIPTS) == 6


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_refuses_another_form(script):
    assert script.stem == f"reproduce_{grids(script)[0]}"
    told = subprocess.run([script, "big"], capture_output=True, text=True, check=False)
    assert told.returncode == 2
    assert "[mini|paper]" in told.stderr


def test_doering_asks_thirty_percent_and_all_seeds_see_one_subset():
    runs = plan("sweep=doering2024_paper").runs
    assert {run.size for run in runs} == {0.1, 0.2, 0.3, 0.5, 0.7, "full"}
    assert len(runs) == 3 * 3 * 6 * 5


def test_large_sparse_keeps_as_many_weights():
    pairs = {
        (run.method.hyperparameters["widen"], run.method.hyperparameters["keep"])
        for run in plan("sweep=sparse_adapter2022_paper").runs
        if run.method.hyperparameters["widen"] > 1
    }
    assert pairs == {(2, 0.5), (4, 0.25), (8, 0.125)}
