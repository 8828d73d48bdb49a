"""`peftbench pilot`: criterion, estimate, trainings, page and the answer in a few lines."""

import json
from typing import Any

from peftbench.analysis.costs import Prices
from peftbench.analysis.review import estimated_cut_off
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.core.run import Json
from peftbench.data import own_file
from peftbench.pilot import criterion, design, estimate, page
from peftbench.pilot.criterion import Criterion
from peftbench.pilot.design import Request
from peftbench.pilot.mistakes import surest_mistakes
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.pilot.outcome import outcome
from peftbench.pilot.study import Unfinished, carry_out
from peftbench.reports.decisions import after_sections
from peftbench.reports.tables.document import Section
from peftbench.reports.tables.terminal import print_out
from peftbench.results.store import Results
from peftbench.runner.progress import note
from peftbench.system import terminal


def run(
    request: Request,
    wanted: dict[str, Any],
    results: Results,
    options: RunOptions,
    prices: Prices,
    show_texts: bool,
    as_json: bool,
) -> int:
    """Carry a pilot out, or continue it, and return the exit code.

    Args:
        request: the file and the runs.
        wanted: parts of the criterion that the options give; None where they do not.
        results: the folder.
        options: how runs are executed.
        prices: of people and computers.
        show_texts: whether the page shows texts of the file.
        as_json: print the outcome as JSON alone.

    Raises:
        ConfigError: for bad input, before anything is trained.
    """
    if not request.path.is_file():
        raise ConfigError(
            f"pilot: {request.path} is no file; name a csv, tsv, json or parquet file"
        )
    known = criterion.read(results)
    asked = _criterion(request, wanted, known, results)
    found = design.design(request, asked.metric, results.folder)
    design.check_possible(asked, found)
    if not options.quiet:
        note(estimate.estimate(found, results, options.device))
    if options.dry_run:
        note("the file and the criterion can be used; nothing was trained")
        return 0
    written = criterion.fix(results, asked, len(results.keys()) + len(results.trials().keys()))
    try:
        study = carry_out(found, asked, results, options)
    except Unfinished as stop:
        return stop.code
    made = outcome(found, written, study, results)
    text = json.dumps(made, indent=1, allow_nan=False) + "\n"
    results.write(results.folder / "pilot.json", text.encode())
    mistakes = surest_mistakes(found, study, made["method"]) if show_texts else []
    after = _after(study.table, made["method"], asked, prices)
    where = results.folder / "pilot.html"
    results.write(where, page.html(made, mistakes, after).encode())
    if as_json:
        terminal.write(text)
    else:
        _show(made, str(where))
    return 0


def _criterion(
    request: Request, wanted: dict[str, Any], known: Criterion | None, results: Results
) -> Criterion:
    """The criterion of the file, else that of the options.

    Raises:
        ConfigError: if there is none, or the options contradict the file.
    """
    if known is not None:
        for name, value in wanted.items():
            if value is not None and value != getattr(known, name):
                raise ConfigError(
                    f"{results.folder / criterion.NAME} has {name}: {getattr(known, name)}, the "
                    f"options ask for {value}; it was written before the first run: leave the "
                    "option out, or change the file, which the page will show"
                )
        return known
    if wanted["least"] is None:
        raise ConfigError(
            "pilot: say what counts as success before the first run: --at-least 0.85, the score "
            "that must be reached"
        )
    given = {name: value for name, value in wanted.items() if value is not None}
    return Criterion(**{"metric": "accuracy"} | given, data=own_file.digest(request.path))


def _after(table: OutOfFold, name: str, asked: Criterion, prices: Prices) -> list[Section]:
    """Review, A/B test and roll-out of a candidate, by its out-of-fold predictions."""
    probability = table.probability[name][0]
    error = asked.review_error or _REVIEW_ERROR
    cut_off = estimated_cut_off(probability, table.label, error)
    return after_sections([cut_off], prices, float(table.right(name)[0].mean()), _EFFECT)


#: Wrong automatic answers that a cut-off allows where the criterion has none, and the difference
#: that an A/B test should find.
_REVIEW_ERROR, _EFFECT = 0.05, 0.05


def _show(made: Json, where: str) -> None:
    for table in page.brief(made):
        print_out(table.rich())
    terminal.write("".join(f"{line}\n" for line in [*page.sentences(made), f"page: {where}"]))
