"""Acceptability: is this English sentence grammatical? (CoLA's shape).

Each rule below draws a minimal pair, an acceptable sentence and a violation of one rule of
grammar, and one of the two becomes the example. Pairs are built so that what decides is not
local: an adverb, an attractor or a whole clause stands between the two words that must agree,
and both sentences of a pair use words and neighbours that the other kind uses elsewhere.
"""

from random import Random

from peftbench.builtin.lexicon import (
    INTRANSITIVE,
    IRREGULAR,
    MASS,
    MEN,
    NAMES,
    PEOPLE,
    SIZES,
    SOCIAL,
    STRICT,
    THINGS,
    WOMEN,
    Verb,
    article,
)

ACCEPTABLE = 0.7
_BETWEEN = ("near", "behind", "next to", "in front of")
_OFTEN = ("always", "often", "rarely", "never", "sometimes")
_QUIETLY = ("quietly", "slowly", "proudly", "secretly", "quickly", "angrily")
_WHERE = ("in the garden", "at the station", "near the bridge", "at the market", "in the kitchen")
_PAST = ("yesterday", "last night", "last week", "two days ago", "on Monday")
_FUTURE = ("tomorrow", "next week", "next year", "in two days", "soon")


def draw(random: Random) -> tuple[dict[str, str | int], tuple[str, ...]]:
    """One example, and the sentences that no other example may use: both of its minimal pair."""
    acceptable, violation = random.choice(_RULES)(random)
    pair = tuple(words[0].upper() + words[1:] for words in (acceptable, violation))
    label = int(random.random() < ACCEPTABLE)
    return {"sentence": pair[1 - label], "label": label}, pair


def _person(random: Random, plural: bool = False) -> str:
    return random.choice(PEOPLE).form(plural)


def _people(random: Random, count: int) -> list[str]:
    return [noun.one for noun in random.sample(PEOPLE, count)]


def _thing(random: Random) -> str:
    return "the " + random.choice(THINGS).one


def _flip(random: Random) -> bool:
    return random.random() < 0.5


def _finite(random: Random, plural: bool) -> tuple[str, str]:
    """A present-tense predicate, for a subject of this number and for one of the other."""
    kind = random.randrange(4)
    if kind == 0:
        verb = random.choice(SOCIAL)
        rest = " the " + _person(random, _flip(random))
        right, wrong = verb.present(plural), verb.present(not plural)
    elif kind == 1:
        right, wrong = ("are", "is") if plural else ("is", "are")
        rest = " " + random.choice(("tired", "angry", "late", "famous", "very tall", "hungry"))
    elif kind == 2:
        right, wrong = ("have", "has") if plural else ("has", "have")
        rest = " already " + random.choice(INTRANSITIVE).participle
    else:
        right, wrong = ("were", "was") if plural else ("was", "were")
        rest = f" waiting {random.choice(_WHERE)}"
    return right + rest, wrong + rest


def _agreement_over_phrase(random: Random) -> tuple[str, str]:
    plural = _flip(random)
    head, attractor = _person(random, plural), _person(random, _flip(random))
    right, wrong = _finite(random, plural)
    subject = f"the {head} {random.choice(_BETWEEN)} the {attractor}"
    return f"{subject} {right}.", f"{subject} {wrong}."


def _agreement_over_clause(random: Random) -> tuple[str, str]:
    plural = _flip(random)
    head, attractor = _person(random, plural), _person(random, _flip(random))
    verb = random.choice(SOCIAL).past
    right, wrong = _finite(random, plural)
    clause = f"who the {attractor} {verb}" if _flip(random) else f"who {verb} the {attractor}"
    subject = f"the {head} {clause}"
    return f"{subject} {right}.", f"{subject} {wrong}."


def _agreement_inside_clause(random: Random) -> tuple[str, str]:
    plural = _flip(random)
    verb = random.choice(SOCIAL)
    start = f"{random.choice(NAMES)} knows the {_person(random, plural)} who"
    start += " " + random.choice(_OFTEN)
    end = f"the {_person(random, _flip(random))}."
    return f"{start} {verb.present(plural)} {end}", f"{start} {verb.present(not plural)} {end}"


