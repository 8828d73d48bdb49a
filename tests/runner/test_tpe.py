"""Rates that Optuna proposes, with the real library; trainings are replaced by a formula."""

import math
import sys

import pytest
from click.testing import CliRunner
from records import plan, record, tiny

from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.core.tuning import Search, SearchSpace
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep, tune
from peftbench.runner.tpe import STARTUP, Proposals

SPACE = SearchSpace(1e-5, 1e-2, "a test")


def near(rate):
    """The best rate is 5e-4; large ones diverge."""
    return -math.inf if rate > 3e-3 else 0.9 - 0.2 * abs(math.log10(rate / 5e-4))


def proposed(count, score):
    found, rates = Proposals(SPACE), []
    for _ in range(count):
        rates.append(found.ask())
        found.tell(rates[-1], score(rates[-1]))
    return rates


def test_the_same_scores_give_the_same_rates_and_other_scores_others():
    rates = proposed(12, near)
    assert rates == proposed(12, near)
    assert len(set(rates)) == 12
    assert all(1e-5 <= rate <= 1e-2 for rate in rates)
    away = proposed(12, lambda rate: rate)  # the largest is the best
    assert rates[:STARTUP] == away[:STARTUP]
    assert max(away[STARTUP:]) > 5e-3
    assert sum(map(math.log, away)) > sum(map(math.log, rates))


def test_a_range_without_enough_rates_is_refused():
    found = Proposals(SearchSpace(1e-3, 1.001e-3, "a test"))
    found.tell(found.ask(), 0.5)
    with pytest.raises(ConfigError, match="too narrow for 2 different rates"):
        found.ask()


def search(folder, stop_after=None):
    """Search with trainings by formula, some of them at most; the code and what was trained."""
    trained = []

    def execute(todo, trials, options, gpus, halted):
        for run in todo.runs:
            if len(trained) == stop_after:
                return True
            score = near(run.train.lr)
            found = {"accuracy": 0.0 if score == -math.inf else score, "loss": 0.5}
            trials.save(record(run, selection=found), {})
            trained.append(run.key)
        return False

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sweep, "execute", execute)
        asked = plan(*tiny("method=lora,bitfit", "size=400"))
        how, options = Search(sampler="tpe"), RunOptions(device="cpu", quiet=True)
        return tune.tune(asked, ResultsFolder(folder), how, options), trained


def test_a_search_that_was_stopped_goes_on_with_the_same_rates(tmp_path):
    code, trained = search(tmp_path / "whole")
    whole = choices.all_choices(ResultsFolder(tmp_path / "whole"))
    assert code == 0
    assert [len(choice.trials) for choice in whole] == [6 + 2 * 2] * 2
    for choice in whole:
        assert choice.sampler == "tpe"
        assert len(choice.rates) == 6
        assert choice.rate == max(choice.rates, key=near)
    code, first = search(tmp_path / "part", stop_after=5)
    assert code == 130
    assert choices.all_choices(ResultsFolder(tmp_path / "part")) == []
    code, rest = search(tmp_path / "part")
    assert code == 0
    assert first + rest == trained
    assert choices.all_choices(ResultsFolder(tmp_path / "part")) == whole
    assert search(tmp_path / "part") == (0, [])  # chosen before


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["train.lr=1e-3,1e-2"], "leave train.lr= out"),
        (["--shard", "1/2"], "leave --shard out"),
    ],
)
def test_what_cannot_be_proposed_is_refused(tmp_path, more, told):
    words = ["tune", *tiny("method=lora"), *more, "--sampler", "tpe", "--results", str(tmp_path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert told in done.output


def test_without_optuna_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    words = ["tune", *tiny("method=lora"), "--sampler", "tpe", "--results", str(tmp_path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    assert "pip install 'peftbench[tpe]'" in done.output
