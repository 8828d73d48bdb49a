"""Of jobs that ended: wait for their records, then note why the rest of their runs has none."""

import time
from dataclasses import replace

from peftbench.cluster import base, logs, manifest, turns
from peftbench.cluster.manifest import Ending, SchedulerUnreachable, Submission, Task
from peftbench.cluster.queue import QueueSnapshot
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import ClusterJob, Evaluation
from peftbench.core.failures import Failure
from peftbench.core.text import count_of
from peftbench.results.store import ResultsFolder
from peftbench.runner.progress import note

#: Seconds between two looks for records.
_AGAIN = 2.0


def settle(results: ResultsFolder, seen: QueueSnapshot) -> QueueSnapshot:
    """Wait for records of jobs that ended, then note why the rest of their runs has none.

    On a shared file system a record may appear a minute after it was written.
    """
    if seen.silent is None:
        _remove_claims(results, seen)
    if not seen.ended:
        return seen
    wait = max(over.submission.cluster.settle_seconds for over in seen.ended)
    end = time.monotonic() + wait
    if wait >= 5:
        count = count_of(len(seen.ended), "job")
        note(f"waiting up to {wait:.0f} s for records of {count} that ended")
    while seen.ended and time.monotonic() < end:
        time.sleep(min(_AGAIN, wait))
        seen = seen.again(results)
    torn = []
    for one in {over.submission.name: over.submission for over in seen.ended}.values():
        ended = [over for over in seen.ended if over.submission.name == one.name]
        try:
            asked = base.build_scheduler(one.cluster)
            why = asked.explain(one, [over.task for over in ended], results)
        except SchedulerUnreachable:  # what is over stays over
            why = {}
        for over in ended:
            if _left(turns.read(results, over.task), why.get(over.task)):
                turns.end(results, over.task, turns.LEFT)
                continue
            try:
                jobs = manifest.read_jobs(results, over.task)
            except (OSError, RecordError) as error:
                torn.append(f"{error}; `peftbench submit` hands its runs over again")
                continue
            for job in jobs:
                if job.key in over.keys:
                    failure = _loss(job, why.get(over.task), results, one, over.task)
                    one.store(results).fail(failure)
    seen = seen.again(results)
    return replace(seen, bad=[*seen.bad, *torn])


def _remove_claims(results: ResultsFolder, seen: QueueSnapshot) -> None:
    """Free the runs of jobs that are over, where claims are files: a killed one leaves its own."""
    known = {one.name for one in seen.submissions} - seen.unsure.keys()

    def is_over(job: str) -> bool:
        name, _, task = job.partition("/")
        return name in known and Task.read(name, task) not in seen.alive

    results.remove_claims(is_over)
    results.trials().remove_claims(is_over)


def _left(turn: turns.Turns, why: Ending | None) -> bool:
    """Whether a task wrote a checkpoint and left, but is not in the queue, where it meant to go."""
    return turn.ended == turns.REQUEUED and (why is None or why.kind in ("left", "exit"))


def _loss(
    job: ClusterJob, why: Ending | None, results: ResultsFolder, one: Submission, task: Task
) -> Failure:
    """A failure as the scheduler explains it, else as the job's last line does."""
    if why is not None and why.kind in ("memory", "cancelled"):
        return Failure(job, why.kind, f"the scheduler says {why.words}")
    if isinstance(job, Evaluation) and not one.store(results).has(job.run.key):
        return Failure(job, "lost", "its run has no record")
    last = logs.last_line(results, task)
    said = f"its job ended: {why.words if why else 'the scheduler does not remember it'}"
    return Failure(job, "lost", said + (f"; its last line: {last}" if last else ""))
