"""Each row against one: planted differences are found, others are not, and the words say which."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records
from click.testing import CliRunner

from peftbench.analysis import mean_ranks
from peftbench.analysis.comparison import PairedComparison, _possible, compare
from peftbench.analysis.significance import Effect
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record
from peftbench.reports import cheap_validation, ensembles, paired, pivot_table, ranks, scores
from peftbench.reports.html import summary
from peftbench.reports.html.data import contents
from peftbench.reports.plotting import takeaway
from peftbench.results.predictions import Load
from peftbench.results.store import ResultsFolder

EXAMPLES = 600


def said(*words: str, good: dict[str, float], value: str = "method") -> tuple[list[Record], Load]:
    """Runs whose answers are right for a share of the examples, by method or learning rate.

    An example is right below its share: differences between methods are paired, seeds nearly alike.
    """
    made, answers = [], {}
    label = np.arange(EXAMPLES) % 2
    hard = np.random.default_rng(0).random(EXAMPLES)
    for run in records.runs(*words):
        name = run.method.name if value == "method" else f"{run.train.lr:g}"
        wobble = np.random.default_rng(run.seed).normal(0, 0.01, EXAMPLES)
        right = hard + wobble < good[name]
        scores = 2.0 * np.eye(2)[np.where(right, label, 1 - label)]
        answers[run.key] = {"item": np.arange(EXAMPLES), "label": label, "scores": scores}
        trained = {"full": 9000}.get(run.method.name, 2048)
        counts = {"trained": trained, "head": 66, "total": 9066}
        made.append(records.record(run, float(right.mean()), parameters=counts))
    return made, lambda record: answers[record.run.key]


def by_label(pairs: list[PairedComparison]) -> dict[str, PairedComparison]:
    return {pair.label: pair for pair in pairs}


def test_where_a_file_lies_does_not_part_what_it_was_asked():
    made, load = said("method=full,lora", "seed=0,1,2", good={"full": 0.7, "lora": 0.9})
    made = [
        replace(r, run=replace(r.run, task=replace(r.run.task, path=f"{r.run.row}.csv")))
        for r in made
    ]
    ((pair,), _) = compare(made, load)
    assert (pair.against, pair.label) == ("full", "lora")


@pytest.mark.parametrize(
    ("words", "changed", "compared"),
    [
        ((), {"device": "Other CPU"}, 1),
        ((), {"precision": "fp32"}, 0),
        (("budget=seconds", "budget.seconds=9"), {}, 1),
        (("budget=seconds", "budget.seconds=9"), {"device": "Other CPU"}, 0),
        (("budget=seconds", "budget.seconds=9"), {"threads": 8}, 0),
    ],
)
def test_other_precisions_and_seconds_elsewhere_are_not_compared(words, changed, compared):
    """So many seconds buy more steps on a faster machine."""
    good = {"full": 0.7, "lora": 0.9}
    made, load = said("method=full,lora", "seed=0,1,2", *words, good=good)
    made = [
        replace(r, environment=r.environment | changed) if r.run.row == "lora" else r for r in made
    ]
    pairs, _ = compare(made, load)
    assert len(pairs) == compared
    seeds = [replace(r, environment=r.environment | changed) if r.run.seed else r for r in made[:3]]
    rows = scores.scores(seeds).rows
    assert len(rows) == (2 if compared else 3)  # beside the constant prediction; never pooled


def test_two_primary_metrics_of_a_task_have_a_detectable_difference_each():
    words = ("method=full,lora", "seed=0,1,2", "task.metrics=[accuracy],[f1]")
    made, load = said(*words, good={"full": 0.7, "lora": 0.9})
    pairs, _ = compare(made, load)
    table = scores.scores(made, pairs)
    assert {len(row) for row in table.rows} == {len(table.columns)}
    assert table.markdown()


def test_rows_of_two_files_of_one_name_are_not_ranked_together():
    made, _ = said(
        "method=full,lora,bitfit", "seed=0,1", good={"full": 0.7, "lora": 0.9, "bitfit": 0.8}
    )
    (ranked,) = mean_ranks.rank_rows(made)
    assert len(ranked.blocks) == 2
    other = [
        replace(r, run=replace(r.run, task=replace(r.run.task, label="other")))
        if r.run.row == "lora"
        else r
        for r in made
    ]
    assert mean_ranks.rank_rows(other) == []


def test_words_follow_the_numbers():
    good = {"full": 0.8, "lora": 0.9, "bitfit": 0.6, "ia3": 0.8}
    pairs, split = compare(*said("method=full,lora,bitfit,ia3", "seed=0,1,2", good=good))
    found = by_label(pairs)
    assert {label: pair.verdict for label, pair in found.items()} == {
        "lora": "better, given that it trains",
        "bitfit": "worse, given that it trains",
        "ia3": "not worse within 1 point, given that it trains",
    }
    assert {pair.against for pair in pairs} == {"full"}
    assert split == []
    lora, bitfit = found["lora"], found["bitfit"]
    assert lora.effect.value == pytest.approx(0.1, abs=0.03)
    assert lora.effect.low < lora.effect.value < lora.effect.high
    assert (lora.superior, bitfit.superior, found["ia3"].superior) == (1, 0, 0.5)
    assert (lora.seeds, lora.examples) == (3, EXAMPLES)


def test_the_correction_is_over_the_rows_of_a_task_and_size():
    good = {"full": 0.8, "lora": 0.82, "bitfit": 0.78}
    words = ("method=full,lora,bitfit", "seed=0,1,2")
    pairs, _ = compare(*said(*words, good=good))
    assert [pair.adjusted for pair in pairs] == [2 * pair.effect.p for pair in pairs]
    both, _ = compare(*said(*words, "size=32,64", good=good))
    assert [pair.task for pair in both] == ["synthetic_paraphrase 32"] * 2 + [
        "synthetic_paraphrase 64"
    ] * 2
    assert [pair.adjusted for pair in both] == [pair.adjusted for pair in pairs] * 2


def test_words_and_intervals_agree():
    """Of many rows near the edge: better is an interval above 0, and corrected p below 0.05."""
    good = {"full": 0.8, "lora": 0.83, "bitfit": 0.77, "ia3": 0.82, "head": 0.79}
    kinds = set()
    for seeds in ("seed=0,1", "seed=0,1,2", "seed=range(0,5)"):
        pairs, _ = compare(*said("method=full,lora,bitfit,ia3,head", seeds, good=good))
        for pair in pairs:
            kinds.add(pair.kind)
            decided = pair.kind in ("better", "worse")
            assert decided == (pair.adjusted < 0.05)
            assert decided == (not pair.effect.low <= 0 <= pair.effect.high)
    assert {"better", "undecided"} <= kinds


def test_two_collapsed_runs_are_both_collapsed_whatever_they_predict():
    made, load = said("method=full,lora", "seed=0,1,2", good={"full": 0.8, "lora": 0.8})
    flat = {r.run.key: load(r) | {"scores": np.tile([1.0, 0.0], (EXAMPLES, 1))} for r in made}
    every = [replace(record, collapsed=True) for record in made]
    (pair,), split = compare(every, lambda record: flat[record.run.key])
    assert (pair.verdict, pair.effect.value, pair.adjusted) == ("both collapsed", 0, 1)
    assert paired.paired_table([pair], split).rows[0][-2:] == ["3 / 3", "both collapsed"]
    (pair,), _ = compare([*every[:3], *made[3:]], load)
    assert "given that it trains" not in pair.verdict
    assert pair.failed == (0, 3)


def test_the_margin_is_an_option():
    good = {"full": 0.8, "lora": 0.785}
    made, load = said("method=full,lora", "seed=0,1,2,3,4", good=good)
    (pair,), _ = compare(made, load, margin=0.001)
    (wide,), _ = compare(made, load, margin=0.2)
    assert pair.kind in ("undecided", "worse")
    assert wide.kind in ("not worse", "worse")
    assert replace(pair, margin=0.2).kind == wide.kind
    near, _ = compare(*said("method=full,ia3", "seed=0,1,2", good={"full": 0.8, "ia3": 0.8}))
    assert "within 2.5 points" in replace(near[0], margin=0.025).verdict


def test_only_rows_of_the_baselines_budget_are_compared_with_it_and_it_is_the_longest():
    good = {"full": 0.8, "lora": 0.9}
    made, load = said("method=full,lora", "budget.steps=4,8", "seed=0,1,2", good=good)
    made = [replace(r, work=r.work | {"examples": 16 * r.run.budget.steps}) for r in made]
    (pair,), split = compare(made, load)
    assert split == ["budget.steps"]
    assert (pair.label, pair.against) == ("lora, 8 steps", "full, 8 steps")
    assert compare(made, load, "full")[0] == [pair]
    (short,), _ = compare(made, load, "full, 4 steps")
    assert (short.label, short.against) == ("lora, 4 steps", "full, 4 steps")


def test_where_the_default_baseline_has_several_rows_nothing_is_compared():
    words = ("method=full,lora", "train.lr=1e-4,1e-3", "seed=0,1")
    made, load = said(*words, good={"0.0001": 0.7, "0.001": 0.9}, value="rate")
    assert compare(made, load)[0] == []
    assert len(compare(made, load, "full, lr=0.001")[0]) == 3


def test_seeds_that_differ_leave_it_undecided():
    made, load = said("method=full,lora", "seed=0,1", good={"full": 0.8, "lora": 0.8})
    answers = {record.run.key: load(record) for record in made}
    for record in made:
        if record.run.method.name == "lora" and record.run.seed == 1:
            answers[record.run.key] = {**load(record), "scores": load(record)["scores"][::-1]}
    (pair,), _ = compare(made, lambda record: answers[record.run.key])
    assert pair.verdict == "undecided at n = 2"
    assert (pair.effect.low, pair.effect.high) == (-1, 1)  # no two accuracies are further apart


def test_one_seed_has_mcnemars_p_and_says_so():
    (pair,), _ = compare(*said("method=full,lora", good={"full": 0.8, "lora": 0.9}))
    gained = round(pair.effect.value * EXAMPLES)
    assert pair.effect.p == pytest.approx(2 * 0.5**gained)
    assert pair.verdict == "one seed: this model is better"
    (pair,), _ = compare(*said("method=full,lora", good={"full": 0.8, "lora": 0.801}))
    assert pair.verdict == "one seed: these two models are not told apart"
    assert pair.kind == "one seed"


def test_what_cannot_be_compared_is_said():
    made, load = said("method=full,lora", "seed=0,1", "task=cola", good={"full": 0.8, "lora": 0.9})
    answers = {record.run.key: load(record) for record in made}
    for record in made:
        if record.run.method.name == "lora":
            answers[record.run.key]["scores"] = np.tile([1.0, 0.0], (EXAMPLES, 1))
    (pair,), split = compare(made, lambda record: answers[record.run.key])
    assert (pair.metric, pair.verdict) == (
        "matthews",
        "worse, given that it trains",
    )  # a constant counts as 0
    for arrays in answers.values():
        arrays["label"] = np.zeros(EXAMPLES, dtype=np.int64)
    (pair,), split = compare(made, lambda record: answers[record.run.key])
    assert (pair.metric, pair.effect, pair.verdict) == ("matthews", None, "undefined")
    assert paired.plot_paired([pair]) == []
    (row,) = paired.paired_table([pair], split).rows
    assert row[-2:] == ["0 / 0", "undefined"]
    apart = [one for one in made if (one.run.method.name == "full") == (one.run.seed == 0)]
    (pair,), _ = compare(apart, load)
    assert (pair.seeds, pair.verdict) == (0, "no seed in common")


def test_a_baseline_of_ones_own_choice():
    good = {"full": 0.8, "lora": 0.9, "bitfit": 0.7}
    made, load = said("method=full,lora,bitfit", "seed=0,1,2", good=good)
    found = by_label(compare(made, load, "bitfit")[0])
    assert {label: pair.kind for label, pair in found.items()} == {
        "full": "better",
        "lora": "better",
    }
    with pytest.raises(ConfigError, match="did you mean bitfit"):
        compare(made, load, "bitfi")


def test_a_baseline_among_rows_of_one_method_is_named_with_its_settings():
    good = {"0.0001": 0.7, "0.001": 0.9}
    words = ("method=lora", "train.lr=1e-4,1e-3", "seed=0,1,2")
    made, load = said(*words, good=good, value="rate")
    with pytest.raises(
        ConfigError, match=r"2 rows; use one of 'lora, lr=0\.0001', 'lora, lr=0\.001'"
    ):
        compare(made, load, "lora")
    (pair,), split = compare(made, load, "lora, lr=0.001")
    assert (pair.label, pair.kind, split) == ("lora, lr=0.0001", "worse", ["train.lr"])


def test_a_baseline_without_settings_is_the_row_that_is_called_so():
    made, load = said("method=full", "seed=0,1,2", good={"full": 0.8})

    def clipped(one, norm):
        return replace(one, run=replace(one.run, train=replace(one.run.train, max_grad_norm=norm)))

    timed = [clipped(one, 0.5) for one in made]
    of = {one.run.key: before for one, before in zip(timed, made, strict=True)}
    both = [clipped(one, None) for one in made]
    of |= {one.run.key: before for one, before in zip(both, made, strict=True)}
    (pair,), _ = compare([*timed, *both], lambda r: load(of[r.run.key]), "full")
    assert (pair.label, pair.against) == ("full, max_grad_norm=0.5", "full")


def test_only_answers_to_the_same_questions_are_compared():
    """A user's file that has changed since has another hash, and other examples."""
    good = {"full": 0.8, "lora": 0.9, "bitfit": 0.7}
    made, load = said("method=full,lora,bitfit", "seed=0,1", good=good)
    task = replace(made[0].run.task, source={"file": {"train": "other"}})
    more = [replace(record, run=replace(record.run, task=task)) for record in made]
    old = dict(zip([record.run.key for record in more], made, strict=True))

    def load_both(record: Record) -> dict[str, np.ndarray]:
        if record.run.key not in old:
            return load(record)
        return {name: array[100:] for name, array in load(old[record.run.key]).items()}

    pairs, split = compare(made + more, load_both)
    assert split == ["task.source"]
    assert sorted(pair.examples for pair in pairs) == [500, 500, 600, 600]
    assert len(ensembles.tables(made + more, load_both)[0].rows) == 6
    table = cheap_validation.cheap_validation_table(made + more, load_both)
    assert sorted(row[2] for row in table.rows) == ["500", "600"]


