"""Back to the queue, from inside a job of Slurm."""

import os
import subprocess

#: Runs what follows without minding the signals that end the job.
_SHIELD = ["bash", "-c", 'trap "" TERM USR2 CONT; exec "$@"', "--"]


def requeue() -> str:
    """Put the job that this process belongs to back to the queue; return what Slurm says.

    The signals that end the job reach its children too: this one must not mind.
    """
    job = os.environ["SLURM_JOB_ID"]
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        job = f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = [*_SHIELD, "scontrol", "requeue", job]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stderr.strip() or f"job {job} goes back to the queue"


def restarts() -> int:
    """How often the job of this process was put back before."""
    return int(os.environ.get("SLURM_RESTART_COUNT") or 0)
