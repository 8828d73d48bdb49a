"""Claims: of all processes that share a results folder, one at a time does a run.

A claim is one byte of the file `claims`, at the offset that the run's key spells, locked by the
kernel, which lets go when the process ends, however it ends.

Some file systems have no locks (NFS without its lock service, Lustre without `-o flock`, many FUSE
mounts), and some have those of each machine alone, which the options of the mount tell (NFS with
`nolock`, Lustre with `localflock`). There a claim is a file of its own in `claim_files`, made with
O_EXCL, that names the process: its machine, boot, number and start. Once that folder is there,
every process takes such a file, whether it could lock or not, so that all of them exclude each
other. A file whose process is over is passed by. Of a process on another machine that cannot be
told: its claim stays until the file is removed. A job of a cluster names its turn in the file too:
its next turn passes it by, as a scheduler runs one at a time.
"""

import errno
import fcntl
import json
import os
import pwd
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from peftbench.core.errors import ConfigError
from peftbench.system import io, processes
from peftbench.system.processes import Process

#: What the system says where a file system has no locks.
NO_LOCKS = frozenset(
    {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY}
)

#: Another process has the lock, in the two ways in which systems say so.
_TAKEN = frozenset({errno.EAGAIN, errno.EACCES})

#: How spaces and the like stand in names of `_MOUNTS`.
_ESCAPED = re.compile(r"\\([0-7]{3})")

#: The variable with the turn of a job of a cluster in which a process works: SUBMISSION/TASK/TURN.
TURN = "PEFTBENCH_TURN"

#: A byte that no key of 12 hexadecimal digits spells, and a key that no run has, to try with.
_BEYOND, _NOBODY = 1 << 48, "nobody"

#: Where the system tells what is mounted, as man 5 proc has it.
_MOUNTS = Path("/proc/self/mountinfo")

