"""What is chosen from trials, and that a choice looks at nothing that is reported."""

import json

import pytest
from click.testing import CliRunner
from records import plan, tiny

from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.tuning import UNREPORTED, Search, Trial
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.runner import tune


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


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("suite=noise",), "leave suite= out"),
        (("checkpoint_selection=best_on_holdout",), "leave checkpoint_selection out"),
    ],
)
def test_what_trials_have_no_use_for_is_refused(words, told):
    with pytest.raises(ConfigError, match=told):
        tune.questions(plan(*tiny("method=lora", *words)), Search())


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
        assert "1 learning rates: 0 chosen before, 1 to choose" in first.output
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
    assert "round 1: 4 trials of other shards are not there yet" in told[0]  # of 2 rates, 4 folds
    assert "round 2: 2 trials of other shards" in told[1]
    assert "Chosen learning rates" in told[2]
    (choice,) = choices.all_choices(ResultsFolder(tmp_path))
    assert len(choice.trials) == 2 * 4 + 4


def test_help_says_what_tables_say_of_the_reporting_split():
    assert UNREPORTED in " ".join(main.commands["tune"].help.split())
