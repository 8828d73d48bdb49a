"""The command `report` and its subcommands."""

import gc
import json
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from peftbench.cli import completion, options, report_questions
from peftbench.config import old_names
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.text import command
from peftbench.reports.plotting.style import FORMATS

if TYPE_CHECKING:
    from peftbench.reports import builder

_PRICES = "YAML file with your prices per hour, kWh and GB (see configs/prices.yaml)."
_AGAINST = "Baseline of comparisons.  [default: the method that trains most parameters]"

#: Objects that are made before the collector looks for cycles; Python's own is 700 or 2,000.
_COLLECTED = 100_000

_MARGIN = "A loss of at most this many points counts as not worse."


def _margin(of_command: Callable[..., None]) -> Callable[..., None]:
    """The option of comparisons, a fraction for the command."""
    return click.option(
        "--margin",
        type=click.FloatRange(0, 100, min_open=True),
        default=1.0,
        show_default=True,
        metavar="POINTS",
        help=_MARGIN,
        callback=lambda context, option, value: value / 100,
    )(of_command)


_PLOTS = """
Write figures for a paper: one column (3.3 in) or two (6.8 in) wide, text of 7 pt.

\b
NAMES select figures; by default all that the records allow.
{reports}

\b
A method has one colour and marker in all figures. The same records give the
same bytes.
  peftbench report plots -o figures --format pdf
  peftbench report plots sizes pareto --results results/reference -o figures
"""


