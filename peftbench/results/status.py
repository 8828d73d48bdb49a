"""What is done, missing or failed, and what one record says."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from peftbench.core.errors import ClosedFileError, ConfigError, OtherSchemaError, RecordError
from peftbench.core.evaluation import Evaluated, Evaluation, Job
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan
from peftbench.core.run import Json, Record, Run
from peftbench.core.text import count_of, format_duration
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.system.hardware import cores


@dataclass(frozen=True)
class SweepStatus:
    """A plan beside the results folder that it is to fill.

    Attributes:
        done: keys of runs with a record, and of evaluations that were made.
        failed: those that were tried and are not.
        bad: torn files, and what is wrong with them; they are made again.
        closed: keys of files that the system does not let be read, and why; they may be good work.
        records: of runs of the plan, in its order.
        evaluated: what evaluations of the plan found, in its order.
    """

    plan: Plan
    folder: Path
    done: set[str]
    failed: dict[str, Failure]
    bad: dict[str, str]
    forecast: Forecast
    records: list[Record]
    evaluated: list[Evaluated]
    closed: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> list[Run]:
        """Runs without a record, failed ones included."""
        return [run for run in self.plan.runs if run.key not in self.done]

    @property
    def unevaluated(self) -> list[Evaluation]:
        """Evaluations that were not made."""
        return [one for one in self.plan.evaluations if one.key not in self.done]

    def remaining(self) -> Plan:
        """The part of the plan that is not done: evaluations, and the runs that work is for."""
        evaluations = self.unevaluated
        runs = dict.fromkeys([*self.missing, *(one.run for one in evaluations)])
        return replace(self.plan, runs=[*runs], evaluations=evaluations)

    def unreadable(self) -> list[str]:
        """A sentence for each record that is there and does not count."""
        lines = [f"  made again: {reason}" for reason in self.bad.values()]
        return lines + [f"  left out: {reason}" for reason in self.closed.values()]

    def refuse_closed(self) -> None:
        """Refuse to do what may be done already, in files that cannot be read.

        Raises:
            ConfigError: naming them.
        """
        if self.closed:
            more = f" (and {len(self.closed) - 3} more)" if len(self.closed) > 3 else ""
            raise ConfigError(
                f"{'; '.join([*self.closed.values()][:3])}{more}: the work may be done; let your "
                "user read the file, remove it, or choose another --results"
            )

    def state(self, job: Job) -> str:
        """The word for a run or an evaluation: done, failed or missing."""
        if job.key in self.done:
            return "done"
        return "failed" if job.key in self.failed else "missing"

    def _told(self, job: Job) -> Json:
        note = None if job.key in self.done else self.failed.get(job.key)
        failure = None if note is None else {"kind": note.kind, "reason": note.reason}
        return {"state": self.state(job), "failure": failure}

    def json(self) -> Json:
        """For scripts."""
        return {
            "cells": self.plan.cells,
            "repeats": [{"words": a, "same_as": b} for a, b in self.plan.repeats],
            "runs": [
                {
                    "key": run.key,
                    "title": run.title,
                    **self._told(run),
                    "seconds": self.forecast.seconds(run),
                    "run": run.to_json(),
                }
                for run in self.plan.runs
            ],
            "evaluations": [
                {
                    "key": one.key,
                    "run": one.run.key,
                    "suite": one.suite["name"],
                    **self._told(one),
                }
                for one in self.plan.evaluations
            ],
        }

    def left(self) -> str:
        """How much there is to do, in a few words."""
        found = f"{len(self.missing)} of {len(self.plan.runs)} trainings to do"
        if self.plan.evaluations:
            found += f", {len(self.unevaluated)} of {len(self.plan.evaluations)} evaluations"
        return found

    def summary(self) -> str:
        """What there is to do, and what went wrong before, in sentences."""
        plan, missing = self.plan, self.missing
        lines = [count_of(len(plan.runs), "distinct run")]
        if plan.repeats:
            lines[0] = f"{plan.cells} grid points are {lines[0]}"
        lines[0] += f": {len(plan.runs) - len(missing):,} done, {len(missing):,} missing"
        if failed := sum(run.key in self.failed for run in missing):
            lines[0] += f", {failed:,} of them failed before"
        for again, first in plan.repeats[:5]:
            lines.append(f"  {again} duplicates {first}")
        if len(plan.repeats) > 5:
            lines.append(f"  … and {len(plan.repeats) - 5} more grid points that duplicate others")
        lines += [
            f"  failed ({note.kind}) {note.job.title}: {note.reason}"
            for note in self.failed.values()
        ]
        if plan.evaluations:
            todo, every = len(self.unevaluated), len(plan.evaluations)
            lines.append(
                f"{count_of(every, 'evaluation')} of these runs: "
                f"{every - todo:,} done, {todo:,} missing"
                + ", on top of the time below"
                * bool(todo and missing)
            )
        lines += self.unreadable()
        times = [self.forecast.seconds(run) for run in missing]
        known = [seconds for seconds in times if seconds is not None]
        if known:
            rest = f", {len(times) - len(known)} of them unknown" if len(known) < len(times) else ""
            total = sum(known) * len(times) / len(known)
            lines.append(
                f"about {format_duration(total)} of work, from the speeds of records here{rest}"
            )
        elif missing:
            rough = [self.forecast.rough(run) for run in missing]
            guessed = [seconds for seconds in rough if seconds is not None]
            rest = f", {len(rough) - len(guessed)} of them unknown" if None in rough else ""
            longest = max(run.budget.seconds or 0.0 for run in missing)
            total = max(longest, sum(guessed) * len(rough) / len(guessed)) if guessed else 0.0
            lines.append(
                f"roughly {format_duration(total)} on "
                f"{count_of(cores(), 'core')} of this CPU, from shipped step times, as there is "
                f"no record yet{rest}; a GPU is many times faster"
                if guessed
                else "no time estimate: sizes of the model or the data are not known yet"
            )
        return "\n".join(lines)


def _refuse_other_schemas(
    results: ResultsFolder, records: Iterable[str], evaluations: Iterable[str]
) -> None:
    """Refuse a folder of which an older or newer peftbench made a part.

    Its runs have other keys, so all of them would be trained again.
    """
    for load, keys in ((results.load, records), (results.evaluated, evaluations)):
        for key in keys:
            try:
                load(key)
            except OtherSchemaError as error:
                raise ConfigError(
                    f"{results.folder}: {error}; or choose another --results"
                ) from error
            except (OSError, RecordError):
                continue


def _closed(
    results: ResultsFolder, records: Iterable[str], evaluations: Iterable[str]
) -> dict[str, str]:
    """Keys of files that the system does not let be read, and what it says."""
    found = {}
    for load, keys in ((results.load, records), (results.evaluated, evaluations)):
        for key in keys:
            try:
                load(key)
            except ClosedFileError as error:
                found[key] = str(error)
            except (OSError, RecordError):
                continue
    return found


def sweep_status(
    plan: Plan, results: ResultsFolder, like: Callable[[Record], bool] = lambda record: True
) -> SweepStatus:
    """Hold a plan against a results folder; records that are `like` say how long runs take."""
    wanted = [*(run.key for run in plan.runs), *(one.key for one in plan.evaluations)]
    records, bad = results.scan()
    by_key = {record.run.key: record for record in records}
    found, odd = results.scan_evaluated() if plan.evaluations else ([], {})
    _refuse_other_schemas(results, bad, odd)
    closed = _closed(results, bad, odd)
    evaluated = {one.evaluation.key: one for one in found}
    bad |= odd
    for key, one in list(evaluated.items()):
        of = by_key.get(one.evaluation.run.key)
        if of is not None and not one.of_weights(of.trained_sha256):
            del evaluated[key]
            bad[key] = f"the evaluation {key} is of other weights than the record {of.run.key}"
    done = by_key.keys() | evaluated.keys()
    bad = {key: why for key, why in bad.items() if key in wanted and key not in closed}
    done &= set(wanted)
    failed = {}
    for key in set(wanted) - done:
        try:
            if note := results.failure(key):
                failed[key] = note
        except RecordError as error:
            bad[key] = str(error)
    failed = {key: failed[key] for key in wanted if key in failed}
    return SweepStatus(
        plan=plan,
        folder=results.folder,
        done=done,
        failed=failed,
        bad=bad,
        forecast=Forecast(filter(like, records), plan.rows),
        records=[by_key[run.key] for run in plan.runs if run.key in by_key],
        evaluated=[evaluated[one.key] for one in plan.evaluations if one.key in evaluated],
        closed={key: closed[key] for key in wanted if key in closed},
    )
