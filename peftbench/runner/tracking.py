"""Finished runs for TensorBoard, MLflow, Weights & Biases and CSV, through accelerate's trackers.

They show what the records and the news of training hold, and are read by nothing here: a run is
handed over once it is done, one after the other, as most of these tools know one run at a time.
"""

import csv
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftbench.core.errors import ConfigError, RecordError, one_of, system_reason
from peftbench.core.run import Json, Record, Run, flattened
from peftbench.results.store import ResultsFolder
from peftbench.runner.worker_pool import Event

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

#: By name: the module that must be there, and what installs it.
TRACKERS: dict[str, tuple[str, str]] = {
    "tensorboard": ("tensorboard", "tensorboard"),
    "mlflow": ("mlflow", "mlflow-skinny sqlalchemy alembic"),
    "wandb": ("wandb", "wandb"),
    "csv": ("csv", ""),
}


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that there is not, before work.

    Raises:
        ConfigError: with what installs it.
    """
    for name in names:
        one_of("--track", name, tuple(TRACKERS))
        module, packages = TRACKERS[name]
        if find_spec(module) is None:
            raise ConfigError(
                f"--track {name} needs more packages: `uv sync --group trackers`, or "
                f"`pip install {packages}`"
            )


class Tracking:
    """Listens to the events of a worker pool, and hands each finished run to trackers.

    Args:
        names: of trackers, which `check_trackers` let pass.
        results: where records are; files of trackers go into its folder `trackers`.
        listen: hears every event first.
        tell: told once of each tracker that fails, which is left out from then on.
    """

    def __init__(
        self,
        names: Sequence[str],
        results: ResultsFolder,
        listen: Callable[[Event], None],
        tell: Callable[[str], None],
    ):
        self._names, self._results, self._listen, self._tell = list(names), results, listen, tell
        self._news: defaultdict[str, list[Json]] = defaultdict(list)

    def __call__(self, event: Event) -> None:
        """Pass an event on; keep what it says, or hand over the run that is done."""
        self._listen(event)
        if not isinstance(event.job, Run) or not self._names:
            return
        if event.kind == "step":
            self._news[event.job.key].append(event.fields)
        elif event.kind in ("done", "failed"):
            news = self._news.pop(event.job.key, [])
            if event.kind == "done" and not event.fields.get("elsewhere"):
                self._hand_over(event.job, news)

    def _hand_over(self, run: Run, news: list[Json]) -> None:
        try:
            record = self._results.load(run.key)
        except (OSError, RecordError) as error:  # removed or damaged since: no reason to stop
            why = system_reason(error) if isinstance(error, OSError) else error
            self._tell(f"--track: {run.title} is left out: {why}")
            return
        from accelerate.state import PartialState

        PartialState(cpu=True)  # of one process: trackers ask whether it is the main one
        for name in list(self._names):
            try:
                _track(_tracker(name, record.run, self._results.trackers()), record, news)
            except Exception as error:  # a server that is away must not cost the sweep
                self._names.remove(name)
                self._tell(f"--track {name} is left out from here on: {error}")


def _track(tracker: "GeneralTracker", record: Record, news: list[Json]) -> None:
    """Settings, losses and speeds by step, the points of the curve, and the scores at the end."""
    tracker.start()
    settings = flattened(record.run.to_json())
    tracker.store_init_configuration({n: v for n, v in settings.items() if v is not None})
    for one in news:
        told = {"train/loss": one["loss"], "train/examples_per_second": one["speed"]}
        tracker.log({n: v for n, v in told.items() if v is not None}, step=one["step"])
    for point in record.curve:
        scores = {name: v for name, v in point.items() if isinstance(v, int | float)}
        scores.pop("step")
        tracker.log({f"eval/{name}": v for name, v in scores.items()}, step=point["step"])
    final = {f"final/{name}": v for name, v in record.metrics.items() if v is not None}
    final |= {f"seconds/{phase}": v for phase, v in record.seconds.items()}
    tracker.log(final, step=record.work["steps"])
    tracker.finish()


def _tracker(name: str, run: Run, folder: Path) -> "GeneralTracker":
    from accelerate.tracking import MLflowTracker, TensorBoardTracker, WandBTracker

    folder.mkdir(parents=True, exist_ok=True)
    title = f"{run.title} {run.key}"
    if name == "tensorboard":
        return TensorBoardTracker(run.key, folder / "tensorboard")
    if name == "mlflow":
        os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
        return MLflowTracker("peftbench", (folder / "mlflow").resolve().as_uri(), run_name=title)
    if name == "wandb":
        return WandBTracker("peftbench", name=title, dir=str(folder), reinit="finish_previous")
    return _csv_tracker()(run.key, folder / "csv")


def _csv_tracker() -> Any:
    """The class; accelerate, which its base is from, loads torch."""
    from accelerate.tracking import GeneralTracker

    class CSVTracker(GeneralTracker):
        """KEY.csv: one line a value, with its step and name."""

        name = "csv"
        requires_logging_directory = True
        main_process_only = True

        def __init__(self, run_name: str, logging_dir: Path):
            super().__init__()
            self.path = Path(logging_dir, f"{run_name}.csv")
            self.rows: list[tuple[int | None, str, Any]] = []

        @property
        def tracker(self) -> list[tuple[int | None, str, Any]]:
            return self.rows

        def start(self) -> None:
            self.rows = []

        def store_init_configuration(self, values: Json) -> None:
            self.rows += [(None, name, value) for name, value in values.items()]

        def log(self, values: Json, step: int | None = None, **_: Any) -> None:
            self.rows += [(step, name, value) for name, value in values.items()]

        def finish(self) -> None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("step", "name", "value"), *self.rows])

    return CSVTracker
