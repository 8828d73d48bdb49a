"""The page of a results folder: what it holds, that nothing in it is taken for markup, its looks.

The tests that are marked `browser` open it from disk in Chromium without a network.
"""

import base64
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import records
from click.testing import CliRunner
from paths import ROOT
from suite_records import abroad, found, noisy, planned, sure

from peftbench.analysis import convention
from peftbench.analysis.comparison import PairedComparison
from peftbench.analysis.significance import Effect
from peftbench.cli.main import main
from peftbench.config import catalog
from peftbench.core.text import listed_names
from peftbench.metrics import task_metrics
from peftbench.reports import calibration, glossary, html, scores, shift
from peftbench.reports.html import cells, run_list, summary
from peftbench.reports.html.data import contents
from peftbench.reports.plotting.palette import Palette
from peftbench.results.store import ResultsFolder
from peftbench.suites.continual import measures

EVIL = "<script>alert(1)</script>"
SCORES = {"full": (0.8, 0.9), "lora": (0.7, 0.9), "bitfit": (0.5, None)}
SECONDS = {"full": 8.0, "lora": 2.0, "bitfit": 4.0}
TRAINED = {"full": 40000, "lora": 2048, "bitfit": 300}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Three methods, two seeds; a task at two sizes and one with a name that is markup."""
    folder = ResultsFolder(tmp_path_factory.mktemp("page") / "<b>runs")
    for run in records.runs("method=full,lora,bitfit", "seed=0,1", "size=32,64"):
        for task in (run.task.name, EVIL):
            if task == EVIL and run.size == 64:
                continue
            name = run.method.name
            score = SCORES[name][run.seed]
            made = records.record(
                replace(run, task=replace(run.task, name=task)),
                0.5 if score is None else score,  # that of the constant prediction
                collapsed=score is None,
                parameters={"trained": TRAINED[name], "head": 66, "total": 50000},
            )
            made = replace(made, seconds=made.seconds | {"train": SECONDS[name]})
            folder.save(made, records.predictions(40))
    words = ("method=full,lora,bitfit", "seed=0,1", "size=32")
    for suite, make in (("calibration", sure), ("noise", noisy)):
        for e in planned(f"suite={suite}", *words):
            folder.save_evaluated(make(e, 0.75), {})
    for e in planned("suite=shift", *words):
        folder.save_evaluated(abroad(e, 0.7, 0.4), {})
    for e in planned("suite=continual", "suite.chunks=[8,8,16]", *words):
        told = {"names": [8, 8, 16], "scores": MATRIX, "validation": [0.5, 0.6, 0.7], "joint": 0.8}
        folder.save_evaluated(found(e, told | measures(MATRIX)), {})
    return folder


MATRIX = [[0.8], [0.7, 0.9], [0.6, 0.85, 0.7]]


@pytest.fixture(scope="module")
def file(results, tmp_path_factory):
    """The page of these, as the verb writes it."""
    path = tmp_path_factory.mktemp("html") / "report.html"
    words = ["report", "html", "--results", str(results.folder), "-o", str(path)]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    assert f"{path}: {path.stat().st_size / 1e6:.1f} MB" in done.output
    return path


@pytest.fixture(scope="module")
def data(results):
    return contents(results)


class Parsed(HTMLParser):
    """Elements of a page with their attributes, and the text in scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.seen, self.text = [], {"script": [], "style": []}
        self._inside = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):  # noqa: D102
        self.seen.append((tag, dict(attributes)))
        if tag in self.text:
            self._inside = tag
            self.text[tag].append("")

    def handle_endtag(self, tag):  # noqa: D102
        self._inside = None

    def handle_data(self, data):  # noqa: D102
        if self._inside:
            self.text[self._inside][-1] += data


