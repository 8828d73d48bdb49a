"""One HTML file of all that a results folder tells; it opens from disk and asks no network.

What it holds is made by `contents`; how it looks lies beside this file. `vendor/` has D3 7.9.0 and
Observable Plot 0.6.17 as they are published (ISC licence); its `plot.css` is the style that Plot
puts into each drawing, which is allowed by its hash.
"""

import base64
import hashlib
from collections.abc import Sequence
from pathlib import Path

from peftbench.analysis.comparison import MARGIN
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.reports import templates
from peftbench.reports.html.data import contents
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder
from peftbench.system import io

_HERE = Path(__file__).parent

#: In the order in which they run.
_SCRIPTS = (
    "vendor/d3.min.js",
    "vendor/plot.umd.min.js",
    "elements.js",
    "state.js",
    "tables.js",
    "downloads.js",
    "plots.js",
    "figures.js",
    "runs.js",
    "leaderboard.js",
    "page.js",
)


def write(
    results: ResultsFolder,
    path: Path,
    against: str | None = None,
    margin: float = MARGIN,
    where: str = "",
    texts: Sequence[Table] = (),
) -> int:
    """Put the page of a results folder at `path`, whole or not at all.

    Args:
        results: where the records are.
        path: of the HTML file.
        against: the row that others are compared with, see `peftbench.analysis.comparison.compare`.
        margin: a loss of so much is not worse.
        where: conditions of `analysis.fields` on the runs that are shown.
        texts: tables of texts that runs wrote, which no record holds.

    Returns:
        Its bytes.

    Raises:
        ConfigError: if there is no record, no such row, or the file cannot be written.
    """
    if path.is_dir():
        raise ConfigError(f"-o {path} is a folder; give the name of a file, such as report.html")
    body = html(contents(results, against, margin=margin, where=where, texts=texts)).encode()
    try:
        io.write_whole(path, body)
    except OSError as error:
        raise ConfigError(f"-o {path}: {error.strerror}; give another place") from error
    return len(body)


def html(data: Json | None, live: str | None = None, note: str = "") -> str:
    """The page that shows these contents: only our own scripts and styles may run in it.

    Args:
        data: from `contents`; None shows nothing but what runs.
        live: the state of the folder that the page shows, for one that asks its server for news.
        note: a sentence in place of contents.
    """
    names = [*(_SCRIPTS if data is not None else ()), *(("live.js",) if live is not None else ())]
    scripts = [_source(name) for name in names]
    style, plot_style = _source("page.css"), _source("vendor/plot.css")
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(map(_hash, scripts))}",
            f"style-src {_hash(style)} {_hash(plot_style)}",
            "img-src data:",  # a drawing on its way to a PNG file
            "base-uri 'none'",
            "form-action 'none'",
            *(["connect-src 'self'"] if live is not None else []),
        ]
    )
    return templates.render(
        "html/page.html",
        policy=policy,
        style=templates.trusted(style),
        data=data,
        live=live,
        note=note,
        scripts=map(templates.trusted, scripts),
    )


def _source(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
