"""The page of a pilot, and what a terminal has room for; both from its outcome alone."""

from collections.abc import Iterable, Sequence
from typing import Any

from peftbench.core.text import count_of, listed_names
from peftbench.pilot.decision import GO, MORE, NO_GO
from peftbench.pilot.outcome import Estimate, NoModel, PilotOutcome
from peftbench.reports.plotting import style
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.document import Section, document
from peftbench.reports.tables.markdown import Table

_ANSWERS = {GO: "Go", NO_GO: "No-go", MORE: "More data"}


def html(made: PilotOutcome, mistakes: list[list[str]], after: Sequence[Section] = ()) -> str:
    """One HTML file that needs no network.

    Args:
        made: see `outcome.summarize`.
        mistakes: see `mistakes.surest_mistakes`; none leaves texts out.
        after: sections on what comes after the answer.
    """
    data, design = made.data, made.design
    sections = [
        Section("Criterion", _criterion_lines(made), [_criterion_table(made)]),
        Section("Scores", _score_notes(made), brief(made), [_svg(scores_figure(made))]),
        Section("Learning curve", _curve_notes(made), _curve_tables(made), _curve_pictures(made)),
        Section("Confidence", (), [_review(made)]),
        *after,
        Section("How it was done", _method_lines(made)),
    ]
    if mistakes:
        columns = ["line", "label", "prediction", "probability", "text"]
        columns += ["second text"] * (len(mistakes[0]) - len(columns))
        table = Table("Most confident errors", columns, mistakes, 1, prose=len(mistakes[0]) - 4)
        sections.append(Section("Errors", ["Out-of-fold, of the first repeat."], [table]))
    sections.append(Section("Model", [_model(made), *made.next]))
    return document(
        f"Pilot: {data.file}",
        _answer(made),
        made.answer == GO,
        [
            *(f"{_capital(reason)}." for reason in made.reasons),
            f"{data.rows} rows, {design.folds} folds, {design.model}.",
        ],
        sections,
    )


def _answer(made: PilotOutcome) -> str:
    best = made.method if made.answer == GO else f"the best score is that of {made.method}"
    return f"{_ANSWERS[made.answer]}: {best}"


def sentences(made: PilotOutcome) -> list[str]:
    """The answer in a few lines."""
    told = [f"{_answer(made)}. {_capital(made.reasons[0])}."]
    told += _score_notes(made)
    told += _curve_notes(made)[:2]
    told.append(_latency(made))
    told.append(_model(made))
    told += [f"Next: {line}" for line in made.next]
    if made.criterion.changes:
        told.append(_changed(made))
    return told


def brief(made: PilotOutcome) -> list[Table]:
    """The table of the candidates."""
    metric = made.metric
    rows = [
        [
            one.name,
            _percent(one.score),
            _percent(one.gain),
            _seconds(one.seconds),
            _milliseconds(one.latency),
            met_text(one.missed, one.excluded),
        ]
        for one in made.candidates
    ]
    rows.append(["constant prediction", _percent(made.constant), "0", "–", "–", "–"])
    columns = ["candidate", f"{metric} (%)", "above constant", "seconds", "latency (ms)"]
    columns.append("meets the criterion")
    level = 100 * (1 - made.design.level)
    trainings = _counts(one.seconds for one in made.candidates)
    texts = _counts(one.latency for one in made.candidates)
    notes = [
        f"n = {made.data.rows} rows. Intervals of the candidates hold for all "
        f"{made.design.candidates} together with {level:g} %; that of the constant "
        "prediction alone. Seconds: of one training with the choice of its rate, mean of "
        f"{trainings} trainings. Latency: median of {texts} "
        "single texts, from tokens to logits, with the method's weights folded into the model "
        "where it can be; – for baselines, which are not timed."
    ]
    notes += [f"{name} is left out: {why}." for name, why in made.left_out.items()]
    best = [row[0] for row in rows].index(made.method)
    return [Table("Cross-validated scores", columns, rows, 1, notes, frozenset({(best, 0)}), 1)]


def met_text(missed: Sequence[str], excluded: Sequence[str]) -> str:
    """Whether a criterion is met, with the parts that are not or are left open."""
    left = [part for part in missed if part not in excluded]
    told = [("no", excluded), ("undecided", left)]
    return "; ".join(f"{word}: {', '.join(parts)}" for word, parts in told if parts) or "yes"


def _counts(figures: Iterable[Estimate]) -> str:
    """How many measurements each of some figures is of."""
    found = {one.n for one in figures if one.n}
    return " or ".join(map(str, sorted(found))) or "no"


