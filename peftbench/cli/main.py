"""The command line: the root command and the commands that plan and train.

Heavy libraries are imported by the verb that needs them, so that help and lists are instant.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftbench.cli import completion, options
from peftbench.cli.cleaning import collect_garbage
from peftbench.cli.cluster import VERBS
from peftbench.cli.exporting import export, predict
from peftbench.cli.gate import gate
from peftbench.cli.group import Verbs
from peftbench.cli.merging import merge
from peftbench.cli.pilot import pilot
from peftbench.cli.removing import remove
from peftbench.cli.report import report
from peftbench.core.errors import ConfigError
from peftbench.system import home

if TYPE_CHECKING:
    from peftbench.core.plan import Plan


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="peftbench")
def main() -> None:
    """Benchmark fine-tuning methods across models, tasks, data sizes and budgets.

    \b
    Examples:
      peftbench run sweep=quickstart
      peftbench plan method=lora,bitfit task=mrpc seed=0-2
      peftbench run method=lora,bitfit task=mrpc seed=0-2
      peftbench report html --open

    Finished runs are kept: the same command again trains only what is missing.
    """  # noqa: D301 - click looks for the character, not for a backslash
    home.ensure_home()


@main.command(epilog=options.OVERRIDES, short_help="Show the planned runs and their status.")
@options.overrides_argument
@options.results
@options.configs
@options.where
@click.option("--json", "as_json", is_flag=True, help="For scripts: every run, its key and state.")
def plan(
    overrides: tuple[str, ...], folder: Path, configs: Path | None, where: str, as_json: bool
) -> None:
    """Show the runs that OVERRIDES expand to: done, missing or failed, and estimated time."""
    from peftbench.cli.plan import checkpoint_lines, plan_table
    from peftbench.results import status
    from peftbench.runner import prefetch
    from peftbench.system import offline_folder

    found = _plan(overrides, configs, folder, where=where, ask_hub=False)
    prefetch.check_root(found, offline_folder.data_root() or found.data_root)
    results = options.open_results(folder)
    state = status.sweep_status(found, results)
    if as_json:
        import json

        click.echo(json.dumps(state.json(), indent=1))
    else:
        options.show(plan_table(state).rich())
        options.tell(state.summary(), *checkpoint_lines(state))


@main.command(epilog=options.OVERRIDES, short_help="Train missing runs and print the scores.")
@options.overrides_argument
@options.results
@options.configs
@options.machine()
@options.training
@options.shard
@options.where
@click.option(
    "--track",
    default="",
    metavar="NAMES",
    callback=lambda context, option, value: tuple(value.split(",")) if value else (),
    help="Hand finished runs to trackers: tensorboard, mlflow, wandb, csv; several with commas.",
)
@click.option("--dry-run", is_flag=True, help="Check every run and its data, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the table only.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: the answer and the tables.")
def run(
    overrides: tuple[str, ...],
    folder: Path,
    configs: Path | None,
    shard: str | None,
    where: str,
    **given: Any,
) -> None:
    """Train the runs of OVERRIDES that have no record yet, then print the scores.

    Exit code 0 when all runs have a record, 1 when some failed, 2 for bad input.
    """
    options.require_overrides("run", overrides)
    from peftbench.core.plan import RunOptions
    from peftbench.runner import sweep

    found = _plan(overrides, configs, folder, shard, where)
    sys.exit(sweep.run_plan(found, options.open_results(folder), RunOptions(**given)))


@main.command(epilog=options.OVERRIDES, short_help="Choose learning rates by trials.")
@options.overrides_argument
@options.results
@options.configs
@options.machine("all but diverged")
@options.training
@options.shard
@options.search
@click.option(
    "--sampler",
    default="stratified",
    show_default=True,
    type=click.Choice(["stratified", "tpe"]),
    help="How rates are proposed: one from each of as many parts of the range, or one after the "
    "other by Optuna's TPE, from the scores so far.",
)
@click.option("--dry-run", is_flag=True, help="Check every trial and its data, train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the table only.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: choices with their trials.")
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
    """Choose the learning rate of each method, task, model and size in OVERRIDES.

    \b
    peftbench tune method=lora,bitfit task=mrpc size=1000
    peftbench run  method=lora,bitfit task=mrpc size=1000 seed=0-4 tuned=true

    Trials train on 75 % of the examples and are scored on the rest; with fewer than 300 examples,
    by four-fold cross-validation. The reporting split has no part in the choice. Rates come from
    the method's file, or from train.lr=1e-4,3e-4,1e-3. Choices are stored in choices/ of the
    results folder. The same command again does only what is missing.

    With --shard I/N only a share of the current round; start the shards once for each round.
    `peftbench submit --tune` submits all rounds to a cluster.
    """  # noqa: D301 - click looks for the character, not for a backslash
    options.require_overrides("tune", overrides)
    from peftbench.core.plan import RunOptions
    from peftbench.core.tuning import Search
    from peftbench.runner import sharding
    from peftbench.runner import tune as tuning

    mine = None if shard is None else sharding.read(shard)
    found = _plan(overrides, configs, folder)
    search = Search(trials, finalists, seeds, sampler)
    how = RunOptions(**given)
    sys.exit(tuning.tune(found, options.open_results(folder), search, how, mine))


@main.command(epilog=options.OVERRIDES, short_help="Run evaluation suites on finished runs.")
@options.overrides_argument
@options.results
@options.configs
@options.machine()
@options.shard
@options.where
@click.option("--fail-fast", is_flag=True, help="Stop at the first failure.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the tables only.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: the answer and the tables.")
def evaluate(
    overrides: tuple[str, ...],
    folder: Path,
    configs: Path | None,
    shard: str | None,
    where: str,
    **given: Any,
) -> None:
    """Run the evaluation suites of suite=NAME on finished runs.

    The runs need saved weights: train with --save-weights, or train and evaluate at once with
    `peftbench run … suite=NAME`. suite=continual trains by itself and works on any run.
    Finished evaluations are skipped. Exit codes are those of `run`.
    """
    from peftbench.core.plan import RunOptions
    from peftbench.runner import sweep

    found = _plan(overrides, configs, folder, shard, where)
    if not found.evaluations:
        raise ConfigError(
            "no suite given; add for example suite=noise,calibration (see `peftbench list suites`)"
        )
    how = RunOptions(**given)
    sys.exit(sweep.run_plan(found, options.open_results(folder), how, train=False))


@main.command(short_help="Show one record or evaluation.")
@click.argument("key", required=False)
@options.results
@options.where
@click.option("--json", "as_json", is_flag=True, help="For scripts: the content of its file.")
def show(key: str | None, folder: Path, where: str, as_json: bool) -> None:
    """Show one record or evaluation; the first digits of its KEY are enough.

    With --where in place of a key: the record for which the conditions hold, or a line for each
    where there are several.
    """
    if (key is None) == (not where):
        raise click.UsageError("give a KEY, or conditions: --where 'method=lora seed=0'")
    from peftbench.cli.show import describe, describe_json, listed, listed_json, print_lines

    results = options.existing_results(folder)
    if as_json:
        click.echo(listed_json(results, where) if key is None else describe_json(results, key))
        return
    print_lines(listed(results, where) if key is None else describe(results, key))


for _verb in (export, predict, gate):
    main.add_command(_verb)


@main.command("list", short_help="List methods, tasks, models, suites and sweeps.")
@click.argument("group", required=False, shell_complete=completion.groups)
@options.configs
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="For scripts: names and purposes by group; of one option its keys.",
)
def list_(group: str | None, configs: Path | None, as_json: bool) -> None:
    """List methods, tasks, models, budgets, suites and sweeps, each with its purpose.

    `list lora`, or the name of any other option, shows its keys with defaults and its source.
    `list peft` shows which tuners of the peft library run on which model families, `list
    method=peft` the keys of the method.
    """
    from peftbench.cli import listing

    if as_json:
        import json

        if group == "peft":
            found = listing.peft_json()
        else:
            found = listing.option_json(group, configs) if group else {}
        click.echo(json.dumps(found or listing.purposes(group, configs), indent=1))
        return
    if group == "peft":
        table, lines = listing.peft()
        options.show(table.rich())
        options.tell(*lines)
        return
    if group is not None and (shown := listing.option(group, configs)):
        click.echo("\n".join(shown))
        return
    for plural, named in listing.purposes(group, configs).items():
        click.secho(plural, bold=True)
        width = max(map(len, named), default=0)
        options.tell(
            *(f"  {one.ljust(width)}  {about}" for one, about in named.items()), indent=width + 2
        )


for _verb in (report, pilot, merge, remove, collect_garbage, *VERBS):
    main.add_command(_verb)


@main.command(short_help="Recommend a method for a task and budget.")
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
    """Recommend a method, based on the most similar records, and report how similar they are.

    Without size= it is that of the records. Your own file is named as in the records of its runs.

    \b
    Examples:
      peftbench advise task=mrpc size=300 budget.seconds=600 model=minilm
      peftbench advise task=tickets
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.analysis import advice
    from peftbench.reports import advice as told

    found = advice.from_folders(overrides, [options.existing_results(f) for f in folders])
    if as_json:
        import json

        click.echo(json.dumps(told.as_json(found), indent=1))
        return
    options.tell(told.sentence(found))
    table = told.advice_table(found)
    options.show(table.rich())
    options.tell(f"Nearest: {'; '.join(found.distance)}.", *table.notes)


@main.command("completion", short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_(shell: str) -> None:
    """Print the line that enables completion of commands and overrides in SHELL.

    \b
    Example:
      echo 'eval "$(peftbench completion bash)"' >> ~/.bashrc
    """  # noqa: D301 - click looks for the character, not for a backslash
    source = f"_PEFTBENCH_COMPLETE={shell}_source peftbench"
    click.echo(f"{source} | source" if shell == "fish" else f'eval "$({source})"')


def _plan(
    overrides: tuple[str, ...],
    configs: Path | None,
    folder: Path,
    shard: str | None = None,
    where: str = "",
    ask_hub: bool = True,
) -> "Plan":
    from peftbench.config.sweep import plan as compose_plan
    from peftbench.runner import sharding

    mine = None if shard is None else sharding.read(shard)
    found = compose_plan(*overrides, configs=configs, results=folder, ask_hub=ask_hub)
    if found.own_files:  # which the packaged ones may be taken for
        options.note_own_files(found.own_files)
    if where:
        from peftbench.analysis import selection

        found = selection.of_plan(found, where)
    return found if mine is None else sharding.share(found, *mine)


if __name__ == "__main__":
    main()
