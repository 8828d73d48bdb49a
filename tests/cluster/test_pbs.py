"""PBS: its parsers on answers of a real OpenPBS 23.06, the whole on stand-ins that misbehave."""

import json
import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_pbs import ME, FakePbs
from submissions import ask, hand_over, states, submission

from peftbench.cluster import collect, commands, job_runner, manifest, turns
from peftbench.cluster.manifest import Task
from peftbench.cluster.queue import look
from peftbench.cluster.schedulers import pbs
from peftbench.cluster.schedulers.pbs import Pbs
from peftbench.cluster.settle import settle
from peftbench.config import cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

ANSWERS = Path(__file__).parent / "answers" / "pbs"
PBS = cluster.read(["cluster=pbs", "cluster.settle_seconds=0", "cluster.poll_seconds=0"])


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


@pytest.fixture
def server(tmp_path, monkeypatch):
    return FakePbs(tmp_path, monkeypatch)


# recorded answers


def known(*jobs):
    return {
        pbs.digits_of(number): pbs.ArrayJob(number, "s", a, task, False) for number, a, task in jobs
    }


def test_tasks_of_a_table():
    """Those of another's array and of a job of another name are none of ours."""
    answer = (ANSWERS / "qstat-t-w-s-u.txt").read_text()
    found = pbs.read_tasks(answer, known(("0[].pbs-ci", 0, None), ("1.pbs-ci", 1, 0)))
    assert {task.number: one.state for task, one in found.items()} == {
        **dict.fromkeys((0, 1), "running"),
        **dict.fromkeys((2, 3, 4), "pending"),  # 5 is over
    }
    assert {task.array for task in found} == {0}  # 1 is called s.sh: the number was used again
    assert [one.number for one in found.values()][:2] == ["0[0].pbs-ci", "0[1].pbs-ci"]
    assert {one.reason for one in found.values()} == {""}


def test_a_job_that_can_never_run_says_so():
    answer = (ANSWERS / "qstat-t-w-s-u.txt").read_text().replace("s.sh     ", "peftbench")
    found = pbs.read_tasks(answer, known(("1.pbs-ci", 1, 0)))
    (one,) = found.values()
    assert one.reason.startswith("Can Never Run: Insufficient amount of resource: ncpus (R: 99")


def test_a_held_array_holds_its_tasks():
    """Only the array is shown as H; its tasks are shown as if they waited."""
    text = (ANSWERS / "qstat-t-w-s-u.txt").read_text()
    row = "0[].pbs-ci  user workq peftbench-2026*  --  1  1  --  00:01 H --\n"
    first = text.index("0[0].pbs-ci")
    found = pbs.read_tasks(text[:first] + row + text[first:], known(("0[].pbs-ci", 0, None)))
    held = {task.number for task, one in found.items() if one.release == "qrls JOB"}
    assert held == {2, 3, 4}


@pytest.mark.parametrize("text", ["the server is being upgraded\n", '{"timestamp": 1,\n', None])
def test_an_answer_that_is_no_table_is_an_error(text):
    text = text or (ANSWERS / "qstat-t-w-s-u.txt").read_text() + "0[0].pbs-ci  us\n"
    with pytest.raises(ValueError, match=r"no head of a table|a line '0"):
        pbs.read_tasks(text, {})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("partly-finished", {0: ("exit", 0), 1: ("exit", 3), 2: ("exit", 137)}),
        ("array-deleted", dict.fromkeys((1, 2, 3, 5), ("cancelled", None))),
        ("history-off", {}),  # what is shown of them is the array's own record
        ("running", {}),
    ],
)
def test_endings_of_an_array(name, expected):
    jobs = json.loads((ANSWERS / f"{name}.json").read_text())["Jobs"]
    found = pbs.read_endings(jobs)
    codes = {
        n: (
            one.kind,
            int(said[1]) if (said := re.search(r"exit status (-?\d+)", one.words)) else None,
        )
        for n, one in found.items()
    }
    assert codes == expected


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("memory", [("memory", "exceeded resource mem"), ("exit", "its job ended"), ("exit", "")]),
        ("time-limit", [("time", "exceeded resource walltime")] * 2),
    ],
)
def test_endings_of_jobs_without_an_array(name, kinds):
    jobs = json.loads((ANSWERS / f"{name}.json").read_text())["Jobs"]
    for (key, about), (kind, said) in zip(jobs.items(), kinds, strict=True):
        (ending,) = pbs.read_endings({key: about}).values()
        assert ending.kind == kind
        assert said in ending.words


