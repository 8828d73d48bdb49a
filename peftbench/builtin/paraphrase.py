"""Paraphrase: do two sentences mean the same? (MRPC's shape).

Each family below draws a sentence, a second one that says the same in another construction, and
a third that says something else in nearly the same words: roles swapped, events reordered, a
modifier moved to the other noun, a verb's converse, a double negation undone. The second or the
third becomes the example's other half. Both are built by the same route, and synonyms stand in
both, so that how many words two sentences share says little.
"""

from random import Random

from peftbench.builtin.lexicon import (
    DEEDS,
    ENCOUNTERS,
    MANNERS,
    NAMES,
    OBJECTS,
    PLACES,
    ROLES,
    TIMES,
    Verb,
    article,
)

PARAPHRASES = 0.5
_Row = tuple[str, ...]


def draw(random: Random) -> tuple[dict[str, str | int], tuple[str, ...]]:
    """One example, and the sentences that no other example may use."""
    family = random.choice(_FAMILIES)
    texts = tuple(text[0].upper() + text[1:] + "." for text in family(random))
    label = int(random.random() < PARAPHRASES)
    pair = [texts[0], texts[2 - label]]
    random.shuffle(pair)
    return {"sentence1": pair[0], "sentence2": pair[1], "label": label}, texts


def _two(random: Random, rows: tuple[_Row, ...]) -> tuple[_Row, _Row]:
    first = second = random.choice(rows)
    while second is first:
        second = random.choice(rows)
    return first, second


def _circumstance(random: Random) -> _Row:
    return random.choice(random.choice((PLACES, TIMES)))


def _said(random: Random, row: _Row) -> str:
    return random.choice(row)


def _the(random: Random, row: _Row) -> str:
    return "the " + random.choice(row)


def _clause(random: Random, agent: _Row, verb: tuple[Verb, ...], patient: _Row, end: _Row) -> str:
    """The event in one of five constructions."""
    who, whom = _the(random, agent), _the(random, patient)
    deed, tail = random.choice(verb), _said(random, end)
    return random.choice(
        (
            f"{who} {deed.past} {whom} {tail}",
            f"{whom} was {deed.participle} by {who} {tail}",
            f"{tail} {who} {deed.past} {whom}",
            f"it was {who} who {deed.past} {whom} {tail}",
            f"{tail} {whom} was {deed.participle} by {who}",
        )
    )


def _roles(random: Random) -> tuple[str, str, str]:
    (agent, patient), verb = _two(random, ROLES), random.choice(ENCOUNTERS)
    end = _circumstance(random)
    return (
        _clause(random, agent, verb, patient, end),
        _clause(random, agent, verb, patient, end),
        _clause(random, patient, verb, agent, end),
    )


def _word(random: Random) -> tuple[str, str, str]:
    """One fact is another one; synonyms everywhere."""
    agent, other_agent = _two(random, ROLES)
    thing, other_thing = _two(random, OBJECTS)
    end, other_end = _two(random, random.choice((PLACES, TIMES, MANNERS)))
    verb = random.choice(DEEDS)
    other = random.choice(
        ((other_agent, verb, thing, end), (agent, verb, other_thing, end))
        + ((agent, verb, thing, other_end),) * 2
    )
    return (
        _active(random, agent, verb, thing, end),
        _active(random, agent, verb, thing, end),
        _active(random, *other),
    )


def _active(random: Random, agent: _Row, verb: tuple[Verb, ...], thing: _Row, end: _Row) -> str:
    who, what = _the(random, agent), _the(random, thing)
    deed, tail = random.choice(verb), _said(random, end)
    if random.random() < 0.5:
        return f"{who} {deed.past} {what} {tail}"
    return f"{what} was {deed.participle} by {who} {tail}"


def _giving(random: Random) -> tuple[str, str, str]:
    (giver, taker), thing = _two(random, ROLES), random.choice(OBJECTS)
    end = _circumstance(random)
    return (
        _give(random, giver, taker, thing, end),
        _give(random, giver, taker, thing, end),
        _give(random, taker, giver, thing, end),
    )


def _give(random: Random, giver: _Row, taker: _Row, thing: _Row, end: _Row) -> str:
    who, whom = _the(random, giver), _the(random, taker)
    what, tail = article(_said(random, thing)), _said(random, end)
    return random.choice(
        (
            f"{who} gave {whom} {what} {tail}",
            f"{who} gave {what} to {whom} {tail}",
            f"{whom} got {what} from {who} {tail}",
            f"{whom} was given {what} by {who} {tail}",
        )
    )


