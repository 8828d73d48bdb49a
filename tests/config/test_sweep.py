"""Words mean what Hydra's grammar says they mean, and what means nothing is refused at once."""

import hashlib
import itertools
import json
import re
from functools import cache
from typing import Any

import pytest
import yaml
from paths import GOLDEN

from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core import revisions
from peftbench.core.errors import ConfigError
from peftbench.core.revisions import Correction
from peftbench.core.run import Run
from peftbench.data import hub_dataset

PACKAGED = catalog.packaged()

#: What an option needs beside itself.
NEEDS = {
    "auto": ("model.checkpoint=somewhere/bert", "model.family=bert"),
    "file": ("task.path={jsonl}",),
    "hub": ("task.dataset=people/jokes", f"task.revision={40 * 'a'}"),
    "words": ("model=tiny",),  # the default model has no language-model head
    "generate": ("model=smollm2_135m", "task=socialqa"),
    **dict.fromkeys(("socialqa", "xsum"), ("model=smollm2_135m",)),
}

#: What a repository says of a data set; there is no hub here.
DESCRIBED = {
    "source": {"hub": "people/jokes", "revision": 40 * "a", "format": "csv", "files": {}},
    "class_names": ["no", "yes"],
    "examples": {"train": 8, "validation": 8},
}


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text('{"sentence": "a b", "label": "no"}\n{"sentence": "c d", "label": "yes"}\n' * 4)
    return path


@pytest.fixture
def configs(tmp_path):
    """A user's own folder of configurations, empty; its name needs quotes in a shell."""
    folder = tmp_path / "user's own (new) configs"
    for group in (*catalog.GROUPS, "sweep"):
        (folder / group).mkdir(parents=True)
    return folder


def values(planned, key):
    """What each run has under a word's key."""
    found = []
    for run in planned.runs:
        node = run.to_json()
        for part in key.split("."):
            node = node[part]
        found.append(node["name"] if isinstance(node, dict) and "name" in node else node)
    return found


# Hydra's grammar


@pytest.mark.parametrize(
    ("word", "key", "expected"),
    [
        ("seed=range(0,5)", "seed", [0, 1, 2, 3, 4]),
        ("seed=range(0,10,5)", "seed", [0, 5]),
        ("seed=range(0,3),7", "seed", [0, 1, 2, 7]),
        ("seed=choice(3,1)", "seed", [3, 1]),
        ("seed=sort(3,1,2)", "seed", [1, 2, 3]),
        ("method=lora,bitfit", "method", ["lora", "bitfit"]),
        ("method=glob(bit*)", "method", ["bitfit"]),
        ("method.rank=4,8", "method.rank", [4, 8]),
        (
            "method.target_modules=[query],[query,value]",
            "method.target_modules",
            [["query"], ["query", "value"]],
        ),
        ("train.lr=1e-4,1e-3", "train.lr", [1e-4, 1e-3]),
        ("train.max_grad_norm=null,0.5", "train.max_grad_norm", [None, 0.5]),
        ("budget.epochs=0.5,3", "budget.epochs", [0.5, 3]),
        ("size=100,0.3,full", "size", [100, 0.3, "full"]),
        ("size='full'", "size", ["full"]),
        ("train.lr=${method.rank}", "train.lr", [8]),
    ],
)
def test_a_word_has_the_values_that_hydra_gives_it(word, key, expected):
    assert values(plan(word), key) == expected


def test_all_axes_are_crossed_in_the_order_of_the_words():
    planned = plan("method=lora,bitfit", "seed=0,1", "size=100,300")
    cells = zip(*(values(planned, key) for key in ("method", "seed", "size")), strict=True)
    assert list(cells) == list(itertools.product(["lora", "bitfit"], [0, 1], [100, 300]))
    assert planned.axes == ["method", "seed", "size"]
    assert planned.cells == 8
    assert planned.repeats == []


def test_no_words_are_one_run():
    planned = plan()
    assert (planned.cells, len(planned.runs), planned.axes) == (1, 1, [])


def test_a_method_brings_its_own_recipe_and_a_word_outranks_it():
    assert len(set(values(plan("method=lora,bitfit"), "train.lr"))) == 2
    assert set(values(plan("method=lora,bitfit", "train.lr=3e-5"), "train.lr")) == {3e-5}
    assert plan("model=tiny", "method.recipe.lr=3").runs == plan("model=tiny", "train.lr=3").runs


def test_a_model_scales_the_rate_once(configs):
    text = (PACKAGED / "model" / "tiny.yaml").read_text()
    (configs / "model" / "small.yaml").write_text(text.replace("lr_scale: 1", "lr_scale: 3"))
    (once,), (scaled,) = (
        values(plan(f"model={name}", configs=configs), "train.lr") for name in ("tiny", "small")
    )
    assert scaled == pytest.approx(3 * once)
    assert values(plan("model=small", "train.lr=1e-3", configs=configs), "train.lr") == [1e-3]


