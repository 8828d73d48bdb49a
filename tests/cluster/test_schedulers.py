"""What is true of every scheduler: its script, its keys, the clock and the turns of a task."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from submissions import ask, hand_over, states, submission

from peftbench.cluster import base, collect, environment, job_runner, logs, manifest, turns
from peftbench.cluster import submit as submitting
from peftbench.cluster.manifest import RUNNING, Ending, SchedulerUnreachable, Task
from peftbench.cluster.queue import look
from peftbench.cluster.scripted import OVER, Scripted, Seen, asked_for, options
from peftbench.cluster.settle import settle
from peftbench.config import catalog, cluster
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.core.tuning import RateChoice, Search
from peftbench.results.store import ResultsFolder
from peftbench.runner import tune

NAMES = sorted(path.stem for path in (catalog.packaged() / "cluster").glob("*.yaml"))
SCRIPTED = [name for name in NAMES if name != "local"]

#: What the packaged yaml leaves to the site.
SITE = {"kubernetes": ["cluster.image=i", "cluster.claim=c", "cluster.mount=/"]}

#: The variable, or the argument, in which a scheduler gives the number of a task, and its first.
NUMBER = {
    "slurm": ({"SLURM_ARRAY_TASK_ID": "1"}, []),
    "grid_engine": ({"SGE_TASK_ID": "2"}, []),
    "pbs": ({"PBS_ARRAY_INDEX": "1"}, []),
    "lsf": ({"LSB_JOBINDEX": "2"}, []),
    "htcondor": ({}, ["1"]),
    "flux": ({}, ["2"]),
    "kubernetes": ({"JOB_COMPLETION_INDEX": "1"}, []),
}


def read(name, *words):
    return cluster.read([f"cluster={name}", *SITE.get(name, []), *words])


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


# scripts


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_script_does_its_task_and_says_what_the_job_has(tmp_path, monkeypatch, name):
    """Whatever the folder is called, whatever lines the site needs; the exit code is Python's."""
    results = ResultsFolder(tmp_path / ("a place" if name == "htcondor" else 'it\'s 9% "a place"'))
    where = replace(
        read(name), setup=["export A='x y'", "false || true"], environment={"B": "it's"}, cpus=3
    )
    for folder, program in (("bin", "srun"), ("bin", "python"), ("own", "python")):
        (tmp_path / folder).mkdir(exist_ok=True)
        path = tmp_path / folder / program
        path.write_text(
            'while [[ $1 == -* ]]; do shift; done; exec "$@"\n'
            if program == "srun"
            else "P=PEFTBENCH; for n in A B ${P}_SECONDS ${P}_SIGNAL_SECONDS ${P}_CPUS; do\n"
            'printf "%s|" "${!n}"; done; echo "$*"\nexit 75\n'
        )
        path.write_text(f"#!/bin/bash\n{path.read_text()}")
        path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "own" / "python"))
    monkeypatch.setenv("HF_HOME", "/hub of ours")
    begun, _ = submission(results, where, job="7")
    script = tmp_path / "script.sh"
    script.write_text(base.find_scheduler(name)(where).script(results, begun, 0))
    variables, arguments = NUMBER[name]
    place = manifest.folder(results, begun.name).resolve()
    done = subprocess.run(
        ["bash", script, *arguments],
        env={"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **variables},
        capture_output=True,
        text=True,
    )
    log = logs.log(results, Task(begun.name, 0, 1))
    said = done.stdout if name == "slurm" else log.read_text()
    assert done.returncode == 75
    assert said == f"x y|it's|1800|120|3|-u -m peftbench.cluster.job_runner {place} 0_1\n"
    assert ("HF_HOME='/hub of ours'" in script.read_text()) == (
        name not in ("slurm", "kubernetes")
    )  # Slurm passes the environment on


@pytest.mark.parametrize("name", SCRIPTED)
def test_a_line_that_fails_is_the_last_of_the_log(tmp_path, results, name):
    where = replace(read(name), setup=["true", "(exit 7)", "true"])
    begun, _ = submission(results, where)
    script = base.find_scheduler(name)(where).script(results, begun, 0)
    variables, arguments = NUMBER[name]
    done = subprocess.run(
        ["bash", "-s", *arguments],
        input=script,
        env=environment.cleaned() | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    said = done.stdout if name == "slurm" else logs.log(results, Task(begun.name, 0, 1)).read_text()
    assert done.returncode == 7
    assert said == "peftbench: cluster.setup: (exit 7): exit code 7\n"


def test_secrets_are_in_no_script(monkeypatch):
    given = {"HF_TOKEN": "s", "HF_HOME": "/h", "TOKENIZERS_PARALLELISM": "false", "LANG": "C"}
    given |= {"PEFTBENCH_API_KEY": "s", "PEFTBENCH_STARTED": "1", "CUDA_VISIBLE_DEVICES": "3"}
    assert environment.exports(given) == {"HF_HOME": "/h", "TOKENIZERS_PARALLELISM": "false"}


@pytest.mark.parametrize("name", ["slurm", "pbs", "grid_engine", "lsf", "flux"])
def test_an_option_that_is_true_is_a_switch(results, name):
    where = read(name, "cluster.options={x: true, y: '', foo: 8}")
    scheduler = base.find_scheduler(name)(where)
    begun = submission(results, where, count=2)[0]
    lines = asked_for(scheduler.script(results, begun, 0))
    dash, equals = ("--", "=") if name in ("slurm", "flux") else ("-", " ")
    assert [f"{dash}x", f"{dash}y", f"{dash}foo{equals}8"] == lines[-3:]


@pytest.mark.parametrize(
    ("name", "names"),
    [
        ("htcondor", ["HF_HOME"]),
        ("pbs", ["HF_HOME"]),
        ("grid_engine", ["HF_HOME"]),
        ("kubernetes", []),
        *((name, ["HF_HOME", "HF_TOKEN"]) for name in ("slurm", "lsf", "flux", "local")),
    ],
)
def test_a_submission_names_the_variables_that_its_jobs_have(
    results, monkeypatch, capsys, name, names
):
    from records import tiny

    from peftbench.cluster import rehearsal
    from peftbench.config.sweep import plan

    class Sent(base.find_scheduler(name)):
        commands, site, array_limit = (), None, 10

        def check_config(self):
            """It is not here."""

        def resolved(self):
            return self.cluster

        def send(self, results, submission, array):
            return "1"

    for variable in environment.inherited():
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HF_HOME", "/hub")
    monkeypatch.setenv("HF_TOKEN", "of-mine")
    monkeypatch.setattr(base, "find_scheduler", lambda name: Sent)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    order = RunOptions(device="cpu")
    told = submitting.submit(plan(*tiny("method=lora")), [], results, read(name), order)
    assert told.submission.inherited == names
    said = capsys.readouterr().err.replace("\n", " ")
    assert ("HF_TOKEN: secrets are written into no script" in said) == ("HF_TOKEN" not in names)
    assert "of-mine" not in said


def test_values_of_a_yaml_add_no_lines_of_their_own(results):
    where = replace(read("pbs"), environment={"A": "x\n#: -q stolen\n"})
    script = base.find_scheduler("pbs")(where).script(results, submission(results, where)[0], 0)
    assert "stolen" not in options(script)
    with pytest.raises(ConfigError, match="must be one line"):
        base.find_scheduler("lsf")(replace(read("lsf"), account="a\nb")).check_config()


@pytest.mark.parametrize("name", [name for name in SCRIPTED if name != "kubernetes"])
def test_a_template_of_ones_own(tmp_path, results, name):
    own = tmp_path / "mine.sh.j2"
    own.write_text(
        '{% from "job.sh.j2" import body with context %}\n#: own {{ name }}\n{{ body(1) }}'
    )
    where = read(name, f"cluster.template={own}")
    script = base.find_scheduler(name)(where).script(results, submission(results, where)[0], 0)
    assert asked_for(script)[0].startswith("own peftbench-2")
    own.write_text("{{ nothing_of_this_name }}")
    with pytest.raises(ConfigError, match=r"mine.sh.j2: UndefinedError: 'nothing_of_this_name'"):
        base.find_scheduler(name)(where).script(results, submission(results, where)[0], 0)


# keys


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("local", "partition=gpu"),
        ("slurm", "image=i"),
        ("grid_engine", "qos=long"),
        ("pbs", "exclude=n1"),
        ("lsf", "qos=long"),
        ("htcondor", "partition=gpu"),
        ("flux", "memory_gb=16"),
        ("kubernetes", "modules=[cuda]"),
    ],
)
def test_keys_of_other_schedulers_are_refused(name, word):
    key = word.partition("=")[0]
    with pytest.raises(ConfigError, match=f"the scheduler {name} has no key '{key}'; its keys are"):
        read(name, f"cluster.{word}")