def test_a_table_and_a_picture_say_the_same_again():
    good = {"full": 0.8, "lora": 0.9, "bitfit": 0.3}
    made, load = said("method=full,lora,bitfit", "seed=0,1,2", good=good)
    first, second = (compare(made, load) for _ in range(2))
    assert first == second
    table = paired.paired_table(*first)
    assert table.columns[:4] == ["task", "method", "against", "seeds × examples"]
    assert table.rows[0][:4] == ["synthetic_paraphrase", "bitfit", "full", "3 × 600"]
    one, two = (paired.plot_paired(pairs)[0].file("png") for pairs, _ in (first, second))
    assert one == two


def test_one_wide_interval_of_two_does_not_hide_the_other():
    good = {"full": 0.8, "lora": 0.7, "bitfit": 0.8}
    made, load = said("method=full,lora,bitfit", "seed=0,1,2", good=good)
    pairs, _ = compare(made, load)
    wide = [
        replace(pair, effect=replace(pair.effect, low=-0.9, high=0.9))
        if pair.label == "lora"
        else replace(pair, effect=replace(pair.effect, low=-0.03, high=0.02))
        for pair in pairs
    ]
    (picture,) = paired.plot_paired(wide)
    low, high = picture.figure.axes[0].get_xlim()
    assert high - low < 25


