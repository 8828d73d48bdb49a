"""The report on learning rates that were chosen."""

from dataclasses import replace

import pytest
from click.testing import CliRunner
from records import runs

from peftbench.cli.main import main
from peftbench.core.tuning import Choice, Trial, subject
from peftbench.reports import tuning
from peftbench.reports.plotting.palette import Palette, known
from peftbench.results import choices
from peftbench.results.store import ResultsFolder

RATES = [1e-4, 1e-3, 1e-2]


def chosen(run, scores, rate, edge=None):
    """A choice among three rates: one seed each, a second one for the chosen."""
    made = [
        Trial("0" * 12, one, 1000, None, 1, score, score == 0.5, 30.0)
        for one, score in zip(RATES, scores, strict=True)
    ]
    again = scores[RATES.index(rate)] + 0.02
    made.append(Trial("0" * 12, rate, 1001, None, 2, again, False, 30.0))
    return Choice(subject(run), rate, run.task.metric, "a test", made, edge)


@pytest.fixture
def made():
    lora, bitfit = runs("method=lora")[0], runs("method=bitfit")[0]
    return [chosen(lora, [0.6, 0.9, None], 1e-3), chosen(bitfit, [0.5, 0.7, 0.8], 1e-2, "highest")]


def test_the_table_by_hand(made):
    table, _ = tuning.tuning_tables(made)
    lines = {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}
    assert lines["lora"] | {"task": "", "size": ""} == {
        "method": "lora",
        "task": "",
        "size": "",
        "train.lr": "1e-3",
        "of (rates)": "1e-4 to 1e-2 (3)",
        "score (trials)": "accuracy 91.0 ± 1.4 (2)",
        "within a decade": "60.0 to 91.0",
        "rates with a collapsed trial": "1 of 3",
        "trials": "4",
        "time": "2.0 min",
    }
    assert lines["bitfit"]["train.lr"] == "1e-2 (highest)"
    assert lines["bitfit"]["within a decade"] == "70.0 to 81.0"  # 1e-4 is two decades away
    assert "bitfit on synthetic_paraphrase at 32 (highest)" in table.notes[1]
    assert len(tuning.choice_table(made[:1]).notes) == 1


def test_the_expected_best_by_hand(made):
    """LoRA: 60, 90 and one that diverged, as 60; BitFit: 50, 70, 80."""
    _, table = tuning.tuning_tables(made)
    lines = {row[0]: row[3:] for row in table.rows}
    assert table.columns[3:] == ["1", "2", "3"]
    assert lines["lora"] == ["70.0", "76.7", "81.1"]  # 4 x 60 + 5 x 90 in 9; 8 x 60 + 19 x 90 in 27
    assert lines["bitfit"] == ["66.7", "73.3", "76.3"]  # 50 + 3 x 70 + 5 x 80; 50 + 490 + 1520


def test_two_ranks_of_a_method_are_rows(made):
    eight, sixteen = runs("method=lora", "method.rank=8,16")
    several = [chosen(eight, [0.6, 0.9, 0.7], 1e-3), chosen(sixteen, [0.6, 0.8, 0.7], 1e-3)]
    table = tuning.choice_table(several)
    assert table.columns[:2] == ["method", "method.rank"]
    assert [row[:2] for row in table.rows] == [["lora", "8"], ["lora", "16"]]


