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
    part = review.calibration_part(run, None)
    assert len(part.label) == 80
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