def test_keys_of_other_schedulers_are_refused_in_a_yaml(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("about: ours\nscheduler: pbs\nqos: long\n")
    with pytest.raises(ConfigError, match="cluster=mine: the scheduler pbs has no key 'qos'"):
        cluster.read(["cluster=mine"], tmp_path)
    (tmp_path / "cluster" / "mine.yaml").write_text("about: ours\nscheduler: pbx\n")
    with pytest.raises(ConfigError, match=r"scheduler: pbx: there is no pbx\.yaml"):
        cluster.read(["cluster=mine"], tmp_path)


@pytest.mark.parametrize("key", ["image", "claim", "mount"])
def test_what_only_the_site_can_say_must_be_named(results, key):
    where = replace(read("kubernetes"), **{key: None})
    with pytest.raises(ConfigError, match=f"^cluster.{key}: Kubernetes needs it"):
        base.find_scheduler("kubernetes")(where).check_config()


@pytest.mark.parametrize("name", SCRIPTED)
def test_without_its_commands_a_scheduler_is_not_here(results, tmp_path, monkeypatch, name):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = base.find_scheduler(name)
    with pytest.raises(ConfigError, match=f"there is no {found.title} here"):
        base.build_scheduler(read(name))
    told = json.loads(ask(results, "doctor", *words(name), "--json").output)
    assert [one["what"] for one in told if one["state"] == "failed"] == [found.title]


def words(name):
    return [f"cluster={name}", *SITE.get(name, [])]


def test_what_is_untested_says_so_in_lists():
    untested = {name for name in SCRIPTED if base.find_scheduler(name).origin}
    assert untested == {"pbs", "lsf", "htcondor", "flux", "kubernetes"}
    for name in NAMES:
        path = catalog.packaged() / "cluster" / f"{name}.yaml"
        assert ("(untested on a real cluster)" in catalog.about(path)) == (name in untested)


# a scheduler of one's own: a template, a module, a yaml

MODULE = '''
"""A queue in a folder: a job is a line `NAME NUMBER STATE`."""
import pathlib
from peftbench.cluster import scripted
from peftbench.cluster.commands import ask
from peftbench.cluster.manifest import Ending, PENDING, RUNNING, Task
from peftbench.cluster.scripted import OVER, Scripted, Seen


class Toy(Scripted):
    title = "Toy"
    commands = ("toy-submit", "toy-show", "toy-end")
    submit = ("toy-submit",)
    array_limit = 50
    site = "here"

    def submitted(self, printed):
        return printed.split()[1]

    def find(self, submissions, results):
        names = scripted.named(submissions)
        states = {"waits": PENDING, "runs": RUNNING, "over": OVER}
        found = {}
        for line in ask("toy-show").splitlines():
            name, number, state = line.split()
            if name in names:
                found[Task(*names[name], int(number))] = Seen(states[state], f"{name}/{number}")
        return found

    def end(self, submission, seen, whole):
        ask("toy-end", *(one.number for one in seen.values()))

    def explain(self, submission, tasks, results):
        return dict.fromkeys(tasks, Ending("memory", "toy ran out of it"))


SCHEDULER = Toy
'''
TEMPLATE = """\
{% from "job.sh.j2" import option, body with context %}
#!/bin/bash
#: --name={{ name }}
#: --count={{ count }}
{{ option("--queue=", cluster.partition) -}}
{{ body("$TOY") -}}
"""
COMMANDS = {
    "toy-submit": 'cat > "$TOYS/script"; for n in $(seq 0 $((${2#*=} - 1))); do'
    ' echo "${1#*=} $n waits" >> "$TOYS/jobs"; done; echo job 41 "$@"',
    "toy-show": 'cat "$TOYS/jobs"',
    "toy-end": "for one; do"
    ' sed -i "s#^${one%/*} ${one#*/} .*#${one%/*} ${one#*/} over#" "$TOYS/jobs"; done',
}


def test_a_scheduler_is_a_template_a_module_and_a_yaml(tmp_path, results, monkeypatch):
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "toy.py").write_text(MODULE)
    (tmp_path / "mylab" / "toy.sh.j2").write_text(TEMPLATE)
    configs = tmp_path / "configs" / "cluster"
    configs.mkdir(parents=True)
    yaml = "about: a toy\nscheduler: mylab.toy\npartition: null\ncpus: 1\nattempts: 3\nmargin: 1\n"
    yaml += "unknown_minutes: 60\n"
    (configs / "toy.yaml").write_text(f"{yaml}most_minutes: 10\nsignal_seconds: 30\nparallel: 5\n")
    (configs / "ours.yaml").write_text("about: ours\nscheduler: mylab.toy\npartition: short\n")
    (tmp_path / "bin").mkdir()
    for name, text in COMMANDS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{text}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TOYS", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    where = cluster.read(["cluster=ours"], tmp_path / "configs")
    assert (where.partition, where.signal_seconds) == ("short", 30)
    with pytest.raises(ConfigError, match=r"the scheduler mylab\.toy has no key 'qos'"):
        cluster.read(["cluster=ours", "cluster.qos=long"], tmp_path / "configs")
    begun = hand_over(results, submission(results, where, count=3)[0])
    assert begun.arrays[0].job == "41"
    assert "--queue=short" in asked_for((tmp_path / "script").read_text())
    assert states(results) == ["pending"] * 3
    jobs = tmp_path / "jobs"
    jobs.write_text(jobs.read_text().replace("0 waits", "0 runs").replace("1 waits", "1 over"))
    assert states(results) == ["running", "ended", "pending"]
    settle(results, look(results))
    assert states(results) == ["running", "failed", "pending"]
    assert "1 memory" in ask(results, "status").output
    assert "2 jobs cancelled" in ask(results, "cancel").output
    assert "runs" not in jobs.read_text()


