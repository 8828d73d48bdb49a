"""The report of variance by role on runs whose scores are made of known effects."""

from pathlib import Path

import numpy as np
import pytest
import records
from click.testing import CliRunner

from peftbench.analysis import failures
from peftbench.cli.main import main
from peftbench.core.run import Record
from peftbench.reports.variance import variance_table

CROSSED = ("seed.order=0,1,2", "seed.head=0,1,2,3")


def scored(*words: str) -> list[Record]:
    """Order moves a score by 4 points a level, the rest by a little."""
    made = []
    for run in records.runs("method=lora", "task=mrpc", *words):
        wobble = np.random.default_rng([run.seed_of("order"), run.seed_of("head")]).normal(0, 0.001)
        made.append(records.record(run, 0.7 + 0.04 * run.seed_of("order") + wobble))
    return made


def test_the_role_that_moves_scores_has_the_variance():
    table = variance_table(scored(*CROSSED))
    lines = {line[3]: line for line in table.rows}
    assert list(lines) == ["order", "head", "rest"]
    assert lines["order"][:3] == ["lora", "mrpc", "12"]
    assert float(lines["order"][6]) == pytest.approx(16.0, rel=0.05)  # of 0, 4, 8 points
    assert lines["order"][9] == "100 %"
    assert float(lines["head"][5]) < 0.2
    assert float(lines["order"][10]) < 0.001 < float(lines["head"][10])


def test_ordinary_seeds_alone_make_no_table_and_few_runs_are_named():
    assert variance_table(scored("seed=0,1,2")) is None
    table = variance_table(scored("seed.order=0,1,2"))
    assert table.rows == []
    assert "Too few runs to tell roles apart" in table.notes[1]
    assert "lora, mrpc" in table.notes[1]


def test_precisions_are_sets_of_their_own_and_runs_that_diverged_are_counted():
    from dataclasses import replace

    made = scored(*CROSSED)
    other = [replace(r, environment=r.environment | {"precision": "fp32"}) for r in made]
    lines = variance_table(made[:6] + other[6:]).rows
    assert {line[0] for line in lines} == {"lora, precision=bf16", "lora, precision=fp32"}
    assert {line[2] for line in lines} == {"6"}
    lost = failures.Diverged.from_runs(record.run for record in made[:2])
    table = variance_table(made[2:], lost)
    assert table.notes[-1].endswith("these sets lack what failed: lora, mrpc (2).")
    assert len(variance_table(made).notes) == 1


def test_an_undefined_score_counts_as_the_trivial_one():
    from dataclasses import replace

    made = scored(*CROSSED)
    flat = [
        replace(r, metrics={"accuracy": None, "f1": None}, trivial={"accuracy": 0.68, "f1": 0.81})
        if r.run.seed_of("order") == 0
        else r
        for r in made
    ]
    table = variance_table(flat)
    (order,) = [line for line in table.rows if line[3] == "order"]
    assert float(order[6]) == pytest.approx(np.var([68, 74, 78], ddof=1), rel=0.05)


def test_the_committed_array_gives_the_committed_table(tmp_path):
    folder = Path(__file__).parents[2] / "results/variance"
    words = ["report", "variance", "--results", str(folder), "-o", str(tmp_path / "made.md")]
    assert CliRunner().invoke(main, words).exit_code == 0
    made = (tmp_path / "made.md").read_text()
    assert made == (folder / "variance.md").read_text()
    assert made.count("| 25   |") == 4 * 6  # five roles and the rest in four cells
    assert CliRunner().invoke(main, [*words, "--check"]).exit_code == 0
    (tmp_path / "made.md").write_text(made.replace("73 %", "74 %"))
    assert CliRunner().invoke(main, [*words, "--check"]).exit_code != 0
