"""Text for messages."""

import difflib
import re
import shlex
import unicodedata
from collections.abc import Iterable
from typing import Any

#: Names that an error message lists at most.
MOST_NAMES = 10


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: what was probably meant, else what is allowed."""
    allowed = sorted(allowed)
    if close := close_names(given, allowed):
        return f"did you mean {' or '.join(close)}?"
    more = f", … and {len(allowed) - MOST_NAMES} more" if len(allowed) > MOST_NAMES else ""
    return f"allowed: {', '.join(allowed[:MOST_NAMES])}{more}"


def close_names(given: str, allowed: Iterable[str]) -> list[str]:
    """Those that are spelled much like a name, the nearest first."""
    lower = {name.lower(): name for name in allowed}
    return [lower[name] for name in difflib.get_close_matches(given.lower(), lower, n=3)]


def count_of(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 1,200 runs."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def format_duration(seconds: float) -> str:
    """Seconds as a person says them, to a tenth or better: 40 s, 2.5 min, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds / 60:.1f} min"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def listed_names(names: Iterable[str], most: int = 6) -> str:
    """Names as a sentence lists them; of many the first, and how many others."""
    every = list(names)
    if len(every) > most:
        return f"{', '.join(every[: most - 1])} and {len(every) - most + 1} others"
    return ", ".join(every[:-1]) + " and " + every[-1] if len(every) > 1 else "".join(every)


def command(*words: object) -> str:
    """A line of the command for a shell: words with blanks, brackets or stars are quoted."""
    return one_line(shlex.join(["peftbench", *map(str, words)]))


#: Characters that change the order in which others are shown.
_REORDERING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def one_line(text: str) -> str:
    """A text from outside as one line: no line breaks, no control characters of terminals.

    Line breaks and tabs become spaces, others are spelled as escapes.
    """
    if text.isprintable():
        return text
    return "".join(map(_visible, text))


def _visible(letter: str) -> str:
    if letter in "\n\r\t\v\f\x85\u2028\u2029":
        return " "
    if unicodedata.category(letter) == "Cc" or letter in _REORDERING:
        return letter.encode("unicode_escape").decode()
    return letter


#: Where HTML would begin in Markdown.
_TAG = re.compile(r"<(?=[A-Za-z/!?])")

#: What Markdown takes for more than text. It leaves a `_` and a `~` inside and between words alone.
_SPECIAL = re.compile(
    r"[\\`*|$]|\](?=[(\[:])|&(?=#?\w+;)|(?<!\w)_(?=\S)|(?<=\S)_(?!\w)|~(?=\S)|(?<=\S)~"
)


def as_markdown(text: str) -> str:
    """What Markdown shows as this text, in a paragraph, a heading or a cell of a table."""
    return _TAG.sub("&lt;", _SPECIAL.sub(lambda found: "\\" + found[0], one_line(text)))


def unescaped(text: Any) -> Any:
    r"""Text in which `\n` and `\t`, as they are typed in a command, are what they mean.

    Whatever is no text stays as it is.
    """
    if not isinstance(text, str):
        return text
    return text.replace("\\n", "\n").replace("\\t", "\t")


def decoded(name: str) -> str:
    """A file's name as text: bytes that are not UTF-8 are spelled as escapes.

    Python keeps them as lone surrogates, which JSON, hashes and terminals refuse. Where its file
    names are not in UTF-8, all other letters than ASCII are kept so.
    """
    if name.isprintable():  # surrogates are not
        return name
    try:
        return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a pair of UTF-16, of no file's name
        return name.encode("utf-8", "backslashreplace").decode("utf-8")


def file_stem(name: str) -> str:
    """A name as that of a file: letters, digits, `_`, `-` and dots inside."""
    return re.sub(r"[^\w.-]+", "_", name).strip(".")[:100] or "_"
