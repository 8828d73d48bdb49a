"""The verb `run`: what is missing, trained by a crew, shown, and summed up."""

import shlex
import sys
from typing import Any

from rich.console import Console

from peftbench import reporting, status
from peftbench.progress import Display, note
from peftbench.run import ConfigError, RecordError, Run
from peftbench.store import Results
from peftbench.sweep import Plan
from peftbench.workers import KINDS, TRANSIENT, Crew, Stopped, devices, suitable


def go(
    plan: Plan,
    results: Results,
    words: tuple[str, ...],
    *,
    workers: int | None,
    threads: int | None,
    device: str,
    keep: str | None,
    retry: str | None,
    fail_fast: bool,
    deterministic: bool,
    checkpoint_minutes: float,
    dry_run: bool,
    quiet: bool,
) -> int:
    """Train what is missing; return the exit code.

    Raises:
        ConfigError: for bad input, before anything is trained.
    """
    again = _classes(retry)
    results.check_writable()
    state = status.of(plan, results)
    todo = [
        r for r in state.missing if r.key not in state.failed or again(state.failed[r.key].kind)
    ]
    skipped = [note for note in state.failed.values() if not again(note.kind)]
    if not quiet:
        note(state.summary())
    found = devices(device)
    if todo:
        largest = max(_weights_bytes(run) for run in todo)
        suits, each = suitable(len(todo), found, largest)
        workers, threads = workers or suits, threads or each
        setting = {
            "device": "cuda" if found else "cpu",
            "threads": threads,
            "data_root": plan.data_root,
            "keep": keep or "",
            "minutes": checkpoint_minutes,
            "deterministic": deterministic,
        }
        if not quiet:
            where = f"GPU {', '.join(map(str, found))}" if found else f"CPU, {threads} threads each"
            note(f"{workers} workers on {where}; results in {results.folder}")
        todo.sort(key=lambda run: run.model["name"])  # a warm worker keeps one backbone
        code = _train(
            plan, results, words, todo, setting, workers, found, state, fail_fast, dry_run, quiet
        )
        if code is not None:
            return code
    return _sum_up(plan, results, skipped, quiet)


def _train(
    plan: Plan,
    results: Results,
    words: tuple[str, ...],
    todo: list[Run],
    setting: dict[str, Any],
    workers: int,
    gpus: list[int],
    state: status.State,
    fail_fast: bool,
    dry_run: bool,
    quiet: bool,
) -> int | None:
    display = Display(todo, state.forecast.seconds, workers, results.load, quiet)
    crew = Crew(results, setting, 1 if dry_run else workers, gpus, display)
    try:
        for line in crew.check(todo):
            note(f"note: {line}")
        if dry_run:
            note(f"{len(todo)} runs are ready to train")
            return 0
        with display:
            crew.train(todo, fail_fast)
    except (Stopped, KeyboardInterrupt):
        crew.close()
        again = " ".join(["peftbench run", *map(shlex.quote, words)])
        note(f"stopped; finished runs are kept. To go on: {again} --results {results.folder}")
        return 130
    finally:
        crew.close()
    if any(failure.kind == "disk" for failure in crew.failures):
        note(f"the results folder {results.folder} can take no more; free it and run again")
    return None


def _sum_up(plan: Plan, results: Results, skipped: list[Any], quiet: bool) -> int:
    state = status.of(plan, results)
    records = [results.load(run.key) for run in plan.runs if run.key in state.done]
    if records:
        made = reporting.write(results, records)
        console = Console(highlight=False)
        wide = console if console.is_terminal else Console(highlight=False, width=200)
        for table in made.tables:
            wide.print(table.rich())
        for line in made.notes:
            wide.print(line)
        note("report: " + ", ".join(str(path) for path in made.paths))
    missing = state.missing
    for failure in state.failed.values():
        skip = " (not tried again; see --retry)" if failure in skipped else ""
        note(
            f"failed: {failure.run.title}: {failure.kind} ({KINDS[failure.kind]}): "
            f"{failure.reason}{skip}; log {results.log(failure.run.key)}"
        )
    return 1 if missing else 0


def _classes(retry: str | None) -> Any:
    """Which failures to try again.

    Raises:
        ConfigError: for a word that is no class.
    """
    if retry == "all":
        return lambda kind: True
    if retry == "none":
        return lambda kind: False
    chosen = TRANSIENT if retry is None else tuple(retry.split(","))
    for kind in chosen:
        if kind not in KINDS:
            known = ", ".join(["all", "none", *KINDS])
            raise ConfigError(
                f"--retry {retry}: {kind!r} is no class of failure; there are {known}"
            )
    return lambda kind: kind in chosen


def _weights_bytes(run: Run) -> int:
    """Roughly, from the shape that the model's yaml gives; for the number of workers alone."""
    shape = run.model["shape"]
    width, blocks = shape.get("hidden_size", 768), shape.get("num_hidden_layers", 12)
    return int(4 * (12 * blocks * width**2 + shape.get("vocab_size", 30522) * width))


__all__ = ["RecordError", "go", "sys"]
