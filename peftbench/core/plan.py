"""What overrides expand to (distinct runs, evaluations of them), and how they are run."""

from dataclasses import dataclass, field
from pathlib import Path

from peftbench.core.errors import above, at_least, between
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Json, Run
from peftbench.core.tuning import SearchSpace


@dataclass(frozen=True)
class Plan:
    """What overrides expand to.

    Attributes:
        runs: distinct, in the order of the overrides.
        cells: how many grid points there are; more than runs where two are one run.
        repeats: for each grid point that is an earlier one again, the overrides of both.
        axes: keys, such as train.lr, in which grid points differ.
        rates_named: whether overrides name train.lr, be it one rate.
        data_root: folders of data sets in the hub's layout, or None for the hub.
        evaluations: of these runs, by the suites that the overrides name.
        own_files: configuration files outside of the package that take part.
        unchecked: a line on each checkpoint that is not at hand, so that nothing is known of it.
        notes: what is odd about the checkpoints that are, and was put right.
        revisions: commits of repositories of the hub that the overrides name without one, by
            `models/NAME` and `datasets/NAME`.
        renewed: of `revisions` those that replace what the results folder has kept.
        datasets: what was found about data sets of `task=hub`, by what it depends on.
        spaces: learning rates to choose from, by key of a run.
        rows: examples of each split of a user's own file, by the canonical text of the task.
    """

    runs: list[Run]
    cells: int
    repeats: list[tuple[str, str]]
    axes: list[str]
    data_root: str | None
    evaluations: list[Evaluation] = field(default_factory=list)
    own_files: list[Path] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    revisions: dict[str, str] = field(default_factory=dict)
    spaces: dict[str, SearchSpace] = field(default_factory=dict)
    renewed: set[str] = field(default_factory=set)
    datasets: Json = field(default_factory=dict)
    rates_named: bool = False
    rows: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class RunOptions:
    """How the runs of a plan are executed, as the options of `peftbench run`.

    None of these belongs to a run's identity.

    Attributes:
        workers: processes that do jobs side by side; None for what suits the machine.
        threads: CPU threads of each; None for what suits the machine.
        device: auto, cpu, cuda or cuda:i.
        save_weights: keep what the method trained.
        retry: classes of failures to try again; None for those that came from outside.
        fail_fast: stop at the first failure.
        deterministic: use deterministic GPU kernels.
        checkpoint_minutes: between checkpoints of a long run.
        curve_part: of the reporting split, for evaluations during training.
        gpus_per_run: that train one run together.
        pack: runs that a worker trains at a time: a number, auto or off.
        dry_run: check every run and its data, train nothing.
        quiet: print failures and tables only.
        as_json: print the tables, or the choices of `tune`, as one JSON value.
        track: names of trackers that get each finished run: tensorboard, mlflow, wandb, csv.
        stage: what this part of a longer command is called; said instead of a plan's summary.
        follows: whether an earlier part has said what the data and the workers are.
        shown_as: what `peftbench status` shows of this work; None for the command line.
    """

    workers: int | None = None
    threads: int | None = None
    device: str = "auto"
    save_weights: bool = False
    retry: str | None = None
    fail_fast: bool = False
    deterministic: bool = False
    checkpoint_minutes: float = 10.0
    curve_part: float = 1.0
    gpus_per_run: int = 1
    pack: str = "auto"
    dry_run: bool = False
    quiet: bool = False
    as_json: bool = False
    track: tuple[str, ...] = ()
    stage: str | None = None
    follows: bool = False
    shown_as: str | None = None

    def __post_init__(self) -> None:
        for name in ("workers", "threads", "gpus_per_run"):
            if getattr(self, name) is not None:
                at_least(name, getattr(self, name), 1, whole=True)
        above("checkpoint_minutes", self.checkpoint_minutes, 0)
        above("curve_part", self.curve_part, 0)
        between("curve_part", self.curve_part, 0, 1)
        # a program may say pack=8 and track="csv,wandb"
        object.__setattr__(self, "pack", str(self.pack))
        if isinstance(self.track, str):
            object.__setattr__(self, "track", tuple(filter(None, self.track.split(","))))
