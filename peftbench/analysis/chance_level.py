"""The calibration error that evaluations would have by chance, from their runs' predictions."""

from dataclasses import replace

from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record
from peftbench.metrics import uncertainty
from peftbench.results.predictions import Load


def with_chance_level(found: list[Evaluated], tested: list[Record], load: Load) -> list[Evaluated]:
    """Evaluations of calibration with `by_chance` beside `ece`, where predictions can be read.

    Args:
        found: evaluations by any suites.
        tested: records whose predictions can be read.
        load: predictions of a record.
    """
    by_key = {record.run.key: record for record in tested}
    return [_with(one, by_key, load) for one in found]


def _with(one: Evaluated, by_key: dict[str, Record], load: Load) -> Evaluated:
    record = by_key.get(one.evaluation.run.key)
    if one.evaluation.kind != "Calibration" or record is None or "before" not in one.findings:
        return one
    scores, told = load(record)["scores"], dict(one.findings)
    for name, temperature in (("before", 1.0), ("after", told["temperature"])):
        if temperature is not None:
            logs = uncertainty.log_probabilities(scores / temperature)
            chance = uncertainty.calibration_error_by_chance(logs)
            told[name] = told[name] | {"by_chance": chance}
    return replace(one, findings=told)