def test_every_packaged_method_task_and_metric_has_a_name(data):
    for group in ("method", "task"):
        for path in catalog.options(group, (catalog.packaged(),)).values():
            assert catalog.said(path, "title"), path
    for metric in task_metrics.METRICS.values():
        assert metric.title, metric.name
    assert glossary.entries()["metrics"]["pearson"] == [
        "Pearson's r",
        "correlation of predictions and labels: 0 is chance, 100 % is perfect",
        "r",
    ]
    assert data["names"]["methods"]["lora"] == {
        "name": "LoRA",
        "short": "LoRA",
        "about": "low-rank updates beside query and value (Hu et al. 2022)",
        "paper": "https://arxiv.org/abs/2106.09685",
    }
    assert glossary.row("lora, 20 s") == "LoRA, 20 s"
    assert glossary.section("cola 8,551") == "CoLA, 8,551 examples"
    assert glossary.metric("matthews (%)") == "Matthews' r (%)"
    assert glossary.section("my own 2024 set") == "my own 2024 set"


def answered(right, seed):
    """Predictions of 400 examples of which so many are right, other ones for each seed."""
    label = np.arange(400) % 2
    wrong = np.random.default_rng(seed).permutation(400) >= right
    scores = np.eye(2, dtype=np.float32)[np.where(wrong, 1 - label, label)]
    return {"item": np.arange(400), "label": label, "scores": scores}


@pytest.mark.parametrize("second", [240, 378])
def test_the_best_of_a_column_is_marked_where_it_is_significant(tmp_path, second):
    """Of 400 answers 380 are right, of the other methods 240 and 240, or 378 and 240."""
    folder = ResultsFolder(tmp_path / "runs")
    right = {"full": 380, "lora": second, "bitfit": 240}
    for run in records.runs("method=full,lora,bitfit", "seed=0,1,2", "size=32"):
        count = right[run.method.name] + run.seed
        trained = {"trained": TRAINED[run.method.name], "head": 66, "total": 50000}
        made = records.record(run, count / 400, parameters=trained)
        folder.save(made, answered(count, 10 * right[run.method.name] + run.seed))
    told = contents(folder)
    names = [row["method"] for row in told["rows"]]
    ((best,),) = [[section["best"] for section in told["sections"]]]
    assert best == (names.index("full") if second == 240 else None)
    worse = "BitFit" if second == 378 else "LoRA (Synthetic paraphrase) and BitFit"
    assert told["answer"] == (
        "No method is significantly better than Full fine-tuning; significantly worse: "
        f"{worse} (Synthetic paraphrase); undecided: {int(second == 378)} of 2 comparisons."
    )
    assert [row["rank"] for row in sorted(told["rows"], key=lambda row: row["rank"])] == (
        [1, 2.5, 2.5] if second == 240 else [1, 2, 3]
    )


def paragraph(data, heading):
    return next(p["sentences"] for p in data["summary"] if p["heading"] == heading)


# what it holds


def test_cells_by_hand(data):
    by_name = {
        data["rows"][cell["row"]]["method"]: cell for cell in data["cells"] if cell["section"] == 0
    }
    assert [section["title"] for section in data["sections"]] == [
        EVIL,
        "Synthetic paraphrase, 32 examples",
        "Synthetic paraphrase, 64 examples",
    ]
    assert by_name["full"]["mean"] == pytest.approx(0.85)
    assert by_name["full"]["sd"] == pytest.approx(0.1 / 2**0.5, abs=1e-6)
    assert (by_name["bitfit"]["n"], by_name["bitfit"]["defined"]) == (2, 2)
    assert by_name["bitfit"]["mean"] == 0.5  # the collapsed seed counts as a constant
    assert by_name["bitfit"]["collapsed"] == 1
    # lora costs 2 s for 80 %, bitfit 4 s for 50 %, full 8 s for 85 %; 300, 2,048, 40,000 weights
    assert {name: cell["front"] for name, cell in by_name.items()} == {
        "full": ["seconds", "trained"],
        "lora": ["seconds", "trained"],
        "bitfit": ["trained"],
    }


def test_equals_share_the_front_and_the_beaten_do_not():
    runs = records.runs("method=full,lora,bitfit,head", "size=32")
    scores = {"full": 0.9, "lora": 0.9, "bitfit": 0.8, "head": 0.7}
    seconds = {"full": 4.0, "lora": 4.0, "bitfit": 4.0, "head": 1.0}
    made = []
    for run in runs:
        one = records.record(run, scores[run.method.name])
        took = one.seconds | {"train": seconds[run.method.name]}
        made.append(cells.ScoreCell((run.method.name,), ("t", 32), [replace(one, seconds=took)]))
    kept = cells.cheapest_front(made, cells.COSTS["seconds"], across=True)
    assert sorted(cell.row[0] for cell in kept) == ["full", "head", "lora"]


