"""Claims: with locks, without them, and in the folder of a colleague.

File systems without locks are simulated: `fcntl.lockf` raises what such a system raises. Other
machines are simulated by claims that name them.
"""

import errno
import fcntl
import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from records import predictions, record, runs

from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder
from peftbench.system import io, processes, run_locks

KEY, OTHER = "0123456789ab", "ba9876543210"

NO_LOCKS = {
    errno.ENOLCK: "No locks available",  # NFS without its lock service
    errno.ENOSYS: "Function not implemented",  # Lustre without flock
    errno.EOPNOTSUPP: "Operation not supported",  # many FUSE mounts
}


@pytest.fixture(params=NO_LOCKS)
def without_locks(request, monkeypatch):
    """The reason that a file system without locks gives."""

    def refuse(*_):
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "lockf", refuse)
    return NO_LOCKS[request.param]


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


def claim_files(results):
    return sorted(path.name for path in (results.folder / "claim_files").glob("*.[0-9]*"))


def put(results, number, owner, **more):
    """A claim by a file, as another process leaves it."""
    path = results.folder / "claim_files" / f"{KEY}.{number}"
    path.write_text(json.dumps(owner.to_json() | more))
    return path


def test_with_locks_there_is_nothing_to_say_and_no_file(results):
    assert results.check_claims() is None
    assert list(results.folder.iterdir()) == []
    assert results.claim(KEY)
    assert results.check_claims() is None
    assert not (results.folder / "claim_files").exists()


def test_without_locks_it_is_said_and_files_are_claims(results, without_locks):
    told = results.check_claims()
    assert f"has no locks ({without_locks})" in told
    assert str(results.folder / "claim_files") in told
    readme = (results.folder / "claim_files" / "README.txt").read_text()
    assert without_locks in readme
    assert claim_files(results) == []  # the trial was given back
    assert results.claim(KEY)
    assert results.claim(KEY)  # as with locks, a process may take what it has
    assert claim_files(results) == [f"{KEY}.1"]
    results.release(KEY)
    assert claim_files(results) == []


MOUNTS = {
    "nfs4 rw,relatime - nfs4 server:/x rw,vers=4.2,local_lock=none": None,
    "nfs rw,relatime - nfs server:/x rw,vers=3,nolock,local_lock=all": "nfs mounted with nolock",
    "nfs of one sort rw shared:4 - nfs server:/x rw,local_lock=posix": "with local_lock=posix",
    "nfs flock rw - nfs server:/x rw,vers=3,local_lock=flock": None,  # ours are of the other sort
    "lustre rw - lustre 10.0.0.1@tcp:/x rw,flock,lazystatfs": None,
    "local lustre rw - lustre 10.0.0.1@tcp:/x rw,localflock": "lustre mounted with localflock",
    "smb rw - cifs //server/x rw,vers=3.0,nobrl": "cifs mounted with nobrl",
    "beegfs rw - beegfs beegfs_nodev rw,cfgFile=/etc/beegfs.conf": "beegfs: no machine",
    "sshfs rw - fuse.sshfs user@server:/x rw,user_id=0": "fuse.sshfs: no machine sees",
    "disk rw,relatime - ext4 /dev/sda1 rw": None,
}


@pytest.mark.parametrize("line", MOUNTS)
def test_locks_that_other_machines_do_not_see_are_none(tmp_path, monkeypatch, line):
    name, _, options = line.partition(" rw")
    folder = tmp_path / name
    folder.mkdir()
    point = str(folder).replace(" ", r"\040")
    lines = [
        "22 1 0:20 / / rw - ext4 /dev/sda1 rw",
        f"23 22 0:21 / {tmp_path} rw - nfs server:/home rw,nolock",
        f"24 23 0:22 / {point} rw{options}",
        f"25 24 0:23 / {point}/other rw - nfs server:/other rw,nolock",
    ]
    (tmp_path / "mountinfo").write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(run_locks, "_MOUNTS", tmp_path / "mountinfo")
    results = ResultsFolder(folder / "runs")
    told = results.check_claims()
    if MOUNTS[line] is None:
        assert told is None
        assert results.claim(KEY)
        assert not (results.folder / "claim_files").exists()
    else:
        assert MOUNTS[line] in told
        assert results.claim(KEY)
        assert claim_files(results) == [f"{KEY}.1"]
        readme = (results.folder / "claim_files" / "README.txt").read_text()
        assert MOUNTS[line] in readme


