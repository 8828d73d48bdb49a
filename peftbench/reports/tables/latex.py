r"""A table for a paper or a page: LaTeX, HTML. Every text is escaped.

The HTML is a template of our own: great-tables would bring eleven packages, a web server's among
them, for a table without a single feature of theirs.
"""

import itertools
import re
from collections import Counter
from collections.abc import Sequence

from peftbench.analysis import convention
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


#: What a cell of a summary holds: value, what is around it, n, collapsed seeds, other marks.
_CELL = re.compile(
    r"(?P<value>\S+)(?: ± (?P<sd>\S+)| (?P<range>\[[^\]]*\]))? \((?P<n>[^)]*)\)"
    r"(?: †(?P<gone>\d+))?(?P<mark>.*)"
)

#: Rows that are no rows of records, set apart by a rule: first ones, and the last.
_FIRST, _LAST = (convention.BASELINE, convention.BEST_CONSTANT), convention.DETECTABLE

#: Columns of figures that a column of a page has room for; more take both.
_COLUMN = 3

_NUMBER = re.compile(r"-?[\d,]+(\.\d+)?")


def latex(table: Table, heads: Sequence[tuple[str, str]] | None = None, measured: str = "") -> str:
    r"""A `table` for `\input` that fits a column where it has up to three columns of figures.

    Figures are aligned at the point (siunitx), n stands once in the caption where all cells have
    the same, and so does a mark; † becomes a superscript c. The notes are comments below; what must
    be read stands in threeparttable's notes. Letters beyond Latin ones need XeLaTeX or LuaLaTeX and
    a font.

    Args:
        table: of text.
        heads: of each column of figures what it shares with neighbours, and what is its own;
            columns that share are moved together. By default its name alone.
        measured: what a figure is, for the caption.
    """
    heads = heads or [("", name) for name in table.columns[table.labels :]]
    groups = list(dict.fromkeys(group for group, _ in heads))
    order = sorted(range(len(heads)), key=lambda place: groups.index(heads[place][0]))
    found = [[_CELL.fullmatch(row[table.labels + place]) for place in order] for row in table.rows]
    counts = Counter(cell["n"] for row in found for cell in row if cell)
    usual = counts.most_common(1)[0][0] if counts else ""
    marks = {cell["mark"].strip() for row in found for cell in row if cell}
    common = marks.pop() if len(marks) == 1 else ""
    columns, lines = [], [[_latex(cell) for cell in row[: table.labels]] for row in table.rows]
    for number, place in enumerate(order):
        column = [row[table.labels + place] for row in table.rows]
        cells = [row[number] for row in found]
        values = [cell["value"] if cell else text for cell, text in zip(cells, column, strict=True)]
        columns.append(_format(values))
        for at, (line, cell, value) in enumerate(zip(lines, cells, values, strict=True)):
            bold = (at, table.labels + place) in table.bold
            line += [_value(value, bold), _around(cell, usual, common)]
    spec = "l" * table.labels + "".join(f"S[table-format={one}]@{{\\,}}l" for one in columns)
    caption = _latex(". ".join(filter(None, [table.title, measured])))
    caption += f" ($n = {usual}$)." if usual.isdigit() else "."
    body = []
    for row, line in zip(table.rows, lines, strict=True):
        rule = [r"\midrule"] if row[0] in (*_FIRST, _LAST) else []
        text = " & ".join(line) + r" \\"
        body += [text, *rule] if row[0] in _FIRST else [*rule, text]
    notes = [
        *([_COLLAPSED] if any(cell and cell["gone"] for row in found for cell in row) else []),
        *_explained(table.notes, marks, common),
        *([_BEST] if table.bold else []),
        *([rf"\item In brackets: seeds where they are not {usual}."] if len(counts) > 1 else []),
        *([_DETECTABLE] if any(row[0] == _LAST for row in table.rows) else []),
    ]
    size = "footnotesize" if len(heads) < _COLUMN else "scriptsize"
    kind = "table" if len(heads) <= _COLUMN else "table*"
    return (
        "\n".join(
            [
                r"% needs \usepackage{booktabs,siunitx,threeparttable,textcomp}, and in pdfLaTeX",
                r"% \usepackage[T1]{fontenc}",
                rf"\begin{{{kind}}}",
                rf"\centering\{size}\setlength{{\tabcolsep}}{{2pt}}",
                r"\sisetup{detect-weight,mode=text,group-separator={,},group-minimum-digits=4}",
                r"\begin{threeparttable}",
                rf"\caption{{{caption}}}",
                rf"\label{{tab:{_slug(table.title)}}}",
                rf"\begin{{tabular}}{{{spec}}}",
                r"\toprule",
                *_head(table, [heads[place] for place in order]),
                r"\midrule",
                *body,
                r"\bottomrule",
                r"\end{tabular}",
                *([r"\begin{tablenotes}\scriptsize", *notes, r"\end{tablenotes}"] if notes else []),
                r"\end{threeparttable}",
                rf"\end{{{kind}}}",
                *(f"% {_latex(note)}" for note in table.notes),
            ]
        )
        + "\n"
    )


