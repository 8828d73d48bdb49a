"""The runs of a pilot: each fold, method and size an ordinary run with a key of its own."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from peftbench.analysis.proportions import clopper_pearson
from peftbench.config import aliases, sweep
from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import Plan
from peftbench.core.run import Run
from peftbench.core.text import did_you_mean
from peftbench.data import loading
from peftbench.pilot import baselines, intervals
from peftbench.pilot.criterion import PilotCriterion
from peftbench.system import io

#: Methods of a pilot unless others are named.
METHODS = ("full", "bitfit", "adapter", "lora")

#: Passes over the training rows, unless the budget is named.
EPOCHS = 4

#: Fewer rows leave an interval too wide for a decision.
LEAST_ROWS = 200

#: Shares of the training rows of a fold at which the learning curve is measured, beside all.
SHARES = (0.333, 0.667)

#: Numbers of equal parts, of which one may be a calibration part.
_PARTS_OF = range(2, 11)

#: Overrides whose keys may be given with a pilot, by their first word; and those that may not.
_OPEN = ("method", "model", "task", "train", "budget", "prompt", "augmentation", "data")
_TAKEN = {
    "task": "a pilot is of the FILE",
    "task.path": "a pilot is of the FILE",
    "task.kind": "a pilot is of classes",
    "task.validation_path": "each fold is held out in turn",
    "task.validation_fraction": "each fold is held out in turn",
    "task.folds": "use --folds",
    "task.fold": "each fold is held out in turn",
    "task.fold_seed": "use --repeats",
    "task.group": "use --group",
    "task.metrics": "use --metric",
    "train.lr": "use --rates; they are chosen inside each fold",
}

#: Texts of a pass, and passes, of the measured latency.
LATENCY = ("suite=latency", "suite.repeats=100", "suite.warmup=10", "suite.batch_size=4")


@dataclass(frozen=True)
class Request:
    """What a pilot is asked for.

    Attributes:
        path: of the file.
        overrides: of the runs, such as task.label=label or model=roberta_base.
        folds: parts of the cross-validation.
        repeats: of it, each with other parts.
        rates: learning rates that each fold chooses from; 1 takes that of the method's file.
        group: column whose rows with the same value stay in one part.
        every_curve: whether all methods have a learning curve, not the best two alone.
        calibrate: share of the rows that the final model leaves out for its cut-off; None is none.
        configs: folder of the user's own configs.
    """

    path: Path
    overrides: tuple[str, ...] = ()
    folds: int = 5
    repeats: int = 1
    rates: int = 2
    group: str | None = None
    every_curve: bool = False
    calibrate: float | None = None
    configs: Path | None = None

    @property
    def calibration_parts(self) -> int | None:
        """Parts of the rows of which one is left out for the cut-off of the final model."""
        wanted = self.calibrate
        return None if wanted is None else min(_PARTS_OF, key=lambda n: abs(1 / n - wanted))

    def words(self, metric: str) -> list[str]:
        """The overrides of the runs of all folds.

        Args:
            metric: the score.

        Raises:
            ConfigError: for one that a pilot has no use for.
        """
        folds = ",".join(map(str, range(self.folds)))
        seeds = ",".join(["null", *map(str, range(1, self.repeats))])
        return self._with(metric, self.folds, [f"task.fold={folds}", f"task.fold_seed={seeds}"])

    def final_words(self, metric: str) -> list[str]:
        """The overrides of the runs on all rows, or on all but the calibration part."""
        if self.calibration_parts is None:
            return self._with(metric, None, [f"task.validation_path={_quoted(str(self.path))}"])
        return self._with(metric, self.calibration_parts, ["task.fold=0"])

    def _with(self, metric: str, parts: int | None, held: list[str]) -> list[str]:
        keys = [_key(word) for word in self.overrides]
        words = ["task=file", f"task.path={_quoted(str(self.path))}", *held]
        if parts is not None:
            words.append(f"task.folds={parts}")
            if self.group is not None:
                words.append(f"task.group={_quoted(self.group)}")
        words.append(f"task.metrics=[{metric}]")
        if "method" not in keys:
            words.append(f"method={','.join(METHODS)}")
        if not any(key.partition(".")[0] == "budget" for key in keys):
            words.append(f"budget.epochs={EPOCHS}")
        return [*words, *self.overrides]


def _key(word: str) -> str:
    """The key of an override, if a pilot takes it.

    Raises:
        ConfigError: saying why not.
    """
    given, _, text = word.partition("=")
    key = aliases.current_key(given, text)
    if key in _TAKEN:
        raise ConfigError(f"pilot: {word} is not for a pilot; {_TAKEN[key]}")
    if key.partition(".")[0] not in _OPEN:
        raise ConfigError(
            f"pilot: {word} is not for a pilot, which chooses size, seed and rates itself; "
            f"{did_you_mean(key.partition('.')[0], _OPEN)}"
        )
    return key


def _quoted(text: str) -> str:
    """A text as a value of Hydra's grammar."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


