"""One training over several processes: batches are shared out, gradients summed, outputs gathered.

A batch is the same as in one process, and so is a step: process r of n takes the rows r, r + n, …,
each loss weighs as many rows as it stands for, and the sum of gradients over processes is the
gradient of the batch's mean loss. What differs is the order of sums, and dropout. Only what trains
is sent, which for most methods is little; it is sent in one piece after the backward pass.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor, nn

from peftbench.core.failures import explain_exit
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.data.batching import Batch
from peftbench.models.adapted_model import AdaptedModel
from peftbench.system.hardware import oom_kills

#: Seconds that a process which lost another one has to say so itself.
GRACE = 10

#: Exit code of a process that lost another one.
ALONE = 70


class PeerLost(RuntimeError):
    """Another process of a run was ended from outside.

    Attributes:
        kind: the class of the failure, see `FAILURE_KINDS`.
    """

    def __init__(self, kind: str, reason: str):
        super().__init__(reason)
        self.kind = kind


class ProcessGroup:
    """The processes of one training; all of this is nothing where there is one."""

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.rank: int = accelerator.process_index
        self.count: int = accelerator.num_processes

    def part(self, rows: np.ndarray) -> np.ndarray:
        """This process's share of examples to evaluate; all of them where there are too few."""
        return rows if len(rows) < self.count else rows[self.rank :: self.count]

    def share(self, batch: Batch) -> Batch:
        """This process's rows of a batch, which may be none."""
        if self.count == 1:
            return batch
        return {name: tensor[self.rank :: self.count] for name, tensor in batch.items()}

    def warming(self, batch: Batch) -> Batch:
        """This process's rows of a batch; the first one of all where it has none to pass."""
        own = self.share(batch)
        return own if len(own["labels"]) else {name: t[:1] for name, t in batch.items()}

    def whole(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The arrays of all processes, in the order of `item`, each item once."""
        if self.count == 1:
            return arrays
        parts = gather_object([arrays])
        items = np.concatenate([part["item"] for part in parts])
        _, first = np.unique(items, return_index=True)
        return {name: np.concatenate([part[name] for part in parts])[first] for name in arrays}

    def add(self, loss: Tensor, parameters: list[nn.Parameter]) -> Tensor:
        """Sum gradients, and the loss, over the processes; return the loss."""
        if self.count == 1:
            return loss
        trained = [p for p in parameters if p.requires_grad]
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([loss.float().reshape(1), *(part.float().reshape(-1) for part in parts)])
        flat = self.accelerator.reduce(flat, reduction="sum")
        start = 1
        for parameter in trained:
            size = parameter.numel()
            parameter.grad = flat[start : start + size].view_as(parameter).to(parameter.dtype)
            start += size
        return flat[0]

    def agree(self, *values: float) -> tuple[float, ...]:
        """What the first process says."""
        if self.count == 1:
            return values
        told = torch.tensor(values, dtype=torch.float64, device=self.accelerator.device)
        return tuple(broadcast(told).tolist())

    def same(self, model: AdaptedModel) -> None:
        """Give all that a method made the values that it has in the first process."""
        if self.count > 1:
            state = {name: tensor.contiguous() for name, tensor in model.state().items()}
            model.restore({name: broadcast(tensor) for name, tensor in state.items()})

    def random(self) -> dict[str, Tensor]:
        """The random states of the other processes, by name, for a checkpoint."""
        if self.count == 1:
            return {}
        states = gather_object([(torch.get_rng_state(), _cuda_state())])
        return {
            f"random.{kind}.{rank}": state
            for rank, pair in enumerate(states)
            for kind, state in zip(("cpu", "cuda"), pair, strict=True)
            if rank and state is not None
        }

    def restore(self, saved: dict[str, Tensor]) -> None:
        """Take this process's random state out of a checkpoint; the first one has its own."""
        if self.rank:
            torch.set_rng_state(saved[f"random.cpu.{self.rank}"])
            if torch.cuda.is_available():
                torch.cuda.set_rng_state(saved[f"random.cuda.{self.rank}"])


def _cuda_state() -> Tensor | None:
    return torch.cuda.get_rng_state() if torch.cuda.is_available() else None


@contextmanager
def group(run: Run, results: Path, setting: RuntimeConfig) -> Iterator[None]:
    """Have `setting.processes` processes execute a run together, this one being the first.

    Each process sees one of the GPUs that this one sees. Where one ends, all do. Not by torchrun's
    `elastic_launch`: that starts every process itself, so that each run would load libraries and
    backbone again and this worker's events need another way, and it raises on SIGTERM in the
    caller, which has to wait for a checkpoint.

    Raises:
        PeerLost: in place of what is raised inside, if another process was killed.
    """
    count = setting.processes
    if count == 1:
        yield
        return
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _port()}
    order = {"run": run.to_json(), "results": str(results), "setting": asdict(setting)}
    others: list[subprocess.Popen[bytes]] = []
    kills = oom_kills()
    for rank in range(1, count):
        own = {"RANK": str(rank), "LOCAL_RANK": "0"}
        if len(visible) == count:
            own["CUDA_VISIBLE_DEVICES"] = visible[rank]
        other = subprocess.Popen(
            [sys.executable, "-m", "peftbench.runner.rank_worker"],
            stdin=subprocess.PIPE,
            env=os.environ | shared | own,
        )
        assert other.stdin is not None
        # left open: its end tells the other process that this one is gone
        other.stdin.write(json.dumps(order).encode() + b"\n")
        other.stdin.flush()
        others.append(other)
    over = threading.Event()
    threading.Thread(target=_watch, args=(others, over), daemon=True).start()
    mine = shared | {"RANK": "0", "LOCAL_RANK": "0"}
    os.environ.update(mine)
    try:
        yield
        for other in others:
            with suppress(subprocess.TimeoutExpired):  # all of it is here, whatever takes it long
                other.wait(GRACE)
    except (RuntimeError, OSError) as error:  # as torch reports a broken connection
        if lost := _killed(others, kills):
            raise PeerLost(*lost) from error
        raise
    finally:
        over.set()
        for other in others:
            other.kill()
            other.wait()
        for name in mine:
            del os.environ[name]
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _killed(others: list["subprocess.Popen[bytes]"], kills: int) -> tuple[str, str] | None:
    """Class and reason of a process that a signal ended; None where none was.

    One that ends by itself has its reason in the log, most often the one that all have.
    """
    end = time.monotonic() + 1.0  # this process may hear of it first from the broken connection
    while True:
        for rank, other in enumerate(others, 1):
            if (code := other.poll()) is not None and code < 0:
                kind, reason = explain_exit(code, oom_kills() - kills)
                return kind, f"process {rank} of the run: {reason}"
        if time.monotonic() > end:
            return None
        time.sleep(0.05)


def _watch(others: list["subprocess.Popen[bytes]"], over: threading.Event) -> None:
    """End this process where another one ended badly and nothing here noticed: GPUs may not."""
    while not over.wait(1.0):
        codes = [other.poll() for other in others]
        if any(codes):
            if not over.wait(GRACE):
                print(f"a process of this run ended with exit code {max(filter(None, codes))}")
                sys.stdout.flush()
                os._exit(ALONE)
            return


def _port() -> str:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return str(asked.getsockname()[1])
