"""Choices as files, and which one is meant by a run."""

from dataclasses import replace

import pytest
from records import plan, runs, tiny

from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.tuning import Choice, Trial, subject
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.system import io

TRIAL = Trial("0" * 12, 2e-3, 1000, None, 1, 0.8, False, 3.0)


def choice(run, rate):
    return Choice(subject(run), rate, "accuracy", "a test", [TRIAL], None, {"device": "Some CPU"})


def test_a_choice_is_read_as_it_was_written(tmp_path):
    (run,) = runs("method=lora")
    results = ResultsFolder(tmp_path)
    choices.save(results, choice(run, 2e-3))
    (path,) = (tmp_path / "choices").iterdir()
    assert path.name == f"lora-synthetic_paraphrase-tiny-32-{subject(run).key}.json"
    assert choices.all_choices(results) == [choices.find(results, subject(run).key)]
    found = choices.find(results, subject(run).key)
    assert (found.run, found.trials, found.rate) == (subject(run), [TRIAL], 2e-3)
    assert choices.find(results, "0" * 12) is None
    path.write_text(path.read_text().replace("0.002", "0.003"))
    with pytest.raises(RecordError, match=r"was altered: .*; remove it, and `peftbench tune` make"):
        choices.find(results, subject(run).key)
    with pytest.raises(RecordError, match="was altered"):
        choices.all_choices(results)
    (bitfit,) = runs("method=bitfit")
    choices.save(results, choice(bitfit, 1e-3))
    good, bad = choices.scan(results)
    assert [one.run.method.name for one in good] == ["bitfit"]
    assert list(bad) == [subject(run).key]


def test_a_choice_of_another_peftbench_is_not_to_be_removed(tmp_path):
    (run,) = runs("method=lora")
    results = ResultsFolder(tmp_path)
    path = results.choices() / f"lora-{subject(run).key}.json"
    results.write(path, io.sealed(choice(run, 2e-3).to_json() | {"more": 1}))
    with pytest.raises(RecordError) as told:
        choices.find(results, subject(run).key)
    assert str(told.value).startswith(f"{path}: a choice of other fields: ")
    assert "remove it" not in str(told.value)


def test_a_cell_has_one_file_however_its_size_is_written(tmp_path):
    (full,) = plan("model=tiny", "method=lora", "task=mrpc", "size=full").runs
    counted = replace(full, size=3668)
    assert subject(full).key == subject(counted).key
    results = ResultsFolder(tmp_path)
    choices.save(results, choice(full, 1e-3))
    (path,) = (tmp_path / "choices").iterdir()
    assert path.name == f"lora-mrpc-tiny-3668-{subject(full).key}.json"
    path.rename(path.with_name(path.name.replace("3668", "full")))  # as it was before
    assert choices.find(results, subject(counted).key).rate == 1e-3
    choices.save(results, choice(counted, 2e-3))
    assert [one.rate for one in choices.all_choices(results)] == [2e-3]


def test_a_name_from_outside_stays_in_the_folder(tmp_path):
    (run,) = runs("method=lora")
    run = replace(run, method=replace(run.method, name="../../out"))
    choices.save(ResultsFolder(tmp_path), choice(run, 2e-3))
    (path,) = (tmp_path / "choices").iterdir()
    assert path.name.startswith(".._.._out-")


def test_long_names_are_cut_and_the_key_tells_them_apart(tmp_path):
    results = ResultsFolder(tmp_path)
    (run,) = runs("method=lora")
    named = [replace(run, task=replace(run.task, name="x" * 230 + end)) for end in "ab"]
    for one, rate in zip(named, (1e-3, 2e-3), strict=True):
        choices.save(results, choice(one, rate))
    names = sorted(path.name for path in (tmp_path / "choices").iterdir())
    assert {len(name) for name in names} == {len(f"lora-{'x' * 40}-tiny-32-{12 * '0'}.json")}
    assert [choices.find(results, subject(one).key).rate for one in named] == [1e-3, 2e-3]


def test_the_cell_itself_comes_first_then_the_nearest_size():
    small, middle, large = runs("method=lora", "size=16,64,256")
    known = [choice(small, 1e-3), choice(large, 4e-3)]
    for run, rate in ((small, 1e-3), (large, 4e-3)):
        assert choices.tuned(run, known)[0].train.lr == rate
    for size, rate in ((48, 1e-3), (80, 4e-3)):  # 3 and 5.3 times; 1.7 and 3.2 times
        assert choices.tuned(replace(middle, size=size), known)[0].train.lr == rate
    (other,) = runs("method=bitfit", "size=16")
    with pytest.raises(ConfigError, match="no learning rate was chosen for bitfit on"):
        choices.tuned(other, known)


def test_of_choices_of_one_size_that_with_most_of_the_settings_is_meant(tmp_path):
    four, sixteen = runs("method=lora", "train.batch_size=4,16", "train.max_length=16")
    known = [choice(four, 1e-3), choice(sixteen, 4e-3)]
    run = replace(sixteen, train=replace(sixteen.train, max_length=32))
    assert [choices.nearest(run, some).rate for some in (known, known[::-1])] == [4e-3, 4e-3]
    choices.save(ResultsFolder(tmp_path), known[1])
    words = tiny("method=lora", "train.batch_size=16", "train.max_length=32", "tuned=true")
    assert [note for note in plan(*words, results=tmp_path).notes if "chosen" in note] == [
        "train.lr=0.004 of lora on synthetic_paraphrase at size 32 was chosen at size 32 with "
        "train.max_length=16"
    ]


def test_a_tuned_run_is_the_run_with_this_rate_typed_by_hand(tmp_path):
    (run,) = runs("method=lora", "size=64")
    choices.save(ResultsFolder(tmp_path), choice(run, 2e-3))
    words = tiny("method=lora", "size=64,128", "seed=0,1")
    tuned = plan(*words, "tuned=true", results=tmp_path)
    assert tuned.runs == plan(*words, "train.lr=2e-3").runs
    assert [note for note in tuned.notes if "chosen" in note] == [
        "train.lr=0.002 of lora on synthetic_paraphrase at size 128 was chosen at size 64"
    ]
    assert plan(*words, "tuned=false", results=tmp_path).runs == plan(*words).runs


def test_what_is_not_trained_needs_no_choice(tmp_path):
    """Otherwise its key would follow a rate that it is not trained at."""
    trained, untrained = runs("method=lora", "budget=steps", "budget.steps=4,0")
    choices.save(ResultsFolder(tmp_path), choice(trained, 2e-3))
    words = tiny("method=lora", "budget=steps", "budget.steps=0", "tuned=true")
    assert plan(*words, results=tmp_path).runs == [untrained]
    assert plan(*words, results=tmp_path / "none").runs == [untrained]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("tuned=true",), "`peftbench tune` with the same overrides chooses one"),
        (("tuned=true", "train.lr=1e-3"), "leave one of the two out"),
        (("tuned=yes",), "tuned must be true or false, got yes"),
    ],
)
def test_what_cannot_be_tuned_is_refused(tmp_path, words, told):
    with pytest.raises(ConfigError, match=told):
        plan(*tiny("method=lora", *words), results=tmp_path)
