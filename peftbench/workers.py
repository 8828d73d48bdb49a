"""Local worker processes under a supervisor that never loads torch.

A worker that dies takes its run with it and nothing else; the reason is noted, another worker
takes its place. Two supervisors on one results folder share the work: a run that the other one has
claimed is waited for, not done again.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.evaluation import Evaluation, Failure, Job, job_json
from peftbench.machine import oom_kills
from peftbench.run import ConfigError, Json, Run
from peftbench.store import Results

#: Why a run may have no record, and what that means.
KINDS = {
    "diverged": "the loss was no longer finite",
    "memory": "out of memory, on the GPU at one example a pass or by the kernel's killer",
    "killed": "the process was killed by a signal",
    "exit": "the process ended by itself",
    "disk": "the results folder could take no more",
    "data": "data or weights were not to be had",
    "lost": "its job on a cluster ended without a word",
    "cancelled": "its job on a cluster was cancelled",
    "error": "an exception; the log has the traceback",
}

#: Failures that come from outside: such runs are tried again unless --retry says otherwise.
TRANSIENT = ("killed", "exit", "disk", "data", "lost", "cancelled")

#: Seconds that workers get to write a checkpoint after a signal.
GRACE = 60


@dataclass(frozen=True)
class Event:
    """News for the display: `kind` is step, done, failed or waiting."""

    kind: str
    worker: int
    job: Job
    fields: Json


@dataclass
class _Worker:
    number: int
    process: "subprocess.Popen[bytes]"
    errors: Path
    job: Job | None = None
    started: bool = False
    ready: bool = False
    told: bytes = b""
    kills: int = field(default_factory=oom_kills)


class Stopped(Exception):
    """The supervisor was told to stop; nothing is half done."""


class Crew:
    """Workers over one results folder.

    Args:
        results: where records go.
        setting: the fields of `setting.Setting`.
        workers: how many processes.
        gpus: to spread them over, as CUDA_VISIBLE_DEVICES names them; empty for the CPU.
        listen: told every event.
        halted: asked whether to stop; by default signals say so.
    """

    def __init__(
        self,
        results: Results,
        setting: Json,
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
        self._scratch = tempfile.TemporaryDirectory(prefix="peftbench-")
        self._workers: dict[int, _Worker] = {}
        self._asked_to_stop = False
        self._halted = halted or (lambda: self._asked_to_stop)
        names = () if halted else STOPS
        self._before = {name: signal.signal(name, self._ask_to_stop) for name in names}
        for number in range(workers):
            self._start(number)

    def check(self, runs: Iterable[Run], evaluations: Iterable[Evaluation] = ()) -> list[str]:
        """Let a worker instantiate every run and suite; return what is odd in their data.

        Raises:
            ConfigError: with all that is wrong.
            Stopped: after Ctrl-C, SIGTERM or SIGUSR1.
        """
        first = self._workers[min(self._workers)]
        order = {"check": [run.to_json() for run in runs]}
        self._send(first, order | {"suites": [one.to_json() for one in evaluations]})
        while not self._halted():
            for worker, message in self._messages():
                if message["event"] == "checked":
                    if message["errors"]:
                        raise ConfigError("\n".join(message["errors"]))
                    return list(message["told"])
                if message["event"] == "gone" and worker is first:
                    raise ConfigError(f"a worker ended while it checked:\n{self._tail(worker)}")
                self._hear(worker, message, deque())
        raise Stopped

    def work(self, jobs: Sequence[Job], fail_fast: bool = False) -> None:
        """Do the jobs; failures are noted in `failures` and in the results folder.

        Raises:
            Stopped: after Ctrl-C, SIGTERM or SIGUSR1, when the workers have left.
        """
        pending, held = deque(jobs), deque[Job]()
        asked = time.monotonic()
        while not self._halted():
            busy = [worker for worker in self._workers.values() if worker.job is not None]
            if not pending and not held and not busy:
                return
            if held and not pending and time.monotonic() - asked > 1:
                pending.extend(held)
                held.clear()
                asked = time.monotonic()
            for worker in self._workers.values():
                if worker.ready and worker.job is None and pending:
                    self._give(worker, pending.popleft())
            for worker, message in self._messages():
                self._hear(worker, message, held)
            if self.failures and (fail_fast or self.failures[-1].kind == "disk"):
                return
        raise Stopped

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
            worker.process.terminate() if worker.job else worker.process.kill()
        end = time.monotonic() + GRACE
        for worker in self._workers.values():
            try:
                worker.process.wait(max(0.0, end - time.monotonic()))
            except (subprocess.TimeoutExpired, KeyboardInterrupt):
                end = 0.0
                worker.process.kill()
                worker.process.wait()
            _close_output(worker)
        self._selector.close()
        self._scratch.cleanup()

    # processes

    def _start(self, number: int) -> None:
        errors = Path(self._scratch.name) / f"worker-{number}"
        environment = os.environ | ENVIRONMENT | {"PYTHONUNBUFFERED": "1"}
        if self.setting["threads"]:
            environment["OMP_NUM_THREADS"] = str(self.setting["threads"])
        if self.gpus:
            first = number * (count := self.setting["processes"]) % len(self.gpus)
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(self.gpus[first : first + count])
        # a scheduler signals all processes of a job: held back until the worker can take them
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
        try:
            with open(errors, "wb") as log:
                process = subprocess.Popen(
                    [sys.executable, "-m", "peftbench.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C in the terminal is for the supervisor
                )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        worker = _Worker(number, process, errors)
        self._workers[number] = worker
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, number)
        self._send(worker, {"results": str(self.results.folder), "setting": self.setting})

    def _send(self, worker: _Worker, order: Json) -> None:
        assert worker.process.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: its output has ended too, and is heard
            worker.process.stdin.write(json.dumps(order).encode() + b"\n")
            worker.process.stdin.flush()

    def _give(self, worker: _Worker, job: Job) -> None:
        worker.job, worker.ready, worker.kills = job, False, oom_kills()
        self._send(worker, job_json(job))

    def _messages(self) -> list[tuple[_Worker, Json]]:
        """What workers said within a moment; a worker that died says so with `gone`."""
        found: list[tuple[_Worker, Json]] = []
        for key, _ in self._selector.select(timeout=0.2):
            worker = self._workers[key.data]
            assert worker.process.stdout is not None
            body = worker.process.stdout.read()
            if body:
                worker.started = True
                *lines, worker.told = (worker.told + body).split(b"\n")
                found += [(worker, json.loads(line)) for line in lines]
            else:
                self._selector.unregister(worker.process.stdout)
                found.append((worker, {"event": "gone"}))
        for worker, message in found:
            if message["event"] == "gone" and not worker.started:
                raise ConfigError(f"a worker could not start:\n{self._tail(worker)}")
        return found

    def _hear(self, worker: _Worker, message: Json, held: "deque[Job]") -> None:
        event, job = message.pop("event"), worker.job
        if event == "ready":
            worker.ready, worker.job = True, None
        elif event == "gone":
            code = worker.process.wait()
            _close_output(worker)
            if job is not None:
                self._fail(worker, job, *explain(code, oom_kills() - worker.kills))
            self._start(worker.number)
        elif job is not None:
            if event == "failed":
                self._fail(worker, job, message["kind"], message["reason"], noted=True)
            elif event in ("held", "interrupted"):  # another process has it, or stopped this worker
                held.append(job)
                worker.job = None
                self.listen(Event("waiting", worker.number, job, message))
            else:
                self.listen(Event(event, worker.number, job, message))

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
        return worker.errors.read_text(errors="replace")[-2000:]


def _close_output(worker: _Worker) -> None:
    if worker.process.stdout is not None:
        worker.process.stdout.close()


STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

#: On these a worker writes a checkpoint and leaves; they are held back until it can.
HELD = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)

#: Set for workers: tokenizers' threads would fight with the other workers.
ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false"}


def explain(code: int, kernel_kills: int) -> tuple[str, str]:
    """Class and reason of a process that ended with this code while it had a run."""
    if code >= 0:
        return "exit", f"the worker ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    if -code == signal.SIGKILL and kernel_kills > 0:
        return "memory", "killed by the kernel, which ran out of memory; try fewer --workers"
    return "killed", f"the worker was killed by {name}"