def test_sentences_follow_from_the_numbers(data):
    ran, where, evaluations = paragraph(data, "What was run")
    assert ran.startswith("18 runs of 3 methods on 2 tasks ")
    assert "32 to 64 training examples; 2 seeds of each" in ran
    # each run took 0.5 + 0.25 + 0.25 + 1 s beside training
    hours = 3 * 2 * (2 + 4 + 8 + 3 * 2) / 3600
    assert where == f"Trained on Some CPU with 1 thread, {hours:.1f} hours in all."
    assert "calibration (6), continual (6), noise (6) and shift (6)" in evaluations
    scores = paragraph(data, "What the scores say")
    best = "Full fine-tuning has the highest mean accuracy, 85.0 % (n = 2)"
    level = "the constant prediction has 50.0 %; not above it: BitFit"
    assert scores[0] == f"{EVIL}: {best}; {level}."
    collapsed = paragraph(data, "What collapsed")
    assert collapsed[0].startswith("3 of 18 runs collapsed")
    costs = paragraph(data, "What it costs")[0]
    assert "from 2.0 s (LoRA) to 8.0 s (Full fine-tuning)" in costs
    assert "nothing scores as high in less time than LoRA and Full fine-tuning" in costs


def test_verdicts_are_counted_as_they_stand_in_the_table(data):
    verdicts = [pair["verdict"] for pair in data["pairs"]]
    assert len(verdicts) == 6  # two methods against full, on three tasks and sizes
    first = paragraph(data, "Which differences are decided")[0]
    worse = sum(verdict.startswith("worse") for verdict in verdicts)
    undecided = sum(verdict.startswith("undecided") for verdict in verdicts)
    assert f"(0 better, {worse} worse)" in first
    assert f"{undecided} undecided" in first


def test_names_in_a_list():
    assert [listed_names(names) for names in ((), "a", "ab", "abc")] == [
        "",
        "a",
        "a and b",
        "a, b and c",
    ]
    assert listed_names("abcdefgh", 4) == "a, b, c and 5 others"
    assert summary._said("lora, rank=4, lr=0.1") == "LoRA (rank=4, lr=0.1)"


def test_what_is_forgotten_after_each_round(data):
    (panel,) = next(c["panels"] for c in data["curves"] if c["kind"] == "forgetting")
    after = dict(panel["lines"][0]["points"])
    # chunks of 8, 8, 16; by hand: 0.8 - 0.7; then the mean of 0.8 - 0.6 and 0.9 - 0.85
    assert after == {16: pytest.approx(0.1), 32: pytest.approx(0.125)}
    assert after[32] == pytest.approx(measures(MATRIX)["forgetting"])


def test_a_line_of_reliability_holds_all_seeds():
    one, two = planned("suite=calibration", "seed=0,1")
    every = [sure(one, 0.5), sure(two, 1.0)]
    ((_, right),) = calibration._reliability(every)
    assert right == pytest.approx(0.75)


def test_few_runs_are_carried_means_are_of_all(results, data):
    few = contents(results, most=5)
    assert len(few["runs"]) == 5
    assert [cell["mean"] for cell in few["cells"]] == [cell["mean"] for cell in data["cells"]]
    assert any(note.startswith("18 runs are too many for one file") for note in few["notes"])
    assert few["pairs"] == []
    assert {key for cell in few["cells"] for key in cell["runs"]} == set(few["runs"])


def test_long_curves_are_thinned_to_their_last_point():
    run = records.runs("method=lora")[0]
    points = [{"step": n, "loss": 1.0 / n} for n in range(1, 1001)]
    told = run_list.runs([records.record(run, curve=points)], [])["runs"][run.key]["curve"]
    assert len(told["step"]) <= run_list.POINTS
    assert told["step"][-1] == 1000
    assert told["loss"][-1] == pytest.approx(0.001)


