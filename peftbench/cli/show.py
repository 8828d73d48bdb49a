"""One record or one evaluation for a person or a script: the command `show`."""

import json
from collections.abc import Iterator
from typing import Any

import click

from peftbench.config import derived_overrides
from peftbench.config.override_parsing import override_value
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record, Run, leaves
from peftbench.core.text import command, one_line
from peftbench.metrics.task_metrics import factor
from peftbench.results.store import ResultsFolder
from peftbench.system import terminal

#: Column at which values stand.
_VALUES = 13

#: The word before the command that repeats a run.
_REPEAT = "repeat"

#: Values of a list that a line has room for.
_MOST = 12

#: Classes whose figures are shown, at most.
_MOST_CLASSES = 10


def print_lines(shown: str) -> None:
    """Print what is described, broken at the width of a terminal, but for a command to copy."""
    for line in shown.split("\n"):
        click.echo(line if line.startswith(f"{_REPEAT} ") else terminal.fitted(line, _VALUES))


def describe(results: ResultsFolder, start: str) -> str:
    """One record or evaluation as a person reads it.

    Raises:
        RecordError: if none, or more than one, begins with these digits.
    """
    found = _load(results, start)
    if isinstance(found, Record):
        lines = [*_record(found), *_files(found, results)]
        lines += _repeat(found.run)
    else:
        lines = _evaluated(found)
    return "\n".join(map(one_line, lines))


def describe_json(results: ResultsFolder, start: str) -> str:
    """The content of the file of one record or evaluation.

    Raises:
        RecordError: if none, or more than one, begins with these digits.
    """
    return json.dumps(_load(results, start).to_json(), indent=1)


def listed(results: ResultsFolder, where: str) -> str:
    """The record for which conditions hold as `describe`, or a line for each of several.

    Raises:
        ConfigError: if they are no conditions, or hold for no record.
    """
    records = _selected(results, where)
    if len(records) == 1:
        return describe(results, records[0].run.key)
    lines = [f"{len(records)} records; `peftbench show KEY` shows one:"]
    for record in records:
        score = _percent({record.run.task.metric: record.score})
        lines.append(f"{record.run.key}  {record.run.title}  {score}")
    return "\n".join(map(one_line, lines))


def listed_json(results: ResultsFolder, where: str) -> str:
    """The contents of the files of the records for which conditions hold, as a list.

    Raises:
        ConfigError: as `listed`.
    """
    return json.dumps([record.to_json() for record in _selected(results, where)], indent=1)


def _selected(results: ResultsFolder, where: str) -> list[Record]:
    from peftbench.analysis import selection

    kept = selection.keys(results, where)
    return [record for record in results.scan()[0] if record.run.key in kept]


def _load(results: ResultsFolder, start: str) -> Record | Evaluated:
    records, evaluations = results.keys(), results.evaluations()
    key = results.key_of(start, [*records, *evaluations])
    return results.load(key) if key in records else results.evaluated(key)


def _repeat(run: Run) -> list[str]:
    """The command that trains a run again, or why none can be given."""
    if "file" in run.task.source and not derived_overrides.file_at_hand(run):
        return _repeat_with_file(run)
    return [f"{_REPEAT:{_VALUES}}{_same(run)}"]


def _repeat_with_file(run: Run) -> list[str]:
    """The same for a run of a user's own file that is not where it was."""
    try:
        overrides = derived_overrides.overrides_with_file(run)
    except ConfigError as error:
        return [f"{_REPEAT:{_VALUES}}none: {error}"]
    same = command("run", *derived_overrides.as_arguments(overrides))
    hashes = " and ".join(one[:12] for one in run.task.source["file"].values())
    return [
        f"{_REPEAT:{_VALUES}}{same}",
        f"{derived_overrides.FILE:{_VALUES}}must be the file with these rows (SHA-256 {hashes}); "
        f"it is not at {run.task.path}",
    ]


def _same(run: Run) -> str:
    try:
        overrides, again = derived_overrides.closest_overrides(run)
    except ConfigError as error:
        return f"none: {error}"
    same = command("run", *derived_overrides.as_arguments(overrides))
    if again.key == run.key:
        return same
    if overrides["model"] == "auto":
        return (
            f"none: {overrides['model.checkpoint']} is another checkpoint now, or the code is other"
        )
    return f"{same}  (is run {again.key} by today's code)"


def _files(record: Record, results: ResultsFolder) -> list[str]:
    """Paths of the run's log and weights, where they are there."""
    key = record.run.key
    found = {"log": results.log(key), "weights": results.trained(key)}
    return [f"{name:<12} {path}" for name, path in found.items() if path.is_file()]


def find(results: ResultsFolder, start: str) -> Record:
    """The one record whose key begins with these digits.

    Raises:
        RecordError: if no record, or more than one, does.
    """
    return results.load(results.key_of(start))


