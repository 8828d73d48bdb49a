"""Progress files: what every local `peftbench run` in a results folder is doing."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from peftbench.core.run import Json
from peftbench.core.text import format_duration
from peftbench.results.store import ResultsFolder
from peftbench.system import processes

#: Seconds after which the file of a process on another machine is out of date.
STALE = 600


@dataclass(frozen=True)
class Progress:
    """How far one command is.

    Attributes:
        process: the supervisor, as `Process.to_json` gives it.
        command: as a person would type it.
        finished: jobs that are done or have failed.
        total: jobs of the command.
        left: seconds until the rest is done; None while unknown.
        jobs: title, fraction, and where known step and loss, of each job in progress.
        written: when, in seconds since the epoch.
    """

    process: Json
    command: str
    finished: int
    total: int
    left: float | None
    jobs: list[Json]
    written: float

    @property
    def count(self) -> str:
        """How much is done, and how long the rest takes."""
        left = "" if self.left is None else f", about {format_duration(self.left)} left"
        return f"{self.finished} of {self.total} done{left}"

    @property
    def lines(self) -> list[str]:
        """Lines for a person."""
        known = processes.Process.read(self.process)
        lines = [f"running ({known.title if known else 'unknown'}): {self.count}: {self.command}"]
        for job in self.jobs:
            lines.append(f"  {100 * job['fraction']:3.0f} % {job['title']}{step_text(job)}")
        return lines


def step_text(job: Json) -> str:
    """Where a job in progress is, beginning with a comma; empty where that is not known."""
    return f", step {job['step']}, loss {job['loss']:.3f}" if "loss" in job else ""


def write(
    results: ResultsFolder,
    command: str,
    finished: int,
    total: int,
    left: float | None,
    jobs: list[Json],
) -> None:
    """Replace the progress file of this process; a folder that takes no more keeps the old one."""
    mine = processes.current()
    data = Progress(mine.to_json(), command, finished, total, left, jobs, time.time())
    with suppress(OSError):
        results.write(_path(results, mine), json.dumps(asdict(data)).encode())


def remove(results: ResultsFolder) -> None:
    """Remove the progress file of this process."""
    with suppress(OSError):
        _path(results, processes.current()).unlink(missing_ok=True)


def read(results: ResultsFolder) -> list[Progress]:
    """Return the progress of all commands that still run, by machine and process.

    A search of learning rates writes it into the folder of its trials, which is read too. A
    process on another machine counts as running for `STALE` seconds after it wrote last.
    """
    every = [*_files(results), *_files(results.trials())]
    found = [progress for _, progress in every if progress and _runs(progress)]
    return sorted(found, key=lambda one: str(one.process))


def abandoned(results: ResultsFolder) -> list[Path]:
    """Return the progress files of commands that are over, and torn ones."""
    return [path for path, progress in _files(results) if not (progress and _runs(progress))]


def _files(results: ResultsFolder) -> Iterator[tuple[Path, Progress | None]]:
    """Every progress file, with None for a torn one."""
    for path in sorted(results.cache("running").glob("*.json")):
        try:
            yield path, Progress(**json.loads(path.read_bytes()))
        except FileNotFoundError:  # gone since
            continue
        except (OSError, ValueError, TypeError):
            yield path, None


def _runs(progress: Progress) -> bool:
    process = processes.Process.read(progress.process)
    alive = None if process is None else process.is_alive()
    return alive or (alive is None and time.time() - progress.written < STALE)


def _path(results: ResultsFolder, process: processes.Process) -> Path:
    return results.cache("running") / f"{process.machine}-{process.pid}.json"
