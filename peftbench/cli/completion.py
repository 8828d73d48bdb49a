"""Completion of verbs and of group=option words, from file names alone."""

import re
from pathlib import Path

from click import Context, Parameter
from click.shell_completion import CompletionItem

from peftbench.config import catalog
from peftbench.core.errors import ConfigError
from peftbench.core.run import ROLES

#: What `peftbench list` shows: config groups, then what packages declare.
LISTED = (
    *("method", "task", "model", "prompt", "augmentation", "budget", "checkpoint_selection"),
    *("suite", "shift_dataset", "sweep", "paper", "cluster"),
    *("metric", "report"),
)

#: Keys that are no groups, and values to show what they take.
_EXAMPLES = {
    "size": ("100", "0.3", "full"),
    "seed": ("0", "0-4", "0,1,2"),
    "data.root": (),
    "zip": (),
    "when": (),
    "exclude": (),
}

#: Verbs that take overrides of the cluster too.
_ON_CLUSTERS = ("submit", "doctor")

#: A key in a group's file, and those that no override sets.
_KEY = re.compile(r"^([a-z]\w*):", re.MULTILINE)
_NO_OVERRIDES = {*catalog.PROSE, "defaults", "name", "recipe", "search"}

_KEYS = (*catalog.GROUPS, "suite", "sweep", *_EXAMPLES)


def complete_overrides(
    context: Context, parameter: Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete an override: `me` -> `method=`, `method=lora,bi` -> `method=lora,bitfit`.

    bash breaks words at `=` and hands over the pieces, zsh and fish hand over whole words. Where
    one key is left, its values are offered: a shell that has but `method=` to offer ends the word.
    """
    pieces = _pieces(list(context.params.get(str(parameter.name)) or ()), incomplete)
    if pieces is None:
        known = (*_KEYS, "cluster") if context.info_name in _ON_CLUSTERS else _KEYS
        group, dot, _ = incomplete.partition(".")
        if group == "seed" and dot:
            known = tuple(f"seed.{role}" for role in ROLES)
        elif dot and group in catalog.GROUPS:
            known = _keys(group, context)
        keys = [key for key in known if key.startswith(incomplete)]
        if len(keys) != 1 or "." in keys[0] or _EXAMPLES.get(keys[0]) == ():
            return [CompletionItem(f"{key}=") for key in keys]
        pieces = keys[0], "", f"{keys[0]}="
    key, value, typed = pieces
    head, _, last = value.rpartition(",")
    start = f"{typed}{head}," if head else typed
    offered = dict.fromkeys(_EXAMPLES.get(key, ()), "")
    offered |= {name: catalog.about(path) for name, path in _options(key, context).items()}
    return [
        CompletionItem(start + name, help=about)
        for name, about in offered.items()
        if name.startswith(last)
    ]


def groups(context: Context, parameter: Parameter, incomplete: str) -> list[CompletionItem]:
    """What `peftbench list` lists."""
    offered = [*(f"{name}s" for name in LISTED), "peft"]
    return [CompletionItem(name) for name in offered if name.startswith(incomplete)]


def _keys(group: str, context: Context) -> tuple[str, ...]:
    """Keys of a group's files, such as `train.batch_size`; those of methods are of any method."""
    texts = [path.read_text(encoding="utf-8") for path in _options(group, context).values()]
    found = dict.fromkeys(key for text in texts for key in _KEY.findall(text))
    return tuple(f"{group}.{key}" for key in sorted(found.keys() - _NO_OVERRIDES))


def _options(group: str, context: Context) -> dict[str, Path]:
    try:
        group = "method" if group.endswith(".base_method") else group
        return catalog.options(group, tuple(catalog.folders(context.params.get("configs"))))
    except ConfigError:  # a folder that is still being typed
        return {}


def _pieces(before: list[str], incomplete: str) -> tuple[str, str, str] | None:
    """Key, value so far, and what the shell wants repeated in front of a completion."""
    if not incomplete and before and before[-1] in _KEYS:
        return before[-1], "", ""  # bash hands over `method`, `=`, and click drops a lone `=`
    if "=" in incomplete:
        key, _, value = incomplete.partition("=")
        return key, value, f"{key}="
    if before and before[-1].endswith("="):
        return before[-1][:-1] or (before[-2] if len(before) > 1 else ""), incomplete, ""
    return None
