"""Files that are whole or absent, and that say so: sealed JSON, arrays without pickle."""

import errno
import fcntl
import hashlib
import io
import json
import os
import re
import secrets
import shutil
import stat
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from peftbench.core.errors import ClosedFileError, RecordError
from peftbench.core.run import Json, of_schema
from peftbench.core.text import decoded

if TYPE_CHECKING:
    import numpy as np

T = TypeVar("T")

#: Bytes that are read at once; files of less are read in one go.
_SMALL = 1 << 16


def write_whole(path: Path, body: bytes, drafts: Path | None = None) -> None:
    """Put `body` at `path`, whole or not at all, through a draft on the same file system.

    Args:
        path: where to.
        body: all of the file.
        drafts: the folder for the draft; that of `path` by default, and where the two are on
            several file systems (a link or a mount), between which no file can be moved.
    """
    make_folder(path.parent)
    if drafts is not None:
        make_folder(drafts)
        if drafts.stat().st_dev == path.parent.stat().st_dev:
            try:
                _write_whole(path, body, drafts)
                return
            except OSError as error:
                if error.errno != errno.EXDEV:  # two mounts of one file system
                    raise
    _write_whole(path, body, path.parent)


def _write_whole(path: Path, body: bytes, drafts: Path) -> None:
    draft = drafts / own_name(path)
    try:
        with open(draft, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(file.fileno())
        share(draft, path.parent)
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


#: What `own_name` puts behind the name of a file.
_OWN = re.compile(r"-[0-9a-f]{8}$")


def check_writable(path: Path) -> None:
    """Find out before long work whether a file can be written; nothing is left of it.

    Raises:
        OSError: if it cannot.
    """
    make_folder(path.parent)
    draft = path.parent / own_name(path)
    draft.touch()
    draft.unlink()


def drafts_in(folder: Path) -> list[Path]:
    """Drafts that lie beside the files which they are of."""
    return [path for path in folder.glob("*-????????") if _OWN.search(path.name)]


def own_name(path: Path) -> str:
    """A name beside that of `path` that no other writer has; containers share process numbers."""
    return f"{path.name}-{secrets.token_hex(4)}"


def folder_once(place: Path, fill: Callable[[Path], None]) -> None:
    """Make a folder once, whole or not at all, by way of a draft beside it that `fill` fills.

    Processes that ask at once wait for the first of them.

    Raises:
        OSError: if it cannot be written.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_name(f".{place.name}.lock"), "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if place.is_dir():
            return
        draft = place.with_name(f".{place.name}")
        shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
        draft.mkdir()
        try:
            fill(draft)
            for path in draft.iterdir():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
            draft.rename(place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing; one that is there stays as it is.

    Each is writable for the group where the one above it is, whatever the umask: who shares a
    folder means all that is made in it. Folders for everybody (/tmp) share nothing.

    Raises:
        NotADirectoryError: if a file is in the way.
    """
    if path.is_dir():
        return
    if path.exists() and not path.is_dir():  # another process or thread may have just made it
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    make_folder(path.parent)
    path.mkdir(exist_ok=True)
    share(path)


def share(path: Path, folder: Path | None = None) -> None:
    """Let the group write to a file or folder of this user's, if it may to the folder above.

    Args:
        path: the file or folder.
        folder: the one above, where it is still to be moved there.
    """
    above, here = (folder or path.parent).stat().st_mode, path.stat()
    shared = above & stat.S_IWGRP and not above & stat.S_ISVTX
    if not shared or here.st_uid != os.geteuid():
        return
    more = stat.S_IRGRP | stat.S_IWGRP
    if stat.S_ISDIR(here.st_mode):
        more |= stat.S_IXGRP | above & stat.S_ISGID
    if here.st_mode | more != here.st_mode:
        path.chmod(stat.S_IMODE(here.st_mode | more))


def quickly(path: str) -> tuple[bytes, os.stat_result]:
    """The bytes of a small file, past Python's own files, which take longer than the reading.

    The status is that of the file which is read, from before its bytes are.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(file)
        body = os.read(file, _SMALL)
        if len(body) == _SMALL:
            body += b"".join(iter(lambda: os.read(file, _SMALL), b""))
        return body, status
    finally:
        os.close(file)


def digest(body: bytes) -> str:
    """SHA-256, in hexadecimal digits."""
    return hashlib.sha256(body).hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file as they are now."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_files(paths: tuple[Path, ...]) -> str:
    """SHA-256 of the bytes of files, one after the other; read once while they do not change."""
    return _hash_at(tuple(map(file_stamp, paths)))


FileStamp = tuple[Path, int, int, int]


def file_stamp(path: Path) -> FileStamp:
    """What changes with a file; the last of its times cannot be set by hand."""
    stat = path.stat()
    return path, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


@cache
def _hash_at(files: tuple[FileStamp, ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in files:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()


def sealed(data: Json) -> bytes:
    """JSON of a non-empty object, ending with the SHA-256 of all bytes before the hash's own line.

    Checking it needs no second serialisation, whatever wrote the file.
    """
    text = json.dumps(data, indent=1, allow_nan=False)
    if "\\udc" in text:  # a path that is not UTF-8: no reader of JSON takes that
        text = json.dumps(_decoded(data), indent=1, allow_nan=False)
    content = text.encode().removesuffix(b"\n}")
    return content + seal_of(content)


def _decoded(value: Any) -> Any:
    if isinstance(value, str):
        return decoded(value)
    if isinstance(value, dict):
        return {key: _decoded(inner) for key, inner in value.items()}
    return [_decoded(inner) for inner in value] if isinstance(value, list | tuple) else value


def seal_of(content: bytes) -> bytes:
    """What `sealed` puts behind a content: its hash, and the end of the object."""
    return b',\n "sha256": "%b"\n}\n' % digest(content).encode()


#: Bytes of a seal.
SEAL_LENGTH = len(seal_of(b""))


def has_seal(body: bytes) -> bool:
    """Whether bytes end with the hash of those before it, as `sealed` gave them."""
    return body[-SEAL_LENGTH:] == seal_of(body[:-SEAL_LENGTH])


def unsealed(path: Path) -> Json:
    """Read what `sealed` gave.

    Raises:
        FileNotFoundError: if there is no such file.
        ClosedFileError: if the system does not let it be read.
        RecordError: if it is torn or was altered.
    """
    return unsealed_bytes(read_bytes(path), path)


def read_bytes(path: Path) -> bytes:
    """The bytes of a file.

    Raises:
        FileNotFoundError, NotADirectoryError: if there is no such file.
        ClosedFileError: if the system does not let it be read.
    """
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ClosedFileError(f"{path} cannot be read: {error.strerror}") from error


def unsealed_bytes(body: bytes, name: str | Path) -> Json:
    """The object in the bytes that `sealed` gave.

    Args:
        name: of the file, for the message.

    Raises:
        RecordError: if they are torn or were altered, or have the seal of another schema.
    """
    try:
        data: Any = orjson.loads(body)
    except ValueError as error:
        raise RecordError(f"{name} is not whole: {error}") from error
    if not isinstance(data, dict) or not has_seal(body):
        if isinstance(data, dict) and "schema" in data:
            of_schema(str(name), data)  # in schema 1 the seal was another one
        raise RecordError(f"{name} was altered: its content does not hash to what it says")
    del data["sha256"]
    return data


def readable(keys: list[str], read: Callable[[str], T]) -> tuple[list[T], dict[str, str]]:
    """What can be read, in the order of the keys, and what is wrong with each of the others.

    A file that was removed since its key was listed is in neither.
    """
    good, bad = [], {}
    for key in keys:
        try:
            good.append(read(key))
        except FileNotFoundError:
            continue
        except RecordError as error:
            bad[key] = str(error)
    return good, bad


def checked(path: Path, expected: str | None) -> bytes:
    """The bytes of a file, if they have the expected hash.

    Raises:
        RecordError: if it is another file, or there is none.
    """
    try:
        body = read_bytes(path)
    except FileNotFoundError as error:
        raise RecordError(f"{path} is gone, which was saved with its record") from error
    if digest(body) != expected:
        raise RecordError(f"{path} is not the file that was saved with its record")
    return body


def packed(arrays: "dict[str, np.ndarray]") -> bytes:
    """Arrays as one npz, in bytes that depend on nothing else.

    LZMA: a quarter less than what `numpy.savez_compressed` needs for predictions, and `numpy.load`
    reads either.
    """
    import numpy as np

    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")  # its time is 1980, whenever it is written
            member.compress_type = zipfile.ZIP_LZMA
            whole = io.BytesIO()
            np.lib.format.write_array(whole, array, allow_pickle=False)
            archive.writestr(member, whole.getvalue())
    return buffer.getvalue()


def unpacked(path: Path, expected: str | None) -> "dict[str, np.ndarray]":
    """Read what `packed` gave, if it has the expected hash.

    Raises:
        RecordError: if it is another file.
    """
    import numpy as np

    with np.load(io.BytesIO(checked(path, expected)), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
