"""A real Slurm of one node: scripts/slurm-ci.sh starts it, jobs are real, so is what goes wrong.

What a scheduler says is never the verdict here: the zoo's journal says how often a run was
trained, records say what came of it.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from paths import ROOT
from records import tiny
from sites import Site

from peftbench.cluster import manifest
from peftbench.results import choices
from peftbench.results.store import Results

SCRIPT = ROOT / "scripts" / "slurm-ci.sh"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(
        shutil.which("slurmctld") is None or os.geteuid() != 0,
        reason="needs root and Slurm: scripts/slurm-ci.sh install",
    ),
]

#: Of the cluster of these tests: answers soon, jobs short.
CLUSTER = """\
about: a Slurm of one node
scheduler: slurm
partition: main
cpus: 1
memory_gb: 1
most_memory_gb: 4
bundle_minutes: 0
unknown_minutes: 5
signal_seconds: 10
poll_seconds: 0
settle_seconds: 2
"""


def start(port, accounting=True):
    """Start a cluster; its environment, and how to end it. Sockets want a short path."""
    root = tempfile.mkdtemp(prefix="pb-", dir="/tmp")
    os.chmod(root, 0o755)  # munged wants its folder to be open to others
    environment = os.environ | {
        "SLURM_TEST_ROOT": f"{root}/s",
        "SLURM_TEST_PORT": str(port),
        "SLURM_TEST_ACCT": "1" if accounting else "0",
        "SLURM_CONF": f"{root}/s/slurm.conf",
    }
    subprocess.run(["bash", SCRIPT, "start"], env=environment, check=True, capture_output=True)

    def stop():
        subprocess.run(["bash", SCRIPT, "stop"], env=environment, check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)

    return environment, stop


@pytest.fixture(scope="module")
def slurm():
    environment, stop = start(16817)
    yield environment
    stop()


class SlurmSite(Site):
    """A folder of a user of the cluster."""

    def kill(self, job):
        """Kill what a job runs, as the kernel does when memory is short."""
        known = {f"SLURM_JOB_ID={job}"}
        if "_" in job:
            array, number = job.split("_")
            known = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={number}"}
        (process,) = self.processes(known)
        os.kill(process, signal.SIGKILL)

    def processes(self, known):
        """Those in which a job does its task, by what is in their environment."""
        known = known | {f"SLURM_CONF={self.environment['SLURM_CONF']}"}
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")
                runs = "peftbench.cluster.job_runner" in words and "python" in words[0]
                if runs and known <= set((folder / "environ").read_text().split("\0")):
                    found.append(int(folder.name))
        return found


@pytest.fixture
def site(tmp_path, slurm):
    return SlurmSite(tmp_path, slurm, CLUSTER)


SLOW = ("method=slow", "budget.steps=60")


def test_a_mixed_array_each_run_by_itself(site):
    (site.folder / "broken").touch()
    (site.folder / "slow").touch()
    # one is well, one raises, one is killed with its job, one is cancelled by hand
    made = site.submit(
        "method=steady,breaks,slow",
        "budget.steps=300",
        "seed=0,1",
        "exclude=method=steady,breaks seed=1",
    )
    assert [len(array.tasks) for array in made.arrays] == [4]
    site.training("slow", times=2)
    slow = [
        f"{made.arrays[0].job}_{task.number}"
        for task, _ in made.tasks()
        if manifest.read_jobs(site.results, task)[0].method.name == "slow"
    ]
    site.kill(slow[0])
    site.run("scancel", slow[1])
    site.wait_over()
    told = site.ask("collect")
    assert told.code == 1
    kinds = sorted(f.kind for key in site.results.failed() if (f := site.results.failure(key)))
    assert kinds == ["cancelled", "error", "lost"], told.said
    assert "something broke" in told.said
    (words,) = [line for line in told.out.splitlines() if line.startswith("  peftbench submit")]
    assert "cluster=test" in words
    (site.folder / "slow").unlink()
    again = site.submit(
        "method=steady,breaks,slow",
        "budget.steps=300",
        "seed=0,1",
        "exclude=method=steady,breaks seed=1",
    )
    assert len(again.arrays[0].tasks) == 2  # not the one that raised, not the one that is done
    site.wait_over()
    assert len(site.results.keys()) == 3
    assert site.trainings("steady") == 1
    assert site.trainings("breaks") == 1


def solo(site):
    """The same run without a cluster, never interrupted."""
    told = site.ask("run", *tiny(*SLOW), "--device", "cpu", "--threads", "1", results="solo")
    assert told.code == 0, told.said
    results = Results(site.folder / "solo")
    (key,) = results.keys()
    record = results.load(key)
    return record, results.predictions(record)


def assert_same_as_alone(site):
    record = site.record()
    assert record.work["resumed"]
    alone, expected = solo(site)
    found = site.results.predictions(record)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert record.metrics == alone.metrics


def test_the_warning_before_the_end_puts_a_job_back_and_it_goes_on_exactly(site):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training("slow")
    site.run("scancel", "--signal", "USR2", made.arrays[0].job)
    site.training("slow", times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert "goes back to the queue" in site.logs()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site)


@pytest.mark.parametrize("grace", [0, 10])
def test_preemption_with_and_without_grace(site, grace):
    site.run("scontrol", "update", "PartitionName=main", f"GraceTime={grace}")
    (site.folder / "slow").touch()
    site.submit(*SLOW)
    site.training("slow")
    site.run("sbatch", "-p", "high", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 2")
    site.training("slow", times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site)


def test_an_administrator_may_put_a_job_back(site):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training("slow")
    site.run("scontrol", "requeue", made.arrays[0].job)
    site.training("slow", times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site)


def test_a_real_time_limit(site):
    (site.folder / "slow").touch()
    words = ("method=slow", "budget.steps=1300", "cluster.minutes=2")  # 130 s of waiting alone
    site.submit(*words)
    site.training("slow", times=2)
    site.wait_over()
    record = site.record()
    assert record.work["resumed"]
    assert record.work["steps"] == 1300
    assert "checkpoints are written" in site.logs()  # Slurm's signal or the clock comes first


def test_two_submissions_at_once_train_each_run_once(site):
    words = ["submit", *tiny("method=steady", "seed=range(0,6)"), "cluster=test", "--device", "cpu"]
    with ThreadPoolExecutor() as together:
        told = list(together.map(lambda _: site.ask(*words), range(2)))
    assert [one.code for one in told] == [0, 0], told
    said = sorted(one.out.splitlines()[0] for one in told)
    assert said[0].startswith("6 to do (0 done, 0 in the queue already) in 6 jobs")
    assert said[1] == "nothing to submit: 0 done, 6 in the queue already"
    site.wait_over()
    assert len(site.results.keys()) == 6
    assert site.trainings("steady") == 6


def test_a_folder_that_moves_keeps_what_is_done_and_its_waiting_jobs_train_nothing(site):
    site.submit("method=steady", "seed=0")
    site.wait_over()
    hold = site.run(
        "sbatch", "--parsable", "-p", "high", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 600"
    ).strip()
    site.submit("method=steady", "seed=1")
    assert "pending" in site.states().values()
    site.results.folder.rename(site.folder / "moved")
    site.results = Results(site.folder / "moved")
    assert sorted(site.states().values()) == ["done", "pending"]
    assert "waiting for: " in site.ask("status", results="moved").out
    site.run("scancel", hold)
    site.wait_over()
    assert not (site.folder / "runs" / "records").exists()
    told = site.ask("collect", results="moved")
    assert "1 lost (its job on a cluster ended without a word)" in told.out
    words = [*tiny("method=steady", "seed=0,1"), "cluster=test", "--device", "cpu"]
    assert site.ask("submit", *words, results="moved").code == 0
    site.wait_over()
    assert site.trainings("steady") == 2
    assert site.ask("collect", results="moved").code == 0


def test_cancel_ends_what_waits_and_what_runs(site):
    (site.folder / "slow").touch()
    site.submit(*SLOW, "seed=0,1", "cluster.parallel=1")
    site.training("slow")
    assert "2 jobs cancelled" in site.ask("cancel").out
    site.wait_over()
    assert set(site.states().values()) == {"cancelled"}
    assert "no job is waiting or running" in site.ask("cancel").out
    (site.folder / "slow").unlink()
    site.submit(*SLOW, "seed=0,1")
    site.wait_over()
    records, _ = site.results.scan()
    assert [record.work["resumed"] for record in records].count(True) == 1


def test_the_second_round_of_a_search_waits_for_the_first(site):
    words = ["--tune", "--trials", "2", "--finalists", "1", "--seeds", "2", "--device", "cpu"]
    words += [*tiny("method=steady", "size=400", "train.lr=1e-3,1e-2"), "cluster=test"]
    told = site.ask("submit", *words)
    assert told.code == 0, told.said
    ((made,), _) = manifest.scan(site.results)
    first, second = (array.job for array in made.arrays)
    waits = site.run("squeue", "--noheader", "--format=%E", f"--jobs={second}")
    assert f"afterany:{first}" in waits
    site.wait_over()
    assert set(site.states().values()) == {"done"}, site.logs()
    (choice,) = choices.all_choices(site.results)
    assert len(choice.trials) == 3
    assert site.trainings("steady") == 3


def test_what_slurm_refuses_is_said_and_nothing_is_left_behind(site):
    for word, reason in (("cluster.partition=none", "invalid partition"), ("cluster.cpus=64", "")):
        told = site.ask("submit", *tiny("method=steady"), "cluster=test", word)
        assert told.code == 2
        assert "Slurm refuses: " in told.said
        assert reason in told.said
        assert "Traceback" not in told.said
    site.submit("method=steady")
    site.wait_over()
    assert len(site.results.keys()) == 1


def test_a_silent_scheduler_proves_nothing(site):
    (site.folder / "slow").touch()
    made = site.submit("method=slow", "budget.steps=2000")
    site.training("slow")
    whole = Path(site.environment["SLURM_CONF"]).read_text()
    (site.folder / "away.conf").write_text(re.sub("SlurmctldPort=.*", "SlurmctldPort=1", whole))
    away = site.environment | {"SLURM_CONF": str(site.folder / "away.conf")}
    here, site.environment = site.environment, away
    told = site.ask("status")
    assert "the scheduler does not answer" in told.out
    assert "lost" not in told.out
    told = site.ask("submit", *tiny("method=steady"), "cluster=test")
    assert told.code == 2
    assert "so nothing is submitted; try again later" in told.said
    site.environment = here
    (site.folder / "slow").unlink()
    site.wait_over()
    assert len(manifest.scan(site.results)[0]) == 1
    assert made.arrays[0].job is not None


def test_without_accounting_nothing_is_missed(tmp_path):
    environment, stop = start(16827, accounting=False)
    try:
        site = SlurmSite(tmp_path, environment, CLUSTER)
        (site.folder / "slow").touch()
        made = site.submit(*SLOW)
        site.training("slow")
        site.kill(made.arrays[0].job)
        site.wait_over()
        told = site.ask("collect")
        assert "1 lost" in told.out, told.said
        (site.folder / "slow").unlink()
        site.submit(*SLOW)
        site.wait_over()
        assert site.ask("collect").code == 0
        told = json.loads(site.ask("doctor", "cluster=test", "--json").out)
        assert "sacct" in [one["what"] for one in told]
    finally:
        stop()


def test_a_node_that_goes_down_gives_its_job_to_the_next(site):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training("slow")
    node = site.run("sinfo", "-h", "-o", "%n").strip()
    site.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    # a node that takes the job again while it still has the old one is drained, the job held
    site.wait(lambda: not site.processes({"SLURM_JOB_ID=" + str(made.arrays[0].job)}))
    with suppress(subprocess.CalledProcessError):  # it may have come back by itself
        site.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    site.training("slow", times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert len(site.results.keys()) == 1


@pytest.mark.parametrize("name", ["runs 100%j", "%A_%a"])
def test_logs_are_in_the_folder_whatever_it_is_called(site, name):
    site.results = Results(site.folder / name)
    words = [*tiny("method=steady", "seed=0,1"), "cluster=test", "--device", "cpu"]
    assert site.ask("submit", *words, results=name).code == 0
    site.wait_over()
    assert len(site.results.keys()) == 2
    assert site.logs().count("1 to do") == 2
    assert sorted(p.name for p in site.folder.iterdir()) == sorted([name, "configs", "journal"])


@pytest.mark.parametrize(
    "shell",
    [
        {"SLURM_MEM_PER_CPU": "512", "SBATCH_PARTITION": "none", "SBATCH_EXPORT": "NONE"},
        {"SLURM_MEM_PER_GPU": "512", "SLURM_NTASKS": "3", "SLURM_CPU_BIND": "map_cpu:9"},
        {"SBATCH_ARRAY_INX": "0-3", "SBATCH_JOB_NAME": "mine", "SQUEUE_PARTITION": "high"},
    ],
)
def test_variables_of_the_submitting_shell_end_no_job(site, shell):
    before, site.environment = site.environment, site.environment | shell
    site.submit("method=steady")
    told = site.ask("status")
    assert "ended" not in told.out
    site.wait_over()
    site.environment = before
    assert len(site.results.keys()) == 1, site.logs()


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("cluster.modules=[cuda/99]", "cluster.modules: module load cuda/99: exit code 127"),
        ("cluster.setup=['true','cd /nowhere']", "cluster.setup: cd /nowhere: exit code 1"),
    ],
)
def test_a_setup_that_fails_is_named(site, word, line):
    site.submit("method=steady", word)
    site.wait_over()
    told = site.ask("collect")
    assert f"its job ended: FAILED; its last line: peftbench: {line}" in told.out, told.said
    assert site.trainings("steady") == 0


def test_jobs_of_a_submission_that_was_cut_off_are_cancelled(site):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW, "seed=0,1")
    site.training("slow", times=2)
    cut = [replace(array, job=None) for array in made.arrays]
    manifest.save(site.results, replace(made, arrays=cut))
    assert "2 jobs cancelled" in site.ask("cancel").out
    site.wait_over()
    assert set(site.states().values()) == {"cancelled"}
    assert not site.results.keys()
