"""Plan, train and evaluate from a program, with what a plan was given."""

from collections.abc import Callable
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from peftbench.api.results import Results
from peftbench.config import sweep
from peftbench.core.errors import ConfigError
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig

if TYPE_CHECKING:
    from peftbench.training.trainer import TrainingOutput

#: Where a planned run keeps the data root of its plan, which is no part of a run.
_ROOT = "_data_root"


#: Options that say how a command prints, which a program does not.
_OF_COMMANDS = {"as_json", "stage", "follows", "shown_as"}


class RunsFailed(RuntimeError):
    """Some runs or evaluations have no record; those that were finished are kept.

    Attributes:
        results: the folder with what is there.
    """

    def __init__(self, message: str, results: Results):
        super().__init__(message)
        self.results = results


Given = ParamSpec("Given")


def _noted(function: Callable[Given, Plan]) -> Callable[Given, Plan]:
    """A function that plans, with the data root noted in each run for `execute`."""

    @wraps(function)
    def planning(*given: Given.args, **named: Given.kwargs) -> Plan:
        planned = function(*given, **named)
        for run in planned.runs:
            vars(run)[_ROOT] = planned.data_root
        return planned

    return planning


plan = _noted(sweep.plan)


def execute(run: Run, setting: RuntimeConfig | None = None) -> "TrainingOutput":
    """Train and score one run in this process; nothing is stored.

    Args:
        run: from `plan`; data come from the folder that the plan was given, if any.
        setting: how and where; a data root in it comes first.

    Raises:
        ConfigError: if data, weights or device are not available.
        FloatingPointError: if the loss is no longer finite.
    """
    from peftbench.training import trainer

    setting = setting or RuntimeConfig()
    if setting.data_root is None:
        setting = replace(setting, data_root=vars(run).get(_ROOT))
    return trainer.execute(run, setting)


def run(
    *what: str | Plan,
    results: str | Path = "results/runs",
    configs: str | Path | None = None,
    **options: Any,
) -> Results:
    """Train what has no record in a folder, as `peftbench run` does: worker processes, resume.

    Args:
        what: overrides, or one plan.
        results: the folder.
        configs: as of `plan`.
        options: of `core.plan.RunOptions`, such as workers=2, save_weights=True, quiet=True;
            dry_run=True checks everything and trains nothing.

    Returns:
        The folder, with the records of these runs and all others there.

    Raises:
        ConfigError: for bad input, before anything is done.
        RunsFailed: if some runs have no record at the end.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    return _done(what, results, configs, options, train=True)


def evaluate(
    *what: str | Plan,
    results: str | Path = "results/runs",
    configs: str | Path | None = None,
    **options: Any,
) -> Results:
    """Evaluate kept weights by the suites that overrides name, as `peftbench evaluate` does.

    Args:
        what, results, configs, options: as of `run`; overrides name suite=….

    Raises:
        ConfigError: for bad input, and for runs that have no record.
        RunsFailed: if some evaluations were not made.
        KeyboardInterrupt: after Ctrl-C; the same call goes on.
    """
    return _done(what, results, configs, options, train=False)


def _done(
    what: tuple[str | Plan, ...],
    folder: str | Path,
    configs: str | Path | None,
    options: dict[str, Any],
    train: bool,
) -> Results:
    from peftbench.results import status
    from peftbench.runner import sweep as runner

    for name in _OF_COMMANDS & options.keys():
        raise TypeError(f"run() and evaluate() have no option {name}")
    results = Results(folder)
    how = RunOptions(**options, shown_as="peftbench.run in a program")
    if not what:
        raise ConfigError("name the runs, for example peftbench.run('sweep=quickstart')")
    if len(what) == 1 and isinstance(what[0], Plan):
        planned = what[0]
    else:
        planned = plan(*map(str, what), configs=configs, results=folder)
    if not train and not planned.evaluations:
        raise ConfigError("no suite given; add for example 'suite=noise,calibration'")
    if runner.do_plan(planned, results, how, train):
        raise KeyboardInterrupt("stopped; finished runs are kept; the same call resumes")
    if how.dry_run:
        return results
    if lines := runner.missing(status.sweep_status(planned, results)):
        raise RunsFailed("; ".join(lines), results)
    return results
