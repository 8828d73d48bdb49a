"""Where data come from: the hub's layout, its cache, a user's own files; what is odd in them."""

import json
import re
from dataclasses import replace

import huggingface_hub.constants
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny

from peftbench.config import task_nodes
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import data_report, hub_layout, loading, own_file, synthetic
from peftbench.training import trainer

PAIRS = {
    "sentence1": [f"first text {number}" for number in range(12)],
    "sentence2": [f"second text {number}" for number in range(12)],
    "label": [number % 2 for number in range(12)],
    "idx": list(range(12)),
}


def write_parquet(path, columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


@pytest.fixture
def layout(tmp_path):
    """A folder such as the hub's, with MRPC's training split in two files."""
    folder = tmp_path / "data [of mine]" / "glue"
    for part, rows in enumerate((slice(0, 7), slice(7, 12))):
        columns = {name: values[rows] for name, values in PAIRS.items()}
        write_parquet(folder / "mrpc" / f"train-0000{part}-of-00002.parquet", columns)
    write_parquet(folder / "mrpc" / "validation-00000-of-00001.parquet", PAIRS)
    return folder


@pytest.fixture
def mrpc():
    return tiny.one_run("task=mrpc").task


# the hub's layout


def test_folder_in_the_hubs_layout(mrpc, layout):
    train = loading.load_split(mrpc, "train", str(layout))
    assert train.texts == [PAIRS["sentence1"], PAIRS["sentence2"]]
    assert train.label.tolist() == PAIRS["label"]
    assert train.label.dtype == np.int64
    assert len(loading.load_split(mrpc, "validation", str(layout)).label) == 12


def test_folder_is_a_word_or_the_environment(layout, monkeypatch):
    assert plan("task=mrpc").data_root is None
    assert plan("task=mrpc", f"data.root='{layout}'").data_root == str(layout)
    monkeypatch.setenv("PEFTBENCH_DATA", str(layout))
    assert plan("task=mrpc").data_root == str(layout)


def test_where_the_data_lie_is_no_part_of_a_run(layout, mrpc, monkeypatch):
    """A folder has the key of the hub while it has the rows of the hub, in whatever files."""
    hub, here = plan("task=mrpc"), plan("task=mrpc", f"data.root='{layout}'")
    found = here.runs[0].task.rows_sha256
    assert here.runs != hub.runs
    assert found == hub_layout.rows_sha256(mrpc, str(layout))
    assert hub.runs[0].task.rows_sha256 is None
    told = data_report.data_lines(here.runs[0].task, str(layout))
    assert f"their hash {found[:12]} is part of the runs' keys" in told[-1]
    named = replace(mrpc, hub_rows_sha256=found)
    monkeypatch.setattr(task_nodes.TaskConfig, "from_json", lambda data: named)
    assert plan("task=mrpc", f"data.root='{layout}'").runs == hub.runs
    for path in (layout / "mrpc").glob("train-*"):
        path.unlink()
    write_parquet(layout / "mrpc" / "train-00000-of-00001.parquet", PAIRS)
    assert plan("task=mrpc", f"data.root='{layout}'").runs == hub.runs
    columns = PAIRS | {"label": PAIRS["label"][::-1]}
    write_parquet(layout / "mrpc" / "train-00000-of-00001.parquet", columns)
    flipped = plan("task=mrpc", f"data.root='{layout}'").runs
    assert flipped not in (hub.runs, here.runs)
    with pytest.raises(ConfigError, match="have changed since they were planned"):
        loading.check_unchanged(named, str(layout))


def test_a_folder_that_is_not_there_yet_has_the_key_of_the_hub(layout, tmp_path):
    assert plan("task=mrpc", f"data.root='{tmp_path}'").runs == plan("task=mrpc").runs
    assert plan("task=cola", f"data.root='{layout}'").runs == plan("task=cola").runs


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("train-00000-of-00001", "holds a split more than once: "),
        ("train-00002-of-00003", "holds a split more than once: "),
        ("train-00000-of-00002 (copy)", "hold the same bytes"),
        ("train-again", "hold the same bytes"),
    ],
)
def test_files_of_a_split_that_are_there_twice(name, told, mrpc, layout):
    first = layout / "mrpc" / "train-00000-of-00002.parquet"
    (layout / "mrpc" / f"{name}.parquet").write_bytes(first.read_bytes())
    with pytest.raises(ConfigError, match=told):
        loading.load_split(mrpc, "train", str(layout))


