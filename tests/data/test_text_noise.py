"""Noise is seeded, as strong as asked, nested where it says so, and leaves alone the rest."""

import re
from random import Random

import pytest

from peftbench.data.text_noise import EDITS, noisy
from peftbench.data.text_noise_lexicon import CONTRACTIONS, NEIGHBOURS, SYNONYMS

TEXTS = [
    "The big company announced on Monday that it would not buy the house , police said .",
    "He can't believe she doesn't know; they quickly began to speak!",
    "I am happy that you found the answer to a difficult question in a rapid way.",
] * 40


@pytest.mark.parametrize("kind", EDITS)
def test_same_seed_same_text_whatever_stands_beside_it(kind):
    first = noisy(TEXTS, kind, 0.5, seed=3)
    assert noisy(TEXTS[:7], kind, 0.5, seed=3) == first[:7]
    assert noisy(TEXTS, kind, 0.5, seed=4) != first


@pytest.mark.parametrize("kind", EDITS)
def test_at_rate_zero_nothing_changes(kind):
    assert noisy(TEXTS, kind, 0.0, seed=0) == TEXTS


@pytest.mark.parametrize("kind", EDITS)
def test_at_rate_zero_line_breaks_and_further_blanks_stay(kind):
    texts = ["A film .\n\nGood  acting ,\tbad  plot . ", " \n", ""]
    assert noisy(texts, kind, 0.0, seed=0) == texts


@pytest.mark.parametrize("seed", range(5))
def test_words_move_and_vanish_between_the_blanks_of_the_text(seed):
    text = " one\ntwo  three\tfour "
    (moved,), (lost,) = (noisy([text], kind, 0.5, seed) for kind in ("order", "dropout"))
    assert re.split(r"\S+", moved) == [" ", "\n", "  ", "\t", " "]
    assert sorted(moved.split()) == ["four", "one", "three", "two"]
    places = {"two": "\n", "three": "  ", "four": "\t"}
    first, *others = lost.split()
    assert lost == " " + first + "".join(places[word] + word for word in others) + " "


@pytest.mark.parametrize("kind", EDITS)
def test_never_leaves_an_empty_text(kind):
    for text in ("a", "No.", "Hi !", "...", "I am"):
        assert noisy([text], kind, 1.0, seed=0)[0].strip()


def letters_changed(kind, rate):
    changed = noisy(TEXTS, kind, rate, seed=0)
    pairs = [(a, b) for x, y in zip(TEXTS, changed, strict=True) for a, b in zip(x, y, strict=True)]
    asked = [(a, b) for a, b in pairs if a.isalpha()]
    return sum(a != b for a, b in asked) / len(asked)


@pytest.mark.parametrize("kind", ["typos", "casing"])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_letters_are_changed_at_the_rate(kind, rate):
    assert letters_changed(kind, rate) == pytest.approx(rate, abs=0.02)


def test_letters_are_left_out_at_the_rate():
    before = sum(c.isalpha() for text in TEXTS for c in text)
    after = sum(c.isalpha() for text in noisy(TEXTS, "deletions", 0.3, 0) for c in text)
    assert after / before == pytest.approx(0.7, abs=0.02)


def test_words_are_left_out_at_the_rate():
    before = sum(len(text.split()) for text in TEXTS)
    after = sum(len(text.split()) for text in noisy(TEXTS, "dropout", 0.2, 0))
    assert after / before == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("kind", ["typos", "casing"])
def test_the_edits_of_a_low_rate_are_among_those_of_a_high_one(kind):
    low, high = (noisy(TEXTS, kind, rate, seed=0) for rate in (0.1, 0.4))
    for before, less, more in zip(TEXTS, low, high, strict=True):
        for a, b, c in zip(before, less, more, strict=True):
            assert b in (a, c)


@pytest.mark.parametrize(("kind", "unit"), [("deletions", list), ("dropout", str.split)])
def test_what_a_low_rate_leaves_out_a_high_one_does_too_until_nothing_would_be_left(kind, unit):
    low, high = (noisy(TEXTS, kind, rate, seed=0) for rate in (0.2, 0.6))
    for less, more in zip(low, high, strict=True):
        rest = iter(unit(less))
        assert all(any(one == kept for kept in rest) for one in unit(more))
    assert noisy(["good film"], kind, 1.0, seed=0) == ["good film"]


def test_the_order_of_a_low_rate_is_not_in_that_of_a_high_one():
    """Each word moves once: at 1 it changes places with the other neighbour."""
    text = "a b c d e"
    swapped = [noisy([text], "order", 0.3, seed)[0] for seed in range(20)]
    assert noisy([text], "order", 1.0, 0) == ["b a d c e"]
    assert "a c b d e" in swapped


def test_a_typo_is_a_neighbour_on_the_keyboard_in_the_same_case():
    assert set(NEIGHBOURS["s"]) == set("adwezx")
    assert all(b in NEIGHBOURS and a in NEIGHBOURS[b] for a in NEIGHBOURS for b in NEIGHBOURS[a])
    for before, after in zip(TEXTS[0], noisy(TEXTS[:1], "typos", 1.0, 0)[0], strict=True):
        assert not before.isalpha() or after.lower() in NEIGHBOURS[before.lower()]
        assert before.isupper() == after.isupper()


def test_swaps_and_order_move_and_lose_nothing():
    for kind, split in (("swaps", list), ("order", str.split)):
        for before, after in zip(TEXTS, noisy(TEXTS, kind, 0.5, 0), strict=True):
            assert sorted(split(before)) == sorted(split(after))
            assert before != after


def test_synonyms_replace_known_words_alone():
    for before, after in zip(TEXTS, noisy(TEXTS, "synonyms", 1.0, 0), strict=True):
        for a, b in zip(before.split(), after.split(), strict=True):
            known = SYNONYMS.get(a.strip(";!.").lower())
            assert b.strip(";!.").lower() in known if known else a == b


def test_contractions_go_both_ways():
    random = Random(0)
    edit = EDITS["contractions"]
    assert edit("It is not that I do not know.", 1.0, random) == "It's not that I don't know."
    assert edit("They don't, he can't, we won't", 1.0, random) == (
        "They do not, he cannot, we will not"
    )
    assert edit("they do n't know", 1.0, random) == "they do not know"  # as treebanks write it
    assert edit("the isotope", 1.0, random) == "the isotope"
    assert len(CONTRACTIONS) == 3 * 31 - 2  # long, short and broken forms; "can not" has its own
