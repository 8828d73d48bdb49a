"""How long a pilot will take, before it starts."""

from collections.abc import Iterable
from dataclasses import replace

from peftbench.core.run import Run
from peftbench.core.text import count_of, format_duration
from peftbench.core.tuning import FRACTION
from peftbench.pilot.design import SHARES, PilotDesign
from peftbench.pilot.final_model import results_of
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.system.hardware import cores, devices


def estimate(found: PilotDesign, results: ResultsFolder, device: str) -> str:
    """A sentence on all trainings of a pilot and the time that they take, finished ones included.

    Args:
        found: the pilot.
        results: the folder, whose records say how fast runs are here.
        device: as of `peftbench run`.
    """
    request, runs = found.request, found.plan.runs
    inside = 1 - FRACTION
    curves = len(found.methods) if request.every_curve else min(2, len(found.methods))
    per_method = len(runs) / len(found.methods)
    trials = len(runs) * request.rates if request.rates > 1 else 0
    points = round(curves * per_method / request.repeats * len(SHARES))
    last = results_of(results)
    folders = (results, results.trials(), last, last.trials())
    records = [record for one in folders for record in one.scan()[0]]
    final = 1 + (request.rates if request.rates > 1 else 0)
    forecast = Forecast(records)
    gpus = devices(device)
    whole = [_seconds(found, run, 1.0, forecast) for run in runs]
    parts = [
        (trials, [_seconds(found, run, inside, forecast) for run in runs]),
        (len(runs), whole),
        (final, whole),
        *(
            (points // len(SHARES), [_seconds(found, run, share, forecast) for run in runs])
            for share in SHARES
        ),
    ]
    made = ", ".join(
        count_of(count, f"{what} run")
        for count, what in (
            (trials, "tuning"),
            (len(runs), "cross-validation"),
            (points, "learning-curve"),
            (final, "final"),
        )
        if count
    )
    total = 0.0
    for count, times in parts:
        known = [time for time in times if time is not None]
        if not known and count:
            return f"{made}; their time is not known before"
        total += count * sum(known) / max(1, len(known))
    done = len(records)
    how = "from the speeds of records here" if done else "from shipped step times"
    where = "this GPU" if gpus and done else f"{count_of(cores(), 'core')} of this CPU"
    faster = "; a GPU is many times faster" if gpus and not done else ""
    counted_too = (
        f"; the time includes what is done: this folder holds {count_of(done, 'training')}"
        if done
        else ""
    )
    return (
        f"{made} (for the model that is exported after go); all of it takes about "
        f"{format_duration(total)} on {where}, {how}{faster}{counted_too}"
    )


def counted(found: PilotDesign, runs: Iterable[Run]) -> list[Run]:
    """Runs whose task has the counts of its fold, to estimate times by; their keys are others."""
    held = found.rows / found.request.folds
    examples = {"train": round(found.rows - held), "validation": round(held)}
    return [replace(run, task=replace(run.task, examples=examples)) for run in runs]


def _seconds(found: PilotDesign, run: Run, share: float, forecast: Forecast) -> float | None:
    """Of a run with a share of the training rows of its fold."""
    (known,) = counted(found, [run])
    known = replace(known, size=max(1, round(share * known.task.examples["train"])))
    measured = forecast.seconds(known)
    if measured is not None:
        return measured
    return forecast.rough(known)