def test_what_cannot_be_read_and_what_does_not_compare_is_said(tmp_path):
    folder = ResultsFolder(tmp_path / "runs")
    runs = records.runs("method=full,lora", "seed=0,1")
    for run in runs:
        place = records.ENVIRONMENT | ({"device": "Another CPU"} if run.seed else {})
        folder.save(records.record(run, environment=place), records.predictions())
    torn = folder.folder / "records" / f"{runs[0].key}.json"
    torn.write_text("{")
    told = contents(folder)
    assert any(n.startswith("1 unreadable") and runs[0].key in n for n in told["notes"])
    assert any(
        n.startswith("2 devices are mixed here (Another CPU, Some CPU)") for n in told["notes"]
    )
    costs = paragraph(told, "What it costs")
    assert costs == [
        "Synthetic paraphrase: seconds were taken on different machines and do not compare."
    ]


def test_calibrated_costs_do_not_compare_with_measured_ones(tmp_path):
    """As in the tables: see `costs.machine`."""
    folder = ResultsFolder(tmp_path / "runs")
    for run in records.runs("method=full,lora", "seed=0"):
        packed = {"packed": True} if run.method.name == "lora" else {}
        made = records.record(run, environment=records.ENVIRONMENT | packed)
        folder.save(made, records.predictions())
    told = contents(folder)
    assert [cell["front"] for cell in told["cells"]] == [["trained"], ["trained"]]
    assert any(note.startswith("2 ways to take costs are mixed") for note in told["notes"])
    assert "do not compare" in paragraph(told, "What it costs")[0]


# the file


def test_the_same_records_give_the_same_bytes(results, file):
    assert html.html(contents(results)).encode() == file.read_bytes()


def test_nothing_in_the_data_is_markup(file, data):
    parsed = Parsed(file.read_text())
    (inside,) = [text for text in parsed.text["script"] if text.startswith("{")]
    assert not set("<>&") & set(inside)
    told = json.loads(inside)
    assert told["sections"][0]["task"] == EVIL
    assert told["folder"] == "<b>runs"
    assert told == json.loads(json.dumps(data))
    assert EVIL not in file.read_text()


