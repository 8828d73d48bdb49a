"""Options and helpers that several commands share."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli import completion
from peftbench.core.errors import ConfigError

if TYPE_CHECKING:
    from peftbench.reports.pivot_table import RenderedTable
    from peftbench.reports.tables.markdown import Table
    from peftbench.results.store import ResultsFolder

OVERRIDES = """
\b
OVERRIDES select the runs (Hydra override syntax):
  method=lora,bitfit      two values, two runs; all axes are crossed
  task=mrpc size=100,30%  options by name, see `peftbench list`
  seed=0-4                seeds 0 1 2 3 4; the same as seeds=5
  seed.order=3            seed of the order of examples only
  budget=steps budget.steps=500 train.lr=1e-4,1e-3 method.rank=4
  tuned=true              learning rates that `peftbench tune` chose
  method=sparse_adapter method.base_method=lora  a wrapper and its base method
  suite=noise suite.examples=500          evaluation suites on trained weights
  sweep=quickstart        a grid from configs/sweep; further overrides win
  zip='size=100,1000 budget.epochs=10,3'  axes that move together
  when='method=lora: train.lr=1e-4,1e-3'  axes for some grid points only
  exclude='method=full size=100'          grid points to leave out
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


as_json = click.option("--json", "as_json", is_flag=True, help="For scripts.")


where = click.option(
    "--where",
    default="",
    metavar="CONDITIONS",
    help="Only runs that meet all conditions, such as 'task=mrpc size>=100 lr!=1e-3'; operators: "
    "= != < <= > >=; = and != take several values with commas.",
)


#: Any command of click, or the function that becomes one.
Verb = Callable[..., None]

#: Failures that are tried again unless `--retry` or a command says otherwise.
_TRANSIENT = "transient ones: killed,exit,disk,data,system,lost,cancelled"


def retry(default: str) -> Callable[[Verb], Verb]:
    """Which failures are tried again, and for the help which without the option."""
    return click.option(
        "--retry",
        metavar="CLASSES",
        help=f"Failures to retry: all, none or classes such as memory,error.  [default: {default}]",
    )


shard = click.option(
    "--shard",
    metavar="I/N",
    help="Run only share I of N; auto/N reads I from the index of the job array.",
)


def machine(retried: str = _TRANSIENT) -> Callable[[Verb], Verb]:
    """Where and by how many processes work is done, and what is tried again, see `retry`."""
    return lambda function: together(
        function,
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Worker processes.  [default: one for each GPU, or what CPU and memory allow]",
        ),
        click.option(
            "--threads",
            type=click.IntRange(1),
            help="CPU threads of each worker.  [default: cores / workers]",
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."
        ),
        retry(retried),
    )


def training(function: Callable[..., None]) -> Callable[..., None]:
    """How runs are trained, beside what they are."""
    return together(
        function,
        click.option("--save-weights", is_flag=True, help="Save the trained weights."),
        click.option("--fail-fast", is_flag=True, help="Stop at the first failure."),
        click.option("--deterministic", is_flag=True, help="Deterministic GPU kernels; slower."),
        click.option(
            "--checkpoint-minutes",
            default=10.0,
            show_default=True,
            type=click.FloatRange(0, min_open=True),
            help="Minutes between checkpoints of a long run.",
        ),
        click.option(
            "--curve-part",
            default=1.0,
            show_default=True,
            type=click.FloatRange(0, 1, min_open=True),
            help="Fraction of the reporting split for evaluations during training, of which trials "
            "have none; the final score always uses all of it.",
        ),
        click.option(
            "--gpus-per-run",
            default=1,
            show_default=True,
            type=click.IntRange(1),
            help="GPUs that train one run together (data parallel).",
        ),
        click.option(
            "--pack",
            default="auto",
            show_default=True,
            metavar="N|auto|off",
            help="Train up to N runs together on one shared backbone, if they differ only in seed, "
            "size, learning rate or length. Their costs come from a short measurement. "
            "auto: on a GPU as many as fit in memory, on a CPU off.",
        ),
    )