# the whole, on stand-ins


def test_what_is_asked_for(results, server, tmp_path, monkeypatch):
    odd = ResultsFolder(tmp_path / "it's a place, 100%")
    where = replace(PBS, gpus=1, partition="workq", account="nlp", parallel=2, constraint="host=n1")
    hand_over(odd, submission(odd, where, count=4)[0])
    (words,) = server.calls("qsub")
    joined = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "-f"
    assert "select=1:ncpus=4:mem=16384mb:ngpus=1:host=n1" in words
    assert "walltime=00:30:00" in words
    assert (joined["-J"], joined["-q"], joined["-A"], joined["-m"]) == (
        "0-3%2",
        "workq",
        "nlp",
        "n",
    )
    assert not {"-v", "-V"} & set(words)


def test_an_array_of_one_is_a_job(results, server):
    begun = hand_over(results, submission(results, PBS, count=1)[0])
    assert begun.arrays[0].job == "12.pbs-ci"
    assert "-J" not in server.calls("qsub")[0]
    assert states(results) == ["pending"]


def test_more_than_two_are_cancelled_and_that_is_looked_at(results, server):
    begun = hand_over(results, submission(results, PBS, count=9)[0])
    server.change(4, state="X")  # over: what is left are two ranges
    tasks = [Task(begun.name, 0, n) for n in (0, 1, 2, 5, 7, 8)]
    assert Pbs(PBS).cancel(begun, tasks, results) == {}
    assert server.calls("qdel") == [["12[0-2].pbs-ci"], ["12[5].pbs-ci"], ["12[7-8].pbs-ci"]]
    alive = Pbs(PBS).alive([begun], results).alive
    assert sorted(task.number for task in alive) == [3, 6]
    assert "2 jobs cancelled" in ask(results, "cancel").output
    assert server.calls("qdel")[3:] == [["12[].pbs-ci"]]  # the whole array
    assert states(results) == ["cancelled"] * 9


def test_a_job_that_survives_qdel_is_reported(results, server, monkeypatch):
    monkeypatch.setattr(Pbs, "settle", 0.2)
    hand_over(results, submission(results, PBS, count=2)[0])
    server.change(1, deaf=True)
    told = ask(results, "cancel")
    assert told.exit_code == 1
    assert "1 job could not be cancelled: it is in the queue 0 s after qdel" in told.output


@pytest.mark.parametrize("how", ["down", "hangs", "garbled"])
def test_silence_and_nonsense_prove_nothing(results, server, monkeypatch, how):
    begun = hand_over(results, submission(results, PBS)[0])
    if how == "garbled":
        (server.folder / "bin" / "qstat").write_text("#!/bin/bash\necho 'PBS is being upgraded'\n")
    else:
        monkeypatch.setattr(commands, "PATIENCE", 1)
        server.set(server=how)
    seen = look(results)
    assert set(seen.state.values()) == {"unknown"}
    said = {"down": "cannot connect to server", "hangs": "did not answer within 1 s"}
    assert said.get(how, "'PBS is being upgraded', which is not understood") in seen.silent
    if how == "garbled":
        kept = manifest.folder(results, begun.name) / "answer.txt"
        assert str(kept) in seen.silent
        assert kept.read_text() == "PBS is being upgraded\n"
    told = ask(results, "submit", *begun.words)
    assert told.exit_code == 2
    assert not results.failed()


