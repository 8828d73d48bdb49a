"""What both models of a gate answer, how long they take, and how large they are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from peftbench.core.arrays import Floats
from peftbench.data.loading import LabelledTexts
from peftbench.evaluation.latency import timed
from peftbench.exporting.prediction import PIECE, PredictionSource, Report
from peftbench.gate import abnormal
from peftbench.gate.held_out import HeldOut, class_order
from peftbench.gate.thresholds import Thresholds
from peftbench.suites.latency import Latency

#: Texts of each model before the clock runs.
_WARMUP = 10


@dataclass(frozen=True)
class Answers:
    """Probabilities of both models for the same labelled rows.

    Attributes:
        label: (rows,) classes.
        old, new: (rows, classes), classes in the order of the new model.
    """

    label: NDArray[np.int64]
    old: Floats
    new: Floats


@dataclass(frozen=True)
class Measured:
    """Everything that a gate decides by.

    Attributes:
        plain: of the file.
        noise: of its noisy copies, by kind.
        shift: of further files, by name.
        abnormal: (texts,) confidence of the old and of the new model in abnormal texts, by kind.
        seconds: of one text at a time, (texts,) of the old and of the new model in turn.
        size: bytes of the loaded weights of the old and of the new model.
    """

    plain: Answers
    noise: dict[str, Answers]
    shift: dict[str, Answers]
    abnormal: dict[str, tuple[Floats, Floats]]
    seconds: tuple[Floats, Floats]
    size: tuple[int, int]


def measure(
    new: PredictionSource,
    old: PredictionSource,
    held: HeldOut,
    shifts: dict[str, HeldOut],
    thresholds: Thresholds,
    report: Report = lambda done, total: None,
) -> Measured:
    """Predict with both models on everything, and time them.

    Args:
        new, old: the models.
        held: the file.
        shifts: further files, by name.
        thresholds: with the kinds of noise and of abnormal input.
        report: called with the texts that are done, and all.
    """
    order = class_order(new.run, old.run)
    noisy = {
        "new": thresholds.noise_suite.copies(LabelledTexts(held.new, held.label)),
        "old": thresholds.noise_suite.copies(LabelledTexts(held.old, held.label)),
    }
    odd = {
        kind: (abnormal.texts(kind, held.old), abnormal.texts(kind, held.new))
        for kind in thresholds.abnormal
    }
    total = 2 * (
        len(held.label) * (1 + len(noisy["new"]))
        + sum(len(one.label) for one in shifts.values())
        + sum(len(columns[0]) for _, columns in odd.values())
    )
    done = 0

    def predict(source: PredictionSource, columns: list[list[str]]) -> Floats:
        nonlocal done
        pieces = []
        for start in range(0, len(columns[0]), PIECE):
            report(done, total)
            pieces.append(source.predict([one[start : start + PIECE] for one in columns]))
            done += len(pieces[-1])
        report(done, total)
        return np.concatenate(pieces)

    def both(label: NDArray[np.int64], theirs: list[list[str]], ours: list[list[str]]) -> Answers:
        return Answers(label, predict(old, theirs)[:, order], predict(new, ours))

    plain = both(held.label, held.old, held.new)
    noise = {
        name.partition("/")[0]: both(held.label, noisy["old"][name].texts, noisy["new"][name].texts)
        for name in noisy["new"]
    }
    shift = {name: both(one.label, one.old, one.new) for name, one in shifts.items()}
    unsure = {
        kind: (predict(old, theirs).max(axis=1), predict(new, ours).max(axis=1))
        for kind, (theirs, ours) in odd.items()
    }
    seconds = _latencies([(old, held.old), (new, held.new)], thresholds.latency_texts)
    return Measured(plain, noise, shift, unsure, seconds, (_size(old), _size(new)))


def _latencies(
    models: list[tuple[PredictionSource, list[list[str]]]], texts: int
) -> tuple[Floats, Floats]:
    """Seconds of the old and the new model for each text, which they take in turn."""
    tokens = [source.tokenize(columns) for source, columns in models]
    passes = Latency(batch_size=1, repeats=texts, warmup=_WARMUP, seed=0).passes(len(tokens[0]))
    taken: tuple[list[float], list[float]] = ([], [])
    for number, rows in enumerate([*passes["single"][:_WARMUP], *passes["single"]]):
        for spent, (source, _), known in zip(taken, models, tokens, strict=True):
            seconds = timed(source.predictor, source.predictor.collate(known, rows))
            if number >= _WARMUP:
                spent.append(seconds)
    return np.array(taken[0]), np.array(taken[1])


def _size(source: PredictionSource) -> int:
    """Bytes of parameters and buffers, shared ones once."""
    module = source.predictor.model
    tensors = [*module.parameters(), *module.buffers()]
    found = {one.data_ptr(): one.numel() * one.element_size() for one in tensors if one.numel()}
    return sum(found.values())
