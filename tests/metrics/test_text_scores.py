"""Scores of texts against those that were wanted."""

import numpy as np
import pytest

from peftbench.core.errors import ConfigError
from peftbench.metrics import task_metrics, text_scores
from peftbench.metrics.evaluate_metrics import TextMetric
from peftbench.metrics.task_metrics import METRICS, check_metrics

TEXT = "the cat sat on the mat"
TARGET = "the cat lay on a mat today"


@pytest.mark.parametrize(
    ("name", "score"),
    [
        # 4 of 6 words are among the 7; the, cat | on, mat in order
        ("rouge1", 2 * 4 / 13),
        ("rouge2", 2 * 1 / 11),  # the cat
        ("rouge_l", 2 * 4 / 13),
        ("exact_match", 0.0),
        ("token_f1", 2 * 3 / 9),  # without articles: cat sat on mat, cat lay on mat today
    ],
)
def test_known_scores(name, score):
    found = TextMetric(METRICS[name]).compute(
        predictions=[TEXT, TARGET], references=[TARGET, TARGET]
    )
    assert found["of_texts"] == pytest.approx([score, 1.0])
    assert found[name] == pytest.approx((score + 1) / 2)


def test_order_counts_for_the_longest_subsequence_alone():
    scores = text_scores.of_texts(["mat the on"], ["on the mat"])
    names = [one.name for one in task_metrics.text_metrics()]
    found = dict(zip(names, scores[0].tolist(), strict=True))
    assert found["rouge1"] == 1.0
    assert found["rouge_l"] == pytest.approx(1 / 3)


def test_words_are_compared_without_case_marks_and_articles():
    assert METRICS["exact_match"].of_text("The answer, is YES!", "answer is yes") == 1.0
    assert METRICS["token_f1"].of_text("", "something") == 0.0
    assert METRICS["rouge_l"].of_text("", "something") == 0.0


def test_scores_of_texts_are_resampled_as_they_are_computed():
    generator = np.random.default_rng(0)
    scores = generator.random((30, 5)).astype(np.float32)
    label = np.zeros(30, np.int64)
    found = task_metrics.score(["rouge_l", "token_f1"], scores, label)
    assert found["rouge_l"] == pytest.approx(scores[:, 0].mean())
    assert found["token_f1"] == pytest.approx(scores[:, 4].mean())
    counts = generator.integers(0, 3, (4, 30)).astype(np.float64)
    ours = METRICS["rouge2"].on_resamples(scores[None, :, 2], label, counts)
    theirs = [np.repeat(scores[:, 2], count.astype(int)).mean() for count in counts]
    np.testing.assert_allclose(ours[:, 0], theirs, rtol=1e-6)


def test_they_are_no_metrics_of_classes():
    with pytest.raises(ConfigError, match="rouge_l is no metric of classification"):
        check_metrics(["rouge_l"], "classification", 2)
    with pytest.raises(
        ConfigError, match=r"accuracy is no metric of generation; choose from .*roug"
    ):
        check_metrics(["accuracy"], "generation", 0)