def test_files_of_a_split_of_which_one_is_missing(mrpc, layout):
    (layout / "mrpc" / "train-00000-of-00002.parquet").unlink()
    with pytest.raises(ConfigError, match=r"of the 2 files of .* number 0 is missing"):
        loading.load_split(mrpc, "train", str(layout))


@pytest.mark.data
@pytest.mark.parametrize("name", ["mrpc", "cola", "stsb", "rte", "wnli", "sst2"])
def test_real_rows_have_the_hash_that_their_yaml_names(name, glue):
    task = plan(f"task={name}", f"data.root='{glue}'").runs[0].task
    assert task.rows_sha256 is None
    assert hub_layout.rows_sha256(task, glue) == task.hub_rows_sha256


def test_fingerprint_changes_with_the_bytes(mrpc, layout):
    before = loading.fingerprint(mrpc, "train", str(layout))
    assert before == loading.fingerprint(mrpc, "train", str(layout))
    columns = PAIRS | {"label": PAIRS["label"][::-1]}
    write_parquet(layout / "mrpc" / "train-00001-of-00002.parquet", columns)
    assert loading.fingerprint(mrpc, "train", str(layout)) != before


def test_a_missing_folder_and_a_missing_task_are_told_apart(mrpc, layout):
    with pytest.raises(ConfigError, match=r"data.root=/nowhere: /nowhere is not a folder"):
        loading.load_split(mrpc, "train", "/nowhere")
    with pytest.raises(ConfigError, match=r"cola: no cola/train-\*.parquet in .*null for the hub"):
        loading.load_split(tiny.one_run("task=cola").task, "train", str(layout))


def test_a_broken_file_is_named(mrpc, layout):
    path = layout / "mrpc" / "validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(ConfigError, match=f"cannot read {re.escape(str(path))}"):
        loading.load_split(mrpc, "validation", str(layout))


def test_an_unlabelled_split_is_refused(mrpc, layout):
    path = layout / "mrpc" / "validation-00000-of-00001.parquet"
    write_parquet(path, PAIRS | {"label": [-1] * 12})
    with pytest.raises(ConfigError, match="from 0 to 1, got -1 to -1; unlabelled splits"):
        loading.load_split(mrpc, "validation", str(layout))


@pytest.mark.data
@pytest.mark.parametrize("name", ["mrpc", "cola", "stsb", "rte", "wnli", "sst2"])
def test_real_data_are_what_their_yaml_says(name, glue):
    task = tiny.one_run(f"task={name}").task
    counts = {split: len(loading.load_split(task, split, glue).label) for split in task.examples}
    assert counts == task.examples
    if name == "mrpc":
        assert int(loading.load_split(task, "validation", glue).label.sum()) == 279
    assert all("leaked" not in told for told in loading.data_warnings(task, glue))


# the hub and its cache


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty cache of the hub. The library read the folder's name when it was imported."""
    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(folder))
    return folder


def fill(hub, revision):
    repository = hub / "datasets--nyu-mll--glue"
    for split in ("train", "validation"):
        name = f"{split}-00000-of-00001.parquet"
        write_parquet(repository / "snapshots" / revision / "mrpc" / name, PAIRS)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision)


def test_hubs_cache_serves_offline(mrpc, hub):
    fill(hub, mrpc.source["revision"])
    assert loading.load_split(mrpc, "train", None).label.tolist() == PAIRS["label"]


def test_another_revision_is_other_data(mrpc, hub):
    fill(hub, "f" * 40)
    with pytest.raises(ConfigError, match="nyu-mll/glue at bcdcba79d07b could not be loaded"):
        loading.load_split(mrpc, "train", None)


def test_a_cache_without_the_task_is_not_enough(hub, mrpc):
    fill(hub, mrpc.source["revision"])
    with pytest.raises(ConfigError, match=r"\(the cached copy has no file cola/train-\*.parquet\)"):
        loading.load_split(tiny.one_run("task=cola").task, "train", None)


@pytest.mark.parametrize("offline", [True, False], ids=["offline", "unreachable"])
def test_without_the_hub_three_ways_are_named(offline, mrpc, hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConfigError) as told:
        loading.load_split(mrpc, "train", None)
    message = str(told.value)
    assert "\n" not in message
    assert message.startswith("nyu-mll/glue at bcdcba79d07b could not be loaded (")
    for way in ("a connection to the hub", "HF_HOME", "data.root=FOLDER or PEFTBENCH_DATA=FOLDER"):
        assert way in message


def test_a_model_names_its_three_ways(hub):
    with pytest.raises(ConfigError, match=r"three ways.*HF_HOME.*model.checkpoint=FOLDER"):
        trainer.execute(tiny.one_run("model=bert_base"))


