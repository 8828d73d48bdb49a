"""Which runs may share a training pass, and which worker gets which; no torch."""

from collections.abc import Iterable

from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Job
from peftbench.core.run import Run, canonical

#: Trainings in a pack at most, where the memory of a GPU decides how many share a pass.
MOST = 64


def size(asked: str, gpus: bool, processes: int) -> int:
    """How many runs a worker trains at a time, from the option `--pack`.

    On a CPU `auto` is 1: its cores are busy with one run already.

    Raises:
        ConfigError: for what is neither a number, auto nor off, or together with processes.
    """
    if asked.isdigit() and int(asked) > 0:
        if int(asked) > 1 and processes > 1:
            raise ConfigError(
                f"--pack {asked}: a run of --gpus-per-run {processes} has no room in it"
            )
        return int(asked)
    if asked not in ("auto", "off"):
        raise ConfigError(f"--pack {asked}: give a number of runs, auto or off")
    return MOST if asked == "auto" and gpus and processes == 1 else 1


def together(run: Run) -> str | None:
    """A name that runs have in common which may be packed; None for a run that has to be alone.

    A budget of seconds is of seconds alone, unless it is calibrated; one run is enough for a memory
    that wants gradient checkpointing; a run without a step has none to share; texts are written
    with a cache of one run, and fp16 scales the loss of each.
    """
    if run.budget.seconds and not run.budget.calibrated:
        return None
    if run.train.gradient_checkpointing or run.untrained:
        return None
    if run.task.generation or run.train.precision == "fp16":
        return None
    return canonical(run.step_shape())


def units(jobs: Iterable[Job], pack: int, workers: int) -> list[list[Job]]:
    """What to give to a worker at once, in the order of the jobs' first members.

    Args:
        jobs: in order.
        pack: from `size`.
        workers: among which the runs of a group are divided.
    """
    groups: dict[str, list[Job]] = {}
    for job in jobs:
        name = together(job) if pack > 1 and isinstance(job, Run) else None
        groups.setdefault(name or job.key, []).append(job)
    found = []
    for group in groups.values():
        parts = max(1, min(workers, len(group) // 2))
        found += [group[part::parts] for part in range(parts)]
    return found
