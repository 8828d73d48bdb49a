"""The frame of a folder: every scalar, nothing altered, only what changed is read again."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pandas as pd
import pytest
import records
from click.testing import CliRunner
from paths import ROOT

from peftbench.analysis import grouping
from peftbench.cli.main import main
from peftbench.core.run import Record, Run
from peftbench.results import frame, record_columns
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder
from peftbench.system import io

REFERENCE = ROOT / "results/reference"


@pytest.fixture
def results(tmp_path):
    made = ResultsFolder(tmp_path / "r")
    for run in records.runs("method=lora,bitfit,sparse_adapter", "seed=0,1", "train.lr=1e-5"):
        made.save(
            records.record(run, seconds={"train": 6.7e-05, "load": 1e16}), records.predictions()
        )
    return made


@pytest.fixture
def read(monkeypatch):
    """Keys of the records whose files are read."""
    keys: list[str] = []
    before = ResultsFolder.record_bytes

    def noted(self: ResultsFolder, key: str) -> bytes:
        keys.append(key)
        return before(self, key)

    monkeypatch.setattr(ResultsFolder, "record_bytes", noted)
    return keys


def reseal(results: ResultsFolder, key: str, **changes: object) -> None:
    """Change fields of a record's file, and seal it again."""
    path = results.folder / "records" / f"{key}.json"
    path.write_bytes(io.sealed(io.unsealed(path) | changes))


def scalars(node: object, path: str) -> dict[str, object]:
    """All scalars in plain data by dotted path, lists as their JSON."""
    if isinstance(node, list):
        return {path: json.dumps(node, separators=(",", ":"))}
    if not isinstance(node, dict):
        return {path: node}
    return {p: v for name, one in node.items() for p, v in scalars(one, f"{path}.{name}").items()}


def expected(record: Record) -> dict[str, object]:
    """Values of some columns of every kind, as the record itself gives them."""
    run = record.run
    found = {"key": run.key, "alike": run.cell_key}
    found |= {"score": record.score, "metric": run.task.metric}
    found |= {"run.seed": run.seed, "run.size": str(run.size), "run.train.lr": run.train.lr}
    found |= {"run.method.name": run.method.name, "run.task.name": run.task.name}
    found |= {"trivial": record.trivial[run.task.metric], "collapsed": record.collapsed}
    found["run.task.metrics"] = json.dumps(run.task.metrics, separators=(",", ":"))
    for name in ("metrics", "trivial", "parameters", "seconds", "memory", "environment"):
        found |= scalars(getattr(record, name), name)
    return found


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference results in this checkout")
@pytest.mark.parametrize("folder", ["reference", "tuned/doering2024", "tuning"])
def test_every_committed_record_is_as_the_store_reads_it(folder, tmp_path):
    committed = ResultsFolder(ROOT / "results" / folder)
    copy = ResultsFolder(tmp_path)  # whose cache is new
    (tmp_path / "records").symlink_to((committed.folder / "records").resolve())
    loaded = load_frame(copy)
    assert not loaded.unreadable
    rows = loaded.read()
    assert rows["key"].tolist() == committed.keys()
    columns = {name: rows[name].astype(object).where(rows[name].notna(), None) for name in rows}
    for line, key in enumerate(rows["key"]):
        for name, value in expected(committed.load(key)).items():
            assert columns[name][line] == value, (key, name)


def test_types_of_columns(results):
    rows = load_frame(results).read(
        ["score", "run.method.base_method", "work.steps", "collapsed", "key"]
    )
    assert rows.columns.tolist() == [
        "score",
        "run.method.base_method",
        "work.steps",
        "collapsed",
        "key",
    ]
    assert [str(kind) for kind in rows.dtypes[:4]] == ["float64", "category", "Int64", "boolean"]
    assert rows["key"].tolist() == results.keys()
    assert rows["run.method.base_method"].isna().sum() == 4
    assert set(rows["run.method.base_method"].dropna()) == {"adapter"}
    assert load_frame(results).read(["seconds.train"])["seconds.train"].tolist() == 6 * [6.7e-05]


def test_one_setting_has_one_hash(results):
    rows = load_frame(results).read()
    alike: dict[str, set[Run]] = {}
    for key, setting in zip(rows["key"], rows["alike"], strict=True):
        alike.setdefault(setting, set()).add(results.load(key).run)
    assert [len(runs) for runs in alike.values()] == [2, 2, 2]
    assert all(len({replace(run, seed=0).key for run in runs}) == 1 for runs in alike.values())
    assert rows["shared"].nunique() == 1
    for run in records.runs("method=lora", "size=64", "train.lr=1e-5"):
        results.save(records.record(run), records.predictions())
    assert load_frame(results).read(["shared"])["shared"].nunique() == 2


