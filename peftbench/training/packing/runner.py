"""Runs that a worker got together: trained in a pack, with the costs that each has alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from peftbench.core.run import Json, Record, Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.methods.base import build_method
from peftbench.results.store import ResultsFolder
from peftbench.training import cost_model, measurement, trainer
from peftbench.training.device import device_of
from peftbench.training.loop import Requests
from peftbench.training.packing.pack import Pack
from peftbench.training.trainer import TrainingJob
from peftbench.training.warm_cache import WarmCache

End = trainer.TrainingOutput | Exception


def train(
    runs: list[Run],
    setting: RuntimeConfig,
    results: ResultsFolder,
    warm: WarmCache,
    enter: Callable[[Run], bool],
    report: Callable[[Run, Json], None],
    stop: Callable[[], bool],
    tell: Callable[[str], None],
) -> Iterator[tuple[Run, End]]:
    """Train runs of one group; each comes when it is over, with its outcome or why it has none.

    Args:
        runs: that `runner.packs.together` calls one.
        setting: with the size of the pack.
        results: for checkpoints and calibrations.
        warm: of the worker.
        enter: asked when a run's turn comes; a run that is refused is left out.
        report: told how far a run is.
        stop: asked whether to write checkpoints and leave.
        tell: called with how many share a pass, and with what keeps them from it.
    """

    def about(run: Run) -> dict[str, Any]:
        told = partial(report, run)
        return {"results": results, "warm": warm, "report": told, "stop": stop}

    def packed(run: Run) -> Requests[trainer.TrainingOutput]:
        job = TrainingJob(run, setting, steps=cost.steps(run), alike=True, **about(run))
        return trainer.requests_of(job)

    def alone(run: Run) -> Record:
        return trainer.execute(
            run, replace(setting, save_weights=False), warm=warm, stop=stop
        ).record

    device = device_of(setting)
    if not build_method(
        runs[0].method
    ).supports_packing:  # one after the other, each with costs of its own
        for run in filter(enter, runs):
            try:
                yield run, trainer.execute(run, setting, **about(run))
            except Exception as error:
                yield run, error
        return
    try:
        cost = cost_model.known(runs[0], device, results, alone, setting.trial, stop)
    except Exception as error:  # what it fails of, they all would
        yield from ((run, error) for run in runs if enter(run))
        return
    by_key = {run.key: run for run in runs}
    measurement.release_memory(device)
    waiting = ((run.key, packed(run)) for run in runs if enter(run))
    pack: Pack[trainer.TrainingOutput] = Pack(device, min(setting.pack, len(runs)), tell)
    for left in pack.train(waiting):
        run = by_key[left.key]
        if left.error is not None:
            yield run, left.error
        else:
            assert left.end is not None
            record = cost.costs(left.end.record, left.shared)
            how = {"graphs": left.graphs} if device.type == "cuda" else {}
            how |= {"pack": left.notes} if left.notes else {}
            record = replace(record, environment=record.environment | how)
            yield run, replace(left.end, record=record)
