"""Whether `advise` is as often right as it says, by simulation, with and without failing seeds.

Each repeat draws true scores of some methods and a few seeds of each; a seed that fails scores as
the constant prediction, 0. The chances that the project gives are held beside the method whose
expected score is the highest.

usage: uv run python scripts/simulate_advice.py [--repeats 1000] [--output FOLDER]
"""

import itertools
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import simulation

from peftbench.analysis.expected_scores import (
    SeedScores,
    draw_expected_scores,
    share_of_draws_won,
)

#: Draws of a repeat, in place of the 10,000 of `advise`.
DRAWS = 2_000

#: Mean of the true scores; of a method that fails too, where it trains.
LEVEL = 0.80

#: Bins of the chances that are given.
EDGES = (0.0, 0.05, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class Setting:
    """Methods with a few seeds each.

    Attributes:
        methods, seeds: how many.
        apart: standard deviation of the true scores of those that train, in points.
        seed_sd: of a seed, in points.
        failing: rate of failing seeds.
        unsteady: how many of the methods fail; the others never do.
    """

    methods: int = 6
    seeds: int = 3
    apart: float = 2.0
    seed_sd: float = 1.5
    failing: float = 0.0
    unsteady: int = 0


def chances(setting: Setting, repeats: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Chances that are given, the methods that are best, and seeds that failed.

    Returns:
        (repeats, methods), (repeats,), (repeats, methods).
    """
    s, generator = setting, np.random.default_rng([setting.methods, setting.seeds])
    given, best, gone = [], [], []
    for repeat in range(repeats):
        true = LEVEL + generator.normal(0, s.apart / 100, s.methods)
        rates = np.where(np.arange(s.methods) < s.unsteady, s.failing, 0.0)
        scores = np.minimum(
            1, true[:, None] + generator.normal(0, s.seed_sd / 100, (s.methods, s.seeds))
        )
        failed = generator.random((s.methods, s.seeds)) < rates[:, None]
        rows = [
            SeedScores(list(mine[~lost]), int(lost.sum()), None, s.methods * repeat + number)
            for number, (mine, lost) in enumerate(zip(scores, failed, strict=True))
        ]
        given.append(share_of_draws_won(draw_expected_scores(rows, 0.0, (-1.0, 1.0), DRAWS)))
        best.append(int(np.argmax((1 - rates) * true)))
        gone.append(failed.sum(axis=1))
    return np.array(given), np.array(best), np.array(gone)


def summary(given: np.ndarray, best: np.ndarray, gone: np.ndarray) -> dict[str, Any]:
    """What the chances come to, in percent.

    Returns:
        `said` and `right`: the mean chance of the likeliest method, and how often it is the best;
        `bins`: the same of all methods by the chance that they were given, with their number;
        `failed`: the mean and the 90 % quantile of chances of methods with a seen failure, and how
        often these are the best.
    """
    top, every = given.argmax(axis=1), np.arange(len(given))
    is_best = np.arange(given.shape[1]) == best[:, None]
    bins = []
    for low, high in itertools.pairwise(EDGES):
        here = (given >= low) & ((given < high) | (high == 1.0))
        if here.any():
            bins.append([100 * given[here].mean(), 100 * is_best[here].mean(), int(here.sum())])
    seen = gone > 0
    failed = None
    if seen.any():
        chance = given[seen]
        failed = [100 * chance.mean(), 100 * np.quantile(chance, 0.9), 100 * is_best[seen].mean()]
    return {
        "said": 100 * given[every, top].mean(),
        "right": 100 * np.mean(top == best),
        "bins": bins,
        "failed": failed,
    }


SETTINGS = [
    *(Setting(apart=apart, seeds=seeds) for apart in (1.0, 2.0, 4.0) for seeds in (2, 3, 5)),
    Setting(methods=15),
    *(Setting(seeds=seeds, failing=0.3, unsteady=many) for many in (1, 6) for seeds in (3, 5, 10)),
    *(Setting(seeds=seeds, failing=0.1, unsteady=6) for seeds in (3, 5, 10)),
]


def markdown(found: dict[str, Any]) -> str:
    """One table, with columns for each label, such as before and after."""
    lines = ["# Advice, simulated", ""]
    for label, made in found.items():
        lines += [f"{label}: {made['repeats']:,} repeats of a setting. {made.get('code', '')}", ""]
    lines.append(
        "Percent. Said, right: mean chance of the likeliest method, how often it is the best. Of "
        "methods with a failed seed: mean chance, its 90 % quantile, how often one is the best. "
        "Settings: `scripts/simulate_advice.py`."
    )
    heads = ["said", "right", "failed: mean", "90 %", "best"]
    lines += ["", "| setting | " + " | ".join(f"{h}, {label}" for label in found for h in heads)]
    lines[-1] += " |"
    lines.append("| --- |" + " ---: |" * (len(heads) * len(found)))
    for place, setting in enumerate(SETTINGS):
        cells = []
        for made in found.values():
            line = made["settings"][place]
            cells += [line["said"], line["right"], *(line["failed"] or [None] * 3)]
        shown = ["–" if cell is None else f"{cell:.0f}" for cell in cells]
        told = (
            f"{setting.methods} methods {setting.apart:g} points apart, {setting.seeds} seeds"
            + f", {setting.unsteady} fail in {100 * setting.failing:g} %" * bool(setting.unsteady)
        )
        lines.append(f"| {told} | " + " | ".join(shown) + " |")
    lines += ["", "## By the chance that was given: said, right (cases)", ""]
    for label, made in found.items():
        for setting, line in zip(SETTINGS, made["settings"], strict=True):
            if setting.apart == 2.0 and setting.methods == 6 and setting.seeds == 3:
                failing = f", {setting.unsteady} fail in {100 * setting.failing:g} %"
                bins = "; ".join(
                    f"{said:.0f}, {right:.0f} ({n:,})" for said, right, n in line["bins"]
                )
                lines.append(f"- {label}, 3 seeds{failing * bool(setting.unsteady)}: {bins}")
    return "\n".join([*lines, ""])


def main() -> None:
    """Simulate, and write the table."""

    def made(repeats: int) -> simulation.Json:
        lines = [asdict(one) | summary(*chances(one, repeats)) for one in SETTINGS]
        return {"repeats": repeats, "settings": lines}

    simulation.write("advice", __doc__.splitlines()[0], 1000, made, markdown)


if __name__ == "__main__":
    main()
