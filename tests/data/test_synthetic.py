"""The synthetic tasks: the same text everywhere, and no shortcut that solves them.

What MiniLM reaches on them after fine-tuning was measured once, outside of the tests.
"""

import hashlib
import json
import subprocess
import sys
from itertools import chain

import numpy as np
import pytest
from scipy.sparse import csr_matrix, hstack
from scipy.stats import spearmanr
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score, matthews_corrcoef

from peftbench.data.synthetic import NAMES, VERSION, generate, opinion

ACCEPTABILITY, PARAPHRASE, SIMILARITY, OPINION = NAMES
DIGESTS = {
    "synthetic_acceptability": "1d92912b85a092d32bd2327128507c55c4ddb89bfd77fdcc0a01b72d2ea4a0f2",
    "synthetic_paraphrase": "44730218b3e93b66e3e6bf98b32fedd7f8fb6659a47336507cf72c5519ee6732",
    "synthetic_similarity": "479fd02b0d87d10a473462e17d001f5cff62014448817a7ed94c8d4985959f4c",
    "synthetic_opinion": "9f8d1350207b926c72ba819437c68b4f448a1b467b2b00a40dc865f9d229591f",
}


@pytest.fixture(scope="module")
def tasks():
    return {name: generate(name) for name in NAMES}


def _texts(split):
    return [split[column] for column in split if column != "label"]


def _digest(task):
    text = json.dumps(task, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("name", NAMES)
def test_text_is_pinned(name, tasks):
    assert VERSION == 1, "a new version pins new digests"
    assert _digest(tasks[name]) == DIGESTS[name]
    assert _digest(generate(name)) == DIGESTS[name]


def test_text_does_not_depend_on_the_hash_seed():
    program = "import json; from peftbench.data.synthetic import NAMES, generate; "
    program += "print(json.dumps([generate(name) for name in NAMES], sort_keys=True))"
    printed = [
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert printed[0] == printed[1]


def test_unknown_name_lists_the_tasks():
    with pytest.raises(ValueError, match="synthetic_paraphrase, synthetic_similarity"):
        generate("synthetic_entailment")


@pytest.mark.parametrize("name", NAMES)
def test_shape(name, tasks):
    texts = ["sentence"] if name in (ACCEPTABILITY, OPINION) else ["sentence1", "sentence2"]
    for split, size in (("train", 3000), ("validation", 600)):
        columns = tasks[name][split]
        assert list(columns) == [*texts, "label"]
        assert {len(values) for values in columns.values()} == {size}
        kind = float if name == SIMILARITY else int
        assert {type(label) for label in columns["label"]} == {kind}
    assert list(tasks[name]) == ["train", "validation"]


@pytest.mark.parametrize("name", NAMES)
def test_sentences_are_short_and_well_formed(name, tasks):
    for split in tasks[name].values():
        for sentence in chain(*_texts(split)):
            assert 6 <= len(sentence.split()) <= 16
            assert sentence[0].isupper()
            assert sentence[-1] in ".?"
            assert sentence == " ".join(sentence.split())


@pytest.mark.parametrize("name", NAMES)
def test_no_sentence_occurs_twice(name, tasks):
    """So there are no duplicates, no leaks between splits and no pairs in the other order."""
    examples = [
        set(row) for split in tasks[name].values() for row in zip(*_texts(split), strict=True)
    ]
    sentences = set().union(*examples)
    assert len(sentences) == sum(len(example) for example in examples)
    assert all(len(example) == len(_texts(tasks[name]["train"])) for example in examples)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_label_balance(split, tasks):
    assert 0.67 < np.mean(tasks[ACCEPTABILITY][split]["label"]) < 0.73
    assert 0.46 < np.mean(tasks[PARAPHRASE][split]["label"]) < 0.54
    assert 0.46 < np.mean(tasks[OPINION][split]["label"]) < 0.54
    scores = np.array(tasks[SIMILARITY][split]["label"])
    assert scores.min() == 0
    assert scores.max() == 5
    assert 2.3 < scores.mean() < 2.7
    assert 1.5 < scores.std() < 1.9
    assert len(set(scores)) > 10


def _best_threshold(values, labels):
    """The accuracy of the best rule `values >= threshold`, or its opposite, on these labels."""
    above = [np.mean((values >= bound) == labels) for bound in np.unique(values)]
    return max(max(above), 1 - min(above))


def _majority(labels):
    return max(np.mean(labels), 1 - np.mean(labels))


@pytest.mark.parametrize("name", [ACCEPTABILITY, PARAPHRASE, OPINION])
@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())])
def test_length_does_not_give_the_label_away(name, measure, tasks):
    """Best threshold within 5 points of the majority, for the length of a text or of the pair."""
    split = tasks[name]["train"]
    labels = np.array(split["label"])
    lengths = np.array([[measure(text) for text in texts] for texts in _texts(split)])
    for values in (lengths.sum(0), abs(lengths[0] - lengths[-1])):
        assert _best_threshold(values, labels) < _majority(labels) + 0.05


