"""The verb `doctor`: whether what runs need is there, and what to do where it is not.

Without overrides no torch: it answers in a moment on a login node.
"""

import importlib.metadata
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.cluster import base
from peftbench.cluster.manifest import SchedulerUnreachable
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.run import Run, canonical
from peftbench.core.text import count_of
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder
from peftbench.runner import prefetch
from peftbench.system import hub, offline_folder
from peftbench.system.hardware import (
    bf16_on_cpu,
    cores,
    gpus,
    memory,
    torch_gpus,
    unused_gpus,
)

GOOD, ODD, BAD = "ok", "note", "failed"

#: Free bytes in the results folder below which it is said.
LITTLE = 5 * 2**30

#: The first major compute capability with instructions for bf16.
_AMPERE = 8

_AWAY = "the hub can be asked where there is internet; else run `peftbench prefetch` there"


@dataclass(frozen=True)
class Finding:
    """One check: what was looked at, GOOD, ODD or BAD, what was found, what to do about it."""

    what: str
    state: str
    found: str
    do: str = ""


def examine(
    overrides: list[str], cluster: Cluster | None, configs: Path | None, results: ResultsFolder
) -> list[Finding]:
    """Check the machine, the folder, the cluster, and what the overrides need, in this order."""
    found = [*_python(), *machine_checks(), *_folder(results)]
    if cluster is not None:
        found += _cluster(cluster, results)
    do = "run `peftbench prefetch OVERRIDES --to FOLDER` where there is internet; bring it here"
    found += _guarded("prefetched", do, lambda: _prefetched(cluster))
    if overrides:
        do = "correct the overrides; `peftbench list` shows the names"
        found += _guarded("overrides", do, lambda: _plan(overrides, configs, results))
    return found


def findings_table(found: list[Finding]) -> Table:
    """Check by check; what to do stands beside it."""
    rows = [[one.what, one.state, one.found, one.do] for one in found]
    bad = sum(one.state == BAD for one in found)
    title = f"{len(found)} checks, " + (f"{bad} failed" if bad else "nothing failed")
    return Table(title, ["check", "", "found", "what to do"], rows, 2, prose=2)


def _guarded(what: str, do: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except (ConfigError, RecordError) as error:
        yield Finding(what, BAD, str(error), do)


def _python() -> Iterator[Finding]:
    here = ".".join(map(str, sys.version_info[:3]))
    good = (3, 11) <= sys.version_info < (3, 14)
    yield Finding(
        "Python", GOOD if good else BAD, here, "" if good else "use Python 3.11, 3.12 or 3.13"
    )
    lacking = []
    for text in importlib.metadata.requires("peftbench") or []:
        required = re.match(r"([A-Za-z0-9_.-]+)\s*([^;]*)(;.*)?$", text)
        if required is None or "extra ==" in text:
            continue
        try:
            version = importlib.metadata.version(required[1])
        except importlib.metadata.PackageNotFoundError:
            lacking.append(f"{required[1]} is missing")
            continue
        lacking += [f"{required[1]} {version}, not {required[2]}"] * (
            not _meets(version, required[2])
        )
    told = ", ".join(lacking) or ", ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("peftbench", "torch", "transformers")
    )
    do = "install again: uv sync, or pip install --upgrade peftbench" if lacking else ""
    yield Finding("packages", BAD if lacking else GOOD, told, do)
    untested = [
        f"{name} {importlib.metadata.version(name)} (tested: {version})"
        for name, version in tested_versions().items()
        if importlib.metadata.version(name) != version
    ]
    do = "if something breaks, install the tested versions: uv sync" if untested else ""
    told = ", ".join(untested) or "the versions that this release was tested with"
    yield Finding("tested versions", ODD if untested else GOOD, told, do)


