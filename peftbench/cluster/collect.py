"""What became of submissions, for a person and for scripts; and what is left of them to do."""

import shlex
from collections import Counter

from peftbench.cluster import logs
from peftbench.cluster.manifest import PENDING, RUNNING, Submission
from peftbench.cluster.queue import DONE, LEFT, STATES, UNKNOWN, QueueSnapshot
from peftbench.core.failures import FAILURE_KINDS, Failure
from peftbench.core.run import Json
from peftbench.core.text import format_duration
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder

#: Failures that are told one by one; the rest is counted.
TOLD = 10


def queue_table(seen: QueueSnapshot) -> Table:
    """One line for each submission."""
    counts = [seen.counts(one) for one in seen.submissions]
    shown = [state for state in STATES if state == DONE or any(c[state] for c in counts)]
    rows = [
        [
            one.name,
            one.cluster.scheduler,
            _short(shlex.join(one.words)),
            str(count.total()),
            *(str(count[state] or "") for state in shown),
        ]
        for one, count in zip(seen.submissions, counts, strict=True)
    ]
    columns = ["submission", "cluster", "overrides", "runs", *shown]
    return Table(f"{len(rows)} submission{'s' * (len(rows) != 1)}", columns, rows, 3)


def lines(seen: QueueSnapshot) -> list[str]:
    """What the table has no room for: why things wait, what failed, what nobody knows."""
    told = []
    if seen.silent is not None:
        told.append(
            f"the scheduler does not answer ({seen.silent}): what waits or runs is unknown, "
            "and nothing is concluded from that"
        )
    told += [f"unknown, {name}: {reason}" for name, reason in seen.doubts().items()]
    if reasons := seen.reasons():
        told.append("waiting for: " + ", ".join(f"{r} ({n})" for r, n in reasons.most_common()))
    for release in dict.fromkeys(seen.held.values()):
        tasks = [task for task, way in seen.held.items() if way == release]
        why = dict.fromkeys(seen.alive[task][1] for task in tasks)
        told.append(
            f"held ({', '.join(filter(None, why)) or len(tasks)}): these never start by "
            f"themselves; `{release}` lets them go, `peftbench cancel` takes them back"
        )
    if left := sum(state == LEFT for state in seen.state.values()):
        told.append(
            f"{left} stopped with a checkpoint before the time of their jobs was over; submit "
            "again to continue"
        )
    setups = Counter(over.said for over in seen.ended if over.said.startswith(logs.SETUP_FAILED))
    for line, count in setups.most_common():
        told.append(
            f"{count} job{'s' * (count != 1)} ended before any work: {line}; correct that line, or "
            "let it end with `|| true` where it may fail"
        )
    if seen.ended:
        count = sum(len(over.keys) for over in seen.ended)
        told.append(
            f"{count} have neither a record nor a running job: their records may still be on the "
            "way; `peftbench collect` waits for them and says what became of the others"
        )
    told += failures(list(seen.failures.values()))
    told += [f"unreadable: {reason}" for reason in seen.bad]
    if seen.age:
        told.append(f"as the scheduler said {format_duration(seen.age)} ago")
    return told


def failures(found: list[Failure]) -> list[str]:
    """Counts by class, and the first of them whole."""
    if not found:
        return []
    kinds = Counter(failure.kind for failure in found)
    told = [
        "failed: " + ", ".join(f"{n} {kind} ({FAILURE_KINDS[kind]})" for kind, n in kinds.items())
    ]
    told += [f"  {one.job.title} [{one.job.key}]: {one.kind}: {one.reason}" for one in found[:TOLD]]
    if len(found) > TOLD:
        told.append(f"  … and {len(found) - TOLD} more; --json has them all")
    return told


def rest(seen: QueueSnapshot, results: ResultsFolder) -> list[str]:
    """The commands that submit what is left of each submission."""
    settled = [one for one in seen.submissions if not _alive(one, seen)]
    # what a later submission has in the queue is submitted already
    left = [
        one
        for one in settled
        if (count := seen.counts(one))[DONE] + count[PENDING] + count[RUNNING] < count.total()
        and not count[UNKNOWN]
    ]
    commands = [
        shlex.join(["peftbench", "submit", *one.words, "--results", str(results.folder)])
        for one in left
    ]
    return list(dict.fromkeys(commands))


def as_json(seen: QueueSnapshot) -> Json:
    """For scripts."""
    return {
        "silent": seen.silent,
        "age_seconds": seen.age,
        "unknown": seen.doubts(),
        "submissions": [
            {
                "name": one.name,
                "words": one.words,
                "cluster": one.cluster.scheduler,
                "jobs": [array.job for array in one.arrays],
                "counts": dict(seen.counts(one)),
            }
            for one in seen.submissions
        ],
        "states": seen.state,
        "failures": {
            key: {"title": one.job.title, "kind": one.kind, "reason": one.reason}
            for key, one in seen.failures.items()
        },
    }


def _alive(one: Submission, seen: QueueSnapshot) -> bool:
    """Whether a job of it still has something to do: one that is done may be listed for a while."""
    return any(
        task in seen.alive and any(seen.state[key] != DONE for key in keys)
        for task, keys in one.tasks()
    )


def _short(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
