"""Which variables reach a worker."""

import os
from pathlib import Path

import pytest

from peftbench.runner.worker_environment import left_out, worker_environment


@pytest.mark.parametrize(
    "name",
    [
        # torchrun
        *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_WORLD_SIZE"),
        *("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "TORCHELASTIC_RUN_ID", "PET_NNODES"),
        # mpirun, srun --mpi: accelerate reads these where there is no RANK
        *("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "MV2_COMM_WORLD_RANK"),
        *("PMI_RANK", "PMI_SIZE", "PMIX_RANK", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        # accelerate launch
        *("ACCELERATE_MIXED_PRECISION", "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"),
        *("ACCELERATE_DYNAMO_BACKEND", "FSDP_SHARDING_STRATEGY", "MEGATRON_LM_TP_DEGREE"),
        *("NVIDIA_TF32_OVERRIDE", "PYTHONINSPECT", "PYTHONBREAKPOINT"),
    ],
)
def test_what_launchers_and_settings_of_libraries_say_is_left_out(name):
    assert left_out({name: "1", "PATH": "/bin"}) == [name]
    assert name not in worker_environment({name: "1"}, None)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "CUDA_VISIBLE_DEVICES", "NCCL_SOCKET_IFNAME", "LD_LIBRARY_PATH", "HF_TOKEN"),
        *("HF_HUB_OFFLINE", "SLURM_JOB_ID", "SLURM_CPUS_PER_TASK", "ONEDNN_MAX_CPU_ISA"),
        *("RANKING", "MY_RANK", "ZOO", "http_proxy", "OMP_PROC_BIND", "XRANK"),
    ],
)
def test_everything_else_is_kept(name):
    assert left_out({name: "a value"}) == []
    assert worker_environment({name: "a value"}, None)[name] == "a value"


def test_folders_are_absolute_from_the_start(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = worker_environment(
        {
            "HF_HOME": "hub",
            "PYTHONPATH": f"src{os.pathsep}",
            "PEFTBENCH_CACHE": "~/c",
            "HOME": "/h",
        },
        2,
    )
    assert found["HF_HOME"] == str(tmp_path / "hub")
    assert found["PYTHONPATH"] == f"{tmp_path}/src{os.pathsep}{tmp_path}"  # "" is here
    assert found["PEFTBENCH_CACHE"] == str(Path.home() / "c")
    assert found["HOME"] == "/h"
    assert found["OMP_NUM_THREADS"] == "2"
    assert "OMP_NUM_THREADS" not in worker_environment({}, None)
