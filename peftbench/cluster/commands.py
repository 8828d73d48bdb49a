"""Commands of schedulers, run with patience and in an environment without surprises."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from peftbench.cluster import environment
from peftbench.cluster.manifest import SchedulerUnreachable

#: Seconds after which a command is given up.
PATIENCE = 60

#: Names or numbers in one command.
AT_ONCE = 500


class Garbled(SchedulerUnreachable):
    """An answer that is not understood, so nothing may be concluded from it.

    Attributes:
        answer: what the command printed.
    """

    def __init__(self, command: str, answer: str, reason: object):
        head = " ".join(answer.split())[:60]
        super().__init__(f"{command} printed {head!r}, which is not understood ({reason})")
        self.answer = answer


def run(*command: str, text: str | None = None) -> "subprocess.CompletedProcess[str]":
    """Run a command of a scheduler.

    Args:
        command: its words.
        text: what it reads.

    Raises:
        SchedulerUnreachable: if it is not there or takes too long.
    """
    try:
        return subprocess.run(
            command,
            env=environment.cleaned(),
            input=text or "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=PATIENCE,
        )
    except FileNotFoundError as error:
        raise SchedulerUnreachable(f"{command[0]} is not on the path") from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerUnreachable(f"{command[0]} did not answer within {PATIENCE} s") from error


def ask(*command: str) -> str:
    """What a command prints.

    Raises:
        SchedulerUnreachable: if it fails or takes too long.
    """
    done = run(*command)
    if done.returncode:
        raise SchedulerUnreachable(f"{command[0]}: {refusal(done)}")
    return done.stdout


def answers(*command: str) -> bool:
    """Whether a command succeeds."""
    try:
        ask(*command)
    except SchedulerUnreachable:
        return False
    return True


def refusal(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line of what a command that failed has against it."""
    lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
    return lines[-1] if lines else f"exit code {done.returncode}"


@contextmanager
def reading(command: str, answer: str) -> Iterator[None]:
    """Turn errors of a parser into the one that says what could not be read.

    Raises:
        Garbled: for what `json`, `ElementTree` and plain code raise over other text than expected.
    """
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError, SyntaxError) as error:
        raise Garbled(command, answer, error) from error
