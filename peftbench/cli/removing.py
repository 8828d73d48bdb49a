"""The command `rm`: remove runs, so that the next `run` trains them again."""

import sys
from pathlib import Path

import click

from peftbench.cli import options
from peftbench.core.errors import ConfigError


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
    chosen: dict[str, None] = {}
    for start in keys:
        found = [key for key in known if key.startswith(start)]
        if len(found) != 1:
            count = f"{len(found)} keys begin" if found else "no key begins"
            raise ConfigError(f"{count} with {start!r} in {folder}; nothing was removed")
        chosen[found[0]] = None
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
