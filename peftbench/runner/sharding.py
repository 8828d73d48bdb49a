"""A share of a sweep, for schedulers that only start the same command many times."""

import os
import re
from collections.abc import Mapping
from dataclasses import replace

from peftbench.core.errors import ConfigError
from peftbench.core.plan import Plan

#: What schedulers tell the jobs of an array: its number, and how many there are, where they say so.
#: Numbers may begin at 0 or 1 (or anywhere): they are taken modulo the count.
ARRAYS = {
    "Slurm": ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT"),
    "PBS": ("PBS_ARRAY_INDEX", None),
    "Torque": ("PBS_ARRAYID", None),
    "LSF": ("LSB_JOBINDEX", "LSB_JOBINDEX_END"),
    "SGE": ("SGE_TASK_ID", "SGE_TASK_LAST"),
    "Kubernetes": ("JOB_COMPLETION_INDEX", None),
}


def read(text: str, environment: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """Number and count of `3/10`, `auto/10` (the scheduler says the number) or `auto`.

    Raises:
        ConfigError: for other texts, or where no scheduler says what is left open.
    """
    if not (found := re.fullmatch(r"(\d+|auto)(?:/(\d+))?", text)):
        raise ConfigError(f"--shard {text}: write 3/10, auto/10, or auto")
    number, count = found.groups()
    if number != "auto":
        if count is None or not 1 <= int(number) <= int(count):
            raise ConfigError(f"--shard {text}: write i/n with i from 1 to n")
        return int(number), int(count)
    for index, total in ARRAYS.values():
        given = environment.get(index, "")
        if given.isdigit():  # SGE says "undefined" outside arrays
            count = count or environment.get(total or "", "")
            if not count.isdigit() or count == "0":
                raise ConfigError(
                    f"--shard {text}: {index}={given} does not say of how many: auto/n"
                )
            return int(given), int(count)
    known = ", ".join(index for index, _ in ARRAYS.values())
    raise ConfigError(
        f"--shard {text}: no scheduler says the number of this job; looked for {known}"
    )


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
