"""The contract of suites, which are found by listing their files; none is named here."""

import json
from functools import cache

import pytest
from paths import GOLDEN

from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.configs import class_name
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.evaluation import continual, evaluator
from peftbench.reports import registry
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.system import yaml_files
from peftbench.training.trainer import execute

FILES = catalog.options("suite", (catalog.packaged(),))
TASKS = catalog.options("task", (catalog.packaged(),))

#: By suite an evaluation's overrides and key, and the kinds of tasks that are not refused.
PINNED = json.loads((GOLDEN / "suite_keys.json").read_text())

#: An encoder and a language model, with and without a prompt.
MODELS = (
    ("model=tiny",),
    ("model=tiny", "prompt=words"),
    ("model=tiny", "model.family=gpt2", "prompt=words"),
    ("model=tiny", "model.family=gpt2"),
)

#: Budget and length of what is trained here.
BRIEF = ("train.max_length=16", "budget=steps", "budget.steps=4", "train.num_evals=1")


@pytest.fixture(params=FILES)
def suite(request):
    """The name of a packaged suite."""
    return request.param


def read(group: str, name: str) -> dict:
    return yaml_files.read_mapping({"suite": FILES, "task": TASKS}[group][name], resolve=False)


@cache
def kinds() -> tuple[str, ...]:
    """The first task of each kind, data of the user's own left out."""
    found: dict[str, str] = {}
    for name in TASKS:
        node = read("task", name)
        if "dataset" not in node and "path" not in node:
            found.setdefault(node["kind"], name)
    return tuple(found.values())


@cache
def planned(*words: str) -> Evaluation | Run | str:
    """The evaluation that words mean, the run without a suite in them, or why it is refused."""
    try:
        found = plan(*words, ask_hub=False)
    except ConfigError as error:
        return str(error)
    return (found.evaluations or found.runs)[0]


def outcomes(suite: str, task: str) -> list[Evaluation | str]:
    """Evaluations of runs on a task, or why they are refused; what is no run is left out."""
    runs = [
        words for model in MODELS if isinstance(planned(*(words := (*model, f"task={task}"))), Run)
    ]
    return [planned(*words, f"suite={suite}") for words in runs]


def accepted(suite: str, *, packaged_data: bool) -> tuple[str, ...] | None:
    """Words of a run that the suite makes sense of; None where no task has such data."""
    known = read("suite", suite).get("tasks") or {}
    for task in known or TASKS:
        if ("synthetic" in read("task", task).get("source", ())) is packaged_data:
            for model in MODELS:
                words = (*model, f"task={task}")
                if isinstance(planned(*words, *BRIEF, f"suite={suite}"), Evaluation):
                    return words
    return None


def test_its_file_says_what_it_is_for(suite):
    node = read("suite", suite)
    assert node["name"] == suite
    for key in ("about", "question", "outcome"):
        assert len(node[key]) > 10, key


@pytest.mark.parametrize("task", kinds())
def test_a_run_is_evaluated_or_refused_in_a_sentence_that_names_the_suite(suite, task):
    """Before anything is loaded; what no run can be is not its matter."""
    name = class_name(read("suite", suite)["_target_"]).lower()
    assert outcomes(suite, task)
    for found in outcomes(suite, task):
        if isinstance(found, str):
            start, _, advice = found.partition("; ")
            assert start.startswith((f"{suite}: ", f"{name}: ")), found
            assert len(advice) > 10, found
        else:
            assert (found.suite["name"], found.run.task.name) == (suite, task)


def test_an_evaluation_has_its_own_key_and_keeps_it(suite):
    words = accepted(suite, packaged_data=True) or accepted(suite, packaged_data=False)
    first, other = (planned(*words, f"seed={seed}", f"suite={suite}") for seed in (0, 1))
    run = planned(*words, "seed=0")
    assert first.run == run
    assert len({first.key, other.key, run.key}) == 3
    node = dict(reversed(first.suite.items()))  # neither the order nor what people read counts
    assert Evaluation(run, node | {"about": "another", "_target_": "moved.Class"}).key == first.key
    assert Evaluation.from_json(json.loads(json.dumps(first.to_json()))) == first
    assert Evaluation(run, first.suite | {"seed": 7}).key != first.key


@pytest.mark.parametrize("name", PINNED)
def test_pinned_suites_keep_their_keys_and_refuse_the_same_kinds_of_tasks(name):
    pinned = PINNED[name]
    assert planned(*pinned["overrides"]).key == pinned["key"]
    found = [
        read("task", task)["kind"]
        for task in kinds()
        if any(isinstance(one, Evaluation) for one in outcomes(name, task))
    ]
    assert found == pinned["kinds"]


def test_missing_data_are_refused_before_any_training(suite, tmp_path):
    words = accepted(suite, packaged_data=False)
    evaluation = planned(*words, f"suite={suite}")
    with pytest.raises(ConfigError) as refused:
        base.build_suite(evaluation.suite).check_data(evaluation.run, str(tmp_path))
    assert str(tmp_path) in str(refused.value)


@pytest.mark.slow
def test_it_finds_what_can_be_kept_and_shown(suite, tmp_path):
    words = accepted(suite, packaged_data=True)
    if words is None:
        pytest.skip("its tasks are data sets of the hub")
    evaluation = planned(*words, *BRIEF, f"suite={suite}")
    run, results = evaluation.run, ResultsFolder(tmp_path)
    outcome = execute(run, RuntimeConfig(save_weights=True))
    results.save(outcome.record, outcome.predictions, outcome.trained)
    trains = base.build_suite(evaluation.suite).trains
    do = continual.run_continual if trains else evaluator.evaluate_suite
    done, arrays = do(evaluation, results)
    results.save_evaluated(done, arrays)
    kept = results.evaluated(evaluation.key)
    known = done.to_json() | {"predictions_sha256": kept.predictions_sha256}  # of what was written
    assert kept.to_json() == known
    assert (kept.evaluation, bool(kept.headline)) == (evaluation, True)
    report = registry.of_suite(evaluation.kind)
    tables = report.tables([kept], {run.key: outcome.record.parameters["trained"]})
    assert [table for table in tables if table.rows]