_COLLAPSED = (
    r"\item[c] So many seeds collapsed: one class or value throughout, "
    r"counted as the constant prediction."
)
_DETECTABLE = (
    r"\item Detectable difference: the least at 80\,\% power with these seeds and examples."
)
_BEST = r"\item \textbf{Bold}: significantly better than every other row of the column."


def _head(table: Table, heads: Sequence[tuple[str, str]]) -> list[str]:
    """The lines of heads: tasks above, rules below them, and what tells their columns apart."""
    names = [_latex(name) for name in table.columns[: table.labels]]
    own = [rf"\multicolumn{{2}}{{c}}{{{_latex(name)}}}" for _, name in heads]
    if not any(group for group, _ in heads):
        return [" & ".join([*names, *own]) + r" \\"]
    above, rules, first = [""] * table.labels, [], table.labels + 1
    for group, members in itertools.groupby(heads, key=lambda head: head[0]):
        wide = 2 * len(list(members))
        above.append(rf"\multicolumn{{{wide}}}{{c}}{{{_latex(group)}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + wide - 1}}}")
        first += wide
    if not any(name for _, name in heads):
        return [" & ".join([*names, *above[table.labels :]]) + r" \\"]
    return [" & ".join(above) + r" \\", "".join(rules), " & ".join([*names, *own]) + r" \\"]


def _format(values: Sequence[str]) -> str:
    """The room of siunitx for these: digits before and after the point, a sign."""
    numbers = [value.replace(",", "") for value in values if _NUMBER.fullmatch(value)]
    whole = [value.lstrip("-").partition(".") for value in numbers] or [("1", "", "")]
    sign = "-" if any(value.startswith("-") for value in numbers) else ""
    return f"{sign}{max(len(a) for a, _, _ in whole)}.{max(len(b) for _, _, b in whole)}"


def _value(text: str, bold: bool) -> str:
    if not _NUMBER.fullmatch(text):
        return f"{{{_latex(text, True)}}}" if text else ""
    return r"\bfseries " * bold + text.replace(",", "")


def _around(cell: "re.Match[str] | None", usual: str, common: str) -> str:
    if cell is None:
        return ""
    text = rf"$\pm$\,{cell['sd']}" if cell["sd"] else _latex(cell["range"] or "", True)
    text += f" ({_latex(cell['n'])})" * (cell["n"] != usual)
    text += rf"\textsuperscript{{c{cell['gone']}}}" if cell["gone"] else ""
    return text if common else text + _latex(cell["mark"])


def _explained(notes: Sequence[str], marks: set[str], common: str) -> list[str]:
    """What the marks in cells mean; a mark that all cells have stands only here."""
    items = []
    for note in notes:
        mark, _, meaning = note.partition(" ")
        if mark and mark in common:
            items.append(rf"\item All figures: {_latex(meaning)}")
        elif mark and any(mark in one for one in marks):
            items.append(rf"\item[{_latex(mark)}] {_latex(meaning)}")
    return items


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _latex(text: str, figure: bool = False) -> str:
    escaped = "".join(_LATEX.get(letter, letter) for letter in text)
    return _MINUS.sub("$-$", escaped) if figure else escaped


def page(table: Table) -> str:
    """One HTML file that needs nothing else."""
    return templates.render("tables/table.html", table=table)
