"""Paraphrase: do two sentences mean the same? (MRPC's shape).

Each family below draws a sentence, a second one that says the same, and a third that says
something else in equally many of the same words: one fact exchanged while another is restated,
roles or an order of events reversed, a number moved to the other noun, one of two negations
undone. The second or the third becomes the example's other half, so the share of common words
tells nothing.
"""

from random import Random
from typing import Any

from peftbench.data.synthetic.lexicon import (
    DEEDS,
    ENCOUNTERS,
    MANNERS,
    OBJECTS,
    PLACES,
    QUALITIES,
    ROLES,
    STATES,
    TIMES,
    Row,
    Verb,
)

PARAPHRASES = 0.5
_BOTH = 0.6
_Texts = tuple[str, str, str]


def draw_paraphrase(random: Random) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One example, and the sentences that no other example may use."""
    family = random.choice(_FAMILIES)
    texts = tuple(text[0].upper() + text[1:] + "." for text in family(random))
    label = int(random.random() < PARAPHRASES)
    pair = [texts[0], texts[2 - label]]
    random.shuffle(pair)
    return {"sentence1": pair[0], "sentence2": pair[1], "label": label}, texts


def _fact(random: Random) -> _Texts:
    """Two facts in other words, against two words that differ, of which one or both are news."""
    social = random.random() < 0.5
    vocabulary: tuple[tuple[Row, ...], ...] = (
        ROLES,
        ENCOUNTERS if social else DEEDS,
        ROLES if social else OBJECTS,
        random.choice((PLACES, TIMES, MANNERS)),
    )
    meaning = [random.choice(rows) for rows in vocabulary]
    while meaning[2] is meaning[0]:
        meaning[2] = random.choice(vocabulary[2])
    words = [random.choice(row) for row in meaning]
    places = _two(random, tuple(range(len(words))))
    same, other = list(words), list(words)
    for place in places:
        same[place] = other[place] = _other(random, meaning[place], words[place])
    for place in places[: 2 if random.random() < _BOTH else 1]:
        meaning.append(random.choice([row for row in vocabulary[place] if row not in meaning]))
        other[place] = random.choice(meaning[-1])
    return _event(random, *words), _event(random, *same), _event(random, *other)


def _event(random: Random, agent: str, deed: Verb, patient: str, tail: str) -> str:
    return random.choice(
        (
            f"the {agent} {deed.past} the {patient} {tail}",
            f"the {patient} was {deed.participle} by the {agent} {tail}",
        )
    )


def _two(random: Random, items: tuple[Any, ...]) -> tuple[Any, Any]:
    first = random.choice(items)
    return first, random.choice([item for item in items if item != first])


def _other(random: Random, row: Row, word: Any) -> Any:
    return random.choice([item for item in row if item != word])


def _quality(random: Random) -> _Texts:
    """A restated adjective against its opposite, each beside a restated noun."""
    (same_row, opposite), thing = random.choice(QUALITIES), random.choice(OBJECTS)
    if random.random() < 0.5:
        same_row, opposite = opposite, same_row
    word, noun = random.choice(same_row), random.choice(thing)
    agent, deed, tail = random.choice(ROLES)[0], random.choice(DEEDS), random.choice(PLACES)[0]
    verb = random.choice(deed)

    def sentence(adjective: str, patient: str) -> str:
        return _event(random, agent, verb, f"{adjective} {patient}", tail)

    restated = _other(random, thing, noun)
    return (
        sentence(word, noun),
        sentence(_other(random, same_row, word), restated),
        sentence(random.choice(opposite), restated),
    )


def _roles(random: Random) -> _Texts:
    first, second = _two(random, ROLES)
    agent, patient = random.choice(first), random.choice(second)
    deed, tail = random.choice(random.choice(ENCOUNTERS)), random.choice(random.choice(TIMES))
    return (
        _event(random, agent, deed, patient, tail),
        _event(random, agent, deed, patient, tail),
        _event(random, patient, deed, agent, tail),
    )


_DEGREES = (
    ("taller", "shorter"),
    ("older", "younger"),
    ("richer", "poorer"),
    ("stronger", "weaker"),
    ("faster", "slower"),
)


def _comparison(random: Random) -> _Texts:
    more, less = _two(random, random.choice(_DEGREES))
    first, second = _two(random, ROLES)
    one, two = random.choice(first), random.choice(second)
    much = random.choice(("much ", "a little ", "far ", "slightly "))
    return (
        f"the {one} is {much}{more} than the {two}",
        f"the {two} is {much}{less} than the {one}",
        f"the {one} is {much}{less} than the {two}",
    )


_HAPPENINGS = (
    "arrived",
    "fell asleep",
    "left the room",
    "began to cry",
    "rang the bell",
    "lit a fire",
    "opened the door",
    "told a story",
)


def _order(random: Random) -> _Texts:
    first, second = _two(random, ROLES)
    one, two = _two(random, _HAPPENINGS)
    early, late = f"the {random.choice(first)} {one}", f"the {random.choice(second)} {two}"

    def sentence(early: str, late: str) -> str:
        return random.choice((f"{early} before {late}", f"{late} after {early}"))

    return sentence(early, late), sentence(early, late), sentence(late, early)


def _counts(random: Random) -> _Texts:
    """Two counted things; the other sentence exchanges the counts."""
    one, two = _two(random, ("apples", "pears", "melons", "lemons", "carrots", "onions"))
    few, many = _two(random, ("two", "three", "four", "five", "six", "seven"))
    start = f"the {random.choice(random.choice(ROLES))} bought"
    tail = random.choice(random.choice(PLACES))
    return (
        f"{start} {few} {one} and {many} {two} {tail}",
        f"{start} {many} {two} and {few} {one} {tail}",
        f"{start} {few} {two} and {many} {one} {tail}",
    )


def _negation(random: Random) -> _Texts:
    """Two ways to say that it happened and two that it did not, each with one negated verb."""
    done, undone = random.choice(
        (
            (("remembered to", "did not forget to"), ("forgot to", "did not remember to")),
            (("managed to", "did not fail to"), ("failed to", "did not manage to")),
        )
    )
    if random.random() < 0.5:
        done, undone = undone, done
    first, second = _two(random, done)
    start = f"the {random.choice(random.choice(ROLES))}"
    deed, thing = random.choice(random.choice(DEEDS)).base, random.choice(random.choice(OBJECTS))
    end = f"{deed} the {thing} {random.choice(random.choice(PLACES))}"
    return (
        f"{start} {first} {end}",
        f"{start} {second} {end}",
        f"{start} {random.choice(undone)} {end}",
    )


def _opposite(random: Random) -> _Texts:
    """A state and its negated opposite, against either of the two that deny it."""
    states = random.choice(STATES)
    one, two = states if random.random() < 0.5 else states[::-1]
    place = random.choice(("shop", "hotel", "garden", "station", "cellar", "bridge"))
    start = f"the {random.choice(random.choice(ROLES))} said that the {place} was"
    tail = random.choice(random.choice(TIMES))
    first, second = _two(random, (one, f"not {two}"))
    return (
        f"{start} {first} {tail}",
        f"{start} {second} {tail}",
        f"{start} {random.choice((two, f'not {one}'))} {tail}",
    )


# Mostly what a small model can learn from a thousand examples, and a rest that it cannot.
_FAMILIES = (
    (_fact,) * 14
    + (_quality,) * 4
    + (_negation,) * 2
    + (_opposite, _roles, _comparison, _order, _counts)
)