def _existential(random: Random) -> tuple[str, str]:
    plural = _flip(random)
    size, noun = random.choice(SIZES), random.choice(THINGS).form(plural)
    many = random.choice(("two", "several", "many", "some"))
    phrase = f"{many} {size} {noun}" if plural else article(f"{size} {noun}")
    middle = f"{random.choice(('always', 'usually', 'still', 'often'))} {phrase}"
    middle += " " + random.choice(_WHERE)
    verbs = random.choice((("is", "are"), ("was", "were")))
    return f"there {verbs[plural]} {middle}.", f"there {verbs[not plural]} {middle}."


def _determiner(random: Random) -> tuple[str, str]:
    single = ("this", "that", "every", "each", "one", "another")
    several = ("these", "those", "many", "several", "three", "both")
    plural = _flip(random)
    determiner = random.choice(several if plural else single)
    size, noun = random.choice(SIZES), random.choice(THINGS)
    where = random.choice(_WHERE)
    start = f"{random.choice(NAMES)} {random.choice(STRICT).past} {determiner} {size}"
    return f"{start} {noun.form(plural)} {where}.", f"{start} {noun.form(not plural)} {where}."


def _mass(random: Random) -> tuple[str, str]:
    countable = _flip(random)
    size = random.choice(("old", "dirty", "cheap", "strange", "yellow"))
    noun = random.choice(THINGS).many if countable else random.choice(MASS)
    many, much = random.choice((("too many", "too much"), ("so many", "so much"), ("fewer", "less")))
    right, wrong = (many, much) if countable else (much, many)
    start = f"the {_person(random)} {random.choice(('saw', 'bought', 'wanted', 'found'))}"
    end = f"{size} {noun} {random.choice(_PAST)}."
    return f"{start} {right} {end}", f"{start} {wrong} {end}"


def _reflexive(random: Random) -> tuple[str, str]:
    groups = [WOMEN, MEN]
    random.shuffle(groups)
    plural, attractors = _flip(random), _flip(random)
    head, other = random.choice(groups[0]), random.choice(groups[1])
    right = "themselves" if plural else head.reflexive
    wrong = "themselves" if attractors else other.reflexive
    if wrong == right:
        wrong = other.reflexive
    verb = random.choice(SOCIAL).past
    link = random.choice(("near", "behind", "who met", "who liked", "next to"))
    start = f"the {head.form(plural)} {link} the {other.form(attractors)} {verb}"
    return f"{start} {right}.", f"{start} {wrong}."


def _polarity(random: Random) -> tuple[str, str]:
    head, other = _people(random, 2)
    link = f"that {{}} {other} {random.choice(('likes', 'knows', 'trusts', 'remembers'))} has"
    done = f"{random.choice(SOCIAL).participle} {random.choice(NAMES)}."
    licensed = f"no {head} {link.format('the')}"
    unlicensed = f"the {head} {link.format('no')}"
    if _flip(random):
        return f"{licensed} ever {done}", f"{unlicensed} ever {done}"
    other_adverb = random.choice(("already", "never", "often"))
    return f"{unlicensed} {other_adverb} {done}", f"{unlicensed} ever {done}"


def _valency(random: Random) -> tuple[str, str]:
    strict = _flip(random)
    verb = random.choice(STRICT if strict else INTRANSITIVE).past
    start = f"{random.choice(NAMES)} and the {_person(random)} {verb}"
    end = random.choice(_WHERE + _PAST)
    short, long = f"{start} {end}.", f"{start} {_thing(random)} {end}."
    return (long, short) if strict else (short, long)


def _verb_form(random: Random) -> tuple[str, str]:
    verb, objects = random.choice(IRREGULAR)
    thing = random.choice(objects)
    person = _person(random)
    auxiliaries = (
        (("had", "has"), verb.participle),
        (("was", "is"), verb.ing),
        (("will", "can", "did"), verb.base),
        (("",), verb.past),
    )
    auxiliary, right = random.choice(auxiliaries)
    wrong = random.choice([form for _, form in auxiliaries if form != right])
    adverb = random.choice(_OFTEN)
    auxiliary = random.choice(auxiliary)
    negation = "not " if auxiliary in ("did", "was", "is") else ""
    if negation:
        adverb = "always"
    start = f"the {person} {auxiliary} {negation}{adverb}".replace("  ", " ")
    return f"{start} {right} the {thing}.", f"{start} {wrong} the {thing}."