def _criterion_table(made: PilotOutcome) -> Table:
    names = ("metric", "least", "largest_seconds", "largest_review", "review_error")
    rows = [
        [
            version.written[:16].replace("T", " "),
            version.sha256[:12],
            str(version.runs),
            *(_plain(getattr(version.criterion, name)) for name in names),
        ]
        for version in made.criterion.versions
    ]
    columns = ["written (UTC)", "SHA-256", "trainings before", *names]
    return Table("Versions of the criterion", columns, rows, 2)


def _criterion_lines(made: PilotOutcome) -> list[str]:
    given = made.criterion.criterion
    told = [
        f"{given.metric} of at least {given.least:g}: the lower end of the interval must "
        "reach it, and the score must be above that of the constant prediction."
    ]
    if given.largest_seconds is not None:
        told.append(f"At most {given.largest_seconds:g} seconds of training.")
    if given.largest_review is not None:
        told.append(
            f"People check at most {given.largest_review:.0%} of the texts; of the others at "
            f"most {given.review_error:.1%} may be wrong."
        )
    return [*told, _changed(made), f"SHA-256 of criterion.yaml: {made.criterion.sha256}"]


def _changed(made: PilotOutcome) -> str:
    changes = made.criterion.changes
    if not changes:
        return "The criterion was written before the first training and has not changed since."
    times = "once" if len(changes) == 1 else f"{len(changes)} times"
    return f"THE CRITERION CHANGED {times} after trainings were finished; see its versions."


def _score_notes(made: PilotOutcome) -> list[str]:
    others = made.others
    return [f"The criterion is met by {listed_names(others)} too."] if others else []


def _curve_notes(made: PilotOutcome) -> list[str]:
    if not made.curves:
        return ["No learning curve: a training on fewer rows diverged."]
    metric = made.metric
    told = [
        f"{one.further} further labels are projected to change the {metric} of {one.name} "
        f"by {_percent(one.gain)} points, to {_percent(one.later)}."
        for one in made.curves[:1]
    ]
    crossing = made.crossing
    if crossing is not None:
        at = crossing.at
        told.append(
            f"No crossing point of {crossing.first} and {crossing.second}: {at.why}."
            if at.value is None
            else f"{crossing.second} overtakes {crossing.first} at {at.value:.0f} "
            f"training rows ({at.low:.0f} to {at.high:.0f})."
        )
    told.append(
        "Projections follow a power law of the error, fitted to the sizes below. Their intervals "
        "are of the rows, not of the form of the curve: beyond the measured sizes they extrapolate."
    )
    return told


def _curve_tables(made: PilotOutcome) -> list[Table]:
    if not made.curves:
        return []
    sizes = [f"{point.rows:.0f} rows" for point in made.curves[0].points]
    further = made.curves[0].further
    columns = ["method", *sizes, f"all {made.data.rows}", f"{further} more", "gain"]
    rows = [
        [
            one.name,
            *(_percent(point.score) for point in one.points),
            *map(_percent, (one.now, one.later, one.gain)),
        ]
        for one in made.curves
    ]
    note = (
        f"{made.metric} (%), measured at the numbers of training rows of a fold, "
        f"then projected. Intervals of 95 % of each figure alone, n = {made.data.rows}."
    )
    return [Table("Scores by number of labels", columns, rows, 1, [note])]


def _model(made: PilotOutcome) -> str:
    """What was exported, or why nothing was."""
    one = made.model
    if isinstance(one, NoModel):
        return f"No model is exported: {one.why}."
    left = (
        f"all but {one.calibration_rows} of the {made.data.rows} rows, which set its threshold"
        if one.calibration_rows
        else f"all {made.data.rows} rows"
    )
    least = one.least_confidence
    review = f"people review what it is less sure of than {least or 0:.4f}"
    if least is None:
        review = "no confidence is high enough, so people review all texts"
    elif least == 0:
        review = "it is sure enough of all texts, so people review none"
    return (
        f"The model of {one.method}, trained on {left}, is in {one.folder}: {review} "
        f"(review threshold: {one.cut_off})."
    )


def _review(made: PilotOutcome) -> Table:
    rows = [[f"{one.reviewed:.0%}", _percent(one.error), str(one.error.n)] for one in made.review]
    note = (
        "An estimate: out-of-fold predictions are of the models of the folds, not of the one that "
        "is used later. Intervals of 95 % of each figure alone."
    )
    columns = ["people check", "wrong among the others (%)", "n"]
    title = f"Wrong answers of {made.method}, the least sure texts checked by people"
    return Table(title, columns, rows, 1, [note])


