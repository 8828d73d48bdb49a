"""Words of the synthetic tasks, with their inflections.

Small on purpose: words recur across examples and across the splits, so that a task asks for
structure and for a few hundred meanings, not for rare vocabulary. Order matters: every tuple is
drawn from by index, and a word that moves changes the tasks (`peftbench.data.synthetic.VERSION`).
"""

from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]  # the words of one meaning: strings or verbs


@dataclass(frozen=True)
class Noun:
    """A countable noun.

    Attributes:
        one: Singular.
        many: Plural.
        reflexive: The singular's reflexive pronoun.
    """

    one: str
    many: str
    reflexive: str = "itself"

    def form(self, plural: bool) -> str:
        """Singular or plural."""
        return self.many if plural else self.one


@dataclass(frozen=True)
class Verb:
    """A verb's five forms; `past` and `participle` are equal for a regular verb."""

    base: str
    third: str
    past: str
    participle: str
    ing: str


def inflect(entry: str) -> Verb:
    """The forms of `entry`: `"base"` for a regular verb, else `"base past participle"`.

    No verb here doubles its last letter (`stopped`), so none can.
    """
    base, *irregular = entry.split()
    consonant_y = base.endswith("y") and base[-2] not in "aeiou"
    if consonant_y:
        third, past = base[:-1] + "ies", base[:-1] + "ied"
    else:
        third = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
        past = base + ("d" if base.endswith("e") else "ed")
    silent_e = base.endswith("e") and not base.endswith("ee")
    ing = (base[:-1] if silent_e else base) + "ing"
    past, participle = irregular if irregular else (past, past)
    return Verb(base, third, past, participle, ing)


def verbs(entries: str) -> tuple[Verb, ...]:
    """Verbs from a comma-separated list of `inflect`'s entries."""
    return tuple(inflect(entry) for entry in entries.split(","))


def nouns(entries: str, reflexive: str = "itself") -> tuple[Noun, ...]:
    """Nouns from a list of `"one"` or `"one/many"`; the plural of a lone `one` ends in s."""
    split = (entry.partition("/") for entry in entries.split())
    return tuple(Noun(one, many or one + "s", reflexive) for one, _, many in split)


PEOPLE = nouns("teacher nurse pilot dancer lawyer singer farmer banker painter driver")
WOMEN = nouns("girl queen woman/women waitress/waitresses aunt sister", "herself")
MEN = nouns("boy king man/men waiter uncle brother", "himself")
NAMES = ("Anna", "Maria", "Ruth", "Clara", "Emma", "Peter", "Tom", "David", "Oscar", "Paul")
THINGS = nouns("letter lamp vase basket bottle chair clock mirror ladder blanket")
SIZES = ("small", "large", "heavy", "cheap", "broken", "yellow")

# A person does it to a person, and neither can be left out.
SOCIAL = verbs("admire,praise,thank,invite,blame,trust,criticize,protect")
# A person does it to a thing, and neither can be left out.
STRICT = verbs("find found found,break broke broken,repair,damage,remove,inspect,describe,fetch")
INTRANSITIVE = verbs("arrive,sleep slept slept,cough,sneeze,vanish,smile,faint,yawn")
# Past and participle differ; with objects that go with the verb.
IRREGULAR = (
    (inflect("write wrote written"), ("letter", "poem", "report")),
    (inflect("break broke broken"), ("vase", "window", "mirror")),
    (inflect("steal stole stolen"), ("key", "ring", "bicycle")),
    (inflect("hide hid hidden"), ("key", "gift", "letter")),
    (inflect("take took taken"), ("coin", "ladder", "bicycle")),
    (inflect("eat ate eaten"), ("apple", "soup", "cake")),
    (inflect("draw drew drawn"), ("map", "picture", "horse")),
    (inflect("wear wore worn"), ("hat", "ring", "coat")),
)

