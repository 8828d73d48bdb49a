"""Text for messages."""

import difflib
from collections.abc import Iterable

#: Names that an error message lists at most.
MOST_NAMES = 10


def did_you_mean(given: str, allowed: Iterable[str]) -> str:
    """Return the end of an error message: what was probably meant, else what is allowed."""
    allowed = sorted(allowed)
    close = difflib.get_close_matches(given, allowed, n=3, cutoff=0.6)
    if close:
        return f"did you mean {' or '.join(close)}?"
    more = f", … and {len(allowed) - MOST_NAMES} more" if len(allowed) > MOST_NAMES else ""
    return f"allowed: {', '.join(allowed[:MOST_NAMES])}{more}"


def format_duration(seconds: float) -> str:
    """Seconds as a person says them: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
