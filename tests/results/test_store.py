"""A results folder holds whole, unaltered records or says which ones are not."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from zipfile import ZipFile

import numpy as np
import pytest
from records import predictions, record, runs

from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.failures import Failure
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.system.io import sealed

(RUN,) = runs("seed=0")
(OTHER,) = runs("seed=1")


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "a folder" / "of results")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB; made by root on Linux alone."""
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k", "tmpfs") as folder:
        yield folder


@contextmanager
def mounted(folder, *options):
    folder.mkdir()
    try:
        done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("there is no mount here")
    if done.returncode != 0:
        pytest.skip(f"no small disk can be mounted: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def files(folder):
    """All files below a folder but the lock of claims, as paths relative to it."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != "claims")
    return sorted(str(path.relative_to(folder)) for path in found)


# records


def test_a_record_and_its_predictions_come_back_as_they_were(results):
    assert not results.has(RUN.key)
    assert results.keys() == []
    given = predictions()
    saved = results.save(record(RUN), given, trained=b"weights")
    assert results.has(RUN.key)
    assert results.keys() == [RUN.key]
    read = results.load(RUN.key)
    assert read.to_json() == saved.to_json()
    assert read.run == RUN
    arrays = results.predictions(read)
    assert set(arrays) == set(given)
    for name, array in given.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype
    assert results.trained(RUN.key).read_bytes() == b"weights"
    assert results.scan()[1] == {}
    assert files(results.folder) == [
        f"predictions/{RUN.key}.npz",
        f"records/{RUN.key}.json",
        f"trained/{RUN.key}.safetensors",
    ]


def test_equal_records_give_equal_bytes(results, tmp_path):
    other = ResultsFolder(tmp_path / "other")
    for folder in (results, other):
        folder.save(record(RUN), predictions())
    assert files(results.folder) == files(other.folder)
    for name in files(results.folder):
        assert (results.folder / name).read_bytes() == (other.folder / name).read_bytes()


def test_a_run_without_a_record_is_a_missing_file(results):
    with pytest.raises(FileNotFoundError):
        results.load(RUN.key)
    assert results.scan() == ([], {})
    assert not results.folder.exists()


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edited(path):
    edit(path, '"accuracy": 0.75', '"accuracy": 0.95')


def truncated(path):
    path.write_bytes(path.read_bytes()[:500])


def emptied(path):
    path.write_bytes(b"")


def not_text(path):
    path.write_bytes(b"\xff\xfe\x00" * 50)


def not_a_record(path):
    path.write_text("[1, 2]\n")


def of_another_schema(path):
    data = json.loads(path.read_text())
    data["schema"] = 99
    del data["sha256"]
    path.write_bytes(sealed(data))


def with_a_field_too_many(path):
    data = json.loads(path.read_text())
    del data["sha256"]
    data["verdict"] = "good"
    path.write_bytes(sealed(data))


DAMAGE = {
    edited: "was altered",
    truncated: "is not whole",
    emptied: "is not whole",
    not_text: "is not whole",
    not_a_record: "was altered",
    of_another_schema: "schema 99",
    with_a_field_too_many: "do not belong",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_a_damaged_record_is_refused_and_named(results, damage):
    results.save(record(RUN), predictions())
    results.save(record(OTHER), predictions())
    damage(results.folder / "records" / f"{RUN.key}.json")
    with pytest.raises(RecordError, match=DAMAGE[damage]):
        results.load(RUN.key)
    good, bad = results.scan()
    assert [one.run for one in good] == [OTHER]
    assert list(bad) == [RUN.key]
    assert DAMAGE[damage] in bad[RUN.key]


def test_a_seal_is_the_hash_of_the_bytes_before_it(results):
    results.save(record(RUN), predictions())
    path = results.folder / "records" / f"{RUN.key}.json"
    content, seal = path.read_bytes().split(b',\n "sha256": ')
    assert seal == b'"%b"\n}\n' % hashlib.sha256(content).hexdigest().encode()
    spaced = path.read_bytes().replace(b'"accuracy": 0.75', b'"accuracy":  0.75')
    path.write_bytes(spaced)  # the same content in other bytes
    with pytest.raises(RecordError, match="was altered"):
        results.load(RUN.key)


def test_a_renamed_record_is_refused(results):
    results.save(record(RUN), predictions())
    records = results.folder / "records"
    (records / f"{RUN.key}.json").rename(records / f"{OTHER.key}.json")
    with pytest.raises(RecordError, match=f"record of another run, {RUN.key}"):
        results.load(OTHER.key)


def test_edited_predictions_are_refused(results):
    saved = results.save(record(RUN), predictions())
    path = results.folder / "predictions" / f"{RUN.key}.npz"
    body = bytearray(path.read_bytes())
    body[len(body) // 2] ^= 1
    path.write_bytes(body)
    with pytest.raises(RecordError, match="not the file that was saved with its record"):
        results.predictions(saved)


def test_predictions_take_less_than_numpys_npz_and_numpy_reads_them(results):
    scores = np.random.default_rng(0).normal(size=(1500, 1)).astype(np.float16).astype(np.float32)
    given = {"item": np.arange(1500), "label": np.repeat([0, 1], 750), "scores": scores}
    buffer = BytesIO()
    np.savez_compressed(buffer, **given)

    body = io.packed(given)

    assert len(body) < 0.8 * len(buffer.getvalue())
    with np.load(BytesIO(body), allow_pickle=False) as arrays:
        assert {name: arrays[name].tolist() for name in arrays} == {
            name: array.tolist() for name, array in given.items()
        }
    dates = {member.date_time for member in ZipFile(BytesIO(body)).infolist()}
    assert dates == {(1980, 1, 1, 0, 0, 0)}  # so that equal predictions have equal hashes


def test_predictions_are_never_unpickled(results):
    """A results folder from elsewhere cannot run code."""
    pickled = np.array([print], dtype=object)
    with pytest.raises(ValueError, match="allow_pickle"):
        results.save(record(RUN), {"item": pickled})
    path = results.folder / "predictions" / f"{RUN.key}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, item=pickled)
    saved = replace(record(RUN), predictions_sha256=io.hash_file(path))
    with pytest.raises(ValueError, match="allow_pickle"):
        results.predictions(saved)


def test_files_that_are_no_records_are_left_alone(results):
    results.save(record(RUN), predictions())
    for name in ("notes.txt", "README.json", f"{RUN.key}.json.bak", f"{RUN.key}0.json"):
        (results.folder / "records" / name).write_text("mine")
    assert results.keys() == [RUN.key]


@pytest.mark.parametrize(
    "key", ["../../etc/x", "../x", "", "abc", "A" * 12, "0" * 13, "0" * 12 + "\n", "/" + "0" * 11]
)
def test_what_is_no_key_names_no_file(results, key):
    for path in (results.log, results.checkpoint, results.trained, results.has, results.load):
        with pytest.raises(RecordError, match="12 hexadecimal digits"):
            path(key)
    assert not results.folder.exists()


# failures


def test_failures_are_counted_and_end_with_the_record(results):
    assert results.failure(RUN.key) is None
    results.fail(Failure(RUN, "exit", "the worker ended"))
    again = results.fail(Failure(RUN, "diverged", "the loss is nan at step 3"))
    assert again.attempts == 2
    assert results.failure(RUN.key) == again
    results.save(record(RUN), predictions())
    assert results.failure(RUN.key) is None


def test_a_torn_note_of_a_failure_is_refused_and_overwritten(results):
    results.fail(Failure(RUN, "exit", "the worker ended"))
    truncated_note = results.folder / "failures" / f"{RUN.key}.json"
    truncated_note.write_bytes(truncated_note.read_bytes()[:40])
    with pytest.raises(RecordError, match="is not whole"):
        results.failure(RUN.key)
    assert results.fail(Failure(RUN, "exit", "again")).attempts == 1


# claims

HOLDER = """
import sys, time
from peftbench.results.store import ResultsFolder
results = ResultsFolder(sys.argv[1])
print([results.claim(key) for key in sys.argv[2:]], flush=True)
sys.stdin.read()
"""


def holder(results, *keys):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(results.folder), *keys],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


def test_a_claim_holds_between_processes_until_its_holder_ends(results):
    first, said = holder(results, RUN.key)
    with first:
        assert said == "[True]"
        assert not results.claim(RUN.key)
        assert results.claim(OTHER.key)
        second, said = holder(results, RUN.key, OTHER.key, "f" * 12)
        with second:
            assert said == "[False, False, True]"
            second.kill()
        first.send_signal(signal.SIGKILL)
    assert results.claim(RUN.key)
    assert results.claim("f" * 12)
    third, said = holder(results, RUN.key)
    with third:
        assert said == "[False]"
        third.kill()
    results.release(RUN.key)
    fourth, said = holder(results, RUN.key)
    with fourth:
        assert said == "[True]"
        fourth.kill()


def test_only_a_claimed_runs_own_drafts_are_dropped(results):
    results.check_writable()
    drafts = results.folder / "drafts"
    for name in (f"{RUN.key}.json-7", f"{RUN.key}.npz-7", f"{OTHER.key}.json-8"):
        (drafts / name).write_text("half")
    results.drop_drafts(RUN.key)
    assert files(drafts) == [f"{OTHER.key}.json-8"]


# whole or not at all


def test_a_failed_write_leaves_what_was_there(results, monkeypatch):
    target = results.folder / "reports" / "scores.md"
    results.write(target, b"before")

    def torn(*_):
        raise OSError(errno.EIO, "the disk has gone")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", torn)
        with pytest.raises(OSError, match="gone"):
            results.write(target, b"after")
    assert target.read_bytes() == b"before"
    assert files(results.folder) == ["reports/scores.md"]


def test_writers_with_one_process_number_leave_each_others_drafts_alone(results, monkeypatch):
    """As the first processes of two containers are: both have the number 1."""
    target, sync = results.folder / "reports" / "scores.md", os.fsync

    def meanwhile(file):
        monkeypatch.setattr(os, "fsync", sync)
        results.write(target, b"the other's")
        results.check_writable()
        sync(file)

    monkeypatch.setattr(os, "fsync", meanwhile)
    results.write(target, b"mine")
    assert target.read_bytes() == b"mine"
    assert files(results.folder) == ["reports/scores.md"]
    key = RUN.key
    draft = io.own_name(results.folder / "drafts" / f"{key}.json")
    (results.folder / "drafts" / draft).write_text("half")
    results.drop_drafts(key)
    assert results.drafts() == []


@pytest.mark.parametrize("mount", ["another disk", "the same disk"])
def test_a_subfolder_may_be_mounted(results, tmp_path, mount):
    """Between two mounts no file can be moved, not even of one file system."""
    results.check_writable()
    (tmp_path / "scratch").mkdir()
    options = {
        "another disk": ("-t", "tmpfs", "-o", "size=256k", "tmpfs"),
        "the same disk": ("--bind", str(tmp_path / "scratch")),
    }
    trained = results.trained(RUN.key)
    with mounted(trained.parent, *options[mount]):
        made = results.save(record(RUN), predictions(), b"weights")
        assert results.weights(made) == b"weights"
        assert results.drafts() == []
        draft = trained.with_name(io.own_name(trained))
        draft.write_bytes(b"half")  # as a killed process leaves it
        assert results.drafts() == [draft]
        results.drop_drafts(OTHER.key)
        assert results.drafts() == [draft]
        results.drop_drafts(RUN.key)
        assert files(trained.parent) == [trained.name]


def test_a_full_disk_takes_a_record_whole_or_not_at_all(small_disk):
    results = ResultsFolder(small_disk / "runs")
    results.save(record(RUN), predictions())
    before = files(results.folder)
    room = os.statvfs(small_disk)
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize - 4096))
    with pytest.raises(OSError, match="No space") as caught:
        results.save(record(OTHER), {"scores": np.random.default_rng(0).random((4000, 2))})
    assert caught.value.errno == errno.ENOSPC
    assert [name for name in files(results.folder) if "records" in name] == before[-1:]
    assert results.scan()[1] == {}
    assert not list((results.folder / "drafts").iterdir())
    filler.write_bytes(b"x" * (room.f_bavail * room.f_frsize))
    with pytest.raises(ConfigError, match="No space left"):
        results.check_writable()
    filler.unlink()
    results.check_writable()
    results.save(record(OTHER), predictions())
    assert len(results.keys()) == 2


def test_a_folder_that_cannot_be_written_to_is_refused_early(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"cannot write to the results folder .*--results"):
        ResultsFolder(tmp_path / "file" / "runs").check_writable()


def test_a_read_only_folder_is_refused_early(tmp_path):
    with mounted(tmp_path / "disk", "-t", "tmpfs", "-o", "size=64k,ro", "tmpfs") as folder:
        with pytest.raises(ConfigError, match="Read-only"):
            ResultsFolder(folder / "runs").check_writable()
        with pytest.raises(ConfigError, match="Read-only"):
            ResultsFolder(folder).check_writable()


def test_checking_a_folder_leaves_no_file(results):
    results.check_writable()
    assert files(results.folder) == []
