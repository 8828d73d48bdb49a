r"""A table for a paper or a page: LaTeX with booktabs, HTML. Every text is escaped.

The HTML is a template of our own: great-tables would bring eleven packages, a web server's among
them, for a table without a single feature of theirs.
"""

import html
import re

from peftbench.reports.tables.markdown import Table

_LATEX = {
    "\\": r"\textbackslash{}",
    **{letter: f"\\{letter}" for letter in "{}$&#%_"},
    "[": "{[}",  # after the end of a line it would begin an argument
    "*": "{*}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "`": r"\textasciigrave{}",
    "'": r"\textquotesingle{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "†": r"$\dagger$",
    "–": "--",
}
_MINUS = re.compile(r"(?<![\w-])-(?=\d)")


def latex(table: Table) -> str:
    r"""A `table` for `\input`: booktabs, the title as caption, the notes below.

    Letters beyond Latin ones need XeLaTeX or LuaLaTeX and a font that has them.
    """
    cells = [[_latex(cell, i >= table.labels) for i, cell in enumerate(row)] for row in table.rows]
    for line, column in table.bold:
        cells[line][column] = rf"\textbf{{{cells[line][column]}}}"
    spec = "l" * table.labels + "r" * (len(table.columns) - table.labels)
    heads = [_latex(name) for name in table.columns]
    lines = [
        r"% needs \usepackage{booktabs} and \usepackage{textcomp}, and [T1]{fontenc} in pdfLaTeX",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_latex(table.title)}}}",
        rf"\begin{{tabular}}{{{spec}}}",
        r"\toprule",
        " & ".join(heads) + r" \\",
        r"\midrule",
        *(" & ".join(row) + r" \\" for row in cells),
        r"\bottomrule",
        r"\end{tabular}",
        r"\begin{flushleft}\footnotesize",
        "\n\n".join(_latex(note) for note in table.notes),
        r"\end{flushleft}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str, figure: bool = False) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    return _MINUS.sub("$-$", escaped) if figure else escaped


_STYLE = """\
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem; }
table { border-collapse: collapse; border-top: 2px solid; border-bottom: 2px solid; }
caption { font-weight: 600; text-align: left; padding-bottom: .5rem; }
thead { border-bottom: 1px solid; }
th, td { padding: .2rem .8rem; text-align: left; }
.figure { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
p { max-width: 60rem; font-size: 85%; }"""


def page(table: Table) -> str:
    """One HTML file that needs nothing else."""
    title = html.escape(table.title)
    lines = [_row("th", table.columns, table.labels, frozenset())]
    body = [
        _row("td", row, table.labels, {j for i, j in table.bold if i == line})
        for line, row in enumerate(table.rows)
    ]
    return "\n".join(
        [
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f"<title>{title}</title>",
            f"<style>\n{_STYLE}\n</style></head><body>",
            f"<table>\n<caption>{title}</caption>",
            "<thead>",
            *lines,
            "</thead>",
            "<tbody>",
            *body,
            "</tbody>",
            "</table>",
            *(f"<p>{html.escape(note)}</p>" for note in table.notes),
            "</body></html>\n",
        ]
    )


def _row(kind: str, cells: list[str], labels: int, bold: "set[int] | frozenset[int]") -> str:
    made = []
    for place, cell in enumerate(cells):
        text = html.escape(cell)
        text = f"<strong>{text}</strong>" if place in bold else text
        made.append(f"<{kind}{' class=figure' * (place >= labels)}>{text}</{kind}>")
    return f"<tr>{''.join(made)}</tr>"
