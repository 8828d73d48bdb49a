"""How long runs will take, from the speeds of records that are there."""

from collections import defaultdict
from collections.abc import Iterable

from peftbench.core.run import Record, Run

Near = tuple[str, ...]


class Forecast:
    """Seconds of a run: measured on the nearest records, None where nothing is near.

    Nearest are those of the same model, method and task; then the same model and method; then the
    same model.
    """

    def __init__(self, records: Iterable[Record]):
        self._pace: dict[Near, list[float]] = defaultdict(list)
        self._rest: dict[Near, list[float]] = defaultdict(list)
        for record in records:
            spent = sum(record.seconds.values()) - record.seconds["train"]
            for near in _near(record.run):
                self._pace[near].append(record.seconds["train"] / record.work["examples"])
                self._rest[near].append(spent)

    def seconds(self, run: Run) -> float | None:
        """Wall-clock seconds of the run on the machine of the records."""
        for near in _near(run):
            if near in self._pace:
                train = self._train(run, _mean(self._pace[near]))
                return None if train is None else train + _mean(self._rest[near])
        return None

    def weights(self, runs: list[Run]) -> dict[str, float]:
        """How much of the whole each run is, by key: seconds, or examples where any is unknown."""
        seconds = {run.key: self.seconds(run) for run in runs}
        if all(seconds.values()):
            return {key: known or 0.0 for key, known in seconds.items()}
        return {run.key: _examples(run) or 1.0 for run in runs}

    def _train(self, run: Run, pace: float) -> float | None:
        if run.budget.seconds is not None:
            return float(run.budget.seconds)
        examples = _examples(run)
        return None if examples is None else examples * pace


def _examples(run: Run) -> float | None:
    """How many examples a run will train on, where that can be known before."""
    if run.budget.steps is not None:
        return float(run.budget.steps * run.train.batch_size)
    total = run.task.examples.get("train")
    if run.budget.epochs is None or not (total or isinstance(run.size, int)):
        return None
    return float(run.budget.epochs * (run.train_size(total) if total else int(run.size)))


def _near(run: Run) -> list[Near]:
    model, method, task = run.model.name, run.method.name, run.task.name
    return [(model, method, task), (model, method), (model,)]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
