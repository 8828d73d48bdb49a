"""The command `merge`: results folders of several machines as one."""

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from peftbench.cli import options

if TYPE_CHECKING:
    from peftbench.results.store import ResultsFolder


@click.command("merge", short_help="Merge results folders.")
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to copy into, new or not; what it holds stays as it is.",
)
@click.option(
    "--keep-first",
    is_flag=True,
    help="Where numbers of a key differ, keep those of the output, else of the folder named first.",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts: what was merged and left out.")
def merge(folders: tuple[Path, ...], output: Path, keep_first: bool, as_json: bool) -> None:
    """Copy the records of FOLDERS into one, with predictions, weights, evaluations and choices.

    A key with the same numbers in several folders is copied once. Keys whose numbers differ
    between folders, as after training a run twice, are listed, and nothing is written without
    --keep-first.

    A run that diverged in one folder and has a record in none is noted, as reports count it. Logs,
    checkpoints, other failures, submissions, caches and reports stay where they are. The same
    command again continues after an interruption, and adds what is new. Exit code 1 when a file
    that cannot be read, or a run in progress, was left out.

    \b
    Example:
      peftbench merge results/laptop results/server -o results/all
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.results import merging

    into = options.open_results(output, "-o")
    given = [options.open_results(one, "merge") for one in folders]
    done = merging.merge(given, into, keep_first)
    _merge_notes([into, *given])
    if as_json:
        counted = {k: {"total": total, "new": new} for k, (total, new) in done.counts.items()}
        made = {"counts": counted, "notes": done.notes, "left_out": done.left_out}
        click.echo(json.dumps({"folder": str(output), **made}, indent=1))
        sys.exit(1 if done.left_out else 0)
    counts = [
        f"{total:,} {kind}{'s' * (total != 1)} ({new:,} new)"
        for kind, (total, new) in done.counts.items()
    ]
    click.echo(f"{output}: {', '.join(counts)}")
    for note in done.notes:
        click.echo(f"note: {note}")
    for line in done.left_out:
        click.echo(f"left out: {line}", err=True)
    sys.exit(1 if done.left_out else 0)


def _merge_notes(folders: Iterable["ResultsFolder"]) -> None:
    """Keep what must be said wherever costs of any of the folders are shown."""
    import yaml

    from peftbench.analysis.costs import NOTES, read_warning

    into, *others = folders
    mine = read_warning(into.folder) or ""
    told = dict.fromkeys(read_warning(folder.folder) or "" for folder in others)
    if new := [text for text in told if text not in mine]:
        text = yaml.safe_dump({"costs": " ".join([*filter(None, [mine]), *new])}, width=100)
        into.write(into.folder / NOTES, text.encode())