def test_only_what_changed_is_read_again(results, read):
    load_frame(results)
    read.clear()
    assert len(load_frame(results)) == 6
    assert read == []
    first, second, *_ = results.keys()
    changed = results.load(first)
    results.save(replace(changed, metrics={"accuracy": 0.125}), records.predictions())
    (results.folder / "records" / f"{second}.json").unlink()
    (new,) = records.runs("method=ia3", "prompt=words")
    results.save(records.record(new), records.predictions())
    rows = load_frame(results).read()
    assert sorted(read) == sorted([first, new.key])
    assert rows["key"].tolist() == results.keys()
    assert rows.set_index("key")["score"][first] == 0.125
    results.cache("frame").unlink()
    pd.testing.assert_frame_equal(
        load_frame(results).read(), rows, check_dtype=False, check_categorical=False
    )


@pytest.mark.parametrize("harm", ["torn", "flipped", "empty", "another version", "not ours"])
def test_a_broken_cache_is_made_again(results, read, harm):
    whole = load_frame(results).read()
    body = results.cache("frame").read_bytes()
    middle = len(body) // 2
    results.cache("frame").write_bytes(
        {
            "torn": body[:middle],
            "flipped": body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :],
            "empty": b"",
            "another version": body.replace(b"frame %d" % frame.VERSION, b"frame 0", 1),
            "not ours": b"hello",
        }[harm]
    )
    read.clear()
    pd.testing.assert_frame_equal(load_frame(results).read(), whole)
    assert len(read) == 6
    assert results.cache("frame").read_bytes() == body


def test_unreadable_records_are_named_and_left_out(results):
    load_frame(results)
    torn, altered, renamed, later, *good = results.keys()
    folder = results.folder / "records"
    (folder / f"{torn}.json").write_text("{")
    path = folder / f"{altered}.json"
    path.write_text(path.read_text().replace("0.75", "0.85"))
    os.replace(folder / f"{renamed}.json", folder / "0123456789ab.json")
    reseal(results, later, schema=99)
    reasons = {
        torn: "not whole",
        altered: "was altered",
        "0123456789ab": f"of another run, {renamed}",
        later: "schema 99",
    }
    for _ in range(2):  # the second time from the cache
        loaded = load_frame(results)
        assert set(loaded.unreadable) == set(reasons)
        assert all(reason in loaded.unreadable[key] for key, reason in reasons.items())
        assert loaded.read(["key"])["key"].tolist() == good
    done = CliRunner().invoke(main, ["report", "table", "--results", str(results.folder)])
    assert done.exit_code == 0
    assert "4 of 6 records are unreadable" in done.stderr
    assert "was altered" in done.stderr
    assert f"Left out, unreadable: 4 records, {', '.join(sorted(reasons))}" in done.stdout


def test_an_altered_record_is_refused_whatever_was_cached(results):
    key = results.keys()[0]
    load_frame(results)
    path = results.folder / "records" / f"{key}.json"
    path.write_text(path.read_text().replace('"accuracy": 0.75', '"accuracy": 0.95'))
    os.utime(path, ns=(0, 0))  # as long as before, and older
    assert list(load_frame(results).unreadable) == [key]


def test_a_folder_that_cannot_be_written_to_still_works(results):
    results.folder.joinpath("cache").write_text("in the way")  # root too, which no file mode stops
    done = CliRunner().invoke(main, ["report", "table", "--results", str(results.folder)])
    assert done.exit_code == 0
    assert "every record is read again next time" in done.stderr


def test_processes_give_the_same_columns(results, monkeypatch):
    alone = load_frame(results).read()
    results.cache("frame").unlink()
    monkeypatch.setattr(record_columns, "_MANY", 2)
    monkeypatch.setattr(record_columns, "_PIECE", 2)
    pd.testing.assert_frame_equal(load_frame(results).read(), alone)


