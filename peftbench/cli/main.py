"""The command: verbs, and after them the words that say which runs are meant.

Heavy libraries are imported by the verb that needs them, so that help and lists are instant.
"""

import errno
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli import completion, options
from peftbench.cli.cluster import VERBS
from peftbench.cli.exporting import export, predict
from peftbench.cli.report import report
from peftbench.config import old_names
from peftbench.core.errors import ConfigError, OldName, RecordError, system_reason
from peftbench.system import home, terminal

if TYPE_CHECKING:
    from peftbench.core.plan import Plan


class Verbs(click.Group):
    """Verbs in the order in which people need them; bad input ends with one clear message."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Keep the order of definition."""
        return list(self.commands)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the line, also as it was written in the release before."""
        warnings.showwarning = _show_warning
        return super().parse_args(ctx, old_names.current_arguments(args))

    def main(self, *args: Any, **more: Any) -> Any:
        """Run the command on any terminal; what the system does not do ends with one line."""
        terminal.prepare()
        try:
            return super().main(*args, **more)
        except OSError as error:
            click.echo(f"peftbench: {_system_line(error)}", err=True)
            sys.exit(2)

    def invoke(self, ctx: click.Context) -> Any:
        """Turn errors that a person can mend into a message and exit code 2."""
        try:
            _check_working_folder()
            return super().invoke(ctx)
        except (ConfigError, RecordError) as error:
            click.echo(f"peftbench: {error}", err=True)
            ctx.exit(2)


def _check_working_folder() -> None:
    try:
        Path.cwd()
    except OSError as error:
        raise ConfigError(
            f"the working folder is gone ({error.strerror}); cd to one that exists"
        ) from error


def _system_line(error: OSError) -> str:
    """What the system did not do, and what to do about it."""
    if isinstance(error, terminal.OutputError):
        terminal.discard_output()
        return f"standard output takes no more: {error.strerror}"
    todo = {
        errno.EACCES: "let your user read and write there, or name another folder",
        errno.EPERM: "let your user read and write there, or name another folder",
        errno.ENOSPC: "free some room, or name another folder",
        errno.EDQUOT: "free some room, or name another folder",
        errno.EROFS: "the file system is read-only: name another folder",
        errno.ENOTDIR: "a part of the path is a file: name another folder",
        errno.ENOENT: "it was removed, or is spelled otherwise",
        errno.EMFILE: "too many files are open: raise `ulimit -n`, or use fewer --workers",
    }.get(error.errno or 0)
    return system_reason(error) + (f"; {todo}" if todo else "")


def _show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
    """A line for a person; warnings of libraries as ever."""
    if issubclass(category, OldName):
        click.echo(f"peftbench: note: {message}", err=True)
    else:
        _SHOW_WARNING(message, category, *place, **more)


_SHOW_WARNING = warnings.showwarning


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peftbench")
def main() -> None:
    """Which way of fine-tuning is best for this model, this much data and this much time?

    \b
    A first look:   peftbench run sweep=quickstart
    What is there:  peftbench list
    What it means:  peftbench plan method=lora,bitfit task=mrpc seed=range(0,3)
    Train it:       peftbench run  method=lora,bitfit task=mrpc seed=range(0,3)

    A run that has a record is done; the same command again does only what is missing.
    """  # noqa: D301 - click looks for the character, not for a backslash
    home.ensure_home()


@main.command(epilog=options.OVERRIDES)
@options.overrides_argument
@options.results
@options.configs
@click.option("--json", "as_json", is_flag=True, help="For scripts: every run, its key and state.")
def plan(overrides: tuple[str, ...], folder: Path, configs: Path | None, as_json: bool) -> None:
    """Say which runs the OVERRIDES mean, and what is done, missing or failed."""
    from peftbench.cli.plan import checkpoint_lines, plan_table
    from peftbench.results import status

    found = _plan(overrides, configs, folder, ask_hub=False)
    results = options.open_results(folder)
    state = status.sweep_status(found, results)
    if as_json:
        import json

        click.echo(json.dumps(state.json(), indent=1))
    else:
        options.show(plan_table(state).rich())
        click.echo("\n".join([state.summary(), *checkpoint_lines(found)]))


@main.command(epilog=options.OVERRIDES)
@options.overrides_argument
@options.results
@options.configs
@options.machine
@options.training
@options.shard
@click.option("--dry-run", is_flag=True, help="Check every run and its data, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the table only.")
def run(
    overrides: tuple[str, ...], folder: Path, configs: Path | None, shard: str | None, **given: Any
) -> None:
    """Train what is missing of the runs that the OVERRIDES mean, then print the scores.

    Exit code 0 when all runs have a record, 1 when some failed, 2 for bad input.
    """
    from peftbench.core.plan import RunOptions
    from peftbench.runner import sweep

    found = _plan(overrides, configs, folder, shard)
    sys.exit(sweep.run_plan(found, options.open_results(folder), RunOptions(**given)))


@main.command(epilog=options.OVERRIDES)
@options.overrides_argument
@options.results
@options.configs
@options.machine
@options.training
@options.shard
@options.search
@click.option(
    "--sampler",
    default="stratified",
    show_default=True,
    type=click.Choice(["stratified", "tpe"]),
    help="How the rates are found: one drawn from each of as many parts of the range, or one after "
    "the other by Optuna's TPE, from the scores before.",
)
@click.option("--dry-run", is_flag=True, help="Check every trial and its data, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the table only.")
def tune(
    overrides: tuple[str, ...],
    folder: Path,
    configs: Path | None,
    shard: str | None,
    trials: int,
    finalists: int,
    seeds: int,
    sampler: str,
    **given: Any,
) -> None:
    """Choose the learning rate of each method, task, model and size that the OVERRIDES mean.

    \b
    peftbench tune method=lora,bitfit task=mrpc size=1000
    peftbench run  method=lora,bitfit task=mrpc size=1000 seed=range(0,5) tuned=true

    Trials train on 75 % of the examples and are scored on the rest, in all four parts in turn
    where there are fewer than 300; the reporting split is not looked at. Rates come from the
    method's file, or are those of train.lr=1e-4,3e-4,1e-3. Choices are files in choices/ of the
    results folder. The same command again does only what is missing.

    With --shard I/N a share of the round that is due; the shards are started once for each round.
    `peftbench submit --tune` hands all rounds to a cluster.
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.core.plan import RunOptions
    from peftbench.core.tuning import Search
    from peftbench.runner import sharding
    from peftbench.runner import tune as tuning

    mine = None if shard is None else sharding.read(shard)
    found = _plan(overrides, configs, folder)
    search = Search(trials, finalists, seeds, sampler)
    how = RunOptions(**given)
    sys.exit(tuning.tune(found, options.open_results(folder), search, how, mine))