def _trade(random: Random) -> tuple[str, str, str]:
    (seller, buyer), thing = _two(random, ROLES), random.choice(OBJECTS)
    sell, buy, source = random.choice(
        (("sold", "bought", "from"), ("lent", "borrowed", "from"), ("rented", "hired", "from"))
    )
    who, whom, what = _the(random, seller), _the(random, buyer), "the " + _said(random, thing)
    selling = (f"{who} {sell} {what} to {whom}", f"{who} {sell} {whom} {what}")
    buying = f"{whom} {buy} {what} {source} {who}"
    unselling = (f"{whom} {sell} {what} to {who}", f"{whom} {sell} {who} {what}")
    unbuying = f"{who} {buy} {what} {source} {whom}"
    if random.random() < 0.5:
        return random.choice(selling), buying, random.choice((unbuying, *unselling))
    return buying, random.choice(selling), random.choice((unbuying, *unselling))


def _comparison(random: Random) -> tuple[str, str, str]:
    more, less = random.choice(
        (
            ("taller", "shorter"),
            ("older", "younger"),
            ("richer", "poorer"),
            ("stronger", "weaker"),
            ("faster", "slower"),
            ("happier", "sadder"),
        )
    )
    if random.random() < 0.5:
        more, less = less, more
    big, small = _two(random, ROLES)
    much = random.choice(("much ", "a little ", "far ", ""))
    who, whom = _the(random, big), _the(random, small)
    end = random.choice(("", " these days", " than before"))[: 0 if much else None]
    end = end if end != " than before" else ""
    first = f"{who} is {much}{more} than {whom}{end}"
    same = f"{whom} is {much}{less} than {who}{end}"
    other = random.choice(
        (f"{whom} is {much}{more} than {who}{end}", f"{who} is {much}{less} than {whom}{end}")
    )
    return first, same, other


_EVENTS = (
    ("the {} arrived", "the {} came"),
    ("the {} fell asleep", "the {} went to sleep"),
    ("the {} left the room", "the {} went out"),
    ("the {} began to cry", "the {} started to cry"),
    ("the {} rang the bell",),
    ("the {} lit a fire", "the {} made a fire"),
    ("the {} opened the door",),
    ("the {} told a story",),
    ("the {} called the police", "the {} phoned the police"),
    ("the {} fell ill", "the {} became sick"),
)


def _order(random: Random) -> tuple[str, str, str]:
    (agent, other), (first, second) = _two(random, ROLES), _two(random, _EVENTS)
    return (
        _sequence(random, (agent, first), (other, second)),
        _sequence(random, (agent, first), (other, second)),
        _sequence(random, (other, second), (agent, first)),
    )


def _sequence(random: Random, early: tuple[_Row, _Row], late: tuple[_Row, _Row]) -> str:
    one, two = (_said(random, event).format(_said(random, role)) for role, event in (early, late))
    return random.choice(
        (
            f"after {one}, {two}",
            f"{one} before {two}",
            f"before {two}, {one}",
            f"{two} after {one}",
            f"{one}, and then {two}",
        )
    )


def _cause(random: Random) -> tuple[str, str, str]:
    (agent, other), (first, second) = _two(random, ROLES), _two(random, _EVENTS)
    return (
        _because(random, (agent, first), (other, second)),
        _because(random, (agent, first), (other, second)),
        _because(random, (other, second), (agent, first)),
    )


def _because(random: Random, cause: tuple[_Row, _Row], effect: tuple[_Row, _Row]) -> str:
    one, two = (_said(random, event).format(_said(random, role)) for role, event in (cause, effect))
    return random.choice(
        (f"{two} because {one}", f"because {one}, {two}", f"{one}, so {two}", f"since {one}, {two}")
    )


def _counts(random: Random) -> tuple[str, str, str]:
    """Two counted (or coloured) things; the other sentence exchanges the counts."""
    fruits = ("apples", "pears", "melons", "lemons", "carrots", "onions", "potatoes", "plums")
    numbers = ("two", "three", "four", "five", "six", "seven", "ten", "twelve")
    things = ("hat", "coat", "scarf", "shirt", "bag", "belt", "sweater", "umbrella")
    colours = ("red", "blue", "green", "white", "black", "yellow", "brown", "grey")
    words, marks = random.choice(((fruits, numbers), (things, colours)))
    one, two = random.choice(words), random.choice(words)
    mark, other = random.choice(marks), random.choice(marks)
    if one == two or mark == other:
        return _counts(random)
    glue = "a " if marks is colours else ""
    role, tail = random.choice(ROLES), random.choice((*PLACES, *TIMES))
    verb = random.choice(DEEDS[:1] + DEEDS[7:9] + DEEDS[11:13])

    def sentence(*listed: str) -> str:
        what = " and ".join(glue + item for item in listed)
        return f"{_the(random, role)} {random.choice(verb).past} {what} {_said(random, tail)}"

    return (
        sentence(f"{mark} {one}", f"{other} {two}"),
        sentence(f"{other} {two}", f"{mark} {one}"),
        random.choice(
            (sentence(f"{other} {one}", f"{mark} {two}"), sentence(f"{mark} {two}", f"{other} {one}"))
        ),
    )


