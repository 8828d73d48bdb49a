"""The identity of a process: its machine, the boot of that machine, its number and its start.

A number alone is given to another process sooner or later, and means another one on each machine.
"""

import json
import os
import signal
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessIdentity:
    """A process, told apart from all others.

    Attributes:
        host: the name of the machine, for people.
        boot: the kernel's random number of this boot, which no other machine has either.
        started: clock ticks from the boot to the start of the process.
    """

    pid: int
    host: str
    boot: str
    started: int

    @classmethod
    def own(cls) -> "ProcessIdentity":
        """This process."""
        pid = os.getpid()
        started = _started(pid)
        assert started is not None
        return cls(pid, socket.gethostname(), boot_id(), started)

    def is_here(self) -> bool:
        """Whether it was started on this machine since this boot."""
        return self.boot == boot_id()

    def may_be_elsewhere(self) -> bool:
        """Whether it may live on another machine: neither this boot's nor one of this host."""
        return not self.is_here() and self.host != socket.gethostname()

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; return whether it lives here.

        Raises:
            PermissionError: if it is another user's.
        """
        if not self.is_here() or _started(self.pid) != self.started:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True

    def to_bytes(self) -> bytes:
        """Plain text, for `read`."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, path: Path) -> "ProcessIdentity | None":
        """What `to_bytes` gave, from a file; None where the file has none (yet)."""
        with suppress(OSError, ValueError, TypeError):
            return cls(**json.loads(path.read_bytes()))
        return None


def boot_id() -> str:
    """The kernel's random number of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


def _started(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat, see proc(5); None where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    return int(text.rpartition(")")[2].split()[19])
