"""What README.md says is so: its links, its commands, its tables."""

import re
import subprocess
import sys

import pytest
from paths import ROOT

README = (ROOT / "README.md").read_text()


def test_links_lead_somewhere():
    links = [
        link
        for link in re.findall(r"\]\(([^)]+)\)", README)
        if "://" not in link and not link.startswith("#")
    ]
    assert links
    for link in links:
        assert (ROOT / link.partition("#")[0]).exists(), link


def test_ci_finds_the_two_commands():
    commands = re.findall(r"^    (python3 -m pip install .*)$", README, re.MULTILINE)
    assert [command.rpartition("uv run ")[2] for command in commands] == [
        "peftbench run sweep=quickstart",
        "pytest -n auto --dist loadfile",
    ]


@pytest.mark.parametrize(
    ("group", "heading"), [("method", "## Methods"), ("suite", "## Evaluations beyond the score")]
)
def test_every_method_and_suite_stands_in_its_table(group, heading):
    section = README.partition(f"\n{heading}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
    offered = {path.stem for path in (ROOT / "configs" / group).glob("[!_]*.yaml")}
    assert sorted(rows) == sorted(offered)


def test_generated_tables_are_the_committed_ones():
    if not (ROOT / "results/reference/reports/scores.md").exists():
        pytest.skip("no reference results in this checkout")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/readme.py", "--check"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
