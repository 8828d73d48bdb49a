"""Latency: which passes are timed, what is reported of them, merged weights, machines, columns."""

from dataclasses import replace

import numpy as np
import pytest
import records
from click.testing import CliRunner
from suite_records import lines, planned, trained

from peftbench.analysis import costs
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import evaluator
from peftbench.reports import builder, pareto
from peftbench.reports import latency as latency_report
from peftbench.reports.plotting.palette import Palette
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.training.trainer import execute

SHORT = ("suite=latency", "suite.repeats=20", "suite.warmup=2", "suite.batch_size=4")


def suite(repeats=20):
    (evaluation,) = planned(*SHORT[:1], *SHORT[2:], f"suite.repeats={repeats}")
    return base.build_suite(evaluation.suite)


def test_all_texts_have_a_turn_before_one_comes_again():
    passes = suite(30).passes(60)
    assert [rows.shape for rows in passes["single"]] == [(1,)] * 30
    assert len({int(rows[0]) for rows in passes["single"]}) == 30
    assert [rows.shape for rows in passes["batch"]] == [(4,)] * 30
    counts = np.bincount(np.concatenate(passes["batch"]), minlength=60)
    assert counts.tolist() == [2] * 60
    again = suite(30).passes(60)
    assert all(map(np.array_equal, passes["batch"], again["batch"]))


def test_percentiles_by_hand():
    (evaluation,) = planned(*SHORT)
    single = np.linspace(0.001, 0.101, 101)
    found = {
        "texts": {"label": np.zeros(7)},
        "unmerged": {"single": single, "batch": 2 * single},
        "merged": {"single": single / 2, "batch": single},
    }
    told = suite().findings(records.record(evaluation.run), {}, found)
    assert told["unmerged"]["ms"] == {"p50": pytest.approx(51), "p95": pytest.approx(96)}
    assert told["unmerged"]["examples_per_second"]["p50"] == pytest.approx(4 / 0.102)
    assert told["unmerged"]["examples_per_second"]["p95"] == pytest.approx(4 / 0.192)
    assert told["merged"]["ms"]["p50"] == pytest.approx(25.5)
    assert told["headline"]["ms_p50"] == pytest.approx(25.5)
    del found["merged"]
    told = suite().findings(records.record(evaluation.run), {}, found)
    assert told["merged"] is None
    assert told["headline"]["merged_ms_p50"] is None
    assert told["headline"]["ms_p50"] == pytest.approx(51)


@pytest.mark.parametrize("repeats", [0, 19])
def test_too_few_passes_for_a_percentile_are_refused(repeats):
    with pytest.raises(ConfigError, match=r"suite\.repeats must be a whole number of at least 20"):
        suite(repeats)


def test_more_passes_to_warm_up_than_are_timed_are_refused():
    words = ("suite=latency", "suite.repeats=20")
    with pytest.raises(ConfigError, match=r"suite\.warmup=21: .* suite\.repeats=20 timed"):
        planned(*words, "suite.warmup=21")
    (evaluation,) = planned(*words, "suite.warmup=20")
    assert base.build_suite(evaluation.suite).warmup == 20


@pytest.mark.slow
def test_kept_weights_are_timed_in_both_forms(tmp_path):
    results = ResultsFolder(tmp_path)
    (evaluation,) = planned(*SHORT, "method=lora", "train.precision=bf16")
    done = execute(evaluation.run, RuntimeConfig(save_weights=True))
    results.save(done.record, done.predictions, done.trained)
    found, arrays = evaluator.evaluate_suite(evaluation, results)
    assert {n for n in arrays if n != "label/texts"} == {
        f"{kind}/{form}" for kind in ("single", "batch") for form in ("unmerged", "merged")
    }
    for form in ("unmerged", "merged"):
        assert arrays[f"single/{form}"].shape == arrays[f"batch/{form}"].shape == (20,)
        assert (arrays[f"single/{form}"] > 0).all()
        told = found.findings[form]["ms"]
        assert told["p50"] == pytest.approx(1000 * np.median(arrays[f"single/{form}"]))
        assert told["p50"] <= told["p95"]
    assert found.findings["merging"]["tolerance"] == 1e-4
    assert found.findings["merging"]["difference"] < 1e-4
    assert found.environment["precision"] == "bf16"
    saved = results.save_evaluated(found, arrays)
    assert results.evaluated(evaluation.key).headline == saved.headline


# tables and pictures


def timed(evaluation, ms: float, merged: float | None, **place) -> Evaluated:
    """What the suite finds where each pass takes so many milliseconds."""
    found = {"texts": {"label": np.zeros(9)}}
    for form, value in (("unmerged", ms), ("merged", merged)):
        if value is not None:
            found[form] = {kind: np.full(20, value / 1000) for kind in ("single", "batch")}
    told = suite().findings(records.record(evaluation.run), {}, found)
    headline = told.pop("headline")
    told["merging"] = {"not_merged": "X has no place"} if merged is None else {"difference": 0.0}
    environment = records.ENVIRONMENT | place
    return Evaluated(evaluation, told, headline, {}, environment, None)


