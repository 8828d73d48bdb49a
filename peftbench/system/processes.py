"""Which process is meant, beyond its number: numbers are given again, and machines have the same.

A process is named by its machine, the boot of that machine, its space of process numbers
(containers have their own), its number and its start. So a file that names one can tell later, from
the same machine, whether it is still there; from another machine that is not known.
"""

import os
import platform
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from peftbench.core.run import Json


@dataclass(frozen=True)
class Process:
    """One process on one machine.

    Attributes:
        host: name of the machine, and its number where it has one: names are not unique.
        boot: changes whenever the machine starts.
        space: of process numbers; empty where the system has one only.
        pid: its number.
        start: when it started, as the system counts.
    """

    host: str
    boot: str
    space: str
    pid: int
    start: str

    @property
    def title(self) -> str:
        """For a message: process 123 on node7."""
        return f"process {self.pid} on {self.machine}"

    @property
    def machine(self) -> str:
        """The machine's name alone."""
        return self.host.partition(" ")[0]

    def to_json(self) -> Json:
        """Plain data, which `read` reads."""
        return dict(vars(self))

    @classmethod
    def read(cls, data: Any) -> "Process | None":
        """What `to_json` wrote; None for anything else."""
        with suppress(TypeError, ValueError):
            found = cls(**_current_form(data))
            text = (found.host, found.boot, found.space, found.start)
            if isinstance(found.pid, int) and found.pid > 0 and all(type(x) is str for x in text):
                return found
        return None

    def is_alive(self) -> bool | None:
        """Whether it runs; None where that cannot be known from here."""
        here = current()
        if self.host != here.host:
            return None
        if self.boot != here.boot:
            return False
        if self.space != here.space:
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's
        found = start_of(self.pid)
        if found is None:  # /proc may hide the processes of others
            return None
        return found == self.start

    def may_be_elsewhere(self) -> bool:
        """Whether it may live on another machine: neither this boot's nor one of this host."""
        here = current()
        return self.boot != here.boot and self.host != here.host

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; return whether it runs here.

        Raises:
            PermissionError: if it is another user's.
        """
        here = current()
        # the boot alone tells machines apart: a machine may have got another name since
        if not self.boot or (self.boot, self.space) != (here.boot, here.space):
            return False
        if start_of(self.pid) != self.start:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


def keep_niceness() -> None:
    """Let the niceness of this process count against processes of other sessions.

    Linux puts each session into a scheduling group of its own, and shares the CPU out among groups
    by the niceness of the group, which is 0 at first (sched(7), autogroup). A niced process that
    starts a session would have as much of the CPU as any other.
    """
    if (level := os.nice(0)) > 0:
        with suppress(OSError):  # no Linux, or groups are off
            Path("/proc/self/autogroup").write_text(str(level), encoding="ascii")


def current() -> Process:
    """This process."""
    return _process(os.getpid())  # which changes in a fork


def _current_form(data: Any) -> Any:
    """Plain data as `Process.to_json` writes it today.

    Locks of background jobs had `started` in place of `start`, and neither the machine's number nor
    the space, which is taken to be this one: the number alone never decided.
    """
    if set(data) != {"pid", "host", "boot", "started"}:
        return data
    here = current()
    known = data["boot"] == here.boot or data["host"] == here.machine
    return {
        "host": here.host if known else data["host"],
        "boot": data["boot"],
        "space": here.space,
        "pid": data["pid"],
        "start": str(data["started"]),
    }


@cache
def _process(pid: int) -> Process:
    return Process(_host(), _boot(), _space(), pid, start_of(pid) or "")


def _host() -> str:
    with suppress(OSError):
        return (
            f"{platform.node()} {Path('/etc/machine-id').read_text(encoding='utf-8').strip()[:12]}"
        )
    return platform.node()


def _boot() -> str:
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    with suppress(OSError):  # macOS
        words = ["sysctl", "-n", "kern.bootsessionuuid"]
        return subprocess.run(words, capture_output=True, text=True).stdout.strip()
    return ""


def _space() -> str:
    with suppress(OSError):
        return os.readlink("/proc/self/ns/pid")
    return ""


def start_of(pid: int) -> str | None:
    """When a process started; None where it does not run, has ended unnoticed, or is hidden.

    On Linux in the kernel's own ticks: seconds since 1970 shift whenever the clock is set.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = (
                Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            )
        except OSError:
            return None
        return "ended" if fields[0] in "ZX" else fields[19]
    import psutil

    try:
        return str(psutil.Process(pid).create_time())
    except psutil.Error:
        return None
