"""The verbs for what was trained: a folder for other programs, and predictions for texts."""

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli import options
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.system.hardware import devices, seeing

if TYPE_CHECKING:
    from peftbench.core.run import Record, Run
    from peftbench.exporting.prediction import PredictionSource
    from peftbench.results.store import ResultsFolder

_data_root = click.option(
    "--data-root",
    metavar="FOLDERS",
    help="Data sets in the hub's layout.  [default: PEFTBENCH_DATA, else the hub]",
)


def prediction_options(function: Callable[..., None]) -> Callable[..., None]:
    """How a file is read and models answer."""
    return options.together(
        function,
        click.option(
            "--quoting",
            type=click.Choice(["standard", "none"]),
            help="Quotation marks in a csv or tsv.  [default: task.quoting of the (new) model]",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."
        ),
        click.option("--threads", type=click.IntRange(1), help="CPU threads."),
        _data_root,
    )


#: In place of a key: all records of the folder, as one file.
_RECORDS = "records"


@click.command(short_help="Export weights or records for other programs.")
@click.argument("key", metavar=f"KEY|{_RECORDS}")
@click.argument("target", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="The same as TARGET: what is written."
)
@options.results
@options.where
@click.option(
    "--form",
    type=click.Choice(["model", "peft", "peftbench"]),
    help="model: a folder of transformers, adapters merged. peft: an adapter of the peft library. "
    "peftbench: the weights that the method trained.  [default: the method's own: model for full, "
    "bitfit, head, layernorm, random_mask; peft for lora, adalora, ia3, prefix, peft; peftbench "
    "for adapters and combined; blob, bayes_hybrid, mc_dropout and unipelt have none]",
)
@_data_root
@click.option(
    "--without-reference",
    is_flag=True,
    help="Write no reference.json, for which the validation texts must be at hand.",
)
@click.option(
    "--review-error",
    metavar="RATE",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Write review.json: the confidence below which people review, so that at most this share "
    "of the other answers is wrong. Needs training rows that the run left out (size=0.7).",
)
def export(
    key: str,
    target: Path | None,
    output: Path | None,
    folder: Path,
    where: str,
    form: str | None,
    data_root: str | None,
    without_reference: bool,
    review_error: float | None,
) -> None:
    """Export the saved weights of a run as a folder that other programs load.

    The folder has the tokenizer, label names, a model card and reference.json, which describes the
    validation texts in numbers. It is loaded once and kept only if it gives the run's logits.
    The run needs saved weights (--save-weights).

    \b
    All records as one table, a row a record, for pandas, R or a spreadsheet:
      peftbench export records -o runs.parquet
      peftbench export records -o runs.csv --where 'task=mrpc size>=1000'
    """  # noqa: D301 - click looks for the character, not for a backslash
    if (target is None) == (output is None):
        raise ConfigError("give one place to write to: a TARGET behind the key, or -o TARGET")
    place = target or output
    assert place is not None
    results = options.existing_results(folder)
    if key == _RECORDS:
        if form or data_root or without_reference or review_error is not None:
            raise ConfigError("export records takes no options but -o, --results and --where")
        _export_records(results, place, where)
        return
    if where:
        raise ConfigError("--where selects records: export records -o runs.parquet --where …")
    record = _find(results, key)
    from peftbench.exporting.folder import export_run

    root = root_of(data_root)
    said: list[str] = []
    add = (
        None if review_error is None else _cut_off(record.run, root, review_error, str(place), said)
    )
    lines = export_run(record, results, place, form, root, not without_reference, add=add)
    click.echo("\n".join([f"{place}:", *(f"  {line}" for line in [*lines, *said])]))


def _cut_off(
    run: "Run", root: str | None, error: float, name: str, said: list[str]
) -> Callable[[Path], None]:
    """What chooses a cut-off for a folder of a run and writes it there; `said` gets its sentence.

    Raises:
        ConfigError: if no rows are left to choose it on.
    """
    from peftbench.exporting import prediction, review

    part, left = review.calibration_part(run, root)

    def add(folder: Path) -> None:
        source = prediction.open_export(folder, RuntimeConfig(device="cpu", data_root=root))
        if source.note:
            note(f"{name}: {source.note}")
        found = review.find_cut_off(source, part, error, left)
        review.write(folder, found)
        said.append(f"# {review.sentence(found)}")

    return add


