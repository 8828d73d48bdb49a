"""The verb `gate` on tiny exported models: what a person types, and what comes back."""

import csv
import errno
import json
import os
from pathlib import Path

import pytest
import short_runs
import tiny
from click.testing import CliRunner
from rich.console import Console

from peftbench.cli.main import main
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.system import terminal
from peftbench.training.trainer import execute

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds

WORDS = ("train.precision=fp32", "train.lr=3e-3", "budget.steps=40", "size=48", "train.num_evals=1")


def call(*words: str, code: int = 0):
    done = CliRunner().invoke(main, words, prog_name="peftbench")
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Exports of a model, and of one that learnt every label the other way round."""
    place = tmp_path_factory.mktemp("gate")
    task = tiny.own_task(place, held=60)
    # two models that agree on 60 rows may differ by 6 points
    wide = "score_difference: -0.1\nnoise_difference: -0.1\n"
    (place / "limits.yaml").write_text(f"latency_ratio: null\nlatency_texts: 20\n{wide}")
    results = ResultsFolder(place / "runs")
    for name in ("right", "reversed"):
        run = short_runs.one(task, *WORDS, "method=full", tiny.WIDE, "seed=0")
        done = execute(run, RuntimeConfig(device="cpu", save_weights=True))
        record = results.save(done.record, done.predictions, done.trained)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            words = ("export", record.run.key, name, "--results", "runs")
            call(*words, "--without-reference")
        if name == "right":
            rows = [*csv.reader((place / "train.csv").open())]
            other = {"vowel": "other", "other": "vowel", "label": "label"}
            with open(place / "train.csv", "w", newline="") as file:
                csv.writer(file).writerows([text, other[label]] for text, label in rows)
    return place


@pytest.fixture
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)
    return folder


CPU = ("--device", "cpu", "--results", "runs", "--thresholds", "limits.yaml")


@pytest.fixture
def lines(here) -> dict[int, list[str]]:
    """Text and label of the held-out file by line."""
    with open("validation.csv", newline="") as file:
        return dict(enumerate(csv.reader(file), 1))


def test_a_model_may_replace_itself(here, lines, monkeypatch):
    tables = []
    monkeypatch.setattr("peftbench.cli.options.show", tables.append)
    said = call("gate", "right", "right", "validation.csv", *CPU)
    assert said.stdout.splitlines()[0] == "No row was right before and is wrong now."
    assert said.stdout.splitlines()[-2:] == ["Pass: NEW may replace OLD.", "page: gate.html"]
    with open(os.devnull, "w") as null:
        console = Console(width=80, record=True, file=null)
        console.print(tables[0])
    shown = console.export_text().splitlines()
    assert shown[2].split() == ["OLD", "NEW", "change", "limit", "n"]  # no row after the other
    assert max(map(len, shown)) <= 80
    page = (here / "gate.html").read_text()
    assert "Pass: NEW may replace OLD." in page
    assert not any(text in page for text, _ in lines.values() if text != "sentence")


def test_a_file_whose_name_is_not_utf_8_is_compared(here):
    name = os.fsdecode(b"held_\xe9.csv")
    Path(name).write_text(Path("validation.csv").read_text())
    said = call("gate", "right", "right", name, "--shift", name, "-o", "odd.html", *CPU, code=1)
    assert said.stdout.splitlines()[-2:] == [
        "Stop: shift: held_\\xe9.csv.",  # within 3 points takes more than 60 rows
        "page: odd.html",
    ]
    assert "held_\\xe9.csv, 60 rows" in Path("odd.html").read_text()


def test_what_was_found_is_printed_where_the_page_cannot_be_written(here, monkeypatch):
    def full(*given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("peftbench.system.io.write_whole", full)
    said = call("gate", "right", "right", "validation.csv", "--json", "-o", "f.html", *CPU, code=2)
    assert json.loads(said.stdout)["pass"] is True
    assert "-o f.html: No space left on device; give another place" in said.stderr


def test_the_page_is_written_where_the_reader_of_the_output_left(here, monkeypatch):
    def closed(*_):
        raise terminal.OutputError(BrokenPipeError(errno.EPIPE, "Broken pipe"))

    monkeypatch.setattr("peftbench.cli.options.show", closed)
    monkeypatch.setattr(terminal, "discard_output", lambda: None)
    call("gate", "right", "right", "validation.csv", *CPU, "-o", "closed.html", code=141)
    assert "<!doctype html>" in Path("closed.html").read_text()


def test_rows_that_stand_twice_are_told(here, lines):
    body = Path("validation.csv").read_text()
    Path("twice.csv").write_text(body + body.partition("\n")[2])
    said = call("gate", "right", "right", "twice.csv", "-o", "twice.html", *CPU).stderr
    assert "note: twice.csv: 60 of 120 rows repeat the texts of an earlier row;" in said
    once = call("gate", "right", "right", "validation.csv", "-o", "once.html", *CPU).stderr
    assert "repeat the texts" not in once


def test_few_rows_do_not_show_that_nothing_is_lost(here):
    """What was not measured is said as well."""
    strict = Path("strict.yaml")
    strict.write_text("latency_ratio: null\nnoise: {}\nabnormal: []\n")
    words = ("--device", "cpu", "--results", "runs", "--thresholds", str(strict))
    said = call("gate", "right", "right", "validation.csv", *words, code=1)
    assert said.stdout.splitlines()[-2] == "Stop: score."
    assert "Undecided (score)" in said.stdout
    assert "Noise is not measured" in said.stdout
    assert "Abnormal input is not measured" in said.stdout


def test_a_worse_model_stops_with_the_rows_that_flip(here, lines):
    words = ("gate", "reversed", "right", "validation.csv", "--json", "-o", "worse.html")
    told = json.loads(call(*words, *CPU, code=1).stdout)
    assert told["pass"] is False
    assert told["answer"].startswith("Stop: score, negative flips")
    assert told["rows"] == 60
    assert told["not_measured"] == ["shift_difference"]
    named = {one["name"]: one for one in told["criteria"]}
    score, flips = named["score"], named["negative flips"]
    assert score["old"] > 0.8 > 0.2 > score["new"]
    assert score["low"] <= score["change"] <= score["high"] < -0.3
    assert len(told["negative_flips"]) == round(flips["change"] * 60) > 30
    assert {one["verdict"] for one in (score, flips, named["noise"])} == {"stop"}
    for one in told["criteria"]:
        assert one["n"] > 0
        assert (one["low"] is not None and one["high"] is not None) or one["why"], one
    for flip in told["negative_flips"]:
        assert flip["label"] == lines[flip["line"]][1] != flip["new"]
        assert "texts" not in flip

    # the same from kept runs, with numbers for labels, a further file, and texts on demand
    names = {"label": "label", "other": "0", "vowel": "1"}
    with open("numbers.csv", "w", newline="") as file:
        csv.writer(file).writerows([text, names[label]] for text, label in lines.values())
    keys = [json.loads((here / one / "peftbench.json").read_text())["key"] for one in words[1:3]]
    more = ("--shift", "validation.csv", "--show-texts", "--json", "-o", "texts.html")
    again = json.loads(call("gate", *keys, "numbers.csv", *more, *CPU, code=1).stdout)
    scores = [one for one in again["criteria"] if one["name"] in ("score", "shift: validation.csv")]
    for one in scores:
        for name in ("old", "new", "change", "low", "high", "n"):
            assert one[name] == pytest.approx(score[name]), name
    assert len(scores) == 2
    assert again["not_measured"] == []
    first = again["negative_flips"][0]
    assert first["texts"] == [lines[first["line"]][0]]
    assert lines[first["line"]][0] in (here / "texts.html").read_text()


@pytest.mark.parametrize(
    ("own", "missing"),
    [
        ("shift_difference: -0.03\n", "shift_difference is set"),
        ("noise_difference: 0\nnoise: {}\n", "noise_difference is set"),
        ("abnormal_difference: 0\nabnormal: []\n", "abnormal_difference is set"),
        (
            "noise_difference: 0\nnoise: {}\nshift_difference: 0\n",
            "noise_difference, shift_difference are set",
        ),
    ],
)
def test_limits_that_nothing_is_compared_with_let_no_model_pass(here, own, missing):
    names = ("score", "calibration", "noise", "shift", "abnormal")
    rest = [*(f"{name}_difference" for name in names), "negative_flips", "latency_ratio"]
    none = [f"{name}: null\n" for name in (*rest, "size_ratio") if name not in own]
    Path("none.yaml").write_text(own + "".join(none))
    words = ("--device", "cpu", "--results", "runs", "--thresholds", "none.yaml")
    said = call("gate", "right", "right", "validation.csv", *words, code=2).stderr
    assert f"so that every model would pass: only {missing}, which" in said.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("right", "right", "gone.csv"), "cannot read gone.csv"),
        (("right", "right", "right"), "none of .csv"),
        (("right", "runs", "validation.csv"), "no folder of `peftbench export`"),
        (("right", "ffff", "validation.csv"), "no record in runs"),
        (("right", "right", "short.csv"), "short.csv has 3 rows; a gate needs at least 30"),
        (("right", "right", "labels.csv"), "labels that the training part does not have: maybe"),
        (("right", "right", "columns.csv"), "no column 'sentence'"),
        (("right", "right", "validation.csv", "-o", "runs"), "-o runs is a folder"),
        (("right", "right", "validation.csv", "-o", "validation.csv"), "the page is HTML; give a"),
        (("right", "right", "validation.csv", "-o", "bad.yaml/a.html"), "Not a directory; give"),
        (("right", "right", "validation.csv", "--thresholds", "bad.yaml"), "unknown key scor"),
        (("right", "values", "validation.csv"), "OLD predicts values"),
        (("texts", "right", "validation.csv"), "NEW writes texts (own); a gate compares"),
        (("right", "colours", "validation.csv"), "the classes of NEW are other, vowel"),
    ],
)
def test_bad_input_is_refused_before_work(here, monkeypatch, words, message):
    (here / "short.csv").write_text("sentence,label\na,vowel\nb,other\ne,vowel\n")
    rows = "".join(f"text {i},vowel\n" for i in range(40))
    (here / "labels.csv").write_text("sentence,label\n" + rows + "x,maybe\n")
    (here / "columns.csv").write_text("text,label\n" + rows)
    (here / "bad.yaml").write_text("scor: 1\n")
    for name, changes in (
        ("values", {"kind": "regression", "classes": 1}),
        ("texts", {"kind": "generation", "classes": 0}),
        ("colours", {"class_names": ["blue", "red"]}),
    ):
        about = json.loads((here / "right/peftbench.json").read_text())
        about["run"]["task"] |= changes
        (here / name).mkdir(exist_ok=True)
        write_export(here / name, about)
    monkeypatch.setattr(
        "peftbench.cli.gate.opened", lambda *given: pytest.fail("models are loaded")
    )
    done = call("gate", *CPU, *words, code=2)
    assert message in done.stderr


def write_export(folder, about) -> None:
    from peftbench.system import io

    about.pop("sha256", None)
    (folder / "peftbench.json").write_bytes(io.sealed(about))
