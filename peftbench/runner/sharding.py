"""A share of a sweep, for schedulers that only start the same command many times."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from peftbench.core.errors import ConfigError
from peftbench.core.plan import Plan


class JobArray(NamedTuple):
    """Variables in which a scheduler tells a job of an array its place.

    Attributes:
        own: the index of the job.
        first, last: the least and the greatest of the array; None for what it does not tell.
        step: between indices.
        total: of the jobs.
    """

    own: str
    first: str | None = None
    last: str | None = None
    step: str | None = None
    total: str | None = None


#: The variables of each scheduler. LSF tells no first index, but its job name may.
ARRAYS = {
    "Slurm": JobArray(
        "SLURM_ARRAY_TASK_ID",
        *("SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX"),
        *("SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT"),
    ),
    "PBS": JobArray("PBS_ARRAY_INDEX"),
    "Torque": JobArray("PBS_ARRAYID"),
    "LSF": JobArray("LSB_JOBINDEX", None, "LSB_JOBINDEX_END", "LSB_JOBINDEX_STEP"),
    "SGE": JobArray("SGE_TASK_ID", "SGE_TASK_FIRST", "SGE_TASK_LAST", "SGE_TASK_STEPSIZE"),
    "Kubernetes": JobArray("JOB_COMPLETION_INDEX"),
}

#: The indices of an LSF array, at the end of its job's name.
_LSF_RANGE = re.compile(r"\[(\d+)-(\d+)(?::(\d+))?\](?:%\d+)?$")


def read(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number and count of `3/10`, `auto/10` (the scheduler says the number) or `auto`.

    The number of `auto` is the job's place in its array, from 1; that of `auto/10` is too in an
    array of 10, and else its index, so that an array may repeat some of ten shards.

    Raises:
        ConfigError: for other texts, or where what the scheduler says does not tell the number.
    """
    if not (found := re.fullmatch(r"(\d+|auto)(?:/(\d+))?", text)):
        raise ConfigError(f"--shard {text}: write 3/10, auto/10, or auto")
    number, count = found.groups()
    if number != "auto":
        if count is None or not 1 <= int(number) <= int(count):
            raise ConfigError(f"--shard {text}: write i/n with i from 1 to n")
        return int(number), int(count)
    for array in ARRAYS.values():
        given = environment.get(array.own, "")
        if given.isdigit():  # SGE says "undefined" outside arrays
            placed = _place(array, environment)
            if placed is not None and count in (None, str(placed[1])):
                return placed
            if count is not None and 0 <= int(given) <= int(count) > 0:
                return int(given), int(count)
            told = [f"{name}={environment[name]}" for name in array if name and name in environment]
            raise ConfigError(
                f"--shard {text}: which of how many shares this job makes does not follow from "
                f"{', '.join(told)}; give --shard I/N, or auto/N in an array of indices 1 to N"
            )
    known = ", ".join(array.own for array in ARRAYS.values())
    raise ConfigError(
        f"--shard {text}: no scheduler says the number of this job; looked for {known}"
    )


def _place(array: JobArray, environment: Mapping[str, str]) -> tuple[int, int] | None:
    """A job's place in an array of evenly spaced indices, from 1, and how many there are."""
    names = [name for name in array if name is not None]
    said = {name: int(environment[name]) for name in names if environment.get(name, "").isdigit()}
    index, first, last, step, count = (said.get(name or "") for name in array)
    if array.own == "LSB_JOBINDEX":
        if not (named := _LSF_RANGE.search(environment.get("LSB_JOBNAME", ""))):
            return None
        first, end, spacing = (int(word or 1) for word in named.groups())
        if last not in (None, end) or step not in (None, spacing):
            return None
        last, step = end, spacing
    if index is None or first is None or last is None or not step:
        return None
    total = (last - first) // step + 1
    if (index - first) % step or not first <= index <= last or count not in (None, total):
        return None  # a list such as 1,4,7
    return (index - first) // step + 1, total


def share(plan: Plan, number: int, count: int) -> Plan:
    """The runs of a plan, with their evaluations, that are this shard's.

    Which they are depends on their keys alone, not on what is done, so shards never overlap; runs
    of one method or size do not gather in one shard.
    """
    keys = sorted(run.key for run in plan.runs)
    ours = set(keys[number % count :: count])
    return replace(
        plan,
        runs=[run for run in plan.runs if run.key in ours],
        evaluations=[one for one in plan.evaluations if one.run.key in ours],
    )
