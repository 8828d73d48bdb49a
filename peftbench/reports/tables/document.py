"""One HTML page of a decision: the answer, and sections of sentences, tables and pictures.

It opens from disk, runs no script and asks no network.
"""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftbench.reports import templates
from peftbench.reports.tables.markdown import Table


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        lines: paragraphs below it.
        tables: below these.
        pictures: SVG documents, below these.
    """

    title: str
    lines: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[str] = ()


def document(
    title: str, answer: str, good: bool, lines: Sequence[str], sections: Sequence[Section]
) -> str:
    """The page.

    Args:
        title: of the page.
        answer: the decision, in a few words.
        good: whether it stands out as one to act on, or as one to stop at.
        lines: paragraphs below the answer.
        sections: in their order.
    """
    style = (Path(__file__).parent / "document.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return templates.render(
        "tables/document.html",
        policy=f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:",
        style=templates.trusted(style),
        title=title,
        answer=answer,
        good=good,
        lines=lines,
        sections=sections,
        encoded=lambda svg: base64.b64encode(svg.encode()).decode(),
    )
