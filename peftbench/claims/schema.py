"""What papers claim, as data: one yaml a paper under configs/paper, read and checked here.

A claim is a sentence in our words and what would have to be so in a user's records: which rows,
which quantity, which comparison. Numbers that a paper gives are kept as it writes them, to be shown
beside ours; nothing is computed from them. A sentence that these records cannot test is kept too,
with the reason.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from peftbench.claims.quantities import QUANTITIES
from peftbench.config import catalog, old_names
from peftbench.core.errors import ConfigError, at_least, is_number, listed, mapped
from peftbench.core.run import UNTRAINED, Json
from peftbench.core.text import did_you_mean
from peftbench.metrics.task_metrics import METRICS
from peftbench.system import yaml_files

#: What a claim may say of two rows, or of one.
KINDS = ("not_worse", "better", "steadier", "stable_from", "untestable")

#: A claim that no paper makes.
CONJECTURE = "conjecture"

#: Where what a yaml says was found; "inferred" if the test reads more into it than it says.
TAGS = ("found", "second hand", "inferred", "from memory", CONJECTURE)

#: Which cells must support a claim.
NEEDS = ("all", "some", "most")

#: Which learning rates a claim may be tested at: chosen here, the same on both sides, or whatever
#: the runs have, such as the paper's own; its reading says so.
RATES = ("chosen", "alike", "given")

#: Of which side it is asked that it has learned its task.
LEARNED_BY = ("both", "ours")

#: The size of figures on all training examples.
ALL = "full"

#: Words that pick runs, as settings and their values.
Conditions = dict[str, Any]

_PAPER = ("about", "paper", "identifier", "claims", "figures")
_CLAIM = (
    *("says", "source", "tag", "kind", "reading", "why", "ours", "against", "pairs", "measure"),
    *("metric", "margin", "bound", "learned", "learned_by", "room", "tasks", "targets"),
    *("fraction", "sizes", "budget", "least", "needs", "rates", "published", "runs"),
)
_FIGURES = ("source", "tag", "model", "caveat", "scores")


@dataclass(frozen=True)
class Claim:
    """One sentence, and how it is tested.

    Attributes:
        name: in its paper.
        says: the sentence, in our words.
        source: where the paper says so.
        tag: one of `TAGS`.
        published: its numbers and their caveats in words, or that none were found.
        kind: one of `KINDS`.
        reading: what the test takes the sentence to mean, where the paper does not say so.
        why: of untestable: what the records would need.
        pairs: ours and what it is compared with, None where the measure needs nothing else. The
            condition `fraction=0.3` picks runs on that part of the training data, and compares
            over sizes; a size has a budget of its own then.
        measure: what is compared; `score`, or one of `peftbench.claims.quantities.QUANTITIES`.
        metric: of scores, by task, the task's first where it is not named; of other sets by set.
        margin: of not_worse and better: how much less, or more, is meant.
        bound: of stable_from: the standard deviation that is not reached.
        learned: how far the runs of each side must score above the constant prediction of their own
            task, on average, where the claim is about models that have learned it; None asks
            nothing.
        learned_by: one of `LEARNED_BY`; "ours" where failing to learn is what is claimed of the
            other side.
        room: of a measure against the model before training: how far that must score above a
            constant prediction on the set, where the claim is that nothing is lost; None asks
            nothing.
        tasks: names; all that there are where empty.
        targets: of what a measure has several values of, such as sets of a shift; all where empty.
        fraction: of the training data, from and to.
        sizes: training examples, from and to.
        budget: epochs, steps or seconds; None is any.
        least: distinct tasks, and of each sizes or budgets, that the claim speaks of at the least;
            without them a verdict that takes more than one cell is not said.
        needs: all, some or most of the cells must support it.
        rates: one of `RATES`; "alike" where the claim is about a change of one method, "given"
            where it is about what training at a published rate does.
        runs: words of the runs that would test it.
    """

    name: str
    says: str
    source: str
    tag: str
    published: str
    kind: str
    pairs: list[tuple[Conditions, Conditions | None]]
    reading: str = ""
    why: str = ""
    measure: str = "score"
    metric: dict[str, str] = field(default_factory=dict)
    margin: float = 0.0
    bound: float = math.inf
    learned: float | None = None
    learned_by: str = "both"
    room: float | None = None
    tasks: list[str] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    fraction: tuple[float, float] = (0.0, 1.0)
    sizes: tuple[float, float] = (0, math.inf)
    budget: str | None = None
    least: dict[str, int] = field(default_factory=dict)
    needs: str = "all"
    rates: str = "chosen"
    runs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Figures:
    """Scores that a paper gives.

    Attributes:
        source, tag, model: where they stand, and of what.
        caveat: why they are not ours: metric, split, start.
        scores: by row, then by task and metric, then by training examples, as they are written.
    """

    source: str
    tag: str
    model: str
    caveat: str
    scores: dict[str, dict[str, dict[int | str, str]]]


@dataclass(frozen=True)
class Paper:
    """One yaml.

    Attributes:
        name: its stem.
        title: authors and title.
        identifier: such as arXiv 2401.04051.
    """

    name: str
    title: str
    identifier: str
    claims: list[Claim]
    figures: list[Figures]


def read(names: Iterable[str] | None, searched: list[Path]) -> list[Paper]:
    """Papers by name, all that are offered by default.

    Raises:
        ConfigError: for a name that is not there, or a yaml that says what no claim can.
    """
    offered = catalog.options("paper", tuple(searched))
    chosen = sorted(offered) if names is None else list(dict.fromkeys(names))
    return [_paper(name, catalog.find("paper", name, searched)) for name in chosen]


def parse_conditions(text: str) -> Conditions:
    """`method=lora method.rank=4` as settings and their values.

    Raises:
        ConfigError: if one is no key=value.
    """
    found: Conditions = {}
    for word in text.split():
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise ConfigError(f"{text!r}: write key=value words, got {word!r}")
        now = old_names.current_field(key)
        if now != key and key != "method.at":
            old_names.note(key, now)
            key = now
        found[key] = yaml_files.parse_value(value)
        if key in ("method", "task", "suite"):
            found[key] = old_names.current_option(key, str(found[key]))
    return found


def _paper(name: str, path: Path) -> Paper:
    data = yaml_files.read_mapping(path, resolve=False)
    node = _checked(str(path), data, _PAPER, ("paper", "identifier", "claims"))
    title, identifier = (_text(f"{path}: {key}", node[key]) for key in ("paper", "identifier"))
    claims = _checked(f"{path}: claims", node["claims"], None, ())
    figures = node.get("figures", [])
    listed(f"{path}: figures", figures)
    made = [_claim(f"{path}: {key}", str(key), claim) for key, claim in claims.items()]
    told = [_figures(f"{path}: figures", one) for one in figures]
    return Paper(name, title, identifier, made, told)


def _claim(where: str, name: str, given: Any) -> Claim:
    node = _checked(where, given, _CLAIM, ("says", "source", "tag", "kind", "published"))
    for key, allowed in _ALLOWED.items():
        if key in node:
            _one_of(f"{where}: {key}", node[key], allowed)
    for kind, key in (("stable_from", "bound"), ("untestable", "why")):
        if (node["kind"] == kind) != (key in node):
            raise ConfigError(f"{where}: {kind}, and nothing else, has a {key}")
    for task, metric in _checked(f"{where}: metric", node.get("metric", {}), None, ()).items():
        if metric not in (*METRICS, "auc"):
            known = (*METRICS, "auc")
            raise ConfigError(f"{where}: metric of {task}: {did_you_mean(str(metric), known)}")
    rows: Json = {key: node.pop(key) for key in ("ours", "against", "pairs") if key in node}
    for key, check in _VALUES.items():
        if key in node:
            node[key] = check(f"{where}: {key}", node[key])
    measured = QUANTITIES.get(node.get("measure", ""))
    if "room" in node and (measured is None or measured.reference != UNTRAINED):
        raise ConfigError(f"{where}: room is of a measure against the model before training")
    return Claim(name=name, pairs=_pairs(where, node["kind"], rows), **node)


def _pairs(where: str, kind: str, rows: Json) -> list[tuple[Conditions, Conditions | None]]:
    if kind == "untestable" and not rows:
        return []
    if set(rows) == {"pairs"}:
        listed(f"{where}: pairs", rows["pairs"])
        for pair in rows["pairs"]:
            if not isinstance(pair, list) or len(pair) != 2:
                raise ConfigError(f"{where}: pairs: each is [OURS, AGAINST], got {pair!r}")
        pairs = rows["pairs"]
    elif "ours" not in rows or set(rows) - {"ours", "against"}:
        raise ConfigError(f"{where}: set ours and against, or pairs; untestable has neither")
    else:
        against = rows.get("against")
        many = against if isinstance(against, list) else [against]
        pairs = [(rows["ours"], other) for other in many]
    if not pairs:
        raise ConfigError(f"{where}: there is nothing to compare; name a row")
    return [
        (_row(where, ours), None if theirs is None else _row(where, theirs))
        for ours, theirs in pairs
    ]


def _row(where: str, words: Any) -> Conditions:
    """What picks a row."""
    if not isinstance(words, str):
        raise ConfigError(f"{where}: a row is a text such as method=lora, got {words!r}")
    try:
        found = parse_conditions(words)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error
    if "method" not in found:
        raise ConfigError(f"{where}: {words!r} names no method; begin with method=NAME")
    return found


def _figures(where: str, given: Any) -> Figures:
    node = _checked(where, given, _FIGURES, _FIGURES)
    _one_of(f"{where}: tag", node["tag"], TAGS)
    for key in ("source", "model", "caveat"):
        _text(f"{where}: {key}", node[key])
    for row, by_task in _checked(f"{where}: scores", node["scores"], None, ()).items():
        of = f"{where}: scores: {row}"
        _row(where, row)
        for column, by_size in _checked(of, by_task, None, ()).items():
            if len(words := str(column).split()) != 2 or words[1] not in METRICS:
                raise ConfigError(f"{of}: {column!r} is no TASK METRIC, such as mrpc f1")
            for size, text in _checked(f"{of}: {column}", by_size, None, ()).items():
                if size != ALL:
                    at_least(f"{of}: {column}: examples (full is all)", size, 1, whole=True)
                _text(f"{of}: {column}: {size}", text)
    return Figures(**node)


def _checked(
    where: str, node: Any, allowed: tuple[str, ...] | None, needed: tuple[str, ...]
) -> Json:
    if not isinstance(node, dict):
        raise ConfigError(f"{where} must be a mapping, got {node!r}; see configs/paper")
    for key in node:
        if allowed is not None and key not in allowed:
            raise ConfigError(f"{where}: {key}; {did_you_mean(str(key), allowed)}")
    if lacking := [key for key in needed if key not in node]:
        raise ConfigError(f"{where}: missing {', '.join(lacking)}; see configs/paper")
    return dict(node)


def _one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{where} {value}; {did_you_mean(str(value), allowed)}")


def _text(where: str, value: Any) -> str:
    """A text; a number is refused, of which yaml drops zeros at the end."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if is_number(value) else ""
        raise ConfigError(f"{where} must be a text, got {value!r}{hint}")
    return value


