"""The contract of reports, which are found by listing them; none is named here."""

import builtins

import pytest
from click.testing import CliRunner
from paths import ROOT

from peftbench.cli.main import main
from peftbench.cli.report import report as verb
from peftbench.reports import builder, registry
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder

REPORTS = {one.name: one for one in registry.reports()}

#: Eight committed records of two methods, with their predictions and twelve evaluations.
FOLDER, SOME = ROOT / "results/reference", "task=mrpc method=full,lora"


@pytest.fixture(params=REPORTS)
def report(request):
    """A report on records."""
    return REPORTS[request.param]


@pytest.fixture(scope="module")
def inputs():
    found, left_out = builder.read_inputs(ResultsFolder(FOLDER), where=SOME)
    assert (len(found.records), len(found.evaluated), left_out) == (8, 12, [])
    return found


@pytest.fixture(autouse=True)
def without_torch(monkeypatch):
    """An import of it by the package fails, also where a test before has loaded it."""
    real = builtins.__import__

    def checked(name, where=None, *rest, **more):
        heavy = name.partition(".")[0] in ("torch", "transformers", "accelerate", "peft")
        assert not (heavy and str((where or {}).get("__name__")).startswith("peftbench")), name
        return real(name, where, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", checked)


def check(table: Table) -> None:
    assert table.title
    assert all(len(row) == len(table.columns) for row in table.rows)
    text = table.markdown()
    assert table.title in text
    assert all(str(cell) in text or "|" in str(cell) for row in table.rows for cell in row)


def test_its_tables_are_whole(report, inputs):
    for make in filter(None, (report.tables, report.terminal)):
        for table in make(inputs):
            check(table)
    if report.csv:
        check(report.csv(inputs))


def test_its_figures_are_drawn_or_what_they_take_is_said(report, inputs):
    if report.figures is None:
        assert report.tables
        return
    figures, missing = registry.draw_figures(inputs, [report.name])
    if figures:
        assert missing == []
        assert all(figure.caption for figure in figures.values())
    else:
        assert missing == [f"{report.name}: not drawn; it takes {report.needs}"]


@pytest.mark.parametrize("suite", registry.drawn_suites())
def test_evaluations_by_a_suite_have_tables_where_there_are_any(suite, inputs):
    trained, by_suite = registry.of_suites(inputs)
    here = by_suite.get(suite, [])
    if not here:
        figures, (missing,) = registry.draw_figures(inputs, [suite])
        assert figures == {}
        assert missing.startswith(f"{suite}: not drawn; it takes evaluations by suite={suite}")
        return
    one = registry.of_suite(here[0].evaluation.kind)
    tables = one.tables(here, trained)
    assert tables
    for table in tables:
        check(table)
    assert one.figures(here, trained, Palette.for_methods(["full", "lora"]))
    for plot in one.page_plots(here, trained):
        assert plot["panels"]


@pytest.mark.parametrize("question", ["", *verb.list_commands(None)])
def test_an_empty_folder_is_one_sentence_with_what_to_do(question, tmp_path):
    output = ("-o", str(tmp_path / "plots")) if question == "plots" else ()
    words = ["report", *filter(None, [question]), "--results", str(tmp_path), *output]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2
    (line,) = done.output.splitlines()
    assert line.startswith(f"peftbench: {tmp_path} h")  # holds no records, has no such runs
    assert "; " in line
    assert list(tmp_path.iterdir()) == []
