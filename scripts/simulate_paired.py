"""Level and power of the paired comparison, of bold, and of "not worse", by simulation.

Answers of methods are drawn from a latent model with the parts that stored predictions have: how
hard an example is, what a method makes of it, what a seed makes of it, and how good a seed is as a
whole. The project's own functions judge them, so that a change of these shows here. Failing seeds
predict one class or value throughout.

usage: uv run python scripts/simulate_paired.py [--repeats 400] [--label after] [--output FOLDER]
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import simulation
from scipy.stats import norm

from peftbench.analysis import bootstrap, comparison, significance
from peftbench.analysis.comparison import Resampled

#: Standard deviations of the latent parts: example, method x example, seed x example.
ITEM, METHOD_ITEM, SEED_ITEM = 1.0, 0.3, 0.45
_SCALE = float(np.sqrt(ITEM**2 + METHOD_ITEM**2 + SEED_ITEM**2))

#: Accuracy of the baseline; share of class 1.
LEVEL, CLASS_1 = 0.72, 0.68

#: Resamples of the examples, in place of the 10,000 of reports.
DRAWS = 1_000


@dataclass(frozen=True)
class Setting:
    """Two or more methods that are compared.

    Attributes:
        metric: accuracy, matthews or pearson.
        items, seeds: how many.
        seed_sd: standard deviation of a seed's whole score, in points.
        gap: true difference of the first method from the others, in points of accuracy.
        failing: rate of failing seeds, of the first method and of the others.
        rows: methods.
    """

    metric: str = "accuracy"
    items: int = 408
    seeds: int = 3
    seed_sd: float = 1.5
    gap: float = 0.0
    failing: tuple[float, float] = (0.0, 0.0)
    rows: int = 2


class Simulation:
    """Runs of a setting, again and again, on the same resamples."""

    def __init__(self, setting: Setting, draws: int = DRAWS, seed: int = 0):
        self.setting = setting
        self._generator = np.random.default_rng([seed, setting.items, setting.seeds])
        counts = bootstrap.draws(setting.items, draws, np.random.default_rng(0))
        self._counts = np.concatenate(list(counts))

    def runs(self) -> Resampled:
        """All runs of one repeat, those of a method side by side."""
        if self.setting.metric == "pearson":
            label, scores = self._values()
        else:
            label, scores = self._classes()
        once = np.ones((1, len(label)))
        metric = self.setting.metric
        return Resampled(
            metric=metric,
            place={},
            whole=bootstrap.score(metric, scores, label, once)[0],
            drawn=bootstrap.score(metric, scores, label, self._counts),
            examples=len(label),
            right=None,
        )

    def _parts(self, seed_scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Latent noise of all runs and examples, what a seed adds as a whole, and who fails."""
        s, normal = self.setting, self._generator.normal
        noise = (
            normal(0, ITEM, (1, 1, s.items))
            + normal(0, METHOD_ITEM, (s.rows, 1, s.items))
            + normal(0, SEED_ITEM, (s.rows, s.seeds, s.items))
        )
        whole = normal(0, seed_scale, (s.rows, s.seeds, 1))
        rates = np.full((s.rows, 1, 1), s.failing[1])
        rates[0] = s.failing[0]
        failed = self._generator.random((s.rows, s.seeds, 1)) < rates
        runs = s.rows * s.seeds
        return noise.reshape(runs, -1), whole.reshape(runs, 1), failed.reshape(runs, 1)

    def _classes(self) -> tuple[np.ndarray, np.ndarray]:
        s = self.setting
        steep = float(norm.pdf(norm.ppf(LEVEL))) / _SCALE  # of the accuracy
        noise, whole, failed = self._parts(s.seed_sd / 100 / steep)
        levels = np.full(s.rows, LEVEL)
        levels[0] += s.gap / 100
        right = noise + whole + _SCALE * norm.ppf(levels).repeat(s.seeds)[:, None] > 0
        label = (self._generator.random(s.items) < CLASS_1).astype(np.int64)
        predicted = np.where(failed, 1, np.where(right, label, 1 - label))
        return label, np.eye(2)[predicted]

    def _values(self) -> tuple[np.ndarray, np.ndarray]:
        """Pearson: the first method has 0.80, the others so much that means with failures agree."""
        s = self.setting
        noise, whole, failed = self._parts(s.seed_sd / 100)
        levels = np.full(s.rows, 0.80 * (1 - s.failing[0]) / (1 - s.failing[1]))
        levels[0] = 0.80 + s.gap / 100
        level = np.clip(levels.repeat(s.seeds)[:, None] + whole, 0, 0.999)
        label = self._generator.normal(size=s.items)
        value = level * label + np.sqrt(1 - level**2) * noise / _SCALE
        return label, np.where(failed, 0.5, value)[..., None]


def effects(told: Resampled, seeds: int, rows: int) -> list[Any]:
    """Effects of the first method over each other one; None where one is undefined."""
    mine = list(range(seeds))
    return [
        comparison.difference(told, mine, [seeds * row + place for place in mine])
        for row in range(1, rows)
    ]


