"""Text as people mistype and rephrase it: seeded edits, each at any rate.

Our own: nlpaug and textattack need downloads (WordNet, embeddings) for what is not a few lines.
With one random stream a low rate's edits are among a high rate's, so that intensities nest, with
two exceptions: swaps and order move each letter and word once at most, so that one of a higher rate
may be in the place of a lower rate's; and a text of which deletions or dropout would leave nothing
stays as it is, so that the strongest noise spares some of the shortest texts. White space stays as
it is, but that a word which is left out takes the one before it along.
"""

import re
from collections.abc import Callable
from random import Random

from peftbench.data.text_noise_lexicon import CONTRACTIONS, NEIGHBOURS, SYNONYMS

Edit = Callable[[str, float, Random], str]

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_ANY_WORD = re.compile(r"\S+")
_MARKS = ".,;:!?"


def typos(text: str, rate: float, random: Random) -> str:
    """Replace letters by their neighbours on the keyboard; `rate` of the letters."""

    def hit(letter: str) -> str:
        draw, which = random.random(), random.random()
        around = NEIGHBOURS.get(letter.lower())
        if draw >= rate or around is None:
            return letter
        found = around[int(which * len(around))]
        return found.upper() if letter.isupper() else found

    return "".join(map(hit, text))


def deletions(text: str, rate: float, random: Random) -> str:
    """Leave out letters; a text of which no letter or digit would be left stays whole."""
    kept = [c for c in text if not (random.random() < rate and c.isalpha())]
    return "".join(kept) if any(c.isalnum() for c in kept) else text


def swaps(text: str, rate: float, random: Random) -> str:
    """Let letters change places with the next one of their word; each moves once at most."""
    letters = list(text)
    draws = [random.random() for _ in letters]
    place = 0
    while place < len(letters) - 1:
        both = letters[place].isalpha() and letters[place + 1].isalpha()
        if both and draws[place] < rate:
            letters[place], letters[place + 1] = letters[place + 1], letters[place]
            place += 1
        place += 1
    return "".join(letters)


def casing(text: str, rate: float, random: Random) -> str:
    """Change small letters to capitals and the other way round; an uncased model sees nothing."""
    return "".join(c.swapcase() if random.random() < rate else c for c in text)


def punctuation(text: str, rate: float, random: Random) -> str:
    """Take marks away from the ends of words, and put marks where none was."""
    words: list[str | None] = [*text.split(" ")]
    for place, word in enumerate(words):
        draw, which = random.random(), random.random()
        if draw < rate and word:
            bare = word.rstrip(_MARKS)
            more = word + _MARKS[int(which * len(_MARKS))]
            words[place] = more if bare == word else bare or None
    kept = " ".join(word for word in words if word is not None)
    return kept if kept.strip() else text


def order(text: str, rate: float, random: Random) -> str:
    """Let words change places with the next one; each moves once at most."""
    words, blanks = _words(text)
    draws = [random.random() for _ in words]
    place = 0
    while place < len(words) - 1:
        if draws[place] < rate:
            words[place], words[place + 1] = words[place + 1], words[place]
            place += 1
        place += 1
    return blanks[0] + "".join(map("".join, zip(words, blanks[1:], strict=True)))


def dropout(text: str, rate: float, random: Random) -> str:
    """Leave out words; a text of which none would be left stays whole."""
    words, blanks = _words(text)
    kept = [place for place in range(len(words)) if random.random() >= rate]
    if not kept:
        return text
    first, *others = kept
    rest = [blanks[place] + words[place] for place in others]
    return "".join([blanks[0], words[first], *rest, blanks[-1]])


def _words(text: str) -> tuple[list[str], list[str]]:
    """Words, and the white space before, between and behind them: one piece more."""
    return _ANY_WORD.findall(text), _ANY_WORD.split(text)


def synonyms(text: str, rate: float, random: Random) -> str:
    """Replace words by one of the same meaning, of those that `lexemes` knows."""

    def other(found: re.Match[str]) -> str:
        word = found[0]
        draw, which = random.random(), random.random()
        known = SYNONYMS.get(word.lower())
        if known is None or draw >= rate:
            return word
        chosen = known[int(which * len(known))]
        return chosen.capitalize() if word[0].isupper() else chosen

    return _WORD.sub(other, text)


def contractions(text: str, rate: float, random: Random) -> str:
    """Write `do not` as `don't` and `don't` as `do not`."""

    def other(found: re.Match[str]) -> str:
        if random.random() >= rate:
            return found[0]
        chosen = CONTRACTIONS[" ".join(found[0].lower().split())]
        return chosen.capitalize() if found[0][0].isupper() else chosen

    return _CONTRACTED.sub(other, text)


_CONTRACTED = re.compile(
    r"\b(?:" + "|".join(re.escape(form) for form in sorted(CONTRACTIONS, key=len)[::-1]) + r")\b",
    re.IGNORECASE,
)

#: The kinds of noise, by name.
EDITS: dict[str, Edit] = {
    edit.__name__: edit
    for edit in (
        typos,
        deletions,
        swaps,
        casing,
        punctuation,
        order,
        dropout,
        synonyms,
        contractions,
    )
}


def noisy(texts: list[str], kind: str, rate: float, seed: int) -> list[str]:
    """The texts with one kind of noise; each text has a random stream of its own.

    Args:
        texts: one column.
        kind: one of `EDITS`.
        rate: share of letters, words or known words that are changed, in [0, 1].
        seed: the same seed and place give the same edits, whatever the other texts are.
    """
    edit = EDITS[kind]
    return [edit(text, rate, Random(f"{seed} {kind} {n}")) for n, text in enumerate(texts)]