def test_the_title_names_the_size_where_a_task_has_several():
    made, load = said(
        "method=full,lora", "seed=0,1,2", "size=32,64", good={"full": 0.8, "lora": 0.7}
    )
    pairs, _ = compare(made, load)
    task = "Synthetic paraphrase"
    told = takeaway.sentence(pairs)
    assert f"significantly worse: LoRA ({task} 32, {task} 64)" in told
    alone = takeaway.sentence([pair for pair in pairs if pair.sized[1] == 32])
    assert f"significantly worse: LoRA ({task})" in alone


@pytest.mark.parametrize("metric", ["r2", "pearson", "auc", "rmse"])
def test_an_interval_is_cut_to_what_scores_can_differ_by(metric):
    made, load = said("method=full,lora", "seed=0,1,2", good={"full": 0.8, "lora": 0.7})
    (pair,) = compare(made, load)[0]
    wide = replace(pair.effect, value=-10.64, low=-12.5, high=-8.78)
    kept = _possible(wide, metric)
    lowest = {"r2": -12.5, "rmse": -12.5, "pearson": -2.0, "auc": -1.0}[metric]
    assert kept.low == lowest


def test_zero_has_no_sign():
    assert [paired.format_points(v) for v in (0.0, -0.0004, 0.012, -0.012)] == [
        "0.0",
        "0.0",
        "+1.2",
        "-1.2",
    ]


