"""Slurm's commands as one small script: a queue in a file, and the filters that real ones have.

Real answers can be had in tests/cluster/test_slurm.py; this one has other users, hidden partitions
and other clusters, and needs no root. As in Slurm, options of the command line outrank variables
of the environment, and both outrank lines of a script.
"""

import argparse
import json
import os
import pwd
import re
import sys
from pathlib import Path

from fake_commands import put_on_path

COMMANDS = ("sbatch", "squeue", "scancel", "scontrol", "sacct", "srun")
ME = pwd.getpwuid(os.getuid()).pw_name
CONFIG = {"ClusterName": "alpha", "MaxArraySize": "1001", "PrivateData": "none"}


class FakeSlurm:
    """The commands on the path of this process, and their queue."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "slurm"
        put_on_path(self.folder, monkeypatch, __file__, COMMANDS, "FAKE_SLURM_STATE")
        self.set(jobs=[], config=CONFIG, calls=[], denied=[])

    def set(self, **changes):
        """Put parts of the state in place of others."""
        _write(self.folder, _read(self.folder) | changes)

    def put(self, name, number, index=None, **about):
        """A job in the queue."""
        job = {"name": name, "number": str(number), "index": index, "user": ME, "reason": ""}
        job |= {"partition": "main", "hidden": False, "state": "PENDING"}
        self.set(jobs=[*self.jobs, job | about])

    @property
    def jobs(self):
        """All jobs, those that are over too."""
        return _read(self.folder)["jobs"]

    def calls(self, name):
        """What a command was called with: its words, environment and script."""
        return [call for call in _read(self.folder)["calls"] if call["command"] == name]


def _read(folder):
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _write(folder, state):
    (folder / "state.json").write_text(json.dumps(state))


def sbatch(state, words):
    *options, path = words
    text = Path(path).read_text()
    given = dict(re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", text, re.MULTILINE))
    given |= {
        name.removeprefix("SBATCH_").lower().replace("_", "-"): value
        for name, value in os.environ.items()
        if name.startswith("SBATCH_")
    }
    given |= {w[2:].partition("=")[0]: w.partition("=")[2] for w in options if w.startswith("--")}
    state["calls"][-1] |= {"script": text, "given": given}
    number = str(100 + len(state["jobs"]))
    last = re.match(r"0-(\d+)", given.get("array", ""))
    for index in range(int(last[1]) + 1) if last else [None]:
        job = {"name": given["job-name"], "number": number, "index": index, "user": ME}
        job |= {"partition": given.get("partition", "main"), "hidden": False}
        state["jobs"].append(job | {"state": "PENDING", "reason": "Priority"})
    print(number if "parsable" in given else f"Submitted batch job {number}")


def squeue(state, words):
    parser = argparse.ArgumentParser(add_help=False)
    for names in (("-h", "--noheader"), ("-r", "--array"), ("-a", "--all")):
        parser.add_argument(*names, action="store_true")
    parser.add_argument("-o", "--format")
    for short, name in (("-t", "states"), ("-u", "users"), ("-n", "name"), ("-p", "partition")):
        variable = "SQUEUE_NAMES" if name == "name" else f"SQUEUE_{name.upper()}"
        more = ["--user"] if name == "users" else []
        parser.add_argument(short, f"--{name}", *more, default=os.environ.get(variable))
    asked = parser.parse_args(words)
    private = "jobs" in state["config"]["PrivateData"].split(",")
    states = (asked.states or "PENDING,RUNNING,SUSPENDED,COMPLETING").split(",")
    for job in state["jobs"]:
        shown = [
            not asked.users or job["user"] in asked.users.split(","),
            not asked.name or job["name"] in asked.name.split(","),
            not asked.partition or job["partition"] in asked.partition.split(","),
            states == ["all"] or job["state"] in states,
            asked.all or not job["hidden"],
            not private or job["user"] == ME,
        ]
        if all(shown):
            index = "" if job["index"] is None else f"_{job['index']}"
            line = asked.format.replace("%i", job["number"] + index).replace("%T", job["state"])
            print(line.replace("%r", job["reason"] or "None").replace("%j", job["name"]))


def scancel(state, words):
    only, code = os.environ.get("SCANCEL_STATE"), 0
    for job in state["jobs"]:
        names = {job["number"], f"{job['number']}_{job['index']}"}
        if not names & set(words) or (only and job["state"] != only):
            continue
        if job["number"] in state["denied"]:
            print(f"scancel: error: Kill job error on {job['number']}: denied", file=sys.stderr)
            code = 1
        else:
            job["state"] = "CANCELLED"
    return code


def scontrol(state, words):
    print("Configuration data as of 2026-11-27T07:00:00")
    for name, value in state["config"].items():
        print(f"{name:<23} = {value}")


def sacct(state, words):
    print("sacct: error: Slurm accounting storage is disabled", file=sys.stderr)
    return 1


def srun(state, words):
    while words and words[0].startswith("-"):
        words = words[1:]
    os.execvp(words[0], words)


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    if name == "srun":  # in a job
        srun(None, words)
    folder = Path(os.environ["FAKE_SLURM_STATE"])
    state = _read(folder)
    state["calls"].append({"command": name, "words": words, "environment": dict(os.environ)})
    code = globals()[name](state, words)
    _write(folder, state)
    sys.exit(code)
