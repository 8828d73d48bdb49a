"""The grids of the papers, and the scripts that run them."""

import os
import re
import subprocess
from pathlib import Path

import pytest
from paths import ROOT

from peftbench.config import catalog
from peftbench.config.sweep import plan

SCRIPTS = sorted((ROOT / "scripts").glob("reproduce_*.sh"))
GRIDS = ROOT / "configs" / "sweep"
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


@pytest.fixture
def reproduced(tmp_path):
    """Run a script with a `uv` that notes its words; the last lines and the exit code."""

    def run(code, *words):
        uv = tmp_path / "uv"
        uv.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/told\n[ "$3" != run ] || exit {code}\n')
        uv.chmod(0o755)
        script = ROOT / "scripts" / "reproduce_doering2024.sh"
        path = f"{tmp_path}:{os.environ['PATH']}"
        done = subprocess.run([script, "mini", "F", *words], env=os.environ | {"PATH": path})
        return done.returncode, (tmp_path / "told").read_text().splitlines()

    return run


def test_a_grid_with_budgets_of_seconds_has_one_worker(reproduced):
    code, told = reproduced(0, "--quiet")
    assert code == 0
    assert told[:2] == [
        "run peftbench run sweep=doering2024_mini --results F --quiet",
        "run peftbench run sweep=doering2024_time_mini --results F --workers 1 --quiet",
    ]
    timed = [name for name in SWEEPS if "budget=seconds" in (GRIDS / f"{name}.yaml").read_text()]
    assert timed == ["doering2024_time_mini", "doering2024_time_paper"]


@pytest.mark.parametrize(("code", "after"), [(1, 3), (2, 0), (130, 0)])
def test_after_diverged_runs_a_script_reports_after_bad_input_and_ctrl_c_it_ends(
    code, after, reproduced
):
    ended, told = reproduced(code)
    assert ended == code
    assert len(told) == 1 + after
    if after:
        assert told[2:] == [
            "run peftbench report --results F",
            "run peftbench report claims paper=doering2024 --results F",
        ]


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
