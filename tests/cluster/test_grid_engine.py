"""Grid Engine: parsers on answers of a real 8.1.9, and a real one of scripts/sge-ci.sh."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from engine_jobs import SGE, WORDS, array, states_of, wait
from paths import ROOT
from records import tiny
from sites import Site
from submissions import ask, hand_over, submission

from peftbench.cluster import commands, manifest
from peftbench.cluster.manifest import SchedulerUnreachable, Task, job_name
from peftbench.cluster.queue import look
from peftbench.cluster.schedulers import grid_engine
from peftbench.cluster.schedulers.grid_engine import GridEngine
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

SCRIPT = ROOT / "scripts" / "sge-ci.sh"


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


# recorded answers

ANSWER = """<?xml version='1.0'?>
<job_info xmlns:xsd="http://www.w3.org/2001/XMLSchema"><queue_info>
<job_list state="running"><JB_job_number>37</JB_job_number><JB_name>{0}</JB_name>
<state>r</state><queue_name>main.q@HOST</queue_name><slots>1</slots><tasks>1</tasks></job_list>
<job_list state="running"><JB_job_number>37</JB_job_number><JB_name>{0}</JB_name>
<state>dr</state><queue_name>main.q@HOST</queue_name><slots>1</slots><tasks>3</tasks></job_list>
</queue_info><job_info>
<job_list state="pending"><JB_job_number>37</JB_job_number><JB_name>{0}</JB_name>
<state>Eqw</state><queue_name></queue_name><slots>1</slots><tasks>2</tasks></job_list>
<job_list state="pending"><JB_job_number>37</JB_job_number><JB_name>{0}</JB_name>
<state>qw</state><queue_name></queue_name><slots>1</slots><tasks>6-12:2,14</tasks></job_list>
<job_list state="pending"><JB_job_number>38</JB_job_number><JB_name>another's</JB_name>
<state>qw</state><queue_name></queue_name><slots>1</slots></job_list>
</job_info></job_info>
"""
ERROR = """\
==============================================================
job_number:                 37
error reason    2:          11/26/2026 17:21:53 [0:1]: error: can't chdir to /nowhere: No such file
scheduling info:            Job is in error state
"""
RECORDS = """\
==============================================================
taskid       1
failed       0
exit_status  3
ru_wallclock 4s
==============================================================
taskid       2
failed       25  : rescheduling
exit_status  99
ru_wallclock 5s
==============================================================
taskid       2
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137                  (Killed)
ru_wallclock 1801s
==============================================================
taskid       3
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137                  (Killed)
ru_wallclock 12s
==============================================================
taskid       4
failed       100 : assumedly after job
exit_status  137                  (Killed)
==============================================================
taskid       5
failed       25  : rescheduling
exit_status  99
==============================================================
taskid       6
failed       19  : before writing exit_status
exit_status  0
"""


@pytest.fixture
def answers(monkeypatch):
    """Answers of commands, by their first two words; and what was called."""
    told, called = {}, []

    def answer(*words):
        called.append(words)
        found = told.get(words[:2], told.get(words[0], ""))
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(grid_engine, "ask", answer)
    monkeypatch.setattr(commands, "ask", answer)
    return told, called


def test_tasks_count_from_one_there_and_from_zero_here(results, answers):
    told, called = answers
    begun, _ = submission(results, SGE, count=20, job="37")
    told["qstat"], told["qstat", "-j"] = ANSWER.format(job_name(begun.name, 0)), ERROR
    answer = GridEngine(SGE).alive([begun], results)
    numbers = {task.number: state for task, state in answer.alive.items()}
    reason = "error: can't chdir to /nowhere: No such file"
    assert numbers == {
        0: ("running", ""),
        1: ("pending", reason),
        2: ("running", ""),
        **dict.fromkeys((5, 7, 9, 11, 13), ("pending", "")),
    }
    assert answer.held == {Task(begun.name, 0, 1): "qmod -cj JOB"}
    assert called[0] == ("qstat", "-u", pwd.getpwuid(os.getuid()).pw_name, "-xml")
    found = GridEngine(SGE).find([begun], results)
    assert found[Task(begun.name, 0, 2)].leaving
    assert found[Task(begun.name, 0, 13)].number == "37.14"


def test_a_job_that_waits_for_others_is_not_held(results, answers):
    told, _ = answers
    begun, _ = submission(results, SGE, job="37", after=True)
    for number, release in ((1, {}), (0, {Task(begun.name, 0, 1): "qrls JOB"})):
        text = ANSWER.format(job_name(begun.name, number)).replace("Eqw", "hqw")
        told["qstat"] = text
        assert GridEngine(SGE).alive([begun], results).held == release


@pytest.mark.parametrize(
    "answer",
    ["<job_info", "Welcome to the cluster\n", ANSWER.replace("qw<", "zz<"), "<job_info/>x"],
)
def test_what_is_not_understood_is_kept_and_proves_nothing(results, answers, answer):
    told, _ = answers
    begun, _ = submission(results, SGE, job="37")
    told["qstat"] = answer.replace("{0}", job_name(begun.name, 0))
    with pytest.raises(SchedulerUnreachable, match="not understood") as silent:
        GridEngine(SGE).alive([begun], results)
    kept = manifest.folder(results, begun.name) / "answer.txt"
    assert kept.read_text() == told["qstat"]
    assert str(kept) in str(silent.value)


def test_cancel_names_each_task_by_a_word(results, answers):
    """`qdel 37.1,3` would delete the job 3 as well."""
    told, called = answers
    begun, _ = submission(results, SGE, count=20, job="37")
    told["qstat"] = ANSWER.format(job_name(begun.name, 0))
    seen = GridEngine(SGE).find([begun], results)
    called.clear()
    GridEngine(SGE).end(begun, seen, {0})
    (words,) = called
    assert words[:3] == ("qdel", "37.1", "37.3")
    assert len(words) == 1 + 8
    assert not any("," in word for word in words)


def test_how_tasks_ended(results, answers):
    """The last run of a task counts, and what `failed` says before the exit status."""
    told, _ = answers
    begun, _ = submission(results, SGE, count=7, job="37")
    told["qacct"] = RECORDS
    tasks = [task for task, _ in begun.tasks()]
    found = GridEngine(SGE).explain(begun, tasks, results)
    kinds = {task.number: ending.kind for task, ending in found.items()}
    assert kinds == {0: "exit", 1: "time", 2: "memory", 3: "exit", 4: "left", 5: "node"}
    assert found[tasks[0]].words == "exit status 3"
    assert found[tasks[3]].words == "failed 100: assumedly after job, exit status 137"
    told["qacct"] = SchedulerUnreachable("qacct: /x/accounting: No such file or directory")
    assert GridEngine(SGE).explain(begun, tasks, results) == {}


@pytest.mark.parametrize(
    ("per_slot", "cpus", "expected"),
    [(True, 4, "h_vmem=4096M"), (False, 4, "h_vmem=16384M"), (True, 3, "h_vmem=5462M")],
)
def test_memory_is_asked_for_as_the_site_counts_it(results, per_slot, cpus, expected):
    where = replace(SGE, memory_gb=16, memory_per_slot=per_slot, cpus=cpus, gpus=2)
    text = GridEngine(where).script(results, submission(results, where)[0], 0)
    assert f"#: -l {expected}\n" in text
    assert f"#: -pe smp\n#: {cpus}\n" in text
    assert "#: -l gpu=2\n" in text
    assert "s_rt" not in text  # it makes a second run end at s_rt
    assert "#: -notify\n" in text


def test_without_an_admin_host_the_limit_is_that_of_the_manual(answers):
    told, _ = answers
    told["qconf"] = SchedulerUnreachable('denied: host "login" is not an admin host')
    assert GridEngine(SGE).array_limit == 75000
    told["qconf"] = "qmaster_params  none\nmax_aj_instances  2000\nmax_aj_tasks     7000\n"
    assert GridEngine(SGE).array_limit == 7000


def test_the_commands_of_pbs_are_noticed(answers):
    told, _ = answers
    told["qstat"] = "usage: \nqstat [-f] [-J]"
    with pytest.raises(ConfigError, match="is it PBS"):
        GridEngine(SGE).check_config()
    told["qstat"] = "SGE 8.1.9\nusage: qstat [options]"
    GridEngine(SGE).check_config()


# a real one

real = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("sge_qmaster") is None
        and not Path("/usr/lib/gridengine/sge_qmaster").exists(),
        reason="needs Grid Engine: scripts/sge-ci.sh install",
    ),
]


def slow(test):
    for mark in real:
        test = mark(test)
    return test


@pytest.fixture(scope="module")
def engine():
    """A Grid Engine of one node, for root."""
    root = tempfile.mkdtemp(prefix="pb-", dir="/tmp")
    os.chmod(root, 0o755)
    environment = os.environ | {
        "SGE_TEST_ROOT": f"{root}/sge",
        "SGE_TEST_PORT": "16464",
        "SGE_ROOT": f"{root}/sge",
        "SGE_CELL": "ci",
        "SGE_QMASTER_PORT": "16464",
        "SGE_EXECD_PORT": "16465",
    }
    start = subprocess.run(["bash", SCRIPT, "start"], env=environment, stderr=subprocess.PIPE)
    assert start.returncode == 0, start.stderr.decode()
    settings = Path(root, "sge", "ci", "common", "settings.sh").read_text()
    given = dict(word.split("=", 1) for word in settings.split()[1:])
    yield environment | given
    subprocess.run(["bash", SCRIPT, "stop"], env=environment, check=False, capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def here(engine, monkeypatch):
    """The commands of this process reach it."""
    for name in ("SGE_ROOT", "SGE_CELL", "SGE_QMASTER_PORT", "SGE_EXECD_PORT", "SGE_ARCH"):
        monkeypatch.setenv(name, engine[name])
    return engine


@slow
def test_an_array_of_eight_that_end_in_every_way(here, tmp_path):
    results, begun, trace = array(tmp_path)
    asked = GridEngine(begun.cluster)
    subprocess.run(["qhold", f"{begun.arrays[0].job}.8"], check=True, capture_output=True)
    wait(lambda: states_of(results, begun).get(5) == "running" and (trace / "0_5").exists())
    answer = asked.alive([begun], results)
    assert answer.alive[Task(begun.name, 0, 7)] == ("pending", "held")
    assert answer.held == {Task(begun.name, 0, 7): "qrls JOB"}
    assert asked.cancel(begun, [Task(begun.name, 0, n) for n in (5, 7)], results) == {}
    seen = wait(
        lambda: not {5, 7} & set(asked.find([begun], results)) and states_of(results, begun)
    )
    assert 7 not in seen
    wait(lambda: not states_of(results, begun))
    turns = {path.name: len(path.read_text().splitlines()) for path in trace.iterdir()}
    assert turns == {f"0_{n}": 3 if n == 2 else 1 for n in range(7)}  # 7 never began
    tasks = [task for task, _ in begun.tasks()]
    told = wait(lambda: len(f := asked.explain(begun, tasks, results)) == 7 and f)
    words = {task.number: (ending.kind, ending.words) for task, ending in told.items()}
    assert words[0] == ("exit", "exit status 0")
    assert words[1] == ("exit", "exit status 3")
    assert words[2] == ("exit", "exit status 0")
    assert words[3][1].startswith("failed 37: qmaster enforced h_rt, h_cpu, or h_vmem limit")
    assert words[4][1].startswith("failed 100: assumedly after job, exit status 137")
    assert words[5][1].startswith("failed 100: ")
    place = manifest.folder(results, begun.name)
    assert (place / "0_1.log").read_text() == "broken\n"


@slow
def test_an_ordinary_user_does_the_same(engine, tmp_path):
    """With another's manager, another's folder, and no admin host's rights but those of users."""
    home = Path(tempfile.mkdtemp(prefix="pb-user-", dir="/tmp"))
    home.chmod(0o777)
    support = ROOT / "tests" / "support"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable]
    mine = {"HOME": str(home), "PEFTBENCH_CACHE": str(home), "HF_HOME": str(home)}
    done = subprocess.run(
        [*command, str(support / "engine_jobs.py"), str(home)],
        env=engine | mine | {"PYTHONPATH": str(support)},
        cwd=home,
        capture_output=True,
        text=True,
    )
    try:
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(
            "{} [(0, 'exit status 0'), (1, 'exit status 3'), (2, 'exit st"
        )
        assert done.stdout.strip().endswith("75000")
        owners = {path.owner() for path in home.glob("it*/submissions/*/*.log")}
        assert owners == {"nobody"}
    finally:
        shutil.rmtree(home, ignore_errors=True)


