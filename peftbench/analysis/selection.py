"""Runs for which conditions such as `task=mrpc size>=100` hold: of plans, and of records.

Conditions are those of `analysis.fields`, the same wherever a command takes `--where`.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from peftbench.analysis import fields
from peftbench.core.errors import no_records
from peftbench.core.evaluation import Evaluated
from peftbench.core.plan import Plan
from peftbench.core.run import Json, Record, Run, canonical, flattened, identity
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder

if TYPE_CHECKING:
    import pandas as pd


def keys(results: ResultsFolder, where: str) -> set[str]:
    """Keys of the records of a folder for which all conditions hold.

    Raises:
        ConfigError: if a condition is none, names no field, or leaves no record.
    """
    records = load_frame(results)
    if not len(records):
        raise no_records(results.folder, records.unreadable)
    asked = fields.conditions(where, records.columns)
    names = {"key", "run.size", *(one.field for one in asked)}
    return set(fields.kept(records.read(sorted(names)), asked)["key"])


def of_records(
    results: ResultsFolder, records: list[Record], evaluated: list[Evaluated], where: str
) -> tuple[list[Record], list[Evaluated]]:
    """The records and evaluations of runs for which all conditions hold; all without conditions.

    Raises:
        ConfigError: as `keys`.
    """
    if not where or not records:
        return records, evaluated
    kept = keys(results, where)
    return (
        [record for record in records if record.run.key in kept],
        [one for one in evaluated if one.evaluation.run.key in kept],
    )


def of_plan(plan: Plan, where: str) -> Plan:
    """The runs of a plan for which all conditions hold, with their evaluations.

    Fields are those of a run; `size` is the number of its training examples where that is known.

    Raises:
        ConfigError: if a condition is none, names no field, or leaves no run.
    """
    if not where or not plan.runs:
        return plan
    frame = _frame(plan.runs)
    kept = set(fields.kept(frame, fields.conditions(where, frame.columns))["key"])
    runs = [run for run in plan.runs if run.key in kept]
    evaluations = [one for one in plan.evaluations if one.run.key in kept]
    return replace(plan, runs=runs, cells=len(runs), repeats=[], evaluations=evaluations)


def _frame(runs: list[Run]) -> "pd.DataFrame":
    """A row a run, a column a scalar, named and typed as those of records."""
    import pandas as pd

    rows = []
    for run in runs:
        size = run.counted_size
        row: Json = {
            "key": run.key,
            "work.train_size": size if isinstance(size, int) else None,
            "prompt": run.prompt.name if run.prompt else "head",
            "augmentation": run.augmentation.name if run.augmentation else "none",
        }
        rows.append(row | flattened({"run": identity(run.to_json()) | {"size": str(run.size)}}))
    frame = pd.DataFrame(rows).convert_dtypes()
    for name in frame.select_dtypes(object):  # values of several types
        frame[name] = frame[name].map(_text, na_action="ignore")
    return frame


def _text(value: object) -> str:
    return value if isinstance(value, str) else canonical(value)
