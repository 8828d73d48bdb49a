"""Seeds that diverged have no record; whatever is said of the others says so."""

import numpy as np
import pytest
import records

from peftbench.analysis import advice
from peftbench.core.failures import Failure
from peftbench.reports import builder, pivot_table
from peftbench.reports.html.data import contents
from peftbench.results import merging
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder

TASK = "synthetic_paraphrase"


@pytest.fixture
def folder(tmp_path):
    """LoRA with three seeds and BitFit with two, of which one more diverged; (IA)3 never trained.

    One run of LoRA failed otherwise, which says nothing of the method, and one diverged before it
    was trained.
    """
    made = ResultsFolder(tmp_path / "runs")
    runs = records.runs("method=lora,bitfit,ia3", "seed=0,1,2", f"task={TASK}")
    lora, bitfit, ia3 = runs[:3], runs[3:6], runs[6:]
    made.fail(Failure(lora[0], "diverged", "the loss is nan at step 1"))
    for run in (*lora, *bitfit[:2]):
        made.save(records.record(run, 0.75), records.predictions())
    for run in (bitfit[2], *ia3):
        made.fail(Failure(run, "diverged", "the loss is nan at step 2"))
    (again,) = records.runs("method=lora", "seed=3", f"task={TASK}")
    made.fail(Failure(again, "memory", "out of memory"))
    return made


def test_reports_count_them(folder):
    made = builder.selected(folder, "")
    text = made.texts["scores.md"].decode()
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "(2) ×1" in rows["bitfit"]
    assert "×" not in rows["lora"]
    assert "×n: n more seeds diverged" in text
    assert f"Diverged in every seed, so without a row: ia3 · {TASK} · tiny" in text
    assert " · seed 0, 1, 2." in text
    header, *lines = made.texts["scores.csv"].decode().splitlines()
    place = header.split(",").index("diverged")
    found = {line.split(",")[0]: line.split(",")[place] for line in lines}
    assert found == {"lora": "0", "bitfit": "1"}
    assert f"in no comparison: bitfit on {TASK} (1)." in made.texts["paired.md"].decode()


def test_a_selection_says_nothing_of_other_methods(folder):
    text = builder.selected(folder, "method=bitfit").texts["scores.md"].decode()
    assert "(2) ×1" in text
    assert "ia3" not in text
    assert "diverged" not in builder.selected(folder, "method=lora").texts["scores.md"].decode()


def test_pivot_tables_count_them(folder):
    words = ("rows=method", "columns=task", "cell=score")
    made = pivot_table.build_pivot_table(folder, words, "markdown", None)
    assert "(2) ×1" in made.text
    assert "Diverged: bitfit: synthetic_paraphrase accuracy (seed 2)." in made.text
    text = pivot_table.build_pivot_table(folder, words, "csv", None).text
    assert text.splitlines()[0].split(",")[-1] == "diverged"
    costs = pivot_table.build_pivot_table(folder, (*words[:2], "cell=seconds.train"), "csv", None)
    assert "×" not in (costs.text or "")


def test_the_page_counts_them(folder):
    made = contents(folder)
    found = {made["rows"][cell["row"]]["id"]: cell["diverged"] for cell in made["cells"]}
    assert found == {"lora": 0, "bitfit": 1}
    (told,) = [one for one in made["summary"] if one["heading"] == "What collapsed"]
    assert any("more seeds diverged" in line for line in told["sentences"])


def test_advice_gives_such_a_method_no_chance(folder):
    found = advice.from_folders([f"task={TASK}", "size=32", "model=tiny"], [folder])
    told = {one.label: (one.chance is None, one.why) for one in found.options}
    assert told["bitfit"] == (True, "1 more seed diverged")
    assert told["lora"][1] == ""