# Each row is one meaning, and the words in it are interchangeable. No row has one word alone: a
# word that is never replaced by another would give the meaning away by its mere presence. Rows
# come in twos that are easily confused, mostly opposites; see `counterpart`.
ROLES = (
    ("doctor", "physician"),
    ("patient", "invalid"),
    ("thief", "robber"),
    ("policeman", "cop"),
    ("teacher", "instructor"),
    ("student", "pupil"),
    ("boss", "manager"),
    ("worker", "employee"),
    ("sailor", "seaman"),
    ("pilot", "aviator"),
    ("merchant", "trader"),
    ("customer", "buyer"),
    ("king", "monarch"),
    ("lawyer", "attorney"),
)
DEEDS = (
    verbs("find found found,discover"),
    verbs("lose lost lost,misplace"),
    verbs("hide hid hidden,conceal"),
    verbs("show showed shown,display"),
    verbs("break broke broken,smash"),
    verbs("repair,fix"),
    verbs("choose chose chosen,select"),
    verbs("reject,refuse"),
    verbs("buy bought bought,purchase"),
    verbs("rent,lease"),
    verbs("inspect,examine"),
    verbs("neglect,disregard"),
)
ENCOUNTERS = (
    verbs("help,assist"),
    verbs("hinder,obstruct"),
    verbs("hire,employ"),
    verbs("fire,dismiss"),
    verbs("praise,compliment"),
    verbs("criticize,rebuke"),
    verbs("attack,assault"),
    verbs("defend,protect"),
    verbs("follow,trail"),
    verbs("lead led led,guide"),
    verbs("frighten,scare"),
    verbs("calm,soothe"),
)
OBJECTS = (
    ("bicycle", "bike"),
    ("car", "automobile"),
    ("cup", "mug"),
    ("plate", "dish"),
    ("rug", "carpet"),
    ("sofa", "couch"),
    ("photograph", "photo"),
    ("statue", "sculpture"),
    ("coat", "jacket"),
    ("cap", "hat"),
    ("television", "TV"),
    ("fridge", "refrigerator"),
)
PLACES = (
    ("in the cellar", "in the basement"),
    ("in the attic", "in the loft"),
    ("in the forest", "in the woods"),
    ("in the garden", "in the yard"),
    ("near the sea", "near the ocean"),
    ("near the brook", "near the stream"),
    ("at the harbor", "at the port"),
    ("at the airport", "at the airfield"),
    ("at the hotel", "at the inn"),
    ("at the hospital", "at the clinic"),
    ("at the prison", "at the jail"),
    ("at the shop", "at the store"),
)
TIMES = (
    ("at dawn", "at sunrise"),
    ("at dusk", "at sunset"),
    ("at noon", "at midday"),
    ("at night", "after dark"),
    ("one week ago", "seven days ago"),
    ("two weeks ago", "fourteen days ago"),
    ("one year ago", "twelve months ago"),
    ("two years ago", "twenty-four months ago"),
    ("half an hour ago", "thirty minutes ago"),
    ("one hour ago", "sixty minutes ago"),
    ("in autumn", "in the fall"),
    ("in spring", "in springtime"),
)
MANNERS = (
    ("quickly", "rapidly"),
    ("slowly", "unhurriedly"),
    ("quietly", "silently"),
    ("loudly", "noisily"),
    ("carefully", "cautiously"),
    ("carelessly", "recklessly"),
    ("happily", "cheerfully"),
    ("sadly", "unhappily"),
    ("secretly", "covertly"),
    ("openly", "publicly"),
    ("accidentally", "unintentionally"),
    ("deliberately", "intentionally"),
)


def counterpart(rows: tuple[Row, ...], row: Row) -> Row:
    """The row of `rows` that is most easily taken for `row`, often its opposite."""
    return rows[rows.index(row) ^ 1]


# Each row is a quality and its opposite, in two words each.
QUALITIES = (
    (("large", "big"), ("small", "little")),
    (("old", "ancient"), ("new", "modern")),
    (("expensive", "costly"), ("cheap", "inexpensive")),
    (("beautiful", "pretty"), ("ugly", "hideous")),
    (("dirty", "filthy"), ("clean", "spotless")),
)
# Each row is a state and its opposite, with nothing between the two.
STATES = (
    ("open", "closed"),
    ("locked", "unlocked"),
    ("safe", "dangerous"),
    ("clean", "dirty"),
    ("wet", "dry"),
)