@pytest.mark.parametrize("how", ["down", "half"])
def test_half_a_document_explains_nothing(results, server, how):
    begun = hand_over(results, submission(results, PBS)[0])
    server.change(state="X")
    if how == "down":
        server.set(server=how)
    else:
        (server.folder / "bin" / "qstat").write_text('#!/bin/bash\necho \'{"Jobs": {"12[0]\'\n')
    tasks = [task for task, _ in begun.tasks()]
    assert Pbs(PBS).explain(begun, tasks, results) == {}


def test_an_older_pbs_that_limits_no_array_is_told_from_a_bad_request():
    refused = SimpleNamespace(stderr="qsub: illegal -J value\nusage: qsub …", returncode=2)
    said = Pbs(PBS).complaint(refused)
    assert said.startswith("illegal -J value; ")
    assert "set cluster.parallel to at least cluster.array_size" in said


def test_what_is_refused_is_said_word_for_word(results, server):
    begun, _ = submission(results, replace(PBS, partition="nosuch"))
    with pytest.raises(ConfigError, match=r"^PBS refuses: Unknown queue$"):
        hand_over(results, begun)
    told = ask(results, "doctor", "cluster=pbs", "cluster.partition=nosuch")
    assert told.exit_code == 1
    assert "there is none; `qstat -Q` lists them" in " ".join(told.output.split())
    told = json.loads(
        ask(results, "doctor", "cluster=pbs", "cluster.partition=workq", "--json").output
    )
    said = {one["what"]: one["found"] for one in told}
    assert said["PBS"] == "answers; arrays of up to 500"
    assert said["queue workq"] == "its limit is 120 minutes, 1440 may be asked for"
    assert "at its time limit a task is left" in said["time limit"]
    assert said["tests"].startswith("untested on a real cluster, written from recorded answers")


def test_commands_of_another_scheduler_are_noticed(results, server):
    (server.folder / "bin" / "qstat").write_text("#!/bin/bash\necho SGE 8.1.9\n")
    with pytest.raises(ConfigError, match="is it Grid Engine"):
        Pbs(PBS).check_config()


def test_jobs_of_a_cut_off_submission_are_found_by_name(results, server):
    begun, _ = submission(results, PBS)
    hand_over(results, begun, note=False)
    assert states(results) == ["pending"] * 2
    assert "2 jobs cancelled" in ask(results, "cancel").output


def test_jobs_of_a_colleague_may_be_hidden(results, server):
    begun = hand_over(results, submission(results, PBS, owner=54321)[0])
    server.change(0, user="54321")
    seen = look(results)
    assert sorted(seen.state.values()) == ["pending", "unknown"]
    assert "query_other_jobs" in seen.unsure[begun.name]


def test_how_jobs_ended_is_what_the_history_says(results, server):
    begun = hand_over(results, submission(results, PBS, count=3)[0])
    server.change(
        0,
        state="X",
        about={"Exit_status": -27, "run_count": 1},
        comment="x and exceeded resource mem",
    )
    server.change(1, state="X", about={"Exit_status": 271, "substate": 91, "run_count": 1})
    server.change(2, state="X", about={"Exit_status": 3, "run_count": 1, "substate": 93})
    settle(results, look(results))
    kinds = [results.failure(key).kind for _, keys in begun.tasks() for key in keys]
    assert kinds == ["memory", "cancelled", "lost"]


# a task that stops at its time


def leave(results, begun, number):
    """What a node does when its clock rings."""
    task = Task(begun.name, 0, number)
    turns.begin(results, task)
    job_runner._heard.add(job_runner.signal.SIGALRM)
    try:
        return job_runner.leave_job(results, begun, task)
    finally:
        job_runner._heard.clear()


def test_a_task_that_reached_its_limit_is_left_and_no_attempt(results, server):
    begun = hand_over(results, submission(results, PBS)[0])
    assert leave(results, begun, 0) == 75
    server.change(0, state="X", about={"Exit_status": -29, "run_count": 1})
    server.change(1, state="R")
    seen = settle(results, look(results))
    assert sorted(seen.state.values()) == ["left", "running"]
    assert not results.failed()
    (line,) = [line for line in collect.lines(seen) if "stopped with a checkpoint" in line]
    assert line.startswith("1 stopped")
    server.change(1, state="X")
    assert collect.rest(look(results), results)[0].startswith("peftbench submit ")


