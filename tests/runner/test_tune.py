"""What is chosen from trials, and that a choice looks at nothing that is reported."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner
from records import ENVIRONMENT, plan, record, tiny

from peftbench.analysis import costs
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.core.plan import RunOptions
from peftbench.core.tuning import NAMED, TPE, UNREPORTED, Question, Search, Trial
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned
from peftbench.runner import sweep, tune


def trial(rate, score, seed=0, loss=0.5):
    return Trial("0" * 12, rate, 1000 + seed, None, 1, score, False, 1.0, loss)


def test_the_mean_over_seeds_decides_and_a_diverged_trial_loses():
    trials = [trial(1e-3, 0.9), trial(1e-3, 0.5, 1), trial(2e-3, 0.8), trial(2e-3, None, 1)]
    means = tune.mean_scores(trials)
    assert means[1e-3] == pytest.approx((0.7, -0.5))
    assert means[2e-3][0] == float("-inf")


def test_the_training_loss_decides_between_rates_at_which_all_trials_collapsed():
    trials = [
        trial(rate, 0.0, loss=loss) for rate, loss in ((1e-4, 0.62), (1e-3, 0.60), (1e-2, 0.65))
    ]
    means = tune.mean_scores(trials)
    assert max(means, key=means.get) == 1e-3
    better = tune.mean_scores([*trials, trial(1e-1, 0.1, loss=0.7)])
    assert max(better, key=better.get) == 1e-1


def test_rates_are_those_of_the_method_and_model_or_those_that_are_named():
    (question,) = tune.questions(plan(*tiny("method=lora", "seed=0,1")), Search(trials=4))
    assert len(question.rates) == 4
    assert 4e-5 <= min(question.rates) < max(question.rates) <= 4e-3
    assert "Hu et al." not in question.source  # no published space was at hand
    (wide,) = tune.questions(plan("model=minilm", "method=lora", "task=mrpc"), Search(trials=4))
    assert wide.rates == pytest.approx([3 * rate for rate in question.rates], rel=0.06)
    named = plan(*tiny("method=lora", "train.lr=2e-3,1e-3"))
    (question,) = tune.questions(named, Search())
    assert question.rates == [1e-3, 2e-3]


AROUND = ["mc_dropout", "sparse_adapter", "robust_partial", "bayes_hybrid"]


@pytest.mark.parametrize("method", AROUND)
def test_a_method_around_another_one_has_its_space(method):
    (question,) = tune.questions(plan(*tiny(f"method={method}")), Search())
    assert len(question.rates) == 6


def test_ranges_of_one_command_are_those_of_each_run():
    """LoRA's range is wider than the adapter's; two of six blocks want larger rates than all."""
    words = tiny("method=sparse_adapter", "method.base_method=adapter,lora", "method.score=random")
    adapter, lora = tune.questions(plan(*words), Search())
    assert max(adapter.rates) < 2e-3 < max(lora.rates) < 4e-3
    few, all_ = tune.questions(plan(*tiny("method=robust_partial,full")), Search())
    assert 3e-5 < min(few.rates) < 1e-4 < 5e-4 < max(few.rates) < 1e-3
    assert 1e-5 < min(all_.rates) < max(all_.rates) < 5e-5


@pytest.mark.parametrize("base", ["lora", "bitfit"])
def test_a_range_that_was_found_around_full_fine_tuning_is_of_that_alone(base):
    """LoRA's published 4e-4 was below it, BitFit's 1e-3 too."""
    around = tiny("method=robust_partial", f"method.base_method={base}", "method.choose=all")
    (found,), (alone,) = (
        tune.questions(plan(*words), Search()) for words in (around, tiny(f"method={base}"))
    )
    assert (found.rates, found.source) == (alone.rates, alone.source)
    (full,) = tune.questions(plan(*tiny("method=robust_partial")), Search())
    assert "results/tuning" in full.source


def test_a_range_of_a_wrapper_that_is_none_is_refused():
    words = tiny("method=robust_partial", "method.search={lr:[1e-4]}")
    with pytest.raises(ConfigError, match=r"recipe\.search is .*; write it as search"):
        plan(*words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("suite=noise",), "leave suite= out"),
        (("checkpoint_selection=best_on_holdout",), "leave checkpoint_selection out"),
        (("budget=steps", "budget.steps=0"), "trains nothing; name at least one step"),
    ],
)
def test_what_trials_have_no_use_for_is_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        tune.questions(plan(*tiny("method=lora", *words)), Search())


def test_what_is_not_trained_has_no_trials():
    words = tiny("method=lora", "budget=steps", "budget.steps=0,4")
    (question,) = tune.questions(plan(*words), Search())
    assert question.run.budget.steps == 4


def write_task(folder, poisoned):
    """A task of 80 texts that a word decides; its validation labels may be wrong throughout."""
    folder.mkdir()
    for split, count in (("train", 80), ("validation", 40)):
        flip = poisoned and split == "validation"
        rows = [
            {"sentence": f"{('bad', 'good')[n % 2]} text {n}", "label": (n + flip) % 2}
            for n in range(count)
        ]
        body = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(body)
    paths = [folder / f"{split}.jsonl" for split in ("train", "validation")]
    return [
        "task=file",
        "task.name=own",
        f"task.path={paths[0]}",
        f"task.validation_path={paths[1]}",
    ]


class Trained:
    """Gives each trial a score by its rate, or the failure that is due."""

    def __init__(self, scores, failures=None, environment=ENVIRONMENT):
        self.scores, self.failures, self.environment = scores, failures or {}, environment
        self.made = []

    def execute(self, todo, store, options, gpus, halted=None):
        """Store a record or a failure for each."""
        assert todo.trials
        for run in todo.runs:
            self.made.append((run.train.lr, run.seed))
            kind = self.failures.get((run.method.name, run.train.lr))
            if kind:
                store.fail(Failure(run, kind, "by the test", seconds=7.0))
            else:
                score = self.scores[run.train.lr]
                score = score[run.seed - 1000] if isinstance(score, list) else score
                held = dict.fromkeys(run.task.metrics, score) | {"loss": 0.5}
                made = record(run, selection=held, environment=self.environment)
                store.save(made, {})
        return False


def choose(monkeypatch, trained, folder, *words, search=None, **options):
    """The exit code of a search over trials of which the scores are known."""
    monkeypatch.setattr(sweep, "execute", trained.execute)
    search = search or Search(finalists=1, seeds=2)
    found = plan(*tiny("size=400", *words), results=folder)
    return tune.tune(found, ResultsFolder(folder), search, RunOptions(quiet=True, **options))


def test_a_second_search_adds_to_the_first_and_counts_what_both_cost(monkeypatch, tmp_path):
    scores = {1e-3: 0.8, 2e-3: 0.7, 1e-5: 0.5, 3e-3: [0.9, 0.85]}
    first = Trained(scores)
    assert choose(monkeypatch, first, tmp_path, "method=lora", "train.lr=1e-3,2e-3") == 0
    assert first.made == [(1e-3, 1000), (2e-3, 1000), (1e-3, 1001)]
    (before,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (before.rate, before.seconds) == (1e-3, 3 * 4.0)
    second = Trained(scores)
    assert choose(monkeypatch, second, tmp_path, "method=lora", "train.lr=1e-5,2e-3") == 0
    assert second.made == [(1e-5, 1000), (2e-3, 1001)]  # 2e-3 has its first seed
    (after,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (after.rate, len(after.trials), after.seconds) == (1e-3, 5, 5 * 4.0)
    assert after.edge is None
    one = Trained(scores)
    assert choose(monkeypatch, one, tmp_path, "method=lora", "train.lr=3e-3") == 0
    (best,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (best.rate, len(best.trials), best.edge) == (3e-3, 7, "highest")
    for rates in ("1e-3,2e-3", "2e-3,1e-5", "3e-3"):
        none = Trained({})
        assert choose(monkeypatch, none, tmp_path, "method=lora", f"train.lr={rates}") == 0
        assert none.made == []
    assert choices.all_choices(ResultsFolder(tmp_path)) == [best]


def test_another_search_of_as_many_trials_is_another_search(monkeypatch, tmp_path):
    scores = dict.fromkeys((1e-3, 2e-3, 3e-3), 0.7) | {1e-3: 0.8}
    words = ("method=lora", "train.lr=1e-3,2e-3,3e-3")
    first = Trained(scores)
    two = Search(finalists=2, seeds=2)
    assert choose(monkeypatch, first, tmp_path, *words, search=two) == 0
    assert len(first.made) == 5
    second = Trained(scores)
    other = Search(finalists=1, seeds=3)  # five trials too
    assert choose(monkeypatch, second, tmp_path, *words, search=other) == 0
    assert second.made == [(1e-3, 1002)]
    for search in (two, other):
        none = Trained({})
        assert choose(monkeypatch, none, tmp_path, *words, search=search) == 0
        assert none.made == []
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert len(choice.searches) == 2


TUNED = Path(__file__).parents[2] / "results" / "tuned"


@pytest.mark.parametrize(
    ("name", "search"),
    [
        ("methods/choices/lora-mrpc-minilm-1000", Search()),
        ("trainer/choices/full-mrpc-minilm-1000", Search()),
        ("quickstart/choices/lora-synthetic_opinion-minilm-200", Search()),
        ("mpnet/choices/lora-mrpc-mpnet_base-1000", Search(trials=4, seeds=1)),
    ],
)
def test_files_that_count_all_trials_alone_answer_the_search_that_they_are_of(name, search):
    (path,) = TUNED.glob(f"{name}-*.json")
    results = ResultsFolder(path.parents[1])
    choice = choices.find(results, path.stem[-12:])
    folds = {trial.fold for trial in choice.trials}
    examples = 1000 if folds == {None} else 200
    asked = Question(choice.run, choice.rates, choice.source, examples)
    assert tune.unanswered([asked], search, results) == []
    for other in (replace(search, finalists=4, seeds=2), replace(search, finalists=1, seeds=5)):
        assert tune.unanswered([asked], other, results) == [asked]


def test_what_was_chosen_before_is_compared_on_the_seeds_that_both_have(monkeypatch, tmp_path):
    """A lucky first seed of the new rate meets the same seed of the old one."""
    scores = {1e-3: [0.9, 0.6], 1e-4: [0.5, 0.5], 2e-3: [0.8, 0.8], 3e-3: [0.7, 0.7]}
    words = ("method=lora", "train.lr=1e-3,1e-4")
    choose(monkeypatch, Trained(scores), tmp_path, *words)
    once = Search(finalists=1, seeds=1)
    words = ("method=lora", "train.lr=2e-3,3e-3")
    choose(monkeypatch, Trained(scores), tmp_path, *words, search=once)
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert choice.rate == 1e-3  # 0.9 over seed 1000, where 2e-3 has 0.8
    choose(monkeypatch, Trained(scores), tmp_path, *words)
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert choice.rate == 2e-3  # 0.8 over both seeds, where 1e-3 has 0.75


def test_a_search_that_ends_during_another_one_loses_nothing(monkeypatch, tmp_path):
    words = [("method=lora", f"train.lr={rates}") for rates in ("1e-4,1e-3", "1e-2,1e-1")]
    scores = {1e-4: 0.5, 1e-3: 0.9, 1e-2: 0.7, 1e-1: 0.2}
    elsewhere = Trained(scores, environment=ENVIRONMENT | {"device": "Some GPU"})

    class Interrupted(Trained):
        def execute(self, *args):
            """The other search runs from its beginning to its end within a round of this one."""
            if not elsewhere.made:
                assert choose(monkeypatch, elsewhere, tmp_path, *words[1]) == 0
                monkeypatch.setattr(sweep, "execute", self.execute)
            return super().execute(*args)

    assert choose(monkeypatch, Interrupted(scores), tmp_path, *words[0]) == 0
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (choice.rates, choice.rate) == ([1e-4, 1e-3, 1e-2, 1e-1], 1e-3)
    assert (len(choice.trials), choice.seconds, choice.edge) == (6, 6 * 4.0, None)
    assert (len(choice.searches), choice.source) == (2, NAMED)
    devices = [one["device"] for one in (choice.environment, *choice.elsewhere)]
    assert devices == ["Some GPU", "Some CPU"]
    for some in words:
        none = Trained({})
        assert choose(monkeypatch, none, tmp_path, *some) == 0
        assert none.made == []


def test_one_named_rate_needs_others_to_compare_with(tmp_path):
    found = plan(*tiny("method=lora", "train.lr=1e-5"))
    (question,) = tune.questions(found, Search())
    assert question.rates == [1e-5]
    with pytest.raises(ConfigError, match=r"train\.lr=1e-05 is the only rate for lora"):
        tune.unanswered([question], Search(), ResultsFolder(tmp_path))


def test_a_cell_of_which_every_rate_diverged_has_no_choice(monkeypatch, tmp_path, capsys):
    failures = {("lora", 1e-3): "diverged", ("lora", 2e-3): "diverged"}
    trained = Trained({1e-3: 0.8, 2e-3: 0.7}, failures)
    assert choose(monkeypatch, trained, tmp_path, "method=lora,bitfit", "train.lr=1e-3,2e-3") == 1
    assert [one.run.method.name for one in choices.all_choices(ResultsFolder(tmp_path))] == [
        "bitfit"
    ]
    assert [rate for rate, seed in trained.made if seed == 1001] == [1e-3]  # bitfit's
    told = capsys.readouterr().err
    assert "no rate is chosen for lora · synthetic_paraphrase" in told
    assert "the least 0.001, diverged; name lower ones, train.lr=1e-05,3.3e-05,0.0001" in told
    again = Trained({1e-4: 0.6, 1e-5: 0.5})
    assert choose(monkeypatch, again, tmp_path, "method=lora", "train.lr=1e-4,1e-5") == 0


def test_a_diverged_trial_costs_its_seconds_and_loses(monkeypatch, tmp_path):
    trained = Trained({1e-3: 0.8}, {("lora", 2e-3): "diverged"})
    assert choose(monkeypatch, trained, tmp_path, "method=lora", "train.lr=1e-3,2e-3") == 0
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (choice.rate, choice.seconds) == (1e-3, 2 * 4.0 + 7.0)


def test_a_rate_that_diverged_is_not_tried_again(monkeypatch, tmp_path):
    trained = Trained({1e-3: 0.8}, {("lora", rate): "diverged" for rate in (2e-3, 3e-3)})
    search = Search(trials=3, finalists=2, seeds=2)
    words = ("method=lora", "train.lr=1e-3,2e-3,3e-3")
    assert choose(monkeypatch, trained, tmp_path, *words, search=search) == 0
    assert trained.made == [(1e-3, 1000), (2e-3, 1000), (3e-3, 1000), (1e-3, 1001)]
    assert choose(monkeypatch, trained, tmp_path, *words, search=search) == 0
    assert len(trained.made) == 4


@pytest.mark.parametrize("kind", ["error", "memory"])
def test_a_trial_that_fails_leaves_other_cells_alone(monkeypatch, tmp_path, capsys, kind):
    trained = Trained({1e-3: 0.8, 2e-3: 0.7}, {("lora", 2e-3): kind})
    assert choose(monkeypatch, trained, tmp_path, "method=lora,bitfit", "train.lr=1e-3,2e-3") == 1
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert (choice.run.method.name, len(choice.trials)) == ("bitfit", 3)
    assert "not chosen while trials are missing: 1 of 2 rates; the same" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "fail_fast"), [("error", True), ("disk", False)])
def test_no_round_follows_one_that_a_failure_has_ended(monkeypatch, tmp_path, kind, fail_fast):
    trained = Trained({1e-3: 0.8, 2e-3: 0.7}, {("lora", 2e-3): kind})
    words = ("method=lora,bitfit", "train.lr=1e-3,2e-3")
    assert choose(monkeypatch, trained, tmp_path, *words, fail_fast=fail_fast) == 1
    assert {seed for _, seed in trained.made} == {1000}
    assert choices.all_choices(ResultsFolder(tmp_path)) == []


def test_what_is_whole_after_the_last_round_is_chosen_though_a_trial_failed(monkeypatch, tmp_path):
    trained = Trained({1e-3: 0.8, 2e-3: 0.7}, {("lora", 2e-3): "error"})
    words = ("method=lora,bitfit", "train.lr=1e-3,2e-3")
    once = Search(finalists=1, seeds=1)
    assert choose(monkeypatch, trained, tmp_path, *words, search=once, fail_fast=True) == 1
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert choice.run.method.name == "bitfit"


def test_later_rounds_of_an_earlier_search_do_not_change_what_is_proposed():
    search = Search(sampler=TPE)
    (question,) = tune.questions(plan(*tiny("size=400", "method=lora")), search)
    told = []
    trials = {
        run.key: replace(trial(1e-3, 0.9 if run.seed == 1000 else 0.1), key=run.key)
        for run in question.trials(1e-3, 3)
    }
    proposals = SimpleNamespace(tell=lambda *given: told.append(given))
    tune._CellSearch(question, search, [1e-3], None, proposals, trials, {}).tell_proposer()
    assert told == [(1e-3, pytest.approx(0.9))]


def test_trials_of_several_machines_are_of_each(monkeypatch, tmp_path):
    scores = {1e-3: 0.8, 2e-3: 0.7, 3e-3: 0.1}
    choose(monkeypatch, Trained(scores), tmp_path, "method=lora", "train.lr=1e-3,2e-3")
    gpu = Trained(scores, environment=ENVIRONMENT | {"device": "Some GPU"})
    choose(monkeypatch, gpu, tmp_path, "method=lora", "train.lr=3e-3")
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert [one["device"] for one in (choice.environment, *choice.elsewhere)] == [
        "Some CPU",
        "Some GPU",
    ]
    run = plan(*tiny("size=400", "method=lora", "train.lr=1e-3")).runs[0]
    assert costs.tuning_seconds(record(run), Tuned.from_runs([run], [choice])) is None
    alone = replace(choice, elsewhere=[])
    assert costs.tuning_seconds(record(run), Tuned.from_runs([run], [alone])) == 5 * 4.0


def test_a_dry_run_gives_programs_the_trials(monkeypatch, tmp_path, capsys):
    words = ("method=lora", "train.lr=1e-3,2e-3")
    monkeypatch.setattr(sweep, "execute", lambda *_: False)
    found = plan(*tiny("size=400", *words))
    options = RunOptions(dry_run=True, as_json=True)
    assert tune.tune(found, ResultsFolder(tmp_path), Search(finalists=1, seeds=2), options) == 0
    (told,) = json.loads(capsys.readouterr().out)
    assert (told["due"], told["rates"], told["trials_by_round"]) == (True, [1e-3, 2e-3], [2, 1])
    assert len(told["first_round"]) == 2


def test_a_dry_run_finds_the_round_that_is_due(monkeypatch, tmp_path, capsys):
    """The first round is complete; then all are, and the choice alone is missing."""
    scores, words = Trained({1e-3: 0.8, 2e-3: 0.9}), ("method=lora", "train.lr=1e-3,2e-3")
    choose(monkeypatch, scores, tmp_path, *words, search=Search(finalists=1, seeds=1))
    ready = []

    def check(todo, *_):
        ready.append([(run.train.lr, run.seed) for run in todo.runs])
        return False

    dry, found = RunOptions(dry_run=True), plan(*tiny("size=400", *words))
    monkeypatch.setattr(sweep, "execute", check)
    search, results = Search(finalists=1, seeds=2), ResultsFolder(tmp_path)
    assert tune.tune(found, results, search, dry) == 0
    assert ready == [[(2e-3, 1001)]]
    assert "\nready to train: 1 trial of round 2\n" in capsys.readouterr().err
    choose(monkeypatch, scores, tmp_path, *words, search=search)
    for path in results.choices().iterdir():
        path.unlink()
    monkeypatch.setattr(sweep, "execute", check)
    assert tune.tune(found, results, search, dry) == 0
    told = capsys.readouterr().err
    assert "\nno trial is left to train; without --dry-run the rates are chosen\n" in told
    assert choices.all_choices(results) == []


@pytest.mark.slow
def test_a_choice_is_made_without_the_reporting_split_and_only_once(tmp_path):
    made = []
    for poisoned in (False, True):
        folder = tmp_path / f"poisoned-{poisoned}"
        task = write_task(tmp_path / f"data-{poisoned}", poisoned)
        words = [*tiny("method=full", "size=full", *task), "--results", str(folder)]
        line = ["tune", *words, "--trials", "3", "--finalists", "1", "--seeds", "2"]
        line += ["--workers", "1"]
        first = CliRunner().invoke(main, line)
        assert first.exit_code == 0, first.output
        assert "1 learning rate: 0 chosen before, 1 to choose" in first.output
        (choice,) = choices.all_choices(ResultsFolder(folder))
        made.append(choice)
        assert len(choice.trials) == 4 * 3 + 4  # four folds: three rates once, the best once more
        assert choice.environment["device"]
    assert made[0].rate == made[1].rate
    for one, other in zip(*(choice.trials for choice in made), strict=True):
        assert (one.rate, one.seed, one.fold, one.score) == (
            other.rate,
            other.seed,
            other.fold,
            other.score,
        )
    again = CliRunner().invoke(main, line)
    assert "1 chosen before, 0 to choose" in again.output
    assert "round" not in again.output
    (told,) = json.loads(CliRunner().invoke(main, [*line, "--json"]).stdout)
    assert (told["rate"], len(told["trials"])) == (made[1].rate, 16)
    run = CliRunner().invoke(main, ["plan", *words, "tuned=true", "--json"])
    found = json.loads(run.stdout)["runs"][0]["run"]
    assert found["train"]["lr"] == made[1].rate


@pytest.mark.slow
def test_shards_make_their_part_of_a_round_and_the_next_one_waits_for_all(tmp_path):
    line = ["tune", *tiny("method=head", "size=32"), "--results", str(tmp_path), "--workers", "1"]
    line += ["--trials", "2", "--finalists", "1", "--seeds", "2", "--quiet"]
    told = []
    for shard in ("1/2", "2/2", "1/2"):
        done = CliRunner().invoke(main, [*line, "--shard", shard])
        assert done.exit_code == 0, done.output
        told.append(" ".join(done.output.split()))
    assert "round 1 waits for 4 trials of other shards" in told[0]  # of 2 rates, 4 folds
    assert "round 2 waits for 2 trials of other shards" in told[1]
    assert "Chosen learning rates" in told[2]
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert len(choice.trials) == 2 * 4 + 4


def test_help_says_what_tables_say_of_the_reporting_split():
    assert UNREPORTED in " ".join(main.commands["tune"].help.split())
