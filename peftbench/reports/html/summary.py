"""What the numbers say, in sentences that follow from them."""

from collections import Counter

from peftbench.analysis import convention, failures, grouping
from peftbench.analysis.comparison import PairedComparison
from peftbench.analysis.significance import DETECTED
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record
from peftbench.core.text import count_of
from peftbench.core.text import listed_names as named
from peftbench.reports import glossary
from peftbench.reports.base import Inputs
from peftbench.reports.html.cells import ScoreCell, cheapest_front

#: Tasks and sizes that get a sentence each; of more than these the sentences tell totals.
MOST = 12


def summary(inputs: Inputs, found: list[ScoreCell], labels: dict[grouping.Row, str]) -> list[Json]:
    """Paragraphs: a heading and its sentences.

    `found` are cells of the records, `labels` those of the rows.
    """
    records, evaluated, pairs = inputs.records, inputs.evaluated, inputs.pairs
    sized = sorted({cell.sized for cell in found})
    titles = {one: glossary.section(grouping.title(one, sized)) for one in sized}
    labels = {row: _said(label) for row, label in labels.items()}
    parts = {titles[one]: [cell for cell in found if cell.sized == one] for one in sized[:MOST]}
    told = {
        "What was run": _ran(records, evaluated, found),
        "What the scores say": _scores(parts, labels),
        "Which differences are decided": _decided(pairs),
        "What collapsed": [
            *_collapsed(records, found, titles, labels),
            *failures.diverged_notes([record.run for record in records], inputs.diverged),
        ],
        "What it costs": [*[inputs.warning] * bool(inputs.warning), *_costs(parts, labels)],
    }
    return [{"heading": name, "sentences": lines} for name, lines in told.items() if lines]


def _said(label: str) -> str:
    """A row's method by name, settings in brackets, so that it can stand in a list."""
    method, _, rest = glossary.row(label).partition(", ")
    return f"{method} ({rest})" if rest else method


def _span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _ran(records: list[Record], evaluated: list[Evaluated], found: list[ScoreCell]) -> list[str]:
    models = sorted({record.run.model.name for record in records})
    methods = {record.run.method.name for record in records}
    tasks = sorted({glossary.name("tasks", record.run.task.name) for record in records})
    sizes = [record.work["train_size"] for record in records]
    seeds = [len(cell.records) for cell in found]
    where = Counter((r.environment["device"], r.environment["threads"]) for r in records)
    lines = [
        f"{count_of(len(records), 'run')} of {count_of(len(methods), 'method')} on "
        f"{count_of(len(tasks), 'task')} ({named(tasks)}) with {named(models)}; "
        f"{_span(sizes)} training examples; {_span(seeds)} "
        f"{'seed' if max(seeds) == 1 else 'seeds'} of each method, task and size.",
        "Trained on "
        + named(
            f"{device} with {count_of(threads, 'thread')}"
            + (f" ({count_of(count, 'run')})" if len(where) > 1 else "")
            for (device, threads), count in sorted(where.items(), key=lambda one: -one[1])
        )
        + f", {sum(sum(record.seconds.values()) for record in records) / 3600:,.1f} hours in all.",
    ]
    if evaluated:
        asked = Counter(e.evaluation.suite["name"] for e in evaluated)
        lines.append(
            f"{count_of(len(evaluated), 'evaluation')} beyond the score: "
            + named(f"{name} ({count:,})" for name, count in sorted(asked.items()))
            + "."
        )
    if max(seeds) == 1:
        lines.append("With one seed of each, the variation over seeds cannot be estimated.")
    return lines


def _scores(parts: dict[str, list[ScoreCell]], labels: dict[grouping.Row, str]) -> list[str]:
    """The best mean of each task and size, beside the constant prediction's."""
    lines = []
    for title, here in parts.items():
        scored = [(cell.score, cell) for cell in here if cell.score is not None]
        if not scored:
            lines.append(f"{title}: no method has a defined score.")
            continue
        best, cell = max(scored, key=lambda one: one[0])
        metric = cell.metric
        every = [record for one in here for record in one.records]
        level = convention.baseline(every, metric)
        less = [one for score, one in scored if level is not None and score <= level]
        text = f"{title}: {labels[cell.row]} has the highest mean {glossary.metric(metric)}, "
        text += f"{100 * best:.1f} % ({_seeds(cell)})"
        if level is not None:
            text += f"; the {convention.BASELINE} has {100 * level:.1f} %"
        if less:
            text += f"; not above it: {named(labels[one.row] for one in less)}"
        lines.append(text + ".")
    return lines


def _seeds(cell: ScoreCell) -> str:
    some = f"{len(cell.defined)} of " if len(cell.defined) < len(cell.records) else ""
    more = f", {count_of(cell.diverged, 'more seed')} diverged" if cell.diverged else ""
    return f"n = {some}{len(cell.records)}{more}"


