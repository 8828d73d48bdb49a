"""Cores and memory that are ours: the machine's, a container's, a scheduler's."""

import os
import subprocess
from types import SimpleNamespace

import psutil
import pytest
import torch

from peftbench.system import cgroups, hardware

GIB = 2**30


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Set a machine of 8 cores with 16 hardware threads and 64 GiB, no limits by default."""
    monkeypatch.setattr(cgroups, "OWN", tmp_path / "self")
    monkeypatch.setattr(cgroups, "MOUNT", tmp_path / "cgroup")
    monkeypatch.setattr(hardware, "_CPUS", tmp_path / "cpu")
    for name in ("CPUS_PER_TASK", "CPUS_ON_NODE", "MEM_PER_NODE", "MEM_PER_CPU"):
        monkeypatch.delenv(f"SLURM_{name}", raising=False)
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 16 if logical else 8)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * GIB))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)

    def group(line, files):
        """Add a line of /proc/self/cgroup, and files under the mount."""
        with open(tmp_path / "self", "a") as own:
            own.write(line + "\n")
        for name, text in files.items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return group


def test_hardware_threads_of_one_core_count_once(machine):
    assert hardware.cores() == 8
    assert hardware.memory() == 64 * GIB


def test_a_process_that_is_bound_has_the_cores_it_is_bound_to(machine, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    assert hardware.cores() == 3


@pytest.mark.parametrize(("bound", "cores"), [({0, 8, 1, 9}, 2), ({0, 1, 2}, 3), ({3, 11}, 1)])
def test_two_threads_of_a_core_that_a_process_is_bound_to_count_once(
    machine, tmp_path, monkeypatch, bound, cores
):
    for number in range(16):
        file = tmp_path / "cpu" / f"cpu{number}" / "topology" / "thread_siblings_list"
        file.parent.mkdir(parents=True)
        file.write_text(f"{number % 8},{number % 8 + 8}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: bound)
    assert hardware.cores() == cores


def test_a_system_that_does_not_tell_its_cores_has_its_threads(machine, monkeypatch):
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    assert hardware.cores() == 16


def test_a_scheduler_that_binds_nothing_gives_its_share_in_the_environment(machine, monkeypatch):
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "4")
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert hardware.cores() == 4
    assert hardware.memory() == 2 * GIB


def test_slurm_may_give_memory_by_cpu(machine, monkeypatch):
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2048")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "6")
    assert hardware.memory() == 12 * GIB


@pytest.mark.parametrize(
    ("quota", "expected"), [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 8)]
)
def test_cpu_time_of_a_container(machine, quota, expected):
    machine("0::/pod/box", {"pod/box/cpu.max": quota, "pod/cpu.max": "900000 100000"})
    assert hardware.cores() == expected


def test_the_least_limit_of_a_group_and_its_parents_holds(machine):
    machine(
        "0::/pod/box",
        {
            "pod/box/memory.max": "max",
            "pod/box/memory.current": str(GIB),
            "pod/memory.max": str(8 * GIB),
            "pod/memory.current": str(6 * GIB),
            "pod/memory.stat": f"anon 5\ninactive_file {GIB}\n",
        },
    )
    assert hardware.memory() == 3 * GIB  # 8 less 6, and 1 of cache that can be given up


def test_limits_of_version_1_in_a_container_that_sees_its_group_as_the_root(machine):
    machine(
        "4:memory:/docker/abc",
        {
            "memory/memory.limit_in_bytes": str(4 * GIB),
            "memory/memory.usage_in_bytes": str(GIB),
        },
    )
    machine(
        "1:cpu,cpuacct:/docker/abc",
        {
            "cpu,cpuacct/cpu.cfs_quota_us": "300000\n",
            "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert (hardware.cores(), hardware.memory()) == (3, 3 * GIB)


def test_version_1_without_a_limit(machine):
    machine("1:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"})
    machine(
        "4:memory:/",
        {
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "memory/memory.usage_in_bytes": "1000",
        },
    )
    assert (hardware.cores(), hardware.memory()) == (8, 64 * GIB)


def test_of_this_machine():
    assert 1 <= hardware.cores() <= os.cpu_count()
    assert 0 < hardware.memory() <= psutil.virtual_memory().total


@pytest.mark.parametrize(
    ("flags", "limit", "native"),
    [
        ("flags : fpu avx2 avx512f avx512_bf16", None, True),
        ("flags : fpu avx2 avx512f amx_bf16 amx_tile", None, True),
        ("Features : fp asimd bf16 i8mm", None, True),
        ("flags : fpu avx2 avx512f avx512_vnni", None, False),
        ("flags : fpu avx2 fma", None, False),
        ("processor : 0", None, False),
        ("flags : fpu avx2 avx512_bf16 amx_bf16", "AVX2", False),
        ("flags : fpu avx2 avx512_bf16 amx_bf16", "avx512_core", False),
        ("flags : fpu avx2 avx512_bf16 amx_bf16", "AVX512_CORE_BF16", True),
        ("flags : fpu avx2 avx512_bf16 amx_bf16", "DEFAULT", True),
    ],
)
def test_bf16_is_native_where_the_cpu_has_instructions_that_may_be_used(
    monkeypatch, flags, limit, native
):
    text = f"model name : some CPU\n{flags}\n"
    monkeypatch.setattr(hardware.Path, "read_text", lambda _, encoding=None: text)
    monkeypatch.setattr(hardware.platform, "system", lambda: "Linux")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    monkeypatch.delenv("DNNL_MAX_CPU_ISA", raising=False)
    if limit:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    hardware._cpu_flags.cache_clear()
    try:
        assert hardware.bf16_on_cpu() is native
    finally:
        hardware._cpu_flags.cache_clear()


BUILDS = {
    "cuda = '13.2'\nhip = None\nxpu = None\n": {"CUDA": "13.2"},
    "cuda: str | None = None\nhip: str | None = '6.4.1'\n": {"ROCm": "6.4.1"},
    "cuda = None\nhip = None\nxpu = '20250101'\n": {"XPU": "20250101"},
    "cuda = None\n": {},
}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("mac", [False, True], ids=["linux", "mac"])
def test_what_torch_is_built_for_is_read_without_torch(build, mac, tmp_path, monkeypatch):
    (tmp_path / "version.py").write_text(build)
    origin = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(hardware, "find_spec", lambda name: {"torch": origin}[name])
    monkeypatch.setattr(hardware.platform, "system", lambda: "Darwin" if mac else "Linux")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    hardware.torch_gpus.cache_clear()
    try:
        assert hardware.torch_gpus() == BUILDS[build] | ({"MPS": ""} if mac else {})
        others = [kind for kind in BUILDS[build] if kind != "CUDA"] + ["MPS"] * mac
        assert hardware.unused_gpus() == " and ".join(others)
    finally:
        hardware.torch_gpus.cache_clear()


def test_the_build_of_the_torch_here_is_what_torch_says():
    hardware.torch_gpus.cache_clear()
    assert hardware.torch_gpus().get("CUDA") == torch.version.cuda


def test_only_changed_code_and_configs_make_a_record_dirty(tmp_path):
    def git(*words):
        name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    here = tmp_path / "peftbench" / "system"
    here.mkdir(parents=True)
    (tmp_path / "configs").mkdir()
    files = {"code": here / "hardware.py", "config": tmp_path / "configs" / "run.yaml"}
    for path in files.values():
        path.write_text("1\n")
    (tmp_path / "README.md").write_text("1\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "report.html").write_text("made by a documented command")
    (tmp_path / "README.md").write_text("2\n")
    assert not hardware.checkout_of(here)["dirty"]
    for path in files.values():
        path.write_text("2\n")
        assert hardware.checkout_of(here)["dirty"]
        path.write_text("1\n")
    (here / "new.py").write_text("")  # code that a run may import
    assert hardware.checkout_of(here)["dirty"]
