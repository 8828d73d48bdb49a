"""The command: verbs, and after them the words that say which runs are meant.

Heavy libraries are imported by the verb that needs them, so that help and lists are instant.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench import completion
from peftbench.run import ConfigError, RecordError

if TYPE_CHECKING:
    from peftbench.store import Results
    from peftbench.sweep import Plan

WORDS = """
\b
WORDS say which runs are meant, in Hydra's grammar:
  method=lora,bitfit      two values make two runs; all axes are crossed
  task=mrpc size=100,0.3  options are named, `peftbench list` shows them
  seed=range(0,5)         0 1 2 3 4
  budget=steps budget.steps=500 train.lr=1e-4,1e-3 method.rank=4
  method=sparse_adapter method.host=lora     a method inside another one
  suite=noise suite.examples=500             more questions to the trained weights
  sweep=quickstart        a grid from configs/sweep, words beside it override it
  zip='size=100,1000 budget.epochs=10,3'     axes that move together
  when='method=lora: train.lr=1e-4,1e-3'     axes for some cells only
  exclude='method=full size=100'             cells to leave out
"""


class Verbs(click.Group):
    """Verbs in the order in which people need them; bad input ends with one clear message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of definition."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn errors that a person can mend into a message and exit code 2."""
        try:
            return super().invoke(ctx)
        except (ConfigError, RecordError) as error:
            click.echo(f"peftbench: {error}", err=True)
            ctx.exit(2)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peftbench")
def main() -> None:
    r"""Which way of fine-tuning is best for this model, this much data and this much time?

    \b
    A first look:   peftbench run sweep=quickstart
    What is there:  peftbench list
    What it means:  peftbench plan method=lora,bitfit task=mrpc seed=range(0,3)
    Train it:       peftbench run  method=lora,bitfit task=mrpc seed=range(0,3)

    A run that has a record is done; the same command again does only what is missing.
    """


def _words(function: Callable[..., None]) -> Callable[..., None]:
    return click.argument(
        "words", nargs=-1, type=click.UNPROCESSED, shell_complete=completion.words
    )(function)


_results = click.option(
    "--results",
    "folder",
    default="results/runs",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of records.",
)
_configs = click.option(
    "--configs",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of your own configs, searched before the packaged ones.  [default: ./configs]",
)


