"""Workers of a sweep and CPU threads of each, from cores, memory and GPUs.

The choice is a rule, not a measurement: the number of threads changes the last bits of a run, so
the same sweep on the same machine must get the same number. One thread for each worker trains most
examples a second while there are as many runs as cores; fewer runs share all cores.
"""

from peftbench.core.run import Run
from peftbench.system.hardware import cores, memory

#: Bytes of a worker beside its model: libraries, data, activations.
WORKER_BYTES = 2 * 2**30

#: Bytes of training for each byte of the weights in fp32: gradients, optimizer states, copies.
TRAINING_FACTOR = 6

#: Of the free memory, the part that workers may fill.
MEMORY_PART = 0.8


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


def weight_bytes(run: Run) -> int:
    """Estimate the bytes of a model's weights in fp32 from the shape in its yaml."""
    shape = run.model["shape"]
    width, blocks = shape.get("hidden_size", 768), shape.get("num_hidden_layers", 12)
    return int(4 * (12 * blocks * width**2 + shape.get("vocab_size", 30522) * width))
