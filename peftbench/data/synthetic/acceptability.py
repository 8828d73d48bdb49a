"""Acceptability: is this English sentence grammatical? (CoLA's shape).

Each rule below draws a minimal pair, an acceptable sentence and a violation of one rule of
grammar, and one of the two becomes the example. Pairs are built so that what decides is mostly not
local: an adjective, an attractor or a whole clause stands between the words that must agree, and
both sentences of a pair use words and neighbours that the other kind uses elsewhere.
"""

from random import Random
from typing import Any

from peftbench.data.synthetic.lexicon import (
    INTRANSITIVE,
    IRREGULAR,
    MEN,
    NAMES,
    PEOPLE,
    SIZES,
    SOCIAL,
    STRICT,
    THINGS,
    WOMEN,
)

ACCEPTABLE = 0.7
_Pair = tuple[str, str]
_WHERE = ("in the garden", "at the station", "near the bridge", "in the kitchen")
_PAST = ("yesterday", "last night", "last week")
_FUTURE = ("tomorrow", "next week", "next year")
_DEGREES = (
    ("tall", "taller"),
    ("old", "older"),
    ("kind", "kinder"),
    ("strong", "stronger"),
    ("fast", "faster"),
    ("rich", "richer"),
)


def draw_minimal_pair(random: Random) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One example, and the sentences that no other example may use: both of its minimal pair."""
    acceptable, violation = random.choice(_RULES)(random)
    pair = tuple(words[0].upper() + words[1:] for words in (acceptable, violation))
    label = int(random.random() < ACCEPTABLE)
    return {"sentence": pair[1 - label], "label": label}, pair


def _person(random: Random) -> str:
    return "the " + random.choice(PEOPLE).one


def _thing(random: Random) -> str:
    return "the " + random.choice(THINGS).one


def _flip(random: Random) -> bool:
    return random.random() < 0.5


def _agreement(random: Random) -> _Pair:
    """Subject and verb, with an attractor of either number between them."""
    plural = _flip(random)
    head, attractor = random.choice(PEOPLE).form(plural), random.choice(PEOPLE).form(_flip(random))
    link = random.choice(("near", "behind", "who met", "who saw"))
    singular, several = random.choice((("is", "are"), ("was", "were")))
    right, wrong = (several, singular) if plural else (singular, several)
    start = f"the {head} {link} the {attractor}"
    state = random.choice(("tired", "angry", "late", "famous", "hungry"))
    return f"{start} {right} {state}.", f"{start} {wrong} {state}."


def _determiner(random: Random) -> _Pair:
    """Determiner and noun, with an adjective between them."""
    plural = _flip(random)
    words = ("these", "those", "many", "several") if plural else ("this", "that", "every", "a")
    noun = random.choice(THINGS)
    start = f"{random.choice(NAMES)} {random.choice(STRICT).past} {random.choice(words)}"
    start += f" {random.choice(SIZES)}"
    where = random.choice(_WHERE)
    return f"{start} {noun.form(plural)} {where}.", f"{start} {noun.form(not plural)} {where}."


def _reflexive(random: Random) -> _Pair:
    """A reflexive and its subject, with an attractor between them."""
    near, far = (WOMEN, MEN) if _flip(random) else (MEN, WOMEN)
    plural = random.random() < 0.3
    head, attractor = random.choice(near), random.choice(far).one
    right = "themselves" if plural else head.reflexive
    wrong = far[0].reflexive if plural or random.random() < 0.7 else "themselves"
    start = f"the {head.form(plural)} {random.choice(('near', 'behind', 'who met'))}"
    start += f" the {attractor} {random.choice(SOCIAL).past}"
    return f"{start} {right}.", f"{start} {wrong}."


def _polarity(random: Random) -> _Pair:
    """`Ever` needs a negation that is not shut up in a relative clause."""
    head, other = _person(random), _person(random)
    likes = random.choice(("likes", "knows", "trusts", "remembers"))
    done = f"{random.choice(SOCIAL).participle} {random.choice(NAMES)}."
    licensed = f"no {head[4:]} that {other} {likes} has"
    unlicensed = f"{head} that no {other[4:]} {likes} has"
    if _flip(random):
        return f"{licensed} ever {done}", f"{unlicensed} ever {done}"
    return f"{unlicensed} {random.choice(('already', 'never'))} {done}", f"{unlicensed} ever {done}"


def _valency(random: Random) -> _Pair:
    """A missing object, or one too many."""
    strict = _flip(random)
    verb = random.choice(STRICT if strict else INTRANSITIVE).past
    start = f"{random.choice(NAMES)} and {_person(random)} {verb}"
    end = random.choice(_WHERE + _PAST)
    short, long = f"{start} {end}.", f"{start} {_thing(random)} {end}."
    return (long, short) if strict else (short, long)


def _verb_form(random: Random) -> _Pair:
    """Auxiliary and verb form, with an adverb between them."""
    verb, objects = random.choice(IRREGULAR)
    auxiliaries = (
        (("has", "had"), verb.participle),
        (("is", "was"), verb.ing),
        (("will", "can"), verb.base),
    )
    auxiliary, right = random.choice(auxiliaries)
    wrong = random.choice([form for _, form in auxiliaries if form != right])
    start = f"{_person(random)} {random.choice(auxiliary)} {random.choice(('often', 'always'))}"
    end = f"the {random.choice(objects)}."
    return f"{start} {right} {end}", f"{start} {wrong} {end}"


def _tense(random: Random) -> _Pair:
    """Tense and a time at the other end of the sentence."""
    verb, objects = random.choice(IRREGULAR)
    person, thing = _person(random), random.choice(objects)
    before, after = random.choice(_PAST), random.choice(_FUTURE)
    predicate, right, wrong = verb.past, before, after
    if _flip(random):
        predicate, right, wrong = f"will {verb.base}", after, before
    clause = f"{person} {predicate} the {thing}"
    if _flip(random):
        return f"{right} {clause}.", f"{wrong} {clause}."
    return f"{clause} {right}.", f"{clause} {wrong}."


def _inversion(random: Random) -> _Pair:
    """Questions invert subject and auxiliary, embedded ones do not."""
    person, verb, thing = _person(random), random.choice(STRICT), _thing(random)
    word = random.choice(("why", "how", "where", "when"))
    question = f"{word} did {person} {verb.base} {thing}"
    clause = f"{word} {person} {verb.past} {thing}"
    if _flip(random):
        return f"{question}?", f"{clause}?"
    start = f"{random.choice(NAMES)} {random.choice(('knows', 'forgot', 'remembers'))}"
    return f"{start} {clause}.", f"{start} {question}."


def _infinitive(random: Random) -> _Pair:
    """With or without `to`, as a verb before the object demands."""
    to = _flip(random)
    verbs = ("persuaded", "forced", "asked", "told") if to else ("made", "let", "watched", "heard")
    start = f"{_person(random)} {random.choice(verbs)} {random.choice(NAMES)}"
    end = f"{random.choice(STRICT).base} {_thing(random)}."
    right, wrong = f"{start} to {end}", f"{start} {end}"
    return (right, wrong) if to else (wrong, right)


def _dative(random: Random) -> _Pair:
    """Some verbs of giving take two objects, others do not."""
    double = ("gave", "sent", "showed", "offered", "handed")
    single = ("described", "donated", "mentioned", "revealed", "displayed")
    giver, taker, thing = _person(random), _person(random), _thing(random)
    verb = random.choice(single)
    wrong = f"{giver} {verb} {taker} {thing}."
    if _flip(random):
        return f"{giver} {random.choice(double)} {taker} {thing}.", wrong
    return f"{giver} {verb} {thing} to {taker}.", wrong


def _comparative(random: Random) -> _Pair:
    """`As tall as`, `taller than`, and no mixture."""
    plain, more = random.choice(_DEGREES)
    start, end = f"{_person(random)} is", f"{_person(random)}."
    if _flip(random):
        start = f"{start} {random.choice(('almost', 'just', 'nearly'))} as"
        return f"{start} {plain} as {end}", f"{start} {plain} than {end}"
    start = f"{start} {random.choice(('much', 'slightly', 'far'))}"
    return f"{start} {more} than {end}", f"{start} {more} as {end}"


def _correlative(random: Random) -> _Pair:
    """`Neither` goes with `nor`, `either` with `or`, `both` with `and`."""
    words = (("neither", "nor"), ("either", "or"), ("both", "and"))
    first, second = random.choice(words)
    wrong = random.choice([other for _, other in words if other != second])
    start = f"{random.choice(NAMES)} {random.choice(SOCIAL).past} {first} {_person(random)}"
    end = f"{_person(random)}."
    return f"{start} {second} {end}", f"{start} {wrong} {end}"


_RULES = (
    _agreement,
    _determiner,
    _reflexive,
    _polarity,
    _valency,
    _verb_form,
    _tense,
    _inversion,
    _infinitive,
    _dative,
    _comparative,
    _correlative,
)