def test_two_processes_may_load_at_once(results):
    code = (
        "import sys; from peftbench.results.frame import load_frame; "
        "from peftbench.results.store import ResultsFolder; "
        "print(load_frame(ResultsFolder(sys.argv[1])).read(['score'])['score'].tolist())"
    )
    command = [sys.executable, "-c", code, str(results.folder)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [one.communicate()[0] for one in both] == 2 * [f"{6 * [0.75]}\n"]
    assert len(load_frame(results)) == 6


def test_values_of_several_types_become_text(results):
    first, second, *_ = results.keys()
    load_frame(results)  # of numbers alone, as it was cached
    for key, value in ((first, "half"), (second, 0.5)):
        work = results.load(key).work
        reseal(results, key, work=work | {"micro_batch_size": value})
    column = load_frame(results).read(["work.micro_batch_size"])["work.micro_batch_size"]
    assert sorted(column) == ["0.5", "16", "16", "16", "16", "half"]
    (new,) = records.runs("method=ia3")
    results.save(records.record(new), records.predictions())  # a number again
    column = load_frame(results).read(["work.micro_batch_size"])["work.micro_batch_size"]
    assert sorted(column) == ["0.5", "16", "16", "16", "16", "16", "half"]


def test_whole_and_other_numbers_share_a_column(results):
    first = results.keys()[0]
    load_frame(results)
    reseal(results, first, flops=3)
    assert sorted(load_frame(results).read(["flops"])["flops"]) == [3.0, *5 * [1.5e9]]


def test_numbers_are_read_as_they_were_written(results):
    (run,) = records.runs("method=ia3")
    odd = {"b": 1e-05, "c": 8.0, "d": -0.0, "e": -1e16, "f": 0.00012, "g": 123456.0, "h%": 1.5e300}
    results.save(records.record(run, seconds=odd), records.predictions())
    loaded = load_frame(results)
    row = loaded.read().set_index("key").loc[run.key]
    assert {name: row[f"seconds.{name}"] for name in odd} == odd


@pytest.mark.parametrize("text", ['a": b', "a,", "a\n b", '"', "%b", "1.0", "{", "\\", "é"])
def test_any_text_is_read_as_it_is(results, text):
    (run,) = records.runs("method=ia3")
    results.save(
        records.record(run, work={"note": text, "steps": 1, "train_size": 32}),
        records.predictions(),
    )
    row = load_frame(results).read().set_index("key").loc[run.key]
    assert (row["work.note"], row["work.steps"]) == (text, 1)


def test_lists_are_their_json(results):
    (run,) = records.runs("method=ia3")
    results.save(records.record(run, work={"some": [1, 2.5], "no": []}), records.predictions())
    row = load_frame(results).read().set_index("key").loc[run.key]
    assert (row["work.some"], row["work.no"]) == ("[1,2.5]", "[]")


def test_an_empty_folder(tmp_path):
    loaded = load_frame(ResultsFolder(tmp_path / "none"))
    assert (len(loaded), loaded.columns, loaded.read().shape) == (0, ["key"], (0, 1))
    assert not (tmp_path / "none").exists()


def test_a_folder_of_unreadable_records_alone(results):
    for path in (results.folder / "records").iterdir():
        path.write_text("{")
    for _ in range(2):  # the second time with a cache of no records
        loaded = load_frame(results)
        assert (len(loaded), loaded.columns, len(loaded.unreadable)) == (0, ["key"], 6)


def test_what_is_no_file_is_unreadable(results):
    whole = load_frame(results).read()
    (results.folder / "records" / "0123456789ab.json").mkdir()
    (results.folder / "records" / "0123456789ac.json").symlink_to("nowhere")
    (results.folder / "records" / "notes.json").write_text("no record")
    for _ in range(2):
        loaded = load_frame(results)
        assert sorted(loaded.unreadable) == ["0123456789ab", "0123456789ac"]
        pd.testing.assert_frame_equal(loaded.read(), whole)


@pytest.mark.parametrize(
    "lay_out",
    [
        lambda data: json.dumps(data),
        lambda data: json.dumps(data, indent=4),
        lambda data: json.dumps(data, indent=1, sort_keys=True),
        lambda data: json.dumps(dict(reversed(data.items())), indent=1),
        lambda data: json.dumps(data | {"run": dict(reversed(data["run"].items()))}, indent=1),
        lambda data: json.dumps(data | {"run": {"seed": 0} | data["run"]}, indent=1),
    ],
    ids=["compact", "wide", "sorted", "reversed", "reversed run", "seed first"],
)
def test_a_record_of_another_layout_has_the_same_columns(results, lay_out):
    whole = load_frame(results).read()
    for key in results.keys()[:3]:
        path = results.folder / "records" / f"{key}.json"
        content = lay_out(io.unsealed(path)).encode().removesuffix(b"}").removesuffix(b"\n")
        path.write_bytes(content + io.seal_of(content))
        assert results.load(key).run.key == key
    loaded = load_frame(results)
    assert not loaded.unreadable
    pd.testing.assert_frame_equal(loaded.read(), whole)


def test_the_layout_that_is_written_is_cut_without_a_second_reading(results, monkeypatch):
    monkeypatch.setattr(ResultsFolder, "record_json", None)
    assert not load_frame(results).unreadable


def test_a_record_without_a_field_is_unreadable(results):
    first, second, third, *_ = results.keys()
    for key, where, name in ((first, None, "flops"), (second, "run", "size"), (third, "run", "")):
        path = results.folder / "records" / f"{key}.json"
        data = io.unsealed(path)
        node = data if where is None else data[where]
        node.pop(name, None) if name else node.update({"more": 1})
        path.write_bytes(io.sealed(data))
    found = load_frame(results).unreadable
    assert sorted(found) == sorted([first, second, third])
    assert "record has fields that do not belong: [], and is missing ['flops']" in found[first]
    assert "run has fields that do not belong: [], and is missing ['size']" in found[second]
    assert "run has fields that do not belong: ['more'], and is missing []" in found[third]


@pytest.mark.parametrize("seed", [[0, 1], {"a": 0}, "0, 1", None, 0.5])
def test_a_seed_that_is_no_whole_number_is_unreadable(results, seed):
    key = results.keys()[0]
    run = results.load(key).run.to_json()
    reseal(results, key, run=run | {"seed": seed})
    assert list(load_frame(results).unreadable) == [key]


def test_a_file_that_changes_while_it_is_read_is_read_again(results, read, monkeypatch):
    key = results.keys()[0]
    plain = ResultsFolder.record_bytes

    def late(self: ResultsFolder, asked: str) -> tuple[bytes, os.stat_result]:
        found = plain(self, asked)
        if asked == key:
            reseal(results, key, flops=3)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(ResultsFolder, "record_bytes", late)
        load_frame(results)
    read.clear()
    assert sorted(load_frame(results).read(["flops"])["flops"]) == [3.0, *5 * [1.5e9]]
    assert read == [key]


@pytest.mark.parametrize("piece", [1, 2, 100])
def test_columns_do_not_depend_on_which_records_are_read_together(results, monkeypatch, piece):
    """Of several types, missing, nodes in some records, in lists, beyond what a float holds."""
    odd = [
        {"a": 1, "b": None, "c": [1, 2.5], "d": True, "e": 2**53 + 1, "f": 1},
        {"a": 2.5, "b": {"x": 1}, "c": [], "d": 2, "e": 0.5, "f": None},
        {"a": None, "b": {"y": "t"}, "c": None, "d": "no", "e": 1, "g": {}},
        {"c": [{"x": 1}, {"y": 2}], "g": {"z": 2**63}},
    ]
    for key, work in zip(results.keys(), odd, strict=False):
        reseal(results, key, work=work)
    monkeypatch.setattr(record_columns, "_PIECE", piece)
    loaded = load_frame(results)
    names = [name for name in loaded.columns if name.startswith("work.")]
    rows = loaded.read().iloc[:4][[name for name in names if len(name) < 9]]
    found = {
        name: [None if pd.isna(value) else value for value in rows[name].astype(object)]
        for name in rows
    }
    assert found == {
        "work.a": [1, 2.5, None, None],
        "work.b.x": [None, 1, None, None],
        "work.b.y": [None, None, "t", None],
        "work.c": ["[1,2.5]", "[]", None, '[{"x":1},{"y":2}]'],
        "work.d": ["true", "2", "no", None],
        "work.e": ["9007199254740993", "0.5", "1", None],
        "work.f": [1, None, None, None],
        "work.g.z": [None, None, None, "9223372036854775808"],
    }


def test_seeds_of_roles_are_fields_and_settings(tmp_path):
    made = ResultsFolder(tmp_path / "r")
    for number, run in enumerate(records.runs("method=lora", "seed.order=0,1,2", "seed.head=0,1")):
        made.save(records.record(run, number / 10), records.predictions())
    frame_ = load_frame(made)
    assert not frame_.unreadable
    rows = frame_.read(["run.role_seeds.order", "alike"])
    assert rows["run.role_seeds.order"].dropna().value_counts().to_dict() == {1: 2, 2: 2}
    assert rows["alike"].nunique() == 6
    words = ["rows=seed.order,seed.head", "columns=task", "cell=score", "--format", "csv"]
    done = CliRunner().invoke(main, ["report", "table", *words, "--results", str(made.folder)])
    assert done.exit_code == 0, done.output
    assert "\n2,1,synthetic_paraphrase,1,1,0.5," in done.output
    by_row, split = grouping.of_records(made.scan()[0])
    assert split == ["seed.head", "seed.order"]
    assert len(by_row) == 6
    assert "lora, seed.head=1, seed.order=2" in grouping.labels(by_row, split).values()
