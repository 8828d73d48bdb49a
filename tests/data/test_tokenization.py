"""Subsets, batches, masks and the cache of tokens."""

import itertools
import json
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch

from peftbench.data import batching, loading, tokenization
from peftbench.data.tokenization import TokenizedSplit
from peftbench.data.tokenizer import load_tokenizer
from peftbench.models.adapted_model import AdaptedModel

# subsets


def skewed(examples=300, classes=2, seed=0):
    """Classes of which the first is as common as all others together."""
    label = np.random.default_rng(seed).integers(0, 2 * (classes - 1), examples)
    return np.maximum(0, label - classes + 2)


@pytest.mark.parametrize(("classes", "off"), [(2, 1), (3, 4 / 3)])
def test_every_beginning_holds_the_classes_in_proportion(classes, off):
    label = skewed(classes=classes)
    order = loading.stratified(label, classes, seed=3)
    assert sorted(order) == list(range(len(label)))
    counts = np.cumsum(np.eye(classes)[label[order]], axis=0)
    expected = np.arange(1, len(label) + 1)[:, None] * np.bincount(label) / len(label)
    assert np.abs(counts - expected).max() <= off


def test_every_beginning_holds_the_tenths_of_the_values_in_proportion():
    label = np.random.default_rng(0).gamma(2, size=500).astype(np.float32)
    order = loading.stratified(label, 1, seed=3)
    assert sorted(order) == list(range(500))
    tenth = np.searchsorted(np.quantile(label, np.arange(0.1, 1, 0.1)), label[order])
    counts = np.cumsum(np.eye(10)[tenth], axis=0)
    assert np.abs(counts - np.arange(1, 501)[:, None] / 10).max() <= 2


def test_many_equal_values_are_no_obstacle():
    order = loading.stratified(np.full(40, 2.5, np.float32), 1, seed=0)
    assert sorted(order) == list(range(40))


def test_subsets_are_nested_and_one_for_each_seed():
    tokens = tiny.tokens(200)
    small, large = (batching.subset(tokens, 2, size, seed=5) for size in (30, 100))
    assert set(small) < set(large)
    assert len(set(large)) == 100
    assert np.array_equal(small, batching.subset(tokens, 2, 30, seed=5))
    assert not np.array_equal(small, batching.subset(tokens, 2, 30, seed=6))


def test_every_example_is_as_likely_to_be_chosen():
    label = skewed(20)
    chosen = [set(loading.stratified(label, 2, seed)[:10]) for seed in range(1000)]
    share = [np.mean([number in subset for subset in chosen]) for number in range(20)]
    assert min(share) > 0.42
    assert max(share) < 0.58


# batches


def lengths_only(lengths) -> TokenizedSplit:
    ends = np.cumsum(lengths).astype(np.int64)
    nothing = np.zeros(0, np.int32)
    return TokenizedSplit(nothing, nothing.astype(np.uint8), ends, np.zeros(len(ends), np.int64), 0)


def spread(examples, seed=0) -> TokenizedSplit:
    lengths = np.random.default_rng(seed).lognormal(3.3, 0.5, examples)
    return lengths_only(np.clip(lengths, 5, 128).astype(int))


def take(tokens, rows, batch, seed, count):
    return list(itertools.islice(batching.epochs(tokens, rows, batch, seed), count))