#: Options of mounts with which a lock is not seen by other machines, by type of file system; for
#: one without options that is always so.
_UNSHARED = {
    "nfs": ("nolock", "local_lock=all", "local_lock=posix"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=posix"),
    "lustre": ("localflock",),
    "cifs": ("nobrl",),
    "smb3": ("nobrl",),
    "fuse.sshfs": (),
    "beegfs": (),  # unless tuneUseGlobalFileLocks is set, which the mount does not tell
}

_README = """\
The file system of this folder had no locks when a process tried them: {reason}.
So whoever trains or evaluates a run here has a file of its name, which says which process that is.
A process that was killed on another machine leaves its file behind: remove it to free the run.
(Of jobs of a cluster the next turn, `peftbench collect` and `peftbench submit` do that.)
When every machine that uses this folder has locks, and nothing runs, remove this folder.
"""


@dataclass(frozen=True)
class _Claim:
    """A claim by a file.

    Attributes:
        owner: whose it is; None for one that does not say (yet).
        turn: as of `TURN`; empty for what is no job of a cluster.
    """

    path: Path
    owner: Process | None
    turn: str = ""

    @property
    def task(self) -> str:
        """SUBMISSION/TASK."""
        return self.turn.rpartition("/")[0]

    @property
    def may_live(self) -> bool:
        """Whether its process may be there."""
        mine, _, now = os.environ.get(TURN, "").rpartition("/")
        if mine and mine == self.task and int(self.turn.rpartition("/")[2]) < int(now):
            return False
        return self.owner is None or self.owner.is_alive() is not False


class Claims:
    """The claims on what is done into one results folder.

    Args:
        locks: the file whose bytes are locked, in the results folder; both are made when the first
            claim is taken.
        files: the folder of claims by file, where they are needed.
    """

    def __init__(self, locks: Path, files: Path):
        self._folder, self._path, self._files = locks.parent, locks, files
        self._locks: int | None = None

    def check_locking(self) -> str | None:
        """Take and give back a claim, before any work; return what a person should know of it.

        Raises:
            ConfigError: if none can be taken, with what to do.
        """
        try:
            reason = self._try_lock() or _unshared(self._folder)
            if reason is not None and not self._files.is_dir():
                io.make_folder(self._files)
                io.write_whole(self._files / "README.txt", _README.format(reason=reason).encode())
            if not self._files.is_dir():
                return None
            self._take_file(_NOBODY)
            self._give_file_back(_NOBODY)
        except OSError as error:
            raise ConfigError(self._refusal(error)) from error
        if reason is None:
            return (
                f"runs are claimed by files in {self._files} too, as a machine without locks has "
                "used this folder; its README.txt says more"
            )
        return (
            f"the file system of {self._folder} has no locks ({reason}): runs are claimed by files "
            f"in {self._files}; its README.txt says more"
        )

    def take(self, key: str) -> bool:
        """Take a run for this process, unless another process has it.

        Raises:
            OSError: if the file system takes no claim, which `check` tells before work.
        """
        by_file = self._files.is_dir()
        if not self._take_lock(key, needed=not by_file):
            return False
        if by_file and not self._take_file(key):
            self._give_lock_back(key)
            return False
        return True

    def give_back(self, key: str) -> None:
        """Give a claimed run back."""
        if self._files.is_dir():
            self._give_file_back(key)
        self._give_lock_back(key)

    def holder(self, key: str) -> str:
        """Who has a run, as far as it is known, and how to free it."""
        for claim in (one for one in self._claimants(key) if one.may_live):
            if claim.owner is None or claim.owner.is_alive() is None:
                who = "an unknown process" if claim.owner is None else claim.owner.title
                since = ""
                with suppress(OSError):
                    made = time.gmtime(claim.path.stat().st_mtime)
                    since = time.strftime(" since %Y-%m-%d %H:%M UTC", made)
                return f"{who} has it{since}; if that is over, remove {claim.path}"
            return f"{claim.owner.title} has it"
        return "another process has it"

    def remove(self, is_over: Callable[[str], bool]) -> None:
        """Remove claims by file of jobs of a cluster that are over.

        Args:
            is_over: whether a job is, by SUBMISSION/TASK.
        """
        for claim in self._claimants("*"):
            if claim.task and is_over(claim.task):
                claim.path.unlink(missing_ok=True)

    # locks

    def _try_lock(self) -> str | None:
        """Why there are no locks; None where there are. A folder without claims stays without."""
        if self._path.exists():
            return _lock_error(self._file())
        io.make_folder(self._folder)
        probe = self._path.with_name(io.own_name(self._path))
        file = os.open(probe, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            return _lock_error(file)
        finally:
            os.close(file)
            probe.unlink(missing_ok=True)

    def _take_lock(self, key: str, needed: bool) -> bool:
        file = self._file()
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, int(key, 16))
        except OSError as error:
            if error.errno in _TAKEN:
                return False
            if needed or error.errno not in NO_LOCKS:
                raise
        return True

    def _give_lock_back(self, key: str) -> None:
        try:
            fcntl.lockf(self._file(), fcntl.LOCK_UN, 1, int(key, 16))
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise

    def _file(self) -> int:
        if self._locks is None:
            io.make_folder(self._folder)
            self._locks = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            io.share(self._path)
        return self._locks

    # files

    def _take_file(self, key: str) -> bool:
        """Claim by a file.

        Files of a key are numbered, as a dead one cannot be replaced without a moment in which two
        processes think that they do it. The one who makes the next number has the claim, unless
        a living claim came up meanwhile.
        """
        me = processes.current()
        found = self._claimants(key)
        if any(one.owner == me for one in found):
            return True
        if any(one.may_live for one in found):
            return False
        number = 1 + max((int(one.path.suffix[1:]) for one in found), default=0)
        mine = self._files / f"{key}.{number}"
        try:
            file = os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        try:
            turn = {"turn": os.environ[TURN]} if os.environ.get(TURN) else {}
            os.write(file, json.dumps(me.to_json() | turn).encode())
            os.fsync(file)  # NFS tells of a full disk no earlier
            io.share(mine)
        except OSError:  # a full disk: a claim that names nobody would stay
            mine.unlink()
            raise
        finally:
            os.close(file)
        others = [one for one in self._claimants(key) if one.owner != me]
        if any(one.may_live for one in others):
            mine.unlink()
            return False
        for other in others:
            other.path.unlink(missing_ok=True)
        return True

    def _give_file_back(self, key: str) -> None:
        me = processes.current()
        for claim in self._claimants(key):
            if claim.owner == me:
                claim.path.unlink(missing_ok=True)

    def _claimants(self, key: str) -> list[_Claim]:
        """Claims by file, of a key or of all (`*`)."""
        found = []
        for path in sorted(self._files.glob(f"{key}.*")):
            if path.suffix[1:].isdigit():
                try:
                    data = json.loads(path.read_bytes())
                    turn = data.pop("turn", "")
                    found.append(_Claim(path, Process.read(data), turn))
                except FileNotFoundError:
                    continue
                except (ValueError, AttributeError):  # torn, or not written yet
                    found.append(_Claim(path, None))
        return found

    def _refusal(self, error: OSError) -> str:
        path = Path(error.filename or self._path)
        if isinstance(error, PermissionError) and path.exists():
            return not_writable(self._folder, path)
        return (
            f"no run can be claimed in {self._folder}: {error.strerror}; choose another folder "
            "with --results"
        )


def _lock_error(file: int) -> str | None:
    """What the system says where a file cannot be locked; None where it can."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BEYOND)
        fcntl.lockf(file, fcntl.LOCK_UN, 1, _BEYOND)
    except OSError as error:
        if error.errno in NO_LOCKS:
            return error.strerror
        if error.errno not in _TAKEN:  # else another process tries at this moment
            raise
    return None


def _unshared(folder: Path) -> str | None:
    """Why machines do not see each other's locks in a folder; None where they do, or alone use it.

    The kernel locks all the same: only the mount tells.
    """
    try:
        lines = os.fsdecode(_MOUNTS.read_bytes()).splitlines()
    except OSError:  # not Linux
        return None
    place, found = folder.resolve(), None
    for line in lines:
        before, _, after = line.partition(" - ")
        point = Path(_ESCAPED.sub(lambda code: chr(int(code[1], 8)), before.split()[4]))
        if point == place or point in place.parents:
            depth = len(point.parts)
            if found is None or depth >= found[0]:  # the later one of two lies over the other
                kind, _, options = after.split(" ", 2)
                found = depth, kind, {*before.split()[5].split(","), *options.split(",")}
    if found is None or found[1] not in _UNSHARED:
        return None
    _, kind, given = found
    named = [name for name in _UNSHARED[kind] if name in given]
    if _UNSHARED[kind] and not named:
        return None
    told = f" mounted with {named[0]}" if named else ""
    return f"{kind}{told}: no machine sees those of another"


def not_writable(folder: Path, path: Path) -> str:
    """Why a results folder of someone else cannot be used, and what to do."""
    owner = _user(path.stat().st_uid)
    mode = stat.filemode(path.stat().st_mode)
    ask = f"ask {owner} for `chmod -R g+rwX {folder}`, in a group that you both are in, or "
    return (
        f"cannot write to the results folder {folder}: {path} is {owner}'s ({mode}); "
        f"{ask if folder.exists() else ''}choose another folder with --results"
    )


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
