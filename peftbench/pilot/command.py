"""`peftbench pilot`: criterion, estimate, trainings, page and the answer in a few lines."""

import json
from typing import Any

from peftbench.analysis.costs import Prices
from peftbench.analysis.review import estimated_cut_off
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.pilot import criterion, design, estimate, final_model, page
from peftbench.pilot.criterion import PilotCriterion
from peftbench.pilot.decision import GO, Decision, decide
from peftbench.pilot.design import PilotDesign, Request
from peftbench.pilot.final_model import FinalModel
from peftbench.pilot.mistakes import surest_mistakes
from peftbench.pilot.out_of_fold import OutOfFold
from peftbench.pilot.outcome import PilotOutcome, summarize
from peftbench.pilot.study import Study, Unfinished, carry_out
from peftbench.reports.decisions import After, plan_after
from peftbench.reports.tables.terminal import print_out
from peftbench.results.store import ResultsFolder
from peftbench.runner.progress import note
from peftbench.system import io, terminal


def run(
    request: Request,
    wanted: dict[str, Any],
    results: ResultsFolder,
    options: RunOptions,
    prices: Prices,
    effect: float,
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
        effect: difference of the shares of right answers that the A/B test should find.
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
    if options.dry_run or not options.quiet:
        note(estimate.estimate(found, results, options.device))
    if options.dry_run:
        note("the file and the criterion can be used; nothing was trained")
        if as_json:
            planned = {
                "rows": found.rows,
                "classes": found.classes,
                "methods": found.methods,
                "cross_validation_runs": len(found.plan.runs),
            }
            terminal.write(json.dumps(planned, indent=1) + "\n")
        return 0
    written = criterion.fix(results, asked, len(results.keys()) + len(results.trials().keys()))
    try:
        study = carry_out(found, asked, results, options)
        decided = decide(study.table, asked, study.projected, study.gained)
        model = _model(found, study, decided, asked, results, options)
    except Unfinished as stop:
        return stop.code
    after = _after(
        study.table, decided, model, asked, prices, effect, _spent(found, prices, results)
    )
    made = summarize(found, written, study, decided, model, after, results)
    text = json.dumps(made.to_json(), indent=1, allow_nan=False) + "\n"
    results.write(results.folder / "pilot.json", text.encode())
    mistakes = surest_mistakes(found, study, made.method) if show_texts else []
    where = results.folder / "pilot.html"
    results.write(where, page.html(made, mistakes, after.sections()).encode())
    if as_json:
        terminal.write(text)
    else:
        _show(made, str(where))
    return 0


def _criterion(
    request: Request, wanted: dict[str, Any], known: PilotCriterion | None, results: ResultsFolder
) -> PilotCriterion:
    """The criterion of the file, else that of the options.

    Raises:
        ConfigError: if there is none, or the options contradict the file.
    """
    if known is not None:
        for name, value in wanted.items():
            if value is not None and value != getattr(known, name):
                raise ConfigError(
                    f"{results.folder / criterion.NAME} has {name}: {getattr(known, name)}, "
                    f"{criterion.OPTIONS[name]} gives {value}; it was written before the first "
                    "run: leave the option out, or change the file, which the page will show"
                )
        return known
    if wanted["least"] is None:
        raise ConfigError(
            "pilot: no criterion of success is set; set it before the first run, such as "
            "--at-least 0.85, the score that must be reached"
        )
    given = {name: value for name, value in wanted.items() if value is not None}
    return PilotCriterion(**{"metric": "accuracy"} | given, data=io.hash_file(request.path))


def _model(
    found: PilotDesign,
    study: Study,
    decided: Decision,
    asked: PilotCriterion,
    results: ResultsFolder,
    options: RunOptions,
) -> FinalModel | str:
    """The exported model of the winner, or why there is none."""
    name = decided.method
    if decided.answer != GO:
        return f"the answer is {decided.answer}"
    if name not in study.runs:
        return f"{name} needs no fine-tuned model"
    return final_model.make(found, study.table, name, _error(asked), results, options)


def _after(
    table: OutOfFold,
    decided: Decision,
    model: FinalModel | str,
    asked: PilotCriterion,
    prices: Prices,
    effect: float,
    spent: float | None,
) -> After:
    """Review, A/B test and roll-out of the candidate that is named."""
    name = decided.method
    cut_offs = (
        [estimated_cut_off(table.probability[name][0], table.label, _error(asked))]
        if isinstance(model, str)
        else model.cut_offs
    )
    refused = None if decided.answer == GO else f"the answer is {decided.answer}"
    share = float(table.right(name)[0].mean())
    return plan_after(cut_offs, prices, share, effect, spent, refused)


#: Wrong automatic answers that a cut-off allows where the criterion has no review.
_REVIEW_ERROR = 0.05


def _error(asked: PilotCriterion) -> float:
    return _REVIEW_ERROR if asked.review_error is None else asked.review_error


def _spent(found: PilotDesign, prices: Prices, results: ResultsFolder) -> float | None:
    """On labels and trainings, as far as these have a price; None without one of a label."""
    if prices.label is None:
        return None
    last = final_model.results_of(results)
    folders = (results, results.trials(), last, last.trials())
    trained = (prices.money(record) for one in folders for record in one.scan()[0])
    return found.rows * prices.label + sum(money for money in trained if money is not None)


def _show(made: PilotOutcome, where: str) -> None:
    for table in page.brief(made):
        print_out(table.rich())
    terminal.write("".join(f"{line}\n" for line in [*page.sentences(made), f"page: {where}"]))