@pytest.mark.parametrize("examples", [1, 7, 64, 1000])
def test_every_example_comes_once_an_epoch(examples):
    rows = np.random.default_rng(1).permutation(2000)[:examples]
    for epoch in take(spread(2000), rows, 16, seed=0, count=3):
        assert sorted(np.concatenate(epoch)) == sorted(rows)
        assert len(epoch) == -(-examples // 16)
        assert max(len(batch) for batch in epoch) <= 16


def test_batches_depend_on_the_seed_alone():
    tokens, rows = spread(100), np.arange(100)
    one, again, other = (take(tokens, rows, 8, seed, 3) for seed in (0, 0, 1))
    for first, second in zip(itertools.chain(*one), itertools.chain(*again), strict=True):
        assert np.array_equal(first, second)
    flat = [np.concatenate(list(itertools.chain(*epochs))).tolist() for epochs in (one, other)]
    assert flat[0] != flat[1]
    assert not np.array_equal(np.concatenate(one[0]), np.concatenate(one[1]))


def waste(lengths, batches):
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    return 1 - lengths[np.concatenate(batches)].sum() / padded


@pytest.mark.parametrize(("examples", "most"), [(500, 0.16), (4000, 0.06)])
def test_batches_are_of_similar_length(examples, most):
    tokens = spread(examples)
    shuffled = np.random.default_rng(0).permutation(examples)
    random = [shuffled[i : i + 16] for i in range(0, examples, 16)]
    assert waste(tokens.lengths, random) > 0.4
    for epoch in take(tokens, np.arange(examples), 16, seed=0, count=3):
        assert waste(tokens.lengths, epoch) < most


@pytest.mark.parametrize(("examples", "size"), [(40, 8), (160, 8), (500, 16), (2000, 16)])
def test_the_shuffle_says_who_meets(examples, size):
    """Also in a small subset, where one window over all would make the same batches each epoch."""
    tokens = lengths_only(np.arange(10, 10 + examples))  # no ties: the shuffle alone can mix
    met = np.zeros((examples, examples), dtype=bool)
    seen = [set(), set()]
    for number, epoch in enumerate(take(tokens, np.arange(examples), size, seed=0, count=200)):
        for batch in epoch:
            met[np.ix_(batch, batch)] = True
            seen[number % 2].add(tuple(sorted(batch)))
    assert met.sum(axis=1).min() >= 3 * size
    assert len(seen[0] & seen[1]) < len(seen[0]) / 10


def test_order_of_lengths_is_not_a_curriculum():
    """Short and long batches come at any time: no trend within an epoch, on average."""
    tokens = spread(320)
    means = [
        [tokens.lengths[batch].mean() for batch in epoch]
        for epoch in take(tokens, np.arange(320), 16, seed=0, count=200)
    ]
    by_place = np.mean(means, axis=0)
    assert np.abs(by_place / tokens.lengths.mean() - 1).max() < 0.1


def test_evaluation_batches_hold_everything_once_and_no_more_than_asked():
    tokens = spread(300)
    rows = np.arange(0, 300, 2)
    made = batching.by_length(tokens, rows, 1024)
    assert sorted(np.concatenate(made)) == rows.tolist()
    assert all(len(batch) * tokens.lengths[batch].max() <= 1024 for batch in made)
    assert tokens.lengths[made[0]].max() == tokens.lengths[rows].max()


def test_evaluation_batches_are_padded_no_more_than_asked():
    tokens = spread(300)
    rows, own = np.arange(300), tokens.lengths - 2
    loose, tight = (batching.by_length(tokens, rows, 1024, 2, most) for most in (None, 32))
    assert sorted(np.concatenate(tight)) == rows.tolist()
    assert all(len(batch) * own[batch].max() <= 1024 for batch in tight)
    pads = [[int((own[one].max() - own[one]).sum()) for one in made] for made in (loose, tight)]
    assert max(pads[1]) <= 32 < max(pads[0])
    assert sum(pads[1]) < sum(pads[0]) / 2
    alone = batching.by_length(tokens, rows, 1024, padding=0)
    assert all(len(set(tokens.lengths[batch])) == 1 for batch in alone)


# masks


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_padding_changes_no_logits(family):
    model = AdaptedModel(tiny.backbone(family), classes=2, seed=0).eval()
    segments = getattr(model.module.config, "type_vocab_size", 0)
    tokens = tiny.tokens(8, pairs=segments > 1)
    mask = model.backbone.family_config.mask
    with torch.inference_mode():
        together = model(batching.collate(tokens, np.arange(8), 0, mask))
        for row in range(8):
            alone = model(batching.collate(tokens, np.array([row]), 0, mask))
            torch.testing.assert_close(alone[0], together[row], rtol=0, atol=2e-6)


def test_a_ready_mask_and_a_plain_one_mean_the_same():
    tokens = tiny.tokens(8, pairs=True)
    ready, plain = (batching.collate(tokens, np.arange(8), 0, mask) for mask in ("4d", "2d"))
    longest = int(tokens.lengths.max())
    assert ready["attention_mask"].shape == (8, 1, 1, longest)
    assert ready["attention_mask"].dtype is torch.bool
    assert plain["attention_mask"].shape == (8, longest)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(ready), model(plain), rtol=0, atol=1e-6)


