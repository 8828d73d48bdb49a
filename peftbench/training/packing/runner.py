"""Runs that a worker got together: trained in a pack, with the costs that each has alone."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from peftbench.core.arrays import Arrays
from peftbench.core.run import Json, Record, Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.methods.base import build_method
from peftbench.results.store import ResultsFolder
from peftbench.training import cost_model, measurement, trainer
from peftbench.training.device import device_of
from peftbench.training.packing.pack import Pack
from peftbench.training.packing.requests import ForwardRequests, PredictRequest, StepRequest
from peftbench.training.predictor import PredictionOutOfMemory
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

    def packed(run: Run) -> ForwardRequests[trainer.TrainingOutput]:
        return drive(TrainingJob(run, setting, steps=cost.steps(run), alike=True, **about(run)))

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
        cost = cost_model.known(runs[0], device, results, alone, setting.trial)
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


def drive(job: TrainingJob) -> ForwardRequests[trainer.TrainingOutput]:
    """What `trainer.execute` does, yielding each gradient and prediction to be computed."""
    micro = job.run.train.micro_batch_size
    while True:
        try:
            return (yield from _attempt(job, micro))
        except torch.OutOfMemoryError as error:
            if isinstance(error, PredictionOutOfMemory):
                raise
            smaller = trainer.smaller_micro_batch(job, micro)
            if smaller is None:
                raise
        micro = smaller
        measurement.release_memory(device_of(job.setting))  # what the error held is free by now


def _attempt(job: TrainingJob, micro: int | None) -> ForwardRequests[trainer.TrainingOutput]:
    prepared = trainer.prepare(job, micro)
    training = prepared.training

    def predict(split: str, rows: np.ndarray) -> ForwardRequests[Arrays]:
        prepared.seed_sampling()
        with prepared.in_unit():
            found = yield PredictRequest(training, prepared.data.tokens[split], rows)
        assert isinstance(found, dict)
        return found

    while not training.done:
        batch = training.next_batch()
        loss = yield StepRequest(training, batch, micro)
        assert isinstance(loss, Tensor)
        training.advance(batch, loss)
        if training.evaluation_due:
            with training.evaluating():
                split, rows = prepared.curve_rows()
                outputs = yield from predict(split, rows)
                scores = prepared.score(split, rows, outputs)
            training.add_evaluation(scores)
        training.checkpoint_if_due()
    training.finish()
    with prepared.reporting():
        predictions = {}
        for name, rows in prepared.unreported().items():
            predictions[name] = yield from predict(name, rows)
    return prepared.outcome(predictions)
