"""Words of a command line or a sweep's file, parsed to a key and its values.

Hydra's grammar (commas, `range`, `choice`, `glob`) with the common names of `aliases` and those of
the release before; what no run can have by its key alone is refused, with what was probably meant.
"""

import math
import random
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from hydra.core.override_parser import types
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from peftbench.config import aliases, catalog, old_names
from peftbench.core.errors import ConfigError
from peftbench.core.run import ROLES
from peftbench.core.text import close_names, did_you_mean

#: Words that say how cells come from axes.
ALGEBRA = ("zip", "when", "exclude")

#: How the keys of the seeds of single roles start.
ROLE_SEED = "seed."

#: A key whose value is a method inside another one.
BASE_METHOD = re.compile(r"method(\.\w+)*\.base_method")

#: Texts that the grammar reads as they are, and as texts.
_BARE = re.compile(r"(?!(null|true|false|nan|inf)$)[a-z_][\w./-]*", re.IGNORECASE)

#: Groups whose options are chosen by a word.
_CHOSEN = (*catalog.GROUPS, "suite")


def is_key(key: str) -> bool:
    """Whether a word is, or may be, the key of an override."""
    groups = (*_CHOSEN, "size", "seed", "data", "tuned", "sweep", "cluster")
    return key.partition(".")[0] in groups or key in aliases.KEYS


def of_suite(key: str) -> bool:
    """Whether a key says something of a suite, not of a run."""
    return key.partition(".")[0] == "suite"


class OverrideParser:
    """Parses words, with the options of a list of configuration folders."""

    def __init__(self, searched: list[Path]):
        self.searched = searched
        self._grammar = OverridesParser.create()

    def parse(self, word: str) -> tuple[str, list[Any]]:
        """Split a word into its key and its one or more values.

        Raises:
            ConfigError: if it is no Hydra override, or names no known key or option.
        """
        override = self._read(word)
        given = override.key_or_group
        key = aliases.current_key(given, word.partition("=")[2])
        added = override.is_add() or override.is_force_add()
        if added or override.is_delete() or override.package is not None:
            raise ConfigError(f"{word}: write plain key=value words, without +, ~ or @")
        group = "method" if BASE_METHOD.fullmatch(key) else key
        values = aliases.current_values(given, key, self._values(word, group, override))
        if not values:
            raise ConfigError(f"{word}: no value is left of this")
        for value in values:
            old_names.check_value(given, value)
        if group in _CHOSEN:
            return key, self._options(given, key, group, values)
        if old_names.renamed_key(given) != given:
            old_names.note(given, key)
        self._check(word, key, values)
        return key, values

    def _read(self, word: str) -> types.Override:
        try:
            override: types.Override = self._grammar.parse_overrides([word])[0]
        except HydraException as error:
            raise ConfigError(self._unread(word, str(error).splitlines()[0])) from None
        return override

    def _unread(self, word: str, reason: str) -> str:
        """Why a word is no override, and what to write."""
        start = f"cannot read the override {word!r}"
        if word.endswith((",", "=")):
            return f"{start}: a value is missing after the last {word[-1]!r}"
        for group in (*_CHOSEN, "sweep"):
            for name in word.split(","):
                options = catalog.options(group, tuple(self.searched))
                if name in options or aliases.same_name(name, options):
                    return f"{start}: write {group}={word}"
        if word in (*_CHOSEN, "sweep"):
            return f"{start}: write {word}=NAME, see `peftbench list {word}s`"
        if re.fullmatch(r"[\w.]+", word):
            return f"{start}: write key=value"
        reason = reason.partition(" expecting ")[0]  # dozens of tokens follow
        return (
            f"{start}: {reason}; write key=value, and quotes around a value with commas, brackets "
            "or quotes of its own"
        )

    def _values(self, word: str, group: str, override: types.Override) -> list[Any]:
        given = override.value()
        if isinstance(given, types.Glob):
            return self._globbed(group, given)
        if not override.is_sweep_override():
            values = [_plain(given)]
        elif isinstance(given, types.RangeSweep):
            values = _range(word, given)
        else:
            try:
                found = list(override.sweep_iterator(types.Transformer.identity))
            except HydraException as error:
                raise ConfigError(f"{word}: {error}") from None
            values = []
            for value in found:  # Hydra leaves the range of `range(0,3),7` as it is
                if isinstance(value, types.RangeSweep):
                    values += _range(word, value)
                else:
                    values.append(_plain(value))
        for value in values:
            if isinstance(value, types.Sweep):
                raise ConfigError(f"{word}: write this choice by itself")
            if not _finite(value):
                raise ConfigError(f"{word}: {value} is not a finite number")
        return values

    def _globbed(self, group: str, given: types.Glob) -> list[Any]:
        """The options that a pattern matches, by their names of now or of the release before."""
        names = list(given.filter(list(catalog.options(group, tuple(self.searched)))))
        old = old_names.OPTIONS.get(group, {})
        return names + [name for name in given.filter(list(old)) if old[name] not in names]

    def _options(self, given: str, key: str, group: str, values: list[Any]) -> list[Any]:
        """The options of a group that values mean.

        Raises:
            ConfigError: if the group has no such option.
        """
        if group == "method" and values == ["all"]:
            values = list(catalog.options(group, tuple(self.searched)))
        now = [
            None
            if value is None and group == "suite"  # no evaluation, of some cells of a sweep
            else catalog.current(group, str(value), self.searched, given)
            for value in values
        ]
        for value in now:
            if value is not None:
                catalog.find(group, value, self.searched)
        olds = old_names.OPTIONS.get(group, {})
        if old_names.renamed_key(given) != given and not any(str(v) in olds for v in values):
            old_names.note(given, key)
        return now

    def _check(self, word: str, key: str, values: list[Any]) -> None:
        """Refuse a key that no group has."""
        if key.startswith(ROLE_SEED):
            role = key.removeprefix(ROLE_SEED)
            if role not in ROLES:
                near = did_you_mean(key, [ROLE_SEED + one for one in ROLES])
                raise ConfigError(f"{word}: unknown role of seeds {role}; {near}")
        elif key == "tuned":
            if not all(isinstance(value, bool) for value in values):
                raise ConfigError(f"tuned must be true or false, got {word.partition('=')[2]}")
        elif key.partition(".")[0] == "cluster":
            raise ConfigError(
                f"{word}: cluster= is for `peftbench submit`, `prefetch` and `doctor`; leave it "
                "out here, or look at the jobs with `peftbench submit … --dry-run`"
            )
        elif key.partition(".")[0] not in (*_CHOSEN, "size", "seed", "data"):
            raise ConfigError(f"{word}: unknown key {key}; {self._nearest(key)}")

    def _nearest(self, key: str) -> str:
        """What an unknown key probably means; it may be one of a group, without the group."""
        first = (*_CHOSEN, "size", "seed", "tuned", "sweep", *ALGEBRA, "data.root")
        inner = [
            f"{group}.{name}"
            for group in _CHOSEN
            for name in catalog.all_keys(group, tuple(self.searched))
        ]
        if "." in key:
            return did_you_mean(key, first if not close_names(key, inner) else inner)
        same = [name for name in dict.fromkeys(inner) if name.partition(".")[2] == key]
        near = same or close_names(key, first)
        if not near:
            tails = {name.partition(".")[2]: name for name in reversed(inner)}
            near = [tails[tail] for tail in close_names(key, tails)]
        return f"did you mean {' or '.join(near)}?" if near else did_you_mean(key, first)