@slow
def test_what_it_refuses_and_what_is_held(here, tmp_path, results):
    for changes, said in (
        ({"partition": "nope.q"}, 'Job was rejected because job requests unknown queue "nope.q"'),
        ({"gpus": 1, "gpu_resource": "nope"}, 'unknown resource "nope"'),
        ({"cpus": 2, "parallel_environment": "nope"}, 'parallel environment "nope" does not exist'),
        ({"account": "proj"}, 'the requested project "proj" does not exist'),
    ):
        begun, _ = submission(results, replace(SGE, **changes))
        with pytest.raises(ConfigError, match=r"^Grid Engine refuses: ") as refused:
            hand_over(results, begun)
        assert said in str(refused.value)
    begun, _ = submission(results, SGE)
    text = GridEngine(SGE).script(results, begun, 0).replace("#: -wd /\n", "#: -wd /nowhere\n")
    job = GridEngine(SGE).hand_over(text, tmp_path / "x.sh", results)
    begun = replace(begun, arrays=[replace(begun.arrays[0], job=job)])
    manifest.save(results, begun)
    wait(lambda: len(look(results).held) == 2)
    told = ask(results, "status").output
    assert "held (error: can't chdir to /nowhere: No such file or directory)" in told
    assert "`qmod -cj JOB` lets them go" in told
    assert "2 jobs cancelled" in ask(results, "cancel").output
    wait(lambda: not look(results).alive)
    words = ["cluster=grid_engine", "cluster.partition=nope.q", "cluster.memory_gb=1"]
    told = json.loads(ask(results, "doctor", *words, "--json").output)
    bad = {one["what"]: one["found"] for one in told if one["state"] == "failed"}
    assert set(bad) == {"queue nope.q", "memory", "a job as asked for"}
    assert "torch alone maps 3.1 GB" in bad["memory"]
    told = json.loads(ask(results, "doctor", *WORDS, "cluster.memory_gb=5", "--json").output)
    assert not [one for one in told if one["state"] == "failed"]


