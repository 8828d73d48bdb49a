"""`task=hub`: any data set of the hub, resolved once, against a hub on this machine."""

import json
from types import SimpleNamespace

import datasets
import huggingface_hub
import numpy as np
import pytest
import records
from click.testing import CliRunner
from hub_server import COMMIT

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import hub_dataset, loading
from peftbench.results.store import ResultsFolder
from peftbench.runner import prefetch
from peftbench.suites.base import build_suite
from peftbench.system import hub, memo, offline_folder

NEWER = "beef" + 36 * "1"
GIVEN = records.tiny("method=bitfit", "task=hub", "task.dataset=people/jokes", "size=full")
TEXTS = [f"the {a} is {b}" for a in ("film", "cat") for b in ("good", "bad", "dull", "fine")]


@pytest.fixture
def repository(tmp_path, monkeypatch, cache_folder):
    """People's data set `people/jokes` in the hub's cache, offline, and its newest commit."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    made = SimpleNamespace(newest=COMMIT, asked=[])
    made.folder = tmp_path / "hub/datasets--people--jokes/snapshots" / COMMIT
    made.folder.mkdir(parents=True)

    def newest(name):
        made.asked.append(name)
        return made.newest

    monkeypatch.setattr(hub, "_newest_dataset", newest)
    return made


def lines(path, label=lambda n: n % 2, texts=TEXTS, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"text": text, "label": label(n), **more} for n, text in enumerate(texts)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def parquet(path, label, names=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = datasets.Value("string") if names is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"text": datasets.Value("string"), "label": kind})
    table = {"text": TEXTS, "label": [label(n) for n in range(len(TEXTS))]}
    datasets.Dataset.from_dict(table, features=features).to_parquet(path)


def task(*words, **options):
    (run,) = plan(*GIVEN, *words, **options).runs
    return run.task


def test_json_lines_with_words_for_labels(repository):
    """Classes are counted in the training split; the commit and the files are in the key."""
    lines(repository.folder / "train.jsonl", lambda n: ["no", "yes", "maybe"][n % 3])
    lines(repository.folder / "validation.jsonl", lambda n: ["no", "yes"][n % 2])
    found = task()
    assert (found.name, found.classes) == ("jokes", 3)
    assert found.class_names == ["maybe", "no", "yes"]
    assert found.metrics == ["accuracy"]
    assert found.examples == {"train": 8, "validation": 8}
    assert found.source == {
        "hub": "people/jokes",
        "revision": COMMIT,
        "config": "default",
        "format": "json",
        "files": {"train": ["train.jsonl"], "validation": ["validation.jsonl"]},
    }
    split = loading.load_split(found, "validation", "a/folder/of/other/data")
    assert split.texts == [TEXTS]
    assert split.label.tolist() == [1, 2] * 4


def test_shards_of_parquet_with_named_classes(repository):
    """The names are those that the files' own metadata have, in their order."""
    for n in range(2):
        path = repository.folder / f"data/train-0000{n}-of-00002.parquet"
        parquet(path, lambda i, n=n: (i + n) % 2, ["pos", "neg"])
    parquet(repository.folder / "data/test-00000-of-00001.parquet", lambda n: 1, ["pos", "neg"])
    found = task("task.validation=test")
    assert found.class_names == ["pos", "neg"]
    assert found.metrics == ["accuracy", "f1"]
    assert found.examples == {"train": 16, "validation": 8}
    assert loading.load_split(found, "train", None).label.tolist() == [0, 1] * 4 + [1, 0] * 4
    assert set(loading.load_split(found, "test", None).label.tolist()) == {1}
    assert list(loading.kept(found, "train", None)) == found.source["files"]["train"]


