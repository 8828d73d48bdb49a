"""Workers of a sweep and CPU threads of each, from cores, memory and GPUs.

The choice is a rule, not a measurement: the number of threads changes the last bits of a run, so
the same sweep on the same machine must get the same number. One thread for each worker trains most
examples a second while there are as many runs as cores; fewer runs share all cores.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation, Job
from peftbench.core.plan import RunOptions
from peftbench.core.run import Run, canonical
from peftbench.models import safetensors_headers
from peftbench.runner import packs
from peftbench.system import hub
from peftbench.system.hardware import cores, memory

#: Bytes of a worker beside its model: libraries, data, activations.
WORKER_BYTES = 2 * 2**30

#: Bytes of training for each byte of the weights in fp32: gradients, optimizer states, copies.
TRAINING_FACTOR = 6

#: Of the free memory, the part that workers may fill.
MEMORY_PART = 0.8


@dataclass(frozen=True)
class Resources:
    """What a sweep uses of this machine.

    Attributes:
        workers: processes that do jobs side by side.
        threads: CPU threads of each; None for torch's choice.
        gpus: as CUDA_VISIBLE_DEVICES names them; none for the CPU.
        pack: runs that a worker trains at a time.
    """

    workers: int
    threads: int | None
    gpus: list[str]
    pack: int


def choose_resources(jobs: Sequence[Job], gpus: list[str], options: RunOptions) -> Resources:
    """Choose workers, threads and packs for jobs; a dry run has one worker.

    Raises:
        ConfigError: if the options ask for more GPUs than there are, or contradict each other.
    """
    if gpus and options.gpus_per_run > len(gpus):
        raise ConfigError(f"--gpus-per-run {options.gpus_per_run}: there are {len(gpus)} GPUs here")
    fit = len(gpus) // options.gpus_per_run
    if gpus and options.gpus_per_run > 1 and (options.workers or 0) > fit:
        raise ConfigError(
            f"--workers {options.workers} --gpus-per-run {options.gpus_per_run}: {len(gpus)} GPUs "
            f"are enough for {fit}; leave --workers out"
        )
    calibrated = sum(isinstance(job, Run) and job.budget.calibrated for job in jobs)
    if calibrated and options.gpus_per_run > 1:  # one of its processes would measure alone
        raise ConfigError(
            f"--gpus-per-run {options.gpus_per_run}: {calibrated} of {len(jobs)} runs have "
            "budget.calibrated=true, whose steps are measured in one process; leave one of the two "
            "out, or give budget.steps"
        )
    runs = (job.run if isinstance(job, Evaluation) else job for job in jobs)
    models = {canonical(run.model): run.model for run in runs}  # a checkpoint is read once
    workers, threads = choose_workers(
        len(jobs),
        gpus,
        max(map(weight_bytes, models.values())),
        1 if options.dry_run else options.workers,
        options.threads,
        options.gpus_per_run,
    )
    pack = packs.size(options.pack, bool(gpus), options.gpus_per_run)
    return Resources(workers, threads, gpus, pack)


def choose_workers(
    jobs: int,
    gpus: list[str],
    largest: int,
    workers: int | None = None,
    threads: int | None = None,
    processes: int = 1,
) -> tuple[int, int | None]:
    """Return the number of workers and the CPU threads of each of their processes.

    On GPUs each worker has `processes` GPUs, and threads are torch's choice (None).

    Args:
        jobs: runs and evaluations to do.
        gpus: that may be used; none for the CPU.
        largest: bytes of the largest model's weights in fp32.
        workers: an override; there are never more workers than jobs.
        threads: an override; then workers are as many as the cores hold.
        processes: that train one run together.
    """
    if gpus:
        return max(1, min(jobs, workers or len(gpus) // processes)), threads
    if workers is None:
        fit = int(MEMORY_PART * memory() // (WORKER_BYTES + TRAINING_FACTOR * largest))
        workers = min(cores() // (threads or 1), fit) // processes
    workers = max(1, min(jobs, workers))
    return workers, threads or max(1, cores() // (workers * processes))


def weight_bytes(model: ModelConfig) -> int:
    """Bytes of a model's weights in fp32, of a checkpoint that is at hand or of a shape."""
    folder = hub.at_hand(model)
    if folder is not None:
        tensors = safetensors_headers.read_headers(folder).values()
        return 4 * sum(math.prod(tensor.shape) for tensor in tensors)
    shape = model.shape
    width, blocks = shape.get("hidden_size", 768), shape.get("num_hidden_layers", 12)
    return int(4 * (12 * blocks * width**2 + shape.get("vocab_size", 30522) * width))