@dataclass(frozen=True)
class PilotDesign:
    """A pilot whose file can be used.

    Attributes:
        request: that it answers.
        plan: of the runs of all folds and methods, with the rates of the methods' files.
        final: likewise of the model for use: a run of each method.
        metric: the score.
        rows: of the file.
        classes: how many rows each class has, by name.
        alike: rows that are near duplicates of another one.
        groups: numbers of groups of each row, see `data.folds.Cut`.
    """

    request: Request
    plan: Plan
    final: Plan
    metric: str
    rows: int
    classes: dict[str, int]
    alike: int
    groups: np.ndarray

    @property
    def methods(self) -> list[str]:
        """Names, in the order of the words."""
        return list(dict.fromkeys(run.method.name for run in self.plan.runs))

    @property
    def tasks(self) -> list[TaskConfig]:
        """One of each repeat and fold."""
        return list({_place(run.task): run.task for run in self.plan.runs}.values())

    def with_runs(self, runs: list[Run], evaluations: list[Evaluation] | None = None) -> Plan:
        """A plan of other runs of the same file."""
        asked = evaluations or []
        return replace(self.plan, runs=runs, cells=len(runs), repeats=[], evaluations=asked)


def _place(task: TaskConfig) -> tuple[int, int]:
    assert task.fold is not None
    return task.fold_seed or 0, task.fold


def place(run: Run) -> tuple[int, int]:
    """Number of the repeat and of the fold of a run."""
    return _place(run.task)


def design(request: Request, metric: str, folder: Path) -> PilotDesign:
    """Plan a pilot and check its file.

    Args:
        request: what is asked for.
        metric: the score.
        folder: of results.

    Raises:
        ConfigError: if the overrides or the file cannot be used.
    """
    plan = sweep.plan(*request.words(metric), configs=request.configs, results=folder)
    odd = sorted(set(plan.axes) - {"method", "task.fold", "task.fold_seed"})
    if odd:
        raise ConfigError(
            f"pilot: {odd[0]} has several values; a pilot compares methods only, give one value"
        )
    task = plan.runs[0].task
    label = np.concatenate([loading.load_split(task, part, None).label for part in _PARTS])
    assert task.class_names is not None
    if len(label) < LEAST_ROWS:
        raise ConfigError(
            f"pilot: {request.path} has {len(label)} rows; a decision needs at least {LEAST_ROWS} "
            "labelled rows"
        )
    counts = np.bincount(label, minlength=task.classes)
    found = loading.cut(task)
    final = sweep.plan(*request.final_words(metric), configs=request.configs, results=folder)
    made = PilotDesign(
        request,
        plan,
        final,
        metric,
        len(label),
        dict(zip(task.class_names, counts.tolist(), strict=True)),
        found.alike,
        found.group,
    )
    for one in [*made.tasks, final.runs[0].task]:
        _check_classes(one)
    return made


def _check_classes(task: TaskConfig) -> None:
    """Refuse a cut whose training part has no row of a class: nothing could learn it.

    Raises:
        ConfigError: naming the class and why its rows are together.
    """
    assert task.class_names is not None
    train = loading.load_split(task, task.splits["train"], None).label
    missing = np.flatnonzero(np.bincount(train, minlength=task.classes) == 0)
    if not len(missing):
        return
    held = loading.held_rows(task)
    of_class = loading.load_split(task, task.splits["validation"], None).label == missing[0]
    groups = len(np.unique(loading.cut(task).group[held[of_class]]))
    alike = "near duplicates"
    if task.group is not None:
        alike += f" and rows with the same {task.group}"
    raise ConfigError(
        f"pilot: all {int(of_class.sum())} rows of class {task.class_names[missing[0]]} are in one "
        f"of {task.folds} parts, so that none is left to train on when that part is held out; they "
        f"are {groups} group{'s' * (groups > 1)} ({alike} stay together). Add rows of this class "
        "from other groups, or leave the class out"
    )


_PARTS = ("train", "validation")


def check_possible(criterion: PilotCriterion, found: PilotDesign) -> None:
    """Refuse a criterion that no predictions of these rows could meet or miss.

    Raises:
        ConfigError: saying what could be met.
    """
    content = io.hash_file(found.request.path)
    if criterion.data != content:
        raise ConfigError(
            f"the criterion is about a file with SHA-256 {criterion.data[:12]}, and "
            f"{found.request.path} has {content[:12]}; choose another --results for another file"
        )
    if criterion.metric != found.metric:
        raise ConfigError(
            f"the criterion is about {criterion.metric}, the runs are scored by {found.metric}; "
            f"give --metric {criterion.metric}"
        )
    level = intervals.LEVEL / (len(found.methods) + len(baselines.NAMES))
    perfect = intervals.share(np.ones((1, found.rows)), found.groups, level)
    if criterion.metric == "accuracy" and perfect.low < criterion.least:
        raise ConfigError(
            f"the criterion cannot be met: of {found.rows} rows that are all right the interval "
            f"starts at {perfect.low:.3f}, below {criterion.least:g}; label more rows, or lower "
            "the criterion"
        )
    if criterion.largest_review is None or criterion.review_error is None:
        return
    kept = intervals.unchecked(found.rows, criterion.largest_review)
    independent = min(kept, len(np.unique(found.groups)))
    fewest = clopper_pearson(0, independent, level)[1]
    if fewest > criterion.review_error:
        raise ConfigError(
            f"the criterion cannot be met: where people check {criterion.largest_review:g} of "
            f"{found.rows} rows and none of the others is wrong, the interval of wrong ones ends "
            f"at {fewest:.3f}, above review_error={criterion.review_error:g}; label more rows, or "
            "raise it"
        )
