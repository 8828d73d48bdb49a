"""Queues as people have them: whose jobs are shown, which process is meant, what a shell passes on.

Slurm is simulated by the scripts of tests/support/fake_slurm.py; "another machine" is another boot.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import checkpoints as made
import pytest
from click.testing import CliRunner
from fake_slurm import CONFIG, FakeSlurm
from records import runs, tiny

from peftbench.cli.main import main
from peftbench.cluster import (
    bundling,
    collect,
    environment,
    job_runner,
    logs,
    manifest,
    rehearsal,
)
from peftbench.cluster.manifest import Task, job_name
from peftbench.cluster.queue import look
from peftbench.cluster.schedulers import slurm as slurm_module
from peftbench.cluster.schedulers.slurm import Slurm
from peftbench.cluster.scripted import options
from peftbench.cluster.settle import settle
from peftbench.config import cluster
from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.results.store import ResultsFolder
from peftbench.system import io, processes
from peftbench.system.processes import Process

SLURM = cluster.read(["cluster=slurm", "cluster.settle_seconds=0", "cluster.poll_seconds=0"])
LOCAL = cluster.read(["cluster=local"])


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    return FakeSlurm(tmp_path, monkeypatch)


def test_what_was_cancelled_while_it_waited_is_no_lost_job(results, monkeypatch):
    """Once squeue has forgotten an array, sacct has one line for all that never started of it."""
    begun, _ = submission(results, count=4)
    tasks = [task for task, _ in begun.tasks()]
    lines = "17_0|COMPLETED\n17_1|NODE_FAIL\n17_[2-3%2]|CANCELLED by 1000\n"
    monkeypatch.setattr(slurm_module, "ask", lambda *words: lines if words[0] == "sacct" else "")
    found = Slurm(SLURM).explain(begun, tasks, results)
    assert [found[task].kind for task in tasks] == ["exit", "node", "cancelled", "cancelled"]
    lines = "17_0|COMPLETED\n17_[1-3%2]|PENDING\n"
    assert list(Slurm(SLURM).explain(begun, tasks, results)) == tasks[:1]


def ask(results, *words):
    """A command of peftbench in this process."""
    return CliRunner().invoke(
        main, [*words, "--results", str(results.folder)], catch_exceptions=False
    )


def submission(results, where=SLURM, count=2, job="17", **changes):
    """A submission of so many runs, each in a job of its own, and the runs."""
    jobs = runs(f"seed=range(0,{count})")
    array = bundling.Array([[job] for job in jobs], 30, 16)
    words = [*tiny(f"seed=range(0,{count})"), f"cluster={where.scheduler}"]
    begun = manifest.begin(words, where, [array], None, {}, {})
    sent = replace(begun.arrays[0], job=job)
    begun = replace(begun, arrays=[sent], **changes)
    for task, _ in begun.tasks():
        manifest.write_jobs(results, task, array.bundles[task.number])
    manifest.save(results, begun)
    return begun, jobs


def put(slurm, begun, numbers=(0, 1), **about):
    """The jobs of a submission in Slurm's queue."""
    for number in numbers:
        slurm.put(job_name(begun.name, 0), 17, number, **about)


def asked(results, begun):
    """The options of sbatch for the first array."""
    return options(Slurm(begun.cluster).script(results, begun, 0))


def states(results):
    return list(look(results).state.values())


# F3: absence from an answer


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_jobs_of_a_colleague_are_in_the_queue(results, slurm, state):
    begun, _ = submission(results, owner=54321)
    put(slurm, begun, user="anna", state=state)
    assert states(results) == [state.lower()] * 2
    told = ask(results, "submit", *begun.words)
    assert "nothing to submit: 0 done, 2 in the queue already" in told.output
    assert not slurm.calls("sbatch")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SQUEUE_PARTITION", "debug"),
        ("SQUEUE_NAMES", "interactive"),
        ("SQUEUE_USERS", "anna"),
        ("SQUEUE_STATES", "COMPLETED"),
    ],
)
def test_variables_of_the_shell_do_not_hide_jobs(results, slurm, monkeypatch, name, value):
    begun, _ = submission(results)
    put(slurm, begun)
    monkeypatch.setenv(name, value)
    assert states(results) == ["pending"] * 2


def test_jobs_of_a_hidden_partition_are_in_the_queue(results, slurm):
    begun, _ = submission(results)
    put(slurm, begun, partition="owned", hidden=True, state="RUNNING")
    assert states(results) == ["running"] * 2


