"""Which rows are tuned, how every table tells it, and what their costs count."""

import csv
import io
from dataclasses import replace

import pytest
import records
from click.testing import CliRunner
from records import runs

from peftbench.analysis.costs import Prices
from peftbench.cli.main import main
from peftbench.core.tuning import Choice, Trial, subject
from peftbench.reports import builder, pareto, scores, spending
from peftbench.reports.base import gather
from peftbench.reports.html.data import contents
from peftbench.results import choices
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned

TOLD = " The reporting split has no part in the choice."


def choose(results, run, rate=2e-3, trials=4, environment=records.ENVIRONMENT):
    """A choice for the cell of a run, of trials of 30 seconds each."""
    made = [Trial("0" * 12, rate, 1000 + n, None, 1, 0.8, False, 30.0) for n in range(trials)]
    choice = Choice(subject(run), rate, "accuracy", "a test", made, None, environment)
    choices.save(results, choice)


def save(results, made, score=0.75):
    for run in made:
        results.save(records.record(run, score), records.predictions())


@pytest.fixture
def results(tmp_path):
    """LoRA at two rates, of which one was chosen; BitFit at one that nobody chose."""
    folder = ResultsFolder(tmp_path / "r")
    tuned = runs("method=lora", "train.lr=2e-3", "seed=0,1")
    save(folder, tuned, 0.8)
    save(folder, runs("method=lora", "train.lr=1e-3", "seed=0,1,2"), 0.6)
    save(folder, runs("method=bitfit", "train.lr=2e-3", "seed=0,1"), 0.7)
    choose(folder, tuned[0])
    return folder


def inputs(results):
    return gather(results, results.scan()[0], [], predictions=False)[0]


