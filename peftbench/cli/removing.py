"""The command `rm`: remove runs, so that the next `run` trains them again."""

import sys
from pathlib import Path

import click

from peftbench.cli import options


@click.command("rm", short_help="Remove runs with all their files.")
@click.argument("keys", nargs=-1, required=True)
@options.results
@click.option("--yes", is_flag=True, help="Remove; without it the files are only listed.")
def remove(keys: tuple[str, ...], folder: Path, yes: bool) -> None:
    """Remove the runs of KEYS: records, predictions, weights, evaluations, logs, failures.

    The first digits of a key are enough. Without --yes nothing is removed. Exit code 1 when a run
    is in progress and was left as it is.
    """
    results = options.open_results(folder)
    known = {*results.keys(), *results.failed(), *results.evaluations()}
    chosen = dict.fromkeys(results.key_of(start, known) for start in keys)
    busy = False
    for key in chosen:
        files = results.files_of(key)
        click.echo("\n".join(map(str, files)))
        if not yes:
            continue
        if not results.claim(key):
            click.echo(f"left: {key} is in progress ({results.claimed_by(key)})", err=True)
            busy = True
            continue
        try:
            for path in files:
                path.unlink(missing_ok=True)
        finally:
            results.release(key)
    if not yes:
        click.echo("nothing was removed; add --yes to remove these files")
    sys.exit(1 if busy else 0)
