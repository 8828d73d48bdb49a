"""Deep ensembles (Lakshminarayanan et al. 2017, arXiv 1612.01474) from stored predictions.

Runs that differ only in the seed are the members. Their probabilities are averaged, with equal
weights (section 2.4 there); values have the mean and the variance of the mixture of the members,

    mean = 1/M sum m_i        variance = 1/M sum (v_i + m_i^2) - mean^2

Departures from the paper: members see other examples where the size is below full (one seed, one
subset); a member's own v_i is that of its samples, 0 where the method does not sample, as no head
predicts a variance; no adversarial training.
"""

import numpy as np

from peftbench.analysis import convention, grouping
from peftbench.core.run import Record
from peftbench.metrics import uncertainty as sure
from peftbench.reports.base import Report
from peftbench.reports.tables.markdown import Table
from peftbench.results.predictions import Load, PredictionMatrix, stacked

Figures = dict[str, float | None]

REPORT = Report(
    name="ensembles",
    question="what do the seeds of a row score together?",
    order=11,
    tables=lambda inputs: tables(inputs.tested, inputs.load),
    page=("scores", 3),
)


def tables(records: list[Record], load: Load) -> list[Table]:
    """What the seeds of each row of the score table say together, against one of them.

    Args:
        records: of any tasks.
        load: predictions of a record.

    Returns:
        A table of tasks with classes and one of those with values, where any row has two seeds.

    Raises:
        RecordError: if seeds of one row predicted on other examples.
    """
    by_row, split = grouping.of_records(records)
    parts = grouping.alike(records)
    made = []
    for title, tell, note in (
        ("Ensembles of seeds", classes, _NOTE),
        ("Ensembles of seeds: values", values, _VALUE_NOTE),
    ):
        lines: list[list[str]] = []
        heads: list[str] = []
        for one, alike in parts:
            keys = {record.run.key for record in alike}
            for row, members in by_row.items():
                here = [record for record in members if record.run.key in keys]
                if len(here) < 2 or here[0].run.task.generation:  # texts have no mean
                    continue
                if (here[0].run.task.classes == 1) != (tell is values):
                    continue
                alone, whole, spread = tell(stacked(here, load), here[0].run.task.metrics[0])
                cells = [
                    cell
                    for name, value in whole.items()
                    for cell in (_cell(name, [told[name] for told in alone]), _text(name, value))
                ]
                cells += ["–" if value is None else f"{value:.2g}" for value in spread.values()]
                lines.append([grouping.title(one, dict(parts)), *row, *cells])
                heads = [head for name in whole for head in (name, f"{name}, all")] + list(spread)
        if lines:
            columns = ["task", "method", *split, *heads]
            made.append(Table(title, columns, lines, 2 + len(split), [note, convention.NOTE]))
    return made


Told = tuple[list[Figures], Figures, Figures]


def classes(found: PredictionMatrix, metric: str) -> Told:
    """Figures of each member, of the mean of their probabilities, and how far they disagree.

    Returns:
        Among the last: mutual information of member and class in nats, the mean over examples of
        the entropy of the average less the average entropy; it is the mean KL divergence of a
        member from the average.
    """
    from scipy.special import logsumexp

    logs = np.stack([sure.log_probabilities(scores) for scores in found.scores])
    mean = logsumexp(logs, axis=0) - np.log(len(logs))
    information = _entropy(mean) - np.mean([_entropy(one) for one in logs], axis=0)
    alone = [_sure(one, found.label, metric) for one in logs]
    return alone, _sure(mean, found.label, metric), {"MI": max(0.0, float(information.mean()))}


def values(found: PredictionMatrix, metric: str) -> Told:
    """Figures of each member, of the mixture of all, and how far they disagree.

    The Gaussian NLL is None where an example's variance is 0.
    """
    label = found.label.astype(np.float64)
    value = found.scores[:, :, 0]
    mean = value.mean(axis=0)
    variance = value.var(axis=0) + found.variance.mean(axis=0)
    nll = sure.gaussian_nll(mean, label, variance) if variance.min() > 0 else None
    order = _rank_correlation(variance, np.abs(mean - label))
    spread = {"sd": float(np.sqrt(variance.mean())), "NLL, all": nll, "sd ~ error": order}
    alone = [_close(one, label, metric) for one in value]
    return alone, _close(mean, label, metric), spread


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float | None:
    """Spearman's; None where an array is constant. They have no common unit."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def _sure(logs: np.ndarray, label: np.ndarray, metric: str) -> Figures:
    return {
        "score": convention.counted_score(logs, label, metric),
        "ECE": sure.calibration_error(logs, label),
        "NLL": sure.nll(logs, label),
        "Brier": sure.brier(logs, label),
    }


def _close(value: np.ndarray, label: np.ndarray, metric: str) -> Figures:
    return {
        "score": convention.counted_score(value[:, None], label, metric),
        "RMSE": float(np.sqrt(np.mean((value - label) ** 2))),
    }


def _entropy(logs: np.ndarray) -> np.ndarray:
    from scipy.special import entr  # 0 at probability 0

    found: np.ndarray = entr(np.exp(logs)).sum(axis=1)
    return found


_PERCENT = ("score", "ECE")


def _cell(name: str, told: list[float | None]) -> str:
    return grouping.spread(told) if name in _PERCENT else grouping.spread(told, 1, 3)


def _text(name: str, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{100 * value:.1f}" if name in _PERCENT else f"{value:.3f}"


_NOTE = (
    "Mean ± standard deviation of single seeds (their number); all: the seeds' mean probabilities. "
    "Score: the task's first metric, percent, as ECE (15 bins of equal width); NLL in nats. MI: "
    "mutual information of seed and class in nats, how far the seeds disagree. Where the size is "
    "below full, another seed has other examples: together they have seen more."
)
_VALUE_NOTE = (
    "Mean ± standard deviation of single seeds (their number); all: the seeds' mean value. Sd: "
    "root of the mean variance of the seeds and, where a method samples, of its samples. NLL, all: "
    "of the labels under a Gaussian of this mean and variance, with nothing added for the noise of "
    "the labels; – where an example has no variance. Sd ~ error: Spearman correlation over "
    "examples of variance and absolute error."
)