def test_only_scripts_and_styles_of_the_page_may_run(file):
    parsed = Parsed(file.read_text())
    policy = next(a["content"] for _, a in parsed.seen if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    scripts = [text for text in parsed.text["script"] if not text.startswith("{")]
    assert len(scripts) > 5
    for text in (*scripts, *parsed.text["style"]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    for _, attributes in parsed.seen:
        assert not {"src", "srcset", "style"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("href") or "#").startswith("#")


def test_no_name_of_the_scripts_is_declared_twice():
    """The scripts share one scope, where a second `const` stops all that follows.

    Chromium tells it too, where there is one.
    """
    declared = re.compile(
        r"^(?:const|let|var|(?:async )?function\*?|class)\s+(?:(\w+)|[\[{]([^=]*)[\]}])",
        re.MULTILINE,
    )
    names = [
        name
        for path in sorted(Path(html.__file__).parent.glob("*.js"))
        for single, several in declared.findall(path.read_text())
        for name in ([single] if single else re.findall(r"(\w+)\s*(?:,|$)", several.strip()))
    ]
    assert "resultsTable" in names
    assert [name for name, times in Counter(names).items() if times > 1] == []


def test_the_libraries_are_as_they_were_published():
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        for path in sorted((Path(html.__file__).parent / "vendor").glob("*.js"))
    }
    assert digests == {"d3.min.js": "f2094bbf6141b359", "plot.umd.min.js": "4358086467740777"}


def test_rules_are_those_of_the_documentation():
    text = (ROOT / "docs/evaluation-protocol.md").read_text()
    told = (Path(html.__file__).parent / "page.html").read_text()
    assert re.findall(r"<dt>(.+)</dt>", told) == re.findall(r"^- \*\*(.+?)\.\*\*", text, re.M)


def test_bad_input_is_told_in_one_line(results, tmp_path):
    def said(*words):
        done = CliRunner().invoke(main, ["report", "html", *map(str, words)])
        assert done.exit_code == 2, done.output
        return done.output

    (tmp_path / "none").mkdir()
    assert "holds no records; `peftbench run`" in said("--results", tmp_path / "none")
    assert "is a folder" in said("--results", results.folder, "-o", tmp_path)
    assert "no such row" in said("--results", results.folder, "--against", "lroa")
    taken = tmp_path / "file"
    taken.write_text("")
    assert "give another place" in said("--results", results.folder, "-o", taken / "report.html")


# in a browser


@pytest.fixture
def opened(chromium, file):
    """The page, from disk and without a network; it may neither complain nor ask for anything."""
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    complaints, asked = [], []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(file.as_uri())
    tab.evaluate("document.querySelectorAll('main > details').forEach((one) => (one.open = true))")
    tab.evaluate("drawAll()")
    yield tab
    assert complaints == []
    assert asked == [file.as_uri()]
    context.close()


def column(tab, table, place):
    rows = tab.get_by_role("region", name=table, exact=True).locator("table > tbody > tr")
    return [row.locator("th, td").nth(place).inner_text() for row in rows.all()]


TABLE = "Each method, task and size"


@pytest.mark.slow
@pytest.mark.browser
def test_a_name_that_is_markup_is_text(opened):
    assert opened.locator("h1").inner_text() == "peftbench: <b>runs"
    assert opened.get_by_role("heading", name=EVIL).count() >= 3
    assert EVIL in opened.locator("#summary").inner_text()
    assert opened.locator("#task option").all_inner_texts()[1] == EVIL


@pytest.mark.slow
@pytest.mark.browser
def test_columns_sort_and_rows_filter_by_keyboard_too(opened):
    head = opened.get_by_role("region", name=TABLE, exact=True).locator("thead")
    button = head.get_by_role("button", name="train s")
    button.focus()
    opened.keyboard.press("Enter")
    assert head.locator("th[aria-sort=descending]").inner_text().strip() == "train s"
    assert column(opened, TABLE, 9) == ["8.00"] * 3 + ["4.00"] * 3 + ["2.00"] * 3
    opened.keyboard.press("Enter")
    assert column(opened, TABLE, 9) == ["2.00"] * 3 + ["4.00"] * 3 + ["8.00"] * 3
    opened.get_by_label(f"filter {TABLE}").fill("lora paraphrase")
    assert [name.strip() for name in column(opened, TABLE, 0)] == ["LoRA", "LoRA"]
    assert opened.get_by_text("2 of 9 rows").is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_the_legend_hides_a_method_everywhere(opened):
    lora = "[fill='var(--method-1)'], [stroke='var(--method-1)']"
    assert opened.evaluate("number.get('lora')") == 1
    assert opened.locator(lora).count() > 20
    opened.locator("#legend summary").click()
    button = opened.locator("#legend button", has_text="LoRA")
    button.click()
    opened.evaluate("drawAll()")
    assert button.get_attribute("aria-pressed") == "false"
    assert opened.locator(lora).count() == 0
    texts = opened.locator("main tbody, main svg.plot").all_text_contents()
    assert len(texts) > 20
    assert not [text for text in texts if "lora" in text.lower()]
    button.click()
    opened.evaluate("drawAll()")
    assert opened.locator(lora).count() > 20


@pytest.mark.slow
@pytest.mark.browser
def test_a_task_hides_the_others(opened):
    before = opened.locator("figure .panel").count()
    opened.select_option("#task", EVIL)
    opened.evaluate("drawAll()")
    titles = opened.locator("figure .panel h4").all_inner_texts()
    assert set(titles) == {EVIL}
    assert len(titles) < before
    assert set(column(opened, TABLE, 1)) == {EVIL}


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("task", [EVIL, "synthetic_paraphrase"])
def test_a_task_hides_the_others_in_folded_tables_too(opened, data, task):
    other = {EVIL: "synthetic_paraphrase", "synthetic_paraphrase": EVIL}[task]
    names = {EVIL: EVIL, "synthetic_paraphrase": "Synthetic paraphrase"}
    opened.evaluate("document.querySelectorAll('details').forEach((one) => (one.open = true))")
    opened.select_option("#task", task)
    shown = opened.locator("main .tabled:visible")
    text = "\n".join(shown.locator("table:visible").all_inner_texts())
    assert names[task] in text
    assert names[other] not in text
    assert other not in text
    told = {table["title"] for table in data["tables"] if table["task"] == other}
    folded = opened.locator("main details.tabled:visible > summary")
    assert not told & set(folded.all_inner_texts())
    opened.select_option("#task", "")
    assert told <= set(folded.all_inner_texts())


@pytest.mark.slow
@pytest.mark.browser
def test_a_row_leads_to_its_runs_and_a_run_to_its_record(opened, data):
    region = opened.get_by_role("region", name=TABLE, exact=True)
    region.locator(".unfold").first.click()
    assert region.locator(".unfold").first.get_attribute("aria-expanded") == "true"
    keys = region.locator(".below .key").all_inner_texts()
    assert keys == data["cells"][0]["runs"]
    region.locator(".below .key").first.click()
    record = opened.locator("dialog")
    assert record.is_visible()
    text = record.inner_text()
    for part in (keys[0], "80.00", "Some CPU", "layer_decay", "torch 2.11.0", "0123456789abcdef"):
        assert part in text
    opened.keyboard.press("Escape")
    assert not record.is_visible()


@pytest.mark.slow
@pytest.mark.browser
def test_dots_tell_exact_values_and_dark_is_a_click_away(opened):
    opened.evaluate("document.documentElement.scrollTop = 0")
    panel = opened.locator("figure .panel").first
    panel.scroll_into_view_if_needed()
    dot = panel.locator("[aria-label=dot] path").first
    box = dot.bounding_box()
    opened.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    tip = panel.locator("[aria-label=tip]")
    tip.get_by_text("accuracy").wait_for()
    assert re.search(
        r"Full fine-tuning, seed \d.*accuracy \d\d\.\d\d %", tip.text_content(), re.DOTALL
    )
    ground = "getComputedStyle(document.body).backgroundColor"
    light = opened.evaluate(ground)
    opened.locator("#theme").click()
    assert opened.evaluate(ground) != light


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize(("width", "height", "lowest"), [(1280, 900, 320), (390, 844, 420)])
def test_the_first_screen_is_an_answer_four_figures_and_the_table(
    chromium, file, width, height, lowest
):
    context = chromium.new_context(offline=True, viewport={"width": width, "height": height})
    tab = context.new_page()
    tab.goto(file.as_uri())
    assert tab.locator("#answer").inner_text().startswith("No method is significantly better than")
    tiles = tab.locator(".tile strong")
    assert tiles.all_inner_texts() == ["18", "3", "2", "17 %"]  # 3 of 18 runs collapsed
    board = tab.get_by_role("table", name="Leaderboard")
    names = board.locator("tbody th").all_inner_texts()
    # mean ranks over 3 tasks and sizes by 2 seeds; lora ties with full in the second seeds
    assert [name.replace("↗", "").strip() for name in names] == [
        *("Full fine-tuning", "LoRA", "BitFit")
    ]
    assert board.locator("tbody tr:first-child td").nth(0).inner_text() == "1.25"
    assert board.get_by_text("1/2").count() == 3  # the second seed of bitfit, thrice
    assert "scores 80.0, 90.0" in board.locator(".strip").first.get_attribute("aria-label")
    assert board.bounding_box()["y"] < lowest
    assert not tab.locator("main > details[open]").count()
    assert tab.evaluate("document.documentElement.scrollWidth") == width
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_the_address_shows_the_same_again(opened, chromium, file):
    opened.select_option("#task", EVIL)
    opened.locator("#legend summary").click()
    opened.locator("#legend button", has_text="BitFit").click()
    board = opened.get_by_role("table", name="Leaderboard")
    board.get_by_role("button", name="trained").click()
    board.get_by_role("button", name="trained").click()
    told = board.inner_text()
    assert "Synthetic" not in told
    assert told.index("LoRA") < told.index("Full fine-tuning")  # 2,048 and 40,000 weights
    context = chromium.new_context(offline=True, viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.goto(opened.url)
    assert tab.get_by_role("table", name="Leaderboard").inner_text() == told
    tab.goto(f"{file.as_uri()}#costs")
    assert tab.locator("main > details[open]").get_attribute("id") == "costs"
    context.close()


@pytest.mark.slow
@pytest.mark.browser
def test_tables_and_drawings_are_taken_along(opened, tmp_path):
    def taken(name):
        with opened.expect_download() as waiting:
            opened.get_by_role("button", name=name).first.click()
        path = tmp_path / waiting.value.suggested_filename
        waiting.value.save_as(path)
        return path

    lines = taken("download Leaderboard as CSV").read_text().splitlines()
    assert len(lines) == 4
    assert lines[1].split(",")[:3] == ["Full fine-tuning", "1.25", "85.0 ± 7.1"]
    svg = taken(re.compile("^download Scores, every run a dot.* as SVG$")).read_text()
    assert "<path" in svg
    assert "var(--" not in svg
    png = taken(re.compile("^download Scores, every run a dot.* as PNG$")).read_bytes()
    assert png.startswith(b"\x89PNG")
    assert len(png) > 5_000


@pytest.mark.slow
@pytest.mark.browser
def test_paper_shows_what_is_folded(opened):
    opened.evaluate(
        "document.querySelectorAll('main details').forEach((one) => (one.open = false))"
    )
    opened.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert not opened.locator("main details:not([open])").count()
    opened.emulate_media(media="print")
    assert opened.locator("#rules dl").is_visible()
    assert not opened.locator(".take").first.is_visible()
    opened.evaluate("dispatchEvent(new Event('afterprint'))")
    assert not opened.locator("main details[open]").count()


@pytest.mark.slow
@pytest.mark.browser
def test_nothing_is_wider_than_a_phone(opened):
    opened.set_viewport_size({"width": 400, "height": 800})
    opened.wait_for_timeout(300)
    opened.evaluate("drawAll()")
    assert opened.evaluate("document.documentElement.scrollWidth") == 400


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_seed_decides_nothing_about_methods(seeds):
    pair = PairedComparison(
        task="mrpc",
        metric="accuracy",
        row=("lora",),
        label="lora",
        against="full",
        seeds=seeds,
        examples=400,
        effect=Effect(value=-0.1, low=-0.2, high=-0.05, p=0.001, detectable=0.05),
        superior=0.0,
        adjusted=0.001,
    )
    first, *lines = summary._decided([pair])
    if seeds == 1:
        assert "0 decided" in first
        assert "1 with one seed, which compares two models, not two methods" in first
        assert lines == []
        return
    assert "worse than Full fine-tuning: LoRA (\N{MINUS SIGN}10.0 points" in lines[0]
    assert "given that it trains" in lines[0]


def test_the_page_and_the_tables_print_the_same_figures(results, data):
    table = scores.scores(convention.counted_records(results.scan()[0]))
    heads = [f"{section['id']} accuracy" for section in data["sections"]]
    for cell in data["cells"]:
        label = data["rows"][cell["row"]]["id"]
        (line,) = (row for row in table.rows if row[0] == label)
        shown = line[table.columns.index(heads[cell["section"]])]
        mean, deviation = cell["texts"]
        assert shown.startswith(f"{mean} ± {deviation} ({cell['n']})")


def test_the_picture_and_the_page_of_shift_have_the_same_lines_and_figures(results):
    evaluated, _ = results.scan_evaluated()
    here = [e for e in evaluated if e.evaluation.kind == "Shift"]
    trained = {e.evaluation.run.key: 1 for e in here}
    (page,) = shift.page_plots(here, trained)
    (panel,) = page["panels"]
    (picture,) = shift.plot_shift(here, trained, Palette())
    (axis,) = picture.figure.axes
    assert [glossary.row(line["label"]) for line in panel["lines"]] == [
        text.get_text() for text in axis.get_yticklabels()
    ]
    assert "best constant" in [line["label"] for line in panel["lines"]]
    texts = [text for line in panel["lines"] for text in line["texts"]]
    assert texts == [text.get_text() for text in axis.texts]
