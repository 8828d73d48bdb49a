"""The index of a folder: every field, nothing altered, only what changed read again."""

import json
import os
from dataclasses import replace

import pytest
import records
from click.testing import CliRunner
from paths import ROOT

from peftbench.cli.main import main
from peftbench.core.run import Run
from peftbench.results import index
from peftbench.results.scalars import Reader
from peftbench.results.store import Results
from peftbench.system import io

REFERENCE = ROOT / "results/reference"


def flat(reader: Reader, key: str) -> dict[str, object]:
    own, nodes = reader.read(key)
    return {name: value for node in nodes for name, value in node.fields.items()} | own


@pytest.fixture
def results(tmp_path):
    made = Results(tmp_path / "r")
    for run in records.runs("method=lora,bitfit,sparse_adapter", "seed=0,1", "train.lr=1e-5"):
        made.save(
            records.record(run, seconds={"train": 6.7e-05, "load": 1e16}), records.predictions()
        )
    return made


def reread(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Keys that are read from now on."""
    read: list[str] = []
    before = Reader.read

    def noted(self: Reader, key: str) -> object:
        read.append(key)
        return before(self, key)

    monkeypatch.setattr(Reader, "read", noted)
    return read


@pytest.mark.skipif(not REFERENCE.exists(), reason="no reference results in this checkout")
def test_real_records_are_read_fast_and_as_the_store_reads_them():
    results = Results(REFERENCE)
    reader = Reader(results)
    for key in results.keys()[::10]:
        record = results.load(key)
        assert reader._fast(key, results.record_bytes(key)) is not None
        found = flat(reader, key)
        assert found["key"] == key
        assert found["score"] == record.score
        assert found["run.train.lr"] == record.run.train.lr
        assert found["seconds.train"] == record.seconds["train"]
        assert found["metrics." + found["metric"]] == record.score
        assert found["environment.libraries.torch"] == record.environment["libraries"]["torch"]


def test_one_setting_has_one_hash(results):
    reader = Reader(results)
    alike: dict[str, set[Run]] = {}
    keys = results.keys()
    for key in keys:
        alike.setdefault(str(flat(reader, key)["alike"]), set()).add(results.load(key).run)
    assert [len(runs) for runs in alike.values()] == [2, 2, 2]
    assert all(len({replace(run, seed=0).key for run in runs}) == 1 for runs in alike.values())
    assert len({flat(reader, key)["shared"] for key in keys}) == 1


def test_columns_hold_every_record(results):
    table = index.of(results).read(["key", "run.method.name", "run.method.host", "seconds.train"])
    assert table["key"].to_pylist() == results.keys()
    assert set(table["run.method.host"].to_pylist()) == {None, "adapter"}
    assert set(table["seconds.train"].to_pylist()) == {6.7e-05}


def test_only_what_changed_is_read_again(results, monkeypatch):
    index.of(results)
    read = reread(monkeypatch)
    assert len(index.of(results)) == 6
    assert read == []
    first, second, *_ = results.keys()
    changed = results.load(first)
    results.save(replace(changed, metrics={"accuracy": 0.125}), records.predictions())
    (results.folder / "records" / f"{second}.json").unlink()
    (new,) = records.runs("method=ia3")
    results.save(records.record(new), records.predictions())
    table = index.of(results).read(["key", "score"])
    assert sorted(read) == sorted([first, new.key])
    assert table["key"].to_pylist() == results.keys()
    assert dict(zip(*table.to_pydict().values(), strict=True))[first] == 0.125
    results.cache("index").unlink()
    assert index.of(results).read(["key", "score"]).to_pydict() == table.to_pydict()


@pytest.mark.parametrize("harm", ["torn", "flipped", "empty", "another version", "not ours"])
def test_a_broken_cache_is_made_anew(results, monkeypatch, harm):
    whole = index.of(results).read(["key", "score"])
    body = results.cache("index").read_bytes()
    middle = len(body) // 2
    results.cache("index").write_bytes(
        {
            "torn": body[:middle],
            "flipped": body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :],
            "empty": b"",
            "another version": body.replace(b"index 1", b"index 0", 1),
            "not ours": b"hello",
        }[harm]
    )
    read = reread(monkeypatch)
    assert index.of(results).read(["key", "score"]).equals(whole)
    assert len(read) == 6
    assert results.cache("index").read_bytes() == body


def test_unreadable_records_are_named_and_left_out(results):
    index.of(results)
    torn, altered, renamed, *good = results.keys()
    folder = results.folder / "records"
    (folder / f"{torn}.json").write_text("{")
    path = folder / f"{altered}.json"
    path.write_text(path.read_text().replace("0.75", "0.85"))
    os.replace(folder / f"{renamed}.json", folder / "0123456789ab.json")
    for _ in range(2):  # the second time from what was kept
        found = index.of(results)
        assert set(found.unreadable) == {torn, altered, "0123456789ab"}
        assert found.read(["key"])["key"].to_pylist() == good
    done = CliRunner().invoke(main, ["report", "table", "--results", str(results.folder)])
    assert done.exit_code == 0
    assert "3 of 6 records are unreadable" in done.stderr
    assert "was altered" in done.stderr
    assert f"Left out, unreadable: 3 records, {', '.join(sorted(found.unreadable))}" in done.stdout


def test_a_folder_that_cannot_be_written_to_still_works(results):
    results.folder.joinpath("cache").write_text("in the way")  # also for root, whom no mode stops
    done = CliRunner().invoke(main, ["report", "table", "--results", str(results.folder)])
    assert done.exit_code == 0
    assert "every record is read again next time" in done.stderr


def test_processes_give_the_same_columns(results, monkeypatch):
    alone = index.of(results)
    results.cache("index").unlink()
    monkeypatch.setattr(index, "_MANY", 2)
    monkeypatch.setattr(index, "_PIECE", 2)
    many = index.of(results)
    assert many.names == alone.names
    assert many.read(alone.names).equals(alone.read(alone.names))


def test_values_of_several_types_become_texts(results):
    first, second, *_ = results.keys()
    for key, value in ((first, "half"), (second, 0.5)):
        path = results.folder / "records" / f"{key}.json"
        data = json.loads(path.read_text())
        del data["sha256"]
        data["work"]["micro_batch"] = value
        path.write_bytes(io.sealed(data))
    column = index.of(results).read(["work.micro_batch"])["work.micro_batch"]
    assert sorted(column.to_pylist()) == ["0.5", "16", "16", "16", "16", "half"]


def test_text_is_canonical_however_numbers_are_written(results):
    (run,) = records.runs("method=ia3")
    odd = {"b": 1e-05, "c": 8.0, "d": -0.0, "e": -1e16, "f": 0.00012, "g": 123456.0, "h%": 1.5e300}
    said = {"none": {}, "more": {"x": 6.7e-05, "a": "1.0, é"}, "yes": True}
    curve = [{"step": 1, "seconds": 2.0}, {"step": 2, "loss": -0.0}]
    results.save(
        records.record(run, seconds=odd, work=said, selection=None, curve=curve),
        records.predictions(),
    )
    reader = Reader(results)
    for _ in range(2):
        own, _ = reader._fast(run.key, results.record_bytes(run.key))
        slow, _ = Reader(results)._slow(run.key)
        assert own == slow
        assert [*map(type, own.values())] == [type(slow[name]) for name in own]


@pytest.mark.parametrize("text", ['a": b', "a,", "a\n b", '"', "%b", "1.0", "{", "\\", "é"])
def test_any_text_is_read_as_it_is(results, text):
    (run,) = records.runs("method=ia3")
    work = {"micro_batch": text, "steps": 1}
    reader = Reader(results)
    flat(reader, results.keys()[0])
    results.save(records.record(run, work=work), records.predictions())
    found = flat(reader, run.key)
    assert found["work.micro_batch"] == text
    assert found["work.steps"] == 1


def test_lists_of_scalars_are_read_too(results):
    (run,) = records.runs("method=ia3")
    results.save(records.record(run, work={"some": [1, 2.5], "no": []}), records.predictions())
    found = flat(Reader(results), run.key)
    assert (found["work.some"], found["work.no"]) == ("[1,2.5]", "[]")
