"""Talking to the hub: waits where it asks for that, says what travels, tells reasons apart."""

import fnmatch
import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, TypeVar

from peftbench.core.errors import ConfigError, first_line
from peftbench.system import memo

T = TypeVar("T")

#: Seconds that a command waits in all for a hub that asks for patience.
PATIENCE = 300.0

#: Seconds between two lines about a transfer.
EVERY = 10.0

_checked: set[tuple[str, int, int]] = set()


def say(line: str) -> None:
    """A line for a person, beside what a command prints."""
    print(line, file=sys.stderr, flush=True)


def patiently(name: str, ask: Callable[[], T]) -> T:
    """What `ask` returns; while the hub is busy it is called again, when the hub says so.

    Raises:
        Exception: what `ask` raised, if it is another error or lasts longer than `PATIENCE`.
    """
    waited, pause = 0.0, 2.0
    while True:
        try:
            return ask()
        except Exception as error:
            status, asked = _busy(error)
            delay = pause if asked is None else max(0.5, asked)
            if status is None or waited + delay > PATIENCE:
                raise
            say(f"{name}: the hub answers {status} (busy); trying again in {delay:.0f} s")
            time.sleep(delay)
            waited, pause = waited + delay, 2 * pause


#: Too many requests, and what a gateway says of a hub that does not answer for a moment.
_BUSY = (429, 502, 503, 504)


def _busy(error: BaseException) -> tuple[int | None, float | None]:
    """The status if the hub asks for patience, and the seconds that it names."""
    for one in _chain(error):
        response = getattr(one, "response", None)
        if response is not None and response.status_code in _BUSY:
            return response.status_code, _seconds(response.headers.get("Retry-After"))
    return None, None


def _seconds(header: str | None) -> float | None:
    """Of a Retry-After header, which holds seconds or a date."""
    if header is None:
        return None
    try:
        return float(header)
    except ValueError:
        pass
    try:
        return parsedate_to_datetime(header).timestamp() - time.time()
    except ValueError:
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def reason(error: BaseException, name: str, revision: str | None) -> str:
    """Why the hub did not give something, and what to do about it."""
    import httpx
    from huggingface_hub import errors

    chain = list(_chain(error))
    said: tuple[tuple[Any, str], ...] = (
        (
            errors.GatedRepoError,
            f"{name} is gated: accept its terms on its page on the hub, and set HF_TOKEN to a "
            "token of that account",
        ),
        (
            errors.RevisionNotFoundError,
            f"the hub has {name}, but no revision {revision}: check model.revision",
        ),
        (
            errors.RepositoryNotFoundError,
            f"the hub has no repository {name}: check its spelling, or, if it is private, set "
            "HF_TOKEN",
        ),
        (errors.RemoteEntryNotFoundError, f"{name} has no such file: {first_line(chain[0])}"),
        (
            errors.DisabledRepoError,
            f"the hub has disabled {name}: take another one, or a copy of your own",
        ),
        (
            errors.OfflineModeIsEnabled,
            "HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set, and the cache does not have it",
        ),
    )
    for kind, text in said:
        if any(isinstance(one, kind) for one in chain):
            return text
    for one in chain:
        response = getattr(one, "response", None)
        if response is not None:
            status = int(response.status_code)
            return {
                401: "the hub refuses access (401): set HF_TOKEN to a valid token",
                403: "the hub refuses access (403): this token may not read it",
                429: "too many requests (429): wait some minutes, or set HF_TOKEN, which may ask "
                "more often",
            }.get(status, f"the hub answers {status}: try again later")
    if any(isinstance(one, httpx.ConnectError | httpx.ConnectTimeout) for one in chain):
        return "no connection to the hub: check the network, or the proxy (HTTPS_PROXY)"
    broken = any(isinstance(one, httpx.TransportError) for one in chain)
    if broken or any("onsistency check" in str(one) for one in chain):
        return "the transfer broke off: the same command goes on where it stopped"
    return first_line(error)


@contextmanager
def progress(
    name: str, revision: str | None, kind: str, patterns: list[str], blobs: Path
) -> Iterator[None]:
    """Say what is fetched and how fast, while it travels into the folder `blobs`."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    api = HfApi()
    entries = patiently(
        name,
        lambda: list(api.list_repo_tree(name, revision=revision, repo_type=kind, recursive=True)),
    )
    total = sum(
        entry.size
        for entry in entries
        if isinstance(entry, RepoFile)
        and any(fnmatch.fnmatch(entry.path, pattern) for pattern in patterns)
    )
    say(f"fetching {name}, {_amount(total)}")
    start, before, over = time.monotonic(), _held(blobs), threading.Event()

    def watch() -> None:
        while not over.wait(EVERY):
            came, spent = _held(blobs) - before, time.monotonic() - start
            say(f"fetching {name}: {_amount(came)} of {_amount(total)}, {_amount(came / spent)}/s")

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    came, spent = _held(blobs) - before, time.monotonic() - start
    say(f"fetched {name}: {_amount(came)} in {spent:.0f} s, {_amount(came / max(spent, 1e-3))}/s")


def _held(blobs: Path) -> int:
    size = 0
    for path in blobs.glob("*"):
        try:
            size += path.stat().st_blocks * 512 if path.suffix else path.stat().st_size
        except OSError:  # it was renamed just now
            continue
    return size


def _amount(size: float) -> str:
    return f"{size / 1e6:.0f} MB" if size >= 1e7 else f"{size / 1e6:.1f} MB"


def verify(folder: Path, patterns: list[str]) -> None:
    """Hash files of the hub's cache once against the names of their blobs, and remember it.

    A blob is called as the hub's ETag: the SHA-256 of a large file, the Git hash of a small one.
    The client itself only looks at the length.

    Raises:
        ConfigError: naming the file to delete.
    """
    for path in sorted({path for pattern in patterns for path in folder.glob(pattern)}):
        blob = path.resolve()
        if blob.parent.name != "blobs":
            continue  # a file system without links, or a folder of the user's own
        about = blob.stat()
        seen = (str(blob), about.st_size, about.st_mtime_ns)
        if seen in _checked:
            continue
        if memo.recall("verified", list(seen)) is None:
            if not _is_named(blob):
                raise ConfigError(
                    f"{path.name} of {folder.parent.parent.name} is not what the hub holds: its "
                    f"content does not hash to its name; delete {blob} and run again"
                )
            memo.remember("verified", list(seen), True)
        _checked.add(seen)


def _is_named(blob: Path) -> bool:
    """Whether a blob hashes to its name; one whose name is no hash cannot be checked."""
    if len(blob.name) == 64:
        digest = hashlib.sha256()
    elif len(blob.name) == 40:
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
    else:
        return True
    with open(blob, "rb") as file:
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest() == blob.name
