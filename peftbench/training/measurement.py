"""Clocks, memory and energy, by phase, of the run itself.

CPU memory is the peak of the resident set (`VmHWM`), reset before each phase: `ru_maxrss` is a
lifetime maximum that a child even inherits from its parent. CUDA memory is the allocator's peak,
reset likewise. What cannot be measured is None.
"""

import ctypes
import gc
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from peftbench.core.run import Json
from peftbench.data.batching import Batch, BatchSource, micro_batches
from peftbench.models.gradient_checkpointing import metered
from peftbench.system import hardware
from peftbench.training.distributed import ProcessGroup
from peftbench.training.predictor import Predictor

PHASES = ("load", "tokenise", "warmup", "train", "evaluate")

#: The peak of CUDA's allocator, in the memory of a record.
ALLOCATED = "cuda_peak_allocated_bytes"

_LIBRARIES = ("peftbench", "torch", "transformers", "accelerate", "datasets", "numpy", "tokenizers")


class Phases:
    """Seconds and peak bytes of each phase; phases may alternate but not nest.

    Args:
        device: whose memory and clock are meant.
        shared: whether other runs train at the same time: memory is not looked at, and no clock
            waits for the device, as costs come from a calibration.
    """

    def __init__(self, device: torch.device, shared: bool = False):
        self.device, self.shared = device, shared
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.memory: Json = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside as part of a phase."""
        if not self.shared:
            _reset_peaks(self.device)
        start = self.now()
        try:
            yield
        finally:
            self.seconds[name] += self.now() - start
            if not self.shared:
                self._note(name)

    def now(self) -> float:
        """Seconds on a clock that has waited for the device."""
        return time.perf_counter() if self.shared else synchronized_clock(self.device)

    def peak_of(self, name: str, act: Callable[[], object]) -> int:
        """Do something within a phase; the peak bytes that CUDA allocates meanwhile, 0 on a CPU."""
        self._note(name)
        _reset_peaks(self.device)
        act()
        return _peaks(self.device).get(ALLOCATED) or 0

    def _note(self, name: str) -> None:
        for kind, peak in _peaks(self.device).items():
            phases = self.memory.setdefault(kind, {})
            before = phases.get(name)
            phases[name] = peak if before is None else max(peak or 0, before)


def synchronized_clock(device: torch.device) -> float:
    """Seconds on a clock that has waited for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def release_memory(device: torch.device) -> None:
    """Give back what the last run left, or it would count as the next one's."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def _reset_peaks(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    if _can_reset_rss():
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


@cache
def _can_reset_rss() -> bool:
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    except OSError:  # not Linux, or a container that forbids it
        return False
    return True


def _peaks(device: torch.device) -> dict[str, int | None]:
    peaks: dict[str, int | None] = {"cpu_peak_rss_bytes": None}
    if _can_reset_rss():
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        peaks["cpu_peak_rss_bytes"] = 1024 * int(line.split()[1])
    if device.type == "cuda":
        peaks[ALLOCATED] = torch.cuda.max_memory_allocated(device)
        peaks["cuda_peak_reserved_bytes"] = torch.cuda.max_memory_reserved(device)
    return peaks


class Energy:
    """Joules that a GPU used, by NVML's counter, while no other process had it.

    Args:
        device: None measures nothing.
    """

    def __init__(self, device: torch.device | None):
        self._handle = None if device is None else _nvml_handle(device)
        self._start = self._joules()

    def look(self) -> None:
        """See whether the GPU is shared by now; who came and went between looks is not seen."""
        if self._joules() is None:
            self._start = None

    def joules(self) -> float | None:
        """Joules since the start.

        None on a CPU, a shared GPU, one without the counter, or where this has not moved: it does
        so some ten times a second.
        """
        end = self._joules()
        return None if self._start is None or end is None else (end - self._start) or None

    def _joules(self) -> float | None:
        if self._handle is None:
            return None
        import pynvml

        try:
            if len(pynvml.nvmlDeviceGetComputeRunningProcesses(self._handle)) > 1:
                return None
            return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000
        except pynvml.NVMLError:
            return None


def _nvml_handle(device: torch.device) -> object | None:
    if device.type != "cuda":
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
        uuid = str(torch.cuda.get_device_properties(device).uuid)
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return None


def environment(device: torch.device, processes: int = 1) -> Json:
    """Where a run happened: versions, device (of several processes: how many), threads, commit."""
    return {
        "python": platform.python_version(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "device": f"{processes} × " * (processes > 1) + device_name(device),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        **hardware.checkout(),
    }


_version = cache(version)


@cache
def device_name(device: torch.device) -> str:
    """The GPU, else the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return hardware.processor()