# a user's own file


def rows(count=20, kinds=("bad", "good")):
    return [
        {"text": f"this is text {number}", "verdict": kinds[number % len(kinds)]}
        for number in range(count)
    ]


def write(path, data):
    names = list(data[0])
    if path.suffix in (".csv", ".tsv"):
        comma = {".csv": ",", ".tsv": "\t"}[path.suffix]
        lines = [comma.join(str(row[name]) for name in names) for row in data]
        path.write_text("\n".join([comma.join(names), *lines]) + "\n")
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in data))
    elif path.suffix == ".json":
        path.write_text(json.dumps(data))
    else:
        write_parquet(path, {name: [row[name] for row in data] for name in names})
    return path


def mine(path, *words, text="text", label="verdict"):
    given = ("task=file", f"task.path='{path}'", f"task.texts=[{text}]", f"task.label={label}")
    return plan("model=tiny", *given, *words).runs[0].task


def both(task):
    return loading.load_split(task, "train", None), loading.load_split(task, "validation", None)


@pytest.mark.parametrize("ending", list(own_file.FORMATS))
def test_file_of_any_format(ending, tmp_path):
    task = mine(write(tmp_path / f"reviews, mine{ending}", rows()))
    assert task.name == "reviews, mine"
    assert task.class_names == ["bad", "good"]
    assert task.metrics == ["accuracy", "f1"]
    train, held = both(task)
    assert len(train.label), len(held.label) == (16, 4)
    assert set(train.texts[0]) | set(held.texts[0]) == {row["text"] for row in rows()}
    assert set(train.texts[0]).isdisjoint(held.texts[0])
    by_text = {row["text"]: row["verdict"] for row in rows()}
    for table in (train, held):
        named = [task.class_names[number] for number in table.label]
        assert named == [by_text[text] for text in table.texts[0]]
    assert held.label.sum() == 2  # stratified
    assert loading.data_warnings(task, None) == []


def test_split_is_the_same_for_every_run_of_a_file(tmp_path):
    path = write(tmp_path / "mine.csv", rows())
    first, again = (both(mine(path, f"seed={seed}"))[1] for seed in (0, 1))
    assert first.texts == again.texts
    half = both(mine(path, "task.validation_fraction=0.5"))[1]
    assert len(half.label) == 10
    assert set(first.texts[0]) < set(half.texts[0])


def test_validation_file(tmp_path):
    path = write(tmp_path / "mine.csv", rows())
    other = write(tmp_path / "held.jsonl", rows(6))
    task = mine(path, f"task.validation_path='{other}'")
    train, held = both(task)
    assert (len(train.label), len(held.label)) == (20, 6)
    assert loading.data_warnings(task, None) == [
        "mine: 6 of 6 validation examples are in train too"
    ]


def test_values(tmp_path):
    data = [{"text": f"text {n}", "verdict": n / 4} for n in range(30)]
    for ending in (".csv", ".jsonl", ".parquet"):
        task = mine(write(tmp_path / f"mine{ending}", data), "task.kind=regression")
        assert (task.classes, task.metrics) == (1, ["pearson", "spearman"])
        train, held = both(task)
        assert train.label.dtype == np.float32
        together = sorted(np.concatenate([train.label, held.label]).tolist())
        assert together == [n / 4 for n in range(30)]


def test_numbers_as_class_names_keep_their_spelling(tmp_path):
    task = mine(write(tmp_path / "mine.csv", rows(kinds=("007", "7", "1.0"))))
    assert task.class_names == ["007", "1.0", "7"]
    assert task.metrics == ["accuracy"]
    task = mine(write(tmp_path / "mine.jsonl", rows(kinds=(1, 2))))
    assert task.class_names == ["1", "2"]


def test_texts_with_commas_quotes_lines_and_a_byte_order_mark(tmp_path):
    path = tmp_path / "mine.csv"
    text = 'text,verdict\n"a, ""quoted""\nline",yes\nNA,no\nnull,yes\nplain,no\n'
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    train, held = both(mine(path))
    found = set(train.texts[0]) | set(held.texts[0])
    assert found == {'a, "quoted"\r\nline', "NA", "null", "plain"}


def test_same_bytes_are_the_same_task_wherever_they_lie(tmp_path):
    (tmp_path / "there").mkdir()
    one = write(tmp_path / "mine.csv", rows())
    two = write(tmp_path / "there" / "mine.csv", rows())
    runs = plan(
        "model=tiny", "task=file", f"task.path='{one}','{two}'", "task.texts=[text]",
        "task.label=verdict",
    )  # fmt: skip
    assert (runs.cells, len(runs.runs)) == (2, 1)


