"""Records from before a correction stand apart from those after it, and tables say so."""

from dataclasses import replace

from records import record
from tiny import one_run

from peftbench.analysis import grouping
from peftbench.core import revisions
from peftbench.core.run import Record, Run
from peftbench.reports import scores
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder

SAFE = one_run("method=lora", "task=mrpc")
PENALTY = one_run("method=robust_partial", "task=mrpc")
VALUES = one_run("method=lora", "task=stsb")
WORDS = one_run("method=lora", "prompt=words", "train.precision=auto")
WRAPPED = one_run("method=mc_dropout", "method.base_method=blob", "task=mrpc")


def before(run: Run) -> Run:
    """The run as it was before all corrections."""
    method = run.method
    if method.base_method is not None:
        method = replace(method, base_method=replace(method.base_method, revision=1))
    return replace(run, loss_revision=1, method=replace(method, revision=1))


def test_a_correction_tells_runs_apart_and_leaves_others_alone():
    assert (SAFE.loss_revision, SAFE.method.revision) == (1, 1)
    assert before(SAFE).key == SAFE.key
    for run in (PENALTY, VALUES, WORDS, WRAPPED):
        assert before(run).key != run.key
        assert revisions.outdated(before(run))
    assert not any(revisions.outdated(run) for run in (SAFE, PENALTY, VALUES, WORDS, WRAPPED))
    assert revisions.outdated(before(PENALTY)) == ("SMART's targets were not detached",)
    plain = one_run("method=robust_partial", "method.penalty=none", "task=mrpc")
    assert (plain.method.revision, before(plain).key) == (1, plain.key)


def test_noise_between_blanks_concerns_models_that_see_them():
    """Tokenizers of BERT take all white space for one blank; generated texts have no more."""

    def loss(model, task, *more):
        return one_run(f"model={model}", f"task={task}", "augmentation=noise", *more).loss_revision

    assert loss("minilm", "sst2") == loss("roberta_base", "synthetic_opinion") == 1
    assert loss("roberta_base", "sst2") == 2
    none = [f"augmentation.kinds.{kind}=null" for kind in ("order", "dropout", "punctuation")]
    assert loss("roberta_base", "sst2", *none) == 1


def test_old_records_are_not_pooled_with_new_ones(tmp_path):
    for run in (PENALTY, VALUES, WRAPPED):
        old, new = (record(replace(one, seed=0)) for one in (before(run), run))
        rows, split = grouping.of_records([old, new])
        assert [len(members) for members in rows.values()] == [1, 1]
        assert any("revision" in name for name in split)
    results = ResultsFolder(tmp_path)
    for run in (before(VALUES), VALUES):
        results.save(record(run), {})
    frame = load_frame(results).read(["alike", "shared", "run.loss_revision"])
    assert sorted(frame["run.loss_revision"]) == [1, 2]
    assert frame["alike"].nunique() == frame["shared"].nunique() == 2


def test_tables_mark_what_is_of_an_older_revision():
    def text(*records: Record) -> str:
        table = scores.scores(list(records))
        return "\n".join([*(" | ".join(line) for line in table.rows), *table.notes])

    assert scores.OUTDATED not in text(record(SAFE), record(PENALTY))
    marked = text(record(SAFE), record(before(PENALTY)), record(PENALTY))
    assert marked.count(f" {scores.OUTDATED}") == 1
    assert "SMART's targets were not detached" in marked


def test_blocks_of_the_library_are_of_a_revision_where_roles_name_the_modules():
    """VeRA's tuner ignored their numbers beside a pattern, and trained all blocks."""
    words = ("method=peft", "method.type=VERA")
    some = "method.config.layers_to_transform=[1]"
    found = [
        one_run(*words, *more).method.revision
        for more in ((), (some,), (some, "method.config.target_modules=[query]"))
    ]
    assert found == [1, 2, 1]
