"""The command `pilot`."""

import sys
from pathlib import Path
from typing import Any

import click

from peftbench.cli import options


@click.command(short_help="Decide whether fine-tuning is good enough.")
@click.argument("file", type=click.Path(path_type=Path))
@options.overrides_argument
@click.option(
    "--results",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder of records, criterion and page.  [default: results/pilots/NAME of the file]",
)
@options.configs
@click.option(
    "--at-least",
    "least",
    type=click.FloatRange(0, 1),
    help="Score that must be reached, such as 0.85. Required before the first run.",
)
@click.option("--metric", help="The score.  [default: accuracy]")
@click.option(
    "--most-seconds",
    type=click.FloatRange(0, min_open=True),
    help="Largest cost: seconds of one training with the choice of its rate.",
)
@click.option(
    "--most-review",
    type=click.FloatRange(0, 0.95),
    help="Largest share of texts that people check; with --review-error.",
)
@click.option(
    "--review-error",
    type=click.FloatRange(0, 0.5, min_open=True),
    help="Largest share of wrong answers among the texts that nobody checks.",
)
@click.option(
    "--calibrate",
    type=click.FloatRange(0.1, 0.5),
    help="Leave about this share of the rows (one part of 2 to 10) out of the model that is "
    "exported, for a review threshold with a guarantee.",
)
@click.option(
    "--effect",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.05,
    show_default=True,
    help="Difference of the shares of right answers that the A/B test should find.",
)
@click.option("--group", metavar="COLUMN", help="Keep rows with the same value in one fold.")
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    default=5,
    show_default=True,
    help="Folds of each cross-validation.",
)
@click.option(
    "--rates",
    type=click.IntRange(1, 10),
    help="Learning rates tried inside each fold; 1: that of the method's file.  [default: 2]",
)
@click.option(
    "--repeats", type=click.IntRange(1, 10), help="Cross-validations, each with other folds."
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Three repeats, four rates, and a learning curve of every method.",
)
@click.option(
    "--prices",
    type=click.Path(dir_okay=False, path_type=Path),
    help="YAML file with your prices of people and computers (see configs/prices.yaml).",
)
@options.machine("transient ones; in the choice of rates all but diverged")
@click.option("--show-texts", is_flag=True, help="Show the most confident errors with their texts.")
@click.option("--json", "as_json", is_flag=True, help="For scripts: the answer and its figures.")
@click.option("--dry-run", is_flag=True, help="Check the file and the criterion; train nothing.")
@click.option("--quiet", is_flag=True, help="No progress; failures and the answer only.")
def pilot(
    file: Path,
    overrides: tuple[str, ...],
    folder: Path | None,
    configs: Path | None,
    calibrate: float | None,
    effect: float,
    group: str | None,
    folds: int,
    rates: int | None,
    repeats: int | None,
    thorough: bool,
    prices: Path | None,
    show_texts: bool,
    as_json: bool,
    dry_run: bool,
    metric: str | None,
    least: float | None,
    most_seconds: float | None,
    most_review: float | None,
    review_error: float | None,
    **given: Any,
) -> None:
    """Decide with 200 to 1,000 labelled rows in FILE whether fine-tuning is good enough.

    \b
    peftbench pilot reviews.csv 'task.texts=[text]' --at-least 0.85

    Cross-validates full fine-tuning, BitFit, adapter and LoRA, with learning rates chosen inside
    each fold, and baselines of scikit-learn on the same folds. The criterion is written to
    criterion.yaml before the first run. The answer is go, no-go or more data, with a page in
    pilot.html; after go the best method's model is trained on all rows and exported. The same
    command again continues, or shows the answer.

    OVERRIDES change the runs: model=roberta_base method=lora,bitfit budget.epochs=8.
    Exit code 0 with an answer, 1 when trainings failed, 2 for bad input.
    """  # noqa: D301 - click looks for the character, not for a backslash
    from peftbench.analysis.costs import Prices
    from peftbench.core.plan import RunOptions
    from peftbench.pilot import command
    from peftbench.pilot.design import Request
    from peftbench.reports import builder

    request = Request(
        path=file,
        overrides=overrides,
        folds=folds,
        repeats=repeats or (3 if thorough else 1),
        rates=rates or (4 if thorough else 2),
        group=group,
        every_curve=thorough,
        calibrate=calibrate,
        configs=configs,
    )
    results = (
        options.open_results(Path("results/pilots") / file.stem, "pilot without --results:")
        if folder is None
        else options.open_results(folder)
    )
    wanted = {
        "metric": metric,
        "least": least,
        "largest_seconds": most_seconds,
        "largest_review": most_review,
        "review_error": review_error,
    }
    how = RunOptions(**given, dry_run=dry_run)
    paid = Prices() if prices is None else builder.read_prices(prices)
    sys.exit(command.run(request, wanted, results, how, paid, effect, show_texts, as_json))