def test_the_node_may_send_the_rest_itself(results, server):
    begun = hand_over(results, submission(results, replace(PBS, resubmit=True))[0])
    server.change(1, state="R")
    assert leave(results, begun, 1) == 75
    server.change(1, state="X", about={"Exit_status": 75, "run_count": 1})
    assert turns.read(results, Task(begun.name, 0, 1)).job == "13.pbs-ci"
    assert states(results) == ["pending"] * 2
    script = (manifest.folder(results, begun.name) / "0_1.again.sh").read_text()
    assert "task=0_${PBS_ARRAY_INDEX:-1}" in script
    turns.begin(results, Task(begun.name, 0, 1))  # as the new job does first
    server.change(of=13, state="R")
    assert sorted(states(results)) == ["pending", "running"]
    assert not settle(results, look(results)).ended
    assert not results.failed()
    assert "2 jobs cancelled" in ask(results, "cancel").output
    assert ["13.pbs-ci"] in server.calls("qdel")


def test_how_a_job_ended_that_the_node_sent_is_what_its_own_history_says(results, server):
    begun = hand_over(results, submission(results, replace(PBS, resubmit=True), count=1)[0])
    leave(results, begun, 0)
    server.change(of=12, state="X", about={"Exit_status": 75, "run_count": 1})
    turns.begin(results, Task(begun.name, 0, 0))
    about = {"Exit_status": -27, "run_count": 1}
    comment = "x and exceeded resource mem"
    server.change(of=13, state="X", about=about, comment=comment)
    ((_, keys),) = begun.tasks()
    assert settle(results, look(results)).state == {keys[0]: "failed"}
    assert results.failure(keys[0]).kind == "memory"


def test_the_script_runs_the_task_whatever_the_folder_is_called(tmp_path, server, monkeypatch):
    results = ResultsFolder(tmp_path / "it's a place")
    begun = hand_over(results, submission(results, PBS)[0])
    place = manifest.folder(results, begun.name)
    text = (place / "0.sh").read_text()
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\necho "$PEFTBENCH_SECONDS $*"\nexit 75\n')
    python.chmod(0o755)
    text = text.replace(shlex.quote(os.sys.executable), str(python))
    environment = os.environ | {"PBS_ARRAY_INDEX": "1"}
    assert subprocess.run(["bash"], input=text, text=True, env=environment).returncode == 75
    said = f"1800 -u -m peftbench.cluster.job_runner {place.resolve()} 0_1\n"
    assert (place / "0_1.log").read_text() == said
    assert ME  # the queue of the stand-in is this user's


@pytest.mark.slow
@pytest.mark.skipif(
    "PBS_TEST_PREFIX" not in os.environ, reason="needs an OpenPBS: $PBS_TEST_PREFIX"
)
def test_a_real_server(tmp_path):
    """Run as `pbs-ci.sh run pytest -m slow tests/cluster/test_pbs.py`."""
    results = ResultsFolder(tmp_path / "it's real")
    begun, _ = submission(results, replace(PBS, cpus=1, memory_gb=0.1), count=4)
    text = Pbs(begun.cluster).script(results, begun, 0).replace("exec ", "sleep 30; exec ", 1)
    path = manifest.folder(results, begun.name) / "0.sh"
    job = Pbs(begun.cluster).hand_over(text, path, results)
    begun = replace(begun, arrays=[replace(begun.arrays[0], job=job)])
    manifest.save(results, begun)
    assert set(Pbs(PBS).alive([begun], results).alive) == {task for task, _ in begun.tasks()}
    tasks = [Task(begun.name, 0, n) for n in (0, 1, 3)]
    assert Pbs(PBS).cancel(begun, tasks, results) == {}
    assert [task.number for task in Pbs(PBS).alive([begun], results).alive] == [2]
    assert Pbs(PBS).cancel(begun, [Task(begun.name, 0, 2)], results) == {}
