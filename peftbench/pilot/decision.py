"""Go, no-go or more data: a pure function of out-of-fold predictions and a criterion.

Go: a candidate meets every part of the criterion with the end of its interval that is against it,
and its score is above that of the constant prediction. Intervals hold for all candidates together
(Bonferroni), because the one that is taken is the best of them: where no candidate is as good as
the criterion asks for, at most LEVEL of pilots say go.

No-go: each candidate is ruled out by the other end of an interval; where more labels can change a
part (the score, and whether it is above the constant prediction), also by what a learning curve
projects. More data: all else. That an interval includes the constant prediction rules nothing out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import numpy as np

from peftbench.analysis import significance
from peftbench.pilot import intervals
from peftbench.pilot.criterion import PilotCriterion
from peftbench.pilot.intervals import LEVEL, Interval
from peftbench.pilot.out_of_fold import OutOfFold

GO, NO_GO, MORE = "go", "no-go", "more data"


@dataclass(frozen=True)
class CandidateVerdict:
    """What a criterion says of one candidate.

    Attributes:
        name: of the candidate.
        score: its interval holds for all candidates together.
        gain: of the score over the constant prediction's, likewise.
        error: share of wrong answers among the texts that nobody checks, likewise; None where the
            criterion has no review.
        seconds: of a training with the choice of its rate; None where not known.
        missed: parts of the criterion that these rows do not show to be met.
        excluded: those that they show not to be met.
    """

    name: str
    score: Interval
    gain: Interval
    error: Interval | None
    seconds: float | None
    missed: list[str] = field(default_factory=list)
    excluded: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """The answer.

    Attributes:
        answer: GO, NO_GO or MORE.
        method: the candidate with the best score, of those that meet the criterion where there are
            any.
        reasons: sentences.
        verdicts: of all candidates, the best score first.
        sufficient: candidates that meet the criterion, the best first.
    """

    answer: str
    method: str
    reasons: list[str]
    verdicts: list[CandidateVerdict]
    sufficient: list[str]

    def verdict_on(self, name: str) -> CandidateVerdict:
        """The verdict on a candidate."""
        return next(one for one in self.verdicts if one.name == name)


def decide(
    table: OutOfFold,
    criterion: PilotCriterion,
    projected: Mapping[str, float] | None = None,
    gained: float = 0.0,
) -> Decision:
    """Decide by out-of-fold predictions.

    Args:
        table: of all candidates.
        criterion: what success is.
        projected: by candidate the upper end of the score with further labels; a candidate that is
            not there is not expected to pass the best of those that are, unless it is ahead of them
            now.
        gained: upper end of the largest gain that is projected, for candidates that are ahead.
    """
    verdicts = sorted(judge(table, criterion), key=lambda one: -one.score.value)
    sufficient = [one for one in verdicts if not one.missed]
    best = (sufficient or verdicts)[0]
    names = [one.name for one in sufficient]
    if sufficient:
        told = (
            f"the interval of {best.name}'s {criterion.metric}, from {best.score.low:.3f} to "
            f"{best.score.high:.3f}, does not reach below {criterion.least:g}"
        )
        return Decision(GO, best.name, [told], verdicts, names)
    known = projected or {}
    best_reach = max(known.values(), default=None)
    ahead_of = max((one.score.value for one in verdicts if one.name in known), default=1.0)

    def reach(one: CandidateVerdict) -> float | None:
        if best_reach is None or one.name in known or one.score.value <= ahead_of:
            return best_reach
        return max(best_reach, one.score.high + max(0.0, gained))

    reasons = []
    for one in verdicts:
        if not (excluded := _excluded_for_good(one, criterion.least, reach(one))):
            break
        reasons.append(f"{one.name} does not meet the criterion: {', '.join(excluded)}")
    else:
        return Decision(NO_GO, best.name, reasons, verdicts, names)
    open_parts = ", ".join(best.missed)
    told = f"these rows do not show whether {best.name} meets the criterion ({open_parts})"
    if not any(one.gain.low > 0 for one in verdicts):
        told += (
            "; nor that any candidate is better than always answering with the most frequent class"
        )
    return Decision(MORE, best.name, [told], verdicts, names)


def _excluded_for_good(verdict: CandidateVerdict, least: float, reach: float | None) -> list[str]:
    """Parts that a candidate does not meet, and would not meet with further labels either.

    Args:
        verdict: on the candidate.
        least: score that the criterion asks for.
        reach: upper end of the best score that is projected; None where nothing is.
    """
    needed = {SCORE: least, ABOVE: verdict.score.value - verdict.gain.value}
    return [
        part
        for part in verdict.excluded
        if part not in needed or (reach is not None and reach < needed[part])
    ]


#: Parts of a criterion.
SCORE, ABOVE, SECONDS, REVIEW = (
    "score",
    "better than the constant prediction",
    "seconds of training",
    "wrong answers that nobody checks",
)


def judge(table: OutOfFold, criterion: PilotCriterion) -> list[CandidateVerdict]:
    """What the criterion says of each candidate, in the order of the table."""
    names = list(table.probability)
    level = LEVEL / len(names)
    scores, gains = _scores(table, criterion.metric, names, level)
    made = []
    for name in names:
        error = None
        missed, excluded = [], []
        if scores[name].low < criterion.least:
            missed.append(SCORE)
        if scores[name].high < criterion.least:
            excluded.append(SCORE)
        if gains[name].low <= 0:
            missed.append(ABOVE)
        if gains[name].high < 0:  # at 0 no row may differ, which excludes nothing
            excluded.append(ABOVE)
        seconds, fewest, most = _seconds(table.seconds.get(name, ()))
        limit = criterion.largest_seconds
        if limit is not None and (most is None or most > limit):
            missed.append(SECONDS)
        if limit is not None and fewest is not None and fewest > limit:
            excluded.append(SECONDS)
        if criterion.largest_review is not None and criterion.review_error is not None:
            error = unchecked_error(table, name, criterion.largest_review, level)
            if error.high > criterion.review_error:
                missed.append(REVIEW)
            if error.low > criterion.review_error:
                excluded.append(REVIEW)
        made.append(
            CandidateVerdict(name, scores[name], gains[name], error, seconds, missed, excluded)
        )
    return made


def _seconds(taken: Sequence[float]) -> tuple[float, float, float] | tuple[None, None, None]:
    """Mean over trainings with its ends by Student's t, as the page shows it; one has no ends."""
    if not taken:
        return None, None, None
    mean = fmean(taken)
    found = significance.student(np.array(taken, dtype=np.float64))
    return (mean, mean, mean) if found is None else (mean, float(found.low), float(found.high))