def test_collate_gives_back_what_it_was_given():
    tokens = tiny.tokens(8, pairs=True)
    batch = batching.collate(tokens, np.array([5, 2]), 7, "2d")
    for place, row in enumerate((5, 2)):
        start, end = tokens.ends[row] - tokens.lengths[row], tokens.ends[row]
        real = batch["attention_mask"][place].bool()
        assert batch["input_ids"][place][real].tolist() == tokens.ids[start:end].tolist()
        assert batch["token_type_ids"][place][real].tolist() == tokens.types[start:end].tolist()
        assert batch["input_ids"][place][~real].unique().tolist() in ([7], [])
    assert batch["labels"].tolist() == tokens.label[[5, 2]].tolist()
    assert batch["lengths"].tolist() == tokens.lengths[[5, 2]].tolist()


# tokens


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(tiny.one_run().model)


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "mine.csv"
    rows = [f"{'a' * (5 + number)} b,{'c' * number},{number % 2}" for number in range(20)]
    path.write_text("\n".join(["one,two,label", *rows]))
    return tiny.one_run("task=file", f"task.path={path}", "task.texts=[one,two]").task


def tokenise(task, tokenizer, length=128):
    return tokenization.tokenize_split(task, "train", tokenizer, length, None)


def same(first, second):
    arrays = ("ids", "types", "ends", "label")
    alike = (np.array_equal(getattr(first, n), getattr(second, n)) for n in arrays)
    return all(alike) and first.truncated == second.truncated


def test_tokens_are_the_tokenizers(task, tokenizer, cache_folder):
    tokens, table = tokenise(task, tokenizer), loading.load_split(task, "train", None)
    assert len(tokens) == len(table.label) == 16
    assert np.array_equal(tokens.label, table.label)
    for row, (one, two) in enumerate(zip(*table.texts, strict=True)):
        expected = tokenizer([one], [two])["input_ids"][0]  # a batch: "" is a text there
        start, end = tokens.ends[row] - tokens.lengths[row], tokens.ends[row]
        assert tokens.ids[start:end].tolist() == expected
    assert tokens.truncated == 0


def test_truncation_is_counted(task, tokenizer, cache_folder):
    whole, cut = tokenise(task, tokenizer), tokenise(task, tokenizer, length=20)
    assert cut.truncated == int((whole.lengths > 20).sum()) > 0
    assert np.array_equal(cut.lengths, np.minimum(whole.lengths, 20))
    assert (cut.ids[cut.ends - 1] == tokenizer.sep_token_id).all()


def test_nothing_is_longer_than_the_model_reads(task, tokenizer, cache_folder):
    path = task.path
    with open(path, "a") as file:
        file.write(f"\n{'a' * 500},b,1\n{'a' * 500},b,0")
    longer = tiny.one_run("task=file", f"task.path={path}", "task.texts=[one,two]", "seed=1").task
    assert tokenise(longer, tokenizer, length=1000).lengths.max() <= tokenizer.model_max_length


def test_cache_is_read_the_second_time(task, tokenizer, cache_folder, monkeypatch):
    first = tokenise(task, tokenizer)
    assert len(list(cache_folder.rglob("*.tokens"))) == 1
    monkeypatch.setattr(loading, "load_split", None)  # not called again
    assert same(first, tokenise(task, tokenizer))


