"""How the environment of a job is made: lines of shell, each with a name for messages."""

import shlex
import subprocess

from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError


def lines(cluster: Cluster) -> list[tuple[str, str]]:
    """Commands before Python starts: how each is called in messages, and its text.

    The value of a variable is not named: it may be a secret.
    """
    modules = [f"module load {shlex.quote(name)}" for name in cluster.modules]
    exports = [
        (f"cluster.environment: export {name}", f"export {name}={shlex.quote(value)}")
        for name, value in cluster.environment.items()
    ]
    return [
        *((f"cluster.modules: {line}", line) for line in modules),
        *exports,
        *((f"cluster.setup: {' '.join(text.split())}", text) for text in commands(cluster.setup)),
    ]


def commands(given: list[str]) -> list[str]:
    """Lines of shell as commands: those of an `if` that goes over several lines are one.

    Raises:
        ConfigError: if they are no shell.
    """
    found: list[str] = []
    open_: list[str] = []
    reason = ""
    for line in given:
        open_.append(line)
        text = "\n".join(open_)
        done = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
        # a here-document without its end is a warning, and code 0
        if done.returncode == 0 and not done.stderr:
            found.append("\n".join(open_))
            open_ = []
        else:
            reason = next(iter(done.stderr.splitlines()), f"exit code {done.returncode}")
    if open_:
        raise ConfigError(
            f"cluster.setup: bash cannot read {'; '.join(open_)!r} ({reason}); each line is a "
            "command, or a part of one that a later line ends"
        )
    return found