def _scores(
    table: OutOfFold, metric: str, names: list[str], level: float
) -> tuple[dict[str, Interval], dict[str, Interval]]:
    """Scores, and how far they are above that of the constant prediction."""
    if metric == "accuracy":
        constant = (table.constant.argmax(axis=2) == table.label).astype(np.float64)
        right = {name: table.right(name) for name in names}
        return (
            {n: intervals.share(one, table.group, level) for n, one in right.items()},
            {
                n: intervals.difference_of_shares(one, constant, table.group, level)
                for n, one in right.items()
            },
        )
    return intervals.scores(table, metric, names, level)


def unchecked_error(table: OutOfFold, name: str, review: float, level: float = LEVEL) -> Interval:
    """Share of wrong answers among the rows of which the candidate is surest.

    Args:
        table: of the predictions.
        name: of the candidate.
        review: share of the rows, the least sure ones, that people check.
        level: one less the probability of the interval.
    """
    repeats, rows = table.probability[name].shape[:2]
    kept = intervals.unchecked(rows, review)
    sure = table.probability[name].max(axis=2)
    order = np.argsort(-sure, axis=1, kind="stable")[:, :kept]
    wrong = np.take_along_axis(1 - table.right(name), order, axis=1)
    # the rows of several repeats are the same ones: they count once, as groups
    groups = table.group[order].ravel()
    found = intervals.share(wrong.reshape(1, repeats * kept), groups, level)
    return Interval(found.value, found.low, found.high, kept)
