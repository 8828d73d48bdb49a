"""Subcommands of `report` that answer one question: errors, variance, tuning."""

import json
from pathlib import Path

import click

from peftbench.cli import completion, options


@click.command("errors", short_help="Analyse wrong predictions.")
@click.argument(
    "conditions",
    metavar="[OVERRIDES]...",
    nargs=-1,
    type=click.UNPROCESSED,
    shell_complete=completion.complete_overrides,
)
@options.results
@options.where
@options.as_json
@click.option("--by", "columns", metavar="COLUMN", multiple=True, help="A column of the data.")
@click.option(
    "--bins",
    default=4,
    show_default=True,
    type=click.IntRange(2, 20),
    help="Parts into which text lengths and columns of numbers are divided.",
)
@click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(0),
    help="Most confident errors to list.",
)
@click.option("--show-texts", is_flag=True, help="Print the texts of wrong examples.")
def errors(
    conditions: tuple[str, ...],
    folder: Path,
    where: str,
    as_json: bool,
    columns: tuple[str, ...],
    bins: int,
    top: int,
    show_texts: bool,
) -> None:
    """Analyse wrong predictions: confusions, by label, length and column, most confident errors.

    OVERRIDES select records: task=, method=, size= …; data.root=FOLDER is the folder of data sets.

    \b
    Two methods on your own file, by one of its columns:
      peftbench report errors task=mine method=lora,full --by source
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.reports.errors import ErrorOptions, errors_tables

    asked = ErrorOptions(columns, bins, top, show_texts)
    tables, notes = errors_tables(options.existing_results(folder), conditions, asked, where)
    if as_json:
        options.show_json(tables, notes)
        return
    for table in tables:
        options.show(table.rich())
        options.tell(*table.notes, "")
    options.tell(*notes)


@click.command("tuning", short_help="Show how learning rates were chosen.")
@options.results
@click.option("--json", "as_json", is_flag=True, help="For scripts: choices with their trials.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for tables and figures: tuning.md, PNG and plots.md, their captions.",
)
def tuning(folder: Path, as_json: bool, output: Path | None) -> None:
    """Show how learning rates were chosen: scores by rate, edges, expected best by trials."""
    from peftbench.core.errors import ConfigError
    from peftbench.reports import builder

    if as_json and output is not None:
        raise ConfigError("--json prints the choices and writes no files; leave out -o")
    if as_json:
        from peftbench.results.choices import scan

        chosen, bad = scan(options.existing_results(folder))
        for reason in bad.values():
            click.echo(f"left out, unreadable: {reason}", err=True)
        click.echo(json.dumps([choice.to_json() for choice in chosen], indent=1))
        return
    tables, paths, left_out = builder.tuning(options.existing_results(folder), output)
    notes = [note for table in tables for note in table.notes]
    options.show_all(tables, list(dict.fromkeys([*notes, *left_out])))
    if paths:
        click.echo("\n".join(["written:", *(f"  {path}" for path in paths)]))


@click.command("variance", short_help="Split the variance of scores by role of the seed.")
@options.results
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Markdown file to write.",
)
@click.option("--check", is_flag=True, help="Fail if the --output is out of date.")
@options.where
@options.as_json
def variance(folder: Path, output: Path | None, check: bool, where: str, as_json: bool) -> None:
    """Split the variance of scores by role of the seed, from runs with seed.order= and others."""
    from peftbench.analysis import selection
    from peftbench.analysis.convention import counted_records
    from peftbench.core.errors import ConfigError, no_records
    from peftbench.reports import pivot_table
    from peftbench.reports.variance import variance_table

    if as_json and (check or output is not None):
        raise ConfigError("--json prints the table and writes no file; leave out -o and --check")
    results = options.existing_results(folder)
    records, bad = results.scan()
    if not records:
        raise no_records(folder, bad)
    records, _ = selection.of_records(results, records, [], where)
    table = variance_table(counted_records(records))
    if table is None:
        raise ConfigError(
            f"{folder} has no runs with seeds of single roles; make some with seed.order=0,1,2 "
            "seed.head=0,1,2, or sweep=variance_minilm"
        )
    left_out = [f"left out, unreadable: {reason}" for reason in bad.values()]
    if as_json:
        options.show_json([table], left_out)
        return
    made = pivot_table.RenderedTable(table, table.markdown(), left_out)
    if check or output is not None:
        click.echo("\n".join(left_out), err=True, nl=bool(left_out))
    if check:
        options.check_table(made, output)
    elif output is not None:
        pivot_table.write_pivot_table(made, output)
        click.echo(f"written: {output}")
    else:
        options.show_all([table], [*table.notes, *left_out])
