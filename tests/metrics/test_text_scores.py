"""Scores of texts against those that were wanted."""

import numpy as np
import pytest
from rouge_score.tokenize import tokenize

from peftbench.core.errors import ConfigError
from peftbench.metrics import task_metrics, text_scores
from peftbench.metrics.evaluate_metrics import TextMetric
from peftbench.metrics.task_metrics import METRICS, check_metrics
from peftbench.metrics.text_overlap import rouge
from peftbench.metrics.word_tokens import ASCII, UNICODE, UnicodeWords, has_other_letters

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
    assert METRICS["exact_match"].of_text("The answer, is YES!", "answer is yes", ASCII) == 1.0
    assert METRICS["token_f1"].of_text("", "something", ASCII) == 0.0
    assert METRICS["rouge_l"].of_text("", "something", ASCII) == 0.0


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


# words of ROUGE


ENGLISH = [
    TEXT,
    "The 3rd of May, 1999: it's 5.5% (U.S.) -- don't_split? e-mail me@home.org\t\n",
    "",
    "...",
    "Snake_case AND CamelCase; A1 b2c3",
]


@pytest.mark.parametrize("text", ENGLISH)
def test_words_of_english_are_those_of_rouge_score(text):
    assert UnicodeWords().tokenize(text) == tokenize(text, None)
    assert not has_other_letters(text)
    for kind in ("rouge1", "rouge2", "rougeL"):
        for target in ENGLISH:
            assert rouge(kind)(text, target, UNICODE) == rouge(kind)(text, target, ASCII)


def test_signs_that_are_no_letters_leave_words_as_they_are():
    text = "“It\u2019s £5 \u2013 or €6…” 👍"
    assert UnicodeWords().tokenize(text) == tokenize(text, None) == ["it", "s", "5", "or", "6"]
    assert not has_other_letters(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Привет, мир!", ["привет", "мир"]),
        ("Überall schön", ["überall", "schön"]),
        ("cafe\u0301 CAFÉ", ["café", "café"]),  # composed or not
        ("Καλημέρα κόσμε", ["καλημέρα", "κόσμε"]),
        ("مَرْحَبًا بالعالم", ["مَرْحَبًا", "بالعالم"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),  # vowel signs are marks
        ("안녕 세상", ["안녕", "세상"]),
        ("你好,世界 GPT4很好", ["你", "好", "世", "界", "gpt4", "很", "好"]),
        ("東京タワー", ["東", "京", "タ", "ワ", "ー"]),
        ("ที่นี่", ["ที่", "นี่"]),
    ],
)
def test_words_of_any_script(text, words):
    assert UnicodeWords().tokenize(text) == words
    assert has_other_letters(text)
    for kind in ("rouge1", "rougeL"):
        assert rouge(kind)(text, text, UNICODE) == 1.0


def test_accents_do_not_split_words():
    assert rouge("rouge1")("grün", "gr n", ASCII) == 1.0  # as rouge-score has it
    assert rouge("rouge1")("grün", "gr n", UNICODE) == 0.0


def test_targets_that_rouge_score_takes_for_blanks_are_said():
    with pytest.warns(UserWarning, match=r"^1 of 2 targets .* set task.rouge_tokens=unicode$"):
        scores = text_scores.of_texts(["привет мир", "yes"], ["привет мир", "yes"])
    assert scores[:, 0].tolist() == [0.0, 1.0]
    scores = text_scores.of_texts(["привет мир", "yes"], ["привет мир", "yes"], UNICODE)
    assert scores.tolist() == text_scores.of_texts(["a b", "yes"], ["a b", "yes"]).tolist()


def test_the_constant_prediction_is_the_text_most_like_the_others():
    texts = ["what will ann do next", "why did bob go", "what will cy do next", "yes"]
    assert text_scores.constant(texts, "rouge_l") == texts[0]  # 1 + 0 + 4/5 + 0, as the third
    assert text_scores.constant([*texts, "why did bob go"], "exact_match") == "why did bob go"
    late = ["a"] * text_scores.OTHERS + ["b"] * 1000
    assert text_scores.constant(late, "exact_match") == "a"