def tested_versions() -> dict[str, str]:
    """The version of each direct dependency that this release was tested with, where installed.

    They stand in pyproject.toml, which is in the wheel too.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    package = Path(__file__).parents[1]
    inside = package / "pyproject.toml"  # in a wheel
    path = inside if inside.is_file() else package.parent / "pyproject.toml"
    pins = tomllib.loads(path.read_text(encoding="utf-8"))["tool"]["uv"]["constraint-dependencies"]
    direct = {Requirement(text).name for text in importlib.metadata.requires("peftbench") or []}
    installed = {canonicalize_name(dist.name) for dist in importlib.metadata.distributions()}
    found = {}
    for pin in map(Requirement, pins):
        if pin.name in direct & installed and (pin.marker is None or pin.marker.evaluate()):
            found[pin.name] = next(iter(pin.specifier)).version
    return found


def _meets(version: str, asked: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(asked.strip(" ()")).contains(version, prereleases=True)


def machine_checks() -> Iterator[Finding]:
    """Findings about GPUs and the torch for them, bf16 on the CPU, cores and memory."""
    seen = gpus()
    if not seen:
        unused = unused_gpus()
        told = f"none that is used here: torch has {unused}, and only NVIDIA's are" * bool(unused)
        do = "on a cluster this may be the login node: `doctor` in a job sees its GPUs"
        yield Finding("GPU", ODD, told or "none here", do)
    else:
        yield from _gpus(seen)
        yield from _torch_of(seen)
    yield Finding(
        "bf16 on the CPU",
        GOOD,
        "it has instructions for it: train.precision=auto is bf16 there"
        if bf16_on_cpu()
        else "it has no instructions for it: train.precision=auto is fp32 there",
    )
    yield Finding("cores, memory", GOOD, f"{cores()}, {memory() / 2**30:.1f} GiB free")


def _gpus(seen: list[str]) -> Iterator[Finding]:
    import pynvml

    try:
        pynvml.nvmlInit()
        driver = pynvml.nvmlSystemGetDriverVersion()
        for name in seen:
            handle = _handle(name)
            major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
            free = pynvml.nvmlDeviceGetMemoryInfo(handle).free / 2**30
            called = f"{pynvml.nvmlDeviceGetName(handle)}, {free:.0f} GiB free, driver {driver}"
            yield Finding(f"GPU {name}", GOOD, called)
            if major < _AMPERE:
                yield Finding(
                    f"bf16 on GPU {name}",
                    ODD,
                    f"compute capability {major}.{minor} has none: train.precision=auto is fp32",
                    "train.precision=fp16 is faster there",
                )
    except pynvml.NVMLError as error:
        do = "is the driver loaded? CUDA_VISIBLE_DEVICES names these"
        yield Finding("GPU", BAD, f"{', '.join(seen)}: {error}", do)


def _torch_of(seen: list[str]) -> Iterator[Finding]:
    """Whether torch is built for these GPUs, and for a CUDA that their driver knows."""
    import pynvml

    version = importlib.metadata.version("torch")
    built = torch_gpus().get("CUDA")
    if built is None:
        yield Finding(
            "torch",
            BAD,
            f"{version} is built without CUDA and cannot use GPU {', '.join(seen)}",
            "install a build with CUDA (pytorch.org names its index), or run with --device cpu",
        )
        return
    try:
        pynvml.nvmlInit()
        known = pynvml.nvmlSystemGetCudaDriverVersion() // 1000
    except pynvml.NVMLError:  # `_gpus` says so
        return
    if int(built.partition(".")[0]) > known:
        yield Finding(
            "torch",
            ODD,
            f"{version} is built for CUDA {built}; the driver knows CUDA {known}",
            "if torch sees no GPU, update the driver, or install a build of torch for that CUDA",
        )


def _handle(name: str) -> Any:
    """NVML's handle of a GPU as CUDA_VISIBLE_DEVICES names it."""
    import pynvml

    if name.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(name))
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError:  # CUDA takes the beginning of a UUID too, NVML does not
        every = map(pynvml.nvmlDeviceGetHandleByIndex, range(pynvml.nvmlDeviceGetCount()))
        meant = [one for one in every if pynvml.nvmlDeviceGetUUID(one).startswith(name)]
        if len(meant) != 1:
            raise
        return meant[0]


def _folder(results: ResultsFolder) -> Iterator[Finding]:
    do = "choose a folder that you may write to with --results"
    if not results.folder.exists():  # nor is it made, or commands would take it for one of results
        there = next(path for path in results.folder.absolute().parents if path.exists())
        good = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        told = (
            f"{results.folder} does not exist yet; {there} can{'' if good else 'not'} be written to"
        )
        yield Finding("results folder", GOOD if good else BAD, told, "" if good else do)
        yield _room(there)
        return
    try:
        results.check_writable()
    except ConfigError as error:
        yield Finding("results folder", BAD, str(error), do)
        return
    yield Finding("results folder", GOOD, f"{results.folder} can be written to")
    yield _room(results.folder)
    try:
        odd = results.check_claims()
        yield Finding("claims", ODD if odd else GOOD, odd or "the file system has locks")
    except ConfigError as error:
        do = "put --results on a local disk, or on a shared file system with locks"
        yield Finding("claims", BAD, str(error), do)


