"""A worker process: takes runs as JSON lines on standard input, answers events as JSON lines.

It stays warm between runs: libraries, the backbone, tokens. While it has a run, its output goes to
the run's log. When its input ends (the supervisor is gone) or on one of the signals `HELD`, it
writes a checkpoint at the next step and leaves.
"""

import errno
import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, TextIO

from peftbench.core.errors import ConfigError, system_reason
from peftbench.core.evaluation import Evaluation, Failure, Job, job_of
from peftbench.core.run import Json, Run
from peftbench.results.store import Results
from peftbench.runner.worker_pool import GRACE, HELD

#: Errors of the operating system that mean the results folder can take no more.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def main() -> None:
    """Serve until the input ends."""
    # events keep the pipe, prints go to the log
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    faulthandler.enable()
    stop = threading.Event()
    for name in HELD:
        signal.signal(name, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    orders: queue.Queue[Json | None] = queue.Queue()
    working = threading.Event()
    threading.Thread(target=_listen, args=(orders, stop, working), daemon=True).start()
    first = orders.get()
    if first is not None:
        _serve(first, orders, stop, working, events)


def _listen(
    orders: "queue.Queue[Json | None]", stop: threading.Event, working: threading.Event
) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    stop.set()
    orders.put(None)
    # the supervisor is gone: a run leaves a checkpoint first, a check has nothing to leave
    time.sleep(GRACE if working.is_set() else 1)
    os._exit(1)


def _serve(
    first: Json,
    orders: "queue.Queue[Json | None]",
    stop: threading.Event,
    working: threading.Event,
    events: TextIO,
) -> None:
    from peftbench.training.runtime import (
        RuntimeConfig,  # here, so that signals are handled while torch loads
    )
    from peftbench.training.warm_cache import WarmCache

    results = Results(first["results"])
    setting = RuntimeConfig(**first["setting"])
    warm = WarmCache()

    def tell(event: str, **fields: Any) -> None:
        try:
            events.write(json.dumps({"event": event, **fields}) + "\n")
        except BrokenPipeError:  # the supervisor is gone: no failure of the run
            stop.set()

    tell("ready")
    while not stop.is_set():
        order = orders.get()
        if order is None:
            break
        if "check" in order:
            runs = [Run.from_json(run) for run in order["check"]]
            tell(
                "checked",
                **_check(runs, [Evaluation.from_json(e) for e in order["suites"]], setting),
            )
        else:
            jobs = [job_of(one) for one in order["jobs"]]
            working.set()
            if len(jobs) == 1:
                _one(jobs[0], results, setting, warm, stop, tell)
            else:
                _several(jobs, results, setting, warm, stop, tell)
            working.clear()
            warm.keep()
            if not stop.is_set():
                tell("ready")


def _check(runs: list[Run], evaluations: list[Evaluation], setting: Any) -> Json:
    """Open all checkpoints and data and rehearse every method, before any training starts."""
    from peftbench.data import data_report
    from peftbench.evaluation import continual
    from peftbench.methods import dry_run
    from peftbench.suites import base

    errors: dict[str, int] = {}
    told: list[str] = []
    passed: dict[str, bool] = {}

    def once(what: Any, check: Any) -> bool:
        """Whether a check passed, which is made once for equal inputs."""
        from peftbench.core.run import canonical

        name = canonical(what)
        if name not in passed:
            passed[name] = True
            try:
                told.extend(check() or ())
            except (ConfigError, OSError) as error:
                passed[name] = False
                reason = system_reason(error) if isinstance(error, OSError) else str(error)
                errors[reason] = errors.get(reason, 0) + 1
        return passed[name]

    for run in runs:
        length, texts = run.train.max_length, len(run.task.texts)
        if not once(
            ["checkpoint", run.model, length, texts, run.prompt and run.prompt.name],
            lambda run=run: dry_run.check_checkpoint(run),
        ):
            continue  # all the rest needs it
        once([run.model, run.prompt, run.task.name], lambda run=run: dry_run.check_prompt(run))
        if once(run.task, lambda run=run: data_report.data_lines(run.task, setting.data_root)):
            once(
                [run.model, run.task, run.prompt, length],
                lambda run=run: data_report.token_lines(run, setting.data_root),
            )
            once(
                [run.model, run.method, run.task, run.prompt, length],
                lambda run=run: dry_run.rehearse(run, setting.data_root),
            )
        else:
            once(
                [run.model, run.method, run.task.classes, run.prompt and run.prompt.name],
                lambda run=run: dry_run.validate_run(run),
            )
    for one in evaluations:
        asked = base.build_suite(one.suite)
        once(
            [one.suite, one.run.task],
            lambda one=one, asked=asked: asked.check_data(one.run, setting.data_root),
        )
        if asked.trains:
            once(
                [one.suite, one.run.model, one.run.method],
                lambda one=one: continual.validate_continual(one),
            )
    return {"errors": list(errors), "told": list(dict.fromkeys(told))}


def _one(
    job: Job,
    results: Results,
    setting: Any,
    warm: Any,
    stop: threading.Event,
    tell: Any,
) -> None:
    key = job.key
    if not results.claim(key):
        tell("held", key=key)
        return
    try:
        if results.done(job):
            tell("done", key=key, elsewhere=True)
            return
        results.drop_drafts(key)
        with _logging(results, job):
            _do(job, results, setting, warm, stop, tell)
        tell("done", key=key, elsewhere=False)
    except Exception as error:  # the one broad except: a run that fails must not sink the others
        _failed(job, error, results, tell)
    finally:
        results.release(key)


def _several(
    jobs: list[Job],
    results: Results,
    setting: Any,
    warm: Any,
    stop: threading.Event,
    tell: Any,
) -> None:
    """Runs that may share passes; each is recorded when it is over."""
    from peftbench.training.packing import runner

    runs = [job for job in jobs if isinstance(job, Run)]

    def enter(run: Run) -> bool:
        if stop.is_set():
            return False
        if not results.claim(run.key):
            tell("held", key=run.key)
            return False
        if results.done(run):
            results.release(run.key)
            tell("done", key=run.key, elsewhere=True)
            return False
        results.drop_drafts(run.key)
        if run is not runs[0]:
            _append(results, run.key, f"{run.title}\nin a pack, whose log is {runs[0].key}.log\n")
        tell("begun", key=run.key)
        return True

    def report(run: Run, news: Json) -> None:
        tell("step", key=run.key, **news)

    def note(text: str) -> None:
        tell("note", key=runs[0].key, text=text)

    tell("begun", key=runs[0].key)  # the calibration is made for it: if that kills, it has failed
    with _logging(results, runs[0]):
        ends = runner.train(runs, setting, results, warm, enter, report, stop.is_set, note)
        for run, end in ends:
            try:
                if isinstance(end, Exception):
                    raise end
                results.save(end.record, end.predictions, end.trained)
                tell("done", key=run.key, elsewhere=False)
            except Exception as error:  # as in `_one`
                _failed(run, error, results, tell)
            finally:
                results.release(run.key)


def _failed(job: Job, error: Exception, results: Results, tell: Any) -> None:
    """Tell why a job is not done; note it where it was not asked to leave."""
    from peftbench.training import loop

    if isinstance(error, loop.TrainingInterrupted):
        tell("interrupted", key=job.key, reason=str(error))
        return
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = lines[0] if lines else type(error).__name__
    _append(results, job.key, "".join(traceback.format_exception(error)))
    failure = Failure(job, classify(error), f"{type(error).__name__}: {reason}")
    tell("failed", key=job.key, kind=_note(results, failure), reason=failure.reason)


def _do(
    job: Job, results: Results, setting: Any, warm: Any, stop: threading.Event, tell: Any
) -> None:
    from peftbench.evaluation import continual, evaluator
    from peftbench.suites import base
    from peftbench.training import distributed, trainer

    def report(news: Json) -> None:
        tell("step", key=job.key, **news)

    if isinstance(job, Evaluation):
        do = (
            continual.run_continual
            if base.build_suite(job.suite).trains
            else evaluator.evaluate_suite
        )
        alone = replace(setting, processes=1)
        results.save_evaluated(*do(job, results, alone, warm=warm, report=report, stop=stop.is_set))
        return
    with distributed.group(job.to_json(), str(results.folder), asdict(setting)):
        outcome = trainer.execute(
            job, setting, results=results, warm=warm, report=report, stop=stop.is_set
        )
    results.save(outcome.record, outcome.predictions, outcome.trained)


def _note(results: Results, failure: Failure) -> str:
    """Note a failure, unless the folder can take no more; return its class."""
    if failure.kind != "disk":
        try:
            results.fail(failure)
        except OSError:
            return "disk"
    return failure.kind


def classify(error: Exception) -> str:
    """The class of a failure, out of `FAILURE_KINDS`."""
    import torch

    if isinstance(error, FloatingPointError):
        return "diverged"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory"
    if isinstance(error, OSError) and error.errno in FULL:
        return "disk"
    if isinstance(error, ConfigError):
        return "data"
    return "error"


@contextmanager
def _logging(results: Results, job: Job) -> Iterator[None]:
    """Send what libraries print during a job to its log."""
    path = results.log(job.key)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    with open(path, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as log:
        log.write(f"{job.title}\n{job.key}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for target, saved in zip((1, 2), before, strict=True):
                os.dup2(saved, target)
                os.close(saved)


def _append(results: Results, key: str, text: str) -> None:
    try:
        with open(results.log(key), "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)
    except OSError as error:  # a full disk: the traceback goes to the supervisor's terminal
        print(f"{text}\n(the log could not be written: {error})", file=sys.stderr)


if __name__ == "__main__":
    main()
