"""The environment of workers: what would change or hang a run is left out of it.

A run's key says all that changes its score. Variables that libraries read behind it are left out:
those of launchers (a worker would wait for the other processes of a group that is not there), and
settings of accelerate, cuBLAS and the interpreter. Paths become absolute, as a method may change
the working folder.
"""

import os
import re
from collections.abc import Mapping

#: Names that are left out.
LEFT_OUT = re.compile(
    "|".join(
        [
            # torchrun and MPI: ranks and where to meet
            r"((LOCAL_|GROUP_|ROLE_)?(WORLD_SIZE|RANK)|NODE_RANK|NNODES|NPROC_PER_NODE|ROLE_NAME)",
            r"MASTER_(ADDR|PORT)|TORCHELASTIC_.*|PET_.*|CCL_WORKER_COUNT",
            r"(OMPI_COMM_WORLD|MV2_COMM_WORLD|PMIX?)_(LOCAL_)?(SIZE|RANK)|MPI_LOCALN?RANK(ID|S)",
            # accelerate and what it configures
            r"ACCELERATE_.*|FSDP_.*|MEGATRON_LM_.*|DEEPSPEED_.*|XLA_USE_.*|PARALLELISM_CONFIG_.*",
            # other arithmetic than the record says
            r"NVIDIA_TF32_OVERRIDE|TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
            # an interpreter that waits for a person
            r"PYTHONINSPECT|PYTHONBREAKPOINT",
        ]
    )
)

#: Variables that hold folders, or several with `os.pathsep` between them.
_FOLDERS = (
    *("PEFTBENCH_CACHE", "PEFTBENCH_DATA", "PEFTBENCH_PREFETCHED", "PYTHONPATH", "TMPDIR"),
    *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "HOME"),
)


def left_out(inherited: Mapping[str, str]) -> list[str]:
    """Names of the variables that workers do not get, sorted."""
    return sorted(name for name in inherited if LEFT_OUT.fullmatch(name))


def worker_environment(inherited: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """The environment of a worker.

    Args:
        inherited: that of the supervisor.
        threads: of the worker's CPU; None is what the libraries choose.
    """
    found = {name: value for name, value in inherited.items() if not LEFT_OUT.fullmatch(name)}
    for name in _FOLDERS:
        if found.get(name):
            found[name] = absolute(found[name])
    found["PYTHONUNBUFFERED"] = "1"
    found["PYTHONIOENCODING"] = "utf-8:backslashreplace"  # of logs, whatever the terminal shows
    found["TOKENIZERS_PARALLELISM"] = "false"  # its threads would fight with the other workers
    if threads:
        found["OMP_NUM_THREADS"] = str(threads)
    return found


def absolute(folders: str) -> str:
    """Folders with `os.pathsep` between them, none of which depends on the working folder."""
    parts = folders.split(os.pathsep)
    return os.pathsep.join(os.path.abspath(os.path.expanduser(part)) for part in parts)
