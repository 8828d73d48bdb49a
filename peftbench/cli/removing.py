"""The command `rm`: remove runs, so that the next `run` trains them again."""

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peftbench.cli import options

if TYPE_CHECKING:
    from peftbench.results.store import ResultsFolder


@click.command("rm", short_help="Remove runs with all their files.")
@click.argument("keys", nargs=-1, required=True)
@options.results
@click.option("--yes", is_flag=True, help="Remove; without it the files are only listed.")
def remove(keys: tuple[str, ...], folder: Path, yes: bool) -> None:
    """Remove the runs of KEYS: records, predictions, weights, evaluations, logs, failures.

    The first digits of a key are enough. Without --yes nothing is removed. Exit code 1 when a run
    or an evaluation of it is in progress and was left as it is.
    """
    results = options.existing_results(folder)
    known = {*results.keys(), *results.failed(), *results.evaluations()}
    chosen = dict.fromkeys(results.key_of(start, known) for start in keys)
    busy = False
    if yes and (odd := results.check_claims()):
        click.echo(f"note: {odd}", err=True)
    for key in chosen:
        if not yes:
            click.echo("\n".join(map(str, results.files_of(key))))
        elif taken := _remove(results, key):
            click.echo(f"left: {taken} is in progress ({results.claimed_by(taken)})", err=True)
            busy = True
    if not yes:
        click.echo("nothing was removed; add --yes to remove these files")
    sys.exit(1 if busy else 0)


def _remove(results: "ResultsFolder", key: str) -> str | None:
    """Remove a run; or return what is in progress of it, and leave all as it is.

    What it has is listed once nobody can finish any of it. An evaluation that has no file yet is
    given up by its worker, which finds no record.
    """
    with ExitStack() as claims:
        for one in results.with_evaluations(key):
            if not results.claim(one):
                return one
            claims.callback(results.release, one)
        files = results.files_of(key)
        click.echo("\n".join(map(str, files)))
        for path in files:
            path.unlink(missing_ok=True)
    return None