def _passive(random: Random) -> tuple[str, str]:
    verb, objects = random.choice(IRREGULAR)
    adverb, person, thing = random.choice(_QUIETLY), _person(random), random.choice(objects)
    if _flip(random):
        start, end = f"the {thing} was {adverb}", f"by the {person}."
        return f"{start} {verb.participle} {end}", f"{start} {verb.past} {end}"
    start, end = f"the {person} {adverb}", f"the {thing} {random.choice(_PAST)}."
    return f"{start} {verb.past} {end}", f"{start} {verb.participle} {end}"


def _tense(random: Random) -> tuple[str, str]:
    verb, objects = random.choice(IRREGULAR)
    rest = f"the {random.choice(objects)}"
    person = _person(random)
    past = f"the {person} {verb.past} {rest}"
    future = f"the {person} will {verb.base} {rest}"
    before, after = random.choice(_PAST), random.choice(_FUTURE)
    right, wrong = ((past, before), (past, after))
    if _flip(random):
        right, wrong = ((future, after), (future, before))
    if _flip(random):
        return f"{right[1]} {right[0]}.", f"{wrong[1]} {wrong[0]}."
    return f"{right[0]} {right[1]}.", f"{wrong[0]} {wrong[1]}."


def _gap(random: Random) -> tuple[str, str]:
    person, verb, thing = _person(random), random.choice(STRICT).base, _thing(random)
    end = random.choice(_WHERE + _PAST) + "?"
    gapped, filled = f"did the {person} {verb} {end}", f"did the {person} {verb} {thing} {end}"
    if _flip(random):
        return f"what {gapped}", f"what {filled}"
    adverb = random.choice(("why ", "how ", ""))
    return adverb + filled, adverb + gapped


def _island(random: Random) -> tuple[str, str]:
    asker, doer = _people(random, 2)
    bridge = random.choice(("say that", "think that", "claim that", "believe that"))
    island = random.choice(("laugh because", "leave before", "smile when", "cry after"))
    verb = random.choice(STRICT).past
    clause = f"the {doer} {verb}"
    if _flip(random):
        end = f"{clause}?"
        return f"what did the {asker} {bridge} {end}", f"what did the {asker} {island} {end}"
    start, thing = f"did the {asker} {random.choice((bridge, island))} {clause}", _thing(random)
    return f"{start} {thing}?", random.choice((f"{start}?", f"what {start} {thing}?"))


def _inversion(random: Random) -> tuple[str, str]:
    person, verb, thing = _person(random), random.choice(STRICT), _thing(random)
    word = random.choice(("why", "how", "where", "when"))
    question, clause = f"{word} did the {person} {verb.base}", f"{word} the {person} {verb.past}"
    if _flip(random):
        return f"{question} {thing}?", f"{clause} {thing}?"
    start = f"{random.choice(NAMES)} {random.choice(('knows', 'forgot', 'remembers'))}"
    return f"{start} {clause} {thing}.", f"{start} {question} {thing}."


def _infinitive(random: Random) -> tuple[str, str]:
    with_to = ("persuaded", "forced", "asked", "told", "allowed", "advised", "wanted", "ordered")
    bare = ("made", "let", "saw", "watched", "heard")
    to = _flip(random)
    start = f"the {_person(random)} {random.choice(with_to if to else bare)}"
    start += f" {random.choice(NAMES)}"
    verb = random.choice(STRICT)
    end = _thing(random) + "."
    right, wrong = f"{start} to {verb.base} {end}", f"{start} {verb.base} {end}"
    return (right, wrong) if to else (wrong, right)


def _complement(random: Random) -> tuple[str, str]:
    infinitive = ("wanted", "hoped", "refused", "decided", "promised", "agreed", "offered")
    gerund = ("enjoyed", "avoided", "finished", "denied", "kept", "imagined", "risked")
    to = _flip(random)
    start = f"{random.choice(NAMES)} {random.choice(infinitive if to else gerund)}"
    verb = random.choice(STRICT)
    end = f"{_thing(random)} {random.choice(_WHERE)}."
    right, wrong = f"{start} to {verb.base} {end}", f"{start} {verb.ing} {end}"
    return (right, wrong) if to else (wrong, right)


