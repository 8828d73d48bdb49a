"""Content of the command `list`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.cli import completion
from peftbench.config import aliases, catalog, old_names
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.core.text import MOST_NAMES, close_names
from peftbench.methods.peft_support import peft_support
from peftbench.system import yaml_files

if TYPE_CHECKING:
    from peftbench.reports.tables.markdown import Table


def purposes(group: str | None, configs: Path | None) -> dict[str, dict[str, str]]:
    """Return the purpose of each option, by the plural of its group.

    Raises:
        ConfigError: for a group that is not listed.
    """
    searched = tuple(catalog.folders(configs))
    given, group = group, group and group.rpartition("=")[2]
    named = {f"{name}s": name for name in completion.LISTED}
    if group is not None:
        old = old_names.GROUPS.get(group.removesuffix("s"), "")
        if old in completion.LISTED:
            old_names.note(f"list {group}", f"list {old}s")
            group = old
    if group is not None and group not in {**named, **dict.fromkeys(named.values())}:
        for one in ("metric", "report"):  # which have no files, see `_options`
            if group in (about := _purposes(one, searched)) and given == group:
                return {f"{one}s": {group: about[group]}}
        every = {name for one in completion.LISTED for name in _purposes(one, searched)}
        offered = {*named, *(name.rpartition("=")[2] for name in every)}
        if given != group:
            group, offered = str(given), every
        near = close_names(group, offered) or sorted(n for n in offered if n.startswith(group))
        meant = f"did you mean {' or '.join(near[:MOST_NAMES])}?"
        groups = f"groups: {', '.join(named)}, peft"
        raise ConfigError(f"list {given}: no such group or option; {meant if near else groups}")
    return {
        plural: _purposes(name, searched)
        for plural, name in named.items()
        if group in (None, plural, name)
    }


def option(name: str, configs: Path | None) -> list[str]:
    """Return the file of each option of this name: keys, defaults, and sources in its comments.

    Nothing for a name that is a group.
    """
    lines = []
    for group, found, path in _options(name, configs):
        text = path.read_text(encoding="utf-8", errors="replace").strip()
        lines += [f"{group}={found}  ({path})", *(f"  {line}" for line in text.splitlines())]
        lines.append(f"  change a key with {group}.KEY=VALUE" if group != "sweep" else "")
    return lines


def option_json(name: str, configs: Path | None) -> dict[str, Json]:
    """Return the path and the keys with defaults of each option of this name.

    Nothing for a name that is a group.
    """
    return {
        f"{group}={found}": {
            "path": str(path),
            "keys": yaml_files.read_mapping(path, resolve=False),
        }
        for group, found, path in _options(name, configs)
    }


def _options(name: str, configs: Path | None) -> Iterator[tuple[str, str, Path]]:
    """Group, name and file of each option of this name; none for a name that is a group.

    Args:
        name: also as GROUP=NAME.
    """
    asked, _, name = name.rpartition("=")
    if not asked and (name in completion.LISTED or name.removesuffix("s") in completion.LISTED):
        return
    for group in [asked] if asked in completion.LISTED else completion.LISTED:
        offered = catalog.options(group, tuple(catalog.folders(configs)))
        found = name if name in offered else aliases.same_name(name, offered)
        if found is not None:
            yield group, found, offered[found]


def _purposes(group: str, searched: tuple[Path, ...]) -> dict[str, str]:
    """The purpose of each option, metric or report."""
    if group == "metric":
        from peftbench.metrics.task_metrics import METRICS

        return {name: metric.about for name, metric in METRICS.items()}
    if group == "report":
        from peftbench.reports import registry

        return {one.name: one.question for one in registry.reports()}
    options = catalog.options(group, searched)
    return {f"{group}={option}": catalog.about(path) for option, path in options.items()}


def peft_json() -> dict[str, Json]:
    """The versions of `peft`, and for each tuner and family why it does not run, or nothing."""
    versions, reasons = peft_support()
    return {"versions": versions, "tuners": reasons}


def peft() -> tuple["Table", list[str]]:
    """Which tuners of the peft library run where, and why the others do not."""
    from peftbench.reports.tables.markdown import Table

    versions, reasons = peft_support()
    with_peft = ", ".join(f"{name} {version}" for name, version in versions.items())
    families = list(next(iter(reasons.values())))
    rows = [[kind, *("-" if row[f] else "yes" for f in families)] for kind, row in reasons.items()]
    told = []
    for kind, row in reasons.items():
        for reason in dict.fromkeys(filter(None, row.values())):
            where = [family for family in families if row[family] == reason]
            told.append(f"{kind} on {', '.join(where)}: {reason[:160]}")
    return Table(f"method=peft method.type=TYPE ({with_peft})", ["type", *families], rows), told