def pair(setting: Setting, repeats: int, draws: int = DRAWS) -> dict[str, float]:
    """Shares of repeats, in percent: how a comparison of two methods ends.

    Returns:
        `rejected`; `unseen`, the same where no seed failed, which is said to be given that it
        trains; `covered` (the true difference, the gap; accuracy only); `undefined`; `not_worse`
        within one point; medians of `width` and `detectable` in points.
    """
    simulation = Simulation(setting, draws)
    found, unseen = [], 0
    for _ in range(repeats):
        told = simulation.runs()
        (one,) = effects(told, setting.seeds, 2)
        found.append(one)
        steady = np.all(np.nan_to_num(told.whole) != 0)
        unseen += bool(one is not None and one.p < significance.ALPHA and steady)
    known = [one for one in found if one is not None]
    alpha, truth = significance.ALPHA, setting.gap / 100

    def share(judge: Callable[[Any], bool]) -> float:
        return 100 * sum(judge(one) for one in known) / repeats

    def median(pick: Callable[[Any], float]) -> float:
        values = [value for one in known if np.isfinite(value := pick(one))]
        return 100 * float(np.median(values)) if values else float("nan")

    return {
        "rejected": share(lambda one: one.p < alpha),
        "covered": share(lambda one: one.low <= truth <= one.high),
        "unseen": 100 * unseen / repeats,
        "undefined": 100 * (repeats - len(known)) / repeats,
        "not_worse": share(lambda one: one.low > -comparison.MARGIN),
        "width": median(lambda one: one.high - one.low),
        "detectable": median(lambda one: one.detectable),
    }


def column(setting: Setting, repeats: int, draws: int = DRAWS) -> dict[str, float]:
    """Shares of repeats, in percent: what is said of several rows together.

    Returns:
        `best` and `best_holm`: the row with the highest mean is above all others, by the
        intersection-union test and after Holm's correction; `any` and `any_holm`: some row is
        decided against the first, by simultaneous intervals (Bonferroni) and after Holm's.
    """
    simulation, alpha = Simulation(setting, draws), significance.ALPHA
    counts = dict.fromkeys(("best", "best_holm", "any", "any_holm"), 0)
    for _ in range(repeats):
        told = simulation.runs()
        means = told.whole.reshape(setting.rows, setting.seeds).mean(axis=1)
        against_first = effects(told, setting.seeds, setting.rows)
        # the row with the highest mean comes first
        order = np.argsort(-means, kind="stable")
        places = (order[:, None] * setting.seeds + np.arange(setting.seeds)).ravel()
        ranked = Resampled(
            told.metric, {}, told.whole[places], told.drawn[:, places], told.examples, None
        )
        over_others = effects(ranked, setting.seeds, setting.rows)
        if None in against_first or None in over_others:
            continue
        p, q = [one.p for one in over_others], [one.p for one in against_first]
        counts["best"] += max(p) < alpha
        counts["best_holm"] += max(significance.holm(p)) < alpha
        counts["any"] += min(q) * len(q) < alpha
        counts["any_holm"] += min(significance.holm(q)) < alpha
    return {name: 100 * count / repeats for name, count in counts.items()}


#: Variances of one run's mean difference, seed : example : seed x example.
VARIANCES = ((0.0, 0.2, 1.0), (1.0, 0.2, 1.0), (4.0, 0.2, 1.0), (1.0, 1.0, 0.2))


def gaussian(
    variances: tuple[float, float, float], seeds: int, repeats: int, draws: int = DRAWS
) -> float:
    """Percent of repeats in which no difference is found to be one, of Gaussian differences."""
    generator = np.random.default_rng([seeds, *(int(10 * one) for one in variances)])
    seed, item, both = np.sqrt(variances)
    rejected = 0
    for _ in range(repeats):
        found = generator.normal(0, item) + generator.normal(0, np.hypot(seed, both), seeds)
        drawn = found + generator.normal(0, item, (draws, 1))
        drawn = drawn + generator.normal(0, both, (draws, seeds))
        told = Resampled(
            "accuracy",
            {},
            np.append(found, np.zeros(seeds)),
            np.hstack([drawn, 0 * drawn]),
            1,
            None,
        )
        one = comparison.difference(told, [*range(seeds)], [*range(seeds, 2 * seeds)])
        assert one is not None
        rejected += one.p < significance.ALPHA
    return 100 * rejected / repeats