def test_a_module_that_is_no_scheduler_is_refused(tmp_path, monkeypatch):
    (tmp_path / "nothing_of_ours.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("nothing_of_ours.toy", "peftbench.cluster.logs"):
        with pytest.raises(ConfigError, match=f"scheduler: {name}: .*module on PYTHONPATH"):
            base.find_scheduler(name)


# the clock and the turns of a task


def test_the_clock_rings_before_the_time_is_over(monkeypatch):
    monkeypatch.setenv("PEFTBENCH_STARTED", str(time.time() - 50))
    monkeypatch.setenv("PEFTBENCH_SECONDS", "60")
    monkeypatch.setenv("PEFTBENCH_SIGNAL_SECONDS", "4")
    assert job_runner.seconds_left() == pytest.approx(6, abs=1)
    monkeypatch.setenv("PEFTBENCH_SECONDS", "20")  # it is late already
    assert job_runner.seconds_left() == 0.1
    monkeypatch.delenv("PEFTBENCH_STARTED")  # a script of the release before
    assert job_runner.seconds_left() is None


def leave(results, begun, *heard):
    """What a node does when it was interrupted."""
    task = Task(begun.name, 0, 0)
    turns.begin(results, task)
    job_runner._heard.update(heard)
    try:
        return job_runner.leave_job(results, begun, task), turns.read(results, task)
    finally:
        job_runner._heard.clear()


@pytest.mark.parametrize(
    ("name", "code", "left"),
    [
        ("grid_engine", 99, 75),
        ("lsf", 75, 0),
        ("htcondor", 75, 0),
        ("kubernetes", 75, 0),
        ("pbs", 75, 75),
        ("flux", 75, 75),
    ],
)
def test_how_a_task_goes_back_and_how_often(results, name, code, left):
    """Turns are counted in a file of the task, whatever the scheduler counts."""
    where = read(name)
    if where.max_requeues:
        where = replace(where, max_requeues=2)
    begun, _ = submission(results, where)
    back = "left" if name in ("pbs", "flux") else "requeued"
    found = [leave(results, begun, signal.SIGALRM) for _ in range(3)]
    assert [turn.count for _, turn in found] == [1, 2, 3]
    assert [turn.ended for _, turn in found] == [back, back, "left"]
    assert [one for one, _ in found] == [code, code, left]


def test_a_signal_that_is_no_warning_leads_nowhere(results):
    begun, _ = submission(results, read("grid_engine"))
    assert leave(results, begun, signal.SIGTERM) == (75, turns.Turns(1))
    assert leave(results, begun, signal.SIGUSR1) == (99, turns.Turns(2, "requeued"))
    manifest.save(results, replace(begun, cancelled=True))
    assert leave(results, begun, signal.SIGUSR2) == (75, turns.Turns(3))


@pytest.mark.parametrize("name", ["kubernetes", "htcondor"])
def test_a_job_that_is_evicted_is_not_done(results, name):
    begun, _ = submission(results, read(name))
    assert leave(results, begun, signal.SIGTERM) == (75, turns.Turns(1, "requeued"))
    manifest.save(results, replace(begun, cancelled=True))
    assert leave(results, begun, signal.SIGTERM) == (0, turns.Turns(2))


def test_turns_that_cannot_be_read_are_none(results):
    begun, _ = submission(results, read("pbs"))
    task = Task(begun.name, 0, 0)
    turns.end(results, task, turns.LEFT)
    path = manifest.folder(results, begun.name) / "0_0.turns"
    path.write_bytes(path.read_bytes()[:9])
    assert turns.read(results, task) == turns.Turns()


class Silent(Scripted):
    """A scheduler that shows nothing, and remembers what a test says."""

    title, commands, submit, array_limit, site = "Silent", (), ("true",), 10, None
    remembered: dict[int, Ending] = {}  # noqa: RUF012

    def submitted(self, printed):
        """Any number."""
        return "1"

    def find(self, submissions, results):
        """Nothing."""
        return {}

    def end(self, submission, seen, whole):
        """Nothing."""

    def explain(self, submission, tasks, results):
        """What was said."""
        return {
            task: self.remembered[task.number] for task in tasks if task.number in self.remembered
        }


def test_a_task_that_meant_to_go_back_but_is_gone_is_left(results, monkeypatch):
    """Where a site forbids it the checkpoint is there all the same; what is cancelled is not."""
    monkeypatch.setattr(base, "find_scheduler", lambda name: Silent)
    begun, jobs = submission(
        results, replace(read("grid_engine"), settle_seconds=0), count=4, job="1"
    )
    for number in (0, 1, 2):
        turns.begin(results, Task(begun.name, 0, number))
        turns.end(results, Task(begun.name, 0, number), turns.REQUEUED)
    monkeypatch.setattr(
        Silent,
        "remembered",
        {0: Ending("left", "failed 25"), 1: Ending("cancelled", "by hand"), 3: Ending("exit", "x")},
    )
    seen = settle(results, look(results))
    assert [seen.state[job.key] for job in jobs] == ["left", "failed", "left", "failed"]
    assert [results.failure(job.key).kind for job in (jobs[1], jobs[3])] == ["cancelled", "lost"]
    assert any(line.startswith("2 stopped with a checkpoint") for line in collect.lines(seen))
    assert [look(results).state[job.key] for job in jobs] == ["left", "failed", "left", "failed"]


@pytest.mark.parametrize(
    ("asked", "seen", "own"), [(1, ["0", "1"], ["0"]), (0, ["0"], []), (2, ["0"], ["0"])]
)
def test_a_job_takes_no_more_gpus_than_it_asked_for(results, monkeypatch, asked, seen, own):
    begun, _ = submission(results, replace(read("grid_engine"), gpus=asked))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert job_runner.own_gpus(begun, seen) == own
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", ",".join(seen))
    assert job_runner.own_gpus(begun, seen) == seen


@pytest.mark.parametrize("name", ["pbs", "grid_engine", "kubernetes"])
def test_gpus_without_the_name_of_the_resource_are_refused(name):
    where = replace(read(name), gpus=1, gpu_resource=None)
    with pytest.raises(ConfigError, match=r"cluster\.gpu_resource: needed with cluster\.gpus"):
        Scripted.check_config(base.find_scheduler(name)(where))
    Scripted.check_config(base.find_scheduler(name)(replace(where, gpus=0)))


def test_an_interrupt_lets_a_job_write_its_checkpoint(results, monkeypatch):
    """LSF's bkill sends INT first."""
    begun, _ = submission(results, read("lsf"))
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def told(place, task):
        os.kill(os.getpid(), signal.SIGINT)
        return job_runner.leave_job(results, begun, Task.read(begun.name, task))

    monkeypatch.setattr(job_runner, "_work", told)
    try:
        with pytest.raises(SystemExit) as ended:
            job_runner.work("place", "0_0")
    finally:
        job_runner._heard.clear()
        for number in ("INT", "TERM", "USR1", "USR2", "CONT"):
            found = signal.Signals[f"SIG{number}"]
            signal.signal(found, before[found])
    assert ended.value.code == 0  # in LSF: it does not come back


# cancelling


def test_what_is_cancelled_is_told_when_the_scheduler_falls_silent(results, monkeypatch):
    ended = []

    class Queue(Silent):
        commands = ("true",)

        def find(self, submissions, results):
            if len(ended) == 2:
                raise SchedulerUnreachable("timed out")
            state = OVER if submissions[0].name in ended else RUNNING
            return {task: Seen(state) for one in submissions for task, _ in one.tasks()}

        def end(self, submission, seen, whole):
            ended.append(submission.name)

    monkeypatch.setattr(base, "find_scheduler", lambda name: Queue)
    begun = [submission(results, read("lsf"), job="1")[0] for _ in range(3)]
    begun = sorted(begun, key=lambda one: one.submitted)

    told = ask(results, "cancel")
    assert told.exit_code == 1
    first, second, third = told.output.splitlines()
    assert first == f"{begun[0].name}: 2 jobs cancelled"
    assert second.startswith(f"{begun[1].name}: the scheduler does not answer (timed out); it is")
    assert third.endswith("so nothing of it is cancelled; try again later")
    kept = [manifest.load(results, one.name).cancelled for one in begun]
    assert kept == [True, True, False]


# an array that waits for the end of another


@pytest.mark.parametrize("name", SCRIPTED)
def test_an_array_waits_for_others_or_is_sent_later(results, name):
    found = base.find_scheduler(name)
    begun, _ = submission(results, read(name), job="41", after=True)
    text = " ".join(asked_for(found(begun.cluster).script(results, begun, 1)))
    waits = {
        "slurm": "--dependency=afterany:41",
        "grid_engine": "-hold_jid 41",
        "pbs": "-W depend=afterany:41",
        "lsf": "-w ended(41)",
        "flux": "--dependency=afterany:41",
    }
    assert found.waits == (name in waits)
    assert waits.get(name, "#") in f"{text} #"


def test_the_second_round_is_submitted_later_where_nothing_can_wait(results, monkeypatch):
    from records import record, tiny

    from peftbench.cluster import rehearsal
    from peftbench.config.sweep import plan

    sent = []

    class Hasty(Silent):
        waits = False

        def send(self, results, submission, array):
            sent.append(submission.arrays[array].tasks)
            return "1"

    monkeypatch.setattr(base, "find_scheduler", lambda name: Hasty)
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    search = Search(trials=2, finalists=1, seeds=2)
    where, order = replace(read("htcondor"), settle_seconds=0), RunOptions(device="cpu")

    def submit():
        first, choices = tune.first_round(plan(*tiny("method=lora", "size=400")), search, results)
        told = submitting.submit(first, [], results, where, order, choices=choices)
        return first, choices, told

    first, choices, told = submit()
    assert (told.jobs, told.later) == (2, 1)
    said = " ".join(submitting.sentence(told, results))
    assert "1 evaluations or choices of learning rates need runs that are in the queue" in said
    for run in first.runs:
        results.trials().save(record(run), {})
    _, _, told = submit()
    assert (told.jobs, told.later) == (1, 0)
    assert [len(tasks) for tasks in sent] == [2, 1]
    (made,) = [one for one in choices if isinstance(one, RateChoice)]
    assert sent[1] == [[made.key]]
