"""Training on noisy texts: which, how often, the same for all methods, never by mistake."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import records
import tiny
import torch
from click.testing import CliRunner
from short_runs import CPU, Watched, after, losses, one

from peftbench.cli.main import main
from peftbench.cli.show import describe
from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.configs import AugmentationConfig, MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import batching, loading, tokenization
from peftbench.data.augmentation import AugmentedSplit, augment_split, noisy_versions
from peftbench.data.text_noise import EDITS, noisy
from peftbench.data.tokenizer import load_tokenizer
from peftbench.reports import scores
from peftbench.results.store import ResultsFolder
from peftbench.training import session
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def warm():
    return WarmCache()


def seen(
    run: Run, rows: np.ndarray
) -> tuple[AugmentedSplit, tokenization.TokenizedSplit, loading.LabelledTexts]:
    """What a run's training shows of these rows, and the split without noise."""
    table = loading.load_split(run.task, "train", None)
    tokenizer = load_tokenizer(run.model)
    encode = partial(tokenization.encode, tokenizer=tokenizer, most=run.train.max_length)
    clean = encode(table)
    return augment_split(run, clean, rows, None, encode), clean, table


def ids(tokens: tokenization.TokenizedSplit, row: int) -> list[int]:
    return tokens.ids[tokens.ends[row] - tokens.lengths[row] : tokens.ends[row]].tolist()


# planning


def test_without_an_augmentation_a_run_has_the_key_that_it_had():
    """The key of the committed records: results/reference is planned as done, all of it."""
    (plain,), (none,) = (plan("model=tiny", *words).runs for words in ((), ("augmentation=none",)))
    assert plain.key == none.key
    assert plain.augmentation is None
    (other,) = plan("model=tiny", "augmentation=noise").runs
    assert other.key != plain.key
    assert replace(other, augmentation=None).key == plain.key


def test_the_kinds_that_are_left_out_are_no_part_of_a_key():
    words = ("model=tiny", "augmentation=noise")
    (null,) = plan(*words, "augmentation.kinds={typos:0.1,swaps:0.2,order:null}").runs
    (absent,) = plan(*words, "augmentation.kinds={swaps:0.2,typos:0.1}").runs
    assert null.key == absent.key
    assert null.augmentation.kinds == {"typos": 0.1, "swaps": 0.2}


@pytest.mark.parametrize("task", ["cola", "synthetic_acceptability"])
def test_acceptability_has_noise_only_if_asked_for(task):
    words = ("model=tiny", f"task={task}", "augmentation=noise")
    with pytest.raises(
        ConfigError, match=rf"augmentation=noise on {task}: .* augmentation.kinds.KIND=RATE"
    ):
        plan(*words)
    (run,) = plan(*words, "augmentation.kinds.casing=0.1").runs
    assert run.augmentation.kinds == {"casing": 0.1}


def test_a_file_is_known_by_its_stem(tmp_path):
    tiny.own_task(tmp_path)
    path = (tmp_path / "train.csv").rename(tmp_path / "cola.csv")
    words = ("model=tiny", "task=file", f"task.path='{path}'", "augmentation=noise")
    with pytest.raises(ConfigError, match="augmentation=noise on cola"):
        plan(*words)
    assert len(plan(*words, "task.name=own").runs[0].augmentation.kinds) == len(EDITS)


