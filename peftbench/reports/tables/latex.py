r"""A table for a paper or a page: LaTeX with booktabs, HTML. Every text is escaped.

The HTML is a template of our own: great-tables would bring eleven packages, a web server's among
them, for a table without a single feature of theirs.
"""

import re

from peftbench.reports import templates
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
    "§": r"\S{}",
    "¶": r"\P{}",
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


def page(table: Table) -> str:
    """One HTML file that needs nothing else."""
    return templates.render("tables/table.html", table=table)