def _export_records(results: "ResultsFolder", path: Path, where: str) -> None:
    from peftbench.analysis import selection
    from peftbench.results.records_file import write_records

    keys = selection.keys(results, where) if where else None
    count, left_out = write_records(results, path, keys)
    for reason in left_out.values():
        click.echo(f"left out, unreadable: {reason}", err=True)
    click.echo(f"{path}: {count:,} record{'s' * (count != 1)}")


@click.command(short_help="Predict labels for the rows of a file.")
@click.argument("source", metavar="KEY|FOLDER")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "out",
    required=True,
    type=click.Path(path_type=Path),
    help="The csv that is written; with --glue the folder.",
)
@options.results
@click.option("--glue", is_flag=True, help="The GLUE server's files for the task's test split.")
@prediction_options
def predict(
    source: str,
    file: Path | None,
    out: Path,
    folder: Path,
    glue: bool,
    quoting: str | None,
    device: str,
    threads: int | None,
    data_root: str | None,
) -> None:
    """Write the label and its probability, the value or the generated text for each row of FILE.

    FILE needs the columns that the run trained on, but no labels. KEY is that of a run with saved
    weights (--save-weights), FOLDER one that `peftbench export` wrote. The same command again
    resumes after an interruption.
    """
    if glue == (file is not None):
        raise ConfigError("give a FILE, or --glue for the test split of the run's task")
    setting = prediction_setting(device, threads, data_root)
    if glue and quoting:
        raise ConfigError(
            "--quoting is for a FILE; --glue reads the test split of the task as it is"
        )
    results = options.open_results(folder)
    record = find_record(source, results)
    from peftbench.exporting import prediction
    from peftbench.exporting.loading import read_export

    task = (read_export(Path(source)).run if record is None else record.run).task
    if file is None:
        prediction.check_glue(task, out)
    else:
        prediction.check_file(task, file, out, quoting)
    model = opened(source, record, results, setting)
    with progress("rows") as report:
        if file is None:
            made = prediction.predict_glue(model, out, note, report)
        else:
            prediction.predict_file(model, file, out, quoting, note, report)
            made = [out]
    click.echo("\n".join(map(str, made)))


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """Yield what shows how many of all are done, on a terminal and from its first call on."""
    with ExitStack() as stack:
        bars: list[Any] = []

        def report(done: int, total: int) -> None:
            if not sys.stderr.isatty():
                return
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr)
                bars.append(stack.enter_context(bar))
            bars[0].length = total
            bars[0].update(done - bars[0].pos)

        yield report


def find_record(source: str, results: "ResultsFolder") -> "Record | None":
    """The run whose key is given, with its weights; None for a folder.

    Raises:
        ConfigError: if it is neither, or its weights were not kept.
        RecordError: if no record, or more than one, has this key.
    """
    if Path(source).is_dir():
        return None
    if not re.fullmatch("[0-9a-f]+", source):
        raise ConfigError(f"{source} is neither a folder nor the key of a record")
    return _find(results, source)


def _find(results: "ResultsFolder", start: str) -> "Record":
    from peftbench.cli.show import find

    options.existing_results(results.folder)
    record = find(results, start)
    results.require_weights(record)  # before torch is loaded, which takes seconds
    return record


def opened(
    source: str, record: "Record | None", results: "ResultsFolder", setting: RuntimeConfig
) -> "PredictionSource":
    """What predicts: the run of a record, else an exported folder; see `exporting.prediction`."""
    from peftbench.exporting import prediction

    found = (
        prediction.open_export(Path(source), setting)
        if record is None
        else prediction.open_run(record, results, setting)
    )
    if found.note:
        note(f"{source}: {found.note}")
    return found


def note(text: str) -> None:
    """Print a remark to standard error."""
    click.echo(f"note: {text}", err=True)


def prediction_setting(device: str, threads: int | None, data_root: str | None) -> RuntimeConfig:
    """How and where a model answers, from the options of `prediction_options`.

    Raises:
        ConfigError: if the device is no word of `--device`, or there is no such GPU.
    """
    names = devices(device)
    if device.startswith("cuda:"):  # read when torch first uses a GPU, which is later
        os.environ.update(seeing(names))
        device = "cuda"
    return RuntimeConfig(device, threads, root_of(data_root))


def root_of(given: str | None) -> str | None:
    """The folder of data sets: as given, else the one of the environment."""
    from peftbench.system import offline_folder

    return given or offline_folder.data_root() or os.environ.get("PEFTBENCH_DATA")
