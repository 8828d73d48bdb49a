"""HTCondor 25, from its manuals; for pools whose nodes see the results folder.

An array is a cluster of jobs, of which each is a process from 0. HTCondor has no time limit but one
that holds jobs, so held jobs that broke a limit are removed. A job that leaves with code 75 is
started again, so one that leaves for good does so with 0. Jobs get an empty environment: a login
shell reads the node's profile, which defines `module`.
"""

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from peftbench.cluster import commands
from peftbench.cluster.base import Check
from peftbench.cluster.commands import ask, reading
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    Sent,
    Submission,
    Task,
)
from peftbench.cluster.scripted import OVER, Seen, WithHistory, asked_for, named
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

#: Codes of holds that stand for a broken limit.
_LIMITS = {34: "memory", 46: "time", 47: "time"}

_COLUMNS = "ClusterId,ProcId,JobStatus,HoldReasonCode,HoldReason,NumJobStarts,Peftbench"


class HTCondor(WithHistory):
    """The schedd that this machine's commands reach."""

    title = "HTCondor"
    commands = ("condor_submit", "condor_q", "condor_rm")
    submit = ("condor_submit", "-terse")
    ends = ("condor_rm",)
    again = 75
    left_code = 0
    # a job that is evicted gets TERM, and has to say that it is not done
    warnings = WithHistory.warnings | {signal.SIGTERM}
    waits = False
    array_limit = 20000  # MAX_JOBS_PER_SUBMISSION
    settle = 20.0
    reserved = (
        *("executable", "arguments", "universe", "initialdir", "log", "queue", "batch-name"),
        *("should-transfer-files", "on-exit-remove", "periodic-remove", "max-materialize"),
    )

    @property
    def site(self) -> str | None:
        """The machine of the schedd: another one has another queue."""
        return ask("condor_config_val", "FULL_HOSTNAME").strip() or None

    def fields(self, results: ResultsFolder, submission: Submission, array: int) -> dict[str, Any]:
        """With the path of the script; see `Scripted`."""
        found = super().fields(results, submission, array)
        place = found["place"]
        if '"' in place or "'" in place or "$" in place:
            raise ConfigError(
                f"{place}: a submit description takes no quote and no dollar sign in a path; "
                "choose another folder with --results"
            )
        path = f"{place}/{array}.sh"
        return found | {"script": f"'{path}'" if " " in path else path}

    def call(self, text: str, path: Path) -> Any:
        """The description is a file of its own, and the script what jobs run; see `Scripted`."""
        described = path.with_suffix(".submit")
        described.write_text("\n".join([*asked_for(text), ""]), encoding="utf-8")
        return commands.run(*self.submit, str(described))

    def submitted(self, printed: str) -> str:
        """`12.0 - 12.7`."""
        (number,) = re.findall(r"^(\d+)\.0 - \1\.\d+$", printed.strip(), re.MULTILINE)
        return str(number)

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """By an attribute of ours; see `Scripted`."""
        only = ("-constraint", "Peftbench =!= undefined")
        answer = ask("condor_q", "-allusers", "-json", "-attributes", _COLUMNS, *only)
        names = named(submissions)
        with reading("condor_q", answer):
            jobs = json.loads(answer) if answer.strip() else []
            return {
                Task(*names[one["Peftbench"]], int(one["ProcId"])): _seen(one)
                for one in jobs
                if one["Peftbench"] in names
            }

    def history(self, sent: Sent) -> dict[int, Ending]:
        """From `condor_history`."""
        limit = str(len(sent.tasks))
        answer = ask("condor_history", "-json", "-limit", limit, str(sent.job))
        with reading("condor_history", answer):
            jobs = json.loads(answer) if answer.strip() else []
            return {int(one["ProcId"]): _ending(one) for one in jobs}

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Slots, and what a pool must have; see `base.Scheduler`."""
        found = "jobs read and write the results folder itself: nothing is transferred"
        yield Check("file system", found, f"nodes must see {results.submissions()}")
        if self.cluster.gpus and not ask("condor_status", "-constraint", "TotalGPUs > 0").strip():
            yield Check("GPUs", "no slot has any", "cluster.gpus=0", bad=True)


def _seen(one: dict[str, Any]) -> Seen:
    number, state = f"{one['ClusterId']}.{one['ProcId']}", one["JobStatus"]
    if state == 1:
        return Seen(PENDING, number)
    if state in (2, 6, 7):
        return Seen(RUNNING, number)
    if state in (3, 4):
        return Seen(OVER, number)
    if state == 5:
        reason = " ".join(str(one.get("HoldReason", "held")).split())
        broke = one.get("HoldReasonCode") in _LIMITS  # it is removed in a moment
        return Seen(PENDING, number, reason, None if broke else "condor_release JOB", broke)
    raise ValueError(f"JobStatus {state}")


def _ending(one: dict[str, Any]) -> Ending:
    code = one.get("HoldReasonCode") or one.get("LastHoldReasonCode")
    if one.get("JobStatus") == 3:
        words = str(one.get("RemoveReason") or one.get("LastHoldReason") or "removed")
        return Ending(_LIMITS.get(code or 0, "cancelled"), " ".join(words.split()))
    if one.get("ExitBySignal"):
        return Ending("exit", f"signal {one.get('ExitSignal')}")
    return Ending("exit", f"exit code {one.get('ExitCode')}")


SCHEDULER = HTCondor