@main.command(epilog=options.OVERRIDES)
@options.overrides_argument
@options.results
@options.configs
@options.machine
@options.shard
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the tables only.")
def evaluate(
    overrides: tuple[str, ...], folder: Path, configs: Path | None, shard: str | None, **given: Any
) -> None:
    """Ask suites about finished runs that the OVERRIDES mean, among them suite=NAME.

    The runs were made with --save-weights (`peftbench run … suite=NAME` trains and evaluates);
    rounds train for themselves, and any run will do.
    Only what was not asked yet is done. Exit codes as of `run`.
    """
    from peftbench.core.plan import RunOptions
    from peftbench.runner import sweep

    found = _plan(overrides, configs, folder, shard)
    if not found.evaluations:
        raise ConfigError("say which suites are meant: suite=noise,calibration; see `list suites`")
    how = RunOptions(**given)
    sys.exit(sweep.run_plan(found, options.open_results(folder), how, train=False))


@main.command()
@click.argument("key")
@options.results
def show(key: str, folder: Path) -> None:
    """Show one record, or what an evaluation found; the first digits of its KEY will do."""
    from peftbench.cli.show import describe

    click.echo(describe(options.open_results(folder), key))


for _verb in (export, predict):
    main.add_command(_verb)


@main.command("list")
@click.argument("group", required=False, shell_complete=completion.groups)
@options.configs
def list_(group: str | None, configs: Path | None) -> None:
    """List methods, tasks, models, budgets, suites and sweeps, each with its purpose.

    `list peft` says which tuners of the peft library run on which families.
    """
    from peftbench.cli import listing

    if group == "peft":
        table, lines = listing.peft()
        options.show(table.rich())
        click.echo("\n".join(lines))
        return
    for plural, lines in listing.offered(group, configs).items():
        click.secho(plural, bold=True)
        click.echo("\n".join(lines))


for _verb in (report, *VERBS):
    main.add_command(_verb)


@main.command()
@options.overrides_argument
@click.option(
    "--results",
    "folders",
    multiple=True,
    default=["results/runs"],
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of records; may be given more than once.",
)
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def advise(overrides: tuple[str, ...], folders: tuple[Path, ...], as_json: bool) -> None:
    """Say which method suits: advise task=mrpc size=300 budget.seconds=600 model=minilm.

    From the records nearest to that; how far they are, and what they cannot tell, is said.
    """
    from peftbench.analysis import advice
    from peftbench.reports import advice as told

    found = advice.from_folders(advice.ask(*overrides), [options.open_results(f) for f in folders])
    if as_json:
        import json

        click.echo(json.dumps(told.as_json(found), indent=1))
        return
    click.echo(told.sentence(found))
    table = told.advice_table(found)
    options.show(table.rich())
    click.echo("\n".join([f"Nearest: {'; '.join(found.distance)}.", *table.notes]))


@main.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> None:
    """Print the line that switches on completion of verbs and words in a SHELL."""
    source = f"_PEFTBENCH_COMPLETE={shell}_source peftbench"
    click.echo(f"{source} | source" if shell == "fish" else f'eval "$({source})"')


def _plan(
    overrides: tuple[str, ...],
    configs: Path | None,
    folder: Path,
    shard: str | None = None,
    ask_hub: bool = True,
) -> "Plan":
    from peftbench.config.sweep import plan as compose_plan
    from peftbench.runner import sharding

    mine = None if shard is None else sharding.read(shard)
    found = compose_plan(*overrides, configs=configs, results=folder, ask_hub=ask_hub)
    if found.own_files:  # which the packaged ones may be taken for
        options.note_own_files(found.own_files)
    return found if mine is None else sharding.share(found, *mine)


if __name__ == "__main__":
    main()