def two(**place) -> list[Evaluated]:
    lora, adapter = (planned(*SHORT, f"method={m}")[0] for m in ("lora", "adapter"))
    return [timed(lora, 8.0, 4.0), timed(adapter, 10.0, None, **place)]


def test_the_table_says_both_forms():
    every = two()
    (table,) = latency_report.tables(every, trained(every))
    assert table.title.endswith(", Some CPU, 1 thread, bf16")
    by_method = {line["method"]: line for line in lines(table)}
    assert by_method["lora"]["ms p50"] == "8.00 (1)"
    assert by_method["lora"]["merged ms p50"] == "4.00 (1)"
    assert by_method["lora"]["merged texts/s p50"] == "1000.00 (1)"
    assert by_method["adapter"]["merged ms p50"].startswith("–")
    assert table.notes[1:] == ["Not merged: X has no place."]


def test_a_terminal_shows_the_notes_of_the_written_table(tmp_path):
    """Those of a suite's tables too, each once, after `run` and in `report`."""
    results = ResultsFolder(tmp_path)
    for e in two():
        results.save(records.record(e.evaluation.run), records.predictions())
        results.save_evaluated(e, {})
    (table,) = latency_report.tables(two(), trained(two()))
    merged = table.notes[0]
    assert "– (0 of n) where it could be in none of n evaluations" in merged
    shown = []
    builder.write(results, show=shown.append)
    for notes in (shown[0].notes, builder.selected(results, "").notes):
        assert [notes.count(note) for note in (merged, "Not merged: X has no place.")] == [1, 1]
    assert merged in (results.reports() / "latency.md").read_text()


def test_a_line_of_progress_has_milliseconds_not_percent():
    lora, adapter = two()
    assert lora.headline_text.endswith(", ms_p50 4")
    assert "merged_ms_p50 undefined" in adapter.headline_text


def test_machines_have_tables_and_axes_of_their_own():
    every = two(threads=2)
    first, second = latency_report.tables(every, trained(every))
    assert [len(first.rows), len(second.rows)] == [1, 1]
    taken = costs.latencies(every)
    assert [list(by_key.values()) for by_key in taken.values()] == [[4.0], [10.0]]
    made = [records.record(e.evaluation.run) for e in every]
    (picture,) = pareto.plot_pareto(made, Palette(), latencies=taken)
    names = [axis.get_xlabel() for axis in picture.figure.axes]
    assert names[3:] == [
        "latency of one text (ms), Some CPU, 1 thread",
        "latency of one text (ms), Some CPU, 2 threads",
    ]
    assert "Latency: the median of suite=latency" in picture.caption
    one = two()
    (picture,) = pareto.plot_pareto(made, Palette(), latencies=costs.latencies(one))
    assert [axis.get_xlabel() for axis in picture.figure.axes][3:] == ["latency of one text (ms)"]


def pivot(results: ResultsFolder, *words: str, code: int = 0) -> str:
    command = ["report", "table", *words, "--results", str(results.folder), "--format", "markdown"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == code, done.output
    return done.output


def test_latency_is_a_column_of_tables(tmp_path):
    results = ResultsFolder(tmp_path)
    every = two()
    (other,) = records.runs("method=head")  # a record that nobody timed
    for run in [*(e.evaluation.run for e in every), other]:
        results.save(records.record(run), records.predictions())
    assert "no evaluation by suite=latency; there are none" in pivot(
        results, "cell=suite.latency.ms_p50", code=2
    )
    for e in every:
        results.save_evaluated(e, {})
    text = pivot(results, "cell=suite.latency.ms_p50")
    cells = [[cell.strip() for cell in line.split("|")] for line in text.splitlines()]
    assert {line[1]: line[2] for line in cells if len(line) > 3 and "(1)" in line[2]} == {
        "lora": "4.00 (1)",
        "adapter": "10.00 (1)",
    }
    assert "Milliseconds" in text
    assert "head" not in text
    assert "lora" in pivot(results, "where=suite.latency.ms_p50<5", "cell=score")
    assert "adapter" not in pivot(results, "where=suite.latency.ms_p50<5", "cell=score")


def test_latencies_of_different_machines_are_not_pooled(tmp_path):
    results = ResultsFolder(tmp_path)
    every = two(device="Another CPU")
    for e in every:
        results.save(records.record(e.evaluation.run), records.predictions())
        results.save_evaluated(e, {})
    told = pivot(results, "cell=suite.latency.ms_p50", code=2)
    assert "records differ in suite.latency.environment.device (Another CPU, Some CPU)" in told
    apart = "rows=method,suite.latency.environment.device"
    assert "Another CPU" in pivot(results, apart, "cell=suite.latency.ms_p50")


def test_a_run_with_two_evaluations_by_one_suite_is_refused(tmp_path):
    results = ResultsFolder(tmp_path)
    (first,) = planned(*SHORT)
    results.save(records.record(first.run), records.predictions())
    for repeats in (20, 40):
        one = replace(first, suite=first.suite | {"repeats": repeats})
        results.save_evaluated(timed(one, 3.0, None), {})
    told = pivot(results, "cell=suite.latency.ms_p50", code=2)
    assert f"run {first.run.key} has several evaluations by it" in told