def test_the_mounts_of_this_machine_are_read(tmp_path):
    if not run_locks._MOUNTS.exists():
        pytest.skip("not Linux")
    assert ResultsFolder(tmp_path).check_claims() is None


HOLDER = """
import errno, fcntl, os, sys
from peftbench.results.store import ResultsFolder
def refuse(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
if sys.argv[2] == "without":
    fcntl.lockf = refuse
results = ResultsFolder(sys.argv[1])
results.check_claims()
print([results.claim(key) for key in sys.argv[3:]], flush=True)
sys.stdin.read()
"""


def holder(results, locks, *keys):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(results.folder), locks, *keys],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return process, process.stdout.readline().strip()


@pytest.mark.parametrize("second", ["with", "without"])
def test_a_claim_by_file_holds_between_processes_until_its_holder_is_killed(results, second):
    first, said = holder(results, "without", KEY)
    with first:
        assert said == "[True]"
        other, said = holder(results, second, KEY, OTHER)
        with other:
            assert said == "[False, True]", "a process with locks has to see files too"
            assert not results.claim(KEY)
            assert f"process {first.pid} on" in results.claimed_by(KEY)
            other.kill()
        first.kill()
    assert results.claim(KEY)
    assert claim_files(results) == [f"{KEY}.2", f"{OTHER}.1"]  # the dead one's is gone


def test_a_claim_from_another_machine_stays_and_says_how_to_free_the_run(results, without_locks):
    results.check_claims()
    there = replace(processes.current(), host="node7 0123", pid=99)
    path = put(results, 1, there)
    assert not results.claim(KEY)
    told = results.claimed_by(KEY)
    assert "process 99 on node7 has it since 20" in told
    assert f"if that is over, remove {path}" in told
    path.unlink()
    assert results.claim(KEY)


@pytest.mark.parametrize(
    ("turn", "free"),
    [("s/0_1/1", True), ("s/0_1/2", False), ("s/0_1/3", False), ("s/0_2/1", False), ("", False)],
)
def test_a_job_passes_by_what_its_earlier_turn_left_on_another_node(
    results, without_locks, monkeypatch, turn, free
):
    results.check_claims()
    put(results, 1, replace(processes.current(), host="node7 0123"), turn=turn)
    monkeypatch.setenv(run_locks.TURN, "s/0_1/2")
    assert results.claim(KEY) == free
    assert claim_files(results) == [f"{KEY}.{2 if free else 1}"]
    if free:
        mine = json.loads((results.folder / "claim_files" / f"{KEY}.2").read_text())
        assert mine["turn"] == "s/0_1/2"
        results.release(KEY)
        assert claim_files(results) == []


def test_a_claim_that_is_being_written_counts(results, without_locks):
    results.check_claims()
    (results.folder / "claim_files" / f"{KEY}.1").touch()
    assert not results.claim(KEY)
    assert "an unknown process has it" in results.claimed_by(KEY)


def test_claims_of_dead_processes_are_passed_by_and_removed(results, without_locks):
    results.check_claims()
    put(results, 1, replace(processes.current(), boot="before"))
    put(results, 2, replace(processes.current(), start="1"))
    assert results.claim(KEY)
    assert claim_files(results) == [f"{KEY}.3"]


def test_of_two_that_see_the_same_dead_claim_one_gets_the_run(results, without_locks, monkeypatch):
    """The other one makes its file between this one's look and its own file."""
    results.check_claims()
    put(results, 1, replace(processes.current(), boot="before"))
    real, raced = os.open, []

    def late(path, flags, *mode):
        if str(path).endswith(f"{KEY}.2") and not raced:
            raced.append(put(results, 2, replace(processes.current(), host="node7 0")))
        return real(path, flags, *mode)

    monkeypatch.setattr(os, "open", late)
    assert not results.claim(KEY)
    assert raced


def test_a_full_disk_leaves_no_claim_of_nobody(results, without_locks, monkeypatch):
    results.check_claims()

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            results.claim(KEY)
    assert results.claim(KEY)


def test_another_error_of_locks_is_refused_before_work(results, monkeypatch):
    def broken(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "lockf", broken)
    with pytest.raises(ConfigError, match=r"no run can be claimed in .*: Input/output.*--results"):
        results.check_claims()


# a folder of several people


