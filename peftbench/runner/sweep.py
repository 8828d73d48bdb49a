"""Run a plan on this machine: train what has no record, evaluate, report."""

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation, Job
from peftbench.core.failures import FAILURE_KINDS, TRANSIENT_FAILURES, Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.text import command, count_of, one_line
from peftbench.reports import builder
from peftbench.reports.tables.terminal import print_out
from peftbench.results import in_flight, status
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.runner import packs, prefetch
from peftbench.runner.only_one import keep_revisions
from peftbench.runner.progress import Display, note
from peftbench.runner.resources import Resources, choose_resources
from peftbench.runner.tracking import Tracking, check_trackers
from peftbench.runner.worker_environment import left_out
from peftbench.runner.worker_pool import Stopped, WorkerPool
from peftbench.suites import base
from peftbench.system import home, offline_folder, terminal
from peftbench.system.hardware import bf16_on_cpu, devices, unused_gpus


@dataclass(frozen=True)
class Todo:
    """Jobs to do.

    Attributes:
        runs: to train.
        evaluations: of these runs, or of runs that have a record.
        data_root: folders of data sets in the hub's layout, or None for the hub.
        forecast: of the seconds of runs, for the display.
        trials: whether the runs are trials, of which learning rates are chosen.
    """

    runs: list[Run]
    evaluations: list[Evaluation]
    data_root: str | None
    forecast: Forecast
    trials: bool = False


def run_plan(plan: Plan, results: ResultsFolder, options: RunOptions, train: bool = True) -> int:
    """Do what is missing of a plan, print the scores, and return the exit code.

    Args:
        train: whether runs without a record may be trained; else they are an error.

    Raises:
        ConfigError: for bad input, before anything is done.
    """
    todo, before = _todo(plan, results, options, train)
    left = bool(todo.runs or todo.evaluations)
    if left and execute(todo, results, options, devices(options.device)):
        note_stopped("runs", options)
        return 130
    tried = {run.key for run in todo.runs} | {one.key for one in todo.evaluations}
    skipped = before.failed.keys() - tried
    if options.dry_run:
        note(_ready(todo, len(skipped)))
        if options.as_json:
            ready = {"runs": len(todo.runs), "evaluations": len(todo.evaluations)}
            terminal.write(json.dumps(ready, indent=1) + "\n")
        return 0
    return _sum_up(plan, results, skipped, options.as_json)


def _ready(todo: Todo, skipped: int) -> str:
    """A line on what a dry run has found to do."""
    failed = f"; not tried again (see --retry): {count_of(skipped, 'failure')}" if skipped else ""
    if not todo.runs and not todo.evaluations:
        return f"nothing is left to do{failed}"
    count = len(todo.evaluations)
    more = f", {count_of(count, 'evaluation')} to make" if count else ""
    return f"ready to train: {count_of(len(todo.runs), 'run')}{more}{failed}"


def note_stopped(what: str, options: RunOptions) -> None:
    """Say what a signal left, and how to go on."""
    same = command(*sys.argv[1:])
    if options.dry_run:
        note(f"stopped; nothing was trained; check again with: {same}")
    else:
        note(f"stopped; finished {what} are kept; resume with: {same}")


def do_plan(plan: Plan, results: ResultsFolder, options: RunOptions, train: bool = True) -> bool:
    """Do what is missing of a plan, without a report; return whether it was stopped.

    Args:
        train: as of `run_plan`.

    Raises:
        ConfigError: for bad input, before anything is done.
    """
    todo, _ = _todo(plan, results, options, train)
    left = bool(todo.runs or todo.evaluations)
    return left and execute(todo, results, options, devices(options.device))