def test_ranks_are_over_blocks_that_all_rows_share():
    good = {"full": 0.9, "lora": 0.8, "bitfit": 0.7, "ia3": 0.6}
    words = ("seed=0,1,2", "task=synthetic_paraphrase,synthetic_acceptability")
    made, _ = said("method=full,lora,bitfit", *words, good=good)
    more, _ = said("method=ia3", "seed=0", good=good)  # of one block only: left out
    (table,) = ranks.ranks_tables(made + more)
    assert [row[:2] for row in table.rows] == [
        ["full", "1.00"],
        ["lora", "2.00"],
        ["bitfit", "3.00"],
    ]
    assert "Over 6 blocks" in table.notes[0]
    # three on six: 2.343 * sqrt(3 * 4 / (6 * 6))
    assert "by more than 1.35" in table.notes[0]
    assert [row[-1] for row in table.rows] == ["yes", "yes", ""]
    assert "Not ranked, without a score in some of these: ia3." in table.notes
    assert ranks.ranks_tables(made[:4]) == []


def test_rows_that_two_blocks_share_are_ranked_though_no_block_has_them_alone():
    good = dict.fromkeys(("full", "lora", "bitfit", "ia3", "head"), 0.8)
    one, _ = said("method=full,lora,bitfit,ia3", "seed=0", good=good)
    two, _ = said("method=lora,bitfit,ia3,head", "seed=1", good=good)
    (ranked,) = mean_ranks.rank_rows(one + two)
    assert [row[0] for row in ranked.rows] == ["bitfit", "ia3", "lora"]
    assert {row[0] for row in ranked.lacking} == {"full", "head"}