def as_another_user(do):
    """What `do` returns, as text, for a user who is neither root nor the owner of the files.

    Where these tests have no root the files are made unwritable for their owner instead.
    """
    if os.geteuid() != 0:
        return do()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.write(write, do().encode())
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.fixture
def shared(tmp_path):
    """A results folder that any user may reach, made by this one."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == os.geteuid() and folder.name.startswith(
            ("pytest-", "popen-", tmp_path.name)
        ):
            folder.chmod(0o755)
    found = ResultsFolder(tmp_path / "runs")
    found.check_writable()
    assert found.claim(KEY)
    found.release(KEY)
    return found


def message(check):
    """The refusal of a check."""
    try:
        return f"no refusal: {check()}"
    except ConfigError as error:
        return str(error)


def test_the_claims_of_a_colleague_are_refused_with_what_to_do(shared):
    folder = shared.folder
    folder.chmod(0o777)
    (folder / "claims").chmod(0o444)
    told = as_another_user(lambda: message(ResultsFolder(folder).check_claims))
    assert f"{folder / 'claims'} is " in told
    assert "(-r--r--r--); ask " in told
    assert f"chmod -R g+rwX {folder}" in told
    assert "--results" in told


@pytest.mark.parametrize("kind", ["records", "logs", "drafts"])
def test_a_folder_of_a_colleague_is_refused_before_work(shared, kind):
    folder = shared.folder
    for name in ("records", "logs", "drafts"):
        (folder / name).mkdir(exist_ok=True)
        (folder / name).chmod(0o777)
    folder.chmod(0o777)
    (folder / kind).chmod(0o555)
    told = as_another_user(lambda: message(ResultsFolder(folder).check_writable))
    assert f"cannot write to the results folder {folder}: {folder / kind} is " in told
    assert "(dr-xr-xr-x)" in told


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_in_a_group_writable_folder_all_is_group_writable_whatever_the_umask(tmp_path, umask):
    results = ResultsFolder(tmp_path / "runs")
    results.folder.mkdir()
    results.folder.chmod(0o2775)
    before = os.umask(umask)
    try:
        results.check_writable()
        results.claim(KEY)
        results.write(results.cache("deep/er/file"), b"1")
        io.make_folder(results.log(KEY).parent)
        io.write_whole(results.folder / "claim_files" / "README.txt", b"as where no locks are")
        assert results.claim("1" * 12)
        results.save(record(runs()[0]), predictions())
    finally:
        os.umask(before)
    files = [path for path in results.folder.rglob("*") if path.is_file()]
    folders = {path.parent.name for path in files}
    assert folders == {"runs", "er", "claim_files", "records", "predictions"}
    assert {path.name: path.stat().st_mode & 0o060 for path in files} == {
        path.name: 0o060 for path in files
    }
    for name in ("drafts", "logs", "cache", "cache/deep", "cache/deep/er"):
        mode = (results.folder / name).stat().st_mode
        assert mode & stat.S_IWGRP, name
        assert mode & stat.S_ISGID, name


def test_elsewhere_the_umask_decides(tmp_path):
    before = os.umask(0o022)
    try:
        results = ResultsFolder(tmp_path / "runs")
        results.check_writable()
        results.claim(KEY)
        results.write(results.cache("file"), b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE(results.cache("file").stat().st_mode) == 0o644
    assert stat.S_IMODE((results.folder / "drafts").stat().st_mode) == 0o755
    assert stat.S_IMODE((results.folder / "claims").stat().st_mode) == 0o644


def test_a_folder_for_everybody_shares_nothing(tmp_path):
    """As /tmp, whose group may be that of all users."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp").chmod(0o1777)
    before = os.umask(0o022)
    try:
        io.make_folder(tmp_path / "tmp" / "runs")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "tmp" / "runs").stat().st_mode) == 0o755


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError, match=str(tmp_path / "file")):
        io.make_folder(tmp_path / "file" / "runs")


def test_a_folder_that_another_process_makes_at_once_is_no_file_in_the_way(tmp_path, monkeypatch):
    looked = Path.is_dir
    answers = [False]

    def is_dir(path):
        if path.name == "shared" and answers:
            path.mkdir()  # by another, just after the first look
            return answers.pop()
        return looked(path)

    monkeypatch.setattr(Path, "is_dir", is_dir)
    io.make_folder(tmp_path / "shared")
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        io.make_folder(tmp_path / "file")