@pytest.mark.parametrize("variables", [(), ("LOGNAME",)])
def test_a_user_whose_number_has_no_name_may_look(results, slurm, monkeypatch, variables):
    """As in a container that is started with the number of a user of the machine around it."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    for name in variables:
        monkeypatch.setenv(name, "")

    def nobody(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    begun, _ = submission(results)
    put(slurm, begun)
    assert states(results) == ["pending"] * 2
    assert begun.owner_name == f"user {os.getuid()}"


@pytest.mark.parametrize(
    ("config", "changes", "said"),
    [
        ({"ClusterName": "beta"}, {"site": "alpha"}, "it went to the Slurm cluster alpha"),
        ({"PrivateData": "accounts,jobs"}, {"owner": 54321}, "user 54321 submitted it"),
    ],
)
def test_what_cannot_be_seen_is_unknown_and_not_submitted_again(
    results, slurm, config, changes, said
):
    begun, _ = submission(results, **changes)
    put(slurm, begun, numbers=(0,), state="COMPLETED", user="anna")
    slurm.set(config=CONFIG | config)
    if "PrivateData" not in config:  # the other cluster has other jobs
        slurm.set(jobs=[])
    assert states(results) == ["unknown"] * 2
    told = ask(results, "status")
    assert f"unknown, {begun.name}: {said}" in told.output
    told = ask(results, "submit", *begun.words)
    assert told.exit_code == 2
    assert "2 of these may wait or run already, so nothing is submitted" in told.output
    assert said in told.output
    assert not slurm.calls("sbatch")
    assert not results.failed()
    slurm.set(config=CONFIG, jobs=[])
    manifest.save(results, replace(begun, site="alpha", owner=os.getuid()))
    assert states(results) == ["ended"] * 2


def test_an_answer_that_is_not_understood_proves_nothing(results, slurm):
    submission(results)
    (slurm.folder / "bin" / "squeue").write_text("#!/bin/bash\necho 'slurm is being upgraded'\n")
    seen = look(results)
    assert set(seen.state.values()) == {"unknown"}
    assert "slurm is being upgraded" in seen.silent


# F5: which process is meant


@contextmanager
def stranger():
    """A process that has nothing to do with peftbench."""
    process = subprocess.Popen(["sleep", "60"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def held(results, begun, identity):
    """Hold the lock of a task as its process does."""
    path = manifest.folder(results, begun.name) / "0_0.lock"
    with open(path, "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.write(json.dumps(identity).encode())
        lock.flush()
        yield path


def older(process):
    """What a lock said before it named the space of process numbers."""
    return {
        "pid": process.pid,
        "host": process.machine,
        "boot": process.boot,
        "started": int(process.start) if process.start.isdigit() else 0,
    }


@pytest.mark.parametrize("form", [Process.to_json, older])
@pytest.mark.parametrize("changes", [{"host": "elsewhere", "boot": "x"}, {"start": "1"}])
def test_cancel_kills_no_stranger(results, changes, form):
    """A process of another machine, and one whose number was given to another since."""
    with stranger() as process:
        begun, _ = submission(results, LOCAL, count=1, job=str(process.pid))
        here = replace(processes.current(), pid=process.pid, **changes)
        with held(results, begun, form(here)):
            told = ask(results, "cancel")
        assert process.poll() is None
        time.sleep(0.2)
        assert process.poll() is None
    assert told.exit_code == 1
    assert f"1 job could not be cancelled: it runs on {here.machine}" in told.output
    assert "jobs cancelled" not in told.output


def test_cancel_ends_the_process_that_is_meant(results):
    code = "from peftbench.cluster.schedulers import local;"
    code += "from peftbench.cluster.manifest import Task;"
    code += "import sys, time; from pathlib import Path;"
    code += "local.note_process(Path(sys.argv[1]), Task(sys.argv[2], 0, 0)); time.sleep(60)"
    begun, _ = submission(results, LOCAL, count=1, job=None)  # the submit was killed: no number
    place = manifest.folder(results, begun.name)
    with open(place / "0_0.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(place), begun.name], pass_fds=[lock.fileno()]
        )
        told = ask(results, "cancel")  # before the process has said which one it is
    assert told.output == f"{begun.name}: 1 job cancelled\n"
    assert process.wait(timeout=30) == -signal.SIGTERM
    assert states(results) == ["cancelled"]


@pytest.mark.parametrize("form", [Process.to_json, older])
@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({"host": "elsewhere", "boot": "x"}, "unknown"),
        ({"boot": "the boot before"}, "ended"),
        ({"host": "a container beside this one"}, "ended"),
    ],
)
def test_a_lock_that_is_not_held_here_proves_nothing_about_another_machine(
    results, changes, state, form
):
    begun, _ = submission(results, LOCAL, count=1)
    path = manifest.folder(results, begun.name) / "0_0.lock"
    path.write_text(json.dumps(form(replace(processes.current(), pid=1, **changes))))
    assert states(results) == [state]
    if state == "unknown":
        told = ask(results, "submit", *begun.words)
        assert told.exit_code == 2
        assert "it was started on elsewhere" in told.output
        told = ask(results, "cancel")
        assert told.exit_code == 1
        assert "whether more of it waits or runs is unknown: it was started on els" in told.output
        assert states(results) == ["cancelled"]


# F6: which submission is the latest


@pytest.mark.parametrize("zones", [("Pacific/Kiritimati", "America/Adak"), ("UTC-9", "UTC+11")])
def test_submissions_are_in_order_whatever_the_time_zone(results, slurm, monkeypatch, zones):
    found = []
    for zone, cancelled in zip(zones, (True, False), strict=True):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        found.append(submission(results, cancelled=cancelled)[0])
    monkeypatch.undo()
    time.tzset()
    utc = [time.strftime("%Y%m%d-%H%M%S", time.gmtime(one.submitted)) for one in found]
    assert [one.name[:15] for one in found] == utc
    assert manifest.scan(results) == (found, [])


@pytest.mark.parametrize("state", ["PENDING", "RUNNING"])
def test_a_submission_that_lives_outranks_a_later_one(results, slurm, state):
    older, _ = submission(results)
    put(slurm, older, state=state)
    submission(results, job="18", cancelled=True)
    assert states(results) == [state.lower()] * 2
    told = ask(results, "submit", *older.words)
    assert "nothing to submit: 0 done, 2 in the queue already" in told.output


def test_names_in_local_time_are_no_order(results, slurm):
    """As they were until schema 2: the later submission has the earlier name."""
    first, _ = submission(results, cancelled=True)
    second, _ = submission(results)
    for one, name in ((first, "20261127-230000-aaaa"), (second, "20261127-010000-bbbb")):
        old, new = (manifest.folder(results, n) for n in (one.name, name))
        old.rename(new)
        manifest.save(results, replace(one, name=name))
    assert [one.cancelled for one in manifest.scan(results)[0]] == [True, False]
    assert states(results) == ["ended"] * 2


# F7: a submission that was cut off


@pytest.mark.parametrize("numbers", [(0, 1), (1,)])
def test_cancel_ends_jobs_whose_number_was_never_noted(results, slurm, numbers):
    begun, _ = submission(results, job=None)
    put(slurm, begun, numbers)
    slurm.put("another's job", 18, 0)
    told = ask(results, "cancel")
    count = len(numbers)
    assert told.output == f"{begun.name}: {count} job{'s' * (count != 1)} cancelled\n"
    assert [job["state"] for job in slurm.jobs] == ["CANCELLED"] * count + ["PENDING"]
    assert told.exit_code == 0


def test_jobs_that_arrive_after_they_were_cancelled_do_nothing(results, slurm, capfd):
    begun, _ = submission(results, job=None)
    told = ask(results, "cancel")
    assert (
        "it was cut off while it was submitted, and none of its jobs is in the que" in told.output
    )
    with pytest.raises(SystemExit) as ended:
        job_runner.work(str(manifest.folder(results, begun.name)), "0_1")
    assert ended.value.code == 0
    assert "it was cancelled" in capfd.readouterr().err
    assert ask(results, "cancel").output == "no job is waiting or running\n"


@pytest.mark.parametrize(("how", "said"), [("denied", "denied"), ("SCANCEL_STATE", None)])
def test_cancel_counts_what_it_ended(results, slurm, monkeypatch, how, said):
    begun, _ = submission(results, count=3)
    put(slurm, begun, (0, 1, 2), state="RUNNING")
    if how == "denied":
        slurm.set(denied=["17"])
    else:
        monkeypatch.setenv(how, "PENDING")
    told = ask(results, "cancel")
    if said is None:
        assert told.output == f"{begun.name}: 3 jobs cancelled\n"
    else:
        assert "3 jobs could not be cancelled: scancel: " in told.output
        assert "jobs cancelled" not in told.output
        assert told.exit_code == 1


# F11: what jobs inherit

SHELL = {
    "SBATCH_PARTITION": "debug",
    "SBATCH_EXPORT": "NONE",
    "SBATCH_TIMELIMIT": "1",
    "SLURM_MEM_PER_CPU": "2048",
    "SLURM_JOB_ID": "4",
    "SRUN_CPUS_PER_TASK": "64",
    "CUDA_VISIBLE_DEVICES": "3",
}


@pytest.mark.parametrize("count", [1, 3])
def test_the_shell_changes_nothing_of_what_jobs_get(results, slurm, monkeypatch, count):
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    for name, value in SHELL.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SLURM_CONF", "/etc/slurm/alpha.conf")
    monkeypatch.setenv("OMP_PLACES", "cores")
    words = ["cluster=slurm", "cluster.partition=gpu", "cluster.bundle_minutes=0"]
    told = ask(results, "submit", *tiny(f"seed=range(0,{count})"), *words, "--device", "cpu")
    assert told.exit_code == 0, told.output
    (call,) = slurm.calls("sbatch")
    assert call["given"]["partition"] == "gpu"
    assert "timelimit" not in call["given"]
    assert call["given"]["export"] == "ALL"
    assert not set(SHELL) & set(call["environment"])
    assert call["environment"]["SLURM_CONF"] == "/etc/slurm/alpha.conf"
    assert f"{', '.join(sorted(SHELL))} of this shell are not for jobs" in told.output
    (begun,), _ = manifest.scan(results)
    assert "OMP_PLACES" in begun.inherited
    assert (begun.site, begun.owner) == ("alpha", os.getuid())
    assert begun.arrays[0].job == "100"
    assert call["given"].get("array") == (None if count == 1 else "0-2%3")


def test_variables_are_left_out_by_their_beginning():
    given = {"SLURM_JWT": "x", "SLURMD_NODENAME": "n", "SQUEUE_FORMAT": "%i", "PATH": "/bin"}
    given |= {"SLURMBOARD": "mine", "HF_HOME": "/hub", "HF_TOKEN": "secret"}
    assert environment.left_out(given) == ["SLURMD_NODENAME", "SQUEUE_FORMAT"]
    assert environment.cleaned(given).keys() == given.keys() - {"SLURMD_NODENAME", "SQUEUE_FORMAT"}
    assert environment.inherited(given) == ["HF_HOME", "HF_TOKEN"]  # names, no values


@pytest.mark.parametrize("name", ["job-name", "job_name", "output", "--array", "clusters"])
def test_options_by_which_jobs_are_found_are_refused(results, slurm, name):
    where = replace(SLURM, options={name: "mine"})
    with pytest.raises(ConfigError, match=r"sets --[a-z-]+ itself"):
        Slurm(where).check_config()
    Slurm(replace(SLURM, options={"reservation": "course", "exclusive": "true"})).check_config()
    begun, _ = submission(results, replace(SLURM, options={"nice": "9", "exclusive": "true"}))
    assert asked(results, begun)[-2:] == ["--nice=9", "--exclusive"]


# F14: the environment of a job that cannot be made


def job(results, slurm, where, tmp_path, **variables):
    """Run the script of a job as Slurm does, with `srun` as on the path of these tests."""
    begun, _ = submission(results, where, count=1)
    script = tmp_path / "script.sh"
    script.write_text(Slurm(where).script(results, begun, 0))
    task = Task(begun.name, 0, 0)
    with open(logs.log(results, task), "ab") as log:
        done = subprocess.run(
            ["bash", script], stdout=log, stderr=log, env=environment.cleaned() | variables
        )
    return begun, done.returncode, logs.log(results, task).read_text()


@pytest.mark.parametrize(
    ("key", "lines", "line", "code"),
    [
        ("modules", ["cuda/99"], "cluster.modules: module load cuda/99", 127),
        ("setup", ["source nowhere/bin/activate"], "cluster.setup: source nowhere/bin/acti", 1),
        ("setup", ["true", "if true; then", "(exit 7)", "fi", "true"], "cluster.setup: if true", 7),
        ("setup", ["exit 3"], "cluster.setup: exit 3", 3),
        ("setup", ["X=$(false) && true", "X=$(exit 4)"], "cluster.setup: X=$(exit 4)", 4),
    ],
)
def test_a_line_that_fails_ends_the_job_and_is_named(
    results, slurm, tmp_path, key, lines, line, code
):
    _, found, log = job(results, slurm, replace(SLURM, **{key: lines}), tmp_path)
    assert found == code
    assert log.splitlines()[-1].startswith(f"peftbench: {line}")
    assert log.splitlines()[-1].endswith(f": exit code {code}")
    assert "task 0_0" not in log  # nothing was begun
    told = ask(results, "status")
    assert f"1 job ended before any work: peftbench: {line}" in told.output
    settle(results, look(results))
    (key,) = results.failed()
    assert f"its last line: peftbench: {line}" in results.failure(key).reason


def test_lines_that_are_well_are_in_force(results, slurm, tmp_path):
    lines = ["false || true", "if true; then", "export A=1", "fi", "set +e", "export B='x y'"]
    where = replace(SLURM, setup=lines, environment={"C": "it's"})
    python = tmp_path / "python"
    python.write_text('#!/bin/bash\necho "A=$A B=$B C=$C $SRUN_CPUS_PER_TASK: $*"\nexit 75\n')
    python.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(python))
        begun, code, log = job(results, slurm, where, tmp_path, SLURM_ARRAY_TASK_ID="5")
    place = manifest.folder(results, begun.name).resolve()
    assert log == f"A=1 B=x y C=it's 4: -u -m peftbench.cluster.job_runner {place} 0_5\n"
    assert code == 75


@pytest.mark.parametrize("lines", [["if true; then", "source env"], ["echo 'open"], ["fi"]])
def test_a_setup_that_is_no_shell_is_refused(results, slurm, lines):
    words = json.dumps(lines)
    told = ask(results, "submit", *tiny("seed=0"), "cluster=slurm", f"cluster.setup={words}")
    assert told.exit_code == 2
    assert "cluster.setup: bash cannot read" in told.output
    assert not results.submissions().exists()


@pytest.mark.parametrize(("key", "given"), [("setup", "[source env]"), ("modules", "[cuda]")])
def test_a_setup_that_would_be_ignored_is_refused(results, key, given):
    told = ask(results, "submit", *tiny("seed=0"), "cluster=local", f"cluster.{key}={given}")
    assert told.exit_code == 2
    assert f"cluster.{key}=" in told.output
    assert "do that there, before `peftbench submit`" in told.output


# a manifest that is not whole


def tear(path):
    path.write_bytes(path.read_bytes()[:100])


def alter(path):
    path.write_text(path.read_text().replace('"minutes": 30', '"minutes": 31'))


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [tear, alter, empty])
def test_a_torn_manifest_blocks_nothing_else_and_says_what_to_do(results, slurm, damage):
    torn, _ = submission(results)
    path = manifest.folder(results, torn.name) / "manifest.json"
    damage(path)
    other, _ = submission(results, count=3, job="18")
    slurm.put(job_name(other.name, 0), 18, 2)
    told = ask(results, "status")
    assert told.exit_code == 0
    assert f"unknown, {torn.name}: {path}" in told.output
    assert f"scancel --name=peftbench-{torn.name}.0" in told.output
    told = ask(results, "submit", *torn.words)
    assert told.exit_code == 2
    assert "2 of these may wait or run already" in told.output
    assert ask(results, "collect").exit_code == 1
    assert not results.failed()  # nothing is noted lost that may run
    told = ask(results, "cancel")
    assert told.exit_code == 1
    assert f"{other.name}: 1 job cancelled" in told.output
    assert f"{torn.name}: {path}" in told.output
    told = ask(results, "cancel", torn.name)
    assert (told.exit_code, "scancel --name=" in told.output) == (2, True)


def test_a_newer_manifest_names_the_version_that_reads_it(results, slurm):
    begun, _ = submission(results)
    data = {"schema": 5, "version": "9.1.0", "arrays": [], "something": "new"}
    path = manifest.folder(results, begun.name) / "manifest.json"
    path.write_bytes(io.sealed(data))
    told = ask(results, "status")
    assert "has schema 5" in told.output
    assert "use peftbench 9.1.0 for this folder" in told.output
    assert states(results) == ["unknown"] * 2


def test_a_manifest_of_the_release_before_is_read(results, slurm):
    begun, _ = submission(results)
    path = manifest.folder(results, begun.name) / "manifest.json"
    data = io.unsealed(path) | {"schema": 1}
    for name in ("site", "owner", "inherited"):
        del data[name]
    path.write_bytes(io.sealed(data))
    (found,), bad = manifest.scan(results)
    assert (found.site, found.owner, bad) == (None, None, [])


@pytest.mark.parametrize("damage", [tear, empty])
def test_a_torn_task_is_told_and_the_rest_is_settled(results, slurm, damage):
    begun, jobs = submission(results)
    damage(manifest.folder(results, begun.name) / "0_0.json")
    seen = settle(results, look(results))
    assert [seen.state[job.key] for job in jobs] == ["ended", "failed"]
    (line,) = [line for line in collect.lines(seen) if line.startswith("unreadable: ")]
    assert line.endswith("`peftbench submit` hands its runs over again")


# a folder's name


@pytest.mark.parametrize("name", ["100%j", "%A_%a", "50% off", "a%%b", 'it\'s 9% "here"'])
def test_a_percent_sign_in_a_folders_name_stands_for_itself(tmp_path, slurm, name):
    results = ResultsFolder(tmp_path / name)
    begun, _ = submission(results)
    (output,) = [one for one in asked(results, begun) if one.startswith("--output=")]
    place = str(manifest.folder(results, begun.name).resolve())
    pattern = output.removeprefix("--output=")
    assert pattern == place.replace("%", "%%") + "/0_%a.log"
    log = logs.log(results, Task(begun.name, 0, 1))
    # as Slurm reads it: %% is a percent sign, %a the number in the array
    expanded = pattern.replace("%%", "\0").replace("%a", "1").replace("\0", "%")
    assert expanded == str(log.resolve())


def test_a_backslash_in_a_folders_name_is_refused(tmp_path, slurm):
    results = ResultsFolder(tmp_path / "a\\b")
    begun, _ = submission(results)
    with pytest.raises(ConfigError, match="choose another folder with --results"):
        asked(results, begun)


# rehearsal


@pytest.fixture
def checkpoint(tmp_path):
    return made.checkpoint(tmp_path / "own")


def truncated(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-200])


def foreign_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()
    made.tokenizer(True, made.ROWS + 9).save_pretrained(folder)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["slurm", "local"])
@pytest.mark.parametrize(
    ("damage", "words", "said"),
    [
        (truncated, (), "model.safetensors"),
        (foreign_tokenizer, (), "the tokenizer"),
        (None, ("method=ia3", "method.inputs=[nowhere]"), "nowhere"),
    ],
)
def test_what_run_would_refuse_is_never_handed_over(
    tmp_path, results, slurm, checkpoint, where, damage, words, said
):
    if damage is not None:
        damage(checkpoint)
    given = made.words_of(checkpoint, *words)
    kept = [word for word in given if not (words and word == "method=bitfit")]
    told = ask(results, "submit", *kept, f"cluster={where}", "--device", "cpu")
    assert told.exit_code == 2, told.output
    assert said in told.output
    assert not manifest.scan(results)[0]
    assert not slurm.calls("sbatch")


@pytest.mark.slow
def test_what_passes_is_handed_over_and_is_not_rehearsed_twice(
    results, slurm, checkpoint, cache_folder
):
    words = [*made.words_of(checkpoint), "cluster=slurm", "--device", "cpu"]
    assert ask(results, "submit", *words, "--dry-run").exit_code == 0
    assert not slurm.calls("sbatch")
    (kept,) = (cache_folder / "rehearsals").iterdir()
    before = kept.stat().st_mtime_ns
    told = ask(results, "submit", *words)
    assert told.exit_code == 0, told.output
    assert len(slurm.calls("sbatch")) == 1
    assert kept.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("train.precision=fp16",), "train.precision=fp16, which is for GPUs"),
        (("--device", "cuda"), "--device cuda: with cluster.gpus=0 choose auto, cpu"),
        (("--device", "cuda:1", "cluster.gpus=1"), "choose auto, cpu, cuda, cuda:0"),
        (("--gpus-per-run", "4", "cluster.gpus=2"), "jobs have cluster.gpus=2"),
    ],
)
def test_what_a_job_will_not_have_is_refused(results, slurm, words, said):
    told = ask(results, "submit", *tiny("seed=0"), "cluster=slurm", *words)
    assert told.exit_code == 2
    assert said in told.output
    assert not slurm.calls("sbatch")


def test_failures_of_an_older_submission_stay_what_they_are(results, slurm):
    begun, jobs = submission(results)
    results.fail(Failure(jobs[0], "error", "broke"))
    slurm.set(config=CONFIG | {"ClusterName": "beta"})
    manifest.save(results, replace(begun, site="alpha"))
    seen = look(results)
    assert [seen.state[job.key] for job in jobs] == ["failed", "unknown"]