def test_a_lost_not_is_no_noise_to_inference():
    (mnli,), (wnli,) = (
        plan("augmentation=noise", f"task={name}").runs for name in ("mnli", "wnli")
    )
    assert set(EDITS) - set(mnli.augmentation.kinds) == {"dropout"}
    assert set(EDITS) - set(wnli.augmentation.kinds) == {"dropout", "order"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["augmentation=nois"], "did you mean noise"),
        (["augmentation.kinds.typo=0.1"], "did you mean augmentation.kinds.typos"),
        (["augmentation.kinds={typpos:0.1}"], "no noise typpos; did you mean typos"),
        (
            ["augmentation.kinds.typos=0"],
            "augmentation.kinds.typos must be a number greater than 0",
        ),
        (["augmentation.kinds.typos=1.5"], "augmentation.kinds.typos must be a number from 0 to 1"),
        (
            ["augmentation.kinds.typos=high"],
            "augmentation.kinds.typos must be a number or null, got 'high'",
        ),
        (
            ["augmentation.probability=0"],
            "augmentation.probability must be a number greater than 0",
        ),
        (["augmentation.probability=1.1"], "augmentation.probability must be a number from 0 to 1"),
        (["augmentation.versions=0"], "augmentation.versions must be a whole number of at least 1"),
        (["augmentation.versions=1.5"], "augmentation.versions must be a whole number, got 1.5"),
    ],
)
def test_bad_values_are_refused_before_anything_starts(words, message):
    first = [] if words[0].startswith("augmentation=") else ["augmentation=noise"]
    with pytest.raises(ConfigError, match=message):
        plan("model=tiny", *first, *words)


# texts


def test_where_every_example_is_noisy_the_texts_are_those_of_the_noise():
    words = (
        "augmentation.kinds={typos:0.3}",
        "augmentation.probability=1",
        "augmentation.versions=2",
    )
    run = tiny.one_run("task=synthetic_paraphrase", "augmentation=noise", *words)
    rows = np.array([40, 7, 2900])
    found, clean, table = seen(run, rows)
    assert len(found.tokens) == 3000 + 6
    assert [ids(found.tokens, row) for row in rows] == [ids(clean, row) for row in rows]
    tokenizer = load_tokenizer(run.model)
    seed = run.seeds()["augment"]
    chosen = table.take(rows)
    texts = [  # of both versions, column by column
        [text for v in (0, 1) for text in noisy(t, "typos", 0.3, seed + 1000 * v + place)]
        for place, t in enumerate(chosen.texts)
    ]
    assert [ids(found.tokens, 3000 + n) for n in range(6)] == tokenizer(*texts)["input_ids"]
    assert texts[0][:3] != texts[0][3:]
    for epoch in range(8):
        (numbers,) = found.vary(epoch, [rows])
        assert (numbers >= 3000).all()
        assert ((numbers - 3000) % 3 == np.arange(3)).all()  # of the same examples
        assert (found.tokens.label[numbers] == clean.label[rows]).all()
    words = batching.occurring_ids(found.tokens, found.every, 0)
    occur = set().union({0}, *(ids(found.tokens, row) for row in (*rows, *range(3000, 3006))))
    assert words.tolist() == sorted(occur)


def test_each_kind_has_its_share_and_the_order_of_the_kinds_is_of_no_consequence():
    table = loading.LabelledTexts([["aaaa bbbb"] * 3000], np.zeros(3000))
    kinds = {"casing": 1.0, "dropout": 1.0}
    found = noisy_versions(
        AugmentationConfig(name="", kinds=kinds, probability=1, versions=1), table, 5
    ).texts[0]
    share = found.count("AAAA BBBB") / 3000
    assert share == pytest.approx(0.5, abs=0.04)
    turned = dict(reversed(kinds.items()))
    assert (
        noisy_versions(
            AugmentationConfig(name="", kinds=turned, probability=1, versions=1), table, 5
        ).texts[0]
        == found
    )


