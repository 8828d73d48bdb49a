"""The script of the walks: samples, pilots, and what it writes into the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/pilot_walks.py"

#: A folder with GLUE, for the whole pilot.
WHOLE = os.environ.get("PEFTBENCH_WHOLE_PILOT")


def glue(folder, count=260):
    """A folder in the hub's layout with sentences whose first word is the label."""
    draw, letters = np.random.default_rng(0), list("abcdefghijklmnopqrstuvwxyz")
    label = np.arange(count) % 2
    first = np.where(label == 1, "fine", "poor")
    texts = [f"{one} {''.join(draw.choice(letters, 8))}" for one in first]
    (folder / "sst2").mkdir(parents=True)
    made = pd.DataFrame({"sentence": texts, "label": label})
    made.to_parquet(folder / "sst2/train-00000-of-00001.parquet")
    return texts


def walk(tmp_path, data, *words):
    page = tmp_path / "pilot.md"
    page.write_text((ROOT / "docs/pilot.md").read_text())
    line = [sys.executable, SCRIPT, "--data", data, "--to", tmp_path / "to", "--page", page, *words]
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False)
    return done, page


@pytest.mark.slow
def test_a_walk_fills_its_part_of_the_page(tmp_path):
    texts = glue(tmp_path / "glue")
    words = ("model=tiny", "method=bitfit", "train.max_length=16", "budget.epochs=1")
    few = ("--folds", 2, "--rates", 1, "--workers", 1, "--threads", 1, "--quiet")
    only = ("--only", "shuffled", "--rows", 200)
    done, page = walk(tmp_path, tmp_path / "glue", *only, "--", *words, *few)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    part = re.search(r"<!-- walk of shuffled -->\n(.*?)<!-- end of walk -->", text, re.DOTALL)[1]
    assert part.strip().startswith("No-go: the best score is that of ")
    assert "| constant prediction " in part
    names = re.findall(r"\]\(img/(\w+\.png)\)", part)
    assert names == ["pilot_shuffled.png", "pilot_shuffled_curve.png"]
    sizes = [(tmp_path / "img" / name).stat().st_size for name in names]
    assert 2_000 < min(sizes) <= sum(sizes) < 100_000
    assert not [one for one in texts if one in text]
    empty = "<!-- walk of reviews -->\n<!-- end of walk -->"
    before = (ROOT / "docs/pilot.md").read_text()
    assert (empty in text) == (empty in before)  # other walks stay as they are


@pytest.mark.parametrize(
    ("to", "data", "told"),
    [("to", "gone", "no folder sst2 in it"), (ROOT / "to", "glue", "outside of the repository")],
)
def test_what_a_walk_refuses(tmp_path, to, data, told):
    (tmp_path / "glue/sst2").mkdir(parents=True)
    line = [sys.executable, SCRIPT, "--data", tmp_path / data, "--to", tmp_path / to]
    done = subprocess.run([*map(str, line)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert told in done.stderr


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.skipif(not WHOLE, reason="90 minutes: PEFTBENCH_WHOLE_PILOT=GLUE_FOLDER runs it")
def test_the_whole_pilot_of_shuffled_labels_is_no_go(tmp_path):
    done, page = walk(tmp_path, WHOLE, "--only", "shuffled")
    assert done.returncode == 0, done.stderr  # as of a walk whose answer is another one
    assert "No-go: the best score is that of " in page.read_text()