def test_words_that_pandas_takes_for_missing_are_texts_and_classes(repository):
    for split in ("train", "test"):
        words = [*("None", "null", "NA", "n/a", "nan"), ""]
        rows = [f"{words[n % 6]} ,{('None', 'favor')[n % 2]}" for n in range(12)]
        rows += ["NA,None", ",favor"]
        (repository.folder / f"{split}.csv").write_text("\n".join(["text,label", *rows]))
    found = task("task.validation=test")
    assert found.class_names == ["None", "favor"]
    train = loading.load_split(found, "train", None)
    assert train.texts[0][-2:] == ["NA", ""]
    assert {text.strip() for text in train.texts[0]} == {*words}
    before = found.source | {"options": {}}
    asked = hub_dataset.inputs(found, None)
    memo.remember("datasets", asked, {"source": before, "class_names": ["favor"], "examples": {}})
    assert hub_dataset.known(found, None) is None  # read with pandas' own words before


CARD = """---
configs:
- config_name: easy
  data_files:
  - {split: train, path: easy/a.csv}
  - {split: validation, path: easy/b.csv}
- config_name: hard
  sep: ";"
  data_files:
  - {split: train, path: hard/a.csv}
  - {split: validation, path: hard/b.csv}
dataset_info:
- config_name: easy
- config_name: hard
  features:
  - {name: text, dtype: string}
  - name: label
    dtype: {class_label: {names: {'0': bad, '1': good}}}
---
"""


def test_configurations_of_a_card(repository):
    """With their separators; labels that are words beside a card that numbers them."""
    (repository.folder / "README.md").write_text(CARD)
    for config, sep in (("easy", ","), ("hard", ";")):
        (repository.folder / config).mkdir()
        for name in "ab":
            rows = [f"{t}{sep}{['good', 'bad'][n % 2]}" for n, t in enumerate(TEXTS)]
            body = "\n".join([f"text{sep}label", *rows])
            (repository.folder / config / f"{name}.csv").write_text(body)
    with pytest.raises(ConfigError, match=r"pick one among the available configs: .*easy.*hard"):
        task()
    with pytest.raises(ConfigError, match=r"'odd' not found. Available: \['easy', 'hard'\]"):
        task("task.config=odd")
    hard = task("task.config=hard")
    assert hard.class_names == ["bad", "good"]
    assert hard.source["options"] == {"sep": ";", "keep_default_na": False, "na_values": [""]}
    assert loading.load_split(hard, "train", None).label.tolist() == [1, 0] * 4
    assert task("task.config=easy").source["config"] == "easy"


def test_a_part_of_the_only_split_is_held_out(repository, tmp_path):
    """Which rows is as for a user's own file of these rows; the fraction is in the key."""
    lines(repository.folder / "train.jsonl", lambda n: ["no", "yes"][n % 2])
    with pytest.raises(ConfigError, match=r"no split 'validation'.*use task\.validation_fraction"):
        task()
    quarter, half = (task(f"task.validation_fraction={part}") for part in (0.25, 0.5))
    assert quarter.examples == {"train": 6, "validation": 2}
    assert half.examples == {"train": 4, "validation": 4}
    assert half.source["files"] == {"train": ["train.jsonl"]}
    (mine,) = plan(
        *records.tiny(
            "task=file", "task.texts=[text]", "task.validation_fraction=0.5", "size=full"
        ),
        f"task.path={repository.folder / 'train.jsonl'}",
    ).runs
    tokens = set()
    for part in ("train", "validation"):
        found = loading.load_split(half, half.splits[part], None)
        own = loading.load_split(mine.task, mine.task.splits[part], None)
        assert found.texts == own.texts
        assert sorted(found.label) == [0, 0, 1, 1]
        columns, rows = loading.load_columns(half, half.splits[part], None)
        assert columns["text"] == found.texts[0] == [TEXTS[row - 1] for row in rows]
        tokens |= {loading.fingerprint(one, one.splits[part], None) for one in (half, quarter)}
    assert len(tokens) == 4
    runs = [plan(*GIVEN, f"task.validation_fraction={part}").runs[0] for part in (0.25, 0.5)]
    assert runs[0].key != runs[1].key
    assert list(prefetch.fetch(plan(*GIVEN, "task.validation_fraction=0.5"), [], tmp_path / "here"))
    assert [path.name for path in (tmp_path / "here").rglob("*.jsonl")] == ["train.jsonl"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["0.99"], r"task.validation_fraction=0.99 of 8 examples leaves nothing to train on"),
        (["1"], r"must be greater than 0 and less than 1.*task\.validation=SPLIT"),
        (["0.5", "task.validation=test"], r"task.validation=test and task.validation_fraction=0.5"),
    ],
)
def test_a_part_that_cannot_be_held_out(repository, words, told):
    for split in ("train", "test"):
        lines(repository.folder / f"{split}.jsonl")
    with pytest.raises(ConfigError, match=told):
        task(f"task.validation_fraction={words[0]}", *words[1:])


