"""A worker process: takes runs as JSON lines on standard input, answers events as JSON lines.

It stays warm between runs: libraries, the backbone, tokens. While it has a run, its output goes to
the run's log, and its input is empty. When its orders end (the supervisor is gone) or on one of the
signals `HELD`, it writes a checkpoint at the next step and leaves.
"""

import faulthandler
import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError, system_reason
from peftbench.core.evaluation import Evaluation, Job, job_of
from peftbench.core.failures import Failure
from peftbench.core.run import Json, Run, canonical
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.runner.failure_causes import classify, place, reason
from peftbench.runner.stop_signals import GRACE, HELD
from peftbench.system import io, processes

#: Of warnings that the person sees as well: peftbench's own.
_PACKAGE = Path(__file__).parents[1]

_told: set[str] = set()


def main() -> None:
    """Serve until the orders end."""
    # events keep the pipe, prints go to the log
    events = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    orders_in = take_input()
    faulthandler.enable()
    processes.keep_niceness()
    stop = threading.Event()
    for name in HELD:
        signal.signal(name, lambda *_: stop.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the supervisor's to handle
    orders: queue.Queue[Json | None] = queue.Queue()
    training = threading.Event()
    arguments = orders_in, orders, stop, training
    threading.Thread(target=_listen, args=arguments, daemon=True).start()
    first = orders.get()
    if first is not None:
        _serve(first, orders, stop, training, events)


def take_input() -> TextIO:
    """Standard input for this process alone; whoever reads it from here on finds its end.

    A method that asks a person something would read the orders, or wait for ever.
    """
    taken = os.fdopen(os.dup(0), encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - as long as the process
    return taken


def _listen(
    orders_in: TextIO,
    orders: "queue.Queue[Json | None]",
    stop: threading.Event,
    training: threading.Event,
) -> None:
    for line in orders_in:
        orders.put(json.loads(line))
    stop.set()
    orders.put(None)
    # the supervisor is gone: a training leaves a checkpoint first, all else has nothing to leave
    time.sleep(GRACE if training.is_set() else 1)
    os._exit(1)


def _serve(
    first: Json,
    orders: "queue.Queue[Json | None]",
    stop: threading.Event,
    training: threading.Event,
    events: TextIO,
) -> None:
    # here, so that signals are handled while torch loads
    from peftbench.training.device import device_of
    from peftbench.training.warm_cache import WarmCache

    setting = RuntimeConfig(**first["setting"])
    warm = WarmCache()
    home = os.open(".", os.O_RDONLY)

    def tell(event: str, **fields: Any) -> None:
        try:
            events.write(json.dumps({"event": event, **fields}) + "\n")
        except BrokenPipeError:  # the supervisor is gone: no failure of the run
            stop.set()

    def stopped() -> bool:  # asked by trainings, from their first step on
        training.set()
        return stop.is_set()

    try:
        device_of(setting)
    except ConfigError as error:  # once for all runs, before any of them starts
        tell("refused", reason=str(error))
        return
    work = _JobRunner(ResultsFolder(first["results"]), setting, warm, stopped, tell)
    tell("ready")
    while not stop.is_set():
        order = orders.get()
        if order is None:
            break
        if "check" in order:
            runs = [Run.from_json(run) for run in order["check"]]
            tell(
                "checked",
                **preflight(runs, [Evaluation.from_json(e) for e in order["suites"]], setting),
            )
        else:
            jobs = [job_of(one) for one in order["jobs"]]
            if len(jobs) == 1:
                work.one(jobs[0])
            else:
                work.several(jobs)
            training.clear()
            warm.keep()
            if not stop.is_set():
                tell("ready")
        os.fchdir(home)  # a method may have left it


def preflight(runs: list[Run], evaluations: list[Evaluation], setting: RuntimeConfig) -> Json:
    """Open all checkpoints and data and rehearse every method, before any training starts.

    Returns:
        `errors`, and `told`: lines on the data, each once.
    """
    checks = _Preflight(setting)
    for run in runs:
        checks.check_run(run)
    for one in evaluations:
        checks.check_evaluation(one)
    return {"errors": list(checks.errors), "told": list(checks.told)}


class _Preflight:
    """Checks of runs and evaluations, each made once for equal inputs.

    Attributes:
        errors: what is wrong, in the order in which it was found; keys of a dictionary.
        told: likewise, what a person should know of the data.
    """

    def __init__(self, setting: RuntimeConfig):
        self._setting = setting
        self._passed: dict[str, bool] = {}
        self._first_folds: dict[str, TaskConfig] = {}
        self.errors: dict[str, None] = {}
        self.told: dict[str, None] = {}

    def check_run(self, run: Run) -> None:
        """Check the checkpoint, the prompt, the data, and the method on both."""
        from peftbench.data import data_report
        from peftbench.methods import dry_run

        root, length = self._setting.data_root, run.train.max_length
        prompt = run.prompt and run.prompt.name
        once = partial(self._once, run.title)
        if not self._check_checkpoint(run.title, run):
            return  # all the rest needs it
        once([run.model, run.prompt, run.task.name], lambda: dry_run.check_prompt(run))
        # the parts of one cross-validation have the same rows: the first one describes them
        whole = canonical(replace(run.task, folds=None, fold=None, fold_seed=None))
        brief = self._first_folds.setdefault(whole, run.task) != run.task
        if once(run.task, lambda: data_report.data_lines(run.task, root, brief)):
            once(
                [run.model, run.task, run.prompt, length],
                lambda: data_report.token_lines(run, root, brief),
            )
            once(
                [run.model, run.method, run.task, run.prompt, length],
                lambda: dry_run.rehearse(run, root),
            )
            drawn = [run.task, run.size, run.seeds()["subset"], run.prompt]
            once(
                ["classes", *drawn, run.checkpoint_selection],
                lambda: data_report.absent_classes(run, root),
            )
        else:
            once(
                [run.model, run.method, run.task.classes, prompt],
                lambda: dry_run.validate_run(run),
            )

    def check_evaluation(self, one: Evaluation) -> None:
        """Check the data of a suite, what it asks for, and the method where the suite trains."""
        from peftbench.evaluation import continual
        from peftbench.suites import base

        suite, root = base.build_suite(one.suite), self._setting.data_root
        self._once(one.title, [one.suite, one.run.task], lambda: suite.check_data(one.run, root))
        for asked in suite.asked_runs(one.run):
            if suite.trains:
                self.check_run(asked)
            else:
                self._check_checkpoint(one.title, asked)
        if suite.trains:
            self._once(
                one.title,
                [one.suite, one.run.model, one.run.method],
                lambda: continual.validate_continual(one),
            )

    def _check_checkpoint(self, title: str, run: Run) -> bool:
        """Whether the checkpoint is whole, and takes the texts of the run."""
        from peftbench.methods import dry_run

        task, prompt = run.task, run.prompt and run.prompt.name
        fit = [run.train.max_length, len(task.texts), prompt, task.generation and task.new_tokens]
        return self._once(
            title, ["checkpoint", run.model, *fit], lambda: dry_run.check_checkpoint(run)
        )

    def _once(self, title: str, inputs: Any, check: Callable[[], Iterable[str] | None]) -> bool:
        """Whether a check of these inputs passes; the title says where a method or suite failed."""
        name = canonical(inputs)
        if name not in self._passed:
            try:
                self.told |= dict.fromkeys(check() or ())
                self._passed[name] = True
            except Exception as error:  # the code of a method or a suite raises what it likes
                self._passed[name] = False
                self.errors[self._described(title, error)] = None
        return self._passed[name]

    def _described(self, title: str, error: Exception) -> str:
        if isinstance(error, ConfigError):
            return str(error)
        if isinstance(error, OSError):
            return system_reason(error)
        traceback.print_exc()
        return f"{title}: {reason(error)} (in {place(error)})"


@dataclass(frozen=True)
class _JobRunner:
    """Does jobs and tells the supervisor how they end.

    Attributes:
        warm: a `training.warm_cache.WarmCache`.
        stop: whether to leave.
        tell: sends an event with its fields.
    """

    results: ResultsFolder
    setting: RuntimeConfig
    warm: Any
    stop: Callable[[], bool]
    tell: Callable[..., None]

    def one(self, job: Job) -> None:
        """Train or evaluate, unless another process has the job or has done it."""
        key, began = job.key, time.monotonic()
        if not self._enter(job):
            return
        try:
            with _logging(self.results, job, self.tell):
                self._do(job)
            self.tell("done", key=key, elsewhere=False)
        except (
            Exception
        ) as error:  # the one broad except: a run that fails must not sink the others
            self._failed(job, error, time.monotonic() - began)
        finally:
            self.results.release(key)

    def several(self, jobs: list[Job]) -> None:
        """Train runs that may share passes; each is recorded when it is over."""
        from peftbench.training.packing import runner

        results, tell = self.results, self.tell
        waiting = [job for job in jobs if isinstance(job, Run)]
        while waiting and not self._enter(waiting[0]):
            del waiting[0]
        if not waiting:
            return
        first = waiting[0]  # whose log is that of all, so it is claimed before
        mine = {first.key}

        def enter(run: Run) -> bool:
            if self.stop() or not (run is first or self._enter(run)):
                return False
            mine.add(run.key)
            if run is not first:
                _append(results, run.key, f"{run.title}\nin a pack, whose log is {first.key}.log\n")
            tell("begun", key=run.key)
            return True

        def report(run: Run, news: Json) -> None:
            tell("step", key=run.key, **news)

        def note(text: str) -> None:
            tell("note", key=first.key, text=text)

        tell("begun", key=first.key)  # the calibration is made for it: if that kills, it failed
        try:
            with _logging(results, first, tell):
                ends = runner.train(
                    waiting, self.setting, results, self.warm, enter, report, self.stop, note
                )
                for run, end in ends:
                    try:
                        if isinstance(end, Exception):
                            raise end
                        results.save(end.record, end.predictions, end.trained)
                        tell("done", key=run.key, elsewhere=False)
                    except Exception as error:  # as in `one`
                        self._failed(run, error)
                    finally:
                        results.release(run.key)
                        mine.discard(run.key)
        finally:
            for key in mine:  # of those that were not begun, as it was asked to stop
                results.release(key)

    def _enter(self, job: Job) -> bool:
        """Claim a job that is not done yet; tell why where it is not to be done here now."""
        if not self._claim(job):
            return False
        try:
            self.results.refresh(job)
            if not self.results.done(job):
                self.results.drop_drafts(job.key)
                return True
            self.tell("done", key=job.key, elsewhere=True)
        except Exception as error:  # what is there cannot be read, and may be good work
            self._failed(job, error)
        self.results.release(job.key)
        return False

    def _claim(self, job: Job) -> bool:
        """Claim a job; tell why where it cannot be done here now."""
        try:
            if self.results.claim(job.key):
                return True
            self.tell("held", key=job.key, reason=self.results.claimed_by(job.key))
        except OSError as error:  # it could be when the command started
            self._failed(job, error)
        return False

    def _do(self, job: Job) -> None:
        from peftbench.evaluation import continual, evaluator
        from peftbench.suites import base
        from peftbench.training import distributed, trainer

        results, setting = self.results, self.setting

        def report(news: Json) -> None:
            self.tell("step", key=job.key, **news)

        how: Json = {"warm": self.warm, "report": report, "stop": self.stop}
        if isinstance(job, Evaluation):
            trains = base.build_suite(job.suite).trains
            do = continual.run_continual if trains else evaluator.evaluate_suite
            found, arrays = do(job, results, replace(setting, processes=1), **how)
            if not results.has(job.run.key):  # `rm` cannot know of an evaluation without a file
                raise ConfigError(
                    f"the record of {job.run.key} was removed during this evaluation; `peftbench "
                    "run` makes both again"
                )
            results.save_evaluated(found, arrays)
            return
        with distributed.group(job, results.folder, setting):
            outcome = trainer.execute(job, setting, results=results, **how)
        results.save(outcome.record, outcome.predictions, outcome.trained)

    def _failed(self, job: Job, error: Exception, seconds: float | None = None) -> None:
        """Tell why a job is not done; note it where it was not asked to leave.

        Args:
            seconds: that it took; None where it shared them with others.
        """
        from peftbench.training import session

        if isinstance(error, session.TrainingInterrupted):
            self.tell("interrupted", key=job.key, reason=str(error))
            return
        _append(self.results, job.key, "".join(traceback.format_exception(error)))
        failure = Failure(job, classify(error), reason(error), seconds=seconds)
        kind = _note(self.results, failure)
        self.tell("failed", key=job.key, kind=kind, reason=failure.reason)


def _note(results: ResultsFolder, failure: Failure) -> str:
    """Note a failure, unless the folder can take no more; return its class."""
    if failure.kind != "disk":
        try:
            results.fail(failure)
        except OSError:
            return "disk"
    return failure.kind


@contextmanager
def _logging(results: ResultsFolder, job: Job, tell: Any) -> Iterator[None]:
    """Send what libraries print during a job to its log; tell of peftbench's own warnings too."""
    path = results.log(job.key)
    io.make_folder(path.parent)
    path.unlink(missing_ok=True)  # a colleague's can be replaced, not written to
    with (
        open(path, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as log,
        warnings.catch_warnings(),
    ):
        show = warnings.showwarning

        def show_and_tell(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            show(message, category, filename, lineno, file, line)
            if _PACKAGE in Path(filename).parents and str(message) not in _told:
                _told.add(str(message))
                tell("note", key=job.key, text=f"{job.title}: {message}")

        warnings.showwarning = show_and_tell
        io.share(path)
        log.write(f"{job.title}\n{job.key}\n")
        sys.stdout.flush()
        sys.stderr.flush()
        before = os.dup(1), os.dup(2)
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


def _append(results: ResultsFolder, key: str, text: str) -> None:
    path = results.log(key)
    try:
        if path.exists() and not os.access(path, os.W_OK):
            path.unlink()
        with open(path, "a", encoding="utf-8", errors="backslashreplace") as log:
            log.write(text)
        io.share(path)
    except OSError as error:  # a full disk: the traceback goes to the supervisor's terminal
        print(f"{text}\n(the log could not be written: {error})", file=sys.stderr)


if __name__ == "__main__":
    main()
