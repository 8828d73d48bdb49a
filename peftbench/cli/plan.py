"""The table of `peftbench plan`."""

from peftbench.config import catalog
from peftbench.core.run import Run
from peftbench.core.text import count_of, format_duration
from peftbench.reports.tables.markdown import Table
from peftbench.results.status import SweepStatus
from peftbench.runner import prefetch
from peftbench.system import offline_folder

_RATE = "train.lr"


def plan_table(status: SweepStatus) -> Table:
    """One line for runs that differ in nothing but seeds.

    A table of 80 columns: what all lines share stands in the title or in the summary below.
    """
    models = {run.model.name for run in status.plan.runs}
    shown = ["method", "task", *(["model"] if len(models) > 1 else []), "size"]
    shown += [
        axis
        for axis in status.plan.axes
        if axis in catalog.LATER or ("." in axis and not axis.startswith("seed."))
    ]
    rates = {_value(run, _RATE) for run in status.plan.runs}
    if len(rates) > 1 and _RATE not in shown:
        shown.append(_RATE)
    lines: dict[tuple[str, ...], list[Run]] = {}
    for run in status.plan.runs:
        lines.setdefault(tuple(_value(run, name) for name in shown), []).append(run)
    rows = []
    for line, runs in lines.items():
        states = [status.state(run) for run in runs]
        todo = [run for run in runs if run.key not in status.done]
        known = [s for run in todo if (s := status.forecast.seconds(run)) is not None]
        rough = [s for run in todo if (s := status.forecast.rough(run)) is not None]
        rows.append(
            [
                *line,
                _seeds(runs),
                *(str(states.count(word) or "") for word in ("done", "missing", "failed")),
                _time(known, rough) if todo else "",
            ]
        )
    columns = [*_short(shown), "seeds", "done", "missing", "failed", "time"]
    for place in range(len(columns) - 2, len(shown), -1):  # counts that no line has
        if not any(row[place] for row in rows):
            columns.pop(place)
            rows = [[*row[:place], *row[place + 1 :]] for row in rows]
    if len(columns) == len(shown) + 3:  # one kind of count: the number of seeds
        columns.pop(-2)
        rows = [[*row[:-2], row[-1]] for row in rows]
    title = count_of(len(status.plan.runs), "run")
    if len(models) == 1:
        title += f" of {models.pop()}"
    if len(rates) == 1:
        title += f", {_RATE}={rates.pop()}"
    return Table(title, columns, rows, len(shown) + 1)


def _short(names: list[str]) -> list[str]:
    """The last parts of names, whole where two would be the same."""
    ends = [name.rpartition(".")[2] for name in names]
    return [end if ends.count(end) == 1 else name for end, name in zip(ends, names, strict=True)]


def _time(known: list[float], rough: list[float]) -> str:
    if known:
        return format_duration(sum(known))
    return f"~ {format_duration(sum(rough))}" if rough else "?"


def checkpoint_lines(status: SweepStatus) -> list[str]:
    """What is odd about checkpoints; which were not opened and what is fetched, for runs to do."""
    plan = status.plan
    lines = [f"note: {note}" for note in plan.notes]
    left = status.remaining()
    if not (left.runs or left.evaluations):  # nothing is read any more
        return lines
    lines += [f"not checked: {line}" for line in plan.unchecked]
    if wanted := prefetch.to_fetch(left, offline_folder.data_root() or plan.data_root):
        told = [
            f"{name} ({'size unknown' if size is None else f'about {size / 1e6:,.0f} MB'})"
            for name, size in wanted.items()
        ]
        lines.append(f"to be fetched: {', '.join(told)}")
    return lines


def _value(run: Run, name: str) -> str:
    """The value of a run under an override's key: `method`, `size`, `train.lr`."""
    node: object = run.to_json()
    if name in catalog.LATER and getattr(run, name) is None:
        return catalog.LATER[name]
    for part in name.split("."):
        node = node.get(part, "") if isinstance(node, dict) else ""
    value = node["name"] if isinstance(node, dict) else node
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seeds(runs: list[Run]) -> str:
    """Seeds of runs, and how many of these runs have seeds of single roles."""
    told = _ranges(list({run.seed for run in runs}))
    own = sum(run.role_seeds is not None for run in runs)
    return told + (f", {own} with seeds of roles" if own else "")


def _ranges(seeds: list[int]) -> str:
    """0-4 for 0 1 2 3 4."""
    parts: list[list[int]] = []
    for seed in sorted(seeds):
        if parts and seed == parts[-1][-1] + 1:
            parts[-1].append(seed)
        else:
            parts.append([seed])
    return ",".join(str(p[0]) if len(p) == 1 else f"{p[0]}-{p[-1]}" for p in parts)
