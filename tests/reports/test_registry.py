"""How reports are found, and the report on suites that have none of their own."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
from hydra.utils import get_class
from omegaconf import OmegaConf
from records import record
from suite_records import found, lines, planned, trained

from peftbench.config import catalog
from peftbench.core.configs import class_name
from peftbench.core.errors import ConfigError
from peftbench.reports import other_suites, registry
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.tables.markdown import Table
from peftbench.suites.base import Suite

SUITES = catalog.options("suite", (catalog.packaged(),))


def test_reports_have_names_and_places_of_their_own():
    declared = registry.reports()
    assert len({one.name for one in declared}) == len(declared)
    assert len({one.order for one in declared}) == len(declared)
    assert not {one.name for one in declared} & set(SUITES)
    for one in declared:
        assert one.question, one.name
        assert one.tables or one.figures, one.name
        assert bool(one.figures) == bool(one.needs), one.name


@pytest.mark.parametrize("name", SUITES)
def test_a_packaged_suite_has_a_report_of_its_own(name):
    target = OmegaConf.load(SUITES[name])["_target_"]
    assert issubclass(get_class(target), Suite)
    assert registry.of_suite(class_name(target)).suite == class_name(target)


def test_a_suite_without_a_picture_is_neither_offered_nor_drawn():
    inputs = SimpleNamespace(records=[], evaluated=[])
    assert set(SUITES) - set(registry.drawn_suites()) == {"latency"}
    with pytest.raises(ConfigError, match="report plots latency: "):
        registry.draw_figures(inputs, ["latency"])


def test_a_suite_called_like_a_report_has_a_file_of_its_own():
    every = planned("suite=noise", "method=lora", name="paired")
    records = [record(e.run) for e in every]
    inputs = SimpleNamespace(records=records, evaluated=[found(e, {}) for e in every])
    assert list(registry.of_suites(inputs)[1]) == ["suite_paired"]


def test_names_of_a_table_are_texts_in_json():
    table = Table("", ["task", "lr", "score"], [["2024", "1e-3", ""]], 2)
    assert table.numbers() == [{"task": "2024", "lr": 1e-3, "score": None}]


def evaluations():
    """Two seeds of two methods by a suite that no report names."""
    made = []
    for e in planned("suite=noise", "method=full,lora", "seed=0,1", "size=32"):
        own = replace(e, suite=e.suite | {"_target_": "mine.Length", "name": "text_length"})
        share = 0.5 + 0.1 * own.run.seed
        curve = {"x": "words", "y": "share", "points": [[1, None], [2, share], [3, 0.25]]}
        one = found(own, {"curve": curve})
        made.append(replace(one, headline={"short texts": share, "long": None}))
    return made


def test_headline_figures_are_the_columns_of_an_unknown_suite():
    every = evaluations()
    report = registry.of_suite("mine.Length")
    assert report is other_suites.REPORT
    (table,) = report.tables(every, trained(every))
    assert table.title == "Text length: synthetic_paraphrase"
    assert [row["method"] for row in lines(table)] == ["full", "lora"]
    assert lines(table)[0]["short texts"] == "55.0 ± 7.1 (2)"
    assert lines(table)[0]["long"] == "– (0 of 2)"


def test_the_curve_of_an_unknown_suite_is_drawn():
    every = evaluations()
    (picture,) = other_suites.plot_headlines(
        every, trained(every), Palette.for_methods(["full", "lora"])
    )
    assert picture.caption.startswith("Share by words")
    (plot,) = other_suites.page_plots(every, trained(every))
    (panel,) = plot["panels"]
    assert [line["label"] for line in panel["lines"]] == ["full", "lora"]
    assert panel["lines"][0]["points"] == [(2, pytest.approx(0.55)), (3, 0.25)]
    without = [replace(e, findings={}) for e in every]
    assert other_suites.plot_headlines(without, trained(every), Palette()) == []