def _todo(
    plan: Plan, results: ResultsFolder, options: RunOptions, train: bool
) -> tuple[Todo, status.SweepStatus]:
    """What is to be done, after all refusals, and how things are before."""
    is_retried = retry_filter(options.retry)
    devices(options.device)  # refused, if it is none
    check_trackers(options.track)
    results.check_writable()
    before = status.sweep_status(plan, results)
    before.refuse_closed()
    # a dry run replaces no commit: finished runs would get other keys
    keep_revisions(results, replace(plan, renewed=set()) if options.dry_run else plan)
    if not train:
        _check_trained(before)
    todo = select_jobs(before, is_retried)
    check_weights(todo, before, results)
    if train and options.save_weights and (bare := _without_weights(_done(before), results)):
        note(
            f"without saved weights: {count_of(len(bare), 'finished run')} ({_some(bare)}); "
            "nothing is trained twice: to have their weights, remove them first "
            "(`peftbench rm KEY --yes`)"
        )
    if options.quiet or options.stage:
        if before.bad:
            note("\n".join(before.unreadable()))
        if not options.quiet:
            note(f"{options.stage}: {before.left()}")
    else:
        note(before.summary())
    return todo, before


def select_jobs(before: status.SweepStatus, is_retried: Callable[[str], bool]) -> Todo:
    """Leave out what is done, and what failed in a way that is not tried again."""
    failed = before.failed

    def due(key: str) -> bool:
        return key not in failed or is_retried(failed[key].kind)

    runs = [run for run in before.missing if due(run.key)]
    # an evaluation goes with its run, which keeps no weights without it
    again = {run.key for run in runs}
    return Todo(
        runs,
        [one for one in before.unevaluated if due(one.key) or one.run.key in again],
        offline_folder.data_root() or before.plan.data_root,
        before.forecast,
    )


def execute(
    todo: Todo,
    results: ResultsFolder,
    options: RunOptions,
    gpus: list[str],
    halted: Callable[[], bool] | None = None,
) -> bool:
    """Check, train and evaluate; return whether it was stopped.

    Args:
        gpus: to use; none for the CPU.
        halted: whether to stop; by default on Ctrl-C, SIGTERM and SIGUSR1.

    Raises:
        ConfigError: for what a worker finds wrong, before anything is done.
    """
    home.ensure_home()
    prefetch.require_obtainable([*todo.runs, *(one.run for one in todo.evaluations)])
    check_precision(todo.runs, gpus)
    if odd := results.check_claims():
        note(f"note: {odd}")
    wanted = Plan(todo.runs, len(todo.runs), [], [], todo.data_root, todo.evaluations)
    absent = None
    try:
        prefetch.fetch_from_hub(wanted, todo.data_root)
    except ConfigError as error:  # said with all that the worker finds wrong besides
        absent = error
    except KeyboardInterrupt:
        return True
    resources = choose_resources([*todo.runs, *todo.evaluations], gpus, options)
    _print_resources(resources, todo, results, options)
    setting = _worker_setting(resources, todo, options)
    pool = WorkerPool(results, setting, resources.workers, gpus, halted=halted)
    total, shown = len(todo.runs) + len(todo.evaluations), options.shown_as
    # loading and checks take seconds
    in_flight.write(results, shown or command(*sys.argv[1:]), 0, total, None, [])
    try:
        preflight(pool, todo, options.follows)
        if absent is not None:
            raise absent
        if options.dry_run:
            return pool.halted
        train_all(pool, todo, resources, options)
        evaluate_all(pool, todo, resources, options)
    except (Stopped, KeyboardInterrupt):
        return True
    finally:
        pool.close()
        in_flight.remove(results)
    _print_full_disk(pool.failures, results)
    return False


def preflight(pool: WorkerPool, todo: Todo, silent: bool = False) -> None:
    """Instantiate every run and suite in a worker, and print what is odd in their data."""
    for line in pool.check_runs(todo.runs, todo.evaluations):
        if not silent:
            note(f"note: {one_line(line)}")


def train_all(pool: WorkerPool, todo: Todo, resources: Resources, options: RunOptions) -> None:
    """Train the runs, those of one model in a row: a warm worker keeps one backbone."""
    if not todo.runs:
        return
    runs = sorted(todo.runs, key=lambda run: run.model.name)
    units = packs.units(runs, resources.pack, resources.workers)
    weights = todo.forecast.weights(runs)
    with _display(runs, weights, resources, pool, options) as display:
        pool.listen = Tracking(options.track, pool.results, display, note)
        pool.work(units, options.fail_fast)


