"""What one run cost, and which runs may be compared in it."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NamedTuple

from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json, Record
from peftbench.core.tuning import Choice
from peftbench.results.tuned import Tuned
from peftbench.system import yaml_files


class Machine(NamedTuple):
    """Where a run was made and how its costs were taken, by the fields of its environment.

    Seconds, memory and energy compare only where all of these are equal.

    Attributes:
        device: the processor, or the GPU.
        threads: of the run.
        packed: whether costs are those of a short measurement, as the run shared its passes.
        cuda: the version; empty on a CPU.
        cores: of the computer; 0 where the record does not hold them.
    """

    device: str
    threads: int
    packed: bool
    cuda: str
    cores: int


def machine(made: Record | Evaluated) -> Machine:
    """The machine of a run, or of an evaluation."""
    return place_of(made.environment)


def place_of(place: Json) -> Machine:
    """The machine of an environment, as records have it."""
    return Machine(
        device=place["device"],
        threads=place["threads"],
        packed=bool(place.get("packed")),
        cuda=place.get("cuda") or "",
        cores=place.get("cores") or 0,
    )


#: Suites whose figures are costs of the machine that evaluated, by the names of their classes; and
#: of these the figure that is a cost of a trained model: milliseconds as one would serve it.
TIMED = {"Latency": "ms_p50"}


def latencies(found: Iterable[Evaluated]) -> dict[Machine, dict[str, float]]:
    """Milliseconds of one text by key of a run, of each machine by itself; means over suites."""
    taken: dict[Machine, dict[str, list[float]]] = {}
    for one in found:
        figure = TIMED.get(one.evaluation.kind)
        value = None if figure is None else one.headline.get(figure)
        if value is not None:
            here = taken.setdefault(machine(one), {})
            here.setdefault(one.evaluation.run.key, []).append(value)
    return {
        where: {key: statistics.fmean(values) for key, values in here.items()}
        for where, here in sorted(taken.items())
    }


def called(where: Machine, among: Iterable[Machine] = ()) -> str:
    """Device and threads in words, and what else differs among these machines."""
    told = [where.device, f"{where.threads} thread{'s' * (where.threads != 1)}"]
    every = list(among)
    if len({other.cuda for other in every}) > 1:
        told.append(f"CUDA {where.cuda or 'off'}")
    if len({other.cores for other in every}) > 1:
        told.append(f"{where.cores or 'unknown'} cores")
    return ", ".join([*told, *["by calibration"] * where.packed])


def tuning_seconds(record: Record, tuned: Tuned) -> float | None:
    """Seconds of all trials that the learning rate of a run was chosen from; 0 if it was not.

    None where any was made on another machine, so that they do not add up with the run's.
    """
    choice = tuned.choices.get(record.run.key)
    if choice is None:
        return 0.0
    return choice.seconds if _machines(choice) == {machine(record)} else None


def _machines(choice: Choice) -> set[Machine]:
    """Where its trials were made."""
    return {place_of(place) for place in (choice.environment, *choice.elsewhere) if place}


def seconds_with_tuning(record: Record, tuned: Tuned) -> float | None:
    """Seconds of training and of what tuned it; None where the two do not add up."""
    trials = tuning_seconds(record, tuned)
    return None if trials is None else record.seconds["train"] + trials


def mean_with_tuning(records: Iterable[Record], tuned: Tuned) -> float | None:
    """The mean of the above; None where it is of any."""
    found = [seconds_with_tuning(record, tuned) for record in records]
    known = [value for value in found if value is not None]
    return statistics.fmean(known) if len(known) == len(found) else None


def tuning_text(records: list[Record], tuned: Tuned) -> str:
    """Seconds of the trials that the runs of a cell have their rate from, as tables show them."""
    keys = [record.run.key for record in records]
    choice = tuned.choice(keys)
    if choice is None:
        return "–"
    return f"{choice.seconds:,.0f}{tuned.mark(keys)}"


#: In place of costs that do not compare or add up.
MIXED = "mixed"


def tuning_note(records: list[Record], tuned: Tuned) -> str:
    """What is said below a column of the above, with the machines of trials where they differ."""
    told = (
        "Tuning: seconds of all trials that the learning rate was chosen from, in full in each row "
        "that uses it (– where it was not chosen here)."
    )
    apart = [record for record in records if tuning_seconds(record, tuned) is None]
    places = {one: _machines(tuned.choices[one.run.key]) for one in apart}
    among = {machine(record) for record in records}.union(*places.values())
    rows: dict[str, dict[str, None]] = {}
    for record, machines in places.items():
        named = " and ".join(called(one, among) for one in sorted(machines)) or "an unknown machine"
        rows.setdefault(named, {})[record.run.method.name] = None
    for named, methods in rows.items():
        told += f" Trials of {', '.join(methods)} ran on {named}: no total with runs elsewhere."
    return told


def peak(record: Record) -> float | None:
    """Bytes while it trained: what CUDA allocated, else the process's resident set.

    None where it was not measured, or nothing was trained.
    """
    on_gpu = record.memory.get("cuda_peak_allocated_bytes")
    found = (on_gpu or record.memory["cpu_peak_rss_bytes"]).get("train")
    return None if found is None else float(found)


def mean_peak(records: Iterable[Record]) -> float | None:
    """Mean of `peak` over the runs that measured it; None where none did."""
    known = [bytes_ for record in records if (bytes_ := peak(record)) is not None]
    return statistics.fmean(known) if known else None


#: In a results folder: what a person says of all its records.
NOTES = "notes.yaml"


def read_warning(folder: Path) -> str | None:
    """What must be said wherever costs of a folder are shown: `costs` in its `notes.yaml`.

    Raises:
        ConfigError: if the file holds anything else.
    """
    path = folder / NOTES
    if not path.is_file():
        return None
    found = yaml_files.read_mapping(path, resolve=False)
    text = found.get("costs")
    if not isinstance(text, str) or set(found) != {"costs"}:
        raise ConfigError(f"{path} holds one line of text, costs: ..., got {found!r}")
    return " ".join(text.split())


#: Prices of runs and their weights, prices of people and their machine, and what is no price.
_RUNS = ("gpu_hour", "core_hour", "kwh", "gb_month")
_PEOPLE = ("labour_hour", "label", "cloud_month")
_COUNTED = ("months", "review_seconds", "payback_months")


@dataclass(frozen=True)
class Prices:
    """What the user pays; None is not known.

    Attributes:
        currency: of all that is money.
        gpu_hour, core_hour, kwh, gb_month: of trainings and of storage.
        months: that the trained weights are kept.
        labour_hour: of a person who labels or reviews texts.
        review_seconds: of a person for a text.
        label: of a label.
        cloud_month: of the machine that answers texts.
        texts_month: that come in.
        payback_months: within which a model must have paid for itself.
    """

    currency: str | None = None
    gpu_hour: float | None = None
    core_hour: float | None = None
    kwh: float | None = None
    gb_month: float | None = None
    months: float = 12
    labour_hour: float | None = None
    review_seconds: float = 30
    label: float | None = None
    cloud_month: float | None = None
    texts_month: float | None = None
    payback_months: float = 12

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "currency"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            null = value is None and name not in _COUNTED
            if not (null or (number and value >= 0)):
                allowed = "" if name in _COUNTED else ", or null"
                raise ConfigError(
                    f"prices: {name} is a number of at least 0{allowed}, got {value!r}"
                )
        people = any(getattr(self, name) is not None for name in _PEOPLE)
        if self.currency is None and (self.known() or people):
            raise ConfigError("prices: no currency is given; add one, such as EUR")

    def known(self) -> bool:
        """Whether anything of a run has a price."""
        return any(getattr(self, name) is not None for name in _RUNS)

    def money(self, record: Record, tuned: Tuned | None = None) -> float | None:
        """Of a run: hours, energy and storage, as far as they have a price; None if nothing has.

        The hours of tuned runs are with those of their trials, whose energy is not known; None
        where trials were made on another machine.
        """
        trials = tuning_seconds(record, tuned) if tuned else 0.0
        if trials is None:
            return None
        hours = (sum(record.seconds.values()) + trials) / 3600
        place = record.environment
        rate = self.gpu_hour if place["cuda"] else self.core_hour
        units = processes(record) * (1 if place["cuda"] else place["threads"])
        parts = [
            None if rate is None else rate * units * hours,
            None
            if self.kwh is None or record.energy_joules is None
            else self.kwh * record.energy_joules / 3.6e6,
            None if self.gb_month is None else self.gb_month * self.months * stored(record) / 1e9,
        ]
        priced = [part for part in parts if part is not None]
        return sum(priced) if priced else None


def processes(record: Record) -> int:
    """How many processes trained a run: each had a GPU, or threads, of its own."""
    count, several, _ = record.environment["device"].partition(" × ")
    return int(count) if several and count.isdecimal() else 1


def stored(record: Record) -> int:
    """Bytes of what training changed, in fp32: one copy for each task that is served."""
    return 4 * (record.parameters["trained"] + record.parameters["head"])
