"""Names and explanations that readers see, for page, figures and LaTeX.

Methods and tasks have theirs in their yaml (`title`, `paper`, `about`), metrics in `Metric`;
glossary.json has those of terms. Identifiers of methods, tasks and metrics stay what they are in
files and on the command line. A method or task of the user's own is called by its identifier.
"""

import json
import re
from functools import cache
from pathlib import Path

from peftbench.config import catalog
from peftbench.core.run import Json


@cache
def entries() -> Json:
    """By group and identifier: a name, an arXiv identifier or an explanation, and a short name."""
    from peftbench.metrics.task_metrics import METRICS  # loads numpy, which no help needs

    text = Path(__file__).with_name("glossary.json").read_text(encoding="utf-8")
    told: Json = json.loads(text)
    for group, folder in _FOLDERS.items():
        offered = catalog.options(folder, (catalog.packaged(),))
        told[group] = {
            identifier: [catalog.said(path, "title") or identifier, catalog.said(path, "paper")]
            for identifier, path in offered.items()
        }
    for identifier, one in METRICS.items():
        title = one.title or identifier
        told["metrics"][identifier] = [title, one.about, one.short or title]
    return told


_FOLDERS = {"methods": "method", "tasks": "task"}


def name(group: str, identifier: str) -> str:
    """What readers call a method, task or metric (`group`: methods, tasks, metrics)."""
    found: str = entries()[group].get(identifier, [identifier])[0]
    return found


def row(label: str) -> str:
    """The label of a row, see `grouping.labels`, with the method's name."""
    method, comma, rest = label.partition(",")
    return name("methods", method) + comma + rest


def section(title: str) -> str:
    """A task with its training examples, see `grouping.title`: CoLA, 1,000 examples.

    What follows behind a comma or on another line, such as a device, stays.
    """
    title, *rest = re.split(r"(?=, |\n)", title, maxsplit=1)
    return _section(title) + "".join(rest)


def _section(title: str) -> str:
    task, blank, size = title.rpartition(" ")
    if blank and size.replace(",", "").isdigit():
        return f"{name('tasks', task)}, {size} examples"
    return name("tasks", title)


def heading(text: str) -> str:
    """Above a panel: a row of the score table, or a task with its examples."""
    return row(text) if text.partition(",")[0] in entries()["methods"] else section(text)


def metric(label: str) -> str:
    """A metric's name, also in front of a unit: `matthews (%)` is Matthews' r (%)."""
    identifier, blank, rest = label.partition(" ")
    return name("metrics", identifier) + blank + rest


def short_metric(identifier: str) -> str:
    """A metric's name where there is little room."""
    entry = entries()["metrics"].get(identifier, [identifier])
    found: str = entry[2] if len(entry) > 2 else entry[0]
    return found


def explained(group: str, identifiers: list[str]) -> Json:
    """Names, explanations and addresses of papers, by identifier, as the page shows them."""
    config = _FOLDERS.get(group)
    offered = catalog.options(config, (catalog.packaged(),)) if config else {}
    made: Json = {}
    for identifier in identifiers:
        known = entries()[group].get(identifier, [identifier, None])
        about = catalog.about(offered[identifier]) if identifier in offered else ""
        made[identifier] = {
            "name": known[0],
            "about": about if config else known[1] or "",
            "short": known[2] if len(known) > 2 else known[0],
            "paper": f"https://arxiv.org/abs/{known[1]}" if config and known[1] else None,
        }
    return made
