"""Similarity: how many facts do two sentences share? (STS-B's shape, 0 to 5).

A sentence states who did what to whom or what, and some of where, when and how. In the second
sentence each fact is the same, perhaps in other words or in the passive, or another one. The
label is 5 times the fraction of facts that agree, whatever words express them.
"""

from random import Random
from typing import Any

from peftbench.builtin.lexicon import (
    DEEDS,
    ENCOUNTERS,
    MANNERS,
    OBJECTS,
    PLACES,
    ROLES,
    TIMES,
    Verb,
)

_CIRCUMSTANCES = (("place", PLACES), ("time", TIMES), ("manner", MANNERS))
_SWAP = 0.5


def draw(random: Random) -> tuple[dict[str, str | float], tuple[str, ...]]:
    """One example, and the sentences that no other example may use."""
    social = random.random() < 0.5
    vocabulary: dict[str, tuple[tuple[Any, ...], ...]] = {
        "agent": ROLES,
        "action": ENCOUNTERS if social else DEEDS,
        "patient": ROLES if social else OBJECTS,
    }
    dropped = random.randrange(4)  # 3 drops none
    for index, (fact, rows) in enumerate(_CIRCUMSTANCES):
        if index != dropped:
            vocabulary[fact] = rows
    facts = list(vocabulary)
    random.shuffle(facts)
    changed = facts[: random.randrange(len(facts) + 1)]

    first = {fact: random.choice(rows) for fact, rows in vocabulary.items()}
    while first["agent"] is first["patient"]:
        first["patient"] = random.choice(ROLES)
    second = dict(first)
    for fact in changed:
        while second[fact] is first[fact]:
            second[fact] = random.choice(vocabulary[fact])
    if social and "agent" in changed and "patient" in changed and random.random() < _SWAP:
        second["agent"], second["patient"] = first["patient"], first["agent"]
    if second["agent"] is second["patient"]:
        return draw(random)

    pair = (_sentence(first, random), _sentence(second, random))
    label = round(5 * (1 - len(changed) / len(facts)), 2)
    return {"sentence1": pair[0], "sentence2": pair[1], "label": label}, pair


def _sentence(facts: dict[str, tuple[Any, ...]], random: Random) -> str:
    said = {fact: random.choice(row) for fact, row in facts.items()}
    agent, patient = f"the {said['agent']}", f"the {said['patient']}"
    verb: Verb = said["action"]
    if random.random() < 0.5:
        words = [agent, verb.past, patient]
    else:
        words = [patient, "was", verb.participle, "by", agent]
    if "manner" in said:
        words.append(said["manner"])
    if "place" in said:
        words.append(said["place"])
    if "time" in said and random.random() < 0.5:
        words.append(said["time"])
    elif "time" in said:
        words.insert(0, said["time"])
    text = " ".join(words)
    return text[0].upper() + text[1:] + "."
