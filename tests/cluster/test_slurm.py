"""A real Slurm of one node: jobs of users, and what they write, move, cancel and get wrong.

The zoo's journal says how often a run was trained; see test_slurm_interruptions.py.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from records import tiny
from slurm_sites import MARKS, SLOW

from peftbench.cluster import manifest
from peftbench.results import choices
from peftbench.results.store import ResultsFolder

pytestmark = MARKS


PORT = 16817  # of a Slurm of its own, see conftest.py


def test_two_submissions_at_once_train_each_run_once(site):
    words = ["submit", *tiny("method=steady", "seed=0,1,2"), "cluster=test", "--device", "cpu"]
    with ThreadPoolExecutor() as together:
        told = list(together.map(lambda _: site.ask(*words), range(2)))
    assert [one.code for one in told] == [0, 0], told
    said = sorted(one.out.splitlines()[0] for one in told)
    assert said[0].startswith("3 to do (0 done, 0 in the queue already) in 3 jobs")
    assert said[1] == "nothing to submit: 0 done, 3 in the queue already"
    site.wait_over()
    assert len(site.results.keys()) == 3
    assert site.trainings("steady") == 3


def test_a_folder_that_moves_keeps_what_is_done_and_its_waiting_jobs_train_nothing(site):
    site.submit("method=steady", "seed=0")
    site.wait_over()
    hold = site.run(
        "sbatch", "--parsable", "-p", "high", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 600"
    ).strip()
    site.submit("method=steady", "seed=1")
    assert "pending" in site.states().values()
    site.results.folder.rename(site.folder / "moved")
    site.results = ResultsFolder(site.folder / "moved")
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
    site.training_slowly()
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
    site.training_slowly()
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


def test_logs_are_in_the_folder_whatever_it_is_called(site):
    name = "%A_%a runs 100%j"
    site.results = ResultsFolder(site.folder / name)
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
    site.training_slowly(times=2)
    cut = [replace(array, job=None) for array in made.arrays]
    manifest.save(site.results, replace(made, arrays=cut))
    assert "2 jobs cancelled" in site.ask("cancel").out
    site.wait_over()
    assert set(site.states().values()) == {"cancelled"}
    assert not site.results.keys()
