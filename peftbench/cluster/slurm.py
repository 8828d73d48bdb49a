"""Slurm, through submitit: the only module that speaks to it.

What became of a run is read from its files, whether a job lives from `squeue`; submitit submits,
and nothing of what it says afterwards is used: its states need `sacct`, and it takes a requeued job
for a failed one. `sacct`, where there is one, only explains.
"""

import getpass
import shlex
import shutil
import subprocess
import sys

from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    SchedulerUnreachable,
    Submission,
    Task,
    folder,
)
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results

#: States after which nothing comes.
OVER = {
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
    *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
}

#: Seconds after which a command of Slurm is given up.
PATIENCE = 60

#: Early signals are ignored until Python can handle them: they would end it.
_SHIELD = 'bash -c \'trap "" USR2; exec "$@"\' --'


class Slurm:
    """The Slurm that this machine's commands reach."""

    def __init__(self, cluster: Cluster):
        self.cluster = cluster

    @staticmethod
    def there() -> bool:
        """Whether its commands are on the path."""
        return all(shutil.which(name) for name in ("sbatch", "squeue", "srun", "scancel"))

    @property
    def array_limit(self) -> int:
        """MaxArraySize bounds the index, which begins at 0."""
        for line in _ask("scontrol", "show", "config").splitlines():
            if line.startswith("MaxArraySize"):
                return int(line.partition("=")[2])
        return 1000

    def send(self, results: Results, submission: Submission, array: int) -> str:
        """Hand over an array of tasks; see `Scheduler`."""
        import submitit
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        from peftbench.cluster import job_runner

        place = folder(results, submission.name).resolve()
        sent, asked = submission.arrays[array], self.cluster
        executor = submitit.SlurmExecutor(
            folder=place / "jobs", python=f"{_SHIELD} {shlex.quote(sys.executable)}"
        )
        parameters = {
            "job_name": _name(submission, array),
            "time": sent.minutes,
            "cpus_per_task": asked.cpus,
            "gpus_per_node": asked.gpus or None,
            "mem": None if sent.memory_gb is None else f"{int(1024 * sent.memory_gb)}M",
            "partition": asked.partition,
            "account": asked.account,
            "qos": asked.qos,
            "constraint": asked.constraint,
            "exclude": asked.exclude,
            "signal_delay_s": asked.signal_seconds,
            "array_parallelism": asked.parallel,
            "stderr_to_stdout": True,
            "setup": _setup(asked),
            # a job may be put back to the queue; its time is not stretched by the cluster's grace
            "additional_parameters": {"requeue": True} | asked.options,
        }
        executor.update_parameters(**{k: v for k, v in parameters.items() if v is not None})
        numbers = [f"{array}_{number}" for number in range(len(sent.tasks))]
        try:
            jobs = executor.map_array(job_runner.work, [str(place)] * len(numbers), numbers)
        except (FailedJobError, FailedSubmissionError) as error:
            for left in (place / "jobs").glob("*.pkl"):  # submitit's, of jobs that are none
                left.unlink()
            said = [line for line in str(error).splitlines() if "sbatch" in line] or [str(error)]
            raise ConfigError(f"Slurm refuses: {said[-1].strip()}") from error
        return str(jobs[0].job_id).partition("_")[0]

    def alive(self, submissions: list[Submission], results: Results) -> dict[Task, tuple[str, str]]:
        """One question for all jobs of this user; see `Scheduler`."""
        found = {}
        for task, (state, reason) in _states(submissions).items():
            if state not in OVER:
                waits = state in ("PENDING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED")
                found[task] = (PENDING, reason) if waits else (RUNNING, "")
        return found

    def cancel(self, submission: Submission, tasks: list[Task], results: Results) -> None:
        """End tasks; see `Scheduler`."""
        jobs = [job for task in tasks if (job := submission.job(task)) is not None]
        whole = [array.job for array in submission.arrays if array.job]
        if len(tasks) == sum(len(array.tasks) for array in submission.arrays):
            jobs = whole
        for start in range(0, len(jobs), 500):
            _ask("scancel", *jobs[start : start + 500])

    def explain(self, submission: Submission, tasks: list[Task]) -> dict[Task, str]:
        """From `squeue`, which remembers for some minutes, else from `sacct`; see `Scheduler`."""
        states = _states([submission])
        told = {task: states[task][0] for task in tasks if task in states}
        rest = {job: task for task in tasks if task not in told and (job := submission.job(task))}
        if rest:
            jobs = ",".join(sorted({job.partition("_")[0] for job in rest}))
            try:
                lines = _ask("sacct", "-n", "-X", "-P", "-o", "JobID,State", "-j", jobs)
            except SchedulerUnreachable:  # no accounting: it is not explained
                return told
            for line in lines.splitlines():
                job, _, state = line.partition("|")
                if job in rest:
                    told[rest[job]] = state.split()[0]  # CANCELLED by 1000
        return told


