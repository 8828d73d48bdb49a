"""What `sbatch` gets for an array: options on its command line, and the script of each job.

Options stand on the command line, which outranks the SBATCH_* variables of the environment and
takes every path as it is.
"""

import shlex
import subprocess
import sys
from pathlib import Path

from peftbench.cluster.manifest import Submission, folder, job_name
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import Results

#: Options of sbatch by which jobs are found again, and what they print; `cluster.options` may not
#: set them.
OURS = (
    *(
        "array",
        "chdir",
        "cluster-constraint",
        "clusters",
        "error",
        "input",
        "job-name",
        "open-mode",
    ),
    *("output", "parsable", "test-only", "wait", "wrap"),
)

#: Early signals are ignored until Python can handle them: they would end it.
_SHIELD = ("bash", "-c", 'trap "" USR2; exec "$@"', "--")

#: A line of the setup that fails ends the job, and is the last line of its log.
_STRICT = """\
peftbench_line=
trap 'code=$?; [ -z "$peftbench_line" ] || echo "peftbench: $peftbench_line: exit code $code"' EXIT
"""

_LENIENT = """\
set +e
trap - EXIT
"""


def check(cluster: Cluster) -> None:
    """Refuse options that sbatch may not get, and a setup that is no shell.

    Raises:
        ConfigError: saying which.
    """
    for name in cluster.options:
        if _dashed(name) in OURS:
            raise ConfigError(
                f"cluster.options.{name}: peftbench sets --{_dashed(name)} itself, by which it "
                "finds its jobs again; leave it out"
            )
    for name, value in cluster.environment.items():
        if not name.isidentifier():
            raise ConfigError(f"cluster.environment: {name!r} is no name of a variable ({value!r})")
    _commands(cluster.setup)


def options(results: Results, submission: Submission, array: int) -> list[str]:
    """The options of sbatch for an array."""
    asked, sent = submission.cluster, submission.arrays[array]
    given: dict[str, object] = {
        "job-name": job_name(submission.name, array),
        "output": _log(results, submission, array),
        "open-mode": "append",
        "nodes": 1,
        "ntasks": 1,
        "time": sent.minutes,
        "cpus-per-task": asked.cpus,
        "gpus-per-node": asked.gpus or None,
        "mem": None if sent.memory_gb is None else f"{int(1024 * sent.memory_gb)}M",
        "partition": asked.partition,
        "account": asked.account,
        "qos": asked.qos,
        "constraint": asked.constraint,
        "exclude": asked.exclude,
        "signal": f"USR2@{asked.signal_seconds}",
        "export": "ALL",
    }
    if (count := len(sent.tasks)) > 1:
        given["array"] = f"0-{count - 1}%{min(count, asked.parallel)}"
    more = {_dashed(name): value for name, value in asked.options.items()}
    if sent.after:  # trials may fail: what comes after them does with those that are there
        before = [str(submission.arrays[number].job) for number in sent.after]
        own = [f"afterany:{':'.join(before)}", *filter(None, [more.get("dependency")])]
        more["dependency"] = ",".join(own)
    # a job may be put back to the queue
    return ["--requeue", *(_option(n, v) for n, v in (given | more).items() if v is not None)]


def script(results: Results, submission: Submission, array: int) -> str:
    """The script of each job of an array."""
    asked = submission.cluster
    place = folder(results, submission.name).resolve()
    number = '"${SLURM_ARRAY_TASK_ID:-0}"'
    step = ["srun", "--unbuffered", f"--output={_log(results, submission, array)}"]
    step += ["--open-mode=append", *_SHIELD]
    work = [sys.executable, "-u", "-m", "peftbench.cluster.job_runner", str(place)]
    lines = [f"#!/bin/bash\n# array {array} of {submission.name}, by `peftbench submit`\n{_STRICT}"]
    # strict again before each: a script that a line sources may have changed that
    lines += [f"set -e; peftbench_line={shlex.quote(name)}\n{text}" for name, text in _setup(asked)]
    lines.append(_LENIENT)
    if asked.cpus:  # srun does not take it over since Slurm 22.05, and binds to one core then
        lines.append(f"export SRUN_CPUS_PER_TASK={asked.cpus}")
    lines.append(f"{shlex.join([*step, *work])} {array}_{number}")
    return "\n".join(lines) + "\n"


def _setup(cluster: Cluster) -> list[tuple[str, str]]:
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
        *((f"cluster.setup: {' '.join(text.split())}", text) for text in _commands(cluster.setup)),
    ]


def _commands(lines: list[str]) -> list[str]:
    """Lines of shell as commands: those of an `if` that goes over several lines are one.

    Raises:
        ConfigError: if they are no shell.
    """
    found: list[str] = []
    open_: list[str] = []
    reason = ""
    for line in lines:
        open_.append(line)
        command = ["bash", "-n"]
        done = subprocess.run(command, input="\n".join(open_), capture_output=True, text=True)
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


def _log(results: Results, submission: Submission, array: int) -> str:
    """The pattern of the files that `logs.log` names; a % in a folder's name stands for itself."""
    place: Path = folder(results, submission.name).resolve()
    if "\\" in str(place):
        raise ConfigError(
            f"{place}: Slurm replaces no number in the path of a log that has a backslash; choose "
            "another folder with --results"
        )
    number = "%a" if len(submission.arrays[array].tasks) > 1 else "0"
    return f"{str(place).replace('%', '%%')}/{array}_{number}.log"


def _option(name: str, value: object) -> str:
    return f"--{name}" if value in ("True", "true", "") else f"--{name}={value}"


def _dashed(name: str) -> str:
    return name.lstrip("-").replace("_", "-")
