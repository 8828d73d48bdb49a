"""Similarity: how many facts do two sentences share? (STS-B's shape, 0 to 5).

A sentence states an agent, an action and its object, and two or all of where, when and how. In the
second sentence each fact is the same, mostly in another word and perhaps in the passive, or it is
another fact. The label is 5 times the fraction of facts that agree, whatever words express them.
Exchanged roles keep every word and lose two facts.
"""

from random import Random
from typing import Any

from peftbench.data.synthetic.lexicon import (
    DEEDS,
    ENCOUNTERS,
    MANNERS,
    OBJECTS,
    PLACES,
    ROLES,
    TIMES,
    Row,
    Verb,
    counterpart,
)

_CIRCUMSTANCES: tuple[tuple[str, tuple[Row, ...]], ...] = (
    ("place", PLACES),
    ("time", TIMES),
    ("manner", MANNERS),
)
_SOCIAL = 0.5  # what was done, was done to a person and not to a thing
_RESTATED = 0.75  # an agreeing fact stands in another word
_CONFUSABLE = 0.9  # a fact that differs is the one most easily confused
_EXCHANGED = 0.8  # agent and patient, where both differ, are each other's


def draw_similarity(random: Random) -> tuple[dict[str, Any], tuple[str, ...]]:
    """One example, and the sentences that no other example may use."""
    social = random.random() < _SOCIAL
    vocabulary: dict[str, tuple[Row, ...]] = {
        "agent": ROLES,
        "action": ENCOUNTERS if social else DEEDS,
        "patient": ROLES if social else OBJECTS,
    }
    dropped = random.randrange(4)  # 3 drops none
    for index, (fact, rows) in enumerate(_CIRCUMSTANCES):
        if index != dropped:
            vocabulary[fact] = rows

    meaning = {fact: random.choice(rows) for fact, rows in vocabulary.items()}
    while meaning["patient"] is meaning["agent"]:
        meaning["patient"] = random.choice(vocabulary["patient"])
    facts = list(meaning)
    random.shuffle(facts)
    changed = facts[: random.randrange(len(facts) + 1)]
    said = {fact: random.choice(row) for fact, row in meaning.items()}
    other = {fact: _restate(random, row, said[fact]) for fact, row in meaning.items()}
    taken = list(meaning.values())
    for fact in changed:
        row = counterpart(vocabulary[fact], meaning[fact])
        if random.random() >= _CONFUSABLE or row in taken:
            row = random.choice([row for row in vocabulary[fact] if row not in taken])
        taken.append(row)
        other[fact] = random.choice(row)
    if social and "agent" in changed and "patient" in changed and random.random() < _EXCHANGED:
        other["agent"], other["patient"] = (
            _restate(random, meaning[fact], said[fact]) for fact in ("patient", "agent")
        )

    pair = (_sentence(random, said), _sentence(random, other))
    label = round(5 * (1 - len(changed) / len(facts)), 2)
    return {"sentence1": pair[0], "sentence2": pair[1], "label": label}, pair


def _restate(random: Random, row: Row, word: Any) -> Any:
    if random.random() < _RESTATED:
        return random.choice([other for other in row if other != word])
    return word


def _sentence(random: Random, said: dict[str, Any]) -> str:
    agent, patient = f"the {said['agent']}", f"the {said['patient']}"
    verb: Verb = said["action"]
    if random.random() < 0.5:
        words = [agent, verb.past, patient]
    else:
        words = [patient, "was", verb.participle, "by", agent]
    words += [said[fact] for fact in ("manner", "place") if fact in said]
    if "time" in said:
        words.insert(random.choice((0, len(words))), said["time"])
    text = " ".join(words)
    return text[0].upper() + text[1:] + "."