def _states(submissions: list[Submission]) -> dict[Task, tuple[str, str]]:
    """State and reason of each task that Slurm knows, those that have just ended among them.

    Jobs are known by name, also of a submission that was cut off before it noted their numbers.
    """
    options = ("-h", "-r", "-t", "all", "-u", getpass.getuser(), "-o", "%i|%j|%T|%r")
    names = {_name(s, a): (s.name, a) for s in submissions for a in range(len(s.arrays))}
    found = {}
    for line in _ask("squeue", *options).splitlines():
        number, name, state, reason = (part.strip() for part in line.split("|", 3))
        if name in names:
            task = Task(*names[name], int(number.partition("_")[2] or 0))
            found[task] = (state, reason)
    return found


def examine(cluster: Cluster) -> list[tuple[str, str, str]]:
    """What is odd in what a cluster's yaml asks for: what, what was found, what to do.

    Raises:
        Silent: if Slurm does not answer.
    """
    told = []
    names = _ask("sinfo", "-h", "-o", "%R|%l|%G|%D").splitlines()
    partitions = {line.split("|")[0]: line.split("|")[1:] for line in names}
    wanted = cluster.partition
    if wanted is not None and any(name not in partitions for name in wanted.split(",")):
        known = ", ".join(sorted(partitions))
        told.append(
            (f"partition {wanted}", f"there is none; there are {known}", "cluster.partition=")
        )
    elif wanted is not None:
        limits = [_minutes(partitions[name][0]) for name in wanted.split(",")]
        asked = cluster.minutes or cluster.most_minutes
        if all(limit is not None and limit < asked for limit in limits):
            most = max(limit for limit in limits if limit is not None)
            found = f"its limit is {most} minutes, {asked} may be asked for"
            told.append((f"partition {wanted}", found, f"cluster.most_minutes={most}"))
    if cluster.gpus and not any("gpu" in about[1] for about in partitions.values()):
        told.append(("GPUs", "no partition has any", "cluster.gpus=0"))
    if shutil.which("sacct") is None or not _answers("sacct", "-n", "-X"):
        found = "no accounting: how jobs ended is only known for some minutes"
        told.append(("sacct", found, "nothing has to be done"))
    return told


def _answers(*command: str) -> bool:
    try:
        _ask(*command)
    except SchedulerUnreachable:
        return False
    return True


def _minutes(limit: str) -> int | None:
    """Minutes of Slurm's [days-][hours:]minutes:seconds; None for infinite."""
    if not limit[:1].isdigit():
        return None
    days, _, clock = limit.rpartition("-")
    parts = [int(part) for part in clock.split(":")]
    while len(parts) < 3:
        parts.insert(0, 0)
    return int(days or 0) * 1440 + parts[0] * 60 + parts[1]


def _name(submission: Submission, array: int) -> str:
    return f"peftbench-{submission.name}.{array}"


def _setup(cluster: Cluster) -> list[str]:
    """Lines of the job's script before Python starts."""
    return [
        *(f"module load {shlex.quote(name)}" for name in cluster.modules),
        *(f"export {name}={shlex.quote(value)}" for name, value in cluster.environment.items()),
        # srun does not take it over since Slurm 22.05, and binds to one core then
        *([f"export SRUN_CPUS_PER_TASK={cluster.cpus}"] if cluster.cpus else []),
        *cluster.setup,
    ]


def _ask(*command: str) -> str:
    """What a command of Slurm answers.

    Raises:
        Silent: if it fails or takes too long.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True)
    except FileNotFoundError as error:
        raise SchedulerUnreachable(f"{command[0]} is not on the path") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnreachable(f"{command[0]} did not answer within {PATIENCE} s") from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise SchedulerUnreachable(f"{command[0]}: {reason[-1]}") from error
    return done.stdout