def test_splits_of_the_data_set_are_scored_beside_a_part(repository):
    for split in ("train", "test"):
        lines(repository.folder / f"{split}.jsonl")
    found = task("task.validation_fraction=0.5", "task.extra={test: test}")
    assert len(loading.load_split(found, "test", None).label) == 8
    assert len(loading.load_split(found, "train", None).label) == 4


def test_regression(repository):
    for split in ("train", "validation"):
        lines(repository.folder / f"{split}.jsonl", lambda n: n / 4)
    found = task("task.kind=regression")
    assert (found.classes, found.class_names) == (1, None)
    assert found.metrics == ["pearson", "spearman"]
    label = loading.load_split(found, "train", None).label
    assert np.array_equal(label, np.arange(8, dtype=np.float32) / 4)


def test_bad_input(repository):
    lines(repository.folder / "train.jsonl")
    lines(repository.folder / "test.jsonl", lambda n: -1)
    with pytest.raises(ConfigError, match=r"no split 'validation'; .* test; use task.validation=t"):
        task()
    (repository.folder / "README.md").write_text(
        CARD.partition("dataset_info")[0]
        .replace("easy/a.csv", "train.jsonl")
        .replace("easy/b.csv", "test.jsonl")
        .partition("- config_name: hard")[0]
        + "---\n"
    )
    with pytest.raises(ConfigError, match=r"no column 'txt'; did you mean text\?"):
        task("task.texts=[txt]")
    with pytest.raises(ConfigError, match=r"task.validation=train: choose a split that no run"):
        task("task.validation=train")
    with pytest.raises(ConfigError, match=r"task.revision=v1: name a commit .* or main"):
        task("task.revision=v1")
    with pytest.raises(ConfigError, match=r"needs task.dataset=ORG/NAME"):
        plan(*(word.replace("people/jokes", "'a b'") for word in GIVEN))


def test_labels_that_are_not_there(repository):
    """GLUE's test splits have -1."""
    parquet(repository.folder / "train.parquet", lambda n: n % 2, ["pos", "neg"])
    parquet(repository.folder / "test.parquet", lambda n: -1, ["pos", "neg"])
    with pytest.raises(ConfigError, match=r"8 of 8 labels in the split test are missing .*row"):
        task("task.validation=test")


def test_a_data_set_that_is_nowhere(repository):
    repository.folder.rmdir()
    with pytest.raises(ConfigError, match=r"people/jokes at c0ffee000000 could not be loaded"):
        task()


def test_the_commit_is_found_by_a_run_and_kept(repository):
    for split in ("train", "validation"):
        lines(repository.folder / f"{split}.jsonl")
    words = ["plan", "task=hub", "task.dataset=people/jokes", "model=tiny", "method=bitfit"]
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 2
    assert (
        "people/jokes: revision not resolved, and `peftbench plan` does not query the hub"
        in told.output
    )
    assert repository.asked == []
    given = GIVEN
    found = plan(*given)
    assert found.revisions == {"datasets/people/jokes": COMMIT}
    ResultsFolder("results/runs").keep_revisions(found.revisions, found.renewed)
    told = CliRunner().invoke(main, words)
    assert told.exit_code == 0, told.output
    pinned = plan(*given, f"task.revision={COMMIT}")
    assert pinned.runs == found.runs, "as if it had been given"
    repository.newest = NEWER
    repository.folder.with_name(NEWER).mkdir()
    for split in ("train", "validation"):
        lines(repository.folder.with_name(NEWER) / f"{split}.jsonl", lambda n: n % 2 * 2)
    assert plan(*given).runs == found.runs, "months later"
    assert repository.asked == ["people/jokes"]
    newer = plan(*given, "task.revision=main")
    assert newer.runs[0].task.source["revision"] == NEWER
    assert newer.runs[0].task.class_names == ["0", "2"]
    assert newer.runs[0].key != found.runs[0].key
    ResultsFolder("results/runs").keep_revisions(newer.revisions, newer.renewed)
    assert plan(*given).runs == newer.runs, "from then on"