def test_budgets_are_ranked_apart():
    """In one table of nine rows, budgets alone would make the test significant."""
    good = dict.fromkeys(("full", "lora", "bitfit"), 0.8)
    made, _ = said("method=full,lora,bitfit", "budget.steps=4,8,16", "seed=0,1,2,3", good=good)
    tables = ranks.ranks_tables(made)
    assert [table.title for table in tables] == [
        "Ranks: 4 steps",
        "Ranks: 8 steps",
        "Ranks: 16 steps",
    ]
    for table in tables:
        assert len(table.rows) == 3
        # three on four: 2.343 * sqrt(3 * 4 / (6 * 4))
        assert "by more than 1.66" in table.notes[0]
    assert mean_ranks.mean_rank(made) == {}


def test_methods_of_other_budgets_say_so_and_are_in_no_ranks_and_no_test(tmp_path):
    good = {"full": 0.9, "lora": 0.95, "bitfit": 0.7, "ia3": 0.6}
    made, load = said("method=full,bitfit,ia3", "seed=0,1,2", good=good)
    longer, more = said("method=lora", "budget.steps=8", "seed=0,1,2", good=good)
    assert scores.scores(made + longer).columns[:2] == ["method", "budget.steps"]
    assert scores.scores(made).columns[1].startswith("synthetic_paraphrase")
    (table,) = ranks.ranks_tables(made + longer)
    assert [row[:2] for row in table.rows] == [["full", "4"], ["bitfit", "4"], ["ia3", "4"]]
    assert table.notes[1].endswith("share two blocks: lora, 8 steps.")
    results = ResultsFolder(tmp_path)
    for record in made:
        results.save(record, load(record))
    words = ("rows=method", "columns=task")
    assert (
        "Bold: significantly"
        in pivot_table.build_pivot_table(results, words, "markdown", None).text
    )
    for record in longer:
        results.save(record, more(record))
    text = pivot_table.build_pivot_table(results, words, "markdown", None).text
    assert "by method, budget.steps and task" in text
    assert "Which row is best was not tested, rows have several budgets or precisions" in text
    page = contents(results)
    assert page["sections"][0]["best"] is None
    fronts = {page["rows"][c["row"]]["id"]: c["front"] for c in page["cells"]}
    assert fronts["lora, 8 steps"] == ["seconds", "trained"]
    assert fronts["bitfit, 4 steps"] == ["trained"]