def _trips(random: Random) -> tuple[str, str, str]:
    """Two places and two days; the other sentence exchanges the days."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
    places = ("market", "bank", "library", "church", "museum", "harbor", "theater", "hospital")
    day, later = random.choice(days), random.choice(days)
    place, other = random.choice(places), random.choice(places)
    if day == later or place == other:
        return _trips(random)
    name = random.choice(NAMES)

    def sentence(here: str, on: str, there: str, then: str) -> str:
        return random.choice(
            (
                f"{name} went to the {here} on {on} and to the {there} on {then}",
                f"on {on} {name} visited the {here}, and on {then} the {there}",
                f"{name} visited the {here} on {on} and the {there} on {then}",
            )
        )

    same = (sentence(place, day, other, later), sentence(other, later, place, day))
    swapped = (sentence(place, later, other, day), sentence(other, day, place, later))
    return sentence(place, day, other, later), random.choice(same), random.choice(swapped)


def _negation(random: Random) -> tuple[str, str, str]:
    """Two ways to say that it happened and two that it did not, each with one negated verb."""
    done, undone = random.choice(
        (
            (("remembered to", "did not forget to"), ("forgot to", "did not remember to")),
            (("managed to", "did not fail to"), ("failed to", "did not manage to")),
            (("agreed to", "did not refuse to"), ("refused to", "did not agree to")),
        )
    )
    if random.random() < 0.5:
        done, undone = undone, done
    verb, role, thing, end = (
        random.choice(DEEDS),
        random.choice(ROLES),
        random.choice(OBJECTS),
        _circumstance(random),
    )

    def sentence(how: str) -> str:
        event = f"{random.choice(verb).base} {_the(random, thing)} {_said(random, end)}"
        return f"{_the(random, role)} {how} {event}"

    first, second = done if random.random() < 0.5 else done[::-1]
    return sentence(first), sentence(second), sentence(random.choice(undone))


def _opposite(random: Random) -> tuple[str, str, str]:
    """A state, its negated opposite, and either of the two that deny it."""
    one, two = random.choice(
        (
            ("open", "closed"),
            ("empty", "full"),
            ("clean", "dirty"),
            ("wet", "dry"),
            ("safe", "dangerous"),
            ("cheap", "expensive"),
            ("quiet", "noisy"),
            ("dark", "bright"),
        )
    )
    if random.random() < 0.5:
        one, two = two, one
    place, end = random.choice(("shop", "hotel", "garden", "station", "cellar", "bridge")), _said(
        random, random.choice(TIMES)
    )
    role = random.choice(ROLES)

    def sentence(state: str) -> str:
        thought = random.choice((f"{_the(random, role)} said that", f"{_the(random, role)} claimed that"))
        return f"{thought} the {place} was {state} {end}"

    same = [one, f"not {two}"]
    random.shuffle(same)
    return sentence(same[0]), sentence(same[1]), sentence(random.choice((two, f"not {one}")))


def _modifiers(random: Random) -> tuple[str, str, str]:
    adjectives = (("old", "elderly"), ("rich", "wealthy"), ("angry", "furious"), ("famous",))
    adjectives += (("young",), ("sick", "ill"), ("clever", "smart"), ("brave", "courageous"))
    (agent, patient), (mark, other) = _two(random, ROLES), _two(random, adjectives)
    verb = random.choice(ENCOUNTERS)

    def sentence(one: _Row, two: _Row) -> str:
        who = f"the {_said(random, one)} {_said(random, agent)}"
        whom = f"the {_said(random, two)} {_said(random, patient)}"
        deed = random.choice(verb)
        if random.random() < 0.5:
            return f"{who} {deed.past} {whom}"
        return f"{whom} was {deed.participle} by {who}"

    return sentence(mark, other), sentence(mark, other), sentence(other, mark)


_FAMILIES = (
    _roles,
    _word,
    _giving,
    _trade,
    _comparison,
    _order,
    _cause,
    _counts,
    _trips,
    _negation,
    _opposite,
    _modifiers,
)
