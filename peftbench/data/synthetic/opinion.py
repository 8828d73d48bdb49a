"""Opinions: does this English sentence praise or blame? (SST-2's shape).

No adjective of the validation split occurs in the training split, so what decides there is what a
model knew of these words before: a bag of words has nothing to go by. In two patterns of three a
second adjective of the other kind stands beside the one that decides.
"""

from random import Random
from typing import Any

from peftbench.data.synthetic.lexicon import NAMES

#: By split: words of praise, words of blame.
ADJECTIVES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "train": (
        (
            *("excellent", "wonderful", "delightful", "superb", "pleasant", "charming"),
            *("impressive", "marvellous", "enjoyable", "lovely", "amazing", "outstanding"),
            *("splendid", "beautiful", "satisfying", "remarkable", "fine", "refreshing"),
            *("admirable", "perfect", "thrilling", "inspiring", "flawless", "memorable"),
        ),
        (
            *("terrible", "awful", "dreadful", "boring", "unpleasant", "disappointing"),
            *("poor", "horrible", "annoying", "ugly", "dull", "miserable"),
            *("weak", "tedious", "pathetic", "lousy", "frustrating", "nasty"),
            *("worthless", "useless", "depressing", "mediocre", "clumsy", "forgettable"),
        ),
    ),
    "validation": (
        (
            *("great", "fantastic", "brilliant", "fabulous", "terrific", "magnificent"),
            *("gorgeous", "good", "nice", "exquisite", "stunning", "captivating"),
            *("glorious", "fascinating", "exceptional", "adorable"),
        ),
        (
            *("bad", "appalling", "disgusting", "atrocious", "abysmal", "horrid"),
            *("dismal", "disastrous", "inferior", "ghastly", "unbearable", "rotten"),
            *("shoddy", "irritating", "repulsive", "tiresome"),
        ),
    ),
}
_THINGS = (
    *("film", "book", "concert", "dinner", "hotel", "garden", "lecture", "museum", "journey"),
    *("play", "song", "party", "novel", "game", "show", "meal", "story", "walk", "city", "house"),
)
_PARTS = ("beginning", "end", "weather", "seat", "price", "company", "weekend", "way there")
_VERDICTS = ("found", "called", "considered")


def draw_opinion(random: Random, split: str) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One example, and the sentence that no other example may use."""
    label = int(random.random() < 0.5)
    blame_and_praise = ADJECTIVES[split][::-1]
    word, other = random.choice(blame_and_praise[label]), random.choice(blame_and_praise[1 - label])
    sentence = random.choice(_PATTERNS)(random, word, other)
    return {"sentence": sentence, "label": label}, (sentence,)


def _plain(random: Random, word: str, other: str) -> str:
    name, thing = random.choice(NAMES), random.choice(_THINGS)
    if random.random() < 0.5:
        return f"{name} {random.choice(_VERDICTS)} the {thing} quite {word}."
    return f"The {thing} that {name} chose was {word}."


def _although(random: Random, word: str, other: str) -> str:
    name, thing = random.choice(NAMES), random.choice(_THINGS)
    aside = f"although the {random.choice(_PARTS)} was {other}"
    clause = f"the {thing} of {name} was {word}"
    if random.random() < 0.5:
        return f"{aside[0].upper()}{aside[1:]}, {clause}."
    return f"{clause[0].upper()}{clause[1:]}, {aside}."


def _at_first(random: Random, word: str, other: str) -> str:
    name, thing = random.choice(NAMES), random.choice(_THINGS)
    return f"The {thing} seemed {other} to {name} at first, but it was {word}."


_PATTERNS = (_plain, _although, _at_first)
