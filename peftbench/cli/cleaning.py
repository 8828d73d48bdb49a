"""The command `gc`: remove what a results folder no longer needs; records are never among it."""

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peftbench.cli import options
from peftbench.core.errors import RecordError

if TYPE_CHECKING:
    from peftbench.results.store import ResultsFolder

#: Seconds after which a draft without a run's key belongs to no process: writing takes less.
_DRAFT_AGE = 3600

_DAY = 86_400


@dataclass(frozen=True)
class Garbage:
    """Files that nothing needs, and why.

    Attributes:
        paths: in the order in which they are removed.
    """

    what: str
    paths: list[Path]

    @property
    def size(self) -> int:
        """Bytes of the files that are still there."""
        return sum(path.stat().st_size for path in self.paths if path.is_file())


@click.command("gc", short_help="Remove files that are no longer needed.")
@options.results
@click.option(
    "--days",
    default=30,
    show_default=True,
    type=click.IntRange(0),
    help="Age of caches and finished submissions that are removed.",
)
@click.option("--yes", is_flag=True, help="Remove; without it the files are only listed.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: files and bytes.")
def collect_garbage(folder: Path, days: int, yes: bool, as_json: bool) -> None:
    """Remove what a results folder no longer needs; without --yes only list it.

    \b
    That is
      checkpoints of finished runs and evaluations
      temporary files of processes that were killed while writing
      progress files of commands that are over
      caches that were not written for --days
      submissions older than --days of which nothing is left to do

    Records, predictions, weights, evaluations, choices, failures, logs and reports stay;
    `peftbench rm KEY` removes a run.
    """  # noqa: D301 - click looks for the character, not for a backslash
    results = options.existing_results(folder)
    found = [one for one in _found(results, time.time() - days * _DAY) if one.paths]
    sizes = {one.what: one.size for one in found}
    if yes:
        for one in found:
            _remove(one.paths)
    if as_json:
        told = [
            {"what": one.what, "bytes": sizes[one.what], "files": list(map(str, one.paths))}
            for one in found
        ]
        click.echo(json.dumps({"removed": yes, "garbage": told}, indent=1))
        return
    for one in found:
        click.echo(f"{one.what}: {_megabytes(sizes[one.what])}")
        click.echo("\n".join(f"  {path}" for path in one.paths))
    whole = _megabytes(sum(sizes.values()))
    if not found:
        click.echo(f"{folder}: nothing to remove")
    elif yes:
        click.echo(f"{whole} removed")
    else:
        click.echo(f"{whole} in all; nothing was removed, add --yes to remove these files")


def _found(results: "ResultsFolder", before: float) -> Iterator[Garbage]:
    """Everything that can go.

    Args:
        before: the time, in seconds since 1970, up to which caches and submissions are old.
    """
    from peftbench.results import in_flight

    stores = (results, results.trials())
    yield Garbage(
        "checkpoints of finished runs", [path for one in stores for path in _checkpoints(one)]
    )
    yield Garbage("drafts of killed processes", [path for one in stores for path in _drafts(one)])
    over = [path for one in stores for path in in_flight.abandoned(one)]
    yield Garbage("progress of commands that are over", over)
    cached = [path for one in stores for path in one.cache("").glob("*") if path.is_file()]
    yield Garbage("old caches", sorted(p for p in cached if p.stat().st_mtime < before))
    yield Garbage("finished submissions", _submissions(results, before))


def _checkpoints(results: "ResultsFolder") -> list[Path]:
    """Checkpoints of what has a readable record or evaluation; a torn one is made again."""
    return [
        path
        for path in results.checkpoints()
        if _readable(results.load, path.stem) or _readable(results.evaluated, path.stem)
    ]


def _readable(load: Callable[[str], object], key: str) -> bool:
    try:
        load(key)
    except (OSError, RecordError):
        return False
    return True


def _drafts(results: "ResultsFolder") -> list[Path]:
    """Drafts whose run nobody has, and others that are too old to be in use."""
    from peftbench.results.store import KEY

    found = []
    for path in results.drafts():
        key = re.match(rf"{KEY.pattern}(?=\.)", path.name)
        if key is None:
            if path.stat().st_mtime < time.time() - _DRAFT_AGE:
                found.append(path)
        elif results.claim(key[0]):
            results.release(key[0])
            found.append(path)
    return found


def _submissions(results: "ResultsFolder", before: float) -> list[Path]:
    """Files of old submissions whose jobs are all done or cancelled, the manifest last."""
    from peftbench.cluster import manifest
    from peftbench.cluster.queue import CANCELLED, DONE, look

    if not results.submissions().is_dir():
        return []
    seen = look(results)
    found: list[Path] = []
    for one in seen.submissions:
        alive = any(task.submission == one.name for task in seen.alive)
        if alive or one.name in seen.unsure or seen.silent or one.submitted >= before:
            continue
        if set(seen.counts(one)) <= {DONE, CANCELLED}:
            place = manifest.folder(results, one.name)
            files = [path for path in place.rglob("*") if not path.is_dir()]
            found += sorted(files, key=lambda path: (path.name == "manifest.json", path))
    return found


def _remove(paths: list[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)
        if path.name == "manifest.json":  # of a submission, the last of its files
            path.parent.rmdir()


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
