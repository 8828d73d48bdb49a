"""Single records as the page carries them: short, without what many of them share."""

from collections import Counter
from typing import Any

from peftbench.analysis import grouping
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record, canonical
from peftbench.metrics import task_metrics
from peftbench.reports.html.cells import ScoreCell

#: Points of a learning curve that are carried; of a longer one every second, third …, and the last.
POINTS = 60

#: Parts of a model's or task's node that say where things are, not what they are.
_ASIDE = ("parts", "package", "wheels", "examples")


def carried(found: list[ScoreCell], most: int) -> set[str]:
    """Keys of the runs whose records the page carries: the first seeds of each cell, in turns."""
    keys: list[str] = []
    turn = 0
    while len(keys) < most and any(len(cell.records) > turn for cell in found):
        keys += [cell.records[turn].run.key for cell in found if len(cell.records) > turn]
        turn += 1
    return set(keys[:most])


def runs(records: list[Record], evaluated: list[Evaluated]) -> Json:
    """Records, the evaluations of each, and the nodes that they point to by number."""
    nodes: dict[str, int] = {}
    asked: dict[str, list[Evaluated]] = {}
    for e in evaluated:
        asked.setdefault(e.evaluation.run.key, []).append(e)

    def number(node: Json | None) -> int | None:
        return None if node is None else nodes.setdefault(canonical(node), len(nodes))

    listed = {}
    for record in records:
        run, made = record.run, record.run.to_json()
        listed[run.key] = {
            "seed": run.seed,
            "asked": run.size,
            "size": record.work["train_size"],
            "protocol": run.protocol,
            "score": record.score,
            "metrics": record.metrics,
            "errors": [n for n in record.metrics if task_metrics.factor(n) == 1],
            "trivial": record.trivial,
            "collapsed": record.collapsed,
            "selection": record.selection,
            "parameters": record.parameters,
            "work": record.work,
            "seconds": record.seconds,
            "speed": record.speed,
            "memory": record.memory,
            "energy": record.energy_joules,
            "flops": record.flops,
            "predictions": record.predictions_sha256,
            "weights": record.trained_sha256,
            "curve": _columns(record.curve),
            "nodes": {
                "model": number(_short(made["model"])),
                "method": number(made["method"]),
                "task": number(_short(made["task"])),
                "budget": number(made["budget"]),
                "train": number(made["train"]),
                "checkpoint_selection": number(made["checkpoint_selection"]),
                "prompt": number(made["prompt"]),
                "augmentation": number(made["augmentation"]),
                "environment": number(record.environment),
            },
            "evaluations": [
                {
                    "key": e.evaluation.key,
                    "suite": e.evaluation.suite["name"],
                    "headline": e.headline,
                    "seconds": sum(e.seconds.values()),
                }
                for e in sorted(asked.get(run.key, []), key=lambda e: e.evaluation.suite["name"])
            ],
        }
    import json

    return {"runs": listed, "nodes": [json.loads(text) for text in nodes]}


def _short(node: Json) -> Json:
    return {name: value for name, value in node.items() if name not in _ASIDE}


def _columns(curve: list[Json]) -> dict[str, list[Any]]:
    """Points of a curve by what they hold; at most `POINTS` of them."""
    step = -(-len(curve) // POINTS) or 1
    kept = curve[::-1][::step][::-1]
    names = dict.fromkeys(name for point in kept for name in point)
    return {name: [point.get(name) for point in kept] for name in names}


def environments(records: list[Record], evaluated: list[Evaluated]) -> list[Json]:
    """Where and with what was run, most runs first; the data's hashes are told with each run."""
    counted: Counter[str] = Counter()
    places: dict[str, Json] = {}
    named = [("runs", r.environment) for r in records]
    named += [("evaluations", e.environment) for e in evaluated]
    told: Counter[tuple[str, str]] = Counter()
    for what, whole in named:
        place = {k: v for k, v in whole.items() if k not in ("data", "weights", "tokenizer")}
        name = canonical(place)
        places[name] = place
        counted[name] += 1
        told[name, what] += 1
    order = sorted(places, key=lambda name: (-counted[name], name))
    return [
        places[name] | {what: told[name, what] for what in ("runs", "evaluations")}
        for name in order
    ]


def settings(by_row: dict[grouping.Row, list[Record]], labels: dict[grouping.Row, str]) -> Json:
    """What all runs share, and for each row what it has of its own.

    Returns:
        `shared`: name to value; `rows`: label, method and a text of settings each.
    """
    flat = {row: [_flat(r) for r in members] for row, members in by_row.items()}
    every = [one for members in flat.values() for one in members]
    names = dict.fromkeys(name for one in every for name in one)
    shared = {
        name: _text(every[0][name])
        for name in names
        if all(name in one for one in every) and len({_text(one[name]) for one in every}) == 1
    }
    told = []
    for row, members in flat.items():
        own = dict.fromkeys(name for one in members for name in one if name not in shared)
        values = {
            name: sorted({_text(one[name]) for one in members if name in one}) for name in own
        }
        text = "; ".join(f"{_brief(name)} {' or '.join(found)}" for name, found in values.items())
        told.append({"label": labels[row], "method": row[0], "text": text})
    return {"shared": shared, "rows": told}


def _brief(name: str) -> str:
    """A setting of the method or of training without saying so."""
    return name.removeprefix("method.").removeprefix("train.")


#: Settings that are no choice of how to train: names of code, hashes.
_UNTOLD = ("method._target_", "task.", "model.sha256")


def _flat(record: Record) -> Json:
    found = grouping.settings(record.run)
    return {
        name: value
        for name, value in found.items()
        if not name.startswith(_UNTOLD) and (value is not None or not name.startswith("seed."))
    }


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_text, value)) + "]"
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def rounded(value: Any) -> Any:
    """Plain data with six digits of every fraction."""
    if isinstance(value, dict):
        return {str(name): rounded(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(inner) for inner in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
