"""Tables of what comes after a benchmark: review by people, an A/B test, a roll-out."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from peftbench.analysis.ab_test import FIRST_LOOK, ABTest, plan_ab_test
from peftbench.analysis.costs import Prices
from peftbench.analysis.proportions import Proportion
from peftbench.analysis.review import TEXTS, CutOff, Span, payback, review_cost
from peftbench.analysis.rollout import RollOut, plan_rollout
from peftbench.core.run import Json
from peftbench.reports.tables.document import Section
from peftbench.reports.tables.markdown import Table


@dataclass(frozen=True)
class After:
    """What comes after a benchmark.

    Attributes:
        cut_offs: for review by people, the strongest promise first.
        prices: of people.
        spent: once, see `review.payback`.
        test: the A/B test; None where none is planned.
        rollout: likewise.
        why: for what is not planned the reason, by the title of its section.
    """

    cut_offs: Sequence[CutOff]
    prices: Prices
    spent: float | None
    test: ABTest | None
    rollout: RollOut | None
    why: dict[str, str]

    def sections(self) -> list[Section]:
        """Sections of a page."""
        found = _used(self.cut_offs)
        told = {
            _AB_TEST: [] if self.test is None else ab_test_tables(self.test),
            _ROLL_OUT: []
            if self.rollout is None or found is None
            else rollout_tables(self.rollout, found.reviewed),
        }
        made = [Section(_REVIEW, (), [review_table(self.cut_offs, self.prices, self.spent)])]
        for title, tables in told.items():
            made.append(Section(title, [self.why[title]] if title in self.why else [], tables))
        return made

    def to_json(self) -> Json:
        """The same as plain data."""
        test, plan = self.test, self.rollout
        return {
            "review": [self._review(one) for one in self.cut_offs],
            "ab_test": {"why": self.why[_AB_TEST]}
            if test is None
            else asdict(test) | {"days": test.days, "looks": test.looks()},
            "roll_out": {"why": self.why[_ROLL_OUT]}
            if plan is None
            else asdict(plan) | {"days": plan.days, "looks": plan.looks()},
        }

    def _review(self, one: CutOff) -> Json:
        cost = review_cost(one.reviewed, self.prices)
        back = payback(one.reviewed, self.prices, self.spent)
        return {
            "kind": one.kind,
            "wanted_error": one.wanted,
            "level": one.level,
            "least_confidence": one.value,
            "why": one.why,
            "answered": _share(one.answered),
            "wrong": _share(one.wrong),
            "reviewed": _share(one.reviewed),
            "same_group": one.same_group,
            "texts": TEXTS,
            "hours": {"why": "no rows"} if cost is None else _span_json(cost.hours, one),
            "money": {"why": "no rows" if cost is None else cost.why}
            if cost is None or cost.money is None
            else _span_json(cost.money, one),
            "payback_months": {"why": back.why}
            if back.months is None
            else _span_json(back.months, one),
        }


#: Titles of sections.
_REVIEW, _AB_TEST, _ROLL_OUT = "Review by people", "A/B test", "Roll-out"


def plan_after(
    cut_offs: Sequence[CutOff],
    prices: Prices,
    baseline: float,
    effect: float,
    spent: float | None = None,
    refused: str | None = None,
) -> After:
    """Plan an A/B test and a roll-out.

    The roll-out is planned for the first cut-off, the one that a model is exported with; where it
    was not found, people review all texts and nothing is rolled out.

    Args:
        cut_offs: the strongest promise first.
        prices: of people; `texts_month` gives the days of both plans.
        baseline: share of right answers that the A/B test is planned for, in (0, 1).
        effect: difference that it should find; at most what a perfect model would gain.
        spent: once, see `review.payback`.
        refused: why nothing is to be tested or rolled out; None where it is.
    """
    daily = None if not prices.texts_month else prices.texts_month / _DAYS
    found = _used(cut_offs)
    test, plan, why = None, None, {}
    if refused is not None:
        why = dict.fromkeys((_AB_TEST, _ROLL_OUT), f"Not planned: {refused}.")
        return After(cut_offs, prices, spent, test, plan, why)
    if 0 < baseline < 1:
        test = plan_ab_test(baseline, min(effect, 1 - baseline), texts_per_day=daily)
    else:
        share = f"a share of {100 * baseline:g} % right answers"
        why[_AB_TEST] = f"Not planned: {share} leaves nothing to find."
    if found is None or not found.answered.value:
        why[_ROLL_OUT] = (
            "Not planned: without a review threshold the model answers no text by itself."
        )
    else:
        plan = plan_rollout(found.wanted, daily, found.answered.value)
    return After(cut_offs, prices, spent, test, plan, why)


def _used(cut_offs: Sequence[CutOff]) -> CutOff | None:
    """The cut-off that the model answers by; None where it answers nothing."""
    return cut_offs[0] if cut_offs and cut_offs[0].value is not None else None


def _share(one: Proportion) -> Json:
    """A figure with n and interval."""
    made = {"value": one.value, "low": one.low, "high": one.high, "n": one.of}
    return made if one.of else {"value": None, "n": 0, "why": "no rows"}


def _span_json(span: Span, of: CutOff) -> Json:
    """Figures that follow from the share that people review; None is infinite."""
    ends = {name: one if math.isfinite(one) else None for name, one in asdict(span).items()}
    return ends | {"n": of.reviewed.of}


#: Days of a month.
_DAYS = 365.25 / 12


def review_table(cut_offs: Sequence[CutOff], prices: Prices, spent: float | None = None) -> Table:
    """A row for each cut-off: what it promises, what people review, and what that costs.

    Args:
        cut_offs: of one model.
        prices: of people.
        spent: once, see `review.payback`.
    """
    money = [f"{prices.currency} for {TEXTS:,} texts"] if prices.labour_hour is not None else []
    rows, why = [], []
    for one in cut_offs:
        cost = review_cost(one.reviewed, prices)
        rows.append(
            [
                one.kind,
                _promise(one),
                "none" if one.value is None else f"{one.value:.4f}",
                one.answered.text(),
                one.wrong.text(),
                one.reviewed.text(),
                "–" if cost is None else _span(cost.hours, 1),
                *(["–" if cost is None or cost.money is None else _span(cost.money)] * len(money)),
            ]
        )
        if one.why is not None:
            why.append(f"{one.kind.capitalize()}: no threshold was found. {one.why}.")
    kinds = {one.kind for one in cut_offs}
    left = max((one.same_group for one in cut_offs), default=0)
    groups = (
        "Rows come in groups (near duplicates, rows of one --group value): one of each group "
        f"counts, {left} others do not. Promises are for a text of a group drawn at random; a "
        "large group counts no more than a small one."
    )
    return Table(
        title=_REVIEW,
        columns=[
            *("review threshold", "promise", "least confidence", "answered automatically"),
            *("wrong of these", "reviewed by people", f"hours for {TEXTS:,} texts", *money),
        ],
        rows=rows,
        labels=2,
        notes=[
            *why,
            *(note for kind, note in _KINDS.items() if kind in kinds),
            *([groups] if left else []),
            f"Hours: {prices.review_seconds:g} seconds of a person for a text. Intervals of 95 %.",
            *_payback_notes(cut_offs, prices, spent),
            *([] if money else ["No money: `labour_hour` is not in the prices."]),
        ],
    )


_KINDS = {
    "guaranteed": (
        "Guaranteed: learn-then-test on rows that nothing was trained on (arXiv 2110.01052). It "
        "holds for texts from the same source, and ends when these change."
    ),
    "controlled": (
        "Controlled: conformal risk control on rows that nothing was trained on (arXiv "
        "2208.02814). Wrong automatic answers as a share of all texts, on average."
    ),
    "estimate": (
        "Estimate: from out-of-fold predictions, whose models are not the one that is used. No "
        "guarantee: half of such thresholds or more let through more errors than wanted."
    ),
}


def _payback_notes(cut_offs: Sequence[CutOff], prices: Prices, spent: float | None) -> list[str]:
    """When each cut-off has paid for itself, or once what that takes."""
    told = []
    for one in cut_offs:
        found = payback(one.reviewed, prices, spent)
        if found.months is None:
            return [f"Payback time: {found.why}."]
        soon = "within" if found.soon else "not surely within"
        told.append(
            f"{one.kind.capitalize()}: paid for itself after {_span(found.months, 1)} months, "
            f"{soon} the {prices.payback_months:g} of the prices."
        )
    return told


def _promise(cut_off: CutOff) -> str:
    rate = f"{100 * cut_off.wanted:g} %"
    if cut_off.kind == "controlled":
        return f"at most {rate} of all texts wrong, on average"
    if cut_off.level is None:
        return f"about {rate} of the answered wrong"
    return f"at most {rate} of the answered wrong, with {100 * (1 - cut_off.level):g} %"


def _span(span: Span, digits: int = 0) -> str:
    value, low, high = (
        f"{one:,.{digits}f}" if math.isfinite(one) else "never"
        for one in (span.value, span.low, span.high)
    )
    return f"{value} [{low}, {high}]"


def ab_test_tables(test: ABTest) -> list[Table]:
    """The plan, and the differences that end the test at some looks."""
    days = "– (texts a day are not known)" if test.days is None else f"{test.days:,}"
    plan = [
        ["texts", "half to each model, at random"],
        ["share right with the old model, expected", f"{100 * test.baseline:.1f} %"],
        ["difference to find", f"{100 * test.effect:.1f} points"],
        ["probability to find it", f"{100 * test.power:g} %"],
        ["probability of an answer where both are alike", f"{100 * test.level:g} % at most"],
        ["texts for each model at most", f"{test.most:,}"],
        ["texts for each model if one looked at the end alone", f"{test.single_look:,}"],
        ["days at most", days],
    ]
    looks = [[f"{texts:,}", f"{100 * reach:.1f} points"] for texts, reach in test.looks()]
    return [
        Table("A/B test", ["", "plan"], plan, prose=1),
        Table(
            "A/B test: when to stop",
            ["texts for each model", "difference that ends it"],
            looks,
            notes=[
                f"Look as often as you like from {FIRST_LOOK} texts on: the limits hold at all "
                "looks together (mixture sequential test, arXiv 1512.04922). Stop for the new "
                "model where it is better by so much, for the old one where it is worse by so "
                f"much, and without a difference at {test.most:,} texts.",
                "Limits as planned; the interval at a look is made with the shares found by then.",
            ],
        ),
    ]


def rollout_tables(plan: RollOut, reviewed: Proportion | None = None) -> list[Table]:
    """The stages, and the counts of wrong answers at which each of them ends.

    Args:
        plan: of the roll-out.
        reviewed: share of the texts that people reviewed when the cut-off was chosen, whose
            interval a stage should stay in; None is not known.
    """
    limits = plan.limits
    rows = [
        [
            stage.name,
            f"{100 * stage.share:g} %",
            f"{stage.least_days}",
            "–" if stage.days is None else f"{stage.days:,}",
            f"{limits.expected:,}",
        ]
        for stage in plan.stages
    ]
    known = plan.days is not None
    notes = [
        "In the shadow people answer all texts, and the model's answers are compared with theirs.",
        f"Checked: automatic answers, drawn at random, that people check; {limits.expected:,} on "
        f"average where {100 * limits.tolerated:g} % are wrong, {limits.least:,} where none is.",
        f"Days: {plan.days:,} in all."
        if known
        else "Days beyond the least are not known without the number of texts a day.",
    ]
    if reviewed is not None and reviewed.low is not None and reviewed.high is not None:
        notes.append(
            f"Stop also where people review clearly less than {100 * reviewed.low:.1f} % or more "
            f"than {100 * reviewed.high:.1f} % of a stage's texts: the texts have changed, and the "
            "review threshold must be chosen again."
        )
    counts = [
        [f"{n:,}", "not yet" if most is None else f"{most:,}", f"{back:,}"]
        for n, most, back in plan.looks()
    ]
    return [
        Table(
            "Roll-out",
            ["stage", "texts", "least days", "days", "checked"],
            rows,
            notes=notes,
        ),
        Table(
            "Roll-out: when to proceed and when to go back",
            ["checked", "proceed with at most so many wrong", "go back from so many wrong on"],
            counts,
            notes=[
                "For each stage by itself, counted from its first text. Proceed after the least "
                "days only. Go back at once: to the stage before, or to the old way.",
                f"A model with {100 * limits.tolerated:g} % wrong goes back in any of "
                f"{len(plan.stages)} stages with at most "
                f"{100 * limits.level * len(plan.stages):g} % probability; one with "
                f"{100 * limits.too_high:g} % proceeds from a stage with at most "
                f"{100 * limits.miss:g} % (Wald 1945), however often one looks.",
            ],
        ),
    ]
