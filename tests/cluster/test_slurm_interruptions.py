"""A real Slurm of one node that puts jobs back, kills them, runs out of time and loses its node.

What a scheduler says is never the verdict here: the zoo's journal says how often a run was
trained, records say what came of it.
"""

import json
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from records import tiny
from slurm_sites import CLUSTER, MARKS, SLOW, SlurmSite, started

from peftbench.cluster import manifest

pytestmark = MARKS


PORT = 16837  # of a Slurm of its own, see conftest.py


def test_a_mixed_array_each_run_by_itself(site):
    (site.folder / "broken").touch()
    (site.folder / "slow").touch()
    # one is well, one raises, one is killed with its job, one is cancelled by hand
    methods = ("method=steady,breaks,slow", "exclude=method=steady,breaks seed=1")
    words = (*methods, "budget.steps=300", "seed=0,1")
    made = site.submit(*words)
    assert [len(array.tasks) for array in made.arrays] == [4]
    site.training_slowly(times=2)
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
    (rest,) = [line for line in told.out.splitlines() if line.startswith("  peftbench submit")]
    assert "cluster=test" in rest
    (site.folder / "slow").unlink()
    again = site.submit(*words)
    assert len(again.arrays[0].tasks) == 2  # not the one that raised, not the one that is done
    site.wait_over()
    assert len(site.results.keys()) == 3
    assert site.trainings("steady") == 1
    assert site.trainings("breaks") == 1


@pytest.fixture(scope="module")
def alone(tmp_path_factory, slurm):
    """The same run without a cluster, never interrupted: its record and predictions."""
    site = SlurmSite(tmp_path_factory.mktemp("alone"), slurm, CLUSTER)
    told = site.ask("run", *tiny(*SLOW), "--device", "cpu", "--threads", "1")
    assert told.code == 0, told.said
    record = site.record()
    return record, site.results.predictions(record)


def assert_same_as_alone(site, alone):
    record, (uninterrupted, expected) = site.record(), alone
    assert record.work["resumed"]
    found = site.results.predictions(record)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)
    assert record.metrics == uninterrupted.metrics


def test_the_warning_before_the_end_puts_a_job_back_and_it_goes_on_exactly(site, alone):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training_slowly()
    site.run("scancel", "--signal", "USR2", made.arrays[0].job)
    site.training_slowly(times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert "goes back to the queue" in site.logs()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site, alone)


@pytest.mark.parametrize("grace", [0, 10])
def test_preemption_with_and_without_grace(site, alone, grace):
    site.run("scontrol", "update", "PartitionName=main", f"GraceTime={grace}")
    (site.folder / "slow").touch()
    site.submit(*SLOW)
    site.training_slowly()
    site.run("sbatch", "-p", "high", "-c", "8", "-o", "/dev/null", "--wrap", "sleep 2")
    site.training_slowly(times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site, alone)


def test_an_administrator_may_put_a_job_back(site, alone):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training_slowly()
    site.run("scontrol", "requeue", made.arrays[0].job)
    site.training_slowly(times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert_same_as_alone(site, alone)


def test_a_real_time_limit(site):
    (site.folder / "slow").touch()
    words = ("method=slow", "budget.steps=1300", "cluster.minutes=2")  # 130 s of waiting alone
    site.submit(*words)
    site.training_slowly(times=2)
    site.wait_over()
    record = site.record()
    assert record.work["resumed"]
    assert record.work["steps"] == 1300
    assert "checkpoints are written" in site.logs()  # Slurm's signal or the clock comes first


def test_a_node_that_goes_down_gives_its_job_to_the_next(site):
    (site.folder / "slow").touch()
    made = site.submit(*SLOW)
    site.training_slowly()
    node = site.run("sinfo", "-h", "-o", "%n").strip()
    site.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    # a node that takes the job again while it still has the old one is drained, the job held
    site.wait(lambda: not site.processes({"SLURM_JOB_ID=" + str(made.arrays[0].job)}))
    with suppress(subprocess.CalledProcessError):  # it may have come back by itself
        site.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
    site.training_slowly(times=2)
    (site.folder / "slow").unlink()
    site.wait_over()
    assert site.trainings("slow") == 2
    assert len(site.results.keys()) == 1


def test_without_accounting_nothing_is_missed(tmp_path):
    with started(16827, accounting=False) as environment:
        site = SlurmSite(tmp_path, environment, CLUSTER)
        (site.folder / "slow").touch()
        made = site.submit(*SLOW)
        site.training_slowly()
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
