"""What this machine offers, found out without loading torch."""

import os
from pathlib import Path

from peftbench.run import ConfigError


def gpus() -> list[int]:
    """Numbers of the GPUs that this process may use, without loading torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [int(n) for n in visible.split(",") if n.strip().isdigit()]
    import pynvml

    try:
        pynvml.nvmlInit()
        return list(range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:  # no driver
        return []


def devices(asked: str) -> list[int]:
    """GPUs for `--device`: auto, cpu, cuda or cuda:i.

    Raises:
        ConfigError: for another word, or where there is no such GPU.
    """
    if asked == "cpu":
        return []
    found = gpus()
    if asked == "auto" or (asked == "cuda" and found):
        return found
    number = asked.removeprefix("cuda:")
    if number.isdigit() and int(number) in found:
        return [int(number)]
    there = ", ".join(f"cuda:{n}" for n in found) or "no GPU"
    raise ConfigError(f"--device {asked}: choose auto, cpu, cuda or cuda:i; here is {there}")


def suitable(
    runs: int, found: list[int], largest: int, workers: int | None = None
) -> tuple[int, int | None]:
    """Workers and threads of each for this machine.

    On a CPU, workers of one thread beat one worker of many threads, as long as memory holds; a
    single run gets all threads. On GPUs, one worker each.

    Args:
        runs: how many there are to train.
        found: GPUs to use.
        largest: bytes of the largest model's weights in fp32.
        workers: as many as someone wants, but no more than there are runs.
    """
    if found:
        return max(1, min(runs, workers or len(found))), None
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    fit = int(0.8 * memory // (2 * 2**30 + 6 * largest))
    workers = max(1, min(runs, workers or min(cores, fit)))
    return workers, max(1, cores // workers)


def bf16_on_cpu() -> bool | None:
    """Whether this CPU multiplies bf16 by itself; None where it does not say (not Linux)."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return None
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), None)
    if flags is None:
        return None
    return any(word in ("avx512_bf16", "amx_bf16", "bf16") for word in flags.split())