def _texts(where: str, value: Any) -> list[str]:
    """A list of texts, of one where it is a text."""
    if isinstance(value, str):
        return [value]
    listed(where, value)
    return [_text(f"{where}: each", one) for one in value]


def _overrides(where: str, value: Any) -> list[str]:
    """Overrides of runs, those of one command in each text."""
    found = _texts(where, value)
    for word in " ".join(found).split():
        if "=" not in word:
            raise ConfigError(f"{where}: write key=value words, got {word!r}")
    return found


def _amount(where: str, value: Any) -> Any:
    """A margin, a bound, or what counts as learned or known."""
    at_least(where, value, 0)
    return value


def _budget(where: str, value: Any) -> Any:
    """What a budget counts; null is any."""
    if value is not None:
        _one_of(where, value, ("epochs", "steps", "seconds"))
    return value


def _span(where: str, value: Any, most: float = math.inf) -> tuple[float, float]:
    """Two numbers from 0 to `most`, from and to."""
    given = value if isinstance(value, list) else []
    numbers = [one for one in given if is_number(one) or one == math.inf]
    if len(given) != 2 or numbers != given or not 0 <= given[0] <= given[1] <= most:
        told = "0 on" if most == math.inf else f"0 to {most:g}"
        raise ConfigError(
            f"{where} must be [FROM, TO], two rising numbers from {told}, got {value!r}"
        )
    return given[0], given[1]


def _least(where: str, value: Any) -> dict[str, int]:
    mapped(where, value)
    for key, count in value.items():
        _one_of(where, key, ("tasks", "sizes", "budgets"))
        at_least(f"{where}: {key}", count, 1, whole=True)
    return dict(value)


#: Values that are one of a few, by key.
_ALLOWED: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "tag": TAGS,
    "needs": NEEDS,
    "rates": RATES,
    "learned_by": LEARNED_BY,
    "measure": ("score", *QUANTITIES),
}

#: How all others are checked and read, by key.
_VALUES: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("says", "source", "published", "reading", "why"), _text),
    **dict.fromkeys(("tasks", "targets"), _texts),
    **dict.fromkeys(("margin", "bound", "learned", "room"), _amount),
    "runs": _overrides,
    "budget": _budget,
    "fraction": partial(_span, most=1),
    "sizes": _span,
    "least": _least,
}
