"""Figures of suites as columns of the records: `suite.NAME.FIGURE`, such as suite.latency.ms_p50.

Figures that are costs of a machine come with it, as `suite.NAME.environment.FIELD`: a run may have
trained on another one.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from peftbench.analysis import convention, costs
from peftbench.core.errors import ConfigError
from peftbench.results.frame import RecordFrame
from peftbench.results.store import ResultsFolder

_PREFIX = "suite."


def suite_of(field: str) -> str | None:
    """The name of the suite that a field is of; None for a field of the records themselves."""
    name, dot, figure = field.removeprefix(_PREFIX).partition(".")
    return name if field.startswith(_PREFIX) and dot and figure else None


def with_suites(
    frame: RecordFrame, results: ResultsFolder, names: Iterable[str]
) -> tuple[RecordFrame, list[str]]:
    """The records with columns of the suites of these names.

    Returns:
        The frame, and why evaluations are left out.

    Raises:
        ConfigError: if there is no such evaluation, or a run has several by one suite.
    """
    import pandas as pd

    good, bad = results.scan_evaluated()
    rows: dict[str, dict[str, Any]] = {}
    known = {e.evaluation.suite["name"] for e in good}
    for name in dict.fromkeys(names):
        if name not in known:
            there = f"there are those of {', '.join(sorted(known))}" if known else "there are none"
            raise ConfigError(f"suite.{name}: no evaluation by suite={name}; {there}")
        done: set[str] = set()
        for one in convention.counted_evaluations(good):
            key, start = one.evaluation.run.key, f"{_PREFIX}{name}."
            if one.evaluation.suite["name"] != name:
                continue
            if key in done:
                raise ConfigError(
                    f"suite.{name}: run {key} has several evaluations by it, with other values; "
                    "keep one of them in the results folder, or give the suites names of their own"
                )
            done.add(key)
            row = rows.setdefault(key, {})
            row |= {f"{start}{figure}": value for figure, value in one.headline.items()}
            if one.evaluation.kind in costs.TIMED:
                where = costs.machine(one)._asdict()
                row |= {f"{start}environment.{field}": value for field, value in where.items()}
    told = [f"left out, unreadable: {reason}" for reason in bad.values()]
    made = pd.DataFrame.from_dict(rows, orient="index")
    return replace(frame, suites=made[sorted(made.columns)]), told


def machine_columns(field: str, names: Iterable[str]) -> list[str]:
    """The columns of the machine that a suite's figure was taken on; none for other figures."""
    suite = suite_of(field)
    return [n for n in names if suite and n.startswith(f"{_PREFIX}{suite}.environment.")]
