"""`peftbench pilot`, from a file to its answer; what it refuses before any work."""

import json

import numpy as np
import pytest
import records
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.pilot import criterion
from peftbench.results.store import ResultsFolder

WORDS = ("model=tiny", "train.max_length=16", "task.texts=[text]")


def write(path, count=200, shuffled=False, rare=None):
    """Texts of eight letters, of which the first word decides the label."""
    draw = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    rows = []
    for number in range(count):
        label = ("bad", "good")[number % 2 if rare is None else number < rare]
        rows.append((f"{label} {''.join(draw.choice(letters, 8))}", label))
    labels = [label for _, label in rows]
    if shuffled:
        labels = draw.permutation(labels).tolist()
    lines = [
        "text,label",
        *(f"{text},{label}" for (text, _), label in zip(rows, labels, strict=True)),
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


def pilot(*words):
    return CliRunner().invoke(main, ["pilot", *map(str, words)])


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "--at-least"),
        ({"--at-least": "0.999"}, "cannot be met"),
        ({"--at-least": "0.8", "--metric": "acc"}, "accuracy"),
        (
            {"--at-least": "0.8", "--most-review": "0.1"},
            "--most-review and --review-error (largest_review and review_error in criterion.yaml)",
        ),
        ({"--at-least": "0.8", "--review-error": "0"}, "0.0 is not in the range 0<x<=0.5"),
        ({"--at-least": "0.8", "--most-review": "0.1", "--review-error": "0.001"}, "ends at 0.030"),
        ({"--at-least": "0.8", "--group": "customer"}, "no column 'customer'"),
        ({"--at-least": "0.8", "task.texts=[words]": None}, "no column 'words'"),
        ({"--at-least": "0.8", "train.lr=1e-3": None}, "--rates"),
        ({"--at-least": "0.8", "seed=0-4": None}, "chooses size, seed"),
        ({"--at-least": "0.8", "model=tiny,minilm": None}, "several values"),
        ({"--at-least": "0.8", "task.kind=regression": None}, "of classes"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(tmp_path, given, told):
    words = [word for name, value in given.items() for word in (name, value) if word is not None]
    named = {word.partition("=")[0] for word in words}
    mine = [word for word in WORDS if word.partition("=")[0] not in named]
    done = pilot(write(tmp_path / "mine.csv"), *mine, *words, "--results", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert told in done.stderr
    assert not (tmp_path / "out" / "criterion.yaml").exists()


@pytest.mark.parametrize(
    ("made", "told"),
    [
        ({"count": 120}, "120 rows; a decision needs at least 200 labelled rows"),
        ({"rare": 3}, "rarest class has 3 rows"),
        ({"rare": 0}, "every label is"),
    ],
)
def test_files_without_enough_in_them_are_refused(tmp_path, made, told):
    path = write(tmp_path / "mine.csv", **made)
    done = pilot(path, *WORDS, "--at-least", "0.8", "--results", tmp_path / "out")
    assert done.exit_code == 2, done.output
    assert told in done.stderr


def test_a_rehearsal_tells_the_time_and_writes_nothing(tmp_path):
    path = write(tmp_path / "mine.csv")
    done = pilot(
        path, "task.texts=[text]", "--at-least", "0.8", "--results", tmp_path / "out", "--dry-run"
    )
    assert done.exit_code == 0, done.output
    assert (
        "40 tuning runs, 20 cross-validation runs, 20 learning-curve runs, 3 final runs"
        in done.stderr
    )
    assert " min on " in done.stderr
    assert "this folder holds" not in done.stderr  # nothing is done yet
    assert not (tmp_path / "out").exists()


def test_a_rehearsal_gives_programs_what_is_planned(tmp_path):
    path, words = write(tmp_path / "mine.csv"), ("--dry-run", "--json", "--quiet")
    done = pilot(path, *WORDS, "--at-least", "0.8", "--results", tmp_path / "out", *words)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {
        "rows": 200,
        "classes": {"bad": 100, "good": 100},
        "methods": ["full", "bitfit", "adapter", "lora"],
        "cross_validation_runs": 20,
    }
    assert "40 tuning runs" in done.stderr


def test_the_time_says_that_it_includes_what_is_done(tmp_path, monkeypatch):
    monkeypatch.setattr("peftbench.pilot.estimate.cores", lambda: 1)
    path, results = write(tmp_path / "mine.csv"), ResultsFolder(tmp_path / "out")
    for run in records.runs("method=lora", "seed=0"):
        results.save(records.record(run), records.predictions())
    words = ("--at-least", "0.8", "--results", tmp_path / "out", "--dry-run")
    done = pilot(path, *WORDS, *words)
    assert " on 1 core of this CPU, " in done.stderr
    assert "; the time includes what is done: this folder holds 1 training\n" in done.stderr


def test_an_option_that_contradicts_the_criterion_is_named(tmp_path):
    path, results = write(tmp_path / "mine.csv"), ResultsFolder(tmp_path / "out")
    criterion.fix(results, criterion.PilotCriterion("ab", "accuracy", 0.85), 0)
    done = pilot(path, *WORDS, "--at-least", "0.9", "--results", tmp_path / "out")
    assert done.exit_code == 2
    assert "criterion.yaml has least: 0.85, --at-least gives 0.9; it was written" in done.stderr


def test_thorough_repeats_and_gives_all_methods_a_curve(tmp_path):
    path = write(tmp_path / "mine.csv")
    words = ("--at-least", "0.8", "--results", tmp_path / "out", "--dry-run", "--thorough")
    done = pilot(path, *WORDS, *words)
    assert done.exit_code == 0, done.output
    assert (
        "240 tuning runs, 60 cross-validation runs, 40 learning-curve runs, 5 final runs"
        in done.stderr
    )


def figures(made, path=""):
    """All parts of an outcome that are a figure, by their place."""
    if isinstance(made, dict):
        if "value" in made:
            yield path, made
        for name, inner in made.items():
            yield from figures(inner, f"{path}.{name}")
    elif isinstance(made, list):
        for place, inner in enumerate(made):
            yield from figures(inner, f"{path}[{place}]")


CUT = (
    *WORDS,
    "budget.epochs=1",
    "--folds",
    "2",
    "--rates",
    "1",
    "--workers",
    "1",
    "--threads",
    "1",
)


@pytest.mark.slow
def test_shuffled_labels_are_no_go_and_the_second_command_only_reads(tmp_path):
    path, out = write(tmp_path / "mine.csv", shuffled=True), tmp_path / "out"
    words = (path, *CUT, "method=full,bitfit", "--results", out)
    done = pilot(*words, "--at-least", "0.7")
    assert done.exit_code == 0, done.output
    assert "No-go: " in done.stdout
    said = done.stderr
    assert "\nfirst fold, with latency: 2 of 2 trainings to do, 2 of 2 evaluations\n" in said
    assert "\nall folds: 2 of 4 trainings to do\n" in said
    assert "\nlearning curve: 8 of 12 trainings to do\n" in said
    assert said.count("\nnote: mine: ") == 3  # of the first fold, and once
    assert said.count("workers: ") == 1
    made = json.loads((out / "pilot.json").read_text())
    assert made["answer"] == "no-go"
    assert {one["name"] for one in made["candidates"]} >= {"full", "bitfit"}
    assert len(made["candidates"]) == 4
    assert all(one["missed"] for one in made["candidates"])
    assert "no: score" in done.stdout
    found = dict(figures(made))
    assert len(found) > 20
    for where, one in found.items():
        assert {"low", "high", "n"} <= set(one) or one.get("why"), where
    page = (out / "pilot.html").read_text()
    assert made["criterion"]["sha256"] in page
    texts = [line.partition(",")[0] for line in path.read_text().splitlines()[1:]]
    assert not [text for text in texts if text in page + done.output + json.dumps(made)]
    before = {file: file.stat().st_mtime_ns for file in (out / "records").iterdir()}
    assert len(before) == 4 + 8  # folds and methods, and at two smaller sizes
    again = pilot(*words, "--json", "--show-texts")
    assert json.loads(again.stdout) == made
    assert {file: file.stat().st_mtime_ns for file in (out / "records").iterdir()} == before
    shown = (out / "pilot.html").read_text()
    assert sum(text in shown for text in texts) == 20
    refused = pilot(*words, "--at-least", "0.5")
    assert refused.exit_code == 2
    assert "written before the first run" in refused.stderr
    criterion = out / "criterion.yaml"
    criterion.write_text(criterion.read_text().replace("least: 0.7", "least: 0.4"))
    changed = pilot(*words)
    assert "More data: " in changed.stdout  # whether one is above the constant is open
    assert "CRITERION CHANGED once" in changed.stdout
