"""Local worker processes under a supervisor that never loads torch.

A worker that dies takes its run with it and nothing else; the reason is noted, another worker
takes its place, unless one after the other dies before it has a run. What the kernel ended for want
of memory while other runs were at work is tried once more, after the others and by itself. Two
supervisors on one results folder share the work: a run that the other one has claimed is waited
for, not done again.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation, Job, job_json
from peftbench.core.failures import Failure, explain_exit
from peftbench.core.run import Json, Run, distinct_inputs
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.runner.scratch import Scratch
from peftbench.runner.stop_signals import GRACE, HELD
from peftbench.runner.worker_environment import absolute, worker_environment
from peftbench.system.hardware import oom_kills, seeing
from peftbench.system.hub_client import say

#: Workers in a row that may be killed while they have nothing to do yet, before it is given up.
MOST_LOST = 3


@dataclass(frozen=True)
class Event:
    """News for the display: `kind` is step, done, failed, waiting or note."""

    kind: str
    worker: int
    job: Job
    fields: Json


@dataclass
class _Worker:
    number: int
    process: "subprocess.Popen[bytes]"
    errors: Path
    jobs: dict[str, Job] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)
    ready: bool = False
    told: bytes = b""
    kills: int = field(default_factory=oom_kills)


class Stopped(Exception):
    """The supervisor was told to stop; nothing is half done."""


class WorkerPool:
    """Workers over one results folder.

    Args:
        results: where records go.
        setting: of the workers; a relative data folder is one of this process.
        workers: how many processes.
        gpus: to spread them over, as CUDA_VISIBLE_DEVICES names them; empty for the CPU.
        listen: called with every event.
        halted: whether to stop; by default a signal decides.
    """

    def __init__(
        self,
        results: ResultsFolder,
        setting: RuntimeConfig,
        workers: int,
        gpus: list[str],
        listen: Callable[[Event], None] = lambda event: None,
        halted: Callable[[], bool] | None = None,
    ):
        self.results = results
        self.setting = setting
        self.gpus = gpus
        self.listen = listen
        self.failures: list[Failure] = []
        self._selector = selectors.DefaultSelector()
        self._lost_idle = 0
        self._alone: deque[Job] = deque()
        self._once_more: set[str] = set()
        self._scratch = Scratch()
        self._workers: dict[int, _Worker] = {}
        self._asked_to_stop = False
        self._count = workers
        self._halted = halted or (lambda: self._asked_to_stop)
        # only the main thread of a program may listen to signals
        listens = halted is None and threading.current_thread() is threading.main_thread()
        names = STOPS if listens else ()
        self._before = {name: signal.signal(name, self._ask_to_stop) for name in names}
        try:
            for number in range(workers):
                self._start(number)
        except BaseException:
            self.close()
            raise

    @property
    def halted(self) -> bool:
        """Whether it was told to stop."""
        return self._halted()

    def check_runs(self, runs: Iterable[Run], evaluations: Iterable[Evaluation] = ()) -> list[str]:
        """Let a worker instantiate every run and suite; return what is odd in their data.

        Raises:
            ConfigError: with all that is wrong.
            Stopped: after Ctrl-C, SIGTERM or SIGUSR1.
        """
        first = min(self._workers)
        order = {"check": [run.to_json() for run in distinct_inputs(runs)]}
        order |= {"suites": [one.to_json() for one in evaluations]}
        self._send(self._workers[first], order)
        while not self._halted():
            for worker, message in self._messages():
                if message["event"] == "checked":
                    if message["errors"]:
                        raise ConfigError("\n".join(message["errors"]))
                    return list(message["told"])
                gone = message["event"] == "gone"
                self._hear(worker, message, deque())
                if gone and worker.number == first:
                    self._send(self._workers[first], order)  # to the one in its place
        raise Stopped

    def work(self, units: Iterable[Sequence[Job]], fail_fast: bool = False) -> None:
        """Do jobs; failures are noted in `failures` and in the results folder.

        Args:
            units: jobs that a worker gets together, see `packs.units`.
            fail_fast: leave at the first failure.

        Raises:
            Stopped: after Ctrl-C, SIGTERM or SIGUSR1, when the workers have left.
        """
        for number in set(range(self._count)) - set(self._workers):
            self._start(number)  # ended for a large run of an earlier call
        pending, held = deque(units), deque[Sequence[Job]]()
        asked = time.monotonic()
        while not self._halted():
            busy = [worker for worker in self._workers.values() if worker.jobs]
            if not pending and not held and not busy:
                if not self._alone:
                    return
                self._keep_one_worker()
                pending.append([self._alone.popleft()])
            if held and not pending and time.monotonic() - asked > 1:
                pending.extend(held)
                held.clear()
                asked = time.monotonic()
            for worker in self._workers.values():
                if worker.ready and not worker.jobs and pending:
                    self._give(worker, pending.popleft())
            for worker, message in self._messages():
                self._hear(worker, message, held)
            if self.gives_up(fail_fast):
                return
        raise Stopped

    def gives_up(self, fail_fast: bool) -> bool:
        """Whether no more is begun: after a failure with `fail_fast`, and where the disk is full.

        Workers may still have jobs then; `close` ends them.
        """
        return any(fail_fast or failure.kind == "disk" for failure in self.failures)

    def close(self) -> None:
        """End the workers: politely where a run is in flight, so that it leaves a checkpoint.

        A second Ctrl-C does not wait for that.
        """
        for name, handler in self._before.items():
            signal.signal(name, handler)
        for worker in self._workers.values():
            if worker.process.stdin is not None:
                with suppress(OSError):  # what could not be sent to a dead worker is sent again
                    worker.process.stdin.close()
            worker.process.terminate() if worker.jobs else worker.process.kill()
        end = time.monotonic() + GRACE
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                end = 0.0
                worker.process.kill()
                worker.process.wait()
            _close_pipes(worker)
        self._selector.close()
        self._scratch.close()

    # processes

    def _start(self, number: int) -> None:
        errors = self._scratch.folder / f"worker-{number}"
        environment = worker_environment(os.environ, self.setting.threads)
        if self.gpus:
            environment |= seeing(self._gpus_of(number))
        # a scheduler signals all processes of a job: held back until the worker can take them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            with open(errors, "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "peftbench.runner.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C in the terminal is for the supervisor
                )
        except OSError as error:
            raise ConfigError(f"no worker can be started here: {error}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        worker = _Worker(number, process, errors)
        self._workers[number] = worker
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, number)
        root = self.setting.data_root
        # a method may change the working folder: nothing depends on it
        setting = replace(self.setting, data_root=None if root is None else absolute(root))
        folder = str(self.results.folder.absolute())
        self._send(worker, {"results": folder, "setting": asdict(setting)})

    def _gpus_of(self, number: int) -> list[str]:
        first = number * (count := self.setting.processes) % len(self.gpus)
        return self.gpus[first : first + count]

    def _send(self, worker: _Worker, order: Json) -> None:
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: its output has ended too, and is heard
            worker.process.stdin.write(json.dumps(order).encode() + b"\n")
            worker.process.stdin.flush()

    def _give(self, worker: _Worker, unit: Sequence[Job]) -> None:
        worker.jobs, worker.begun = {job.key: job for job in unit}, set()
        worker.ready, worker.kills = False, oom_kills()
        self._send(worker, {"jobs": [job_json(job) for job in unit]})

    def _messages(self) -> list[tuple[_Worker, Json]]:
        """What workers said within a moment; a worker that died says so with `gone`."""
        found: list[tuple[_Worker, Json]] = []
        for key, _ in self._selector.select(timeout=0.2):
            worker = self._workers[key.data]
            assert worker.process.stdout is not None
            body = worker.process.stdout.read()
            if body:
                *lines, worker.told = (worker.told + body).split(b"\n")
                found += [(worker, json.loads(line)) for line in lines]
            else:
                self._selector.unregister(worker.process.stdout)
                found.append((worker, {"event": "gone"}))
        return found

    def _hear(self, worker: _Worker, message: Json, held: "deque[Sequence[Job]]") -> None:
        """Act on an event of a worker.

        Raises:
            ConfigError: if its GPU refuses to compute, or it ended as `_lost` says.
        """
        event = message.pop("event")
        if event == "ready":
            worker.ready, worker.jobs = True, {}
        elif event == "refused":
            where = f"GPU {', '.join(self._gpus_of(worker.number))}: " if self.gpus else ""
            raise ConfigError(where + message["reason"])
        elif event == "gone":
            self._lost(worker, held)
        elif (job := worker.jobs.get(message.get("key", ""))) is not None:
            self._lost_idle = 0
            self._hear_of(job, event, worker, message, held)

    def _hear_of(
        self,
        job: Job,
        event: str,
        worker: _Worker,
        message: Json,
        held: "deque[Sequence[Job]]",
    ) -> None:
        if event == "begun":
            worker.begun.add(job.key)
        elif event == "failed":
            del worker.jobs[job.key]
            self._fail(worker, job, message["kind"], message["reason"], noted=True)
        elif event in ("held", "interrupted"):  # another process has it, or stopped this worker
            del worker.jobs[job.key]
            held.append([job])
            self.listen(Event("waiting", worker.number, job, message))
        else:
            if event == "done":
                del worker.jobs[job.key]
            self.listen(Event(event, worker.number, job, message))

    def _lost(self, worker: _Worker, held: "deque[Sequence[Job]]") -> None:
        """A worker ended: what it had begun failed, the rest of what it was given waits.

        Raises:
            ConfigError: if it had no run, and failed by itself or is the last of several.
        """
        code = worker.process.wait()
        _close_pipes(worker)
        kind, reason = explain_exit(code, oom_kills() - worker.kills)
        begun = worker.begun or set(worker.jobs)
        beside = any(other.jobs for other in self._workers.values() if other is not worker)
        for job in worker.jobs.values():
            if job.key in begun and kind == "memory" and beside and job.key not in self._once_more:
                self._once_more.add(job.key)
                self._alone.append(job)
                say(f"{job.title}: {reason}; it is tried again by itself, after the others")
            elif job.key in begun:
                self._fail(worker, job, kind, reason)
        if not worker.jobs:
            self._lost_without_job(worker, code, reason)
        if waiting := [job for job in worker.jobs.values() if job.key not in begun]:
            held.append(waiting)
        self._start(worker.number)

    def _keep_one_worker(self) -> None:
        """End all workers but one: idle ones hold a model, and what is next needs the memory."""
        for number in sorted(self._workers)[1:]:
            worker = self._workers.pop(number)
            worker.process.kill()
            worker.process.wait()
            assert worker.process.stdout is not None
            with suppress(KeyError):  # it had ended, and was heard of
                self._selector.unregister(worker.process.stdout)
            _close_pipes(worker)

    def _lost_without_job(self, worker: _Worker, code: int, reason: str) -> None:
        """Say that a worker ended before it had a run; give up where that is no accident.

        One that a signal asks to leave ends with code 0.
        """
        self._lost_idle += 1
        told = f"worker {worker.number} had no run: {reason}"
        if code > 0 or self._lost_idle >= MOST_LOST:
            again = f" (the last of {self._lost_idle} in a row)" * (self._lost_idle > 1)
            tail = self._tail(worker).strip() or "nothing"
            raise ConfigError(f"{told}{again}; it printed:\n{tail}")
        say(f"{told}; another one takes its place")

    def _fail(self, worker: _Worker, job: Job, kind: str, reason: str, noted: bool = False) -> None:
        failure = Failure(job, kind, reason)
        if not noted:
            try:
                failure = self.results.fail(failure)
            except OSError as error:  # whatever happened, it cannot even be noted
                kind, reason = "disk", f"{reason}; and then {error}"
                failure = Failure(job, kind, reason)
        self.failures.append(failure)
        self.listen(Event("failed", worker.number, job, {"kind": kind, "reason": reason}))

    def _ask_to_stop(self, *_: Any) -> None:
        self._asked_to_stop = True

    def _tail(self, worker: _Worker) -> str:
        return worker.errors.read_text(encoding="utf-8", errors="replace")[-2000:]


def _close_pipes(worker: _Worker) -> None:
    for pipe in (worker.process.stdin, worker.process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what could not be sent to a dead worker is sent again
                pipe.close()


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
