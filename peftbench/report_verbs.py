"""The verb `report`, alone or followed by what is to be told."""

import sys
from pathlib import Path

import click

from peftbench import options
from peftbench.figure import FORMATS

_PRICES = "A yaml of what hours, energy and storage cost you (see configs/prices.yaml)."
_AGAINST = "Baseline of comparisons.  [default: what trains most]"

_PLOTS = """
Write pictures for a paper: as wide as one column (3.3 in) or two (6.8 in), type of 7 pt.

\b
NAMES are questions; without any, all that the records can answer.
  sizes      how do scores grow with data?
  anytime    what is the score after so many training seconds?
  pareto     which method is worth its weights, seconds, memory, money (--prices)?
  seeds      how much does the seed matter?
  learning   training loss and score by step
  paired     which differences are there?  (--against ROW)
  calibration, noise, shift, shift_local, rounds, in_context   what these suites found

\b
A method has one colour and mark in all pictures. The same records give the same bytes.
  peftbench report plots -o figures --format pdf
  peftbench report plots sizes pareto --results results/reference -o figures
"""


@click.group(invoke_without_command=True)
@click.pass_context
@options.results
@click.option("--check", is_flag=True, help="Fail if the files are not what the records give.")
@click.option(
    "--prices",
    type=click.Path(dir_okay=False, path_type=Path),
    help=_PRICES,
)
@click.option("--against", metavar="ROW", help=_AGAINST)
def report(
    context: click.Context, folder: Path, check: bool, prices: Path | None, against: str | None
) -> None:
    """Write and print tables and plots of all records: Markdown, CSV, PNG."""
    if context.invoked_subcommand is not None:
        return
    from peftbench import reporting

    results, paid = (
        options.open_results(folder),
        None if prices is None else reporting.read_prices(prices),
    )
    if check:
        stale = reporting.stale(results, paid, against)
        for path in stale:
            click.echo(f"{path} is not what the records give; run `peftbench report`", err=True)
        if not stale:
            click.echo(f"{results.reports()} is what the records give")
        sys.exit(1 if stale else 0)
    made = reporting.write(results, prices=paid, against=against)
    for table in (*made.tables, *made.more):
        options.show(table.rich())
    for note in made.notes:
        click.echo(note)
    click.echo("\n".join(["written:", *(f"  {path}" for path in made.paths)]))


@report.command(help=_PLOTS)
@click.argument("names", nargs=-1, metavar="[NAMES]…")
@options.results
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of the pictures and of plots.md, their captions.",
)
@click.option(
    "--format",
    "kind",
    default="png",
    show_default=True,
    type=click.Choice(FORMATS),
    help="PDF and SVG hold their text as text, PDF its fonts as well.",
)
@click.option("--prices", type=click.Path(dir_okay=False, path_type=Path), help=_PRICES)
@click.option("--against", metavar="ROW", help=_AGAINST)
def plots(
    names: tuple[str, ...],
    folder: Path,
    output: Path,
    kind: str,
    prices: Path | None,
    against: str | None,
) -> None:
    """Write pictures."""
    from peftbench import reporting

    paid = None if prices is None else reporting.read_prices(prices)
    written, missing = reporting.plots(
        options.open_results(folder), output, names, kind, paid, against
    )
    click.echo("\n".join([*missing, "written:", *(f"  {path}" for path in written)]))


@report.command()
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
def page(folder: Path, output: Path, against: str | None) -> None:
    """Write one HTML file to look at: sentences, tables, plots, every run; needs no network."""
    from peftbench import page as pages

    written = pages.write(options.open_results(folder), output, against)
    click.echo(f"{output}: {written / 1e6:.1f} MB; open it in a browser")
