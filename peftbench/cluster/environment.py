"""Environments of a scheduler's commands and of jobs, without what overrules the overrides.

Variables of a scheduler outrank what is written in a script (SBATCH_PARTITION), filter what its
commands print (SQUEUE_USERS, SCANCEL_STATE), or are left over from the job in which `submit` was
called and contradict what the new job asks for (SLURM_MEM_PER_CPU beside SLURM_MEM_PER_NODE ends
srun). `cluster.*` is the only place that says what jobs get.
"""

import os
import re
from collections.abc import Mapping

#: Beginnings of the names of variables that are left out.
SCHEDULER_PREFIXES = (
    *("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_", "SQUEUE_", "SACCT_", "SCANCEL_"),
    *("SINFO_", "SCONTROL_", "SPRIO_", "PMI_", "PMIX_"),
    *("PBS_ARRAY", "PBS_ENVIRONMENT", "PBS_JOB", "PBS_MOMPORT", "PBS_NODE", "PBS_O_", "PBS_QUEUE"),
    *("SGE_JOB_", "SGE_O_", "SGE_STD", "SGE_TASK_", "LSB_", "BSUB_", "FLUX_JOB_", "FLUX_TASK_"),
    # of the job in which `submit` was called, by peftbench itself
    *("PEFTBENCH_CPUS", "PEFTBENCH_MEMORY_MB", "PEFTBENCH_SECONDS", "PEFTBENCH_SIGNAL_SECONDS"),
    *("PEFTBENCH_STARTED", "PEFTBENCH_TURN"),
)

#: The GPUs of the job in which `submit` was called are not those of its jobs.
OTHERS_GPUS = ("CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL", "ROCR_VISIBLE_DEVICES")

#: How commands find and enter the cluster: no filter, no wish.
KEPT = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_JWT")

#: Beginnings of the names of variables that steer Python and the libraries of a run.
LIBRARY_PREFIXES = (
    *("ACCELERATE_", "CUBLAS_", "CUDA_", "HF_", "KMP_", "LD_LIBRARY_PATH", "LD_PRELOAD", "MKL_"),
    *("NCCL_", "NVIDIA_", "OMP_", "OPENBLAS_", "PEFTBENCH_", "PYTHON", "PYTORCH_", "TOKENIZERS_"),
    *("TORCH", "TRANSFORMERS_"),
)

#: Names of variables whose values are in no file.
SECRET = re.compile(r"TOKEN(?!IZERS)|SECRET|PASSWORD|(^|_)KEY(_|$)")


def cleaned(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment (of this process by default) for a scheduler's commands and for jobs."""
    environment = os.environ if environment is None else environment
    return {name: value for name, value in environment.items() if not _left_out(name)}


def left_out(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of variables that `cleaned` leaves out, sorted."""
    return sorted(filter(_left_out, os.environ if environment is None else environment))


def inherited(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of variables that jobs inherit and that steer what they do, sorted.

    Names alone: a value may be a secret.
    """
    return sorted(name for name in cleaned(environment) if name.startswith(LIBRARY_PREFIXES))


def exports(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables that a script sets where the scheduler passes none on, but no secrets."""
    environment = os.environ if environment is None else environment
    names = (name for name in inherited(environment) if name.isidentifier())
    return {name: environment[name] for name in names if not SECRET.search(name)}


def secrets(environment: Mapping[str, str] | None = None) -> list[str]:
    """Names of inherited variables that `exports` leaves out as secrets, sorted."""
    return [name for name in inherited(environment) if SECRET.search(name)]


def _left_out(name: str) -> bool:
    return name in OTHERS_GPUS or (name.startswith(SCHEDULER_PREFIXES) and name not in KEPT)