class _Plots(click.Command):
    """A command whose help lists the reports with figures, which are imported only for it."""

    def format_help_text(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        from peftbench.reports import registry

        drawn = [one for one in registry.reports() if one.figures]
        width = max(len(one.name) for one in drawn)
        lines = [f"  {one.name.ljust(width)}   {one.question}" for one in drawn]
        names = ", ".join(registry.drawn_suites())
        lines += textwrap.wrap(
            f"results of suites: {names}", 78, initial_indent="  ", subsequent_indent="    "
        )
        self.help = _PLOTS.format(reports="\n".join(lines))
        super().format_help_text(context, formatter)


class _Reports(click.Group):
    """Kinds of reports, also by the name of the release before."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """Find the one that is named."""
        if args[0] == "page":
            old_names.note("report page", "report html")
            args = ["html", *args[1:]]
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Reports,
    invoke_without_command=True,
    short_help="Build tables, figures or the HTML report.",
)
@click.pass_context
@options.results
@click.option("--check", is_flag=True, help="Fail if the files on disk are out of date.")
@click.option(
    "--prices",
    type=click.Path(dir_okay=False, path_type=Path),
    help=_PRICES,
)
@click.option("--against", metavar="ROW", help=_AGAINST)
@_margin
@options.where
@click.option("--all", "whole", is_flag=True, help="Print every table, not only the scores.")
@click.option(
    "--json", "as_json", is_flag=True, help="For scripts: scores and comparisons; writes no files."
)
def report(
    context: click.Context,
    folder: Path,
    check: bool,
    prices: Path | None,
    against: str | None,
    margin: float,
    where: str,
    whole: bool,
    as_json: bool,
) -> None:
    """Build tables and figures of all records: Markdown, CSV, PNG.

    With --where it prints the tables of some runs, and the files of the folder stay as they are.
    With a subcommand, builds only that part.
    """
    # what is loaded and read here has few cycles; looking for them takes a tenth of the time
    context.call_on_close(partial(gc.set_threshold, *gc.get_threshold()))
    gc.set_threshold(_COLLECTED)
    if context.invoked_subcommand is not None:
        for option in context.command.params:
            if context.get_parameter_source(option.name or "") is not ParameterSource.DEFAULT:
                verb = context.invoked_subcommand
                raise ConfigError(
                    f"write {option.opts[0]} after `report {verb}`, if that has such an option"
                )
        return
    from peftbench.reports import builder

    results, paid = (
        options.existing_results(folder),
        None if prices is None else builder.read_prices(prices),
    )
    if check and (where or as_json):
        raise ConfigError("--check compares the files of all records; leave out --where and --json")
    if whole and (as_json or check):
        raise ConfigError("--all prints every table; leave it out with --json and --check")
    if as_json:
        made = builder.as_json(results, paid, against, margin, where)
        click.echo(json.dumps(made, indent=1))
        return
    if where:
        (_show_all if whole else _show_brief)(
            builder.selected(results, where, paid, against, margin)
        )
        return
    if check:
        stale = builder.stale(results, paid, against, margin)
        for path in stale:
            click.echo(f"{path} is not what the records give; run `peftbench report`", err=True)
        if not stale:
            click.echo(f"{results.reports()} is what the records give")
        sys.exit(1 if stale else 0)
    paths = builder.write(
        results,
        prices=paid,
        against=against,
        margin=margin,
        show=_show_all if whole else _show_brief,
    )
    names = ", ".join(path.name for path in paths)
    indented = textwrap.fill(
        names, 78, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
    )
    click.echo(f"written to {results.reports()}:\n{indented}")
    if not whole:
        page = command("report", "html", "--results", folder, "--open")
        click.echo(f"every table: add --all\nto browse: {page}")


def _show_all(made: "builder.Made") -> None:
    options.show_all([*made.tables, *made.more], made.notes)


def _show_brief(made: "builder.Made") -> None:
    """Print the verdict, the scores, and what was left out."""
    if made.answer:
        options.tell(made.answer)
    first, *others = made.tables
    elsewhere = {note for table in others for note in table.notes}
    options.show_all([first], [n for n in made.notes if n in first.notes or n not in elsewhere])


@report.command(
    "claims",
    epilog="OVERRIDES: paper=NAME,NAME; and task=, size=, model= … of records.",
    short_help="Check claims of papers against the records.",
)
@click.argument(
    "conditions",
    metavar="[OVERRIDES]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=completion.complete_overrides,
)
@options.results
@options.configs
@options.where
@options.as_json
@click.option(
    "--plan",
    "missing",
    is_flag=True,
    help="Print commands for the runs that are needed to decide open claims.",
)
def claims_(
    conditions: tuple[str, ...],
    folder: Path,
    configs: Path | None,
    where: str,
    as_json: bool,
    missing: bool,
) -> None:
    """Check claims of papers against the records: supported, contradicted or undecided."""
    from peftbench.claims import missing_runs
    from peftbench.claims.verdicts import judge_folder
    from peftbench.reports.claims import tables

    results = options.existing_results(folder)
    if missing:
        lines = missing_runs.commands(results, conditions, configs, where)
        click.echo(json.dumps(lines, indent=1) if as_json else "\n".join(lines))
        return
    tested, records, left_out = judge_folder(results, conditions, configs, where)
    if as_json:
        options.show_json(tables(tested, records), left_out)
        return
    first, *rest = tables(tested, records, narrow=True)
    for table in (replace(first, notes=[*first.notes, *left_out]), *rest):
        options.show(table.rich())
        options.tell(*table.notes, "")


@report.command("table", short_help="Pivot the records by rows and columns.")
@click.argument("words", metavar="[OVERRIDES]...", nargs=-1, type=click.UNPROCESSED)
@options.results
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "csv", "json", "latex", "html"]),
    help="[default: by the suffix of --output (.md .csv .json .tex .html), else terminal]",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="File to write."
)
@click.option("--check", is_flag=True, help="Fail if the --output is out of date.")
@options.where
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def pivot_table(
    words: tuple[str, ...],
    folder: Path,
    form: str | None,
    output: Path | None,
    check: bool,
    where: str,
    as_json: bool,
) -> None:
    """Pivot the records: aggregate one field over seeds by row and column fields.

    \b
    What each method scores on each task, the significantly best in bold:
      peftbench report table rows=method columns=task cell=score
    Median training seconds at two sizes, for a paper:
      peftbench report table rows=method,threads columns=size cell=seconds \\
        summary=median where='task=mrpc size=1000,3668' -o seconds.tex
    Which learning rate, with 95 % intervals, as numbers for a program:
      peftbench report table rows=method,lr columns=task cell=score \\
        summary=interval where='method=lora,bitfit lr<=1e-3' --format csv

    \b
    OVERRIDES
      rows= columns=   fields, separated by commas; columns=none is one column
      cell=            a field of numbers: score (the task's primary metric),
                       accuracy, seconds, memory, energy, trained, flops, ...
      where=           conditions in quotes, the same as --where
      summary=         mean (± standard deviation), median [quartiles],
                       interval (mean, 95 %, Student's t)
      mix=             fields that may differ within a cell, besides seeds

    A field is a short name (method task model size seed lr base_method seconds memory energy
    trained device threads cores protocol tuned), a path such as run.method.rank, or the end of
    a path: rank.

    Only runs that differ in nothing but the seed share a cell. A setting that differs within a
    cell becomes a column of its own. Records of several protocols, and costs of several devices or
    numbers of threads, are refused unless mix= or rows= names them. Where a learning rate was
    tuned, runs at other rates are left out, unless tuned is among rows=, columns= or where=.
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.reports.pivot_table import build_pivot_table, write_pivot_table

    if as_json and form not in (None, "json"):
        raise ConfigError(f"--json and --format {form}: give one of them")
    results = options.existing_results(folder)
    words = (*words, f"where={where}") if where else words
    made = build_pivot_table(results, words, "json" if as_json else form, output)
    for line in made.warnings:
        click.echo(f"peftbench: {line}", err=True)
    if check:
        options.check_table(made, output)
    elif output is not None:
        write_pivot_table(made, output)
        click.echo(f"written: {output}")
    elif made.text is not None:
        click.echo(made.text, nl=False)
    else:
        options.show(made.table.rich())
        options.tell(*made.table.notes)


@report.command(cls=_Plots, help=_PLOTS, short_help="Write figures for a paper.")
@click.argument("names", nargs=-1, metavar="[NAMES]…")
@options.results
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for the figures and plots.md, their captions.",
)
@click.option(
    "--format",
    "kind",
    default="png",
    show_default=True,
    type=click.Choice(FORMATS),
    help="Text stays text in PDF and SVG; PDF embeds its fonts.",
)
@click.option("--prices", type=click.Path(dir_okay=False, path_type=Path), help=_PRICES)
@click.option("--against", metavar="ROW", help=_AGAINST)
@_margin
@options.where
def plots(
    names: tuple[str, ...],
    folder: Path,
    output: Path,
    kind: str,
    prices: Path | None,
    against: str | None,
    margin: float,
    where: str,
) -> None:
    """Write figures for a paper."""
    from peftbench.reports import builder

    paid = None if prices is None else builder.read_prices(prices)
    written, missing = builder.plots(
        options.existing_results(folder), output, names, kind, paid, against, margin, where
    )
    click.echo("\n".join([*missing, "written:", *(f"  {path}" for path in written)]))


@report.command("html", short_help="Write or serve one self-contained HTML file.")
@options.results
@click.option(
    "-o",
    "--output",
    default="report.html",
    show_default=True,
    type=click.Path(path_type=Path),
    help="The HTML file.",
)
@click.option("--against", metavar="ROW", help=_AGAINST)
@_margin
@options.where
@click.option("--open", "shown", is_flag=True, help="Open it in the browser.")
@click.option(
    "--live",
    is_flag=True,
    help="Write no file: serve the page until Ctrl-C, with runs in progress and new results.",
)
@click.option(
    "--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Of --live."
)
@click.option(
    "--port",
    default=8765,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Of --live; 0 is a free one.",
)
@click.option(
    "--show-texts",
    is_flag=True,
    help="Show generated texts beside their targets; needs weights from --save-weights.",
)
@click.pass_context
def html_(
    context: click.Context,
    folder: Path,
    output: Path,
    against: str | None,
    margin: float,
    where: str,
    shown: bool,
    live: bool,
    host: str,
    port: int,
    show_texts: bool,
) -> None:
    """Write the report as one self-contained HTML file: summary, tables, figures, every run.

    With --live it serves the page on this machine while runs are in progress. The server answers
    GET alone and changes nothing. Another --host than 127.0.0.1 lets everyone who reaches this
    machine read the results. From elsewhere: ssh -L 8765:127.0.0.1:8765 MACHINE.
    """
    foreign = ("output",) if live else ("host", "port")
    for name in foreign:
        if context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            raise ConfigError(
                "-o and --live: a page that is served is not written; give one of them"
                if live
                else f"--{name} is of --live: add it, or leave out --{name}"
            )
    if live and show_texts:
        raise ConfigError("--show-texts: a page that is served holds no texts; leave out --live")
    # a page may be served before the first run makes the folder
    results = (options.open_results if live else options.existing_results)(folder)
    if live:
        from peftbench.reports.html import live as serving

        with serving.server(results, host, port, against, margin, where) as server:
            click.echo(f"{server.address}: {folder}, until Ctrl-C")
            if shown and click.launch(server.address):
                click.echo("peftbench: no browser could be started", err=True)
            server.serve_until_interrupted()
        return
    from peftbench.reports import html as pages

    texts = []
    if show_texts:
        from peftbench.cli.exporting import root_of
        from peftbench.exporting import written_texts

        texts = written_texts.tables(results, RuntimeConfig(data_root=root_of(None)), where)
    written = pages.write(results, output, against, margin, where, texts)
    click.echo(f"{output}: {written / 1e6:.1f} MB" + ("" if shown else "; open it in a browser"))
    if shown and click.launch(str(output.resolve())):
        click.echo("peftbench: no browser could be started; open the file yourself", err=True)


report.add_command(report_questions.errors)
report.add_command(report_questions.variance)
report.add_command(report_questions.tuning)