def _dative(random: Random) -> tuple[str, str]:
    double = ("gave", "sent", "showed", "offered", "handed", "lent")
    single = ("explained", "described", "returned", "mentioned", "donated", "delivered")
    giver, taker = _people(random, 2)
    thing = _thing(random)
    verb = random.choice(single)
    wrong = f"the {giver} {verb} the {taker} {thing}."
    if _flip(random):
        return f"the {giver} {random.choice(double)} the {taker} {thing}.", wrong
    return f"the {giver} {verb} {thing} to the {taker}.", wrong


def _comparative(random: Random) -> tuple[str, str]:
    pairs = (("tall", "taller"), ("old", "older"), ("kind", "kinder"), ("strong", "stronger"))
    pairs += (("fast", "faster"), ("rich", "richer"), ("small", "smaller"), ("loud", "louder"))
    plain, more = random.choice(pairs)
    head, other = _people(random, 2)
    equal = f"the {head} is {random.choice(('almost', 'just', 'not'))} as {{}} {{}} the {other}."
    unequal = f"the {head} is {random.choice(('much', 'a little', 'far'))} {{}} {{}} the {other}."
    if _flip(random):
        return equal.format(plain, "as"), equal.format(*random.choice(((more, "than"), (plain, "than"))))
    return unequal.format(more, "than"), unequal.format(*random.choice(((plain, "as"), (more, "as"))))


def _correlative(random: Random) -> tuple[str, str]:
    pairs = (("neither", "nor"), ("either", "or"), ("both", "and"))
    first, second = random.choice(pairs)
    wrong = random.choice([other for _, other in pairs if other != second])
    head, other = _people(random, 2)
    verb = random.choice(SOCIAL).past
    start, end = f"{random.choice(NAMES)} {verb} {first} the {head}", f"the {other}."
    if _flip(random):
        start, end = f"{first} the {head}", f"the {other} {verb} {random.choice(NAMES)}."
    return f"{start} {second} {end}", f"{start} {wrong} {end}"


def _selection(random: Random) -> tuple[str, str]:
    choices = (
        ("relied heavily", "on"),
        ("waited patiently", "for"),
        ("listened carefully", "to"),
        ("spoke loudly", "to"),
        ("insisted firmly", "on"),
        ("apologized politely", "for"),
        ("complained loudly", "about"),
        ("stared angrily", "at"),
        ("suffered greatly", "from"),
        ("dreamed often", "about"),
        ("searched carefully", "for"),
        ("escaped quickly", "from"),
        ("pointed proudly", "at"),
    )
    verb, right = random.choice(choices)
    clashes = {"on": "from", "for": "at", "to": "from", "about": "to", "at": "for", "from": "on"}
    start = f"the {_person(random)} {random.choice(_BETWEEN)} the {_person(random)} {verb}"
    return f"{start} {right} {_thing(random)}.", f"{start} {clashes[right]} {_thing(random)}."


def _order(random: Random) -> tuple[str, str]:
    """Adverbs stay outside verb and object; adjectives stand before their noun."""
    person, verb = _person(random), random.choice(STRICT)
    adverb, size = random.choice(_QUIETLY), random.choice(SIZES)
    noun = random.choice(THINGS).one
    kind = random.randrange(3)
    if kind == 0:
        wrong = f"the {person} {verb.past} {adverb} the {noun}."
        return f"the {person} {verb.past} the {noun} {adverb}.", wrong
    start = f"the {person} {verb.past}"
    where = random.choice(_WHERE)
    if kind == 1:
        return f"{start} the {size} {noun} {where}.", f"{start} the {noun} {size} {where}."
    return f"{adverb} {start} the {noun}.", f"{adverb} {verb.past} the {person} the {noun}."


_RULES = (
    _agreement_over_phrase,
    _agreement_over_clause,
    _agreement_inside_clause,
    _existential,
    _determiner,
    _mass,
    _reflexive,
    _polarity,
    _valency,
    _verb_form,
    _passive,
    _tense,
    _gap,
    _island,
    _inversion,
    _infinitive,
    _complement,
    _dative,
    _comparative,
    _correlative,
    _selection,
    _order,
)
