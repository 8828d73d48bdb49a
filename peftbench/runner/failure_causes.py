"""The class of a failure from the exception that a job ended with, and its reason in one line."""

import bdb
import errno
import os
import re
import traceback
from collections.abc import Iterator
from pathlib import Path

from peftbench.core.errors import ConfigError

#: Errors of the operating system that mean that the results folder can take no more.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG})

#: Those that no change of the run would correct: file servers, networks, permissions, limits.
OUTSIDE = frozenset(
    {
        *(errno.EIO, errno.ESTALE, errno.ENXIO, errno.ENODEV, errno.EBUSY, errno.ENOLCK),
        *(errno.EACCES, errno.EPERM, errno.EMFILE, errno.ENFILE, errno.EAGAIN),
        *(errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED),
        *(errno.ENOTCONN, errno.ESHUTDOWN, errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN),
        *(errno.EHOSTUNREACH, errno.EPIPE),
    }
)

#: How libraries in other languages than Python quote an error of the operating system.
_QUOTED = re.compile(r"\(os error (\d+)\)|\[[Ee]rrno (\d+)\]")


def classify(error: BaseException) -> str:
    """The class of a failure, out of `FAILURE_KINDS`."""
    import torch

    from peftbench.training.distributed import PeerLost

    if isinstance(error, PeerLost):
        return error.kind
    if isinstance(error, FloatingPointError):
        return "diverged"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "memory"
    if isinstance(error, ConfigError):
        return "data"
    numbers = {number for one in _chain(error) for number in _system_errors(one)}
    if numbers & FULL:
        return "disk"
    if errno.ENOMEM in numbers:
        return "memory"
    return "system" if numbers & OUTSIDE else "error"


def reason(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    name = type(error).__name__
    if isinstance(error, bdb.BdbQuit) or (
        isinstance(error, EOFError) and "reading a line" in str(error)
    ):
        return (
            f"{name}: the method waits for a person (input() or breakpoint()), and a run has no "
            "terminal; take that out"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{name}: {lines[0] if lines else name}"


def place(error: BaseException) -> str:
    """The file and line in which an exception was raised; a debugger's are passed by."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).stem not in ("bdb", "cmd", "pdb")
    ]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "an unknown place"


def _system_errors(error: BaseException) -> Iterator[int]:
    if isinstance(error, OSError) and error.errno is not None:
        yield error.errno
    elif "can't start new thread" in str(error):
        yield errno.EAGAIN
    elif os.strerror(errno.ENOMEM) in str(error):  # torch's allocator and maps of files
        yield errno.ENOMEM
    else:
        yield from (int(a or b) for a, b in _QUOTED.findall(str(error)))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
