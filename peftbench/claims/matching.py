"""Where a claim can be tested: runs that agree in everything but what the claim compares.

A place is one task, size and budget, one model and recipe. Methods bring rates and schedules of
their own, which may differ (see `tuning` for when that decides nothing); nothing is pooled but
seeds. Where a claim compares parts of the training data, a place is of all sizes and budgets.
"""

from dataclasses import dataclass, replace
from typing import Any

from peftbench.analysis import costs, grouping
from peftbench.claims.schema import Claim, Conditions
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.run import Json, Record, Run, canonical, counted_size, identity
from peftbench.core.text import did_you_mean

#: What a method brings along and may differ within a cell, and what changes no comparison.
_OWN = (
    *("train.lr", "train.lr_scheduler_type", "train.warmup_steps", "train.weight_decay"),
    *("train.num_evals", "train.micro_batch_size", "method._target_"),
)

#: The condition that compares over sizes: a part of the training data.
FRACTION = "fraction"

#: Task, training examples (0 is all sizes), data, settings that are shared.
Place = tuple[str, int, str, str]


@dataclass(frozen=True)
class Item:
    """One run as a claim sees it, or one evaluation of it.

    Attributes:
        size: training examples.
        told: what conditions may pick it by.
        shared: what must agree within a cell.
        place: the cell, but for keys that a claim's own conditions tell apart.
    """

    run: Run
    size: int
    told: Conditions
    shared: Conditions
    place: Place
    record: Record
    evaluated: Evaluated | None = None

    @property
    def findings(self) -> Json:
        """Of its suite; empty of a run."""
        return {} if self.evaluated is None else self.evaluated.findings

    @property
    def evaluation(self) -> Evaluation | None:
        """None of a run."""
        return None if self.evaluated is None else self.evaluated.evaluation


def items(
    records: list[Record], evaluated: list[Evaluated]
) -> tuple[dict[str, list[Item]], dict[str, dict[str, list[Item]]]]:
    """Runs by method, and evaluations of them by what their suite is, by method."""
    runs: dict[str, list[Item]] = {}
    asked: dict[str, dict[str, list[Item]]] = {}
    by_key = {}
    for record in records:
        item = by_key[record.run.key] = _item(record)
        runs.setdefault(record.run.row, []).append(item)
    for e in evaluated:
        of = by_key.get(e.evaluation.run.key)
        if of is not None:
            suite = {f"suite.{k}": v for k, v in e.evaluation.suite.items() if k != "name"}
            both = of.shared | suite
            item = replace(of, told=of.told | suite, shared=both, evaluated=e)
            item = replace(item, place=_place(item, ()))
            by_method = asked.setdefault(e.evaluation.kind, {})
            by_method.setdefault(of.run.row, []).append(item)
    return runs, asked


def _item(record: Record) -> Item:
    run, size = record.run, record.work["train_size"]
    told = grouping.settings(run) | {"method": run.row, "task": run.task.name}
    told["model"] = run.model.name
    told["precision"] = record.environment.get("precision")
    shared = {
        key: value
        for key, value in told.items()
        if key not in _OWN and key != "method" and not key.startswith("method.")
    }
    if run.budget.seconds is not None:  # so many seconds are another budget elsewhere
        shared |= costs.machine(record)._asdict()
    item = Item(run, size, told, shared, ("", 0, "", ""), record)
    return replace(item, place=_place(item, ()))


def _place(item: Item, without: tuple[str, ...], sized: bool = True) -> Place:
    shared = {key: value for key, value in item.shared.items() if key not in without}
    asked = grouping.asked(item.run)
    return item.run.task.name, item.size if sized else 0, asked, canonical(identity(shared))


@dataclass(frozen=True)
class Side:
    """Runs of one row, seed by seed.

    Attributes:
        conditions: that pick them.
        items: by seed.
        rivals: rows that the conditions pick as well, and whether one of them has as many seeds.
    """

    conditions: Conditions
    items: dict[int, Item]
    rivals: int
    tied: bool


@dataclass(frozen=True)
class Found:
    """Rows to be held against each other.

    Attributes:
        place: where.
        title: task and size, and settings in which the claim's places of these differ.
        ours, against: the sides; against is None where the claim needs none.
    """

    place: Place
    title: str
    ours: Side
    against: Side | None

    @property
    def sides(self) -> list[Side]:
        """Both, or the one."""
        return [side for side in (self.ours, self.against) if side is not None]


def places(claim: Claim, by_method: dict[str, list[Item]]) -> list[Found]:
    """Where a claim can be tested, pair by pair; of a side's rows the one with most seeds counts.

    Args:
        claim: what is compared.
        by_method: runs or evaluations.
    """
    mentioned = {key for pair in claim.pairs for side in pair if side for key in side}
    found: list[Found] = []
    for ours, against in claim.pairs:
        sides = [_rows(claim, side, by_method, mentioned) for side in (ours, against) if side]
        for place in sorted(set.intersection(*map(set, sides))):
            both = [
                _most(conditions, by_row[place])
                for conditions, by_row in zip(
                    [side for side in (ours, against) if side], sides, strict=True
                )
            ]
            found.append(Found(place, "", both[0], both[1] if len(both) > 1 else None))
    titles = _titles({one.place: next(iter(one.ours.items.values())) for one in found}, mentioned)
    return [replace(one, title=titles[one.place]) for one in found]


