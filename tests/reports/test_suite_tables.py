"""Tables of what suites found: marks and notes without which a figure would mislead."""

from typing import Any

import records

from peftbench.config.sweep import plan
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Json
from peftbench.reports import in_context, shift


def evaluated(findings: list[Json], *words: str) -> tuple[list[Evaluated], dict[str, int]]:
    """Evaluations with these findings, one for each seed, and trained parameters."""
    asked = plan(*records.tiny(*words, f"seed=range(0,{len(findings)})")).evaluations
    found = [
        Evaluated(one, told, {}, {}, records.ENVIRONMENT, None)
        for one, told in zip(asked, findings, strict=True)
    ]
    return found, {one.run.key: 10 for one in asked}


def test_one_answer_behind_demonstrations_is_marked():
    told = {"metric": "accuracy", "counts": [0, 2], "differences": [0.0, -0.1]}
    told |= {"scores": [0.6, 0.5], "truncated": {"shown/0": 0}}
    words = ("method=lora", "suite=in_context", "prompt=demonstrations")
    findings = [told | {"constant": [False, one]} for one in (True, True, False)] + [told]
    (table,) = in_context.tables(*evaluated(findings, *words, "prompt.num_demonstrations=0"))
    (row,) = table.rows
    line = dict(zip(table.columns, row, strict=True))
    assert (line["0"], line["2"]) == ("60.0 ± 0.0 (4)", "50.0 ± 0.0 (4) †2")
    assert "†n: n seeds give one answer to all texts." in table.notes[0]


def target(score: float, before: float, **more: Any) -> Json:
    told = {"metric": "accuracy", "examples": 250, "trivial": 0.564, "home": 0.9, "gap": 0.2}
    scores = {"scores": {"accuracy": score, "auc": 0.8}, "untrained": {"accuracy": before}}
    return told | scores | more


def test_the_area_under_the_curve_stands_beside_accuracy():
    """Models that answer yes to all, or no to all, know as little and differ in accuracy."""
    findings = [{"targets": {"qqp": target(0.7, 0.436)}, "moved": MOVED}] * 2
    findings[0]["targets"]["qqp"]["untrained"]["auc"] = 0.51
    (table,) = shift.tables(*evaluated(findings, "method=lora", "suite=shift"))
    assert table.columns == ["method", "qqp accuracy", "gap", "qqp auc", "moved %", "inserted"]
    constant, untrained, lora = table.rows
    assert constant[1:4] == ["56.4", "", "50.0"]
    assert untrained[1:4] == ["43.6 ± 0.0 (2)", "", "51.0 ± 0.0 (2)"]
    assert lora[1:4] == ["70.0 ± 0.0 (2)", "20.0 ± 0.0 (2)", "80.0 ± 0.0 (2)"]


def test_texts_that_do_not_end_are_counted_below_the_table():
    lengths = {"trained": {"cut": 5, "mean_tokens": 12.0}, "untrained": {"cut": 200}}
    told = {"metric": "rouge_l", "scores": {"rouge_l": 0.3}, "untrained": {"rouge_l": 0.1}}
    findings = [{"targets": {"sciqa": target(0, 0) | told | {"texts": lengths}}, "moved": MOVED}]
    (table,) = shift.tables(*evaluated(findings, "method=lora", "suite=shift"))
    assert "whatever they say: untrained 80 %, LoRA 2 %. No best" in table.notes[0]
    assert table.rows[0][1] == "–"
    assert "auc" not in " ".join(table.columns)


def test_a_model_before_training_is_one_row_where_targets_have_their_own_prompts():
    """The number of demonstrations that a run was trained with is none of its settings."""
    findings = [{"targets": {"qqp": target(0.7, 0.436)}, "moved": MOVED}] * 2
    words = ("method=lora", "suite=transfer", "model=smollm2_135m", "prompt=words")
    none, trained = evaluated(findings, *words, "prompt.num_demonstrations=0")
    two, more = evaluated(findings, *words, "prompt.num_demonstrations=2")
    (table,) = shift.tables(none + two, trained | more)
    assert [row[:2] for row in table.rows[:2]] == [["best constant", ""], ["untrained", ""]]


MOVED = {"relative": 0.01, "inserted_l2": 1.0}
