"""What a configuration costs alone: packed runs share passes, so no time or memory is their own.

Twelve steps and one evaluation are run alone, by the code that runs everything, and kept in the
results folder's cache for the next runs of the configuration on this machine. Costs of a packed run
follow from them: its padded tokens, the examples that it is evaluated on. A budget of seconds that
is `calibrated` becomes as many steps as fit by the same figures.
"""

import json
import time
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

import torch

from peftbench.core.configs import Budget, CheckpointSelection
from peftbench.core.run import Json, Record, Run, canonical, key_of_text
from peftbench.results.store import ResultsFolder
from peftbench.training import measurement
from peftbench.training.precision import resolve_precision
from peftbench.training.session import TrainingInterrupted

STEPS = 12


@dataclass(frozen=True)
class CostModel:
    """What was measured.

    Attributes:
        name: of the configuration on this machine, 12 hexadecimal digits.
        step: seconds of a step.
        token: seconds of training for each padded token.
        example: seconds of evaluations for each example.
        memory: peak bytes by phase, as in a record.
    """

    name: str
    step: float
    token: float
    example: float
    memory: Json

    def steps(self, run: Run) -> int | None:
        """The steps that a run's calibrated seconds buy; None for any other budget."""
        if not run.budget.calibrated:
            return None
        assert run.budget.seconds is not None
        return max(1, round(run.budget.seconds / self.step))

    def costs(self, record: Record, shared: Iterable[str]) -> Record:
        """A packed run's record with the costs it would have had alone.

        Args:
            record: as it came out of the pack.
            shared: keys of the runs that it shared passes with.
        """
        train = self.token * record.work["padded_tokens"]
        evaluate = self.example * record.work["evaluated"]
        last = record.work["steps"]
        return replace(
            record,
            seconds=record.seconds | {"train": train, "evaluate": evaluate},
            speed={
                "examples_per_second": record.work["examples"] / train,
                "tokens_per_second": record.work["tokens"] / train,
            },
            memory=self.memory,
            energy_joules=None,
            curve=[point | {"seconds": train * point["step"] / last} for point in record.curve],
            work=record.work | {"packed_with": " ".join(shared), "calibration": self.name},
            environment=record.environment | {"packed": True},
        )


def known(
    run: Run,
    device: torch.device,
    results: ResultsFolder | None,
    alone: Callable[[Run], Record],
    trial: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> CostModel:
    """The calibration of a run's configuration, measured now unless it is kept.

    Args:
        run: any run of the configuration.
        device: where.
        results: whose cache keeps it; None measures again.
        alone: executes a run alone.
        trial: whether it does so as a trial.
        stop: asked whether to leave while another process measures it.

    Raises:
        TrainingInterrupted: after `stop`.
    """
    here = measurement.environment(device)
    where = [here[name] for name in ("device", "threads", "deterministic", "libraries", "commit")]
    where.append(resolve_precision(run.train.precision, device))
    shape = [*run.step_shape(), where, *(["trial"] if trial else [])]
    name = key_of_text(canonical(shape))
    if results is None:
        return _measured(run, name, alone, trial)
    path = results.cache(f"calibration-{name}.json")
    told = False
    while not results.claim(name):  # another worker is at it, and both are to name the same
        if stop():
            raise TrainingInterrupted("stopped while another process measured its speed")
        if not told:  # a claim that nobody holds any more may have to be removed by hand
            told = True
            warnings.warn(
                f"waits while another process measures its speed: {results.claimed_by(name)}",
                stacklevel=2,
            )
        time.sleep(0.2)
    try:
        if path.exists():
            try:
                return CostModel(**json.loads(path.read_bytes()))
            except (ValueError, TypeError):  # a cache: it is made again
                path.unlink()
        found = _measured(run, name, alone, trial)
        results.write(path, json.dumps(asdict(found)).encode())
        return found
    finally:
        results.release(name)


def _measured(run: Run, name: str, alone: Callable[[Run], Record], trial: bool) -> CostModel:
    short = replace(
        run,
        budget=Budget(steps=STEPS),
        train=replace(run.train, num_evals=1),
        checkpoint_selection=run.checkpoint_selection if trial else CheckpointSelection(),
    )
    record = alone(short)
    train = record.seconds["train"]
    return CostModel(
        name=name,
        step=train / STEPS,
        token=train / record.work["padded_tokens"],
        example=record.seconds["evaluate"] / record.work["evaluated"],
        memory=record.memory,
    )