Rows = dict[str, dict[int, Item]]  # by their settings, by seed


def _rows(
    claim: Claim, conditions: Conditions, by_method: dict[str, list[Item]], mentioned: set[str]
) -> dict[Place, Rows]:
    found: dict[Place, Rows] = {}
    for item in by_method.get(str(conditions.get("method")), []):
        if _meant(claim, item) and _matches(item, conditions):
            sized = FRACTION not in mentioned
            apart = tuple(
                key
                for key in item.shared
                if key in mentioned or (not sized and key.startswith("budget."))
            )
            place = item.place if sized and not apart else _place(item, apart, sized)
            own = {k: v for k, v in item.told.items() if k not in item.shared or k in apart}
            row = canonical(identity(own))
            found.setdefault(place, {}).setdefault(row, {})[item.run.seed] = item
    return found


def _most(conditions: Conditions, by_row: Rows) -> Side:
    """The row with most seeds, which says nothing of its scores."""
    counts = sorted((len(seeds) for seeds in by_row.values()), reverse=True)
    most = max((by_row[row] for row in sorted(by_row)), key=len)
    return Side(conditions, most, len(by_row) - 1, counts[:2] == [len(most)] * 2)


def _meant(claim: Claim, item: Item) -> bool:
    low, high = (_examples(item, part) for part in claim.fraction)
    return (
        (claim.fraction == (0.0, 1.0) if low is None or high is None else low <= item.size <= high)
        and (not claim.tasks or item.run.task.name in claim.tasks)
        and claim.sizes[0] <= item.size <= claim.sizes[1]
        and (claim.budget is None or claim.budget in item.run.budget.to_json())
    )


def _matches(item: Item, conditions: Conditions) -> bool:
    return all(
        item.size == _examples(item, value)
        if key == FRACTION
        else key in item.told and item.told[key] == value
        for key, value in conditions.items()
    )


def _examples(item: Item, part: float) -> int | None:
    """What `size=PART` trains on, in whole examples; None where the task does not say of how many.

    Sizes are compared with it, not their shares: 30 % of MRPC is 1,100 of 3,668, a little less.
    """
    size = counted_size(float(part), item.run.task)
    return size if isinstance(size, int) else None


def picked(records: list[Record], conditions: Conditions) -> list[Record]:
    """The records that conditions pick."""
    return [record for record in records if _matches(_item(record), conditions)]


def narrowed(records: list[Record], asked: dict[str, list[str]]) -> list[Record]:
    """The records that have one of the values of every key: task, size or any setting of a run.

    Raises:
        ConfigError: if no record has such a key, or such a value.
    """
    for key, values in asked.items():
        there = {record.run.key: _setting(record, key) for record in records}
        if not any(found is not None for found in there.values()):
            known = {name for record in records for name in (*_item(record).told, "size")}
            raise ConfigError(f"{key}={','.join(values)}: {did_you_mean(key, known)}")
        offered = {found for found in there.values() if found is not None}
        for value in values:
            if value not in offered:
                raise ConfigError(
                    f"{key}={value}: no record has it; {did_you_mean(value, offered)}"
                )
        records = [record for record in records if there[record.run.key] in values]
    return records


def _setting(record: Record, key: str) -> str | None:
    if key == "size":
        return str(record.work["train_size"])
    told = _item(record).told
    return str(told[key]) if key in told else None


def _titles(places: dict[Place, Item], mentioned: set[str]) -> dict[Place, str]:
    """The task and size, and settings in which cells of one task and size differ."""
    sized = {place[:2] for place in places}
    titles = {}
    for place, item in places.items():
        others = [other for at, other in places.items() if at[:2] == place[:2]]
        apart = sorted(
            key
            for key in {key for other in others for key in other.shared} - mentioned
            if len({canonical(identity(one.get(key))) for one in _having(key, others)}) > 1
        )
        told = [
            f"{key.rpartition('.')[2]}={_short(value)}"
            for key in apart
            if (value := item.shared.get(key)) is not None
        ]
        titles[place] = ", ".join([grouping.title(place[:2], sized), *told])
    return titles


#: Fields of a machine that titles name only if machines differ in them, not where there is none.
_MINOR = set(costs.Machine._fields) - {"device", "threads"}


def _having(key: str, items: list[Item]) -> list[Conditions]:
    """What the items share with others; of a minor field only those that have it."""
    return [item.shared for item in items if key not in _MINOR or key in item.shared]


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, dict) else "…"
