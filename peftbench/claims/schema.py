"""What papers claim, as data: one yaml a paper under configs/paper, read and checked here.

A claim is a sentence in our words and what would have to be so in a user's records: which rows,
which quantity, which comparison. Numbers that a paper gives are kept as it writes them, to be shown
beside ours; nothing is computed from them. A sentence that these records cannot test is kept too,
with the reason.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from peftbench.config import catalog, old_names
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
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

#: Words that pick runs, as settings and their values.
Conditions = dict[str, Any]

_PAPER = ("about", "paper", "identifier", "claims", "figures")
_CLAIM = (
    *("says", "source", "tag", "kind", "reading", "why", "ours", "against", "pairs", "measure"),
    *("metric", "margin", "bound", "tasks", "targets", "fraction", "sizes", "budget", "least"),
    *("needs", "rates", "published", "runs"),
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
        tasks: names; all that there are where empty.
        targets: of what a measure has several values of, such as sets of a shift; all where empty.
        fraction: of the training data, from and to.
        sizes: training examples, from and to.
        budget: epochs, steps or seconds; None is any.
        least: distinct tasks, and of each sizes or budgets, that the claim speaks of at the least.
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
    node = _checked(f"paper={name}", data, _PAPER, ("paper", "identifier", "claims"))
    claims = _checked(f"paper={name}: claims", node["claims"], None, ())
    figures = [
        Figures(**_checked(f"paper={name}: figures", one, _FIGURES, _FIGURES))
        for one in node.get("figures", [])
    ]
    for one in figures:
        _one_of(f"paper={name}: figures: tag", one.tag, TAGS)
    made = [_claim(f"paper={name}: {key}", key, claim) for key, claim in claims.items()]
    return Paper(name, str(node["paper"]), str(node["identifier"]), made, figures)


def _claim(where: str, name: str, given: Any) -> Claim:
    node = _checked(where, given, _CLAIM, ("says", "source", "tag", "kind", "published"))
    for key, allowed in (("kind", KINDS), ("tag", TAGS), ("needs", NEEDS), ("rates", RATES)):
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
    for key in node.get("least", {}):
        _one_of(f"{where}: least", key, ("tasks", "sizes", "budgets"))
    for key in ("fraction", "sizes"):
        if key in node:
            node[key] = tuple(node[key])
    if isinstance(node.get("runs"), str):
        node["runs"] = [node["runs"]]
    return Claim(name=name, pairs=_pairs(where, node["kind"], rows), **node)


def _pairs(where: str, kind: str, rows: Json) -> list[tuple[Conditions, Conditions | None]]:
    if kind == "untestable" and not rows:
        return []
    if set(rows) == {"pairs"}:
        return [
            (parse_conditions(ours), parse_conditions(theirs)) for ours, theirs in rows["pairs"]
        ]
    if "ours" not in rows or set(rows) - {"ours", "against"}:
        raise ConfigError(f"{where}: set ours and against, or pairs; untestable has neither")
    against = rows.get("against")
    many = against if isinstance(against, list) else [against]
    ours = parse_conditions(rows["ours"])
    return [(ours, None if other is None else parse_conditions(other)) for other in many]


def _checked(
    where: str, node: Any, allowed: tuple[str, ...] | None, needed: tuple[str, ...]
) -> Json:
    if not isinstance(node, dict):
        raise ConfigError(f"{where} must be a mapping; see configs/paper")
    for key in node:
        if allowed is not None and key not in allowed:
            raise ConfigError(f"{where}: {key}; {did_you_mean(str(key), allowed)}")
    if lacking := [key for key in needed if key not in node]:
        raise ConfigError(f"{where}: missing {', '.join(lacking)}; see configs/paper")
    return dict(node)


def _one_of(where: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ConfigError(f"{where} {value}; {did_you_mean(str(value), allowed)}")