def require_overrides(verb: str, overrides: tuple[str, ...]) -> None:
    """Refuse a command that starts work but names no runs.

    Raises:
        ConfigError: with examples.
    """
    if not overrides:
        some = "method=lora,bitfit task=mrpc size=1000"
        examples = {
            "tune": [some],
            "submit": ["sweep=quickstart cluster=local", f"{some} seed=0-2 cluster=slurm"],
        }.get(verb, ["sweep=quickstart", f"{some} seed=0-2"])
        shown = "\n".join(f"  peftbench {verb} {words}" for words in examples)
        raise ConfigError(
            f"`peftbench {verb}` needs overrides that select the runs, for example\n"
            f"{shown}\n"
            f"`peftbench list` shows the names, `peftbench {verb} --help` the syntax, and "
            "`peftbench plan` the runs of given overrides with their status."
        )


def search(function: Callable[..., None]) -> Callable[..., None]:
    """How many trials are made for each learning rate that is chosen."""
    return together(
        function,
        click.option(
            "--trials",
            default=6,
            show_default=True,
            type=click.IntRange(2),
            help="Learning rates to try with one seed, drawn from the range in the method's file.",
        ),
        click.option(
            "--finalists",
            default=2,
            show_default=True,
            type=click.IntRange(1),
            help="How many of the best rates to try with more seeds.",
        ),
        click.option(
            "--seeds",
            default=3,
            show_default=True,
            type=click.IntRange(1),
            help="Seeds of each finalist.",
        ),
    )


def together(
    function: Callable[..., None], *given: Callable[[Callable[..., None]], Callable[..., None]]
) -> Callable[..., None]:
    """Give a command several options, in the order of its help."""
    for option in reversed(given):
        function = option(function)
    return function


def open_results(folder: Path, option: str = "--results") -> "ResultsFolder":
    """The folder of an option or argument, as a message calls it.

    Raises:
        ConfigError: if it is anything else, such as a device.
    """
    from peftbench.results.store import ResultsFolder

    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{option} {folder} is not a folder; give an existing or a new folder")
    return ResultsFolder(folder)


def existing_results(folder: Path) -> "ResultsFolder":
    """The folder of the option `--results` of a command that reads it.

    Raises:
        ConfigError: if it does not exist, or is anything else, such as a device.
    """
    if not folder.exists():
        raise ConfigError(
            f"--results {folder} does not exist; name the folder of a `run` or `submit`"
        )
    return open_results(folder)


def show_json(tables: "Iterable[Table]", notes: Iterable[str]) -> None:
    """Print tables, and lines below them, as one JSON object."""
    import json

    shown = {"tables": [table.to_json() for table in tables], "notes": list(notes)}
    click.echo(json.dumps(shown, indent=1))


def show_all(tables: "Iterable[Table]", notes: Iterable[str]) -> None:
    """Print tables, and lines below them."""
    for table in tables:
        show(table.rich())
    for note in notes:
        tell(note)


def tell(*lines: str, indent: int = 0) -> None:
    """Print lines of prose, broken between words at the width of a terminal."""
    from peftbench.system import terminal

    for line in lines:
        click.echo(terminal.fitted(line, indent))


def check_table(made: "RenderedTable", output: Path | None) -> None:
    """Print whether a written table is what the records give; exit code 1 where it is not.

    Raises:
        ConfigError: if no file is named.
    """
    from peftbench.reports import pivot_table

    if output is None:
        raise ConfigError("--check compares a file with the records; name it with --output")
    if not pivot_table.is_current(made, output):
        told = "is not what the records give; the same command without --check writes it again"
        click.echo(f"{output} {told}", err=True)
        click.get_current_context().exit(1)
    click.echo(f"{output} is what the records give")


def note_own_files(paths: Iterable[Path]) -> None:
    """Print which configuration files outside of the package are used, and what they replace."""
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