def test_the_clean_share_and_the_versions_are_as_asked():
    rows = np.arange(1000)
    both = tiny.tokens(4000)
    found = AugmentedSplit(both, rows, part=0.3, versions=3, seed=1)
    shares, epochs = [], [found.vary(epoch, [rows])[0] for epoch in range(20)]
    for numbers in epochs:
        assert ((numbers % 1000) == rows).all()
        shares.append([(numbers // 1000 == version).mean() for version in range(4)])
    assert np.mean(shares, axis=0) == pytest.approx([0.7, 0.1, 0.1, 0.1], abs=0.01)
    assert not (epochs[0] == epochs[1]).all()
    assert (found.vary(7, [rows])[0] == epochs[7]).all()


def test_what_is_cut_off_is_counted(task, warm):
    words = ("train.max_length=8", "budget.steps=1")
    noise = ("augmentation=noise", "augmentation.versions=3")
    record = execute(one(task, *words, *noise), CPU, warm=warm).record
    without = execute(one(task, *words), CPU, warm=warm).record
    assert set(without.work["truncated"]) == {"train", "validation"}
    assert record.work["truncated"].items() >= without.work["truncated"].items()
    assert 0 < record.work["truncated"]["noisy"] <= 3 * 24
    assert record.work["train_size"] == without.work["train_size"] == 24


# training


def test_all_methods_see_the_same_noise_in_the_batches_of_the_clean_run(task):
    batches_of = []
    noise = ("augmentation=noise", "augmentation.probability=1")
    for words in (("method=lora", *noise), ("method=full", *noise), ("method=lora",)):
        Watched.batches.clear()
        run = one(task, *words)
        watched = MethodConfig(name="watched", target="short_runs.Watched", base_method=run.method)
        execute(replace(run, method=watched), CPU)  # a new process warms up
        batches_of.append(Watched.batches[2:])  # without the warm-up's
    lora, full, clean = batches_of
    assert all(torch.equal(a, b) for a, b in zip(lora, full, strict=True))
    assert [len(ids) for ids in lora] == [len(ids) for ids in clean]
    assert not all(torch.equal(a, b) for a, b in zip(lora, clean, strict=True))


def test_predictions_are_on_clean_texts(task, warm):
    """With a rate of nearly nothing the versions are the texts: the same bits as without them."""
    plain, bare = (
        execute(one(task, *words), CPU, warm=warm)
        for words in (
            (),
            (
                "augmentation=noise",
                "augmentation.kinds={swaps:1e-12}",
                "augmentation.probability=1",
            ),
        )
    )
    assert np.array_equal(plain.predictions["scores"], bare.predictions["scores"])


@pytest.mark.parametrize("words", [("method=full",), ("method=robust_partial",)])
def test_an_interrupted_training_continues_exactly(words, task, warm, tmp_path):
    run = one(task, "augmentation=noise", "budget.steps=7", *words)
    whole = execute(run, CPU, warm=warm)
    results = ResultsFolder(tmp_path / "runs")
    for step in (3, 6):  # of 2 batches an epoch: one stop within, one at its end
        with pytest.raises(session.TrainingInterrupted, match=f"at step {step}"):
            execute(run, CPU, warm=warm, results=results, stop=after(2))
    parts = execute(run, CPU, warm=warm, results=results)
    for name, array in whole.predictions.items():
        assert np.array_equal(parts.predictions[name], array)
    assert losses(parts.record) == losses(whole.record)
    assert parts.record.work == whole.record.work | {"resumed": True}


# what is told


def test_rows_of_tables_and_a_shown_record_name_the_augmentation(tmp_path):
    found = [records.record(run) for run in records.runs("augmentation=none,noise", "seed=0,1")]
    table = scores.scores(found)
    assert table.columns[:2] == ["method", "augmentation"]
    assert sorted(row[1] for row in table.rows[1:]) == ["noise", "none"]
    assert all("(2)" in row[2] for row in table.rows[1:])
    parts = [
        records.record(run)
        for run in records.runs("augmentation=noise", "augmentation.probability=0.2,0.4")
    ]
    assert scores.scores(parts).columns[:2] == ["method", "augmentation.probability"]
    results = ResultsFolder(tmp_path / "runs")
    results.save(found[-1], records.predictions())
    told = describe(results, found[-1].run.key)
    assert "augmentation kinds {typos:0.05," in told
    assert "probability 0.5, versions 4" in told


def test_the_sweep_repeats_the_committed_records_without_noise():
    reference = catalog.packaged().parent / "results" / "reference"
    if not reference.is_dir():
        pytest.skip("no reference results in this checkout")
    planned = plan("sweep=robust2024_mini")
    kept = set(ResultsFolder(reference).keys())
    clean = {run.key for run in planned.runs if run.augmentation is None}
    # SMART was corrected since
    assert (len(planned.runs), len(clean), len(clean & kept)) == (30, 15, 2)
    assert len(planned.evaluations) == 30


def test_it_is_listed():
    told = CliRunner().invoke(main, ["list", "augmentations"]).output
    assert "augmentation=none" in told
    assert "augmentation=noise" in told