def evaluate_all(pool: WorkerPool, todo: Todo, resources: Resources, options: RunOptions) -> None:
    """Make the evaluations whose run has a record by now."""
    ready = [one for one in todo.evaluations if pool.results.has(one.run.key)]
    if not ready or pool.gives_up(options.fail_fast):
        return
    ready.sort(key=lambda one: (one.run.model.name, one.run.task.name, one.run.seed))
    weights = {one.key: 1.0 for one in ready}
    with _display(ready, weights, resources, pool, options) as display:
        pool.listen = display
        pool.work([[one] for one in ready], options.fail_fast)


def _display(
    jobs: Sequence[Job],
    weights: dict[str, float],
    resources: Resources,
    pool: WorkerPool,
    options: RunOptions,
) -> Display:
    shown = options.shown_as
    return Display(jobs, weights, resources.workers, pool.results, options.quiet, shown)


#: Failures of another sort than divergence, which would come again; for `retry_filter`.
BUT_DIVERGED = ",".join(kind for kind in FAILURE_KINDS if kind != "diverged")


def retry_filter(retry: str | None) -> Callable[[str], bool]:
    """Return a predicate of the failure classes that are tried again.

    Raises:
        ConfigError: for a word that is no class.
    """
    chosen = {"all": tuple(FAILURE_KINDS), "none": (), None: TRANSIENT_FAILURES}.get(retry)
    if chosen is None:
        chosen = tuple(str(retry).split(","))
    for kind in chosen:
        if kind not in FAILURE_KINDS:
            known = ", ".join(["all", "none", *FAILURE_KINDS])
            raise ConfigError(f"--retry {retry}: {kind!r} is no class; there are {known}")
    return lambda kind: kind in chosen


def check_precision(runs: list[Run], gpus: list[str]) -> None:
    """Refuse fp16 without a GPU."""
    half = sum(run.train.precision == "fp16" for run in runs)
    if half and not gpus:
        raise ConfigError(
            f"train.precision=fp16, which is for GPUs: {half} of {count_of(len(runs), 'run')}, and "
            "no GPU is used here; use auto, bf16 or fp32, or choose a GPU with --device cuda"
        )


def _check_trained(before: status.SweepStatus) -> None:
    """Refuse a plan with runs that have no record."""
    if before.missing:
        raise ConfigError(
            f"without a record in {before.folder}: {len(before.missing)} of "
            f"{count_of(len(before.plan.runs), 'run')}; `peftbench run` with the same "
            "overrides trains and evaluates them"
        )


def check_weights(todo: Todo, before: status.SweepStatus, results: ResultsFolder) -> None:
    """Refuse evaluations of finished runs whose weights are gone, before anything is done."""
    asked = {e.run.key for e in of_weights(todo.evaluations)}
    if gone := _without_weights(asked & _done(before), results):
        raise ConfigError(
            f"without saved weights: {count_of(len(gone), 'finished run')} ({_some(gone)}); "
            "remove them with `peftbench rm KEY --yes`, then `peftbench run` with the same "
            "overrides trains them again and keeps the weights"
        )


def _done(before: status.SweepStatus) -> set[str]:
    """Keys of the finished runs of a plan."""
    return {run.key for run in before.plan.runs} & before.done


def _without_weights(done: set[str], results: ResultsFolder) -> list[str]:
    """Of the keys of finished runs those whose weights are not in the folder."""
    return sorted(key for key in done if not results.kept(key))


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:4]) + ", …" * (len(keys) > 4)