def test_the_verb_writes_comparisons_and_takes_a_baseline(tmp_path):
    results = ResultsFolder(tmp_path)
    good = {"full": 0.8, "lora": 0.9, "bitfit": 0.6}
    made, load = said("method=full,lora,bitfit", "seed=0,1,2", good=good)
    for record in made:
        results.save(record, load(record))

    def call(*words: str, code: int = 0) -> str:
        done = CliRunner().invoke(main, ["report", "--results", str(tmp_path), *words])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output

    assert "not told from the first" in call("--all")
    written = {path.name for path in Path(results.reports()).iterdir()}
    assert {"paired.md", "paired.png", "ranks.md", "ensembles.md"} <= written
    call("--check")
    assert "paired.md is not what" in call("--check", "--against", "lora", code=1)
    call("--against", "lora")
    lines = (results.reports() / "paired.md").read_text().splitlines()[4:6]
    assert [line.split(" | ")[1:3] for line in lines] == [
        ["full  ", "lora   "],
        ["bitfit", "lora   "],
    ]
    call("--check", "--against", "lora")
    assert "no such row; did you mean lora" in call("--against", "lor", code=2)


def test_what_was_detectable_is_told_by_the_number_of_seeds():
    def pair(seeds, detectable):
        effect = Effect(0.0, -0.1, 0.1, 1.0, detectable)
        return PairedComparison("t", "accuracy", ("a",), "a", "b", seeds, 600, effect, 0.5)

    found = summary._detectable([pair(3, 0.05), pair(10, 0.02), pair(3, 0.04), pair(2, math.nan)])
    assert found == (
        " (a true difference of 4.0 to 5.0 points with 3 seeds or of 2.0 points with 10 seeds and "
        "600 examples is detected about four times in five (in simulations 70 % with three seeds))"
    )
    assert summary._detectable([pair(2, math.nan)]) == ""
