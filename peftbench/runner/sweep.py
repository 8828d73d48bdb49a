"""The verbs `run` and `evaluate`: what is missing, done by a crew, shown, and summed up."""

import shlex
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from rich.console import Console

from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import FAILURE_KINDS, TRANSIENT_FAILURES, Evaluation, Failure
from peftbench.core.plan import Plan
from peftbench.core.run import Run
from peftbench.reports import builder
from peftbench.results import status
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import Results
from peftbench.runner import packs
from peftbench.runner.progress import Display, note
from peftbench.runner.resources import choose_workers, weight_bytes
from peftbench.runner.worker_pool import Crew, Stopped
from peftbench.suites import base
from peftbench.system import offline_folder
from peftbench.system.hardware import bf16_on_cpu, devices


@dataclass(frozen=True)
class Order:
    """How to run, as the options of the command say; None is what suits the machine."""

    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    keep: str | None = None
    retry: str | None = None
    fail_fast: bool = False
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    curve_part: float = 1.0
    processes: int = 1
    pack: str = "auto"
    dry_run: bool = False
    quiet: bool = False


def go(plan: Plan, results: Results, order: Order, train: bool = True) -> int:
    """Do what is missing, first runs, then evaluations; print the scores; return the exit code.

    Args:
        train: whether runs without a record may be trained; else they are an error.

    Raises:
        ConfigError: for bad input, before anything is done.
    """
    again = classes(order.retry)
    gpus = devices(order.device)
    results.check_writable()
    before = status.of(plan, results)
    tried = before.failed
    runs = [r for r in before.missing if r.key not in tried or again(tried[r.key].kind)]
    asked = [e for e in before.unevaluated if e.key not in tried or again(tried[e.key].kind)]
    if not train and before.missing:
        raise ConfigError(
            f"{len(before.missing)} of {len(plan.runs)} runs have no record in {results.folder}; "
            "`peftbench run` with the same words trains and evaluates them"
        )
    _check_kept(asked, before, results)
    if not order.quiet:
        note(before.summary())
    elif before.bad:
        note("\n".join(before.unreadable()))
    if runs or asked:
        data_root = offline_folder.data_root() or plan.data_root
        if work(runs, asked, results, gpus, order, data_root, before.forecast):
            same = shlex.join(["peftbench", *sys.argv[1:]])
            note(f"stopped; finished runs are kept, unfinished ones go on from here with: {same}")
            return 130
        if order.dry_run:
            more = f", {len(asked)} evaluations to make" if asked else ""
            note(f"{len(runs)} runs are ready to train{more}")
            return 0
    skipped = {key for key, failure in tried.items() if not again(failure.kind)}
    return _sum_up(plan, results, skipped)


def _check_kept(asked: list[Evaluation], before: status.State, results: Results) -> None:
    """Refuse evaluations of finished runs whose weights are gone, before anything is done."""
    done = {e.run for e in _of_weights(asked) if e.run.key in before.done}
    gone = {run for run in done if not results.kept(run.key)}
    if gone:
        keys = sorted(run.key for run in gone)
        some = ", ".join(keys[:4]) + ", …" * (len(keys) > 4)
        raise ConfigError(
            f"of {len(gone)} runs that are done no weights were kept ({some}); "
            f"remove their records from {results.folder}/records, and `peftbench run` with the "
            "same words trains them again and keeps the weights"
        )


def _of_weights(evaluations: Iterable[Evaluation]) -> list[Evaluation]:
    """Those that ask kept weights; the others train for themselves."""
    return [one for one in evaluations if not base.make(one.suite).trains]