def _latency(made: PilotOutcome) -> str:
    """Of the best candidate that was timed."""
    timed = [one for one in made.candidates if one.latency.value is not None]
    if not timed:
        return "Latency: no measurement was finished."
    found = timed[0].latency
    return (
        f"Latency of one text with {timed[0].name}: {_milliseconds(found)} ms, the median of "
        f"{found.n}, on {found.machine}."
    )


def _milliseconds(found: Estimate) -> str:
    if found.value is None:
        return "–"
    value, low, high = found.span
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _method_lines(made: PilotOutcome) -> list[str]:
    data, design = made.data, made.design
    classes = listed_names([f"{name} ({count})" for name, count in data.classes.items()], 20)
    repeats = "" if design.repeats == 1 else f", {design.repeats} times with other folds"
    rates = (
        "Learning rates are those of the methods' files."
        if design.rates == 1
        else f"The learning rate is chosen among {design.rates} inside each training fold."
    )
    return [
        f"Classes: {classes}.",
        f"Stratified cross-validation with {design.folds} folds{repeats}. {rates}",
        f"{data.near_duplicates} rows are near duplicates of another one; the rows are "
        f"{data.groups} groups, of which each stays in one fold"
        + ("." if data.group_column is None else f" (by {data.group_column})."),
        "Intervals are of the rows, drawn by groups. Another seed of training is not in them.",
        *_others(design.other_trainings),
        f"peftbench {made.version}. Everything here follows from the records in this folder.",
    ]


def _others(count: int) -> list[str]:
    """That pilots with other words were made before: the best of several looks too good."""
    if not count:
        return []
    return [
        f"OTHER PILOTS: this folder has {count_of(count, 'training')} of other methods or "
        "settings. Taking "
        "the best of several pilots says go more often than its level."
    ]


def _percent(found: Estimate) -> str:
    """A score in percent with its interval."""
    value, low, high = (round(100 * end, 1) + 0.0 for end in found.span)  # no -0
    return f"{value:.1f} [{low:.1f}, {high:.1f}]"


def _seconds(found: Estimate) -> str:
    if found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{found.value:.1f} (n = {found.n})"
    return f"{found.value:.1f} [{max(0.0, found.low):.1f}, {found.high:.1f}]"


def _plain(value: Any) -> str:
    return "–" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# pictures


def scores_figure(made: PilotOutcome) -> Figure:
    """Scores with their intervals beside the least score."""
    figure, axes = style.grid([0.5 + 0.22 * (len(made.candidates) + 1)], 1)
    axis = axes[0][0]
    named = [(one.name, one.score) for one in made.candidates]
    named.append(("constant prediction", made.constant))
    for place, (_, found) in enumerate(reversed(named)):
        value, low, high = (100 * end for end in found.span)
        axis.errorbar(
            [value], [place], xerr=[[value - low], [high - value]], fmt="o", color="#0072B2"
        )
    axis.axvline(100 * made.least, color=style.REFERENCE, linestyle=":")
    axis.set_yticks(range(len(named)), [name for name, _ in reversed(named)])
    axis.margins(y=0.15)
    axis.set_xlabel(f"{made.metric} (%)\ndotted: least of the criterion")
    return Figure(figure, "Cross-validated scores")


def curve_figure(made: PilotOutcome) -> Figure | None:
    """Scores over the number of training rows, with what is projected; None without a curve."""
    if not made.curves:
        return None
    figure, axes = style.grid([2.2], 1)
    axis = axes[0][0]
    colors = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
    total = made.data.rows
    for number, one in enumerate(made.curves):
        color = colors[number % len(colors)]
        places = [point.rows for point in one.points]
        found = [point.score for point in one.points]
        ahead = [one.now, one.later]
        for xs, shown, look in (
            (places, found, "-"),
            ([places[-1], total, total + one.further], [found[-1], *ahead], ":"),
        ):
            spans = [point.span for point in shown]
            ys = [100 * value for value, _, _ in spans]
            reach = [
                [100 * (value - low) for value, low, _ in spans],
                [100 * (high - value) for value, _, high in spans],
            ]
            axis.errorbar(
                xs,
                ys,
                yerr=reach,
                color=color,
                linestyle=look,
                marker="o",
                elinewidth=0.6,
                label=one.name if look == "-" else None,
            )
    axis.axhline(100 * made.least, color=style.REFERENCE, linestyle=":")
    axis.set_xlabel("training rows; dotted: projected")
    axis.set_ylabel(f"{made.metric} (%)")
    axis.legend()
    return Figure(figure, "Scores by number of labels")


def _curve_pictures(made: PilotOutcome) -> list[str]:
    figure = curve_figure(made)
    return [] if figure is None else [_svg(figure)]


def _svg(figure: Figure) -> str:
    return figure.file("svg").decode()