def _evaluated(found: Evaluated) -> list[str]:
    asked, place = found.evaluation.suite, found.environment
    said = {k: v for k, v in asked.items() if k not in ("name", "_target_", "targets", "sequence")}
    return [
        found.evaluation.title,
        f"key          {found.evaluation.key}",
        f"of run       {found.evaluation.run.key}",
        "asked        " + ", ".join(f"{name} {value}" for name, value in said.items()),
        "seconds      " + ", ".join(f"{name} {s:.2f}" for name, s in found.seconds.items()),
        *(f"{name:<28} {value}" for name, value in _findings(found.findings)),
        f"device       {place['device']}, {_threads(place)}",
        f"commit       {(place['commit'] or 'unknown')[:12]}",
    ]


def _findings(found: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every finding by its dotted name; of long lists how long they are."""
    for name, value in leaves(found, prefix):
        if not isinstance(value, list):
            yield name, _text(value)
        elif value and isinstance(value[0], dict | list):
            yield from _findings({str(number): one for number, one in enumerate(value)}, f"{name}.")
        else:
            few = ", ".join(map(_text, value))
            yield name, few if len(value) <= _MOST else f"{len(value)} values"


def _text(value: Any) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _figure(value: float | None, form: str) -> str:
    """A figure, or that there is none: of a run that trained no step."""
    return "–" if value is None else format(value, form)


def _classes(work: Json) -> list[str]:
    """Figures of each class, the most frequent first; the others are in the record."""
    found = sorted(work.get("per_class", []), key=lambda one: -one["examples"])
    lines = []
    for one in found[:_MOST_CLASSES]:
        figures = ", ".join(
            f"{name} {'undefined' if one[name] is None else f'{100 * one[name]:.2f}'}"
            for name in ("precision", "recall", "f1")
        )
        lines.append(f"class        {one['class']}: {one['examples']:,} examples, {figures}")
    if len(found) > _MOST_CLASSES:
        lines.append(f"             … and {len(found) - _MOST_CLASSES} more")
    return lines


def _texts(work: Json) -> list[str]:
    """How long texts are that were written, how many are empty, and how many end at the limit."""
    if (found := work.get("texts")) is None:
        return []
    return [
        f"texts        {found['mean_tokens']:.1f} tokens on average, {found['empty']:,} empty, "
        f"{found['cut']:,} as long as allowed"
    ]


def _threads(place: Json) -> str:
    return f"{place['threads']} thread{'s' * (place['threads'] != 1)}"


def _percent(scores: Json) -> str:
    return ", ".join(
        f"{name} {'undefined' if value is None else f'{factor(name) * value:.2f}'}"
        for name, value in scores.items()
    )


def _record(record: Record) -> list[str]:
    run, work = record.run, record.work

    lines = [
        run.title,
        f"key          {run.key}",
        f"scores       {_percent(record.metrics)}" + ("  COLLAPSED" if record.collapsed else ""),
        f"constant     {_percent(record.trivial)}",
        *_classes(work),
        *_texts(work),
        *(
            [f"out of range {far:,} predictions, far from every label"]
            if (far := work.get("out_of_range"))
            else []
        ),
        *(
            f"undefined    {name} of the method, at {count} of {len(record.curve)} evaluations"
            for name, count in work.get("undefined", {}).items()
        ),
        f"trained      {record.parameters['trained']:,} + head {record.parameters['head']:,}"
        f" of {record.parameters['total']:,} parameters",
        f"work         {work['steps']:,} steps, {work['examples']:,} examples"
        f" ({work['epochs']:.2f} epochs of {work['train_size']:,}), {work['tokens']:,} tokens,"
        f" micro-batch {work['micro_batch_size']}",
        "seconds      " + ", ".join(f"{name} {s:.2f}" for name, s in record.seconds.items()),
        f"speed        {_figure(record.speed['examples_per_second'], '.1f')} examples/s,"
        f" {_figure(record.speed['tokens_per_second'], ',.0f')} tokens/s",
    ]
    for kind, phases in record.memory.items():
        peaks = [f"{n} {'?' if b is None else f'{b / 2**20:,.0f} MiB'}" for n, b in phases.items()]
        lines.append(f"{kind.removesuffix('_bytes'):<12} {', '.join(peaks)}")
    if record.energy_joules is not None:
        lines.append(f"energy       {record.energy_joules:,.0f} J")
    if record.flops is not None:
        lines.append(f"model FLOPs  {record.flops:.3g}")
    parts = run.to_json()
    for node in (node for node in derived_overrides.CHANGED if parts[node]):
        values = {k: v for k, v in parts[node].items() if k not in ("name", "_target_")}
        told = ", ".join(f"{name} {override_value(value)}" for name, value in values.items())
        lines.append(f"{node:<12} {told}")
    lines.append("curve        step, fraction, train seconds, training loss, scores")
    for point in record.curve:
        scores = {k: v for k, v in point.items() if k in run.task.metrics}
        lines.append(
            f"  {point['step']:>7}  {point['fraction']:.2f}  {point['seconds']:8.1f}"
            f"  {_figure(point['loss'], '.4f')}  {_percent(scores)}"
        )
    place = record.environment
    versions = ", ".join(f"{name} {number}" for name, number in place["libraries"].items())
    dirty = " + uncommitted changes" if place["dirty"] else ""
    lines += [
        f"device       {place['device']}, {_threads(place)}, {place['precision']}",
        f"versions     Python {place['python']}, {versions}",
        f"commit       {(place['commit'] or 'unknown')[:12]}{dirty}",
    ]
    return lines