NULL = [
    *(Setting(items=items, seeds=seeds) for items in (408, 1000) for seeds in (1, 2, 3, 5, 10)),
    *(Setting(seeds=seeds, seed_sd=sd) for sd in (0.0, 3.0) for seeds in (2, 3, 5)),
    *(Setting("matthews", 1000, seeds) for seeds in (2, 3, 5)),
    *(Setting("pearson", 1000, seeds, 1.0) for seeds in (2, 3, 5)),
]
FAILING = [
    *(
        Setting("matthews", 408, seeds, failing=(rate, rate))
        for rate in (0.1, 0.3)
        for seeds in (3, 5, 10)
    ),
    *(Setting("pearson", 1000, seeds, 1.0, failing=(0.1, 0.0)) for seeds in (3, 5, 10)),
]
POWER = [Setting(seeds=seeds, gap=gap) for gap in (3.0, 6.0) for seeds in (2, 3, 5, 10)]
EDGE = [Setting(seeds=seeds, gap=-1.0) for seeds in (2, 3, 5, 10)]
COLUMNS = [
    *(Setting(seeds=seeds, rows=rows) for rows in (2, 5, 10) for seeds in (3, 5)),
    *(Setting(seeds=seeds, gap=6.0, rows=5) for seeds in (3, 5, 10)),
]


def simulate(repeats: int) -> dict[str, Any]:
    """Every table, by name: a list of settings with what was found."""
    made: dict[str, Any] = {"repeats": repeats, "draws": DRAWS}
    for name, settings in (
        ("null", NULL),
        ("failing", FAILING),
        ("power", POWER),
        ("margin", EDGE),
    ):
        made[name] = [asdict(one) | pair(one, repeats) for one in settings]
    promised = []
    for line in made["null"]:
        if line["metric"] == "accuracy" and line["seed_sd"] == 1.5 and line["items"] == 408:
            gap = line["detectable"]
            if np.isfinite(gap):
                setting = Setting(seeds=line["seeds"], gap=gap)
                promised.append(asdict(setting) | pair(setting, repeats))
    made["detectable"] = promised
    made["columns"] = [asdict(one) | column(one, max(1, repeats // 2)) for one in COLUMNS]
    made["gaussian"] = [
        {"variances": list(one), "seeds": seeds, "rejected": gaussian(one, seeds, repeats)}
        for one in VARIANCES
        for seeds in (2, 3, 5, 10)
    ]
    return made


_TITLES = {
    "null": "No difference: rejected (5 % by its word), covered (95 %)",
    "failing": "Equal expected scores, seeds that fail: called different, and with no failure seen",
    "power": "A true difference: found",
    "detectable": "A true difference of the median detectable one: found (80 % by its word)",
    "margin": "One point worse: called not worse within one point (2.5 % by its word)",
    "columns": "Several rows: some best, with Holm's correction and without; some decided",
    "gaussian": "Gaussian differences, none there: rejected",
}
_SHOWN = {
    "null": ("rejected", "covered", "width"),
    "failing": ("rejected", "unseen", "undefined"),
    "power": ("rejected",),
    "detectable": ("rejected",),
    "margin": ("not_worse",),
    "columns": ("best", "best_holm", "any", "any_holm"),
    "gaussian": ("rejected",),
}


def markdown(found: dict[str, Any]) -> str:
    """Tables with a column for each label, such as before and after."""
    lines = ["# Paired comparisons, simulated", ""]
    for label, made in found.items():
        lines.append(
            f"{label}: {made['repeats']:,} repeats of a setting (half as many for several rows), "
            f"{made['draws']:,} resamples. {made.get('code', '')}"
        )
        lines.append("")
    lines += ["Percent of repeats; width in points. Settings: `scripts/simulate_paired.py`.", ""]
    for name, title in _TITLES.items():
        heads = [f"{what}, {label}" for label in found for what in _SHOWN[name]]
        lines += [f"## {title}", "", "| setting | " + " | ".join(heads) + " |"]
        lines.append("| --- |" + " ---: |" * len(heads))
        rows: dict[str, dict[str, Any]] = {}
        for label, made in found.items():
            for line in made[name]:
                rows.setdefault(_named(line, name), {})[label] = line
        for setting, by_label in rows.items():
            cells = [
                "–" if label not in by_label else _text(by_label[label][what])
                for label in found
                for what in _SHOWN[name]
            ]
            lines.append(f"| {setting} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _text(value: float | None) -> str:
    return "–" if value is None or not np.isfinite(value) else f"{value:.1f}"


def _named(line: dict[str, Any], table: str) -> str:
    if table == "gaussian":
        return f"{' : '.join(f'{one:g}' for one in line['variances'])}, {line['seeds']} seeds"
    told = [line["metric"], f"{line['items']:,} examples", f"{line['seeds']} seeds"]
    told.append(f"seed sd {line['seed_sd']:g}")
    if line["gap"]:
        told.append("median detectable" if table == "detectable" else f"gap {line['gap']:g}")
    if any(line["failing"]):
        told.append("failing " + " / ".join(f"{100 * rate:g} %" for rate in line["failing"]))
    if line["rows"] > 2:
        told.append(f"{line['rows']} rows")
    return ", ".join(told)


def main() -> None:
    """Simulate, and write the tables."""
    simulation.write("paired", __doc__.splitlines()[0], 400, simulate, markdown)


if __name__ == "__main__":
    main()
