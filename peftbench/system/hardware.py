"""What this machine offers, found out without loading torch."""

import itertools
import os
import platform
import runpy
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.system import cgroups


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: 0, or GPU-1a2b.

    Schedulers may give either. What follows a device that cannot be (-1) is not seen, as in CUDA.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        names = [name.strip() for name in visible.split(",")]
        good = (name.isdigit() or name.startswith(("GPU-", "MIG-")) for name in names)
        return [name for name, _ in zip(names, itertools.takewhile(bool, good), strict=False)]
    import pynvml

    try:
        pynvml.nvmlInit()
        return [str(number) for number in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:  # no driver
        return []


def seeing(names: list[str]) -> dict[str, str]:
    """Variables with which CUDA sees these GPUs of `gpus` alone.

    Numbers that come from NVML are in the order of the bus; CUDA's own order is by speed.
    """
    given = "CUDA_VISIBLE_DEVICES" in os.environ
    order = {} if given else {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    return {"CUDA_VISIBLE_DEVICES": ",".join(names)} | order


def devices(asked: str) -> list[str]:
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
    if number in found:
        return [number]
    there = ", ".join(f"cuda:{n}" for n in found) or "no GPU"
    raise ConfigError(f"--device {asked}: choose auto, cpu, cuda or cuda:i; here is {there}")


@cache
def torch_gpus() -> dict[str, str]:
    """The kinds of GPU that torch here can use, each with the version of its libraries.

    They are CUDA, ROCm, XPU and, on a Mac, MPS, which has no version of its own. Only GPUs of CUDA
    are used. Torch is not loaded: its build says so in a file.
    """
    spec = find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    build = runpy.run_path(str(Path(spec.origin).with_name("version.py")))
    names = {"CUDA": "cuda", "ROCm": "hip", "XPU": "xpu"}
    found = {kind: str(build[name]) for kind, name in names.items() if build.get(name)}
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        found["MPS"] = ""
    return found


def unused_gpus() -> str:
    """The kinds of GPU of `torch_gpus` that no run uses, in words; empty where there are none."""
    return " and ".join(kind for kind in torch_gpus() if kind != "CUDA")


def cores() -> int:
    """Count the physical cores that this process may use, at least one.

    The least of the machine's cores (two hardware threads of a core share its multipliers), those
    of the CPUs that the process is bound to, the CPU time of its control groups, and the share that
    a scheduler gave to the job: one that binds nothing only writes it into the environment.
    """
    import psutil

    quota = cgroups.cpu_quota()
    limits = [
        psutil.cpu_count(logical=False),  # None where the system does not tell
        _bound_cores(),
        None if quota is None else max(1, int(quota)),
        _given("SLURM_CPUS_PER_TASK"),
        _given("PEFTBENCH_CPUS"),
    ]
    return min(filter(None, limits), default=1)


#: Where Linux tells of each CPU, that is, hardware thread, which others are of its core.
_CPUS = Path("/sys/devices/system/cpu")


def _bound_cores() -> int | None:
    """The cores of the CPUs that this process is bound to; CPUs where the system tells no cores."""
    if not hasattr(os, "sched_getaffinity"):
        return os.cpu_count()
    bound = os.sched_getaffinity(0)
    files = [_CPUS / f"cpu{number}" / "topology" / "thread_siblings_list" for number in bound]
    try:
        return len({file.read_text(encoding="ascii") for file in files})
    except OSError:
        return len(bound)


def memory() -> float:
    """Return the bytes that programs can still take here, or that a scheduler gave if less.

    Page cache counts as free: the system gives it up when a program needs memory. Slurm names
    memory by node or by CPU, as the job asked for it.
    """
    import psutil

    limits = [
        psutil.virtual_memory().available,
        cgroups.free_memory(),
        2**20 * _given("SLURM_MEM_PER_NODE") or None,
        2**20 * _given("SLURM_MEM_PER_CPU") * _given("SLURM_CPUS_ON_NODE") or None,
        2**20 * _given("PEFTBENCH_MEMORY_MB") or None,
    ]
    return float(min(limit for limit in limits if limit is not None))


def _given(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdigit() else 0


@cache
def processor() -> str:
    """What the CPU calls itself."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def bf16_on_cpu() -> bool:
    """Whether matrix products in bf16 have instructions of their own here.

    They are AVX512_BF16 and AMX_BF16 on x86, and Arm's BF16. Where the CPU does not say, or
    `ONEDNN_MAX_CPU_ISA` keeps oneDNN from using them, it is False: without them a step in bf16
    takes many times one in fp32.
    """
    most = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    if most and not most.startswith(_BF16_ISAS):
        return False
    return not _BF16_FLAGS.isdisjoint(_cpu_flags())


#: As /proc/cpuinfo, or macOS, call the instructions.
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}

#: Limits of oneDNN that leave them in use.
_BF16_ISAS = ("DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX", "AVX10")


@cache
def _cpu_flags() -> frozenset[str]:
    """What the CPU says that it can do; empty where it does not say."""
    if platform.system() == "Darwin":
        name = "hw.optional.arm.FEAT_BF16"
        told = subprocess.run(
            ["sysctl", "-n", name], capture_output=True, encoding="utf-8", errors="replace"
        )
        return frozenset({"bf16"} if told.stdout.strip() == "1" else ())
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return frozenset(flags.split())


@cache
def checkout() -> Json:
    """The commit of the checkout that runs, and whether its code differs from it; None outside."""
    return checkout_of(Path(__file__).parent)


def checkout_of(here: Path) -> Json:
    """The same for the folder `peftbench/system` of a checkout.

    Only changes in peftbench/ and configs/ count: reports and data beside them change no run.
    """

    def git(*words: str) -> str | None:
        # `git status` would lock the index, and a killed command would leave it locked
        command = ["git", "--no-optional-locks", *words]
        try:
            done = subprocess.run(
                command, cwd=here, capture_output=True, encoding="utf-8", errors="replace"
            )
        except FileNotFoundError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = git("rev-parse", "HEAD")
    if commit is None or git("ls-files", "--error-unmatch", "hardware.py") is None:
        return {"commit": None, "dirty": None}
    return {
        "commit": commit,
        "dirty": bool(git("status", "--porcelain", "--", "..", "../../configs")),
    }


def oom_kills() -> int:
    """How many processes the kernel has killed for memory since it started."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