def test_groups_composed_one_by_one_are_what_hydra_composes_together(configs):
    text = "defaults: [lora, _self_]\nname: child\n"  # a user's defaults may tie groups together
    (configs / "method" / "child.yaml").write_text(text)
    words = ("method=lora,mc_dropout,unipelt", "model=tiny", "task=sst2", "augmentation=noise,none")
    apart, together = plan(*words), plan(*words, configs=configs)
    assert [run.to_json() for run in apart.runs] == [run.to_json() for run in together.runs]
    (child,) = plan("method=child", configs=configs).runs
    assert child.method.hyperparameters == apart.runs[0].method.hyperparameters


def test_an_option_may_choose_that_of_another_group(configs):
    text = "# @package _global_\ndefaults:\n  - override /budget: steps\n"
    text += "checkpoint_selection:\n  fraction: 0.1\n"
    (configs / "checkpoint_selection" / "brief.yaml").write_text(f"{text}  patience: 2\n")
    (run,) = plan("checkpoint_selection=brief", "budget.steps=7", configs=configs).runs
    assert (run.budget.steps, run.budget.epochs) == (7, None)


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*/*.yaml")), ids=lambda path: path.stem)
def test_packaged_options_leave_other_groups_alone(path):
    """The composer relies on it when it composes group by group."""
    data = yaml.safe_load(path.read_text())
    assert "@package" not in path.read_text()
    assert not re.search(r"\$|override", str(data.get("defaults")))


# grid algebra


def test_zipped_axes_move_together():
    planned = plan("zip=size=100,1000 budget.epochs=10,3", "seed=0,1")
    cells = list(zip(*(values(planned, k) for k in ("seed", "size", "budget.epochs")), strict=True))
    assert cells == [(0, 100, 10), (0, 1000, 3), (1, 100, 10), (1, 1000, 3)]


def test_when_gives_axes_to_matching_cells_alone():
    planned = plan("method=lora,bitfit", "when=method=lora: method.rank=2,4 train.lr=1e-3")
    assert values(planned, "method") == ["lora", "lora", "bitfit"]
    assert [run.method.hyperparameters.get("rank") for run in planned.runs] == [2, 4, None]
    assert values(planned, "train.lr")[:2] == [1e-3, 1e-3]


def test_when_matches_what_a_cell_has_by_default():
    planned = plan("method=lora,bitfit", "when=task=synthetic_paraphrase method.rank=8: seed=1,2")
    assert [(run.method.name, run.seed) for run in planned.runs] == [
        ("lora", 1),
        ("lora", 2),
        ("bitfit", 0),
    ]


def test_when_replaces_an_axis_of_the_same_key():
    planned = plan(
        "method=lora,bitfit", "train.lr=1e-3,2e-3", "when=method=lora: train.lr=5e-4,6e-4,7e-4"
    )
    cells = list(zip(*(values(planned, key) for key in ("method", "train.lr")), strict=True))
    assert cells == [
        ("lora", 5e-4),
        ("lora", 6e-4),
        ("lora", 7e-4),
        ("bitfit", 1e-3),
        ("bitfit", 2e-3),
    ]
    assert planned.repeats == []


@pytest.mark.parametrize(
    ("group", "default", "other"),
    [
        ("model", "minilm", "tiny"),
        ("method", "lora", "full"),
        ("task", "synthetic_paraphrase", "synthetic_opinion"),
        ("prompt", "head", "words"),
        ("augmentation", "none", "noise"),
        ("budget", "epochs", "steps"),
        ("train", "default", "no_such"),
        ("checkpoint_selection", "last", "best_on_holdout"),
    ],
)
def test_conditions_see_the_default_option_of_each_group(group, default, other):
    found = plan("seed=0,1", f"when={group}={default}: train.lr=1e-4,2e-4,3e-4").runs
    assert len(found) == 6
    assert len(plan("seed=0,1", f"exclude={group}={default} seed=0").runs) == 1
    if group != "train":  # it has one option
        assert len(plan("seed=0,1", f"exclude={group}={other} seed=0").runs) == 2


def test_exclude_leaves_out_cells_that_match_all_its_words():
    planned = plan("method=lora,bitfit", "size=100,300", "exclude=method=lora size=100")
    assert len(planned.runs) == 3
    planned = plan("method=lora,bitfit", "seed=range(0,4)", "exclude=seed=0,1", "exclude=seed=3")
    assert values(planned, "seed") == [2, 2]
    planned = plan("method=lora,bitfit", "exclude=method.rank=8.0")
    assert values(planned, "method") == ["bitfit"]


def test_two_cells_that_are_one_run_are_reported_and_run_once():
    planned = plan("size=full,1.0,3000,1500,0.5", "seed=1,1")
    assert (planned.cells, len(planned.runs)) == (10, 2)
    assert ("size=0.5 seed=1", "size=1500 seed=1") in planned.repeats
    assert len(planned.repeats) == 8


# sweeps

SWEEP = """
# 2 cells of a test
about: a grid for tests
grid:
  - method=lora,bitfit
  - task=synthetic_paraphrase,synthetic_similarity
  - seed=range(0,2)
zip:
  - size=100,1000 budget.epochs=10,3
when:
  - method=lora: method.rank=2,4
  - 'method=bitfit task=synthetic_similarity: train.lr=1e-3'
exclude:
  - method=lora size=1000
  - seed=1 method.rank=4
"""


def test_a_sweep_is_a_yaml_of_words(configs):
    (configs / "sweep" / "mine.yaml").write_text(SWEEP)
    planned = plan("sweep=mine", configs=configs)
    cells = {
        (run.method.name, run.task.name, run.seed, run.size, run.method.hyperparameters.get("rank"))
        for run in planned.runs
    }
    tasks = ("synthetic_paraphrase", "synthetic_similarity")
    assert cells == {
        *(("lora", task, seed, 100, 2) for task in tasks for seed in (0, 1)),
        *(("lora", task, 0, 100, 4) for task in tasks),
        *(
            ("bitfit", t, seed, size, None)
            for t in tasks
            for seed in (0, 1)
            for size in (100, 1000)
        ),
    }
    assert {run.budget.epochs for run in planned.runs if run.size == 1000} == {3}
    assert {
        run.train.lr
        for run in planned.runs
        if run.method.name == "bitfit" and run.task.name == "synthetic_similarity"
    } == {1e-3}


def test_files_of_ones_own_count_as_they_are_now(configs):
    """In a notebook a file is written after the message that it is not there."""
    with pytest.raises(ConfigError, match="unknown sweep"):
        plan("sweep=mine", configs=configs)
    (configs / "sweep" / "mine.yaml").write_text("grid: [seed=0-2, model=tiny, method=mine]\n")
    with pytest.raises(ConfigError, match="unknown method"):
        plan("sweep=mine", configs=configs)
    (configs / "method").mkdir(exist_ok=True)
    mine = configs / "method" / "mine.yaml"
    mine.write_text("defaults: [bitfit]\nname: mine\nabout: ours\n")
    assert len(plan("sweep=mine", configs=configs).runs) == 3
    assert "alpha" not in catalog.keys(mine)
    mine.write_text(mine.read_text().replace("bitfit", "lora") + "alpha: 4\n")
    assert plan("sweep=mine", configs=configs).runs[0].method.hyperparameters["alpha"] == 4
    assert "alpha" in catalog.keys(mine)
    mine.unlink()
    with pytest.raises(ConfigError, match="unknown method"):
        plan("sweep=mine", configs=configs)


def test_words_beside_a_sweep_replace_its_axes(configs):
    (configs / "sweep" / "mine.yaml").write_text(SWEEP)
    planned = plan("sweep=mine", "seed=7", "method.rank=16", "method=lora", configs=configs)
    assert {run.seed for run in planned.runs} == {7}
    assert {run.method.hyperparameters["rank"] for run in planned.runs} == {16}
    # a later key of a zip is replaced, the other axis stays
    planned = plan("sweep=mine", "budget.epochs=2", "method=bitfit", "seed=0", configs=configs)
    assert {(run.size, run.budget.epochs) for run in planned.runs} == {(100, 2), (1000, 2)}
    # and whole new algebra comes on top
    planned = plan("sweep=mine", "exclude=method=lora", "model=tiny", configs=configs)
    assert {run.method.name for run in planned.runs} == {"bitfit"}


def test_the_first_key_of_a_zip_picks_its_rows(configs):
    """method=full must not train at the rates that the sweep has for the other methods."""
    (configs / "sweep" / "mine.yaml").write_text(
        "zip:\n  - method=full,lora,lora train.lr=1e-5,1e-3,2e-3\n"
        "  - size=64,100 budget.epochs=4,3\n"
    )

    def made(*words: str) -> set[tuple[Any, ...]]:
        planned = plan("sweep=mine", "model=tiny", *words, configs=configs)
        assert not planned.repeats
        return {(r.method.name, r.train.lr, r.size, r.budget.epochs) for r in planned.runs}

    assert made("method=full", "size=100") == {("full", 1e-5, 100, 3)}
    assert made("method=lora", "size=64") == {("lora", 1e-3, 64, 4), ("lora", 2e-3, 64, 4)}
    assert made("method=full,lora", "size=64,100") == made()
    assert made("method=full", "train.lr=5e-4", "size=64") == {("full", 5e-4, 64, 4)}
    # with the others given, or chosen, the rows have nothing left to say
    assert made("method=bitfit", "train.lr=5e-4", "size=64") == {("bitfit", 5e-4, 64, 4)}
    with pytest.raises(ConfigError, match=r"size=50: the sweep sets budget.epochs together with"):
        made("size=50")
    with pytest.raises(
        ConfigError, match=r"for method=full; method=lora; give your own as well: train"
    ):
        made("method=bitfit")
    with pytest.raises(ConfigError, match=r"a zip of size: the sweep sets budget\.epochs"):
        made("zip=size=64,100 seed=0,1")


def test_a_key_that_picks_rows_replaces_the_conditional_values_too(configs):
    (configs / "sweep" / "mine.yaml").write_text(
        "zip:\n  - size=64,100 budget.epochs=4,3\nwhen:\n  - 'method=lora: size=32 train.lr=1e-3'\n"
    )
    words = ("sweep=mine", "model=tiny", "method=lora", "size=100")
    (run,) = plan(*words, configs=configs).runs
    assert (run.size, run.budget.epochs, run.train.lr) == (100, 3, 1e-3)


def test_a_size_picks_rows_too_where_the_task_is_the_first_key():
    """size=100 must not train with the epochs of all sizes."""

    def made(*words: str) -> set[tuple[Any, ...]]:
        runs = plan("sweep=quickstart", "method=full", *words).runs
        return {
            (run.task.name.removeprefix("synthetic_"), run.size, run.budget.epochs) for run in runs
        }

    assert made() == {("opinion", 100, 6), ("opinion", 200, 4), ("similarity", 500, 3)}
    assert made("size=100") == {("opinion", 100, 6)}
    assert made("size=100,500") == {("opinion", 100, 6), ("similarity", 500, 3)}
    assert made("task=synthetic_opinion", "size=200") == {("opinion", 200, 4)}
    assert made("task=synthetic_opinion", "size=64", "budget.epochs=1") == {("opinion", 64, 1)}
    with pytest.raises(ConfigError, match=r"size=64: the sweep sets task, budget\.epochs together"):
        made("size=64")
    # no task is left out in silence
    for tasks in ("synthetic_similarity", "synthetic_opinion,synthetic_similarity"):
        with pytest.raises(
            ConfigError, match=r"task=synthetic_similarity size=100: the sweep sets"
        ):
            made(f"task={tasks}", "size=100")


def test_several_sweeps_are_united(configs):
    for name, methods in (("a", "lora,bitfit"), ("b", "bitfit,head")):
        (configs / "sweep" / f"{name}.yaml").write_text(f"grid: [method={methods.split(',')[0]}]")
        (configs / "sweep" / f"{name}.yaml").write_text(f"grid:\n  - method={methods}\n")
    planned = plan("sweep=a,b", "seed=0,1", configs=configs)
    assert (planned.cells, len(planned.runs), len(planned.repeats)) == (8, 6, 2)
    assert planned.runs == plan("sweep=a", "sweep=b", "seed=0,1", configs=configs).runs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("grid: [1\n b: }", "is not a yaml file"),
        ("- method=lora", "holds no grid, zip, when, exclude"),
        ("grid: method=lora", "grid must be a list of words"),
        ("grid:", "grid must be a list of words"),
        ("gird:\n  - method=lora", "did you mean grid"),
        ("grid:\n  - 3", "cannot read the override '3'"),
        ("grid:\n  - method=lorra", "did you mean lora"),
        ("exclude:\n  - method=lora", "exclude= removes all grid points"),
        ("grid:\n  - method: [lora, full]", "mine.yaml: grid holds words, one in a line"),
        ("grid:\n  - method: [lora, full]", "write\n  - method=lora,full"),
        ("when:\n  - {method=lora: seed=1, method=full: seed=2}", "  - 'method=full: seed=2'"),
    ],
)
def test_a_broken_sweep_is_refused(configs, text, message):
    (configs / "sweep" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan("sweep=mine", configs=configs)


# bad words

BAD = {
    # no word at all
    "lora": "cannot read the override 'lora': write method=lora",
    "method": "write method=NAME, see `peftbench list methods`",
    "=lora": "unknown key",
    "+method.rank=4": "without +, ~ or @",
    "++method.rank=4": "without +, ~ or @",
    "~method": "without +, ~ or @",
    "method@here=lora": "without +, ~ or @",
    "task.path=(a).csv": "quotes around a value",
    # keys
    "methd=lora": "did you mean method?",
    "method.rnak=4": "lora has no method.rnak; did you mean method.rank",
    "augmentation.probability=0.3": "write augmentation=noise augmentation.probability=0.3",
    "checkpoint_selection.patience=3": (
        "patience=3 needs checkpoint_selection=best_on_holdout; write checkpoint_selection=best_on"
    ),
    "prompt.verbalizer=[a,b]": "needs prompt=words; write prompt=words 'prompt.verbalizer=[a,b]'",
    "task.path=x.csv": "task.path=x.csv needs task=file; write task=file task.path=x.csv",
    "budget.stepz=3": "unknown key budget.stepz; did you mean budget.steps?",
    "method.width=3": "method=lora has no method.width, which is a key of method=adapter,parallel",
    "trian.lr=1": "unknown key trian.lr; did you mean train.lr?",
    "wieght_decay=1": "did you mean train.weight_decay or method.layer_decay?",
    "patience=3": "did you mean checkpoint_selection.patience?",
    "keep=0.3": "did you mean method.keep?",
    "prompt.num_demonstration=3": "did you mean prompt.num_demonstrations?",
    "train.wieght_decay=1": "did you mean train.weight_decay?",
    "budget.steps=5": "needs budget=steps; write budget=steps budget.steps=5",
    "protocol=2": "unknown key protocol",
    "hydra.run.dir=/tmp": "unknown key hydra.run.dir",
    "data.rot=x": "did you mean data.root?",
    "method.rank.deep=1": "no method.rank.deep",
    # options
    "method=lorra": "did you mean lora or adalora?",
    "method=": "allowed: adalora, adapter, bayes_hybrid",
    "method=null": "unknown method",
    "model=_bert": "unknown model",
    "model=../method/lora": "unknown model",
    "task=mrcp": "did you mean mrpc",
    "budget=minutes": "allowed: epochs, seconds, steps",
    "sweep=nothing_like_it": "unknown sweep",
    # wrong types
    "train.lr=abc": "train.lr must be a number, got 'abc'",
    "budget.epochs=many": "budget.epochs must be a number or null, got 'many'",
    "task.splits.validation=[a]": "task.splits.validation must be a text, got ['a']",
    "method.rank=abc": "method.rank must be a number (default 8), got 'abc'",
    "method.rank=true": "method.rank must be a number (default 8), got True",
    "method.target_modules=query": "method.target_modules must be a list (default ",
    "method={name:lora}": "unknown method",
    "data=3": "data=3: Invalid type assigned: int",
    "seed=a": "seed must be a whole number",
    "seeds=abc": "such as seeds=3-7",
    "seeds=3,5": "for these seeds write seed=3,5",
    "seed=1.0": "seed must be a whole number",
    "seed=-1": "seed must be a whole number",
    "seed=true": "seed must be a whole number",
    "seed=interval(1,3)": "INTERVAL",
    # bad sizes
    "size=0": "a count of examples, a fraction",
    "size=-3": "a count of examples, a fraction",
    "size=1.5": "a count of examples, a fraction",
    "size=0.0": "a count of examples, a fraction",
    "size=half": "or full, got 'half'",
    "size=true": "or full, got True",
    "size=3001": "synthetic_paraphrase has 3000 training examples",
    # bad values of the recipe, the budget, the selection
    "train.lr=0": "train.lr must be a number greater than 0",
    "train.lr=nan": "not a finite number",
    "train.lr=1e400": "not a finite number",
    "method.alpha=inf": "not a finite number",
    "method.target_modules=[query,nan]": "not a finite number",
    "train.batch_size=0": "train.batch_size must be a whole number of at least 1, got 0",
    "train.batch_size=8,16.5": "train.batch_size must be a whole number, got 16.5",
    "train.warmup_steps=-1": "train.warmup_steps must be a number of at least 0",
    "train.warmup_steps=1.5": "train.warmup_steps is a whole number of steps, or below 1 a share",
    "train.precision=int8": "one of auto, bf16, fp16, fp32",
    "train.lr_scheduler_type=cosine": "one of linear, constant",
    "train.max_length=2": "at least 8",
    "train.num_evals=0": "train.num_evals",
    "budget.epochs=0": "greater than 0",
    "task.metrics=[accuracy,bleu]": "bleu is no metric of classification; choose from accuracy, ",
    "task.kind=ranking": "task.kind must be one of",
    "model.family=bart": "did you mean bert",
    # algebra
    "zip=size=100,300 seed=1": "of one length",
    "zip=": "hold words",
    "zip=size='1": "cannot split",
    "when=method=lora": "condition: words",
    "when=method=lora:": "hold words",
    "when=: seed=1": "hold words",
    "when=method=lorra: seed=1": "did you mean lora",
    "exclude=methd=lora": "did you mean method?",
    "exclude=method=lora": "exclude= removes all grid points",
    "exclude=train.lr=nan": "not a finite number",
    # options that need more
    "task=file": "needs task.path=FILE",
    "task=hub": "needs task.dataset=ORG/NAME",
    "model=auto": "model=auto: missing checkpoint; give model.checkpoint=VALUE",
}


@pytest.mark.parametrize("word", BAD)
def test_a_bad_word_is_refused_with_what_is_allowed(word):
    with pytest.raises(ConfigError, match=re.escape(BAD[word])):
        plan(word)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("seed=1", "seed=2"), "seed is given twice; write seed=a,b"),
        (("zip=size=100,300 seed=1,2", "seed=5"), "seed is given twice"),
        (("zip=size=100,300 seed=1,2", "zip=seed=1,2"), "seed is given twice"),
        (("zip=size=10,20 size=30,40 seed=1,2",), "size is given twice; write size=a,b"),
        (("when=method=lora: train.lr=1e-4 train.lr=1e-3",), "train.lr is given twice"),
        (("method=lora,full", "exclude=method.rnak=8"), "did you mean method.rank"),
        (("exclude=budget.epohs=3",), "no budget has a key budget.epohs; did you mean"),
        (("when=train.btach_size=8: train.lr=1e-4",), "did you mean train.batch_size"),
        (("task=reviews.csv",), "write task=file task.path=reviews.csv"),
        (("task.splits.validation=train",), "task.splits.validation=train is task.splits.train"),
        (("suite=noise", "suite.examples=2.5"), "a whole number of at least 2, got 2.5"),
        (("suite=noise", "suite.seed=-1"), "suite.seed must be a whole number of at least 0"),
        (("suite=calibration", "suite.examples=60.5"), "a whole number of at least 50, got 60.5"),
        (("suite=calibration", "suite.levels=[]"), "suite.levels holds numbers between 0 and 1"),
        (("budget=steps", "budget.epochs=3"), "needs budget=epochs"),
        (("budget=steps", "budget.steps=-1"), "budget.steps must be a whole number"),
        (
            ("checkpoint_selection=best_on_holdout", "checkpoint_selection.fraction=0.7"),
            "from 0 to 0.5",
        ),
        (("checkpoint_selection=best_on_holdout", "checkpoint_selection.patience=0"), "at least 1"),
        (("method=lora,bitfit", "method.rank=4"), "bitfit has no method.rank"),
        (("data.root=a,b",), "data.root is one folder"),
        (("task=file", "task.path=nowhere.csv"), "task.path=nowhere.csv: no such file"),
        (("model=auto", "model.checkpoint=./nowhere"), "config.json and safetensors"),
        (("task=mrpc,wnli", "size=1000"), "wnli has 635 training examples"),
    ],
)
def test_bad_words_together_are_refused(words, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan(*words)


# a user's own configurations


def mine(configs, text):
    (configs / "method" / "mine.yaml").write_text(text)
    return plan("method=mine", configs=configs)


LORA = (PACKAGED / "method" / "lora.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1\n b: }", "mine.yaml is not a yaml file"),
        (LORA + "rank: 9\n", "duplicate key rank"),
        ("", "method=mine: "),
        ("- 1\n", "method=mine: "),
        (LORA.replace("name: lora\n", ""), "missing name"),
        (LORA.replace("name: lora\n", "name: 3\n"), "must be a word, got 3"),
        (re.sub("_target_.*\n", "", LORA), "missing _target_"),
        (
            LORA.replace("  lr: 4e-4\n", ""),
            "method=mine: train.lr: Interpolation key 'method.recipe.lr'",
        ),
        (LORA.replace("rank: 8", "rank: ???"), "method=lora: missing rank; give method.rank=VALUE"),
        (LORA.replace("rank: 8", "rank: ${nowhere}"), "'nowhere' not found"),
    ],
)
def test_a_broken_config_is_refused_and_named(configs, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        mine(configs, text)


MRPC = (PACKAGED / "task" / "mrpc.yaml").read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            MRPC + "lables: label\n",
            "In 'task/mine': Key 'lables' not in 'TaskConfig'; did you mean",
        ),
        (
            MRPC.replace("classes: 2", "classes: two"),
            "In 'task/mine': task.classes must be a whole number or null, got 'two'",
        ),
        (MRPC.replace("texts: [sentence1", "texts: [{a: 1}"), "task.texts names one or two"),
        (MRPC.replace("metrics: [accuracy, f1]\n", ""), "task=mrpc: missing metrics"),
    ],
)
def test_a_file_with_an_unknown_key_or_a_wrong_type_is_refused_and_named(configs, text, message):
    (configs / "task" / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(message)):
        plan("task=mine", configs=configs)


def test_a_training_config_without_a_batch_size_is_refused(configs):
    text = (PACKAGED / "train" / "default.yaml").read_text()
    (configs / "train" / "mine.yaml").write_text(re.sub("^batch_size:.*\n", "", text, flags=re.M))
    with pytest.raises(
        ConfigError, match=r"missing train\.batch_size; give train\.batch_size=VALUE"
    ):
        plan("train=mine", configs=configs)


def test_a_users_own_configs_come_first_and_the_packaged_ones_stay(configs, monkeypatch, tmp_path):
    (configs / "method" / "lora.yaml").write_text(LORA.replace("rank: 8", "rank: 3"))
    (configs / "method" / "mine.yaml").write_text(LORA.replace("lora\n", "mine\n", 1))
    planned = plan("method=lora,mine,bitfit", configs=configs)
    assert values(planned, "method") == ["lora", "mine", "bitfit"]
    assert planned.runs[0].method.hyperparameters["rank"] == 3
    assert plan("method=lora").runs[0].method.hyperparameters["rank"] == 8
    # without --configs, a folder of that name is looked for in the current one
    configs.rename(tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    assert plan("method=lora").runs[0].method.hyperparameters["rank"] == 3
    other = tmp_path / "other"
    other.mkdir()
    assert plan("method=lora", configs=other).runs[0].method.hyperparameters["rank"] == 8
    with pytest.raises(ConfigError, match="--configs nowhere: no such folder"):
        plan("method=lora", configs="nowhere")


def test_a_name_of_peftbenchs_own_identifies_only_its_own_class(configs):
    """Another class, or another name, also says which class it is: by name, for code may move."""
    bitfit = "peftbench.methods.bitfit.BitFit"
    lora = "peftbench.methods.lora.LoRA"
    (configs / "method" / "mine.yaml").write_text(LORA.replace("name: lora", "name: mine"))
    (configs / "method" / "lora.yaml").write_text(LORA.replace(lora, bitfit))
    (configs / "method" / "theirs.yaml").write_text(LORA.replace(lora, "elsewhere.LoRA"))
    own, mine, other, theirs = (
        plan(f"method={name}", configs=folder).runs[0].method
        for name, folder in (
            ("lora", None),
            ("mine", configs),
            ("lora", configs),
            ("theirs", configs),
        )
    )
    assert own.implementation is None
    assert mine.implementation == "LoRA"
    assert other.implementation == "BitFit"
    assert theirs.implementation == "elsewhere.LoRA"


def test_a_revision_is_part_of_the_keys_that_it_concerns(monkeypatch):
    overrides = ("method=lora,bitfit,mc_dropout", "task=mrpc,stsb", "suite=noise,calibration")

    def keys() -> dict[tuple[str, ...], str]:
        found = plan(*overrides)
        runs = {(run.method.name, run.task.name): run.key for run in found.runs}
        return runs | {
            (e.run.method.name, e.run.task.name, e.suite["name"]): e.key for e in found.evaluations
        }

    before = keys()

    def changed() -> set[tuple[str, ...]]:
        return {name for name, key in keys().items() if key != before[name]}

    def correct(known: dict[str, tuple[Correction, ...]], name: str, *concerns: Any) -> None:
        more = (*known.get(name, ()), Correction("something", *concerns))
        monkeypatch.setitem(known, name, more)

    correct(revisions.METHODS, "LoRA")
    assert {name[0] for name in changed()} == {"lora", "mc_dropout"}  # LoRA is inside the other
    monkeypatch.undo()
    correct(revisions.METHODS, "LoRA", lambda node: node["rank"] > 8)
    assert changed() == set()
    assert plan("method=lora", "method.rank=9").runs[0].method.revision == 2
    monkeypatch.undo()
    correct(revisions.LOSSES, "regression")
    assert {name[1] for name in changed()} == {"stsb"}
    monkeypatch.undo()
    correct(revisions.SUITES, "Noise")
    assert {name[2:] for name in changed()} == {("noise",)}
    monkeypatch.undo()
    correct(revisions.SUITES, "Noise", lambda node, run: run.task.name == "mrpc")
    assert {name[1:] for name in changed()} == {("mrpc", "noise")}
    monkeypatch.undo()
    assert changed() == set()


@pytest.mark.parametrize("name", ["with a space", "with,a comma", "it's (quoted) [too]", 'a"b'])
def test_any_path_can_be_written_in_quotes(jsonl, name):
    path = jsonl.rename(jsonl.with_name(f"{name}.jsonl"))
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    (run,) = plan("task=file", f"task.path='{escaped}'").runs
    assert run.task.path == str(path)
    assert run.task.name == name
    (again,) = plan("task=file", f"task.path='{escaped}'", "size=2").runs
    assert again.task == run.task


def test_a_space_needs_no_quotes(jsonl):
    path = jsonl.rename(jsonl.with_name("my file.jsonl"))
    assert plan("task=file", f"task.path={path}").runs[0].task.path == str(path)


def test_a_files_run_is_known_by_content_not_by_place(jsonl, tmp_path):
    (run,) = plan("task=file", f"task.path={jsonl}").runs
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    moved = jsonl.rename(elsewhere / jsonl.name)
    (again,) = plan("task=file", f"task.path={moved}").runs
    assert again == run
    moved.write_text(moved.read_text() + '{"sentence": "e f", "label": "no"}\n')
    (edited,) = plan("task=file", f"task.path={moved}").runs
    assert edited != run


def test_where_data_lie_is_no_part_of_a_run(monkeypatch):
    here = plan("task=mrpc", "data.root=/somewhere")
    assert here.data_root == "/somewhere"
    monkeypatch.setenv("PEFTBENCH_DATA", "/elsewhere")
    there = plan("task=mrpc")
    assert there.data_root == "/elsewhere"
    assert here.runs == there.runs


# everything that is packaged

OPTIONS = [
    (group, name) for group in catalog.GROUPS for name in catalog.options(group, (PACKAGED,))
]


@pytest.mark.parametrize(("group", "name"), OPTIONS, ids=lambda part: part)
def test_every_option_composes_and_is_named_like_its_file(group, name, jsonl, monkeypatch):
    monkeypatch.setattr(hub_dataset, "describe", lambda task, classes: DESCRIBED)
    needs = [word.format(jsonl=jsonl) for word in NEEDS.get(name, ())]
    (run,) = plan(f"{group}={name}", *needs).runs
    node = getattr(run, group)
    if node is None:
        assert catalog.LATER[group] == name
    elif name not in NEEDS:
        assert getattr(node, "name", name) == name
    path = catalog.options(group, (PACKAGED,))[name]
    assert len(catalog.about(path)) > 10, f"{path} does not say what it is for"


@pytest.mark.parametrize("name", catalog.options("sweep", (PACKAGED,)))
def test_every_sweep_plans_and_says_what_it_costs(name):
    planned = plan(f"sweep={name}")
    assert planned.runs
    assert planned.repeats == []
    first = (PACKAGED / "sweep" / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert f"{len(planned.runs):,} run" in first
    stored = json.loads((GOLDEN / "sweep_keys.json").read_text())[name]
    for kind, planned_keys in (("runs", planned.runs), ("evaluations", planned.evaluations)):
        keys = " ".join(one.key for one in planned_keys)
        assert len(planned_keys) == stored[kind]["count"]
        assert hashlib.sha256(keys.encode()).hexdigest() == stored[kind]["sha256"]


#: Counts in first lines of sweeps of the runs that other sweeps have, too.
SHARED = {
    name: found
    for name, path in catalog.options("sweep", (PACKAGED,)).items()
    if (found := re.search(r"\((\d+) of them in (\w+)(?: or (\w+))?\)", path.read_text()))
}


@cache
def run_keys(sweep):
    return frozenset(run.key for run in plan(f"sweep={sweep}").runs)


@pytest.mark.parametrize("name", SHARED)
def test_a_sweep_says_how_many_of_its_runs_another_one_has(name):
    count, *others = SHARED[name].groups()
    elsewhere = frozenset().union(*(run_keys(other) for other in others if other))
    assert len(run_keys(name) & elsewhere) == int(count)


def test_no_round_of_the_paper_has_less_than_a_pass():
    (chunks,) = {tuple(e.suite["chunks"]) for e in _rounds("bh_peft2025_paper")}
    (steps,) = {e.run.budget.steps for e in _rounds("bh_peft2025_paper")}
    assert chunks == tuple(10 * 2**n for n in range(10))
    assert steps == 2 * chunks[-1] // 16  # two passes over the last one, as the header says


def _rounds(sweep):
    return [e for e in plan(f"sweep={sweep}").evaluations if e.kind == "Continual"]


def test_a_thousand_runs_are_planned():
    planned = plan("method=glob(*)", "task=mrpc,cola", "seed=range(0,100)", "exclude=method=head")
    assert len(planned.runs) == planned.cells >= 1000
    assert len({run.key for run in planned.runs}) == len(planned.runs)


def test_a_host_is_a_value_and_brings_its_rate():
    words = ("method=sparse_adapter", "model=bert_base", "method.base_method=adapter,lora")
    first, second = plan(*words).runs
    assert [run.method.base_method.name for run in (first, second)] == ["adapter", "lora"]
    assert [run.train.lr for run in (first, second)] == [3e-4, 4e-4]
    assert all("recipe" not in run.method.base_method.hyperparameters for run in (first, second))
    (wide,) = plan(*words[:2], "method.base_method=lora", "method.base_method.rank=32").runs
    assert wide.method.base_method.hyperparameters["rank"] == 32


@pytest.mark.parametrize("words", [(), ("method=lora",)])
def test_a_base_method_needs_a_method_around_it(words):
    with pytest.raises(ConfigError, match=r"base_method=adapter: this method takes no other one"):
        plan(*words, "method.base_method=adapter")


def test_when_matches_a_host():
    words = ("method=sparse_adapter", "method.base_method=adapter,lora")
    found = plan(*words, "when=method.base_method=lora: method.base_method.rank=4,8").runs
    assert [run.method.base_method.hyperparameters.get("rank") for run in found] == [None, 4, 8]


def test_arguments_of_another_library_are_open():
    (run,) = plan("method=peft", "method.type=VERA", "method.config.r=64").runs
    assert run.method.hyperparameters["config"] == {"r": 64}
    with pytest.raises(ConfigError, match=r"lora has no method\.config"):
        plan("method=lora", "method.config.r=64")


# seeds of single roles


def test_the_seed_of_one_role_is_that_of_the_run_with_this_seed():
    (zero,), (three,) = (plan("method=lora", f"seed={seed}").runs for seed in (0, 3))
    (run,) = plan("method=lora", "seed=0", "seed.order=3").runs
    assert run.seeds() == zero.seeds() | {"order": three.seeds()["order"]}
    assert run.key not in (zero.key, three.key)
    assert "seed 0, order 3" in run.title
    (same,) = plan("method=lora", "seed=3", "seed.order=3").runs
    assert same.key == three.key  # one computation has one key
    assert "role_seeds" not in three.to_json()
    assert Run.from_json(run.to_json()) == run
    assert Run.from_json(run.to_json()).seeds() == run.seeds()


def test_seeds_of_roles_sweep_and_are_conditions():
    planned = plan("method=lora", "seed.order=0,1,2", "seed.head=0,1")
    assert len(planned.runs) == 6
    assert {run.seed_of("order") for run in planned.runs} == {0, 1, 2}
    left = plan("method=lora", "seed.order=0,1,2", "seed.head=0,1", "exclude=seed.order=1")
    assert [run.seed_of("order") for run in left.runs] == [0, 0, 2, 2]
    by_default = plan("method=lora", "seed=0,1", "exclude=seed.order=1").runs
    assert [run.seed for run in by_default] == [0]


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed.ordr=3", "did you mean seed.order"),
        ("seed.order=-1", "seed.order must be a whole number of at least 0, got -1"),
        ("seed.order=a", "seed.order must be a whole number"),
    ],
)
def test_seeds_of_what_is_no_role_are_refused(word, message):
    with pytest.raises(ConfigError, match=message):
        plan("method=lora", word)