def of_weights(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Those that need kept weights; the others train for themselves."""
    return [one for one in evaluations if not base.build_suite(one.suite).trains]


def _worker_setting(resources: Resources, todo: Todo, options: RunOptions) -> RuntimeConfig:
    return RuntimeConfig(
        device="cuda" if resources.gpus else "cpu",
        threads=resources.threads,
        data_root=todo.data_root,
        save_weights=bool(of_weights(todo.evaluations)) or options.save_weights,
        minutes=options.checkpoint_minutes,
        deterministic=options.deterministic,
        curve_part=options.curve_part,
        processes=options.gpus_per_run,
        pack=resources.pack,
        trial=todo.trials,
    )


def _print_resources(
    resources: Resources, todo: Todo, results: ResultsFolder, options: RunOptions
) -> None:
    if options.follows:
        return
    gpus, pack = resources.gpus, resources.pack
    if not options.quiet:
        where = f"GPU {', '.join(gpus)}" if gpus else f"CPU, threads of each: {resources.threads}"
        together = f" of {options.gpus_per_run} processes" * (options.gpus_per_run > 1)
        shared = f", packs of up to {pack} runs" * (pack > 1)
        note(
            f"workers: {resources.workers}{together} on {where}{shared}; "
            f"results in {results.folder}"
        )
        if names := left_out(os.environ):
            note(
                f"left out of the workers' environment, as they would change or hang runs: "
                f"{', '.join(names)}"
            )
        if not gpus and options.device == "auto" and (unused := unused_gpus()):
            note(f"note: torch has {unused} here, which is not used: only NVIDIA's GPUs are")
    asked = {run.train.precision for run in todo.runs}
    if not gpus and "auto" in asked and not options.quiet:
        note("precision: auto is " + ("bf16" if bf16_on_cpu() else "fp32, as this CPU has no bf16"))
    if not gpus and "bf16" in asked and not bf16_on_cpu():
        note(
            "note: train.precision=bf16 takes about 13 times as long as fp32 on this CPU, which "
            "has no bf16 instructions; auto takes fp32 here"
        )


def _print_full_disk(failures: list[Failure], results: ResultsFolder) -> None:
    """Print the failures of a full folder, which has no room for a note of them."""
    full = [failure for failure in failures if failure.kind == "disk"]
    for failure in full:
        note(_sentence(failure, results))
    if full:
        note(f"the results folder {results.folder} can take no more; free it and run again")


def _sum_up(plan: Plan, results: ResultsFolder, skipped: set[str], as_json: bool) -> int:
    state = status.sweep_status(plan, results)
    if as_json and not state.done:
        terminal.write(json.dumps({"answer": "", "tables": [], "notes": []}, indent=1) + "\n")
    if state.done:
        show = partial(_show, as_json=as_json)
        try:
            paths = builder.write(results, state.records, state.evaluated, show=show)
        except OSError as error:
            note(f"the report cannot be written: {error}")
            return 1
        note("report: " + ", ".join(str(path) for path in paths))
        note(f"look at it: {command('report', 'html', '--results', results.folder)}")
    for line in missing(state, skipped):
        note(line)
    return 1 if state.missing or state.unevaluated else 0


def missing(state: status.SweepStatus, skipped: Iterable[str] = ()) -> list[str]:
    """Sentences on what failed, and on how many runs and evaluations are not there.

    Args:
        skipped: keys of failures that were not tried again.
    """
    plan, results, lines = state.plan, ResultsFolder(state.folder), []
    for key, failure in state.failed.items():
        skip = " (not tried again; see --retry)" if key in skipped else ""
        lines.append(_sentence(failure, results) + skip)
    if state.missing:
        every = count_of(len(plan.runs), "run")
        lines.append(f"without a record: {len(state.missing)} of {every}")
    if state.unevaluated:
        every = count_of(len(plan.evaluations), "evaluation")
        lines.append(f"not made: {len(state.unevaluated)} of {every}")
    return lines


def _show(made: builder.Made, as_json: bool) -> None:
    try:
        if as_json:
            terminal.write(json.dumps(made.to_json(), indent=1) + "\n")
            return
        for table in made.tables:
            print_out(table.rich())
        lines = [made.answer, "", *made.notes] if made.answer else made.notes
        terminal.write("".join(f"{terminal.fitted(line)}\n" for line in lines))
    except OSError as error:
        terminal.discard_output()
        note(
            f"note: standard output takes no more ({error.strerror}); the tables are in the report"
        )


def _sentence(failure: Failure, results: ResultsFolder) -> str:
    return (
        f"failed: {failure.job.title}: {failure.kind} ({FAILURE_KINDS[failure.kind]}): "
        f"{one_line(failure.reason)}; "
        f"log {results.log(failure.job.key)}"
    )
