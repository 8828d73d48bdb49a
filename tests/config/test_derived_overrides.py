"""Overrides derived from a run give that run again."""

from dataclasses import replace

import own_configs
import pytest

from peftbench.config import catalog
from peftbench.config.derived_overrides import (
    as_arguments,
    evaluation_overrides,
    file_at_hand,
    overrides_with_file,
    run_overrides,
)
from peftbench.config.override_parsing import OverrideParser, override_value
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError


@pytest.mark.parametrize(
    "words",
    [
        "method=lora method.rank=4 budget=seconds budget.seconds=60 "
        "checkpoint_selection=best_on_holdout",
        "method=sparse_adapter method.base_method=lora method.keep=0.4 train.lr=3e-5",
        "method=lora seed=1 seed.order=3 seed.head=0",
        "method=bitfit method.target_modules=[query,ffn_in] size=0.5 prompt=words model=bert_base",
    ],
)
def test_overrides_of_a_run_give_it_again(words):
    (run,) = plan(*words.split(), "task=mrpc").runs
    assert plan(*as_arguments(run_overrides(run))).runs == [run]
    with pytest.raises(ConfigError, match="do not give it"):
        run_overrides(replace(run, protocol=2))


@pytest.mark.parametrize(
    ("model", "template"),
    [("bert_base", "{0} {answer}, it's: {1}"), ("smollm2_135m", "{0}, {1}\n= {answer}")],
)
def test_overrides_of_a_run_with_words_of_its_own_give_it_again(model, template):
    kind = "masked" if model == "bert_base" else "causal"
    words = [f"prompt.{kind}={override_value(template)}", "prompt.verbalizer=['no, not',null_]"]
    (run,) = plan(f"model={model}", "prompt=words", *words, "task=mrpc").runs
    assert (run.prompt.template, run.prompt.verbalizer) == (template, ["no, not", "null_"])
    assert plan(*as_arguments(run_overrides(run))).runs == [run]


@pytest.mark.parametrize(
    "words",
    [
        ["task.texts=[text]", "method=lora", "method.rank=4", "size=48"],
        ["task.texts=[text]", "task.folds=4", "task.fold=1", "task.group=customer"],
        ["task.texts=[text,customer]", "task.validation_fraction=0.3", "task.name='my tickets'"],
        ["task.texts=[text]", "task.label=number", "task.kind=regression", "task.range=[0,99]"],
        ["task.texts=[text]", "task.label=number", "task.classes=90", "size=0.5"],
        ["task.texts=[text]", "task.label=number", "task.kind=generation", "model=smollm2_135m"],
    ],
)
def test_overrides_of_a_run_of_a_users_own_file_give_it_again(tmp_path, words):
    """Also where the file has moved, with its new path for FILE."""
    path = tmp_path / "tickets.csv"
    rows = [f"c{n // 9},text {n} of many words,{n % 90},{'ab'[n % 2]}" for n in range(270)]
    path.write_text("\n".join(["customer,text,number,label", *rows, ""]))
    (run,) = plan("task=file", f"task.path='{path}'", *words).runs
    assert file_at_hand(run)
    assert plan(*as_arguments(run_overrides(run))).runs == [run]
    moved = path.rename(tmp_path / "others.csv")
    assert not file_at_hand(run)
    with pytest.raises(ConfigError, match="no such file"):
        run_overrides(run)
    found = overrides_with_file(run)
    assert found["task.path"] == "FILE"
    assert plan(*as_arguments(found | {"task.path": f"'{moved}'"})).runs == [run]


def test_overrides_of_an_evaluation_give_it_again():
    (asked,) = plan("task=mrpc", "suite=noise", "suite.kinds.order=null").evaluations
    assert plan(*as_arguments(evaluation_overrides(asked))).evaluations == [asked]


@pytest.mark.parametrize(
    ("words", "hosts"),
    [
        (["method=wrapped"], {}),
        (
            ["method=wrapped", "method.base_method=ia3", "method.samples=5"],
            {"method.base_method": "ia3"},
        ),
        (["method=open", "method.base_method=bitfit"], {"method.base_method": "bitfit"}),
        (["method=twice"], {}),
        (
            ["method=open", "method.base_method=wrapped", "method.base_method.base_method=ia3"],
            {"method.base_method": "wrapped", "method.base_method.base_method": "ia3"},
        ),
    ],
)
def test_overrides_of_a_users_own_wrapper_give_its_run_again(tmp_path, words, hosts):
    wrappers = {"wrapped": "lora", "open": "???", "twice": "bayes_hybrid"}
    own = own_configs.with_wrappers(tmp_path / "own", wrappers)
    (run,) = plan(*words, "task=mrpc", configs=own).runs
    found = run_overrides(run, own)
    assert {key: value for key, value in found.items() if key.endswith(".base_method")} == hosts
    assert plan(*as_arguments(found), configs=own).runs == [run]
    with pytest.raises(ConfigError, match="unknown method"):
        run_overrides(run)


@pytest.mark.parametrize(
    "value",
    [
        *(
            None,
            True,
            3,
            0.1,
            3e-05,
            1 / 3,
            1e22,
            "",
            "lora",
            "null",
            "True",
            "NaN",
            "inf",
            "7",
            "1e3",
        ),
        *(
            " x",
            "a b",
            "a,b",
            "it's",
            'say "it"',
            "back\\slash",
            "end\\",
            "{0} {answer}",
            "two\nlines",
        ),
        *("é", "*", "range(0,3)", "a:b", "key=value", "-1", "[a]", ["a", "b c", None, "1"]),
        {"qqp": {}, "stsb": {"above": 3.5, "name": "a, b"}},
    ],
)
def test_a_written_value_is_read_again(value):
    parser = OverrideParser(catalog.folders(None))
    key, read = parser.parse(f"method.about={override_value(value)}")
    assert (key, read, list(map(type, read))) == ("method.about", [value], [type(value)])
