"""Cut-offs of exported models, on training rows that their runs left out."""

import csv

import numpy as np
import pytest
import tiny
from short_runs import one

from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import loading
from peftbench.exporting import prediction, review
from peftbench.exporting.folder import export_run
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.training.trainer import execute

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds

CPU = RuntimeConfig(device="cpu")
WORDS = ("method=full", "train.precision=fp32", "train.lr=3e-3", "budget.steps=40", tiny.WIDE)


def test_rows_that_the_run_left_out_choose_the_cut_off_that_predict_uses(tmp_path):
    run = one(tiny.own_task(tmp_path, train=160), *WORDS, "size=0.5")
    done = execute(run, RuntimeConfig(device="cpu", save_weights=True))
    results = ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    folder = tmp_path / "out"
    export_run(record, results, folder, validation=False)
    part, left = review.calibration_part(run, None)
    assert (len(part.label), left) == (80, 0)
    train = loading.load_split(run.task, "train", None)
    assert set(part.texts[0]) < set(train.texts[0])
    source = prediction.open_export(folder, CPU)
    found = review.find_cut_off(source, part, error=0.2)
    probability = source.predict(part.texts)
    assert found.value is not None
    assert found.answered.count == int((probability.max(axis=1) >= found.value).sum())
    assert found.wrong.count <= 0.3 * found.answered.count
    review.write(folder, found)
    again = prediction.open_export(folder, CPU)
    assert again.cut_off == found.value
    about = io.unsealed(folder / "review.json")
    (folder / "review.json").write_bytes(io.sealed(about | {"key": "0" * 64}))
    with pytest.raises(ConfigError, match=f"for the run 000000000000, not for {run.key[:12]};"):
        prediction.open_export(folder, CPU)
    (folder / "review.json").write_bytes(io.sealed({n: about[n] for n in about if n != "key"}))
    assert prediction.open_export(folder, CPU).cut_off == found.value  # of an earlier version
    prediction.predict_file(again, tmp_path / "validation.csv", tmp_path / "labelled.csv")
    with open(tmp_path / "labelled.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["row", "label", "probability", "review"]
    sure = np.array([float(row[2]) for row in rows])
    assert [row[3] for row in rows] == ["no" if s >= found.value else "yes" for s in sure]


def test_a_run_on_all_rows_has_none_left(tmp_path):
    run = one(tiny.own_task(tmp_path), *WORDS, "size=full")
    with pytest.raises(ConfigError, match=r"trained on all 48 rows.*size=0\.7"):
        review.calibration_part(run, None)


def test_of_a_group_one_row_counts(tmp_path):
    """Rows of a customer are right or wrong together: counting all breaks the promise."""
    generator = np.random.default_rng(0)
    with open(tmp_path / "all.csv", "w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["sentence", "label", "customer"])
        for n in range(900):  # three rows of each customer
            text = "".join(generator.choice(list("abcdefghij "), 30)).strip()
            lines.writerow([f"{text} {n}", "vowel" if n % 2 else "other", n // 3])
    task = ("task=file", f"task.path='{tmp_path}/all.csv'", "task.texts=[sentence]")
    cut = ("task.folds=4", "task.fold=0", "task.group=customer")
    run = one((*task, *cut), *WORDS, "size=0.2")
    part, left = review.calibration_part(run, None)
    customers = [int(text.split()[-1]) // 3 for text in part.texts[0]]
    assert len(set(customers)) == len(customers) == len(part.label) > 80
    assert left == 2 * len(part.label)  # of each the two others
    told = review.find_cut_off(Sure(), part, error=0.05, same_group=left)
    assert told.same_group == left
    assert told.answered.of == len(part.label)


class Sure:
    """What predicts one class of all texts."""

    def predict(self, columns: list[list[str]]) -> np.ndarray:
        """(texts, 2) probabilities."""
        return np.tile([0.0, 1.0], (len(columns[0]), 1))
