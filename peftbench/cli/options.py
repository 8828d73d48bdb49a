"""What several verbs of the command share: their options, and how they open and print."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli import completion
from peftbench.core.errors import ConfigError

if TYPE_CHECKING:
    from peftbench.reports.tables.markdown import Table
    from peftbench.results.store import Results

OVERRIDES = """
\b
OVERRIDES say which runs are meant, in Hydra's grammar:
  method=lora,bitfit      two values make two runs; all axes are crossed
  task=mrpc size=100,0.3  options are named, `peftbench list` shows them
  seed=range(0,5)         0 1 2 3 4
  seed.order=3            of the order of examples alone
  budget=steps budget.steps=500 train.lr=1e-4,1e-3 method.rank=4
  tuned=true              the learning rates that `peftbench tune` chose
  method=sparse_adapter method.base_method=lora     a method inside another one
  suite=noise suite.examples=500             more questions to the trained weights
  sweep=quickstart        a grid from configs/sweep, what stands beside it outranks it
  zip='size=100,1000 budget.epochs=10,3'     axes that move together
  when='method=lora: train.lr=1e-4,1e-3'     axes for some cells only
  exclude='method=full size=100'             cells to leave out
"""


def overrides_argument(function: Callable[..., None]) -> Callable[..., None]:
    """Take the overrides, in Hydra's grammar."""
    return click.argument(
        "overrides",
        metavar="[OVERRIDES]...",
        nargs=-1,
        type=click.UNPROCESSED,
        shell_complete=completion.complete_overrides,
    )(function)


results = click.option(
    "--results",
    "folder",
    default="results/runs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of records.",
)
configs = click.option(
    "--configs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of your own configs, searched before the packaged ones.  [default: ./configs]",
)


retry = click.option(
    "--retry",
    metavar="CLASSES",
    help="Failures to try again: all, none or classes such as memory,error.  "
    "[default: those that came from outside: killed,exit,disk,data,system,lost,cancelled]",
)


shard = click.option(
    "--shard",
    metavar="I/N",
    help="Do the I-th of N shares alone; auto/N takes I from the job array that this runs in.",
)


def machine(function: Callable[..., None]) -> Callable[..., None]:
    """Where and by how many processes work is done, and what is tried again."""
    return _together(
        function,
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Processes.  [default: one for each GPU, or as many as CPU cores and memory hold]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="CPU threads of each.  [default: cores / workers]",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."
        ),
        retry,
    )


def training(function: Callable[..., None]) -> Callable[..., None]:
    """How runs are trained, beside what they are."""
    return _together(
        function,
        click.option("--save-weights", is_flag=True, help="Keep what the method trained."),
        click.option("--fail-fast", is_flag=True, help="Stop at the first failure."),
        click.option("--deterministic", is_flag=True, help="Deterministic GPU kernels; slower."),
        click.option(
            "--checkpoint-minutes",
            default=10.0,
            show_default=True,
            type=click.FloatRange(0, min_open=True),
            help="Between checkpoints of a long run.",
        ),
        click.option(
            "--curve-part",
            default=1.0,
            show_default=True,
            type=click.FloatRange(0, 1, min_open=True),
            help="Of the reporting split for evaluations in training; the score is of all of it.",
        ),
        click.option(
            "--gpus-per-run",
            default=1,
            show_default=True,
            type=click.IntRange(1),
            help="That train one run together, each on a GPU of its own, batches shared out.",
        ),
        click.option(
            "--pack",
            default="auto",
            show_default=True,
            metavar="N|auto|off",
            help="Runs that differ in seed, size, rate or length at most are trained N at a time "
            "on one shared backbone; their costs are those of a short measurement alone. "
            "auto: on a GPU as many as its memory takes, on a CPU off.",
        ),
    )


def search(function: Callable[..., None]) -> Callable[..., None]:
    """How many trials are made for each learning rate that is chosen."""
    return _together(
        function,
        click.option(
            "--trials",
            default=6,
            show_default=True,
            type=click.IntRange(2),
            help="Rates that are tried with one seed, drawn from the range in the method's file.",
        ),
        click.option(
            "--finalists",
            default=2,
            show_default=True,
            type=click.IntRange(1),
            help="Of these, the best, which are tried with more seeds.",
        ),
        click.option(
            "--seeds",
            default=3,
            show_default=True,
            type=click.IntRange(1),
            help="Of each finalist.",
        ),
    )


def _together(
    function: Callable[..., None], *given: Callable[[Callable[..., None]], Callable[..., None]]
) -> Callable[..., None]:
    for option in reversed(given):
        function = option(function)
    return function


def open_results(folder: Path) -> "Results":
    """The folder of the option `--results`.

    Raises:
        ConfigError: if it is anything else, such as a device.
    """
    from peftbench.results.store import Results

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--results {folder} is no folder; name one, or one that is to be made")
    return Results(folder)


def show_all(tables: "Iterable[Table]", notes: Iterable[str]) -> None:
    """Print tables, and lines below them."""
    for table in tables:
        show(table.rich())
    for note in notes:
        click.echo(note)


def note_own_files(paths: Iterable[Path]) -> None:
    """Say which configuration files outside of the package take part, and what they replace."""
    from peftbench.config import catalog

    told = []
    for path in paths:
        name = Path(path.parent.name, path.name) if path.name != "run.yaml" else Path(path.name)
        replaces = (catalog.packaged() / name).is_file()
        told.append(f"{path}" + " (in place of the packaged one)" * replaces)
    click.echo(f"configuration files of your own take part: {', '.join(told)}", err=True)


def show(renderable: Any) -> None:
    """Print a table for rich; into a pipe or a file without cutting it off."""
    from peftbench.reports.tables import terminal

    terminal.print_out(renderable)