@pytest.mark.parametrize("measure", [len, lambda text: len(text.split())])
def test_length_does_not_give_the_similarity_away(measure, tasks):
    split = tasks[SIMILARITY]["train"]
    lengths = np.array([[measure(text) for text in texts] for texts in _texts(split)])
    for values in (lengths.sum(0), -abs(lengths[0] - lengths[1])):
        assert abs(spearmanr(values, split["label"]).statistic) < 0.15


@pytest.mark.parametrize("name", [ACCEPTABILITY, PARAPHRASE])
def test_one_word_does_not_give_the_label_away(name, tasks):
    """Best rule `the word occurs` within 3 points of the majority."""
    split = tasks[name]["train"]
    labels = np.array(split["label"])
    joined = [" ".join(row) for row in zip(*_texts(split), strict=True)]
    counts = _vectorizer(1).fit_transform(joined).toarray() > 0
    best = max(_best_threshold(column, labels) for column in counts.T)
    assert best < _majority(labels) + 0.03


def _vectorizer(longest):
    return CountVectorizer(ngram_range=(1, longest), token_pattern=r"\b\w+\b")


def _overlaps(one, two):
    """Shared 1- and 2-grams of each pair, absolutely and as fractions, and both lengths."""
    rows = []
    for texts in zip(one, two, strict=True):
        row = [len(text.split()) for text in texts]
        for n in (1, 2):
            analyze = CountVectorizer(ngram_range=(n, n), token_pattern=r"\b\w+\b").build_analyzer()
            first, second = (set(analyze(text)) for text in texts)
            shared = len(first & second)
            row += [shared, shared / len(first | second), shared / len(first)]
        rows.append(row)
    return np.array(rows)


def _bag_of_words(task, train_size):
    """Predictions on validation of the best of four strengths of regularisation, each a list.

    Pairs enter as the 1- and 2-grams of either sentence, next to how much they overlap.
    """
    train = {column: values[:train_size] for column, values in task["train"].items()}
    vectorizer = _vectorizer(2).fit(chain(*_texts(train)))
    features = {}
    for split, columns in (("train", train), ("validation", task["validation"])):
        parts = [vectorizer.transform(texts) for texts in _texts(columns)]
        if len(parts) == 2:
            overlaps = _overlaps(*_texts(columns))
            if split == "train":
                mean, spread = overlaps.mean(0), overlaps.std(0)
            parts.append(csr_matrix((overlaps - mean) / spread))
        features[split] = hstack(parts).tocsr()
    regression = isinstance(train["label"][0], float)
    for strength in (0.01, 0.1, 1.0, 10.0):
        model = (
            Ridge(alpha=1 / strength)
            if regression
            else LogisticRegression(C=strength, max_iter=2000)
        )
        model.fit(features["train"], train["label"])
        yield model.predict(features["validation"])


def test_bag_of_words_is_weak_on_acceptability(tasks):
    gold = tasks[ACCEPTABILITY]["validation"]["label"]
    predictions = list(_bag_of_words(tasks[ACCEPTABILITY], 1000))
    assert max(matthews_corrcoef(gold, predicted) for predicted in predictions) < 0.30
    best = max(accuracy_score(gold, predicted) for predicted in predictions)
    assert best < _majority(gold) + 0.05


def test_bag_of_words_is_weak_on_paraphrase(tasks):
    gold = tasks[PARAPHRASE]["validation"]["label"]
    predictions = _bag_of_words(tasks[PARAPHRASE], 1000)
    assert max(accuracy_score(gold, predicted) for predicted in predictions) < 0.60


def test_bag_of_words_is_weak_on_similarity(tasks):
    gold = tasks[SIMILARITY]["validation"]["label"]
    predictions = _bag_of_words(tasks[SIMILARITY], 1000)
    best = max(spearmanr(predicted, gold).statistic for predicted in predictions)
    assert best < 0.40


@pytest.mark.parametrize("size", [200, 1000, 3000])
def test_bag_of_words_knows_nothing_of_opinions(size, tasks):
    """Within 5 points of the majority at every size: two standard errors are 4."""
    gold = tasks[OPINION]["validation"]["label"]
    for predicted in _bag_of_words(tasks[OPINION], size):
        assert abs(accuracy_score(gold, predicted) - 0.5) < 0.05


def test_adjectives_of_validation_are_not_in_training(tasks):
    words = {
        split: {word.strip(".,").lower() for text in texts["sentence"] for word in text.split()}
        for split, texts in tasks[OPINION].items()
    }
    for split, other in (("train", "validation"), ("validation", "train")):
        adjectives = set().union(*opinion.ADJECTIVES[split])
        assert adjectives <= words[split]
        assert not adjectives & words[other]
    assert words["validation"] - words["train"] == set().union(*opinion.ADJECTIVES["validation"])
