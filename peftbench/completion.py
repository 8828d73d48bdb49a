"""Completion of verbs and of group=option words, from file names alone."""

from click import Context, Parameter
from click.shell_completion import CompletionItem

from peftbench import catalog

#: Groups that `peftbench list` shows.
LISTED = ("method", "task", "model", "budget", "select", "sweep")

_KEYS = (*catalog.GROUPS, "sweep", "size", "seed", "data.root", "zip", "when", "exclude")


def words(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """What a word may go on with: `me` -> `method=`, `method=lora,bi` -> `method=lora,bitfit`.

    bash breaks words at `=` and hands over the pieces, zsh and fish hand over whole words.
    """
    before = list(context.params.get("words") or ())
    pieces = _pieces(before, incomplete)
    if pieces is None:
        return [CompletionItem(f"{key}=") for key in _KEYS if key.startswith(incomplete)]
    group, value, typed = pieces
    head, _, last = value.rpartition(",")
    start = f"{typed}{head}," if head else typed
    offered = catalog.options(group, tuple(catalog.folders(context.params.get("configs"))))
    return [
        CompletionItem(start + name, help=catalog.about(path))
        for name, path in offered.items()
        if name.startswith(last)
    ]


def groups(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """What `peftbench list` lists."""
    return [CompletionItem(f"{name}s") for name in LISTED if name.startswith(incomplete)]


def _pieces(before: list[str], incomplete: str) -> tuple[str, str, str] | None:
    """Group, value so far, and what the shell wants repeated in front of a completion."""
    if "=" in incomplete:
        group, _, value = incomplete.partition("=")
        return group, value, f"{group}=" if group else ""
    if before and before[-1].endswith("="):
        return before[-1][:-1] or (before[-2] if len(before) > 1 else ""), incomplete, ""
    return None
