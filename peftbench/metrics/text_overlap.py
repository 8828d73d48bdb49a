"""How much a written text has in common with the one that was wanted.

ROUGE: Lin, ROUGE: a package for automatic evaluation of summaries, 2004, aclanthology W04-1013; F1
of unigrams, of bigrams, of the longest common subsequence, by Google's rouge-score, without
stemming, as the evaluate library's metric has it by default; with its own tokenizer or, for other
letters than a to z, that of `word_tokens`. Exact match and token F1: Rajpurkar
et al., SQuAD, 2016, arXiv 1606.05250, after their normalisation.
"""

import re
import string
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from peftbench.core.arrays import Array, Floats
from peftbench.metrics.base import Metric, weighted_sums
from peftbench.metrics.word_tokens import ASCII, UNICODE, UnicodeWords


def text_metric(
    name: str, title: str, about: str, column: int, of_text: Callable[[str, str, str], float]
) -> Metric:
    """A metric of texts: the mean of what each text scores.

    Args:
        name, title, about: as of `Metric`.
        column: where predictions have it; it stays as it is.
        of_text: as of `Metric`.
    """
    return Metric(
        name=name,
        title=title,
        about=about,
        compute=_mean,
        resampled=_resampled,
        kinds=("generation",),
        column=column,
        of_text=of_text,
    )


def _mean(predicted: Array, label: Array) -> float | None:
    return float(np.mean(predicted.astype(np.float64)))


def _resampled(predicted: Array, label: Array, counts: Floats) -> Floats:
    found: Floats = weighted_sums(counts, predicted) / counts.sum(axis=1, keepdims=True)
    return found


def rouge(kind: str) -> Callable[[str, str, str], float]:
    """The F1 of one kind of ROUGE: rouge1, rouge2 or rougeL."""

    def score(text: str, target: str, tokens: str = ASCII) -> float:
        return float(_scorer(kind, tokens).score(target, text)[kind].fmeasure)

    return score


@cache
def _scorer(kind: str, tokens: str) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # its import takes a second

    return RougeScorer([kind], tokenizer=UnicodeWords() if tokens == UNICODE else None)


def exact_match(text: str, target: str, tokens: str = ASCII) -> float:
    """1 where both are the same words in the same order, else 0; words are split at blanks."""
    return float(_words(text) == _words(target))


def token_f1(text: str, target: str, tokens: str = ASCII) -> float:
    """F1 of the words of a text, split at blanks, each as often as it is there."""
    ours, theirs = _words(text), _words(target)
    if not ours or not theirs:
        return float(ours == theirs)
    shared = (Counter(ours) & Counter(theirs)).total()
    return 2 * shared / (len(ours) + len(theirs))


def _words(text: str) -> list[str]:
    """Lower-case words without punctuation and articles."""
    plain = text.lower().translate(_PUNCTUATION)
    return re.sub(r"\b(a|an|the)\b", " ", plain).split()


_PUNCTUATION = str.maketrans("", "", string.punctuation)
