"""Words of texts in any script, for ROUGE.

rouge-score's own tokenizer takes every character but a to z and digits for a blank, so that a text
in Cyrillic, Greek, Arabic or Chinese has no word at all and scores 0, and `grün` is `gr` and `n`.
Here a word is a run of letters, digits and combining marks of Unicode, in lower case and composed
(NFC). Scripts without blanks between words have a token for each letter, as Chinese has in the
tokenizer of BERT (Devlin et al. 2019, arXiv 1810.04805): Han, kana, Thai, Lao, Burmese, Khmer.
Texts of ASCII alone have the tokens of rouge-score.
"""

import re
import unicodedata
from functools import cache

#: Tokenizers of ROUGE: rouge-score's default, and `UnicodeWords`.
ASCII, UNICODE = "ascii", "unicode"

#: Letters and marks of scripts without blanks between words.
_UNSPACED = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Burmese, Khmer
    "\u3005-\u3007\u3041-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # kana, and marks of Japanese
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)

#: No script has combining marks beyond, but for selectors of variants.
_LAST_MARK = 0x1FFFF


class UnicodeWords:
    """A tokenizer of rouge-score: its `tokenize` gives the words of a text."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case, in their order."""
        return _word().findall(unicodedata.normalize("NFC", text.lower()))


def has_other_letters(text: str) -> bool:
    """Whether a text has letters, digits or marks that rouge-score's tokenizer takes for blanks."""
    return not text.isascii() and _other().search(text) is not None


def is_blank_in_ascii(text: str) -> bool:
    """Whether a text has words, but none in rouge-score's tokenizer."""
    return re.search("[a-z0-9]", text.lower()) is None and has_other_letters(text)


@cache
def _marks() -> str:
    """Combining marks for a class of a regular expression, whose words have none of them."""
    every = map(chr, range(0x300, _LAST_MARK + 1))
    return "".join(one for one in every if unicodedata.category(one).startswith("M"))


@cache
def _word() -> re.Pattern[str]:
    letter = f"(?:[^\\W_]|[{_marks()}])"
    return re.compile(
        f"(?=[{_UNSPACED}]){letter}[{_marks()}]*|(?:(?![{_UNSPACED}]){letter})+", re.UNICODE
    )


@cache
def _other() -> re.Pattern[str]:
    return re.compile(f"(?![\\x00-\\x7f])(?:[^\\W_]|[{_marks()}])")
