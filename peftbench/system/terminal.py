"""Standard output and error as they are: of any encoding and width, full, or closed.

A sweep must not end because a terminal cannot show a character, or because a log takes no more.
"""

import codecs
import errno
import io
import os
import shutil
import sys
from collections.abc import Callable
from typing import TextIO

#: Name of the error handler: what an encoding does not have is spelled with what it has.
SPELLED = "peftbench.spelled"

#: Columns of a console that never cuts off.
UNCUT = 10**6

#: Characters of our own texts, for encodings that lack them.
_ASCII = {
    **dict.fromkeys("·–—─━═\u2212", "-"),
    **dict.fromkeys("“”„", '"'),
    **dict.fromkeys("\u2018\u2019", "'"),
    **{"…": "...", "±": "+-", "×": "x", "→": "->", "†": "+", "‡": "++", "≥": ">=", "≤": "<="},
}


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_letter, error.object[error.start : error.end])), error.end


def _letter(letter: str) -> str:
    if "\udc80" <= letter <= "\udcff":  # a byte of a file's name that is not of its encoding
        return f"\\x{ord(letter) - 0xDC00:02x}"
    return _ASCII.get(letter) or letter.encode("ascii", "backslashreplace").decode("ascii")


codecs.register_error(SPELLED, _spell)


class OutputError(OSError):
    """Standard output takes no more.

    Attributes:
        closed: whether its reader has left. The errno is 0 then: click ends EPIPE with 1, which is
            an answer of some commands.
    """

    def __init__(self, error: OSError):
        self.closed = error.errno == errno.EPIPE
        super().__init__(0 if self.closed else error.errno, error.strerror)


def prepare() -> None:
    """Let this process print any text to any terminal, and outlive its standard error.

    Standard output that takes no more raises `OutputError`; of standard error there is nowhere to
    say it, so that it is dropped.
    """
    if os.environ.get("COLUMNS", "1").strip() in ("", "0"):  # how some programs say: not known
        del os.environ["COLUMNS"]
    if sys.stdout is not None and _is(sys.stdout, sys.__stdout__):
        sys.stdout.flush()
        sys.stdout = _Stream(1, sys.stdout, _raise)
    if sys.stderr is not None and _is(sys.stderr, sys.__stderr__):
        sys.stderr = _Stream(2, sys.stderr, lambda error: _to_null(2))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=SPELLED)


def _is(stream: TextIO, other: object) -> bool:
    return stream is other


class _Stream(io.TextIOWrapper):
    """A standard stream; what happens where it takes no more is given."""

    def __init__(self, number: int, before: TextIO, refused: Callable[[OSError], None]):
        buffer = io.BufferedWriter(io.FileIO(number, "w", closefd=False))
        lines = number == 2 or before.isatty()
        super().__init__(buffer, encoding=before.encoding, line_buffering=lines)
        self._refused = refused

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._refused(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._refused(error)


def _raise(error: OSError) -> None:
    raise OutputError(error) from error


def write(text: str) -> None:
    """Write to standard output and flush it.

    Raises:
        OSError: if it takes no more.
    """
    if sys.stdout is None:  # closed before Python started
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    sys.stdout.write(text.encode(encoding, SPELLED).decode(encoding))
    sys.stdout.flush()


def discard_output() -> None:
    """Drop what standard output did not take, and all that is printed from here on."""
    _to_null(1)


def _to_null(number: int) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, number)
    os.close(null)


def columns() -> int | None:
    """Columns of the terminal; None where standard output is none, and nothing is cut off."""
    if sys.stdout is None or not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def fitted(text: str, indent: int = 0) -> str:
    """Break lines of prose between words to fit the terminal; a pipe gets them as they are.

    Args:
        indent: blanks before what continues a line, beside those at its start.
    """
    width = columns()
    if width is None:
        return text
    import textwrap

    lines = []
    for line in text.split("\n"):
        begin = len(line) - len(line.lstrip()) + indent
        room = textwrap.TextWrapper(
            max(width, begin + 20),
            subsequent_indent=" " * begin,
            drop_whitespace=True,
            replace_whitespace=False,
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += room.wrap(line) or [""] if len(line) > width else [line]
    return "\n".join(lines)
