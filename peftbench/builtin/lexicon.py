"""Words of the builtin tasks, with their inflections.

Small on purpose: words recur across examples and across the splits, so that a task asks for
structure and for a few hundred meanings, not for rare vocabulary. Order matters: every tuple is
drawn from by index, and a word that moves changes the tasks (`peftbench.builtin.VERSION`).
"""

from dataclasses import dataclass


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

    def present(self, plural: bool) -> str:
        """The present tense for a third person."""
        return self.base if plural else self.third


_DOUBLED = ("drop", "grab", "hug", "plan", "ship", "stop", "unwrap", "wrap")


def inflect(entry: str) -> Verb:
    """The forms of `entry`: `"base"` for a regular verb, else `"base past participle"`."""
    base, *irregular = entry.split()
    stem = base + base[-1] if base in _DOUBLED else base
    consonant_y = base.endswith("y") and base[-2] not in "aeiou"
    if consonant_y:
        third, past = base[:-1] + "ies", base[:-1] + "ied"
    else:
        third = base + ("es" if base.endswith(("s", "x", "z", "ch", "sh")) else "s")
        past = stem + ("d" if base.endswith("e") else "ed")
    silent_e = base.endswith("e") and not base.endswith("ee")
    ing = (base[:-1] if silent_e else stem) + "ing"
    past, participle = irregular if irregular else (past, past)
    return Verb(base, third, past, participle, ing)


def verbs(entries: str) -> tuple[Verb, ...]:
    """Verbs from a comma-separated list of `inflect`'s entries."""
    return tuple(inflect(entry) for entry in entries.split(","))


def nouns(entries: str, reflexive: str = "itself") -> tuple[Noun, ...]:
    """Nouns from a list of `"one"` or `"one/many"`; the plural of a lone `one` ends in s."""
    split = (entry.partition("/") for entry in entries.split())
    return tuple(Noun(one, many or one + "s", reflexive) for one, _, many in split)


