"""The verbs `export` and `predict`: what a person types, and what comes back."""

import csv
import shutil

import pytest
import tiny
from click.testing import CliRunner
from short_runs import one

from peftbench.cli.main import main
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.training.trainer import execute


def call(*words: str, code: int = 0):
    done = CliRunner().invoke(main, words, prog_name="peftbench")
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the data of a run and the run in results/runs, and the run's key."""
    folder = tmp_path_factory.mktemp("trained")
    run = one(tiny.own_task(folder), "method=bitfit", "train.precision=fp32")
    done = execute(run, RuntimeConfig(device="cpu", save_weights=True))
    ResultsFolder(folder / "results" / "runs").save(done.record, done.predictions, done.trained)
    return folder, run.key


@pytest.fixture
def key(trained, tmp_path, monkeypatch) -> str:
    """The key of a kept run in results/runs of a folder of its own."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    return trained[1]


def test_export_then_predict_from_both(key, tmp_path):
    said = call("export", key[:6], "folder").stdout
    assert f"AutoModelForSequenceClassification.from_pretrained('{tmp_path}/folder')" in said
    assert {path.name for path in (tmp_path / "folder").iterdir()} >= {
        *("README.md", "config.json", "model.safetensors", "peftbench.json"),
        *("reference.json", "tokenizer.json", "tokenizer_config.json"),
    }
    call("predict", key, "validation.csv", "-o", "of_run.csv", "--device", "cpu")
    told = call("predict", "folder", "validation.csv", "-o", "of_folder.csv", "--device", "cpu")
    assert told.stdout.strip() == "of_folder.csv"
    tables = []
    for name in ("of_run.csv", "of_folder.csv"):
        with open(name, newline="") as file:
            header, *rows = csv.reader(file)
        assert header == ["row", "label", "probability"]
        assert len(rows) == 24
        tables.append(rows)
    for ours, theirs in zip(*tables, strict=True):
        assert ours[:2] == theirs[:2]
        assert abs(float(ours[2]) - float(theirs[2])) < 1e-5


def test_a_cut_off_for_review_is_written_and_used(key, tmp_path):
    """Of 48 training rows the run used 24: too few for 5 %, and enough to let nothing pass."""
    said = call("export", key, "folder", "--review-error", "0.05", "--without-reference").stdout
    assert "people review all texts: 22 rows do not show an error of at most 5 %" in said
    call("predict", "folder", "validation.csv", "-o", "labelled.csv", "--device", "cpu")
    with open("labelled.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[-1] == "review"
    assert {row[-1] for row in rows} == {"yes"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "KEY", "-o", "x.csv"), "give a FILE, or --glue"),
        (("predict", "KEY", "validation.csv", "-o", "x", "--glue"), "give a FILE, or --glue"),
        (("predict", "KEY", "--glue", "-o", "x"), "own is no task of GLUE"),
        (("predict", "ffff", "validation.csv", "-o", "x.csv"), "no record in results/runs"),
        (("predict", "results", "validation.csv", "-o", "x"), "no folder of `peftbench export`"),
        (("predict", "KEY", "gone.csv", "-o", "x.csv"), "cannot read gone.csv"),
        (("export", "KEY", "x", "--form", "peft"), "--form peft is not one of its forms: model"),
        (("export", "KEY", "results"), "is there already"),
    ],
)
def test_bad_input_ends_with_one_message(key, words, message):
    given = [key if word == "KEY" else word for word in words]
    done = call(*given, code=2)
    assert message in done.stderr
    assert "peftbench: " in done.stderr
