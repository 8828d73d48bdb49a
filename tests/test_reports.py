"""What shares a cell of a table, and what does not."""

import records

from peftbench.reports import scores
from peftbench.run import Record


def made(*words: str) -> list[Record]:
    return [records.record(run) for run in records.runs(*words)]


def test_seeds_share_a_cell():
    table = scores.scores(made("method=lora", "seed=0,1,2"))
    assert table.columns[:1] == ["method"]
    assert [row[0] for row in table.rows] == ["trivial", "lora"]
    assert "(3)" in table.rows[1][1]


def test_hosts_are_rows_of_their_own():
    found = made("method=sparse_adapter", "method.host=lora,adapter", "method.score=random")
    table = scores.scores(found)
    assert table.columns[:2] == ["method", "method.host"]
    assert sorted(row[1] for row in table.rows[1:]) == ["adapter", "lora"]


def test_what_differs_inside_one_host_is_a_column():
    words = ("method=sparse_adapter", "method.host=adapter", "method.host.width=8,16")
    table = scores.scores(made(*words))
    assert table.columns[:2] == ["method", "method.host.width"]


def test_another_revision_is_another_row():
    words = ("model=auto", "model.family=bert", "model.checkpoint=a/b", "model.revision=c1,c2")
    table = scores.scores(made(*words))
    assert table.columns[:2] == ["method", "model.revision"]


def test_costs_have_a_line_for_each_method_and_task():
    found = made("method=lora,bitfit", "task=builtin_paraphrase,builtin_similarity", "seed=0,1")
    table = scores.costs(found)
    assert table.columns == ["method", "task", "trained", "seconds", "examples/s", "peak MiB"]
    assert len(table.rows) == 4