def _decided(pairs: list[PairedComparison]) -> list[str]:
    """Verdicts on each task and size: decided and undecided."""
    if not pairs:
        return []
    kinds = Counter(pair.kind for pair in pairs)
    points = 100 * pairs[0].margin
    margin = f"{points:g} point" + "s" * (points != 1)
    against = sorted({_said(pair.against) for pair in pairs})
    over = sum(pair.overstated for pair in pairs)
    lines = [
        f"{count_of(len(pairs), 'comparison')} with {named(against)}: "
        f"{kinds['better'] + kinds['worse']} decided ({kinds['better']} better, "
        f"{kinds['worse']} worse), {kinds['not worse']} not worse within {margin}, "
        f"{kinds['undecided']} undecided"
        + (f", {count_of(over, 'verdict')} for a side of which seeds diverged" if over else "")
        + "".join(f", {kinds[kind]} {told}" for kind, told in _OTHER.items() if kinds[kind])
        + "."
    ]
    tasks = list(dict.fromkeys(pair.task for pair in pairs))
    for task in tasks[:MOST]:
        here = [pair for pair in pairs if pair.task == task]
        base = _said(here[0].against)
        told = []
        for kind in ("better", "worse", "not worse"):
            members = [pair for pair in here if pair.kind == kind]
            if members:
                within = f" within {margin}" if kind == "not worse" else ""
                told.append(f"{kind} than {base}{within}: {named(map(_effect, members), 4)}")
        left = [pair for pair in here if pair.kind == "undecided" and pair.effect]
        if left:
            rows = named([_said(pair.label) for pair in left], 4)
            told.append(f"not significantly different from {base}: {rows}{_detectable(left)}")
        if told:
            lines.append(f"{glossary.section(task)}: {'; '.join(told)}.")
    return lines


def _detectable(left: list[PairedComparison]) -> str:
    """What undecided comparisons would have detected, by their numbers of seeds."""
    by_seeds: dict[int, list[float]] = {}
    for pair in left:
        if pair.effect is not None and pair.effect.detectable == pair.effect.detectable:
            by_seeds.setdefault(pair.seeds, []).append(100 * pair.effect.detectable)
    if not by_seeds:
        return ""
    told = []
    for seeds, least in sorted(by_seeds.items()):
        low, high = f"{min(least):.1f}", f"{max(least):.1f}"
        span = low if low == high else f"{low} to {high}"
        told.append(f"{span} points with {count_of(seeds, 'seed')}")
    return (
        f" (a true difference of {' or of '.join(told)} and {left[0].examples:,} examples is "
        f"detected {DETECTED})"
    )


#: Kinds of pairs of which there is nothing to decide, in words.
_OTHER = {
    "both collapsed": "between collapsed rows",
    "one seed": "with one seed, which compares two models, not two methods",
    "undefined": "not possible (labels of one class)",
    "no seed in common": "without a seed in common",
}


def _effect(pair: PairedComparison) -> str:
    if pair.effect is None:
        return _said(pair.label)
    low, value, high = (100 * end for end in (pair.effect.low, pair.effect.value, pair.effect.high))
    text = f"({value:+.1f} points, 95 % interval {low:+.1f} to {high:+.1f}{pair.given})"
    return f"{_said(pair.label)} {text.replace('-', _MINUS)}"


_MINUS = "\N{MINUS SIGN}"


def _collapsed(
    records: list[Record],
    found: list[ScoreCell],
    titles: dict[tuple[str, int], str],
    labels: dict[grouping.Row, str],
) -> list[str]:
    """How many runs answer the same throughout, and where."""
    total = sum(record.collapsed for record in records)
    if not total:
        return ["No run collapsed: none predicts one class or value for every example."]
    lines = [
        f"{total:,} of {count_of(len(records), 'run')} collapsed: they predict one class or value "
        f"for every example. {convention.NOTE}"
    ]
    parts = []
    for one, title in titles.items():
        here = [cell for cell in found if cell.sized == one]
        gone, every = sum(c.collapsed for c in here), sum(len(c.records) for c in here)
        if gone:
            parts.append((gone, f"{gone} of {every} on {title}"))
    parts.sort(key=lambda part: -part[0])
    lines.append(f"Where: {named(text for _, text in parts)}.")
    for one, title in titles.items():
        here = [cell for cell in found if cell.sized == one]
        all_of = [labels[cell.row] for cell in here if cell.collapsed == len(cell.records)]
        if all_of and len(titles) <= MOST:
            lines.append(f"{title}: every run of {named(all_of, 12)} collapsed.")
    return lines


def _costs(parts: dict[str, list[ScoreCell]], labels: dict[grouping.Row, str]) -> list[str]:
    """Quickest and slowest, and what nothing beats in score and seconds at once."""
    lines = []
    for title, here in parts.items():
        if len(here) < 2:
            continue
        if len({machine for cell in here for machine in cell.machines}) > 1:
            lines.append(f"{title}: seconds were taken on different machines and do not compare.")
            continue
        order = sorted(here, key=lambda cell: cell.seconds)
        first, last = order[0], order[-1]
        best = cheapest_front(here, lambda cell: cell.total, across=True)
        tuned = any(cell.tuned.choices for cell in here)
        less = "less time, the trials of tuned ones counted," if tuned else "less time"
        lines.append(
            f"{title}: training takes from {_seconds(first)} ({labels[first.row]}) to "
            f"{_seconds(last)} ({labels[last.row]})"
            + (
                f"; nothing scores as high in {less} than {named(labels[c.row] for c in best)}"
                if best
                else ""
            )
            + "."
        )
    return lines


def _seconds(cell: ScoreCell) -> str:
    return f"{cell.seconds:,.0f} s" if cell.seconds >= 10 else f"{cell.seconds:.1f} s"
