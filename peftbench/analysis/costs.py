"""What one run cost, which runs may be compared in it, and which are not beaten at their cost."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from peftbench.core.errors import ConfigError
from peftbench.core.run import Record

K = TypeVar("K", bound=Hashable)

#: Device, threads and whether it was packed: seconds and memory compare only where these are equal.
Machine = tuple[str, int, bool]


def machine(record: Record) -> Machine:
    """Where the run was made."""
    about = record.environment
    return about["device"], about["threads"], bool(about.get("packed"))


def called(where: Machine) -> str:
    """Device and threads in words."""
    device, threads, packed = where
    measured = ", by calibration" if packed else ""
    return f"{device}, {threads} thread{'s' * (threads != 1)}{measured}"


def peak(record: Record) -> float:
    """Bytes while it trained: what CUDA allocated, else the process's resident set."""
    on_gpu = record.memory.get("cuda_peak_allocated_bytes")
    return float((on_gpu or record.memory["cpu_peak_rss_bytes"])["train"] or 0)


def front(points: Mapping[K, tuple[float | None, float]]) -> set[K]:
    """Pareto's: those that no other equals or beats in score and cost, and beats in one of them.

    Args:
        points: score and cost by name; what has no score is not on it.
    """
    known = {name: (score, cost) for name, (score, cost) in points.items() if score is not None}
    return {
        name
        for name, (score, cost) in known.items()
        if not any(
            other >= score and less <= cost and (other, less) != (score, cost)
            for other, less in known.values()
        )
    }


@dataclass(frozen=True)
class Prices:
    """What the user pays; None is not known."""

    currency: str | None = None
    gpu_hour: float | None = None
    core_hour: float | None = None
    kwh: float | None = None
    gb_month: float | None = None
    months: float = 12

    def __post_init__(self) -> None:
        for name in (f.name for f in fields(self) if f.name != "currency"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (value is None or (number and value >= 0)):
                raise ConfigError(
                    f"prices: {name} is a number of at least 0, or null, got {value!r}"
                )
        if self.currency is None and self.known():
            raise ConfigError("prices: say the currency, such as EUR")

    def known(self) -> bool:
        """Whether anything has a price."""
        return any(
            getattr(self, name) is not None for name in ("gpu_hour", "core_hour", "kwh", "gb_month")
        )

    def money(self, record: Record) -> float | None:
        """Of a run: its hours or its energy, and its storage; None if nothing of it has a price."""
        hours = sum(record.seconds.values()) / 3600
        place = record.environment
        rate = self.gpu_hour if place["cuda"] else self.core_hour
        units = 1 if place["cuda"] else place["threads"]
        parts = [
            None if rate is None else rate * units * hours,
            None
            if self.kwh is None or record.energy_joules is None
            else self.kwh * record.energy_joules / 3.6e6,
            None if self.gb_month is None else self.gb_month * self.months * stored(record) / 1e9,
        ]
        priced = [part for part in parts if part is not None]
        return sum(priced) if priced else None


def stored(record: Record) -> int:
    """Bytes of what training changed, in fp32: one copy for each task that is served."""
    return 4 * (record.parameters["trained"] + record.parameters["head"])
