"""Two commands at once on one results folder, and damaged records in it."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from records import tiny
from stage import Stage, finish, no_traceback

pytestmark = pytest.mark.slow  # processes that load torch, one after the other


def tell_twins(stage):
    """Two commands at once on one folder; then two of its records are damaged."""
    words = ("method=steady", "seed=range(0,6)", "--workers", "1")
    processes = [stage.start(*words), stage.start(*words)]
    told = SimpleNamespace(stage=stage, twins=[finish(process) for process in processes])
    told.journal = stage.journal
    keys = stage.results.keys()
    told.keys = keys
    told.before = {key: stage.results.predictions(stage.results.load(key)) for key in keys}
    edited, truncated = (stage.results.folder / "records" / f"{key}.json" for key in keys[:2])
    edited.write_text(edited.read_text().replace('"seed": ', '"seed": 1', 1))
    truncated.write_bytes(truncated.read_bytes()[:700])
    told.planned = subprocess.run(
        [sys.executable, "-m", "peftbench", "plan", *tiny(*words[:2]), "--results", "runs"],
        cwd=stage.folder,
        env=stage.environment,
        capture_output=True,
        text=True,
    )
    told.again = stage.run(*words, "--quiet")
    told.trained_again = len(stage.journal) - len(told.journal)
    told.after = {key: stage.results.predictions(stage.results.load(key)) for key in keys}
    return told


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    return tell_twins(Stage(tmp_path_factory.mktemp("twins")))


def test_two_commands_on_one_folder_share_the_work(told):
    assert [done.code for done in told.twins] == [0, 0]
    assert len(told.journal) == len(told.keys) == 6
    for done in told.twins:
        assert no_traceback(done)
        assert "6/6" in done.err
        assert "steady" in done.out
        assert "(6)" in done.out


def test_damaged_records_are_named_and_made_again(told):
    assert told.planned.returncode == 0
    assert "4 done, 2 missing" in told.planned.stdout
    for said in (told.planned.stdout, told.again.err):
        assert f"{told.keys[0]}.json was altered" in said
        assert f"{told.keys[1]}.json is not whole" in said
    assert told.again.code == 0
    assert told.trained_again == 2
    for key, arrays in told.before.items():
        np.testing.assert_array_equal(told.after[key]["scores"], arrays["scores"])