def told(results, *words):
    command = ["report", "table", *words, "--results", str(results.folder)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_tuned_rows_are_marked_and_untuned_ones_are_left_out(results):
    found = inputs(results)
    table = scores.scores(found.records, tuned=found.tuned)
    assert {row[0]: row[1] for row in table.rows[1:]} == {
        "lora": "80.0 ± 0.0 (2) §",
        "bitfit": "70.0 ± 0.0 (2)",
    }
    assert table.notes[-2:] == [
        "§ learning rate tuned over 4 trials (1 rate)." + TOLD,
        "3 untuned runs are left out, which other runs equal in all but seed and a tuned learning "
        "rate; `peftbench report table rows=method,tuned` shows both.",
    ]


def test_the_files_of_a_report_have_the_mark(results):
    builder.write(results)
    assert "80.0 ± 0.0 (2) §" in (results.reports() / "scores.md").read_text()
    lines = list(csv.DictReader(io.StringIO((results.reports() / "scores.csv").read_text())))
    assert [
        (one["method"], one["seeds"], one["tuned"], one["tuning_trials"], one["tuning_size"])
        for one in lines
        if one["metric"] == "accuracy"
    ] == [("bitfit", "2", "false", "", ""), ("lora", "2", "true", "4", "32")]


def test_the_page_has_the_mark(results):
    data = contents(results)
    marks = {data["rows"][cell["row"]]["label"]: cell["mark"] for cell in data["cells"]}
    assert marks == {"LoRA": " §", "BitFit": ""}
    assert data["tuned"][0] == "§ learning rate tuned over 4 trials (1 rate)." + TOLD


def test_a_table_of_any_fields_shows_the_tuned_ones_or_both(results):
    table = told(results, "--format", "markdown")
    assert "80.0 ± 0.0 (2) §" in table
    assert "60.0" not in table
    assert "3 untuned runs are left out" in table
    both = told(results, "rows=method,tuned", "--format", "markdown")
    found = [[cell.strip() for cell in row.split("|")[1:-1]] for row in both.splitlines()[4:8]]
    assert found[1:] == [
        ["bitfit", "false", "70.0 ± 0.0 (2)"],
        ["lora", "false", "60.0 ± 0.0 (3)"],
        ["lora", "true", "80.0 ± 0.0 (2) §"],
    ]
    assert "left out" not in both
    alone = told(results, "where=method=lora tuned=false", "--format", "markdown")
    assert "60.0 ± 0.0 (3) |" in alone
    latex = told(results, "--format", "latex")
    assert r"LoRA & 80.0 & $\pm$\,0.0 \S{} \\" in latex
    assert r"\item[\S{}] learning rate tuned over " in latex
    latex = told(results, "where=method=lora", "--format", "latex")
    assert r"LoRA & 80.0 & $\pm$\,0.0 \\" in latex  # a mark of all cells stands below them
    assert r"\item All figures: learning rate tuned over " in latex
    lines = list(csv.DictReader(io.StringIO(told(results, "--format", "csv"))))
    assert {one["method"]: one["tuned"] for one in lines} == {"lora": "true", "bitfit": "false"}


def test_what_a_person_pools_says_that_some_are_tuned(results):
    words = ("where=method=lora", "mix=lr,tuned", "--format")
    assert "68.0 ± 11.0 (5) |" in told(results, *words, "markdown")  # two of 80, three of 60
    (line,) = csv.DictReader(io.StringIO(told(results, *words, "csv")))
    assert (line["tuned"], line["tuning_trials"]) == ("some", "")


def test_without_choices_nothing_is_said(results):
    builder.write(results)
    for path in results.choices().iterdir():
        path.unlink()
    frame = load_frame(results).read(["key", "tuned"])
    assert frame["tuned"].sum() == 0
    builder.write(results)
    files = {path.name: path.read_text() for path in results.reports().glob("*.[mc]*")}
    assert not [name for name, text in files.items() if "§" in text or "tun" in text]
    assert "80.0 ± 0.0 (2)" in files["scores.md"]
    assert "60.0 ± 0.0 (3)" in files["scores.md"]


def test_a_rate_from_another_size_says_so(tmp_path):
    results = ResultsFolder(tmp_path / "r")
    small, large = runs("method=lora", "train.lr=2e-3", "size=32,64")
    save(results, [small, large])
    choose(results, small, trials=4)
    choose(results, runs("method=bitfit")[0], trials=6)
    found = inputs(results)
    assert [row[1:] for row in scores.scores(found.records, tuned=found.tuned).rows[1:]] == [
        ["75.0 (1) §", "75.0 (1) ¶"]
    ]
    assert found.tuned.notes([small.key, large.key]) == [
        "§ learning rate tuned over 4 trials (1 rate).",
        "¶ learning rate tuned over 4 trials (1 rate), chosen at 32 examples and used here." + TOLD,
    ]
    (longer,) = runs("method=lora", "train.lr=2e-3", "budget.steps=8")
    save(results, [longer])
    assert inputs(results).tuned.notes([longer.key]) == [
        "¶ learning rate tuned over 4 trials (1 rate), chosen at 32 examples, for another budget, "
        "and used here." + TOLD
    ]
    (text,) = inputs(results).tuned.notes([large.key, longer.key])
    assert "chosen at 32 examples, in part for another budget, and used here" in text
    (bitfit,) = runs("method=bitfit", "train.lr=2e-3")
    save(results, [bitfit])
    assert inputs(results).tuned.notes([small.key, bitfit.key]) == [
        "§ learning rate tuned over 4 to 6 trials (1 rate)." + TOLD
    ]


def test_a_rate_that_was_chosen_with_other_settings_says_which(tmp_path):
    results = ResultsFolder(tmp_path / "r")
    here, batch = runs("method=lora", "train.lr=2e-3", "train.batch_size=16,4")
    (longer,) = runs("method=lora", "train.lr=2e-3", "train.max_length=32", "train.precision=bf16")
    revised = replace(here, loss_revision=2)
    save(results, [here, batch])
    choose(results, here)
    chosen = choices.all_choices(results)
    told = Tuned.from_runs([here, batch, longer, revised], chosen)
    assert [told.mark([run.key]) for run in (here, batch, longer, revised)] == [" §", *[" ¶"] * 3]
    assert told.notes([batch.key]) == [
        "¶ learning rate tuned over 4 trials (1 rate), chosen at 32 examples, with "
        "train.batch_size=16, and used here." + TOLD
    ]
    (text,) = told.notes([longer.key])
    assert "at 32 examples, with train.precision=auto, train.max_length=16, and used here" in text
    assert "at 32 examples, with loss_revision=1, and used here" in told.notes([revised.key])[0]
    (untrained,) = runs("method=lora", "train.lr=2e-3", "budget=steps", "budget.steps=0")
    assert Tuned.from_runs([untrained], chosen).mark([untrained.key]) == ""


def test_a_rate_that_was_chosen_for_another_size_is_untuned_beside_an_own_choice(tmp_path):
    results = ResultsFolder(tmp_path / "r")
    small, large = runs("method=lora", "train.lr=2e-3", "size=32,64")
    save(results, [small, large])
    choose(results, small, 2e-3)
    choose(results, large, 1e-3)
    assert set(inputs(results).tuned.choices) == {small.key}


def test_costs_count_the_trials(results):
    found = inputs(results)
    table = scores.costs(found.records, tuned=found.tuned)
    assert table.columns[-2:] == ["tuning", "total"]
    by_row = {row[0]: (row[3], *row[-2:]) for row in table.rows}
    assert by_row == {"lora": ("2", "120 §", "122"), "bitfit": ("2", "–", "2")}  # 4 trials of 30 s


def test_a_table_of_seconds_says_that_trials_are_not_in_it(results):
    note = (
        "Of the runs alone: the trials of each tuned rate took 120 seconds more; \\`peftbench "
        "report tuning\\` has those of each."
    )
    assert note in told(results, "cell=seconds", "--format", "markdown")
    assert note not in told(results, "cell=score", "--format", "markdown")
    assert note not in told(results, "where=method=bitfit", "cell=seconds", "--format", "markdown")


def test_money_and_front_count_the_trials(results):
    found = inputs(results)
    prices = Prices(currency="EUR", core_hour=36.0)  # a cent a second, on one core
    table = spending.spending_table(found.records, prices, tuned=found.tuned)
    lines = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert lines["lora"]["tuning"] == "120 §"
    assert lines["lora"]["EUR"] == f"{0.01 * (4 + 120):.4f}"
    assert lines["bitfit"]["EUR"] == f"{0.01 * 4:.4f}"
    assert {name: line["Pareto front"] for name, line in lines.items()} == {
        "lora": "yes",
        "bitfit": "yes",
    }


def test_a_tuned_row_is_beaten_where_its_trials_cost_more(results):
    """At equal seconds of training and a lower score BitFit is on the front by its trials alone."""
    table = spending.spending_table(inputs(results).records, Prices())
    assert {row[0]: row[-1] for row in table.rows} == {"lora": "yes", "bitfit": ""}


def test_the_pareto_picture_takes_the_total_and_says_so(results):
    found = inputs(results)
    (picture,) = pareto.plot_pareto(found.records, found.palette, tuned=found.tuned)
    axis = next(
        axis for axis in picture.figure.axes if axis.get_xlabel() == "training and tuning seconds"
    )
    marks = {
        (line.get_xdata()[0], round(line.get_ydata()[0]))
        for line in axis.get_lines()
        if len(line.get_xdata()) == 1
    }
    assert {(122.0, 80), (2.0, 70)} <= marks
    assert "of training alone for bitfit, whose rate was not chosen here" in picture.caption


def test_trials_of_another_machine_do_not_add_up(tmp_path):
    results = ResultsFolder(tmp_path / "r")
    made = runs("method=lora", "train.lr=2e-3", "seed=0,1")
    save(results, [*made, *runs("method=bitfit", "seed=0,1")])
    choose(results, made[0], environment=records.ENVIRONMENT | {"device": "Some GPU"})
    found = inputs(results)
    rows = {row[0]: row for row in scores.costs(found.records, tuned=found.tuned).rows}
    assert rows["lora"][-2:] == ["120 §", "mixed"]
    assert (
        "Trials of lora ran on Some GPU, 1 thread: no total with runs elsewhere. Total:"
        in (scores.costs(found.records, tuned=found.tuned).notes[0])
    )
    (picture,) = pareto.plot_pareto(found.records, found.palette, tuned=found.tuned)
    assert "none of lora, tuned on another machine" in picture.caption
    (lora, *_) = [r for r in found.records if r.run.method.name == "lora"]
    assert Prices(currency="EUR", core_hour=1.0).money(lora, found.tuned) is None