def test_merging_takes_them_along(folder, tmp_path):
    into, other = ResultsFolder(tmp_path / "all"), ResultsFolder(tmp_path / "other")
    bitfit = next(run for run in folder.diverged() if run.method.name == "bitfit")
    (first,) = records.runs("method=ia3", "seed=0", f"task={TASK}")
    other.save(records.record(first, 0.5), records.predictions())
    done = merging.merge([folder, other], into)
    assert bitfit in into.diverged()
    assert first not in into.diverged()
    assert len(into.diverged()) == 3
    assert len([note for note in done.notes if "diverged in" in note]) == 3
    before = into.failure(bitfit.key)
    assert merging.merge([folder, other], into).notes == []
    assert into.failure(bitfit.key) == before


def test_their_cell_is_that_of_the_frame(folder):
    rows = load_frame(folder).read(["key", "alike"]).itertuples()
    assert all(folder.load(row.key).run.cell_key == row.alike for row in rows)


@pytest.fixture
def tested(tmp_path):
    """Full, LoRA, BitFit and (IA)3 with three seeds each, LoRA right most often of all.

    Two more seeds of LoRA diverged, and one of the baseline where `base` is made.
    """

    def made(base=False):
        if (tmp_path / f"tested{base}").exists():
            return ResultsFolder(tmp_path / f"tested{base}")
        results = ResultsFolder(tmp_path / f"tested{base}")
        label = np.arange(600) % 2
        hard = np.random.default_rng(0).random(600)
        good = {"full": 0.7, "lora": 0.95, "bitfit": 0.5, "ia3": 0.7}
        for run in records.runs(f"method={','.join(good)}", "seed=0,1,2,3,4", f"task={TASK}"):
            if run.seed > 2:
                if run.method.name == "lora" or (base and run.method.name == "full"):
                    results.fail(Failure(run, "diverged", "the loss is nan at step 2"))
                continue
            right = hard + 0.01 * run.seed < good[run.method.name]
            scores = 2.0 * np.eye(2)[np.where(right, label, 1 - label)]
            counts = {"trained": 9000 if run.method.name == "full" else 2048, "head": 66}
            results.save(
                records.record(run, float(right.mean()), parameters=counts | {"total": 9066}),
                {"item": np.arange(600), "label": label, "scores": scores},
            )
        return results

    return made


def lines(text, column=0):
    """Cells of a table's lines, by one of them."""
    told = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "|" in line]
    return {line[column]: line for line in told[2:]}


def test_a_verdict_says_how_many_diverged_and_never_that_none_was_seen(tested):
    text = builder.selected(tested(), "").texts["paired.md"].decode()
    rows = lines(text, 1)
    assert rows["lora"][-1] == "better; 2 / 0 more seeds diverged"
    assert rows["bitfit"][-1] == "worse, given that it trains"
    # 2 of 5 by Clopper and Pearson
    assert "2 of 5: 5 to 85 %" in text
    answer = contents(tested())["answer"]
    assert answer.startswith("No method is significantly better than Full fine-tuning; ")
    assert "better without the seeds that diverged: LoRA" in answer
    both = contents(tested(base=True))["answer"]
    assert "significantly worse" not in both
    assert "worse without the seeds that diverged: BitFit" in both


def test_such_a_row_is_on_no_front_and_in_no_ranks(tested):
    made = builder.selected(tested(), "")
    text = {name: body.decode() for name, body in made.texts.items()}
    rows = lines(text["spending.md"])
    assert rows["lora"][2].endswith("(3) ×2")
    assert (rows["lora"][-1], rows["full"][-1]) == ("–", "yes")
    # three of five seeds come near
    assert rows["lora"][-2] == "2 (3 of 5)"
    assert rows["bitfit"][-2] == "> 2 (0 of 3)"
    assert sorted(lines(text["ranks.md"])) == ["bitfit", "full", "ia3"]
    assert "Not ranked, seeds diverged: lora." in text["ranks.md"]
    cells = contents(tested())["cells"]
    assert [cell["front"] for cell in cells if cell["diverged"]] == [[]]
