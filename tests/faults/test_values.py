"""Values that cannot work are refused at planning, and ranges mean what they say."""

import pytest
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run

# ranges


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("range(0.1,0.4,0.1)", [0.1, 0.2, 0.3]),
        ("range(0.1,0.3,0.1)", [0.1, 0.2]),
        ("range(0.3,0.1,-0.1)", [0.3, 0.2]),
        ("range(1e-5,4e-5,1e-5)", [1e-05, 2e-05, 3e-05]),
        ("range(0.1,0.31,0.1)", [0.1, 0.2, 0.3]),
        ("range(0.1,0.4,0.1),0.9", [0.1, 0.2, 0.3, 0.9]),
    ],
)
def test_a_range_is_decimal_and_ends_before_its_end(word, expected):
    runs = plan("method=full", f"train.weight_decay={word}").runs
    assert [run.train.weight_decay for run in runs] == expected
    listed = plan("method=full", f"train.weight_decay={','.join(map(str, expected))}").runs
    assert [run.key for run in runs] == [run.key for run in listed]


def test_a_range_of_whole_numbers_and_one_without_an_end():
    assert [run.seed for run in plan("seed=range(0,3)").runs] == [0, 1, 2]
    assert [run.size for run in plan("size=range(10,40,10)").runs] == [10, 20, 30]
    assert [run.seed for run in plan("seed=range(3,0,-1)").runs] == [3, 2, 1]
    assert len(plan("seed=shuffle(range(0,5))").runs) == 5
    for word in ("seed=range(0,3,0)", "train.lr=range(0.1,0.3,0)"):
        with pytest.raises(ConfigError, match="a step that is not 0"):
            plan(word)
    with pytest.raises(ConfigError, match="no value is left"):
        plan("train.lr=range(0.4,0.1,0.1)")


# keys that a task of another kind reads


@pytest.fixture(scope="module")
def questions(tmp_path_factory):
    """Words of a task that wants texts, for a model that writes them."""
    path = tmp_path_factory.mktemp("own") / "gen.csv"
    path.write_text("input,target\n" + "".join(f"question {n},answer {n}\n" for n in range(20)))
    words = ("task=file", f"task.path='{path}'", "task.kind=generation")
    return ("model=tiny", "model.family=llama", "method=lora", *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["task.classes=3"],
            r"task\.classes=3 is for task\.kind=classification, and this task has",
        ),
        (["task.range=[0,5]"], r"task\.range=\[0, 5\] is for task\.kind=regression.*=generation"),
        (
            ["prompt=generate", "prompt.verbalizer=[a,b]"],
            r"prompt\.verbalizer=.* needs prompt=words",
        ),
        (["prompt=generate", "prompt.masked='{0} {answer}'"], r"masked=.* needs prompt=words"),
        (["prompt=head"], r"prompt=head answers with classes or a value.*set prompt=generate"),
        (["prompt=words"], r"prompt=words: the answers of gen are texts"),
        (["prompt=generate", "prompt.reserved=16"], r"reserved=16 of 16 training examples of gen"),
    ],
)
def test_a_task_that_wants_texts_refuses_what_it_does_not_read(questions, words, told):
    with pytest.raises(ConfigError, match=told):
        plan(*questions, *words)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["task=stsb", "task.classes=4"],
            r"classes=4 is for task\.kind=classification.*=regression",
        ),
        (["task=sst2", "task.range=[0,1]"], r"range=\[0, 1\] is for task\.kind=regression"),
        (
            ["task=synthetic_paraphrase", "prompt=words", "prompt.reserved=3000"],
            r"prompt\.reserved=3000 of 3000 training examples of synthetic_paraphrase leaves",
        ),
    ],
)
def test_other_tasks_refuse_what_they_do_not_read(words, told):
    with pytest.raises(ConfigError, match=told):
        plan("model=tiny", *words)