@pytest.mark.parametrize("verb", [("run",), ("submit", "cluster=local")], ids=lambda v: v[0])
def test_a_dry_run_replaces_no_commit(repository, monkeypatch, verb):
    """Finished runs would get other keys; the first commit is noted."""
    monkeypatch.setattr("peftbench.runner.sweep.execute", lambda *given: False)
    monkeypatch.setattr("peftbench.cluster.submit._rehearse", lambda *given: None)
    for commit in (COMMIT, NEWER):
        repository.folder.with_name(commit).mkdir(exist_ok=True)
        for split in ("train", "validation"):
            lines(repository.folder.with_name(commit) / f"{split}.jsonl")
    for newest in (COMMIT, NEWER):
        repository.newest = newest
        told = CliRunner().invoke(main, [*verb, *GIVEN, "task.revision=main", "--dry-run"])
        assert told.exit_code == 0, told.output
        kept = ResultsFolder("results/runs").revisions()
        assert kept == {"datasets/people/jokes": COMMIT}


def test_it_comes_along_in_a_prefetched_folder(repository, tmp_path, monkeypatch):
    for split in ("train", "validation"):
        lines(repository.folder / f"{split}.jsonl")
    given = GIVEN
    found, brought = plan(*given), tmp_path / "brought"
    assert list(prefetch.fetch(found, given, brought))
    monkeypatch.setenv(offline_folder.VARIABLE, str(brought))
    monkeypatch.setattr(hub, "cache", lambda: tmp_path / "nowhere")
    again = plan(*given, results="elsewhere")
    assert again.runs == found.runs
    one = again.runs[0].task
    assert loading.load_split(one, "train", offline_folder.data_root()).texts == [TEXTS]
    with pytest.raises(ConfigError, match=r"with these overrides: run `peftbench prefetch`"):
        plan(*given, "task.texts=[label]", "task.label=text")


def test_it_is_the_target_of_a_suite(repository):
    for split in ("train", "validation", "test"):
        own = [f"{split} {text}" for text in TEXTS]
        lines(repository.folder / f"{split}.jsonl", lambda n: ["no", "yes"][n % 2], own)
    target = "{abroad:{dataset:people/jokes,validation:test,examples:4}}"
    words = (*GIVEN, "suite=shift", f"suite.targets={target}")
    planned = plan(*words)
    (evaluation,) = planned.evaluations
    asked = evaluation.suite["targets"]["abroad"]
    assert asked["task"]["name"] == "abroad"
    assert asked["task"]["source"]["revision"] == COMMIT
    assert asked["task"]["splits"]["validation"] == "test"
    assert {task.name for task in prefetch.tasks(planned)} == {"jokes", "abroad"}
    texts = build_suite(evaluation.suite).sets(evaluation.run, None)["abroad"]
    assert sorted(texts.label) == [0, 0, 1, 1]
    given = plan(*words[:-1], words[-1].replace("validation:test", f"revision:{COMMIT}"))
    assert given.evaluations[0].key != evaluation.key
    with pytest.raises(
        ConfigError, match=r"unknown key suite\.targets\.abroad\.text; did you mean"
    ):
        plan(*words[:-1], words[-1].replace("validation:test", "text:joke"))
    with pytest.raises(ConfigError, match=r"or a data set of the hub, \{abroad:\{dataset:ORG/NAME"):
        plan(*words[:-1], "suite.targets={abroad:{examples:4}}")