@slow
def test_a_qmaster_that_hangs_or_is_down_proves_nothing(here, results, monkeypatch):
    begun = hand_over(results, submission(results, replace(SGE, options={"h": ""}))[0])
    pid = int(Path(here["SGE_ROOT"], "pid.qmaster").read_text())
    monkeypatch.setattr(commands, "PATIENCE", 2)
    os.kill(pid, signal.SIGSTOP)
    try:
        seen = look(results)
        assert set(seen.state.values()) == {"unknown"}
        assert "qstat did not answer within 2 s" in seen.silent
        told = ask(results, "submit", *begun.words)
        assert told.exit_code == 2
    finally:
        os.kill(pid, signal.SIGCONT)
    monkeypatch.setattr(commands, "PATIENCE", 60)
    wait(lambda: set(look(results).state.values()) == {"pending"})
    monkeypatch.setenv("SGE_QMASTER_PORT", "16499")  # nobody listens
    seen = look(results)
    assert set(seen.state.values()) == {"unknown"}
    assert "qstat: " in seen.silent
    monkeypatch.setenv("SGE_QMASTER_PORT", here["SGE_QMASTER_PORT"])
    assert "2 jobs cancelled" in ask(results, "cancel").output
    assert not results.failed()


CLUSTER = """\
about: a Grid Engine of one node
scheduler: grid_engine
cpus: 1
memory_gb: 8
most_memory_gb: 8
bundle_minutes: 0
minutes: 2
poll_seconds: 0
settle_seconds: 1
"""


@slow
def test_the_clock_of_a_job_puts_a_run_back_and_it_goes_on(engine, tmp_path):
    """Grid Engine warns nobody in time: 90 s after its start the job warns itself."""
    site = Site(tmp_path, engine, CLUSTER)
    (site.folder / "slow").touch()
    # 120 s of waiting alone
    words = [f"cluster.environment={{ZOO: {site.folder}}}", "cluster.signal_seconds=30"]
    told = site.ask(
        *("submit", *tiny("method=slow", "budget.steps=1200"), "cluster=test", *words),
        *("--device", "cpu"),
    )
    assert told.code == 0, told.said
    site.training_slowly(times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert "stopped by SIGALRM; checkpoints are written" in site.logs()
    assert "it goes back to the queue (exit code 99)" in site.logs()
    assert "turn 2" in site.logs()
    assert site.record().work["resumed"]
    assert site.record().work["steps"] == 1200
    assert site.ask("collect").code == 0
