"""What the configuration folders offer: groups, their options, and what each is for.

A user's own folder (`--configs DIR`, else ./configs) is searched before the packaged one. Only
file names and first lines are read here, so that lists, completion and messages cost nothing.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import ParamSpec, TypeVar, cast

from peftbench.config import aliases, old_names
from peftbench.core.errors import ConfigError
from peftbench.core.text import did_you_mean
from peftbench.system import yaml_files

#: Groups that make up a run, in the order in which people name them.
GROUPS = (
    "model",
    "method",
    "task",
    "prompt",
    "augmentation",
    "budget",
    "train",
    "checkpoint_selection",
)

#: Groups that came later, and the option of each that stands for a run as it was before: such a
#: run has None there, and the key that it always had.
LATER = {"prompt": "head", "augmentation": "none"}


_P = ParamSpec("_P")
_T = TypeVar("_T")

#: What each of a user's own folders held when it was last searched, and what forgets it.
_seen: dict[Path, object] = {}
_forget: list[Callable[[], None]] = []


def until_files_change(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Remember what a function read of configuration folders until `folders` sees a change."""
    remembering = cache(function)
    _forget.append(remembering.cache_clear)
    return cast(Callable[_P, _T], remembering)


def packaged() -> Path:
    """The folder of configurations that came with peftbench."""
    inside = Path(__file__).parents[1] / "configs"  # in a wheel
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def folders(own: str | Path | None = None) -> list[Path]:
    """The folders to search, a user's own first.

    What was read of their files before is forgotten if one was added or changed, as in a notebook.

    Raises:
        ConfigError: if `own` is given and is no folder.
    """
    if own is not None and not Path(own).is_dir():
        raise ConfigError(f"--configs {own}: no such folder")
    first = Path(own or "configs")
    found = [first.resolve()] if first.is_dir() else []
    searched = list(dict.fromkeys([*found, packaged().resolve()]))
    for folder in searched[:-1]:
        files = {path: path.stat() for path in folder.rglob("*.yaml") if path.is_file()}
        state = {path: (stat.st_mtime_ns, stat.st_size) for path, stat in files.items()}
        if _seen.setdefault(folder, state) != state:
            _seen[folder] = state
            for forget in _forget:
                forget()
    return searched


@until_files_change
def options(group: str, searched: tuple[Path, ...]) -> dict[str, Path]:
    """The options of a group and their files, sorted; files with a leading _ are not offered."""
    found: dict[str, Path] = {}
    for folder in searched:
        for path in old_names.files(folder, group):
            if not path.stem.startswith("_"):
                found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


@cache
def packaged_targets(group: str) -> dict[str, str]:
    """The class of each of peftbench's own options of a group, by the name that the option has."""
    found: dict[str, str] = {}
    for path in sorted((packaged() / group).glob("*.yaml")):
        said = dict(
            re.findall(r"^(name|_target_): *(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        )
        if len(said) == 2:  # one that only changes another one has its name
            found[said["name"]] = said["_target_"]
    return found


def about(path: Path) -> str:
    """The purpose of an option: its `about:`, else its first comment."""
    try:
        return said(path, "about") or said(path, "#", colon="") or ""
    except OSError as error:  # a list goes on without it
        return f"(cannot be read: {error.strerror})"


def said(path: Path, key: str, colon: str = ":") -> str | None:
    """What the file of an option gives to a key, on one line and without a comment; else None."""
    text = path.read_text(encoding="utf-8", errors="replace")
    found = re.search(rf"^{key}{colon}\s*(.+?)(\s+#.*)?$", text, re.MULTILINE)
    return found.group(1).strip().strip("\"'") if found else None


#: What a yaml says for people alone: its purpose, what tables and figures call it, the arXiv
#: identifier of its paper, and of a suite what it asks and what comes out.
PROSE = ("about", "title", "paper", "question", "outcome")

#: What an override may set too, but hardly ever means.
FIXED = (*PROSE, "name", "_target_", "tasks", "defaults")


@until_files_change
def keys(path: Path) -> tuple[str, ...]:
    """The keys that an option's file gives values to, without the prose."""
    text = path.read_text(encoding="utf-8", errors="replace")
    return tuple(key for key in re.findall(r"^(\w+):", text, re.MULTILINE) if key not in FIXED)


@until_files_change
def all_keys(group: str, searched: tuple[Path, ...]) -> tuple[str, ...]:
    """The keys that any option of a group gives values to, see `keys`; none of what is no group."""
    every = (key for path in options(group, searched).values() for key in keys(path))
    return tuple(dict.fromkeys(every))


def current(group: str, name: str, searched: Iterable[Path], given: str | None = None) -> str:
    """The name of an option, also with other case or hyphens, or as in the release before.

    `given` is the key of it, for a note.
    """
    offered = options(group, tuple(searched))
    if name in offered:
        return name
    now = old_names.current_option(group, name, given)
    return now if now in offered else aliases.same_name(now, offered) or now


@until_files_change
def own_files(chosen: tuple[tuple[str, str], ...], searched: tuple[Path, ...]) -> tuple[Path, ...]:
    """The files outside of the package among those of options, and what these build on.

    Args:
        chosen: groups and options; the defaults of run.yaml are added to them.
        searched: the configuration folders.
    """
    *own, last = searched
    if not own:
        return ()
    found = [path for folder in own if (path := folder / "run.yaml").is_file()]
    named = {group for group, _ in chosen}
    unnamed = (one for one in default_options(searched).items() if one[0] not in named)
    for group, option in [*chosen, *unnamed]:
        file = options(group, searched).get(option)
        if file is None or file.is_relative_to(last):
            continue
        found.append(file)
        if "defaults" in file.read_text(encoding="utf-8", errors="replace"):
            found += sorted(file.parent.glob("_*.yaml"))
    return tuple(dict.fromkeys(found))


def default_options(searched: Iterable[Path]) -> dict[str, str]:
    """The option of each group that run.yaml chooses where no word does."""
    file = next(path for folder in searched if (path := folder / "run.yaml").is_file())
    found = re.findall(
        r"^ +- +(?:override +)?(\w+): *(\w+)", yaml_files.read_utf8(file), re.MULTILINE
    )
    return dict(found)


def find(group: str, name: str, searched: Iterable[Path]) -> Path:
    """The file of one option.

    Raises:
        ConfigError: if the group has no such option, with the near matches.
    """
    offered = options(group, tuple(searched))
    if name not in offered:
        from peftbench.data import own_file  # completion does without what it imports

        file = group == "task" and Path(name).suffix.lower() in own_file.FORMATS
        told = f"write task=file task.path={name}" if file else did_you_mean(name, offered)
        raise ConfigError(f"{group}={name}: unknown {group}; {told}")
    return offered[name]
