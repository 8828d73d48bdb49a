"""Input that a classifier should be unsure of: empty, another language, off topic, very long."""

from collections.abc import Sequence

import numpy as np

#: Texts of each kind that are made.
_COUNT = 24

#: Characters of a very long text, at least.
_LONG = 8_000

_EMPTY = (
    *("", " ", "\n", "\t", ".", "?", "!", "...", "-", "--", ",", "()", "[]", "???", "!!!", "/"),
    *("*", "0", "#", "x", "n/a", "none", "null", "test"),
)

#: The first article of the Universal Declaration of Human Rights, in two halves.
_LANGUAGES = (
    "Kaikki ihmiset syntyvät vapaina ja tasavertaisina arvoltaan ja oikeuksiltaan.",
    "Heille on annettu järki ja omatunto, ja heidän on toimittava toisiaan kohtaan "
    "veljeyden hengessä.",
    "Minden emberi lény szabadon születik és egyenlő méltósága és joga van.",
    "Az emberek, ésszel és lelkiismerettel bírván, egymással szemben testvéri szellemben kell "
    "hogy viseltessenek.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Akıl ve vicdana sahiptirler ve birbirlerine karşı kardeşlik zihniyeti ile hareket "
    "etmelidirler.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności i swych praw.",
    "Są oni obdarzeni rozumem i sumieniem i powinni postępować wobec innych w duchu braterstwa.",
    "Kõik inimesed sünnivad vabadena ja võrdsetena oma väärikuselt ja õigustelt.",
    "Neile on antud mõistus ja südametunnistus ja nende suhtumist üksteisesse peab kandma vendluse "
    "vaim.",
    "Visi cilvēki piedzimst brīvi un vienlīdzīgi savā pašcieņā un tiesībās.",
    "Viņi ir apveltīti ar saprātu un sirdsapziņu, un viņiem jāizturas citam pret citu brālības "
    "garā.",
    "Sva ljudska bića rađaju se slobodna i jednaka u dostojanstvu i pravima.",
    "Ona su obdarena razumom i sviješću i trebaju jedna prema drugima postupati u duhu bratstva.",
    "Semua orang dilahirkan merdeka dan mempunyai martabat dan hak-hak yang sama.",
    "Mereka dikaruniai akal dan hati nurani dan hendaknya bergaul satu sama lain dalam semangat "
    "persaudaraan.",
    "Все люди рождаются свободными и равными в своем достоинстве и правах.",
    "Они наделены разумом и совестью и должны поступать в отношении друг друга в духе братства.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Είναι προικισμένοι με λογική και συνείδηση, και οφείλουν να συμπεριφέρονται μεταξύ τους με "
    "πνεύμα αδελφοσύνης.",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm và quyền lợi.",
    "Mọi con người đều được tạo hoá ban cho lý trí và lương tâm và cần phải đối xử với nhau trong "
    "tình bằng hữu.",
    "Watu wote wamezaliwa huru, hadhi na haki zao ni sawa.",
    "Wote wamejaliwa akili na dhamiri, hivyo yapasa watendeane kindugu.",
)

_OFF_TOPIC = (
    "Fold the egg whites into the batter and bake it for forty minutes.",
    "The moon turns once about its axis in each of its orbits.",
    "Cast on sixty stitches and knit two rows before the first decrease.",
    "A bishop stays on squares of one colour for the whole game.",
    "Granite cools slowly, so its crystals are large enough to see.",
    "Tighten the bolts crosswise to eighty newton metres.",
    "The left bank of the river was drained in the twelfth century.",
    "Sodium burns with a yellow flame.",
    "The alto enters two bars later, a fourth below the soprano.",
    "Prune the apple trees in late winter, before the buds open.",
    "An isosceles triangle has two equal angles.",
    "The ferry takes cars on weekdays and bicycles on any day.",
    "Mix one part of cement with three parts of sand.",
    "The genitive of this noun ends in a long vowel.",
    "Bees dance in the direction of the flowers.",
    "Turn right at the mill and follow the path along the hedge.",
    "The enzyme splits the sugar into two smaller ones.",
    "A sloop has one mast and two sails.",
    "Each tenant pays a twelfth of the yearly rent in advance.",
    "The glaze melts at twelve hundred degrees.",
    "Owls fly without a sound because of the fringe of their feathers.",
    "Add the carry to the next column on the left.",
    "The treaty moved the border to the ridge of the mountains.",
    "Rinse the wool in cold water and dry it flat.",
)


_FIXED = {"empty": _EMPTY, "other language": _LANGUAGES, "off topic": _OFF_TOPIC}

#: The kinds, by name.
KINDS = (*_FIXED, "very long")


def texts(kind: str, columns: Sequence[Sequence[str]]) -> list[list[str]]:
    """Abnormal texts of a kind, in as many columns as the ordinary ones.

    Args:
        kind: one of `KINDS`.
        columns: ordinary texts; the very long ones are made of these.
    """
    if kind in _FIXED:
        several = _FIXED[kind]
        return [[*several[place:], *several[:place]] for place in range(len(columns))]
    draw = np.random.default_rng(0)
    return [[_long(one, draw) for _ in range(_COUNT)] for one in columns]


def _long(column: Sequence[str], draw: np.random.Generator) -> str:
    """Texts of a column, one after the other until they are long; empty ones are passed over."""
    filled = [text for text in column if text.strip()] or ["text"]
    mean = max(1, sum(map(len, filled)) // len(filled))
    places = draw.integers(0, len(filled), _LONG // mean + 1)
    joined = " ".join(filled[place] for place in places)
    return joined * (-(-_LONG // len(joined)))
