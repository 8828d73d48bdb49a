"""Which training examples a run trains on, selects on, keeps for demonstrations, and leaves.

The one place where train is cut, so that what is held out for one purpose is seen by no other.
Where `task.folds` keeps groups of rows together, they are together here too: a group is trained on,
or selected on, as a whole.
"""

from dataclasses import dataclass

import numpy as np

from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import loading, prompt_config


@dataclass(frozen=True)
class TrainingRows:
    """Numbers of training examples, disjoint.

    Attributes:
        train: to train on.
        selection: held out to choose the best evaluation on.
        reserved: kept back for demonstrations.
        unused: all others, but those of a group of which some are used.
    """

    train: np.ndarray
    selection: np.ndarray
    reserved: np.ndarray
    unused: np.ndarray

    @property
    def held(self) -> np.ndarray:
        """What no step of the training saw: the unused, or where there are none the selection."""
        return self.unused if len(self.unused) else self.selection


def split_training(
    run: Run,
    label: np.ndarray,
    selection: CheckpointSelection | None = None,
    seed: int | None = None,
) -> TrainingRows:
    """Cut the training examples of a run.

    Args:
        run: says how many it wants, which prompt and which selection it has.
        label: (examples,) labels of all training examples.
        selection: in place of the run's.
        seed: of the subset, in place of the run's.

    Raises:
        ConfigError: if there are fewer examples than asked for, or none to train or select on.
    """
    selection = run.checkpoint_selection if selection is None else selection
    seed = run.seeds()["subset"] if seed is None else seed
    order = loading.stratified(label, run.task.classes, seed)
    reserved = prompt_config.reserved(run, label)
    first, rest = (
        part[~np.isin(part, reserved)] for part in np.split(order, [run.train_size(len(label))])
    )
    held = selection.held_of(len(first))
    again = first[loading.stratified(label[first], run.task.classes, seed + 1)]
    group = loading.training_groups(run.task)
    place = np.arange(len(again))
    if group is not None:
        rest = rest[~np.isin(group[rest], group[first])]
        if held:
            again, place = _together(again, group)
    start = selection.start_of(len(first))
    out = (start <= place) & (place < start + held)
    if held and (out.all() or not out.any()):
        raise ConfigError(
            f"{run.task.name}: groups of rows that stay together (task.group, near duplicates) "
            f"are so large that nothing is left to {'train' if out.all() else 'select'} on"
        )
    return TrainingRows(again[~out], again[out], reserved, rest)


def _together(rows: np.ndarray, group: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows with those of a group side by side, and for each the place of its group's first."""
    _, firsts, numbers = np.unique(group[rows], return_index=True, return_inverse=True)
    order = np.argsort(firsts[numbers], kind="stable")
    new = np.r_[True, np.diff(numbers[order]) != 0]
    return rows[order], np.flatnonzero(new)[np.cumsum(new) - 1]