def _room(folder: Path) -> Finding:
    """Whether the disk of a folder has room for results."""
    free = shutil.disk_usage(folder).free
    do = "" if free > LITTLE else "free some, or choose another folder with --results"
    return Finding("disk", GOOD if not do else ODD, f"{free / 2**30:.1f} GiB free", do)


def _cluster(cluster: Cluster, results: ResultsFolder) -> Iterator[Finding]:
    if cluster.scheduler == "local":
        yield Finding("scheduler", GOOD, "none: a process in the background")
        return
    title = base.find_scheduler(cluster.scheduler).title
    try:
        asked = base.build_scheduler(cluster)
        asked.check_config()
    except (ConfigError, SchedulerUnreachable) as error:
        do = "correct the overrides cluster.KEY=, or ask where the scheduler's commands are"
        yield Finding(title, BAD, str(error), do)
        return
    try:
        yield Finding(title, GOOD, f"answers; arrays of up to {asked.array_limit}")
        for one in asked.examine(results):
            yield Finding(one.what, BAD if one.bad else ODD, one.found, one.do)
    except (ConfigError, SchedulerUnreachable) as error:
        yield Finding(title, BAD, str(error), "is this a login node? does its own command work?")
    if asked.origin:
        found = f"untested on a real cluster, written from {asked.origin}"
        do = f"please report `{title} works`, or what does not, with `peftbench doctor --json`"
        yield Finding("tests", ODD, found, do)


def _prefetched(cluster: Cluster | None) -> Iterator[Finding]:
    place = Path(cluster.prefetched) if cluster and cluster.prefetched else offline_folder.folder()
    if place is None:
        return
    wrong = offline_folder.wrong(place)
    count = len(offline_folder.manifest(place)["files"])
    told = "; ".join(wrong[:5]) or f"{count} files are as they were brought"
    do = "run `peftbench prefetch` again" if wrong else ""
    yield Finding("prefetched", BAD if wrong else GOOD, f"{place}: {told}", do)
    offline_folder.use(place)


def room_for_downloads(wanted: dict[str, int | None]) -> Finding:
    """Whether the disk of the hub's cache has room for what is fetched.

    Args:
        wanted: about how many bytes of what; None is not known.
    """
    place = hub.cache()
    there = next(path for path in (place, *place.parents) if path.exists())
    free = shutil.disk_usage(there).free
    known = sum(size or 0 for size in wanted.values())
    need = f", about {known / 2**30:.1f} GiB to be fetched" if known else ""
    state = BAD if free <= known else GOOD if free - known > LITTLE else ODD
    do = "" if state == GOOD else "free some, or choose another folder with HF_HOME"
    return Finding("room for models", state, f"{free / 2**30:.1f} GiB in {place}{need}", do)


def _plan(overrides: list[str], configs: Path | None, results: ResultsFolder) -> Iterator[Finding]:
    from peftbench.config.sweep import plan

    how: dict[str, Any] = {"configs": configs, "results": results.folder, "ask_hub": False}
    try:
        planned = plan(*overrides, **how)
    except ConfigError:  # of a folder that has no weights yet, the config says what it would need
        try:
            runs = plan(*overrides, **how, weights=False).runs
        except ConfigError:
            runs = []
        yield from _memory([run for run in runs if run.model.path and run.model.sha256 is None])
        raise
    yield Finding("overrides", GOOD, f"{len(planned.runs)} run{'s' * (len(planned.runs) != 1)}")
    root = offline_folder.data_root() or planned.data_root
    online = not hub.offline()
    hub.go_offline()  # what is here is asked for; nothing is fetched
    yield room_for_downloads(prefetch.to_fetch(planned, root))
    for need in prefetch.needs(planned, root):
        try:
            need.look()
            yield Finding(need.what, GOOD, "is here")
        except ConfigError as error:
            state = ODD if online and need.of_hub else BAD
            yield Finding(need.what, state, str(error).partition("; provide")[0], _AWAY)
    yield from _memory(planned.runs)


