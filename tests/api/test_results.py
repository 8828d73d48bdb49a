"""A results folder as notebooks see it, compared with the records and the command."""

from pathlib import Path

import numpy as np
import pytest
from records import predictions, record, runs

import peftbench
from peftbench.results.store import ResultsFolder

FOLDER = Path("results/tuned/doering2024")


@pytest.fixture(scope="module")
def results():
    return peftbench.Results(FOLDER)


def test_repr_says_how_many_records(results, tmp_path):
    assert repr(results) == "Results('results/tuned/doering2024'): 135 records"
    assert "<th>bitfit</th>" in results._repr_html_()
    assert repr(peftbench.Results(tmp_path / "new")).endswith(": 0 records")
    assert "<table" not in peftbench.Results(tmp_path / "new")._repr_html_()


def test_frame_has_a_row_a_record(results):
    frame = results.frame("run.method.name", "score")
    assert frame.shape == (135, 2)
    scores = [record.score for record in results.scan()[0] if record.score is not None]
    assert sorted(frame["score"].dropna()) == pytest.approx(sorted(scores))
    assert peftbench.load_records(FOLDER, "run.method.name", "score").equals(frame)
    with pytest.raises(peftbench.ConfigError, match=r"did you mean run\.method"):
        results.frame("methd")


def test_curves_are_the_records_points(results):
    records, _ = results.scan()
    curves = results.curves()
    assert len(curves) == sum(len(record.curve) for record in records)
    one = results.curves(records[0].run.key)
    assert list(one["step"]) == [point["step"] for point in records[0].curve]
    assert set(one["method"]) == {records[0].run.method.name}


def test_errors_put_the_surest_wrong_answers_first(results):
    records, _ = results.scan()
    record = next(r for r in records if r.run.task.name == "mrpc")
    errors = results.errors(record.run.key)
    assert len(errors) == 408
    assert errors["right"].mean() == pytest.approx(record.metrics["accuracy"])
    wrong = errors[~errors["right"]]
    assert list(errors["right"]) == sorted(errors["right"])
    assert wrong["confidence"].is_monotonic_decreasing
    scores = results.predictions(record)["scores"]
    assert np.array_equal(results.predictions(record.run.key[:8])["scores"], scores)
    place = int(wrong["item"].iloc[0])
    assert wrong["predicted"].iloc[0] == scores[place].argmax()


def test_texts_have_no_errors(tmp_path):
    """Their scores were taken for those of classes."""
    words = ("task=socialqa", "prompt=generate", "model=smollm2_135m", "method=lora")
    made = ResultsFolder(tmp_path).save(record(runs(*words)[0]), predictions())
    with pytest.raises(peftbench.ConfigError, match="writes texts, which are not right or wrong"):
        peftbench.Results(tmp_path).errors(made.run.key)


def test_errors_of_values_are_residuals(results):
    records, _ = results.scan()
    record = next(r for r in records if r.run.task.name == "stsb")
    errors = results.errors(record.run.key)
    assert np.allclose(errors["residual"], errors["predicted"] - errors["label"])
    assert errors["residual"].abs().is_monotonic_decreasing


def test_a_key_of_no_record_is_refused(results):
    with pytest.raises(
        peftbench.RecordError, match="no record in results/tuned/doering2024 begins"
    ):
        results.errors("ffff00000000")
    with pytest.raises(peftbench.RecordError, match="keys begin with"):
        results.predictions(results.keys()[0][:1])


def test_table_is_that_of_the_command(results):
    table = results.table(columns="task", where="size=3668,5749,8551")
    frame = table.frame()
    assert {"method", "task"} <= set(frame.columns)
    assert "mrpc" in repr(table)
    assert "<td>" in table._repr_html_()
    with pytest.raises(peftbench.ConfigError, match="summary=mode"):
        results.table(summary="mode")


def test_compare_is_one_line_a_pair(results):
    frame = results.compare()
    assert set(frame["against"]) == {"full"}
    known = frame.dropna(subset=["low"])
    assert (known["low"] <= known["difference"]).all()
    assert (known["difference"] <= known["high"]).all()
    with pytest.raises(peftbench.ConfigError, match="no such row"):
        peftbench.compare(FOLDER, against="ful")


@pytest.mark.parametrize("margin", [1, 0.5, 0, -0.01, True, "1"])
def test_a_margin_is_a_fraction(results, margin):
    """The command's --margin 1 is 0.01: with 1 every row would be not worse."""
    with pytest.raises(peftbench.ConfigError, match=r"less than 0\.5, such as 0\.01 .*, got"):
        results.compare(margin=margin)


@pytest.mark.parametrize("read", [peftbench.load_records, peftbench.compare])
def test_a_folder_that_is_only_read_must_be_there(read):
    with pytest.raises(peftbench.ConfigError, match=r"^reslts/runs: no such folder; name the"):
        read("reslts/runs")


def test_pictures_show_and_save(results, tmp_path):
    [picture, *_] = results.plot("seeds")
    assert picture._repr_png_().startswith(b"\x89PNG")
    picture.save(str(tmp_path / "seeds.svg"))
    assert "<svg" in (tmp_path / "seeds.svg").read_text(encoding="utf-8")
    with pytest.raises(peftbench.ConfigError, match="png"):
        picture.save(str(tmp_path / "seeds.gif"))
    with pytest.raises(peftbench.ConfigError, match="did you mean seeds"):
        results.plot("seds")
