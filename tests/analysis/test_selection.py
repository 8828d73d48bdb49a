"""One language of conditions, on the runs of plans and on records."""

import pytest
import records
import suite_records

from peftbench.analysis import selection
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

WORDS = (
    *("method=lora,sparse_adapter", "task=synthetic_paraphrase,synthetic_similarity"),
    *("size=32,0.5,full", "seed=0-2", "train.lr=1e-3,2e-3"),
)

#: Conditions, and how many of the 72 runs they hold for.
COUNTS = {
    "method=lora": 36,
    "method!=lora": 36,
    "seed<2": 48,
    "seed>=1 seed<=1": 24,
    "lr>1e-3": 36,
    "lr=1e-3,2e-3": 72,
    "size=32": 24,
    "size=1500": 24,  # half of 3,000
    "size>=1500": 48,
    "size=full": 24,
    "size=0.5": 24,
    "task=synthetic_paraphrase method=lora seed=0": 6,
    "run.method.rank=8 seed=2": 12,
    "base_method=adapter": 36,
    "base_method=none": 36,
    "prompt=head augmentation=none": 72,
}


@pytest.fixture(scope="module")
def planned():
    return plan(*records.tiny(*WORDS))


@pytest.fixture(scope="module")
def results(planned, tmp_path_factory):
    folder = ResultsFolder(tmp_path_factory.mktemp("selection") / "runs")
    for run in planned.runs:
        folder.save(records.record(run), records.predictions())
    return folder


@pytest.mark.parametrize("where", COUNTS)
def test_a_condition_holds_for_the_same_runs_of_a_plan_and_of_records(planned, results, where):
    chosen = selection.of_plan(planned, where)
    assert len(chosen.runs) == chosen.cells == COUNTS[where]
    assert {run.key for run in chosen.runs} == selection.keys(results, where)


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("method=lorra", "leaves no run; did you mean lora"),
        ("metod=lora", "no run has a field metod; did you mean method"),
        ("lora", "is no condition; write FIELD=VALUE"),
        ("seed>many", "'many' is no number"),
        ("method>lora", "takes a field of numbers"),
        ("'seed=0", "No closing quotation"),
    ],
)
def test_bad_conditions_are_refused_alike(planned, results, where, said):
    for select in (
        lambda: selection.of_plan(planned, where),
        lambda: selection.keys(results, where),
    ):
        with pytest.raises(ConfigError, match=said):
            select()


def test_evaluations_follow_their_runs(results):
    both = plan(*records.tiny("method=lora,bitfit", "suite=noise"))
    assert len(both.evaluations) == 2
    (one,) = selection.of_plan(both, "method=bitfit").evaluations
    assert one.run.method.name == "bitfit"
    found = [suite_records.noisy(one, 0.5) for one in both.evaluations]
    kept, evaluated = selection.of_records(results, results.scan()[0], found, "seed=0 method=lora")
    assert len(kept) == 12
    assert evaluated == []  # its run has no record here


def test_no_conditions_leave_everything(planned, results):
    assert selection.of_plan(planned, "") is planned
    found = results.scan()[0]
    assert selection.of_records(results, found, [], "") == (found, [])