#: Pairs of a model and a method of which the memory is estimated, at most.
_MOST_PAIRS = 12

_TOO_LARGE = (
    "a method that trains less (LoRA, BitFit), a smaller model, train.micro_batch_size, a shorter "
    "train.max_length, train.gradient_checkpointing=true, model.dtype=bf16 or train.precision="
    "bf16; weights in 4 bits and FSDP are not offered: use QLoRA (peft with bitsandbytes) or the "
    "Trainer of transformers with FSDP"
)


def _memory(runs: list[Run]) -> Iterator[Finding]:
    """What each model and method needs on one GPU, of their runs with the largest batches."""
    pairs: dict[tuple[str, str], Run] = {}
    for run in sorted(runs, key=_batch_tokens):
        pairs[canonical(run.model), canonical(run.method)] = run
    for run in list(pairs.values())[:_MOST_PAIRS]:
        yield memory_check(run)
    if (more := len(pairs) - _MOST_PAIRS) > 0:
        told = f"not estimated: {count_of(more, 'more pair')} of a model and a method"
        yield Finding("memory", ODD, told, "ask about fewer at once")


def _batch_tokens(run: Run) -> int:
    return (run.train.micro_batch_size or run.train.batch_size) * run.train.max_length


def memory_check(run: Run) -> Finding:
    """Whether a run fits into the memory of this machine, by the config of its checkpoint."""
    from peftbench.training.memory_need import GPU_SIZES, USABLE, config_at_hand, memory_need

    what = f"memory of {run.model.name}, {run.method.name}"
    config = config_at_hand(run.model)
    if config is None:
        do = "`peftbench prefetch` fetches it"
        return Finding(what, ODD, "the config of the checkpoint is not here", do)
    seen = gpus()
    auto = run.train.precision == "auto"
    low = _auto_is_bf16(seen) if auto else run.train.precision != "fp32"
    try:
        need = memory_need(run, config, low)
    except (ValueError, RuntimeError, NotImplementedError) as error:
        return Finding(what, ODD, f"cannot be estimated: {str(error).splitlines()[0]}")
    parts = ("weights", "gradients", "optimizer", "activations")
    told = ", ".join(f"{part} {getattr(need, part) / 2**30:.1f}" for part in parts)
    size, room = need.smallest_gpu(), _largest_room(seen)
    fits = size is not None if room is None else need.total <= USABLE * room
    bits = f"{'16' if low else '32'} bits" + " (auto, on GPUs since Ampere)" * (auto and not seen)
    told = (
        f"about {need.total / 2**30:.1f} GiB on a GPU ({told}) for {need.parameters / 1e6:,.0f} M "
        f"parameters, {need.trained / 1e6:,.1f} M trained, {bits}, "
        f"{run.train.micro_batch_size or run.train.batch_size} × {run.train.max_length} tokens: "
        + (f"more than one with {GPU_SIZES[-1]} GB has" if size is None else f"one with {size} GB")
    )
    if fits:
        return Finding(what, GOOD, told)
    if room is not None:
        told += f"; {room / 2**30:.0f} GiB are free here, of which tensors can fill {USABLE:.0%}"
    return Finding(what, ODD if room is None else BAD, told, _TOO_LARGE)


def _auto_is_bf16(seen: list[str]) -> bool:
    """Whether train.precision=auto is bf16 on all of these GPUs, as on any since Ampere.

    Without GPUs, or where the driver is silent, it is.
    """
    import pynvml

    try:
        pynvml.nvmlInit()
        found = [pynvml.nvmlDeviceGetCudaComputeCapability(_handle(name)) for name in seen]
    except pynvml.NVMLError:  # `_gpus` says so
        return True
    return all(major >= _AMPERE for major, _ in found)


def _largest_room(seen: list[str]) -> float | None:
    """Free bytes of the emptiest of these GPUs; None without one, or where the driver is silent."""
    import pynvml

    try:
        pynvml.nvmlInit()
        room = [float(pynvml.nvmlDeviceGetMemoryInfo(_handle(name)).free) for name in seen]
    except pynvml.NVMLError:  # `_gpus` says so
        return None
    return max(room, default=None)
