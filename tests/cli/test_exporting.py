"""The verbs `export` and `predict`: what a person types, and what comes back."""

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner
from short_runs import one
from transformers.utils import logging

from peftbench.cli.exporting import prediction_setting
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.exporting import prediction, review
from peftbench.results.store import ResultsFolder
from peftbench.system import hardware
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
    logging.enable_progress_bar()  # as in a new process
    done = call("export", key[:6], "folder")
    assert done.stderr == ""
    said = done.stdout
    assert f"AutoModelForSequenceClassification.from_pretrained('{tmp_path}/folder')" in said
    assert {path.name for path in (tmp_path / "folder").iterdir()} >= {
        *("README.md", "config.json", "model.safetensors", "peftbench.json"),
        *("reference.json", "tokenizer.json", "tokenizer_config.json"),
    }
    call("predict", key, "validation.csv", "-o", "of_run.csv", "--device", "cpu")
    told = call("predict", "folder", "validation.csv", "-o", "of_folder.csv", "--device", "cpu")
    assert (told.stdout, told.stderr) == ("of_folder.csv\n", "")
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
    assert (
        "people review all texts: 22 of 24 rows (the others place the cut-offs) do not show an"
        in said
    )
    call("predict", "folder", "validation.csv", "-o", "labelled.csv", "--device", "cpu")
    with open("labelled.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header[-1] == "review"
    assert {row[-1] for row in rows} == {"yes"}


def test_an_fp16_run_is_used_on_a_cpu_in_fp32(key):
    """Also by the cut-off, which is chosen on a CPU wherever the run was trained."""
    results, half = ResultsFolder("results/runs"), ResultsFolder("half")
    record = results.load(key)
    environment = record.environment | {"precision": "fp16"}
    weights, arrays = results.weights(record), results.predictions(record)
    half.save(replace(record, environment=environment), arrays, weights)
    words = ("export", key, "folder", "--review-error", "0.05", "--without-reference")
    done = call(*words, "--results", "half")
    assert "people review all texts" in done.stdout
    said = "trained in fp16, which is for GPUs; on this CPU it answers in fp32\n"
    assert done.stderr == f"note: folder: {said}"
    for source in (key, "folder"):
        given = ("predict", source, "validation.csv", "-o", f"{source}.csv", "--device", "cpu")
        assert call(*given, "--results", "half").stderr == f"note: {source}: {said}"
        with open(f"{source}.csv", newline="") as file:
            assert len([*csv.reader(file)]) == 25


def test_a_folder_whose_cut_off_cannot_be_chosen_is_not_left_behind(key, monkeypatch):
    def fail(*given):
        raise ConfigError("the disk is on fire")

    words = ("export", key, "folder", "--review-error", "0.05", "--without-reference")
    with monkeypatch.context() as patch:
        patch.setattr(review, "find_cut_off", fail)
        assert "the disk is on fire" in call(*words, code=2).stderr
    assert not [path for path in Path().iterdir() if "folder" in path.name]
    call(*words)
    assert Path("folder/review.json").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("predict", "KEY", "-o", "x.csv"), "give a FILE, or --glue"),
        (("predict", "KEY", "validation.csv", "-o", "x", "--glue"), "give a FILE, or --glue"),
        (("predict", "KEY", "--glue", "-o", "x"), "own is no task of GLUE"),
        (("predict", "ffff", "validation.csv", "-o", "x.csv"), "no record in results/runs"),
        (
            ("predict", "results", "validation.csv", "-o", "x.csv"),
            "no folder of `peftbench export`",
        ),
        (("predict", "KEY", "gone.csv", "-o", "x.csv"), "cannot read gone.csv"),
        (("predict", "KEY", "validation.csv", "-o", "x.parquet"), "a name that ends in .csv"),
        (("predict", "KEY", "validation.csv", "-o", "-"), "-o -: predictions are written as csv"),
        (("predict", "KEY", "validation.csv", "-o", "train.csv"), "train.csv is there already"),
        (
            ("predict", "KEY", "--glue", "-o", "x", "--quoting", "none"),
            "--quoting is for a FILE; --glue reads",
        ),
        (
            ("predict", "an/export", "validation.csv", "-o", "x.csv"),
            "an/export is neither a folder nor the key of a record",
        ),
        (
            ("predict", "KEY", "validation.csv", "-o", "x.csv", "--results", "none"),
            "--results none does not exist; name the folder of a `run` or `submit`",
        ),
        (("export", "KEY", "x", "--results", "none"), "--results none does not exist"),
        (("export", "KEY", "x", "--form", "peft"), "--form peft is not one of its forms: model"),
        (("export", "KEY", "results"), "is there already"),
    ],
)
def test_bad_input_ends_with_one_message(key, words, message):
    given = [key if word == "KEY" else word for word in words]
    done = call(*given, code=2)
    assert message in done.stderr
    assert done.stderr.startswith("peftbench: ")


@pytest.mark.parametrize(
    ("asked", "device", "visible"),
    [
        ("auto", "auto", "2,GPU-1a2b"),
        ("cpu", "cpu", "2,GPU-1a2b"),
        ("cuda", "cuda", "2,GPU-1a2b"),
        ("cuda:GPU-1a2b", "cuda", "GPU-1a2b"),
    ],
)
def test_predictions_come_from_the_gpu_that_is_asked_for(asked, device, visible, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-1a2b")
    assert prediction_setting(asked, 3, "data") == RuntimeConfig(device, 3, "data")
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert hardware.gpus() == visible.split(",")


@pytest.mark.parametrize("verb", ["predict", "gate"])
@pytest.mark.parametrize("device", ["mps", "cuda:1"])
def test_other_devices_are_refused_before_torch_is_loaded(verb, device, key, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    words = (key, *([key] if verb == "gate" else []), "validation.csv", "-o")
    out = "out.html" if verb == "gate" else "out.csv"
    said = call(verb, *words, out, "--device", device, code=2)
    assert f"--device {device}: choose auto, cpu, cuda or cuda:i; here is cuda:0" in said.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("validation.csv", "-o", "train.csv/x.csv"), "-o train.csv/x.csv: Not a directory"),
        (("validation.csv", "-o", "/proc/x.csv"), "-o /proc/x.csv: "),
    ],
)
def test_places_that_cannot_be_written_are_named_as_given(key, words, message):
    done = call("predict", key, *words, code=2)
    assert f"peftbench: {message}" in done.stderr
    assert done.stderr.endswith("; give another place\n")


def test_a_file_is_judged_before_a_model_is_loaded(key, tmp_path, monkeypatch):
    def never(*given):
        raise AssertionError("loaded")

    monkeypatch.setattr(prediction, "open_run", never)
    (tmp_path / "bad.csv").write_text("text\na\n")
    done = call("predict", key, "bad.csv", "-o", "x.csv", code=2)
    assert done.stderr.startswith("peftbench: bad.csv has no column 'sentence'")
