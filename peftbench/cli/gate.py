"""The verb `gate`: whether one model may replace another one."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from peftbench.cli import options
from peftbench.cli.exporting import (
    find_record,
    note,
    opened,
    prediction_options,
    prediction_setting,
    progress,
)
from peftbench.core.errors import ConfigError
from peftbench.core.text import decoded


@click.command(short_help="Decide whether a model may replace another.")
@click.argument("new", metavar="NEW")
@click.argument("old", metavar="OLD")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "out",
    default="gate.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The page that is written.",
)
@click.option(
    "--thresholds",
    type=click.Path(path_type=Path),
    help="YAML file with limits of your own (see configs/gate.yaml).",
)
@click.option(
    "--shift",
    "shift_files",
    multiple=True,
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Labelled rows from elsewhere; may be given more than once.",
)
@click.option("--show-texts", is_flag=True, help="Show the texts of negative flips.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: all figures.")
@options.results
@prediction_options
def gate(
    new: str,
    old: str,
    file: Path,
    out: Path,
    thresholds: Path | None,
    shift_files: tuple[Path, ...],
    show_texts: bool,
    as_json: bool,
    folder: Path,
    quoting: str | None,
    device: str,
    threads: int | None,
    data_root: str | None,
) -> None:
    """Compare two models on a labelled file and decide whether NEW may replace OLD.

    NEW and OLD are folders of `peftbench export`, or keys of runs with saved weights. FILE has rows
    that neither was trained on: the text columns of both, and the label column of NEW.

    Exit code 0 when NEW may replace OLD, 1 when not, 2 for bad input, 130 when interrupted; any
    code but 0 is no permission.
    """
    if out.is_dir():
        raise ConfigError(f"-o {out} is a folder; give the name of a file, such as gate.html")
    if out.suffix.lower() not in (".html", ".htm"):
        raise ConfigError(f"-o {out}: the page is HTML; give a name that ends in .html")
    from peftbench.gate import thresholds as limits

    limit = limits.read(thresholds)
    limit.require_one_measured(shift=bool(shift_files))
    setting = prediction_setting(device, threads, data_root)
    results = options.open_results(folder)
    ours, theirs = find_record(new, results), find_record(old, results)
    from peftbench.exporting.loading import read_export
    from peftbench.gate import held_out
    from peftbench.gate.criteria import judge
    from peftbench.gate.measure import measure
    from peftbench.gate.page import Gate, Named
    from peftbench.system import io
    from peftbench.training.measurement import device_name

    run = read_export(Path(new)).run if ours is None else ours.run
    before = read_export(Path(old)).run if theirs is None else theirs.run
    held_out.check_runs(run, before)
    held = held_out.read(file, run, before, quoting, note)
    more = [held_out.read(path, run, before, quoting, note) for path in shift_files]
    shifts = {one.name: one for one in more}
    if len(shifts) < len(shift_files):
        raise ConfigError("--shift: two files have the same name; rename one")
    with _writing(out):
        io.check_writable(out)
    candidate = opened(new, ours, results, setting)
    in_use = opened(old, theirs, results, setting)
    with progress("texts") as report:
        measured = measure(candidate, in_use, held, shifts, limit, report)
    found = judge(measured, run.task.metric, limit)
    told = Gate(
        new=Named(decoded(new), run.title, run.key),
        old=Named(decoded(old), before.title, before.key),
        held=held,
        shifts=shifts,
        thresholds=limit,
        findings=found,
        device=device_name(candidate.predictor.device),
        show_texts=show_texts,
    )
    try:
        if as_json:
            import json

            click.echo(json.dumps(told.to_json(), indent=1))
        else:
            options.show(told.table().rich())
            click.echo("\n".join([told.flip_line(), *told.lines()[1:], told.answer]))
    finally:  # also where standard output takes no more
        with _writing(out):
            io.write_whole(out, told.html().encode())
    if not as_json:
        click.echo(f"page: {out}")
    sys.exit(0 if found.passes else 1)


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Say in one line why the page cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"-o {out}: {error.strerror}; give another place") from error
