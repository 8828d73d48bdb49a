"""A folder brought to nodes without internet: models, data and tokens, and hashes of all of it.

While one is in use (`use`, or PEFTBENCH_PREFETCHED), runs read nothing else, and nothing in it is
written or locked:

    manifest.json        the words, and size and SHA-256 of each file
    models/NAME@REVISION/    a model of the hub, plain files
    data/NAME/…          data sets in the hub's layout
    tokens/              what `tokenization.tokenize_split` keeps
"""

import os
from pathlib import Path

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.system import io

VARIABLE = "PEFTBENCH_PREFETCHED"


def use(folder: Path) -> None:
    """Let this process and those that it starts read this folder alone.

    Raises:
        ConfigError: if it is none, before anything is asked of it.
    """
    manifest(folder)
    os.environ[VARIABLE] = str(folder.resolve())
    os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"


def folder() -> Path | None:
    """The folder in use.

    Raises:
        ConfigError: if the environment names one that is none.
    """
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    if not (Path(named) / "manifest.json").is_file():
        raise ConfigError(f"{VARIABLE}={_not_prefetched(Path(named))}")
    return Path(named)


def data_root() -> str | None:
    """Folders of data sets, as `data.root` names them."""
    here = folder()
    if here is None:
        return None
    return os.pathsep.join(str(path) for path in sorted((here / "data").glob("*"))) or None


def model(name: str, revision: str | None) -> Path | None:
    """A model of the hub in the folder in use; None where none is in use.

    Raises:
        ConfigError: if it is not in there.
    """
    here = folder()
    if here is None:
        return None
    place = here / "models" / called(name, revision)
    if not place.is_dir():
        commit = revision[:12] if revision else "its newest commit"
        raise ConfigError(
            f"{name} at {commit} is not in {here}; run `peftbench prefetch` again with these "
            "overrides where there is internet"
        )
    return place


def called(name: str, revision: str | None) -> str:
    """The folder of a hub model, told from those of its other revisions."""
    return f"{name.replace('/', '--')}@{revision or 'newest'}"


def manifest(place: Path) -> Json:
    """What is in a prefetched folder.

    Raises:
        ConfigError: if it is none.
        RecordError: if the manifest is not whole.
    """
    try:
        return io.unsealed(place / "manifest.json")
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(_not_prefetched(place)) from None


def _not_prefetched(place: Path) -> str:
    what = "it has no manifest.json" if place.is_dir() else "folder not found"
    return f"{place}: {what}; run `peftbench prefetch OVERRIDES --to {place}`"


def revisions(place: Path) -> dict[str, str]:
    """Commits of repositories that were named without one: `models/NAME` and `datasets/NAME`."""
    found: dict[str, str] = manifest(place).get("revisions", {})
    return found


def datasets(place: Path) -> Json:
    """What `data.hub_dataset.describe` found about data sets, by what it depends on."""
    found: Json = manifest(place).get("datasets", {})
    return found


def wrong(place: Path) -> list[str]:
    """What differs from the manifest: files that are missing or were altered."""
    told = []
    for name, about in manifest(place)["files"].items():
        path = place / name
        if not path.is_file():
            told.append(f"{name} is missing")
        elif path.stat().st_size != about["bytes"] or io.hash_files((path,)) != about["sha256"]:
            told.append(f"{name} was altered")
    return told