def test_the_picture_has_every_trial_the_ring_and_the_cross(made):
    (picture,) = tuning.plot_tuning(made, Palette.for_methods(["lora", "bitfit"]))
    (axis,) = picture.figure.axes
    lines = axis.get_lines()
    colour = known()["lora"]["color"]
    lora = [line for line in lines if line.get_color() == colour]
    means = next(line for line in lora if len(line.get_xdata()) > 1)
    assert list(means.get_xdata()) == [1e-4, 1e-3]  # the mean of a rate that diverged is none
    assert list(means.get_ydata()) == pytest.approx([60.0, 91.0])
    (cross,) = [line for line in lora if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [1e-2]
    (ring,) = [line for line in lora if line.get_markerfacecolor() == "none"]
    assert (ring.get_xdata()[0], ring.get_ydata()[0]) == (1e-3, pytest.approx(91.0))
    dots = {
        (line.get_xdata()[0], round(line.get_ydata()[0]))
        for line in lora
        if line is not ring and line is not cross and len(line.get_xdata()) == 1
    }
    assert dots == {(1e-4, 60), (1e-3, 90), (1e-3, 92)}
    assert axis.get_xscale() == "log"
    open_ones = [line for line in lines if line.get_markerfacecolor() == "w"]
    assert [list(line.get_ydata()) for line in open_ones] == [[50.0]]


def test_a_rate_is_written_as_it_may_be_typed():
    found = [tuning.format_rate(rate) for rate in (7.2e-5, 0.0001, 0.00125, 0.03, 1.0)]
    assert found == ["7.2e-5", "1e-4", "1.25e-3", "3e-2", "1e0"]


def test_choices_that_scores_did_not_decide_are_named(made):
    run = runs("method=lora", "size=1000")[0]
    trials = [replace(one, score=0.5, collapsed=True) for one in made[0].trials]
    none = replace(made[0], run=subject(run), trials=trials)
    notes = tuning.choice_table([none, made[1]], "a warning").notes
    assert "the least training loss decided): lora on synthetic_paraphrase at 1,000." in notes[2]
    assert notes[3] == "a warning"
    # one rate trained, to less than a collapse counts: the chosen one says as little
    below = [*trials[1:], replace(trials[0], rate=9e-1, score=-0.04, collapsed=False)]
    assert replace(none, trials=below, rate=trials[1].rate).collapsed


def test_of_proposed_rates_no_best_of_fewer_trials_is_expected(made):
    proposed = replace(made[0], sampler="tpe")
    choice, expected = tuning.tuning_tables([proposed, made[1]])
    assert [row[0] for row in expected.rows] == ["bitfit"]
    assert "1e-4 to 1e-2 (3, tpe)" in choice.rows[1]
    assert "proposed by Optuna" in choice.notes[0]
    assert len(tuning.tuning_tables([proposed])) == 1


def test_more_than_six_rows_are_drawn_in_several_figures():
    every = runs("method=lora", "method.rank=1,2,3,4,5,6,7")
    figures = tuning.plot_tuning(
        [chosen(run, [0.6, 0.9, 0.7], 1e-3) for run in every], Palette.for_methods(["lora"])
    )
    assert [len(one.figure.legends[0].texts) for one in figures] == [6, 1]
    assert [one.part for one in figures] == ["", "2"]
    ticks = figures[0].figure.axes[0].xaxis.get_major_formatter()
    assert ticks(1e-4, 0) == "1e-4"


def test_a_panel_for_each_task_and_size():
    small, large = runs("method=lora", "size=32,64")
    every = [chosen(run, [0.6, 0.9, 0.7], 1e-3) for run in (large, small)]
    (picture,) = tuning.plot_tuning(every, Palette.for_methods(["lora"]))
    titles = [axis.get_title() for axis in picture.figure.axes]
    assert titles == [f"Synthetic paraphrase, {size} examples" for size in (32, 64)]


def test_the_verb_needs_choices_and_no_records(made, tmp_path):
    results = ResultsFolder(tmp_path / "r")
    line = ["report", "tuning", "--results", str(results.folder)]
    (tmp_path / "r").mkdir()
    refused = CliRunner().invoke(main, line)
    assert refused.exit_code == 2
    assert "`peftbench tune` makes them" in refused.output
    for one in made:
        choices.save(results, one)
    done = CliRunner().invoke(main, [*line, "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert "Chosen learning rates" in done.output
    assert "A better rate may lie beyond" in done.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["plots.md", "tuning.md", "tuning.png"]
