"""Estimates without records: from shipped step times and lengths of texts."""

import json

import pytest

from peftbench.config.sweep import plan
from peftbench.data import loading, tokenization
from peftbench.data.tokenizer import load_tokenizer
from peftbench.results import runtime_estimates
from peftbench.results.runtime_estimates import TEXT_TOKENS, Forecast
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder

KNOWN = json.loads(TEXT_TOKENS.read_text())


@pytest.fixture(autouse=True)
def bf16(monkeypatch):
    """A CPU that multiplies bf16, whatever this one does."""
    monkeypatch.setattr(runtime_estimates, "bf16_on_cpu", lambda: True)


def test_without_bf16_passes_take_longer(monkeypatch):
    words = ("task=mrpc", "model=minilm", "method=bitfit", "size=1000")
    auto, full = (plan(*words, f"train.precision={p}").runs[0] for p in ("auto", "fp32"))
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 1)
    fast, slow = Forecast([]).rough(auto) - 2, Forecast([]).rough(full) - 2
    assert slow == pytest.approx(1.5 * fast)
    monkeypatch.setattr(runtime_estimates, "bf16_on_cpu", lambda: False)
    assert Forecast([]).rough(auto) - 2 == pytest.approx(3 * fast)


@pytest.mark.parametrize("task", [name for name in KNOWN if name.startswith("synthetic")])
def test_shipped_lengths_are_those_of_the_texts(task):
    (run,) = plan(f"task={task}", "model=minilm").runs
    texts = loading.load_split(run.task, "train", None)
    tokens = tokenization.encode(texts, load_tokenizer(run.model), run.train.max_length)
    assert KNOWN[task] == pytest.approx(tokens.lengths.mean(), abs=0.1)


def test_short_texts_take_less_and_a_run_takes_some_seconds_beside(monkeypatch):
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 1)
    words = ("model=minilm", "method=bitfit", "size=100", "train.num_evals=1")
    words += ("budget=epochs", "budget.epochs=10")
    seconds = {
        task: Forecast([]).rough(plan(f"task={task}", *words).runs[0])
        for task in ("cola", "mrpc", "mnli")
    }
    # 1,000 examples and the reporting split: 1.04 steps of two passes each, then one pass
    passes = {"cola": 2 * 1.04 * 1000 + 1043, "mrpc": 2 * 1.04 * 1000 + 408}
    for task, tokens in (("cola", 11.5), ("mrpc", 53.3)):
        expected = passes[task] * 0.283 / 32 * (tokens + 11) / 61 + 2
        assert seconds[task] == pytest.approx(expected, rel=0.02)
    short = plan("task=mnli", *words, "train.max_length=16").runs[0]
    assert Forecast([]).rough(short) < 0.6 * seconds["mnli"]  # a length that was not measured


@pytest.mark.parametrize("model", ["bert_base", "roberta_base", "mpnet_base", "deberta_v3_base"])
def test_packaged_models_of_a_size_take_the_same_time(model, monkeypatch):
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 1)
    words = ("task=mrpc", "size=1000", "method=lora")
    small, large = (plan(f"model={name}", *words).runs[0] for name in ("minilm", model))
    assert (Forecast([]).rough(large) - 2) / (Forecast([]).rough(small) - 2) == pytest.approx(8)


def test_texts_that_are_written_take_many_passes(monkeypatch):
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 1)
    words = ("model=smollm2_135m", "method=lora", "task=socialqa", "size=500", "train.num_evals=1")
    trained, untrained = (
        Forecast([]).rough(plan(*words, *budget).runs[0]) - 2
        for budget in (("budget=epochs", "budget.epochs=1"), ("budget=steps", "budget.steps=0"))
    )
    # 500 texts of the reporting split took 0.6 CPU seconds each
    assert untrained == pytest.approx(500 * 0.6, rel=0.25)
    assert untrained / trained == pytest.approx(9 / (9 + 2 * 1.12))


def test_rows_of_a_users_own_file_are_known_when_it_is_planned(tmp_path, monkeypatch):
    """300 rows, of which 240 train and 60 are scored; trials hold out a fourth of the 240."""
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 1)
    path = tmp_path / "tickets.csv"
    rows = (f"text {n} of some words,{'no' if n % 2 else 'yes'}\n" for n in range(300))
    path.write_text("sentence,label\n" + "".join(rows))
    words = ("method=bitfit", "model=minilm", "train.num_evals=1", "budget=epochs")
    found = plan("task=file", f"task.path={path}", *words, "budget.epochs=10", "size=full,0.5")
    assert [*found.rows.values()] == [{"train": 240, "validation": 60}]
    seconds = [Forecast([], found.rows).rough(run) - 2 for run in found.runs]
    each = 0.283 / 32
    expected = [each * (2 * 1.04 * 10 * size + 60) for size in (240, 120)]
    assert seconds == pytest.approx(expected, rel=0.02)
    assert Forecast([]).rough(found.runs[0]) is None
    assert sweep_status(found, ResultsFolder(tmp_path)).summary().count("roughly") == 1


def test_runs_of_a_budget_in_seconds_go_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(runtime_estimates, "cores", lambda: 16)
    words = ("budget=seconds", "budget.seconds=60", "train.lr=1e-3")

    def told(*seeds):
        given = plan("method=lora", "task=mrpc", *words, *seeds)
        return sweep_status(given, ResultsFolder(tmp_path)).summary().splitlines()[-1]

    assert "roughly 78 s" in told("seed=range(0,20)")  # 20 of 62 s on 16 cores
    assert "roughly 60 s" in told("seed=0")  # alone it takes no less