# what a careful person would ask


@pytest.mark.parametrize("change", [{"text": "tex"}, {"label": "verdikt"}])
def test_missing_column_names_the_near_match(change, tmp_path):
    path = write(tmp_path / "mine.csv", rows())
    ((known, given),) = change.items()
    expected = {"text": "text", "label": "verdict"}[known]
    with pytest.raises(ConfigError, match=f"no column '{given}'; did you mean {expected}?"):
        loading.load_split(mine(path, **change), "train", None)


@pytest.mark.parametrize(
    ("data", "words", "told"),
    [
        (rows(kinds=("good",)), (), "every label is 'good'; nothing can be learnt"),
        (rows(kinds=("good", "")), (), "10 of 20 labels are empty; remove them"),
        (
            [{"text": "a", "verdict": n / 7} for n in range(40)],
            (),
            "40 distinct labels in 40 rows look like values; for regression set",
        ),
        (rows(), ("task.classes=3",), "task.classes=3, but mine has 2 labels"),
        (rows(), ("task.kind=regression",), "column 'verdict' must hold numbers"),
        (rows(kinds=("1", "nan")), ("task.kind=regression",), "has empty or infinite values"),
        (rows(kinds=("1", "two")), ("task.kind=regression",), "column 'verdict' must hold numbers"),
        (rows(kinds=("3",)), ("task.kind=regression",), "every training label is 3.0"),
    ],
)
def test_labels_that_cannot_be_learnt(data, words, told, tmp_path):
    for ending in (".csv", ".jsonl"):
        path = write(tmp_path / f"mine{ending}", data)
        with pytest.raises(ConfigError, match=re.escape(told)):
            loading.data_warnings(mine(path, *words), None)


def test_labels_that_training_has_not_seen(tmp_path):
    path = write(tmp_path / "mine.csv", rows())
    other = write(tmp_path / "held.csv", rows(kinds=("good", "ugly")))
    with pytest.raises(
        ConfigError, match=r"held.csv has labels that the training part does not have: ugly"
    ):
        loading.data_warnings(mine(path, f"task.validation_path='{other}'"), None)


def test_oddities_are_told_and_allowed(tmp_path):
    data = rows()
    data[3]["text"] = data[4]["text"] = " "
    data[8] |= {"text": data[9]["text"]}
    held = [*rows(4), {"text": "new", "verdict": "good"}]
    path, other = write(tmp_path / "mine.csv", data), write(tmp_path / "held.csv", held)
    told = data_report.data_lines(mine(path, f"task.validation_path='{other}'"), None)[3:]
    assert told == [
        "mine: 2 training texts carry more than one label",
        "mine: 3 of 5 validation examples are in train too",
        "mine.csv: 2 empty cells in 'text' (lines 5, 6)",
    ]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("", "a line of column names, then examples"),
        ("text,verdict\n", "a line of column names, then examples"),
        ("text,verdict\na,b,good\nc,bad\n", "line 2 has 3 fields, the header 2; quote texts"),
        ('text,verdict\n"a,good\nc,bad\n', "cannot read"),
        (b"text,verdict\n\xff\xfe,good\n", "cannot read"),
    ],
)
def test_broken_csv(body, told, tmp_path):
    path = tmp_path / "mine.csv"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    with pytest.raises(ConfigError, match=told):
        mine(path)


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("body", [b"", b"{no", b"\x00\x01"])
def test_broken_file_of_another_format(ending, body, tmp_path):
    path = tmp_path / f"mine{ending}"
    path.write_bytes(body)
    with pytest.raises(ConfigError, match="cannot read"):
        mine(path)


def test_file_that_is_not_there_or_of_no_known_format(tmp_path):
    with pytest.raises(ConfigError, match=r"task.path=.*: no such file"):
        mine(tmp_path / "mine.csv")
    (tmp_path / "mine.xlsx").touch()
    with pytest.raises(ConfigError, match=r"ends in \.csv, \.tsv, \.jsonl, \.json, \.parquet"):
        mine(tmp_path / "mine.xlsx")


# the synthetic tasks


@pytest.mark.parametrize("name", synthetic.NAMES)
def test_synthetic_tasks_are_what_their_yaml_says(name):
    task = tiny.one_run(f"task={name}").task
    counts = {split: len(loading.load_split(task, split, None).label) for split in task.examples}
    assert counts == task.examples
    assert loading.data_warnings(task, None) == []