def article(phrase: str) -> str:
    """`phrase` behind its indefinite article."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


PEOPLE = nouns(
    "teacher nurse pilot dancer lawyer singer farmer banker painter driver baker student doctor "
    "guard tailor clerk writer sailor judge poet gardener plumber"
)
WOMEN = nouns("girl queen woman/women actress/actresses waitress/waitresses aunt", "herself")
MEN = nouns("boy king man/men uncle waiter monk", "himself")
NAMES = ("Anna", "Maria", "Ruth", "Clara", "Emma", "Peter", "Tom", "David", "Oscar", "Paul")
THINGS = nouns(
    "letter lamp vase basket bottle chair clock mirror ladder blanket hammer suitcase bicycle "
    "guitar painting carpet bucket key candle box/boxes"
)
MASS = ("water", "sand", "milk", "flour", "paint", "smoke")
SIZES = ("small", "large", "old", "new", "heavy", "cheap", "broken", "dirty", "yellow", "strange")

# A person does it to a person, and neither can be left out.
SOCIAL = verbs("admire,praise,thank,invite,greet,blame,trust,hire,criticize,respect,annoy,protect")
# A person does it to a thing, and neither can be left out.
STRICT = verbs(
    "find found found,break broke broken,repair,damage,remove,destroy,inspect,grab,lift,describe,"
    "mention,fetch,fix,own,buy bought bought"
)
INTRANSITIVE = verbs(
    "arrive,sleep slept slept,cough,sneeze,vanish,laugh,smile,faint,yawn,fall fell fallen,giggle,"
    "shiver,sigh,disappear"
)
# Past and participle differ; with objects that go with the verb.
IRREGULAR = (
    (inflect("write wrote written"), ("letter", "poem", "report")),
    (inflect("break broke broken"), ("vase", "window", "mirror")),
    (inflect("steal stole stolen"), ("key", "ring", "bicycle")),
    (inflect("choose chose chosen"), ("hat", "gift", "ring")),
    (inflect("hide hid hidden"), ("key", "gift", "letter")),
    (inflect("take took taken"), ("coin", "ladder", "bicycle")),
    (inflect("eat ate eaten"), ("apple", "soup", "cake")),
    (inflect("draw drew drawn"), ("map", "picture", "horse")),
    (inflect("throw threw thrown"), ("ball", "stone", "coin")),
    (inflect("wear wore worn"), ("hat", "ring", "coat")),
    (inflect("ride rode ridden"), ("horse", "bicycle", "camel")),
    (inflect("tear tore torn"), ("letter", "coat", "map")),
    (inflect("drive drove driven"), ("truck", "bus", "tractor")),
    (inflect("forget forgot forgotten"), ("poem", "song", "answer")),
)

# Each row is one meaning; the words in it are interchangeable.
ROLES = (
    ("doctor", "physician"),
    ("lawyer", "attorney"),
    ("child", "kid"),
    ("author", "writer"),
    ("teacher", "instructor"),
    ("thief", "robber"),
    ("sailor", "seaman"),
    ("cook", "chef"),
    ("boss", "manager"),
    ("merchant", "trader"),
    ("king", "monarch"),
    ("maid", "housekeeper"),
    ("policeman", "cop"),
    ("nurse",),
    ("farmer",),
    ("pilot",),
    ("soldier",),
    ("tailor",),
)
DEEDS = (
    verbs("buy bought bought,purchase"),
    verbs("repair,fix"),
    verbs("hide hid hidden,conceal"),
    verbs("find found found,discover"),
    verbs("break broke broken,smash"),
    verbs("inspect,examine"),
    verbs("carry,transport"),
    verbs("choose chose chosen,select"),
    verbs("lose lost lost,misplace"),
    verbs("throw threw thrown,toss"),
    verbs("sketch,draw drew drawn"),
    verbs("sell sold sold"),
    verbs("steal stole stolen"),
    verbs("clean"),
)
ENCOUNTERS = (
    verbs("help,assist"),
    verbs("greet,welcome"),
    verbs("hire,employ"),
    verbs("fire,dismiss"),
    verbs("blame,accuse"),
    verbs("call,phone"),
    verbs("deceive,fool"),
    verbs("follow,trail"),
    verbs("attack,assault"),
    verbs("rescue,save"),
    verbs("frighten,scare"),
    verbs("thank"),
    verbs("insult"),
    verbs("marry"),
)
OBJECTS = (
    ("sofa", "couch"),
    ("bicycle", "bike"),
    ("car", "automobile"),
    ("photograph", "photo"),
    ("present", "gift"),
    ("cup", "mug"),
    ("rug", "carpet"),
    ("suitcase", "travel bag"),
    ("statue", "sculpture"),
    ("jewel", "gem"),
    ("magazine", "journal"),
    ("telephone", "phone"),
    ("fridge", "refrigerator"),
    ("lamp",),
    ("basket",),
    ("mirror",),
    ("violin",),
)
PLACES = (
    ("in the cellar", "in the basement"),
    ("at the shop", "at the store"),
    ("in the forest", "in the woods"),
    ("near the sea", "near the ocean"),
    ("in the garden", "in the yard"),
    ("at the hotel", "at the inn"),
    ("at the hospital", "at the clinic"),
    ("at the harbor", "at the port"),
    ("in the attic", "in the loft"),
    ("at the prison", "at the jail"),
    ("at the station",),
    ("in the kitchen",),
    ("on the bridge",),
    ("behind the school",),
)
TIMES = (
    ("at noon", "at midday"),
    ("at dawn", "at sunrise"),
    ("at dusk", "at sunset"),
    ("two weeks ago", "fourteen days ago"),
    ("one week ago", "seven days ago"),
    ("a year ago", "twelve months ago"),
    ("two years ago", "twenty-four months ago"),
    ("in autumn", "in the fall"),
    ("yesterday", "a day ago"),
    ("half an hour ago", "thirty minutes ago"),
    ("at midnight",),
    ("in spring",),
    ("on Monday",),
    ("on Friday",),
)
MANNERS = (
    ("quickly", "rapidly"),
    ("slowly", "without haste"),
    ("quietly", "silently"),
    ("carefully", "with care"),
    ("angrily", "furiously"),
    ("happily", "cheerfully"),
    ("secretly", "in secret"),
    ("accidentally", "by accident"),
    ("deliberately", "on purpose"),
    ("alone", "without help"),
    ("proudly", "with pride"),
    ("reluctantly",),
)