def work(
    runs: list[Run],
    asked: list[Evaluation],
    results: Results,
    gpus: list[str],
    order: Order,
    data_root: str | None,
    forecast: Forecast,
    halted: Callable[[], bool] | None = None,
) -> bool:
    """Check, train and evaluate; whether it was stopped.

    Args:
        asked: evaluations of these runs, or of runs that have a record.
        halted: whether to stop; by default on Ctrl-C, SIGTERM and SIGUSR1.

    Raises:
        ConfigError: for what a worker finds wrong, before anything is done.
    """
    largest = max(map(weight_bytes, [*runs, *(one.run for one in asked)]))
    wanted = 1 if order.dry_run else order.workers
    if gpus and order.processes > len(gpus):
        raise ConfigError(f"--processes {order.processes}: there are {len(gpus)} GPUs here")
    jobs = len(runs) + len(asked)
    workers, threads = choose_workers(jobs, gpus, largest, wanted, order.threads, order.processes)
    pack = packs.size(order.pack, bool(gpus), order.processes)
    runs.sort(key=lambda run: run.model["name"])  # a warm worker keeps one backbone
    setting = {
        "device": "cuda" if gpus else "cpu",
        "threads": threads,
        "data_root": data_root,
        "keep": "trained" if _of_weights(asked) else order.keep or "",
        "minutes": order.checkpoint_minutes,
        "deterministic": order.deterministic,
        "curve_part": order.curve_part,
        "processes": order.processes,
        "pack": pack,
    }
    if not order.quiet:
        where = f"GPU {', '.join(gpus)}" if gpus else f"CPU, threads of each: {threads}"
        together = f" of {order.processes} processes" * (order.processes > 1)
        shared = f", packs of up to {pack} runs" * (pack > 1)
        note(f"workers: {workers}{together} on {where}{shared}; results in {results.folder}")
    if not gpus and bf16_on_cpu() is False and any(r.train["precision"] == "bf16" for r in runs):
        note("note: this CPU has no bf16 instructions; train.precision=fp32 is likely to be faster")
    crew = Crew(results, setting, workers, gpus, halted=halted)
    try:
        for line in crew.check(runs, asked):
            note(f"note: {line}")
        if order.dry_run:
            return False
        if runs:
            units = packs.units(runs, pack, workers)
            weights = forecast.weights(runs)
            with Display(runs, weights, workers, results, order.quiet) as crew.listen:
                crew.work(units, order.fail_fast)
        ready = [one for one in asked if results.has(one.run.key)]
        ready.sort(key=lambda one: (one.run.model["name"], one.run.task["name"], one.run.seed))
        if ready and not (order.fail_fast and crew.failures):
            evenly = {one.key: 1.0 for one in ready}
            with Display(ready, evenly, workers, results, order.quiet) as crew.listen:
                crew.work([[one] for one in ready], order.fail_fast)
    except (Stopped, KeyboardInterrupt):
        return True
    finally:
        crew.close()
    full = [failure for failure in crew.failures if failure.kind == "disk"]
    for failure in full:  # there is no room for a note of it
        note(_sentence(failure, results))
    if full:
        note(f"the results folder {results.folder} can take no more; free it and run again")
    return False


def _sum_up(plan: Plan, results: Results, skipped: set[str]) -> int:
    state = status.of(plan, results)
    if state.done:
        try:
            paths = builder.write(results, state.records, state.evaluated, show=_show)
        except OSError as error:
            note(f"the report cannot be written: {error}")
            return 1
        note("report: " + ", ".join(str(path) for path in paths))
        note(f"look at it: peftbench report page --results {results.folder}")
    for key, failure in state.failed.items():
        skip = " (not tried again; see --retry)" if key in skipped else ""
        note(_sentence(failure, results) + skip)
    if state.missing:
        note(f"{len(state.missing)} of {len(plan.runs)} runs have no record")
    if state.unevaluated:
        note(f"{len(state.unevaluated)} of {len(plan.evaluations)} evaluations were not made")
    return 1 if state.missing or state.unevaluated else 0


def _show(made: builder.Made) -> None:
    console = Console(highlight=False)
    wide = console if console.is_terminal else Console(highlight=False, width=200)
    for table in made.tables:
        wide.print(table.rich())
    for line in made.notes:
        wide.print(line, markup=False)


def _sentence(failure: Failure, results: Results) -> str:
    return (
        f"failed: {failure.job.title}: {failure.kind} ({FAILURE_KINDS[failure.kind]}): "
        f"{failure.reason}; "
        f"log {results.log(failure.job.key)}"
    )


def classes(retry: str | None) -> Callable[[str], bool]:
    """Which failures to try again.

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