def _machine(function: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option(
            "--workers", type=click.IntRange(1), help="Processes.  [default: what suits here]"
        ),
        click.option(
            "--threads", type=click.IntRange(1), help="CPU threads of each.  [default: as above]"
        ),
        click.option(
            "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:i."
        ),
        click.option(
            "--retry",
            metavar="CLASSES",
            help="Failures to try again: all, none or classes such as memory,error.  "
            "[default: those that came from outside: killed,exit,disk,data]",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


@main.command(epilog=WORDS)
@_words
@_results
@_configs
@click.option("--json", "as_json", is_flag=True, help="For scripts: every run, its key and state.")
def plan(words: tuple[str, ...], folder: Path, configs: Path | None, as_json: bool) -> None:
    """Say which runs the WORDS mean, and what is done, missing or failed."""
    from peftbench import status

    found, results = _plan(words, configs, folder), _open(folder)
    state = status.of(found, results)
    if as_json:
        import json

        click.echo(json.dumps(state.json(), indent=1))
    else:
        _print(state.table().rich())
        click.echo(state.summary())


@main.command(epilog=WORDS)
@_words
@_results
@_configs
@_machine
@click.option("--keep", type=click.Choice(["trained"]), help="Keep what the method trained.")
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--deterministic", is_flag=True, help="Deterministic GPU kernels; slower.")
@click.option(
    "--checkpoint-minutes",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Between checkpoints of a long run.",
)
@click.option(
    "--curve-part",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True),
    help="Of the reporting split for evaluations during training; the score is of all of it.",
)
@click.option("--dry-run", is_flag=True, help="Check every run and its data, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the table only.")
def run(words: tuple[str, ...], folder: Path, configs: Path | None, **options: Any) -> None:
    """Train what is missing of the runs that the WORDS mean, then print the scores.

    Exit code 0 when all runs have a record, 1 when some failed, 2 for bad input.
    """
    from peftbench import sweep_run

    order = sweep_run.Order(**options)
    sys.exit(sweep_run.go(_plan(words, configs, folder), _open(folder), order))


@main.command(epilog=WORDS)
@_words
@_results
@_configs
@_machine
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the tables only.")
def evaluate(words: tuple[str, ...], folder: Path, configs: Path | None, **options: Any) -> None:
    """Ask suites about finished runs that the WORDS mean, among them suite=NAME.

    The runs were made with --keep trained (`peftbench run … suite=NAME` trains and evaluates);
    rounds train for themselves, and any run will do.
    Only what was not asked yet is done. Exit codes as of `run`.
    """
    from peftbench import sweep_run

    found = _plan(words, configs, folder)
    if not found.evaluations:
        raise ConfigError("say which suites are meant: suite=noise,calibration; see `list suites`")
    order = sweep_run.Order(**options)
    sys.exit(sweep_run.go(found, _open(folder), order, train=False))


@main.command()
@click.argument("key")
@_results
def show(key: str, folder: Path) -> None:
    """Show one record, or what an evaluation found; the first digits of its KEY will do."""
    from peftbench.describe import describe

    click.echo(describe(_open(folder), key))


@main.command()
@click.argument("key")
@click.argument("target", type=click.Path(path_type=Path))
@_results
def export(key: str, target: Path, folder: Path) -> None:
    """Write the kept weights of a run as a folder that the peft library loads.

    LoRA (rsLoRA, DoRA), IA3 and prefixes; the run was made with --keep trained. A prefix brings the
    table of positions that it needs there, which replaces the one of the model it is loaded into.
    """
    from peftbench import exporting
    from peftbench.describe import find

    results = _open(folder)
    exporting.to_peft(find(results, key), results, target)
    click.echo(f"{target}: PeftModel.from_pretrained(model, {str(target)!r})")


@main.command("list")
@click.argument("group", required=False, shell_complete=completion.groups)
@_configs
def list_(group: str | None, configs: Path | None) -> None:
    """List methods, tasks, models, budgets, suites and sweeps, each with its purpose.

    `list peft` says which tuners of the peft library run on which families.
    """
    from peftbench import listing

    if group == "peft":
        table, lines = listing.peft()
        _print(table.rich())
        click.echo("\n".join(lines))
        return
    for plural, lines in listing.offered(group, configs).items():
        click.secho(plural, bold=True)
        click.echo("\n".join(lines))


@main.command()
@_results
@click.option("--check", is_flag=True, help="Fail if the files are not what the records give.")
@click.option(
    "--prices",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A yaml of what hours, energy and storage cost you (see configs/prices.yaml).",
)
@click.option(
    "--against", metavar="ROW", help="Baseline of comparisons.  [default: what trains most]"
)
def report(folder: Path, check: bool, prices: Path | None, against: str | None) -> None:
    """Write and print tables and plots of all records: Markdown, CSV, PNG."""
    from peftbench import reporting

    results, paid = _open(folder), None if prices is None else reporting.read_prices(prices)
    if check:
        stale = reporting.stale(results, paid, against)
        for path in stale:
            click.echo(f"{path} is not what the records give; run `peftbench report`", err=True)
        if not stale:
            click.echo(f"{results.reports()} is what the records give")
        sys.exit(1 if stale else 0)
    made = reporting.write(results, prices=paid, against=against)
    for table in (*made.tables, *made.more):
        _print(table.rich())
    for note in made.notes:
        click.echo(note)
    click.echo("\n".join(["written:", *(f"  {path}" for path in made.paths)]))


@main.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> None:
    """Print the line that switches on completion of verbs and words in a SHELL."""
    source = f"_PEFTBENCH_COMPLETE={shell}_source peftbench"
    click.echo(f"{source} | source" if shell == "fish" else f'eval "$({source})"')


def _plan(words: tuple[str, ...], configs: Path | None, folder: Path) -> "Plan":
    from peftbench.sweep import plan as plan_words

    return plan_words(*words, configs=configs, results=folder)


def _open(folder: Path) -> "Results":
    from peftbench.store import Results

    return Results(folder)


def _print(renderable: Any) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:  # a pipe has no width: nothing is cut off for it
        console = Console(highlight=False, width=200)
    console.print(renderable)


if __name__ == "__main__":
    main()
