"""Tables of review, A/B test and roll-out, and the page that holds them."""

from dataclasses import replace

import numpy as np
import pytest

from peftbench.analysis.ab_test import plan_ab_test
from peftbench.analysis.costs import Prices
from peftbench.analysis.proportions import Proportion
from peftbench.analysis.review import controlled_cut_off, estimated_cut_off, guaranteed_cut_off
from peftbench.analysis.rollout import plan_rollout
from peftbench.reports import decisions
from peftbench.reports.tables.document import Section, document
from peftbench.reports.tables.markdown import Table


def test_each_cut_off_says_what_it_promises_and_costs():
    sure = np.linspace(0.5, 0.99, 100)
    probability, label = np.stack([sure, 1 - sure], axis=1), (sure < 0.6).astype(np.int64)
    found = [
        guaranteed_cut_off(probability, label, 0.1),
        controlled_cut_off(probability, label, 0.05),
        estimated_cut_off(probability, label, 0.1),
        guaranteed_cut_off(probability, label, 0.01),
    ]
    table = decisions.review_table(found, Prices(currency="EUR", labour_hour=36))
    assert [row[:2] for row in table.rows] == [
        ["guaranteed", "at most 10 % of the answered wrong, with 90 %"],
        ["controlled", "at most 5 % of all texts wrong, on average"],
        ["estimate", "about 10 % of the answered wrong"],
        ["guaranteed", "at most 1 % of the answered wrong, with 90 %"],
    ]
    estimate = table.rows[2]
    assert estimate[3] == found[2].answered.text()
    # 21 wrong ones are surest up to 0.6: 8 of 87 answered ones are below 10 %, 9 of 88 are not
    assert estimate[4].endswith("(8 of 87)")
    assert estimate[5].endswith("(13 of 100)")
    assert estimate[6].startswith("1.1 [")
    assert estimate[7].startswith("39 [")  # 36 EUR an hour for 1.083 hours
    assert table.rows[3][2] == "none"
    assert "no threshold was found" in table.notes[0]
    assert not any("groups" in note for note in table.notes)
    grouped = decisions.review_table([replace(found[0], same_group=7)], Prices())
    assert any("counts, 7 others do not. Promises are for" in note for note in grouped.notes)
    free = decisions.review_table(found, Prices())
    assert len(free.columns) == 7
    assert "No money" in free.notes[-1]


def test_plans_name_their_numbers():
    plan, looks = decisions.ab_test_tables(plan_ab_test(0.85, 0.05, texts_per_day=200))
    assert ["difference to find", "5.0 points"] in plan.rows
    assert len(looks.rows) >= 4
    stages, counts = decisions.rollout_tables(plan_rollout(0.05), Proportion(30, 100))
    assert stages.rows[0][:4] == ["shadow", "0 %", "7", "–"]
    assert any("less than 21.2 % or more than 40.0 %" in note for note in stages.notes)
    assert counts.rows[0][:2] == ["56", "0"]


def test_one_call_gives_what_comes_after():
    sure = np.linspace(0.5, 0.99, 100)
    probability, label = np.stack([sure, 1 - sure], axis=1), (sure < 0.6).astype(np.int64)
    cuts = [
        estimated_cut_off(probability, label, 0.1),
        guaranteed_cut_off(probability, label, 0.01),
    ]
    prices = Prices(currency="EUR", labour_hour=36, texts_month=10_000)
    after = decisions.plan_after(cuts, prices, baseline=0.97, effect=0.05, spent=2000)
    parts = after.sections()
    assert [part.title for part in parts] == ["Review by people", "A/B test", "Roll-out"]
    notes = parts[0].tables[0].notes
    # 10,000 texts of 30 seconds are 3,000 EUR a month; nobody reviews less without a cut-off
    assert any(note.startswith("Guaranteed: paid for itself after never [") for note in notes)
    assert any(note.startswith("Estimate: paid for itself after 0.8 [") for note in notes)
    assert ["difference to find", "3.0 points"] in parts[1].tables[0].rows
    assert "10 % are wrong" in parts[2].tables[0].notes[1]
    assert parts[2].tables[0].rows[0][3] == "7"
    made = after.to_json()
    estimate, guaranteed = made["review"]
    assert guaranteed["least_confidence"] is None
    assert guaranteed["payback_months"]["value"] is None  # never
    assert guaranteed["payback_months"]["n"] == 100
    assert estimate["wrong"]["n"] == 87
    assert estimate["reviewed"]["value"] == 0.13
    assert estimate["hours"]["value"] == pytest.approx(1000 * 0.13 * 30 / 3600)
    assert estimate["money"]["n"] == 100
    assert made["ab_test"]["effect"] == pytest.approx(0.03)
    assert made["roll_out"]["stages"][0]["name"] == "shadow"
    none = decisions.plan_after(cuts[::-1], Prices(), baseline=1.0, effect=0.05)
    told = none.to_json()
    none = none.sections()
    assert told["ab_test"]["why"] == none[1].lines[0]
    assert "leaves nothing to find" in none[1].lines[0]
    assert none[2].lines == [
        "Not planned: without a review threshold the model answers no text by itself."
    ]
    assert "Payback time: not given: labour_hour" in " ".join(none[0].tables[0].notes)


def test_nothing_is_tested_or_rolled_out_where_the_answer_is_against_it():
    cuts = [estimated_cut_off(np.array([[0.9, 0.1]] * 30), np.zeros(30, np.int64), 0.1)]
    after = decisions.plan_after(cuts, Prices(), 0.9, 0.05, refused="the answer is no-go")
    review, *others = after.sections()
    assert len(review.tables[0].rows) == 1
    assert [(part.title, part.lines, part.tables) for part in others] == [
        (title, ["Not planned: the answer is no-go."], []) for title in ("A/B test", "Roll-out")
    ]


def test_a_page_escapes_and_runs_nothing():
    table = Table("A <b>", ["x", "y", "said"], [["1", "2", "<i>"]], prose=1)
    page = document("T&", "Go: <now>", True, ["line"], [Section("S", ["p"], [table], ["<svg/>"])])
    assert "<title>T&amp;</title>" in page
    assert '<p class="answer good">Go: &lt;now&gt;</p>' in page
    assert "&lt;i&gt;" in page
    assert "<script" not in page
    assert "default-src &#39;none&#39;" in page
    assert 'src="data:image/svg+xml;base64,PHN2Zy8+"' in page
    assert "<td class=figure>2</td>" in page
