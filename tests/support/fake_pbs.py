"""PBS's commands as one small script: a queue in a file, and what real ones were seen to do wrong.

qdel deletes two of many and exits with 0; `qstat -f -F json` shows the first of many; with the
server down half a document comes with code 255; a server that hangs does not answer at all; a user
cannot put a job back; an array of one is refused; finished tasks are forgotten.
"""

import json
import os
import pwd
import re
import sys
import time
from pathlib import Path

from fake_commands import put_on_path

COMMANDS = ("qsub", "qstat", "qdel", "qselect", "qmgr")
ME = pwd.getpwuid(os.getuid()).pw_name
HEAD = """
pbs-ci:
                                                              Req'd  Req'd   Elap
Job ID          Username  Queue  Jobname  SessID  NDS  TSK  Memory Time  S Time
--------------- --------- ------ -------- ------- ---- ---- ------ ----- - -----
"""


class FakePbs:
    """The commands on the path of this process, and their queue."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder / "pbs"
        put_on_path(self.folder, monkeypatch, __file__, COMMANDS, "FAKE_PBS_STATE")
        self.set(jobs=[], calls=[], server="up", next=12, queues=["workq"])

    def set(self, **changes):
        """Put parts of the state in place of others."""
        path = self.folder / "state.json"
        state = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(state | changes))

    @property
    def state(self):
        """All of it."""
        return json.loads((self.folder / "state.json").read_text())

    def change(self, index=None, of=None, **about):
        """Change what the server has of jobs: all, those with this index, those of this number."""
        jobs = self.state["jobs"]
        for job in jobs:
            if index in (None, job["index"]) and of in (None, job["number"]):
                job |= about
        self.set(jobs=jobs)

    def calls(self, name):
        """The words with which a command was called."""
        return [call["words"] for call in self.state["calls"] if call["command"] == name]


def qsub(state, words):
    text = sys.stdin.read()
    given = {}
    while words:
        if words[0] == "-f":
            words = words[1:]
            continue
        given.setdefault(words[0], []).append(words[1])
        words = words[2:]
    state["calls"][-1] |= {"script": text, "given": given}
    if (queue := given.get("-q", ["workq"])[0]) not in state["queues"]:
        return fail("qsub: Unknown queue", 170)
    span = re.fullmatch(r"0-(\d+)(?:%\d+)?", given.get("-J", [""])[0])
    if "-J" in given and (span is None or span[1] == "0"):
        return fail("qsub: illegal -J value", 2)
    number = state["next"]
    state["next"] += 1
    for index in range(int(span[1]) + 1) if span else [None]:
        job = {"number": number, "index": index, "name": given["-N"][0], "queue": queue}
        state["jobs"].append(job | {"state": "Q", "user": ME, "comment": ""})
    print(f"{number}[].pbs-ci" if span else f"{number}.pbs-ci")
    return 0


def title(job):
    index = "" if job["index"] is None else f"[{job['index']}]"
    return f"{job['number']}{index}.pbs-ci"


def qstat(state, words):
    if words == ["--version"]:
        print("pbs_version = 23.06.06")
        return 0
    if words[:2] == ["-B", "-f"]:
        print("Server: pbs-ci\n    server_state = Active\n    job_history_enable = True")
        return 0
    if words[:2] == ["-Q", "-f"]:
        if words[2] not in state["queues"]:
            return fail(f"qstat: Unknown queue {words[2]}", 170)
        print(f"Queue: {words[2]}\n    resources_max.walltime = 02:00:00")
        return 0
    if "json" in words:
        asked = words[words.index("json") + 1 :][:1]  # the first of many
        return as_json(state, asked)
    users = words[words.index("-u") + 1].split(",")
    shown = [job for job in state["jobs"] if job["user"] in users]
    if shown:
        print(HEAD, end="")
    for job in shown:
        name = job["name"][:14] + "*"
        print(f"{title(job)} {job['user']} {job['queue']} {name} -- 1 1 -- 00:10 {job['state']} --")
        print(f"   {job['comment'] or '--'}")
    return 0


def as_json(state, asked):
    jobs = {}
    for job in state["jobs"]:
        if asked and re.split(r"[.\[]", asked[0])[0] == str(job["number"]):
            about = {"Job_Name": job["name"], "job_state": job["state"], "comment": job["comment"]}
            jobs[title(job)] = about | job.get("about", {})
    print(json.dumps({"pbs_server": "pbs-ci"} | ({"Jobs": jobs} if jobs else {})))
    return 0


def qdel(state, words):
    for word in words[:2]:  # of many it deletes two
        number, first, last = re.match(r"(\d+)(?:\[(\d*)(?:-(\d+))?\])?", word).groups()
        mine = [job for job in state["jobs"] if str(job["number"]) == number]
        if first:
            span = range(int(first), int(last or first) + 1)
            mine = [job for job in mine if job["index"] in span]
        if not mine:
            return fail(f"qdel: Unknown Job Id {word}", 153)
        for job in mine:
            if job["state"] not in "FX" and not job.get("deaf"):
                job |= {"state": "X", "about": {"substate": 91, "run_count": 1}}
    return 0


def qselect(state, words):
    name = words[words.index("-N") + 1]
    for number in {job["number"] for job in state["jobs"] if job["name"] == name}:
        one = next(job for job in state["jobs"] if job["number"] == number)
        print(f"{number}.pbs-ci" if one["index"] is None else f"{number}[].pbs-ci")
    return 0


def qmgr(state, words):
    print("Server pbs-ci\n    max_array_size = 500")
    return 0


def fail(said, code):
    print(said, file=sys.stderr)
    return code


if __name__ == "__main__":
    name, *words = sys.argv[1:]
    path = Path(os.environ["FAKE_PBS_STATE"]) / "state.json"
    state = json.loads(path.read_text())
    state["calls"].append({"command": name, "words": words})
    if state["server"] == "hangs":
        time.sleep(60)
    if state["server"] == "down":
        if "json" in words:
            print('{\n "timestamp": 1795714043,\n "pbs_version"')
        code = fail(f"{name}: cannot connect to server pbs-ci (errno=15010)", 255)
    else:
        code = globals()[name](state, words)
    path.write_text(json.dumps(state))
    sys.exit(code)
