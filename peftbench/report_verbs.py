"""The verb `report`, alone or followed by what is to be told."""

import sys
from pathlib import Path

import click

from peftbench import options


@click.group(invoke_without_command=True)
@click.pass_context
@options.results
@click.option("--check", is_flag=True, help="Fail if the files are not what the records give.")
@click.option(
    "--prices",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A yaml of what hours, energy and storage cost you (see configs/prices.yaml).",
)
@click.option(
    "--against", metavar="ROW", help="Baseline of comparisons.  [default: what trains most]"
)
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
@click.option(
    "--against", metavar="ROW", help="Baseline of comparisons.  [default: what trains most]"
)
def page(folder: Path, output: Path, against: str | None) -> None:
    """Write one HTML file to look at: sentences, tables, plots, every run; needs no network."""
    from peftbench import page as pages

    written = pages.write(options.open_results(folder), output, against)
    click.echo(f"{output}: {written / 1e6:.1f} MB; open it in a browser")