def test_cache_knows_length_and_tokenizer_apart(task, tokenizer, cache_folder):
    other = load_tokenizer(tiny.one_run("model=minilm").model)
    tokenise(task, tokenizer), tokenise(task, tokenizer, length=20), tokenise(task, other)
    assert len(list(cache_folder.rglob("*.tokens"))) == 3


def test_cache_knows_the_order_of_the_labels(tokenizer, cache_folder, tmp_path):
    """Corrected labels: the tokens of before would train on the numbers of the wrong order."""
    rows = [json.dumps({"one": f"text {n}", "label": ("no", "yes")[n % 3 == 0]}) for n in range(9)]
    (tmp_path / "train.json").write_text("\n".join(rows))
    source = {"hub": None, "revision": None, "files": {"train": "train.json"}}
    labels = []
    for order in (["yes", "no"], ["no", "yes"]):
        task = replace(
            tiny.one_run().task,
            source=source | {"labels": order},
            texts=["one"],
            label="label",
            splits={"train": "train"},
        )
        tokens = tokenization.tokenize_split(task, "train", tokenizer, 128, str(tmp_path))
        labels.append(tokens.label.tolist())
    assert labels == [[0, 1, 1] * 3, [1, 0, 0] * 3]


def test_a_tokenizer_is_known_whatever_it_did_last(tokenizer):
    before = tokenization.tokenizer_hash(tokenizer)
    tokenizer(["a b c"], truncation=True, max_length=4, padding=True)
    assert tokenization.tokenizer_hash(tokenizer) == before


@pytest.mark.parametrize("damage", ["cut", "flip", "empty"])
def test_a_damaged_cache_is_noticed_and_made_again(damage, task, tokenizer, cache_folder):
    first = tokenise(task, tokenizer)
    (path,) = cache_folder.rglob("*.tokens")
    body = bytearray(path.read_bytes())
    if damage == "flip":
        body[-3] ^= 4
    path.write_bytes({"cut": body[:-100], "flip": body, "empty": b""}[damage])
    with pytest.warns(UserWarning, match=r"cached tokens .* are corrupt and are made again"):
        assert same(first, tokenise(task, tokenizer))
    assert same(first, tokenise(task, tokenizer))  # without a warning


def test_a_cache_that_cannot_be_written_costs_no_run(task, tokenizer, monkeypatch):
    monkeypatch.setenv("PEFTBENCH_CACHE", "/dev/null/cache")
    with pytest.warns(UserWarning, match="tokens are not kept: /dev/null/cache/tokens: Not a dir"):
        tokens = tokenise(task, tokenizer)
    assert len(tokens) == 16


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on fork
def test_processes_share_a_cache(task, tokenizer, cache_folder):
    context = multiprocessing.get_context("fork")
    start, found = context.Barrier(4), context.Queue()

    def work():
        start.wait()
        found.put((os.getpid(), int(tokenise(task, tokenizer).ids.sum())))

    workers = [context.Process(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    told = [found.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join()
    assert len({pid for pid, _ in told}) == 4
    assert {total for _, total in told} == {int(tokenise(task, tokenizer).ids.sum())}
    assert [path.suffix for path in cache_folder.rglob("*") if path.is_file()] == [".tokens"]


def test_examples_that_a_model_cannot_tell_apart():
    ids = np.array([1, 2, 1, 2, 3, 1, 2, 1, 2], np.int32)
    ends = np.array([2, 5, 7, 9])
    label = np.array([0, 1, 1, 0])

    def found(types, answer=()):
        told = TokenizedSplit(
            ids, np.array(types, np.uint8), ends, label, 0, np.array(answer, np.int32)
        )
        return [array.tolist() for array in told.distinct()]

    assert found([]) == [[0, 1], [0, 1, 0, 0]]
    assert found([0, 1, 0, 0, 1, 0, 0, 0, 1]) == [[0, 1, 2], [0, 1, 2, 0]]  # other segments
    assert found([], [1, 0, 1, 0]) == [[0, 1, 3], [0, 1, 0, 2]]  # another place for the answer
