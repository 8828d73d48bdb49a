"""The model of the winner: what it leaves out, what its cut-offs promise, what is exported."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import short_runs
import tiny
from click.testing import CliRunner

from peftbench.analysis import review
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.exporting.folder import export_run
from peftbench.pilot.design import Request
from peftbench.pilot.final_model import _export, calibrated_cut_offs
from peftbench.results.store import ResultsFolder
from peftbench.training.trainer import execute


@pytest.mark.parametrize(
    ("share", "parts"), [(0.1, 10), (0.2, 5), (0.25, 4), (0.3, 3), (0.4, 3), (0.5, 2)]
)
def test_a_calibration_part_is_the_nearest_of_equal_parts(tmp_path, share, parts):
    request = Request(tmp_path / "mine.csv", calibrate=share, group="customer")
    words = request.final_words("accuracy")
    assert {f"task.folds={parts}", "task.fold=0", "task.group='customer'"} <= set(words)
    assert not [word for word in words if word.startswith("task.validation_path")]


def test_without_one_all_rows_are_trained_on(tmp_path):
    words = Request(tmp_path / "mine.csv", group="customer").final_words("accuracy")
    path = f"'{tmp_path}/mine.csv'"
    assert {f"task.path={path}", f"task.validation_path={path}"} <= set(words)
    assert not [word for word in words if word.startswith(("task.fold", "task.group"))]


def sure_and_right(rows):
    sure = np.linspace(0.6, 1, rows)
    label = np.zeros(rows, dtype=np.int64)
    return np.stack([sure, 1 - sure], axis=1), label, np.arange(rows)


def test_a_promise_is_made_for_all_methods_together():
    """0.95**72 <= 0.1 / 4 < 0.95**71: of 79 rows 72 test, the others place the cut-offs."""
    for cut_off in calibrated_cut_offs(*sure_and_right(79), error=0.05, methods=4):
        assert cut_off.value == 0
        assert cut_off.wanted == 0.05
    for cut_off in calibrated_cut_offs(*sure_and_right(78), error=0.05, methods=4):
        assert cut_off.value is None
    alone, _ = calibrated_cut_offs(*sure_and_right(50), error=0.05, methods=1)
    assert alone.value == 0  # 0.95**45 <= 0.1, of which the guarantee of one model alone is made
    sure, _ = calibrated_cut_offs(*sure_and_right(79), error=0.05, methods=4)
    assert (sure.kind, sure.level) == ("guaranteed", review.LEVEL)


def cut_offs_found(chance, counted, repeats=100, methods=8, error=0.1):
    """How often a cut-off is found for any of some models, so that it may be the chosen one's.

    All of them are wrong with this chance, whatever their confidence is.
    """
    generator, found = np.random.default_rng(0), 0
    for _ in range(repeats):
        sure = generator.uniform(0.5, 1, (methods, 300))
        wrong = (generator.random(sure.shape) < chance).astype(np.int64)
        found += any(
            calibrated_cut_offs(
                np.stack([one, 1 - one], axis=1), label, np.arange(300), error, counted
            )[0].value
            is not None
            for one, label in zip(sure, wrong, strict=True)
        )
    return found / repeats


def test_it_holds_whichever_method_is_chosen():
    most = review.LEVEL + 3 * math.sqrt(review.LEVEL * (1 - review.LEVEL) / 100)
    assert cut_offs_found(0.101, counted=8) <= most  # every one that is found breaks its promise
    assert cut_offs_found(0.101, counted=1) > most  # so the correction is what keeps it
    assert cut_offs_found(0.03, counted=8) > 0.5


def grouped_part(generator, sizes, chance=0.2):
    """Rows in groups that are right or wrong together, as unsure as each other."""
    sizes = np.asarray(sizes)
    group = np.repeat(np.arange(len(sizes)), sizes)
    wrong = (generator.random(len(sizes)) < chance)[group]
    sure = generator.uniform(0.5, 1, len(sizes))[group] - generator.uniform(0, 1e-3, len(group))
    return np.stack([sure, 1 - sure], axis=1), wrong.astype(np.int64), group


@pytest.mark.parametrize("size", [1, 5, 20])
def test_the_promise_holds_over_groups(size):
    """True error 16 % at every confidence, 15 % wanted: each cut-off that is found breaks it."""
    generator, repeats, groups = np.random.default_rng(0), 300, 100

    def found(chance: float, by_group: bool) -> float:
        parts = [grouped_part(generator, [size] * groups, chance) for _ in range(repeats)]
        cuts = [
            calibrated_cut_offs(*part, error=0.15, methods=1)[0]
            if by_group
            else review.guaranteed_cut_off(*part[:2], error=0.15)
            for part in parts
        ]
        return float(np.mean([one.value is not None for one in cuts]))

    most = review.LEVEL + 3 * math.sqrt(review.LEVEL * (1 - review.LEVEL) / repeats)
    assert found(0.16, by_group=True) <= most
    assert found(0.02, by_group=True) > 0.5  # a promise that is never given holds too
    assert (found(0.16, by_group=False) > most) == (size > 1)  # so the groups are what keeps it


def test_a_large_group_counts_once():
    """60 right answers, and wrong ones to 200 near duplicates of one text: one of 61."""
    group = np.minimum(np.arange(260), 60)
    confidence = np.linspace(1, 0.6, 61)[group]
    probability = np.stack([confidence, 1 - confidence], axis=1)
    sure, on_average = calibrated_cut_offs(
        probability, (group == 60).astype(np.int64), group, error=0.2, methods=1
    )
    assert (sure.value, sure.answered.of, sure.wrong.count) == (0, 61, 1)
    assert (on_average.value, on_average.same_group) == (0, 199)
    few = calibrated_cut_offs(probability, group * 0, group // 10, error=0.2, methods=1)
    assert (few[0].value, few[0].answered.of) == (None, 7)  # 0.8**7 > 0.1


def test_one_row_of_each_group_is_drawn_at_random():
    group = np.array([3, 0, 3, 1, 3, 0])
    drawn = [review.one_of_each(group, seed).tolist() for seed in range(20)]
    assert all(sorted(group[rows]) == [0, 1, 3] and rows == sorted(rows) for rows in drawn)
    assert {row for rows in drawn for row in rows} == set(range(6))
    assert review.one_of_each(np.arange(9)).tolist() == list(range(9))


# what a method can be exported as


def final(folder, *words):
    run = short_runs.one(tiny.own_task(folder), *words, "train.precision=fp32")
    done = execute(run, replace(short_runs.CPU, save_weights=True))
    results = ResultsFolder(folder / "final")
    return results.save(done.record, done.predictions, done.trained), results


CUT_OFF = review.estimated_cut_off(np.full((10, 2), 0.5), np.zeros(10, dtype=np.int64), 0.05)


@pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds
def test_a_winner_is_exported_in_the_first_form_that_its_model_has(tmp_path):
    """The library cannot tell query, key and value of GPT-2 apart; merged they need not be."""
    record, results = final(tmp_path, "method=lora", "model.family=gpt2")
    with pytest.raises(ConfigError, match=r"cannot tell them apart; try --form model$"):
        export_run(record, results, tmp_path / "default")
    assert _export(record, results, tmp_path / "model", CUT_OFF, None) is None
    made = {path.name for path in (tmp_path / "model").iterdir()}
    assert {"model.safetensors", "review.json", "reference.json"} <= made


def test_a_winner_without_a_form_is_kept_and_says_why(tmp_path):
    record, results = final(tmp_path, "method=mc_dropout")
    why = _export(record, results, tmp_path / "model", CUT_OFF, None)
    assert "averages passes with dropout, which no plain model does" in why
    assert f"`peftbench predict {record.run.key} FILE -o labelled.csv --results {tmp_path}" in why
    assert not (tmp_path / "model").exists()


# from a file to a folder


def write(path):
    """Words that no other row has, labelled by their first letter: TF-IDF sees nothing in them."""
    draw = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["text", "label"])
        for number in range(200):
            first = "aeioubcdfg"[number % 10]
            word = first + "".join(draw.choice(list("hjklmn"), 7))
            rows.writerow([word, "vowel" if first in "aeiou" else "other"])
    return path


def peftbench(*words):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == 0, done.output
    return done


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds
def test_an_easy_set_is_go_and_the_winner_is_exported_with_either_kind_of_cut_off(tmp_path):
    path, out = write(tmp_path / "mine.csv"), tmp_path / "out"
    words = [
        *("pilot", path, "model=tiny", "train.max_length=16", "task.texts=[text]"),
        *("budget.epochs=6", "method=full", "model.lr_scale=150", tiny.WIDE),
        *("--folds", 2, "--rates", 1, "--quiet"),
        *("--workers", 1, "--threads", 1, "--results", out),
    ]
    peftbench(*words, "--at-least", 0.85)
    made = json.loads((out / "pilot.json").read_text())
    assert (made["answer"], made["method"]) == ("go", "full")
    model = made["model"]
    assert (model["training_rows"], model["calibration_rows"]) == (200, 0)
    folder = out / f"model-full-{model['key']}"
    assert model["folder"] == str(folder)
    assert str(folder) in (out / "pilot.html").read_text()

    # on all rows: what describes it comes from the folds
    cut_off = json.loads((folder / "review.json").read_text())
    estimate = made["after"]["review"][0]
    assert (cut_off["kind"], cut_off["level"]) == ("estimate", None)
    assert cut_off["cut_off"] == estimate["least_confidence"] == model["least_confidence"]
    assert cut_off["rows"] == estimate["answered"]["n"] == 200
    facts = json.loads((folder / "reference.json").read_text())
    assert facts["texts"] == 200
    assert facts["predictions"]["source"] == "cross-validation with 2 folds"
    card = (folder / "README.md").read_text()
    score = next(one for one in made["candidates"] if one["name"] == "full")["score"]["value"]
    assert f"accuracy {score:.4f} (cross-validation with 2 folds; this model was" in card
    for text in (line.partition(",")[0] for line in path.read_text().splitlines()[1:]):
        assert text not in card + json.dumps(facts) + json.dumps(cut_off)

    # it predicts, and marks what people review
    peftbench("predict", folder, path, "-o", tmp_path / "labelled.csv", "--device", "cpu")
    with open(tmp_path / "labelled.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "label", "probability", "review"]
    assert [row[3] for row in rows] == [
        "yes" if float(row[2]) < cut_off["cut_off"] else "no" for row in rows
    ]

    # the same once more only reads
    before = {file: file.stat().st_mtime_ns for file in (out / "final/records").iterdir()}
    peftbench(*words)
    assert json.loads((out / "pilot.json").read_text()) == made
    assert {f: f.stat().st_mtime_ns for f in (out / "final/records").iterdir()} == before

    # without a third of the rows, of which the cut-off has its guarantee
    trained = set((out / "records").iterdir())
    peftbench(*words, "--calibrate", 0.3)
    assert set((out / "records").iterdir()) == trained
    again = json.loads((out / "pilot.json").read_text())["model"]
    assert again["training_rows"] + again["calibration_rows"] == 200
    assert again["calibration_rows"] in (66, 67)
    assert again["key"] != model["key"]
    calibrated = out / f"model-full-{again['key']}"
    facts = json.loads((calibrated / "reference.json").read_text())
    assert facts["texts"] == again["calibration_rows"]
    assert "source" not in facts["predictions"]
    cut_off = json.loads((calibrated / "review.json").read_text())
    assert (cut_off["kind"], cut_off["level"]) == ("guaranteed", 0.1)
    assert cut_off["rows"] == again["calibration_rows"]
