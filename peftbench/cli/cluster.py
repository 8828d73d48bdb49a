"""Commands for clusters, and the checks before a submission."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from peftbench.cli import options
from peftbench.core.errors import ConfigError

CLUSTER = """
\b
A cluster is a YAML file; overrides change its keys:
  cluster=slurm cluster.partition=gpu cluster.gpus=1 cluster.memory_gb=32
  cluster=grid_engine cluster.parallel_environment=smp
  cluster=pbs             also lsf, htcondor, flux and kubernetes
  cluster=local           this machine, in the background
  cluster=mine            your own ./configs/cluster/mine.yaml; see
                          configs/cluster/slurm.yaml
"""

_NOTHING = (
    "{folder}: no command runs on this machine, and no jobs were submitted; "
    "`peftbench plan OVERRIDES` shows what is done"
)

#: Seconds between two looks of `status --watch`.
WATCH = 30

_names = click.argument("names", nargs=-1)


@click.command(
    epilog=options.OVERRIDES + CLUSTER, short_help="Submit missing runs and return at once."
)
@options.overrides_argument
@options.results
@options.configs
@options.training
@click.option("--workers", type=click.IntRange(1), help="Processes of each job.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads of each process.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@options.retry(
    "transient ones; lost up to cluster.attempts times, memory while more can be asked for"
)
@click.option("--tune", "tuning", is_flag=True, help="Choose learning rates, as `tune` does.")
@options.search
@click.option("--dry-run", is_flag=True, help="Print what would be submitted.")
def submit(
    overrides: tuple[str, ...],
    folder: Path,
    configs: Path | None,
    tuning: bool,
    trials: int,
    finalists: int,
    seeds: int,
    dry_run: bool,
    **given: Any,
) -> None:
    """Submit the missing runs of OVERRIDES to a cluster and return immediately.

    Finished and queued runs are skipped; short ones share a job. Checkpoints, data, methods and
    prompts are checked first, as `run` does. `peftbench status` shows the jobs, `peftbench collect`
    builds the report.

    With --tune it submits trials in place of runs: the first round, and jobs that start when it is
    over, which train the second round and choose.

    Exit code 1 when the scheduler accepted only a part, 2 for bad input (nothing is submitted).
    """
    options.require_overrides("submit", overrides)
    from peftbench.cluster import submit as submitting
    from peftbench.config import cluster
    from peftbench.config.sweep import plan
    from peftbench.core.plan import RunOptions
    from peftbench.core.tuning import RateChoice, Search
    from peftbench.runner import prefetch as fetching
    from peftbench.runner import tune
    from peftbench.runner.worker_pool import Stopped
    from peftbench.system import offline_folder

    said = _of_search(tuning)
    ours, runs = cluster.parted(overrides)
    found = cluster.read(ours, configs)
    if found.prefetched:
        offline_folder.use(Path(found.prefetched))
    planned = plan(*runs, configs=configs, results=folder)
    if planned.own_files:
        options.note_own_files(planned.own_files)
    fetching.require_inputs(planned, offline_folder.data_root() or planned.data_root)
    results = options.open_results(folder)
    order = RunOptions(**given)
    choices: list[RateChoice] = []
    if tuning:
        planned, choices = tune.first_round(planned, Search(trials, finalists, seeds), results)
        if not choices:
            click.echo("nothing to submit: all of these learning rates are chosen")
            return
    try:
        words = [*said, *_given(), *overrides]
        told = submitting.submit(planned, words, results, found, order, dry_run, choices)
    except Stopped:
        click.echo("interrupted during the checks; nothing was submitted", err=True)
        sys.exit(130)
    click.echo("\n".join(submitting.sentence(told, results, dry_run)))
    sys.exit(1 if told.refused else 0)


def _of_search(tuning: bool) -> list[str]:
    """The options of this command that say what is searched.

    Raises:
        ConfigError: for one of them without --tune.
    """
    words = _words("trials", "finalists", "seeds")
    if words and not tuning:
        raise ConfigError(f"{words[0]} is for trials: submit --tune {words[0]} …")
    return ["--tune", *words] if tuning else []


#: Options of `submit` that the command which submits the rest does without or has from elsewhere.
_NOT_AGAIN = frozenset({"folder", "retry", "dry_run", "tuning", "trials", "finalists", "seeds"})


def _given() -> list[str]:
    """The other options of this command, which say how jobs run and where configs are."""
    command = click.get_current_context().command
    options = [one.name for one in command.params if isinstance(one, click.Option)]
    return _words(*(name for name in options if name and name not in _NOT_AGAIN))


def _words(*names: str) -> list[str]:
    """Those of these options that stand on the command line, as they stand there."""
    context = click.get_current_context()
    words = []
    for option in context.command.params:
        given = context.get_parameter_source(option.name or "") is ParameterSource.COMMANDLINE
        if option.name in names and given:
            words.append(option.opts[0])
            if not getattr(option, "is_flag", False):
                words.append(str(context.params[option.name]))
    return words


@click.command(short_help="Show running work and submitted jobs.")
@options.results
@click.option("--json", "as_json", is_flag=True, help="For scripts: the state of every run.")
@click.option("--watch", is_flag=True, help="Repeat every half minute until nothing is left.")
def status(folder: Path, as_json: bool, watch: bool) -> None:
    """Show what runs on this machine, and the state of submitted jobs.

    Local commands write their progress into the results folder. The scheduler is queried at most
    once in half a minute (cluster.poll_seconds).
    """
    from peftbench.cluster import collect as collecting
    from peftbench.cluster.queue import look
    from peftbench.results import in_flight

    results = options.existing_results(folder)
    while True:
        seen, running = look(results, fresh=False), in_flight.read(results)
        submitted = [*seen.submissions, *seen.unreadable]
        if as_json:
            here = {"running": [vars(one) for one in running]}
            click.echo(json.dumps(collecting.as_json(seen) | here, indent=1))
        else:
            click.echo("".join(f"{line}\n" for one in running for line in one.lines), nl=False)
            if submitted:
                options.show(collecting.queue_table(seen).rich())
            for line in collecting.lines(seen):
                click.echo(line)
            if not (submitted or running):
                options.tell(_NOTHING.format(folder=folder))
        if not watch or not (seen.alive or seen.silent or running):
            return
        time.sleep(WATCH)


@click.command(short_help="Build the report of finished jobs.")
@options.results
@click.option("--json", "as_json", is_flag=True, help="For scripts: report, states, the rest.")
def collect(folder: Path, as_json: bool) -> None:
    """Build the report of finished jobs, list failures and print how to submit the rest.

    For jobs that ended early, the scheduler's reason is shown. Exit code 0 when everything that
    was submitted has a record, else 1.
    """
    from peftbench.cluster import collect as collecting
    from peftbench.cluster.manifest import alone
    from peftbench.cluster.queue import DONE, look
    from peftbench.cluster.settle import settle
    from peftbench.reports import builder
    from peftbench.reports.tuning import choice_table
    from peftbench.results.choices import scan

    results = options.existing_results(folder)
    with alone(results):
        seen = settle(results, look(results))
    if not (seen.submissions or seen.unreadable):
        raise ConfigError(f"{folder} has no submissions; `peftbench status` shows what runs here")
    searched = any(one.search for one in seen.submissions)
    chosen, torn = scan(results) if searched else ([], {})
    for reason in torn.values():
        click.echo(f"left out, unreadable: {reason}", err=True)
    rest = collecting.rest(seen, results)
    found = collecting.as_json(seen) | {
        "choices": [choice.to_json() for choice in chosen],
        "rest": rest,
        "report": None,
    }

    def show(made: builder.Made) -> None:
        if as_json:
            found["report"] = made.to_json()
        else:
            options.show_all(made.tables, made.notes)

    if results.keys():
        builder.write(results, show=show)
        if not as_json:
            click.echo(f"report: {results.reports()}")
    code = 0 if set(seen.state.values()) == {DONE} else 1
    if as_json:
        click.echo(json.dumps(found, indent=1))
        sys.exit(code)
    if chosen:
        options.show(choice_table(chosen).rich())
    options.show(collecting.queue_table(seen).rich())
    for line in collecting.lines(seen):
        click.echo(line)
    if rest:
        click.echo("to submit the rest:")
        click.echo("\n".join(f"  {line}" for line in rest))
    sys.exit(code)


@click.command(short_help="Cancel submitted jobs.")
@_names
@options.results
def cancel(names: tuple[str, ...], folder: Path) -> None:
    """Cancel the jobs of submissions (all in the folder by default). Finished runs are kept.

    Exit code 1 when some jobs may still run.
    """
    from peftbench.cluster import cancel as cancelling

    found, unreadable = cancelling.cancel(options.existing_results(folder), list(names))
    for one in found:
        click.echo("\n".join(one.sentences()))
    for torn in unreadable:
        click.echo(f"{torn.name}: {torn.reason}")
    if not found and not unreadable:
        click.echo("no job is waiting or running")
    sys.exit(1 if unreadable or not all(one.is_over for one in found) else 0)


@click.command(epilog=options.OVERRIDES, short_help="Download models and data for offline nodes.")
@options.overrides_argument
@click.option(
    "--to",
    "target",
    type=click.Path(file_okay=False, path_type=Path),
    help="Target folder, on a file system that the nodes can read.  [default: this user's caches]",
)
@options.results
@options.configs
def prefetch(
    overrides: tuple[str, ...], target: Path | None, folder: Path, configs: Path | None
) -> None:
    """Download the models and data of OVERRIDES to a folder, for nodes without internet.

    A checkpoint that has only pytorch_model.bin is converted to safetensors, once, in the cache.
    Without --to the caches of this machine are filled. Chosen learning rates (tuned=true) and
    commits of data sets and models are those of the results folder.

    Use the folder with `submit … cluster.prefetched=FOLDER`, or with PEFTBENCH_PREFETCHED=FOLDER
    before any command. Runs then read only that folder, and never write to it.
    """
    options.require_overrides("prefetch", overrides)
    from peftbench.config import cluster
    from peftbench.config.sweep import plan
    from peftbench.runner import prefetch as fetching
    from peftbench.system import pickled

    ours, runs = cluster.parted(overrides)
    place = cluster.read(ours, configs).prefetched if ours else None
    if place and target is None:
        raise ConfigError(
            f"cluster.prefetched={place} is where jobs look; fill it with --to {place}"
        )
    with pickled.converting():
        planned = plan(*runs, configs=configs, results=folder)
        lines = (
            fetching.fill_caches(planned)
            if target is None
            else fetching.fetch(planned, list(overrides), target)
        )
        for line in lines:
            click.echo(line)


@click.command(epilog=options.OVERRIDES + CLUSTER, short_help="Check the installation.")
@options.overrides_argument
@options.results
@options.configs
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
def doctor(overrides: tuple[str, ...], folder: Path, configs: Path | None, as_json: bool) -> None:
    """Check this installation, and with cluster=NAME what a submission needs.

    With OVERRIDES, also check that models and data can be loaded, and estimate the memory that one
    GPU needs for each model and method, from the checkpoint's config. Prints what to do about each
    failure; exit code 1 if there is one.

    \b
    model=roberta_large method=full train.batch_size=16: 9 GiB
    model=auto model.checkpoint=meta-llama/Llama-2-7b-hf method=lora
      train.batch_size=4: 40 GiB
    the same with method=full: 138 GiB, for a GPU with 180 GB
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.cli import doctor
    from peftbench.config import cluster

    ours, runs = cluster.parted(overrides)
    found = doctor.examine(
        runs, cluster.read(ours, configs) if ours else None, configs, options.open_results(folder)
    )
    if as_json:
        click.echo(json.dumps([vars(one) for one in found], indent=1))
    else:
        options.show(doctor.findings_table(found).rich())
    sys.exit(1 if any(one.state == doctor.BAD for one in found) else 0)


VERBS = (submit, status, collect, cancel, prefetch, doctor)