def warm_up(
    view: Predictor, micro: int | None, feed: BatchSource, shared: bool = False
) -> tuple[float, float]:
    """Pass batches of every shape through, changing nothing, so that the clock finds all warm.

    Kernels are chosen and memory is taken before the clock runs, and matrix products are counted.
    Without static shapes that is done for the shortest and the longest batch. The first run of a
    kind does it for all runs of a process: passes of the others would leave their training seconds
    as they are. Processes that train together pass their rows of a batch, as they do in a step.

    Args:
        view: of the run.
        micro: examples for each pass; None is the whole batch.
        feed: its batches.
        shared: whether other runs train at the same time, and hold their memory.

    Returns:
        FLOPs of a training step for each padded token, and for each token × length (attention).
    """
    kind = kind_of(view)
    peers = ProcessGroup(view.accelerator)
    for batch in map(peers.warming, feed.shapes):
        for piece in micro_batches(batch, micro or len(batch["labels"])):
            if first_of(view, "pass", kind, _shape(piece)):
                _pass(view, piece)
    counts = []
    extremes = [peers.warming(batch) for batch in feed.extremes]
    for batch in extremes:
        first = next(micro_batches(batch, micro or len(batch["labels"])))
        rows, length = first["input_ids"].shape
        counts.append((length, _flops(view, kind, first) / (rows * length)))
    if view.device.type == "cuda" and not shared:  # what the last run took was given back
        _pass(view, next(micro_batches(extremes[-1], micro or len(first["labels"]))))
    (short, few), (long, many) = counts[0], counts[-1]
    slope = (many - few) / (long - short) if long > short else 0.0
    return many - slope * long, slope


def step_seconds(view: Predictor, micro: int | None, batch: Batch) -> float:
    """Seconds of a step's passes, which change nothing: the pace of a training before its first.

    Args:
        view: of the run, warmed up.
        micro: examples for each pass; None is the whole batch.
        batch: on the CPU; processes that train together share it.
    """
    view.model.train()
    start = synchronized_clock(view.device)
    view.gradients(batch, micro)
    seconds = synchronized_clock(view.device) - start
    view.model.zero_grad(set_to_none=True)
    return seconds


def kind_of(view: Predictor) -> str:
    """Equal for trainings whose passes of one shape launch the same kernels."""
    model = view.model
    trained = sorted((name, *p.shape) for name, p in model.trained().items())
    return repr((view.method, model.module, view.accelerator.mixed_precision, trained))


def first_of(view: Predictor, what: str, kind: str, shape: Sequence[int]) -> bool:
    """Whether this is the first of its kind and shape in this process."""
    name, warm = f"{what} {tuple(shape)} {kind}", view.model.backbone.warm
    new = name not in warm
    warm.add(name)
    return new


def _shape(batch: Batch) -> tuple[int, ...]:
    """What decides how much a pass computes: its tokens, and those of them that are wanted."""
    return (*batch["input_ids"].shape, *batch["labels"].shape[1:])


def _flops(view: Predictor, kind: str, batch: Batch) -> int:
    """FLOPs of a forward and backward pass; it is made for the first run of a kind."""
    counted, name = view.model.backbone.flops, f"{_shape(batch)} {kind}"
    if name not in counted:
        counter = FlopCounterMode(display=False)
        with counter, metered(view.model, counter.get_total_flops) as again:
            _pass(view, batch)
        counted[name] = counter.get_total_flops() - sum(again)
    return counted[name]


def _pass(view: Predictor, batch: Batch) -> None:
    model, accelerator = view.model, view.accelerator
    model.train()
    moved = {name: tensor.to(accelerator.device) for name, tensor in batch.items()}
    with accelerator.autocast():
        loss = view.method.compute_loss(model, moved)
    accelerator.backward(loss)
    model.zero_grad(set_to_none=True)
