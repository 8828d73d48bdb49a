"""The learning rates that were chosen, one sealed file each in `choices/` of a results folder."""

import math
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from peftbench.core.errors import ClosedFileError, ConfigError, OtherSchemaError, RecordError
from peftbench.core.run import Run
from peftbench.core.tuning import Choice, other_settings, subject
from peftbench.results.store import ResultsFolder
from peftbench.system import io

#: Letters of each word in the name of a file, which may have 255 bytes; its key tells cells apart.
_LETTERS = 40


def all_choices(results: ResultsFolder) -> list[Choice]:
    """Every choice of a folder, by the name of its file.

    Raises:
        RecordError: if one cannot be read, with what to do.
    """
    good, bad = scan(results)
    for reason in bad.values():
        raise RecordError(reason)
    return good


def scan(results: ResultsFolder) -> tuple[list[Choice], dict[str, str]]:
    """The choices that can be read, as `all_choices`; what is wrong with the others, by key."""
    good, bad = [], {}
    for path in sorted(results.choices().glob("*.json")):
        with suppress(FileNotFoundError):  # removed since it was listed
            try:
                good.append(_read(path))
            except RecordError as error:
                bad[path.stem.rpartition("-")[2]] = str(error)
    return good, bad


def _read(path: Path) -> Choice:
    try:
        data = io.unsealed(path)
    except (OtherSchemaError, ClosedFileError):  # it may be good work
        raise
    except RecordError as error:
        trials = path.parent.parent / "trials"
        raise RecordError(
            f"{error}; remove it, and `peftbench tune` makes it again from the trials in {trials}"
        ) from error
    try:
        return Choice.from_json(data)
    except RecordError as error:  # of another peftbench, and whole
        raise RecordError(f"{path}: {error}") from error


def find(results: ResultsFolder, key: str) -> Choice | None:
    """The choice for the cell with this key, see `core.tuning.subject`.

    Raises:
        RecordError: if its file cannot be read, with what to do.
    """
    for path in results.choices().glob(f"*-{key}.json"):
        return _read(path)
    return None


def answer_keys(results: ResultsFolder) -> set[str]:
    """The `answer_keys` of every choice of a folder; a torn one answers nothing."""
    return {key for choice in scan(results)[0] for key in choice.answer_keys}


def save(results: ResultsFolder, choice: Choice) -> None:
    """Write a choice, whole or not at all, in place of the one that its cell has.

    The name has the size as the key counts it: full, 1.0 and the number of all examples are one.

    Raises:
        OSError: if the disk is full or the folder cannot be written to.
    """
    run = choice.run
    words = (run.method.name, run.task.name, run.model.name, str(run.counted_size))
    name = "-".join(re.sub(r"[^A-Za-z0-9_.]", "_", word)[:_LETTERS] for word in words)
    path = results.choices() / f"{name}-{choice.key}.json"
    results.write(path, io.sealed(choice.to_json()))
    for other in results.choices().glob(f"*-{choice.key}.json"):
        if other != path:  # named otherwise by an older peftbench
            other.unlink(missing_ok=True)


def nearest(run: Run, choices: list[Choice]) -> Choice | None:
    """The choice for a run: of its cell, else of the nearest size; None if there is none.

    Model, method and task are the same in any case. Of several of one size it is that with the
    budget of the run, then that with most of its settings.
    """
    of_it = [choice for choice in choices if choice.is_of(run)]
    key = subject(run).key if of_it else ""
    return min(
        of_it, key=lambda choice: (choice.key != key, _distance(run, choice.run)), default=None
    )


def tuned(run: Run, choices: list[Choice]) -> tuple[Run, Choice]:
    """The run with the rate that was chosen for it, and that choice; see `nearest`.

    Raises:
        ConfigError: if there is none.
    """
    found = nearest(run, choices)
    if found is None:
        raise ConfigError(
            f"tuned=true: no learning rate was chosen for {run.method.name} on {run.task.name} "
            f"with {run.model.name}; `peftbench tune` with the same overrides chooses one"
        )
    return replace(run, train=replace(run.train, lr=found.rate)), found


def _distance(one: Run, other: Run) -> tuple[float, bool, int]:
    """How far apart the sizes are, as a ratio; whether budgets differ, and how many settings."""
    sizes = [run.counted_size for run in (one, other)]
    numbers = [float(size) for size in sizes if not isinstance(size, str)]
    apart = abs(math.log(numbers[0] / numbers[1])) if len(numbers) == 2 else math.inf
    far = 0.0 if sizes[0] == sizes[1] else apart
    return far, one.budget != other.budget, len(other_settings(one, other))
