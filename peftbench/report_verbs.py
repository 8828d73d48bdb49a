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
    """Write and print tables and plots of all records: Markdown, CSV, PNG.

    Followed by a verb of its own it makes that one thing instead.
    """
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
@click.argument("words", nargs=-1, type=click.UNPROCESSED)
@options.results
@click.option(
    "--format",
    "form",
    type=click.Choice(["terminal", "markdown", "csv", "latex", "html"]),
    help="[default: by the suffix of --output (.md .csv .tex .html), else terminal]",
)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there."
)
@click.option("--check", is_flag=True, help="Fail if the --output is not what the records give.")
def table(
    words: tuple[str, ...], folder: Path, form: str | None, output: Path | None, check: bool
) -> None:
    """Cross any fields of the records: the summary of a third over seeds, with n.

    \b
    What each method scores on each task, the significantly best in bold:
      peftbench report table rows=method columns=task cell=score
    Median training seconds at two sizes, for a paper:
      peftbench report table rows=method,threads columns=size cell=seconds
        summary=median where='task=mrpc size=1000,3668' -o seconds.tex
    Which learning rate, with 95 % intervals, as numbers for a program:
      peftbench report table rows=method,lr columns=task cell=score summary=interval
        where='method=lora,bitfit lr<=1e-3' --format csv

    \b
    WORDS
      rows= columns=   fields, several parted by commas; columns=none is one column
      cell=            a field of numbers: score (the task's primary metric), accuracy,
                       seconds, memory, energy, trained, flops, tokens_per_second, ...
      where=           conditions in quotes, all must hold: = != < <= > >=, lists after = and !=
      summary=         mean (± standard deviation), median [quartiles],
                       interval (mean, 95 %, Student's t)
      mix=             fields that a cell or a table may pool beside seeds, although they differ
    A field is a short name (method task model size seed lr host seconds memory energy trained
    device threads cores protocol), a path such as run.method.rank, or the end of one: rank.

    Only seeds share a cell. Settings that differ inside one, or between rows of one column where
    a method does not choose them, become fields of the rows. Records of several protocols, and
    costs of several devices or numbers of threads, are refused unless mix= or rows= names them.
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench import crossing

    results = options.open_results(folder)
    made = crossing.make(results, words, form, output)
    for line in made.warnings:
        click.echo(f"peftbench: {line}", err=True)
    if check:
        click.echo(crossing.check(made, output))
    elif output is not None:
        crossing.write(made, output)
        click.echo(f"written: {output}")
    elif made.text is not None:
        click.echo(made.text, nl=False)
    else:
        options.show(made.table.rich())
        for note in made.table.notes:
            click.echo(note)