def test_a_text_is_wanted_with_the_keys_of_its_kind(questions):
    (run,) = plan(*questions, "task.max_new_tokens=5", "prompt=generate", "prompt.reserved=15").runs
    assert (run.task.new_tokens, run.prompt.reserved, run.task.range) == (5, 15, None)
    for key in ("task.max_new_tokens=5", "task.template='{0} {1} {answer}'"):
        with pytest.raises(ConfigError, match=r"is for task\.kind=generation"):
            plan("task=file", questions[4], "task.texts=[input]", "task.label=target", key)


# a project's own configs


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A project whose ./configs has a method of a packaged name, and an unused one."""
    for name, rank in (("lora", 3), ("mine", 5)):
        path = tmp_path / "configs" / "method" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        packaged = plan("method=lora").runs[0].method.to_json()
        lines = {k: v for k, v in packaged.items() if k not in ("name", "r")}
        body = "".join(f"{key}: {value}\n" for key, value in lines.items())
        path.write_text(f"name: {name}\nr: {rank}\nrecipe: {{lr: 1e-3}}\n{body}")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "configs"


def test_files_of_a_project_that_take_part_are_said(own):
    assert plan("method=lora").own_files == [own / "method" / "lora.yaml"]
    assert plan("method=full").own_files == []
    assert plan().own_files == [own / "method" / "lora.yaml"]  # by run.yaml's defaults
    (own / "sweep").mkdir()
    (own / "sweep" / "mine.yaml").write_text("grid: ['method=mine,full']\n")
    found = plan("sweep=mine").own_files
    assert found == [own / "sweep" / "mine.yaml", own / "method" / "mine.yaml"]
    told = CliRunner().invoke(main, ["plan", "method=lora,mine", "--json"])
    assert told.stderr == (
        "configuration files of your own take part: "
        f"{own}/method/lora.yaml (in place of the packaged one), {own}/method/mine.yaml\n"
    )
    assert told.stdout.startswith("{") or told.stdout.startswith("[")


def test_errors_name_the_files_of_a_project(own):
    with pytest.raises(ConfigError, match=r"files of your own take part: .*method/lora\.yaml"):
        plan("method=lora", "method.rank_of_nothing=4")
    with pytest.raises(ConfigError) as told:
        plan("method=full", "train.lr=0")
    assert "of your own" not in str(told.value)


def test_class_weights_are_of_classes():
    with pytest.raises(ConfigError, match="has values, which are no classes"):
        plan("task=stsb", "train.class_weights=balanced")
    with pytest.raises(ConfigError, match=r"train\.class_weights must be one of balanced"):
        plan("task=mrpc", "train.class_weights=inverse")
    plain, weighted = plan("task=mrpc", "train.class_weights=null,balanced").runs
    assert plain.key == plan("task=mrpc").runs[0].key
    assert weighted.key != plain.key
    assert "class_weights" not in plain.train.to_json()


#: Of 64 examples 16 are held out by a selection of a quarter: 4 batches of 12.
EPOCHS = (
    *("task=synthetic_paraphrase", "size=64", "train.batch_size=12", "budget.epochs=2"),
    "checkpoint_selection.fraction=0.25",
)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("method=adapter", "method.at=[]"), "at is empty: name places of bottlenecks"),
        (("method=ia3", "method.outputs=[key,value,key]"), "outputs: key twice"),
        (
            ("budget=steps", "budget.steps=8", "train.warmup_steps=8"),
            "train.warmup_steps=8: a budget of 8 steps ends before train.lr is reached",
        ),
        (
            (*EPOCHS, "checkpoint_selection=best_on_holdout", "train.warmup_steps=9"),
            r"train.warmup_steps=9: a budget of 2 epochs, 8 steps ends before",
        ),
    ],
)
def test_values_that_would_do_nothing_are_refused(words, said):
    with pytest.raises(ConfigError, match=said):
        dry_run.validate_run(plan("model=tiny", *words).runs[0])


def test_a_warm_up_that_the_epochs_outlast_is_as_good_as_any():
    words = [word for word in EPOCHS if "fraction" not in word]  # 6 batches, twice
    (run,) = plan("model=tiny", *words, "train.warmup_steps=11").runs
    assert run.train.warmup_steps == 11
