"""What `peftbench run` checks before it trains, before jobs are handed over."""

from collections.abc import Sequence

from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation, Job
from peftbench.core.plan import RunOptions
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.text import count_of
from peftbench.results.status import SweepStatus
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep
from peftbench.runner.progress import note
from peftbench.runner.resources import choose_resources
from peftbench.runner.worker_pool import WorkerPool
from peftbench.system import offline_folder
from peftbench.system.hardware import devices


def rehearse(
    jobs: Sequence[Job],
    state: SweepStatus,
    results: ResultsFolder,
    cluster: Cluster,
    order: RunOptions,
) -> None:
    """Open checkpoints and data of jobs, and rehearse each model, method and prompt in a worker.

    The worker uses the CPU: a login node has no GPU to give.

    Args:
        state: of the plan that the jobs are of.
        order: how jobs will run.

    Raises:
        ConfigError: with all that is wrong.
        Stopped: after Ctrl-C, SIGTERM or SIGUSR1.
    """
    todo = sweep.Todo(
        [job for job in jobs if isinstance(job, Run)],
        [job for job in jobs if isinstance(job, Evaluation)],
        offline_folder.data_root() or state.plan.data_root,
        state.forecast,
    )
    gpus = _gpus(cluster, order)
    sweep.check_precision(todo.runs, gpus)
    sweep.check_weights(todo, state, results)
    choose_resources(jobs, gpus, order)  # refuses GPUs and packs that a job cannot have
    note(f"checking {count_of(len(jobs), 'job')} before submission")
    setting = RuntimeConfig("cpu", order.threads, todo.data_root)
    pool = WorkerPool(results, setting, workers=1, gpus=[])
    try:
        sweep.preflight(pool, todo)
    finally:
        pool.close()


def _gpus(cluster: Cluster, order: RunOptions) -> list[str]:
    """The GPUs that a job will have.

    Raises:
        ConfigError: if the order names GPUs that a job will not have.
    """
    if cluster.scheduler == "local":
        return devices(order.device)
    found = [str(number) for number in range(cluster.gpus or 0)]
    offered = ["auto", "cpu", *(["cuda"] if found else []), *(f"cuda:{name}" for name in found)]
    if order.device not in offered:
        raise ConfigError(
            f"--device {order.device}: with cluster.gpus={len(found)} choose {', '.join(offered)}"
        )
    if found and order.gpus_per_run > len(found):
        raise ConfigError(
            f"--gpus-per-run {order.gpus_per_run}: jobs have cluster.gpus={len(found)}; "
            "raise that, or use fewer GPUs a run"
        )
    return [] if order.device == "cpu" else found
