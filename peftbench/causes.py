"""Why a run may have no record."""

import signal

#: Why a run may have no record, and what that means.
KINDS = {
    "diverged": "the loss was no longer finite",
    "memory": "out of memory, on the GPU at one example a pass or by the kernel's killer",
    "killed": "the process was killed by a signal",
    "exit": "the process ended by itself",
    "disk": "the results folder could take no more",
    "data": "data or weights were not to be had",
    "lost": "its job on a cluster ended without a word",
    "cancelled": "its job on a cluster was cancelled",
    "error": "an exception; the log has the traceback",
}

#: Failures that come from outside: such runs are tried again unless --retry says otherwise.
TRANSIENT = ("killed", "exit", "disk", "data", "lost", "cancelled")


def explain(code: int, kernel_kills: int) -> tuple[str, str]:
    """Class and reason of a process that ended with this code while it had a run."""
    if code >= 0:
        return "exit", f"the worker ended with exit code {code}"
    known = {number.value: number.name for number in signal.Signals}
    name = known.get(-code, f"signal {-code}")
    if -code == signal.SIGKILL and kernel_kills > 0:
        return "memory", "killed by the kernel, which ran out of memory; try fewer --workers"
    return "killed", f"the worker was killed by {name}"
