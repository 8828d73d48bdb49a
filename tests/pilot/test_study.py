"""Choices inside the folds of a pilot: the rows that a fold holds out take no part in them."""

import numpy as np
import pytest

from peftbench.config import sweep
from peftbench.core.failures import Failure
from peftbench.core.plan import RunOptions
from peftbench.core.tuning import subject
from peftbench.data import loading
from peftbench.pilot import baselines, study
from peftbench.pilot.study import Unfinished, with_chosen_rates
from peftbench.results import choices
from peftbench.results.store import ResultsFolder


def write(path, poisoned=()):
    """Texts whose first word is the label; in poisoned rows it is the other one, with other texts.

    Labels stay as they are, and with them the cut into folds.
    """
    draw, letters = np.random.default_rng(0), list("abcdefghijklmnopqrstuvwxyz")
    lines = ["text,label"]
    for number in range(60):
        label = ("bad", "good")[number % 2]
        plain, other = (" ".join("".join(draw.choice(letters, 8)) for _ in "ab") for _ in "ab")
        first = {"bad": "good", "good": "bad"}[label] if number in poisoned else label
        lines.append(f"{first} {other if number in poisoned else plain},{label}")
    path.write_text("\n".join(lines) + "\n")
    return path


def plan(path, results):
    words = (
        "task=file",
        f"task.path='{path}'",
        "task.texts=[text]",
        "task.folds=2",
        "task.fold=0,1",
    )
    run = ("model=tiny", "method=full", "train.max_length=24", "budget.epochs=2")
    return sweep.plan(*words, *run, results=results)


@pytest.fixture
def files(tmp_path):
    """A file, and the same one with poison in all rows that its first fold holds out."""
    plain = write(tmp_path / "plain.csv")
    held = loading.held_rows(plan(plain, tmp_path).runs[0].task)
    assert len(held) == 30
    poisoned = write(tmp_path / "poisoned.csv", set(held.tolist()))
    assert np.array_equal(loading.held_rows(plan(poisoned, tmp_path).runs[0].task), held)
    return plain, poisoned


@pytest.mark.slow
def test_the_choice_of_a_rate_does_not_see_what_its_fold_holds_out(tmp_path, files):
    found = []
    for path in files:
        results, asked = ResultsFolder(tmp_path / f"{path.stem}-runs"), plan(path, tmp_path)
        how = RunOptions(workers=1, threads=1, quiet=True)
        runs = with_chosen_rates(asked, 2, results, how)
        made = [choices.find(results, subject(run).key) for run in asked.runs]
        assert [run.train.lr for run in runs] == [choice.rate for choice in made]
        found.append([[(t.rate, t.score, t.loss) for t in choice.trials] for choice in made])
        found[-1] = [*zip(found[-1], (choice.rate for choice in made), strict=True)]
    plain, poisoned = found
    assert len(plain[0][0]) == 2
    assert poisoned[0] == plain[0]  # the same scores and losses of its trials, and the same rate
    assert poisoned[1][0] != plain[1][0]  # the other fold trains on the poison


def test_baselines_do_not_see_the_other_rows_that_a_fold_holds_out(tmp_path, files):
    def embed(texts):
        (column,) = texts.texts
        rows = [[len(set(text)), text.count("a"), text.count("o")] for text in column]
        return np.array(rows), 50.0

    held = loading.held_rows(plan(files[0], tmp_path).runs[0].task).tolist()
    some = write(tmp_path / "some.csv", set(held[1:]))
    found = [
        baselines.fit(
            plan(path, tmp_path).runs[fold], ResultsFolder(tmp_path / f"{path.stem}-{fold}"), embed
        )
        for path in (files[0], some)
        for fold in (0, 1)
    ]
    # the training rows' share alone, though a fold that is not the first embeds nothing new
    assert all(50 < one.seconds[baselines.FROZEN] < 100 for one in found)
    for name in baselines.NAMES:
        plain, _, other, _ = (one.probability[name] for one in found)
        assert np.array_equal(plain[0], other[0]), name  # the one held-out row without poison
        assert not np.array_equal(plain[1:], other[1:]), name
        _, plain, _, other = (one.probability[name] for one in found)
        assert not np.array_equal(plain, other), name  # the other fold trains on the poison


def test_a_text_costs_each_fold_what_it_took_the_first_time(tmp_path, files):
    from peftbench.data.loading import LabelledTexts
    from peftbench.pilot.embeddings import FrozenModel

    model = FrozenModel(plan(files[0], tmp_path).runs[0])

    def embed(*texts):
        return model.embed(LabelledTexts([list(texts)], np.zeros(len(texts), np.int64)))

    first, seconds = embed("a fine film", "slow and dull", "worth it", "a fine film")
    assert (first.shape[0], seconds > 0) == (4, True)
    again, same = embed("worth it", "a fine film")
    assert np.array_equal(again, first[[2, 0]])
    assert same == pytest.approx(seconds * 2 / 3)


def test_a_failure_that_is_not_tried_again_says_so_and_how(tmp_path, files, capsys):
    results, asked = ResultsFolder(tmp_path / "runs"), plan(files[0], tmp_path)
    for run in asked.runs:
        results.fail(Failure(run, "error", "a typo"))
    with pytest.raises(Unfinished) as stopped:
        study.train(asked, results, RunOptions(quiet=True))
    assert stopped.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert said.count("(not tried again; see --retry)") == 2
    assert "without a record: 2 of 2 runs" in said