def override_value(value: Any) -> str:
    """Write a value so that `OverrideParser` reads it again; a shell may need quotes around it."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(override_value, value))}]"
    if isinstance(value, dict):
        inner = [f"{override_value(name)}:{override_value(of)}" for name, of in value.items()]
        return "{" + ",".join(inner) + "}"
    if isinstance(value, str) and not _BARE.fullmatch(value):
        return types.QuotedString(value, types.Quote.single).with_quotes()
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, types.QuotedString):
        return value.text
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, dict):
        return {_plain(name): _plain(inner) for name, inner in value.items()}
    return value


def _finite(value: Any) -> bool:
    if isinstance(value, list | dict):
        return all(map(_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _range(word: str, given: types.RangeSweep) -> list[Any]:
    """The numbers of `range(start,stop,step)` without the end, counted as decimals.

    Hydra adds the binary fractions behind them, by which 0.1 to 0.4 would reach 0.4, and 0.3 would
    be 0.30000000000000004, which is another run.
    """
    ends = (given.start, given.stop, given.step)
    if given.step == 0 or not all(math.isfinite(end or 0) for end in ends):
        raise ConfigError(f"{word}: a range has finite ends and a step that is not 0")
    if all(isinstance(end, int) for end in ends):
        made: list[Any] = list(given.range())
    else:
        start, stop, step = (Decimal(str(end)) for end in ends)
        count = max(0, math.ceil((stop - start) / step))
        made = [float(start + number * step) for number in range(count)]
    if given.shuffle:
        random.shuffle(made)
    return made
