"""Submitting without a scheduler: what is asked for, who does what, and what is brought along."""

import errno
import fcntl
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pynvml
import pytest
import zoo
from click.testing import CliRunner
from packaging.requirements import Requirement
from records import record, runs, tiny
from submissions import hand_over, states, submission

from peftbench.cli import doctor
from peftbench.cli.main import main
from peftbench.cluster import bundling, collect, job_runner, manifest, queue, rehearsal, submit
from peftbench.cluster.job_choice import JobChoice, choose_jobs, retry_rule
from peftbench.cluster.manifest import QueueAnswer, Task
from peftbench.cluster.queue import QueueSnapshot, look
from peftbench.cluster.schedulers import local
from peftbench.cluster.schedulers.slurm import Slurm
from peftbench.cluster.scripted import options
from peftbench.cluster.settle import settle
from peftbench.config import cluster
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.failures import Failure
from peftbench.core.plan import Plan, RunOptions
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.tuning import Search
from peftbench.data import loading
from peftbench.results import choices
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder
from peftbench.runner import sharding, sweep, tune
from peftbench.system import hub, offline_folder, processes, run_locks
from peftbench.system.hardware import gpus
from peftbench.system.hub import locate
from peftbench.training import memory_need, trainer

SLURM = ["cluster=slurm"]


def ask(*words):
    return CliRunner().invoke(main, list(words), catch_exceptions=False)


# what a yaml says


def test_a_cluster_is_its_yaml_and_the_words():
    found = cluster.read([*SLURM, "cluster.partition=gpu", "cluster.setup=[source env, ulimit -n]"])
    assert found.partition == "gpu"
    assert found.setup == ["source env", "ulimit -n"]
    assert (found.bundle_minutes, found.array_size, found.poll_seconds) == (30, 1000, 30)
    assert cluster.Cluster.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_texts_stay_as_they_were_typed_and_numbers_are_numbers():
    said = {
        "account": "0123",
        "qos": "2024_07",
        "partition": "null",
        "options.begin": "16:00",
        "options.nice": "010",
        "options.exclusive": "",
        "environment.VERSION": "3.10",
        "environment.NCCL_IB_DISABLE": "yes",
        "setup": "[umask 0022, source env]",
        "modules": "[3.10]",
        "gpus": "2",
        "margin": "2.5",
    }
    found = cluster.read([*SLURM, *(f"cluster.{key}={value}" for key, value in said.items())])
    assert (found.account, found.qos, found.partition) == ("0123", "2024_07", None)
    assert found.options == {"begin": "16:00", "nice": "010", "exclusive": ""}
    assert found.environment == {"VERSION": "3.10", "NCCL_IB_DISABLE": "yes"}
    assert (found.setup, found.modules) == (["umask 0022", "source env"], ["3.10"])
    assert (found.gpus, found.margin) == (2, 2.5)
    whole = cluster.read(["cluster=grid_engine", "cluster.memory_per_slot=false"])
    assert whole.memory_per_slot is False
    assert cluster.read([*SLURM, "cluster.options={nice: 010}"]).options == {"nice": "010"}


def test_a_yaml_of_ones_own_says_what_differs(tmp_path):
    (tmp_path / "cluster").mkdir()
    (tmp_path / "cluster" / "mine.yaml").write_text("about: ours\nscheduler: slurm\nqos: long\n")
    found = cluster.read(["cluster=mine", "cluster.gpus=2"], tmp_path)
    assert (found.qos, found.gpus, found.cpus, found.about) == ("long", 2, 4, "ours")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no single cluster is named; set cluster=NAME, one of "),
        (["cluster=slrum"], "did you mean slurm?"),
        ([*SLURM, "cluster.partitions=gpu"], "'partitions'"),
        ([*SLURM, "cluster.gpus=many"], "cluster.gpus must be a whole number or null, got 'many'"),
        ([*SLURM, "cluster.gpus"], "cluster.gpus: no value is given; write cluster.gpus=VALUE"),
        ([*SLURM, "cluster.gpus=1", "cluster.gpus=4"], "cluster.gpus is given twice"),
        ([*SLURM, "cluster.minutes=2"], "at least 4 minutes are needed"),
        ([*SLURM, "cluster.array_size=0"], "cluster.array_size=0: must be at least 1"),
        ([*SLURM, "cluster.bundle_minutes=inf"], "cluster.bundle_minutes=inf: must be a finite"),
        ([*SLURM, "cluster.margin=nan"], "cluster.margin=nan: must be a finite number"),
        ([*SLURM, "cluster.gpus=-1"], "cluster.gpus=-1: must be at least 0"),
        ([*SLURM, "cluster.memory_gb=0"], "cluster.memory_gb=0.0: must be above 0"),
        ([*SLURM, "cluster.unknown_minutes=0"], "cluster.unknown_minutes=0.0: must be above 0"),
        (["cluster=local", "cluster.settle_seconds=-1"], "cluster.settle_seconds=-1.0: must be at"),
    ],
)
def test_bad_words_are_refused_before_anything_is_done(words, said):
    with pytest.raises(ConfigError) as refused:
        cluster.read(words)
    assert said in str(refused.value)


# bundles


def units(seconds, memory=None):
    jobs = runs(f"seed=range(0,{len(seconds)})")
    spent = dict(zip([job.key for job in jobs], seconds, strict=True))
    wanted = dict(zip([job.key for job in jobs], memory or [16] * len(jobs), strict=True))
    return bundling.units(jobs, lambda job: spent[job.key], lambda job: wanted[job.key])


def test_short_runs_share_a_job_and_time_is_asked_with_a_margin():
    slurm = cluster.read(SLURM)
    (array,) = bundling.arrays(units([300] * 10), slurm, limit=1001, workers=1)
    assert [len(bundle) for bundle in array.bundles] == [6, 4]  # 30 minutes each
    # 120 s to start, 2 times 6 * 300 s, 120 s of warning that comes up to 60 s early
    assert array.minutes == (120 + 2 * 1800 + 120 + 60) / 60


def test_what_is_unknown_gets_the_time_of_the_yaml_and_what_is_long_the_most():
    slurm = cluster.read(SLURM)
    (array,) = bundling.arrays(units([None, None]), slurm, 1001, 1)
    assert [len(bundle) for bundle in array.bundles] == [1, 1]
    assert array.minutes == 60 + 5
    (array,) = bundling.arrays(units([10**6]), slurm, 1001, 1)
    assert array.minutes == 1440
    (array,) = bundling.arrays(units([10]), cluster.read([*SLURM, "cluster.minutes=7"]), 1001, 1)
    assert array.minutes == 7


def test_arrays_stay_below_every_limit_and_part_what_asks_for_other_memory():
    slurm = cluster.read([*SLURM, "cluster.bundle_minutes=0", "cluster.array_size=3"])
    made = bundling.arrays(units([1] * 8), slurm, limit=1001, workers=1)
    assert [len(array.bundles) for array in made] == [3, 3, 2]
    made = bundling.arrays(units([1] * 8), slurm, limit=2, workers=1)
    assert [len(array.bundles) for array in made] == [2, 2, 2, 2]
    made = bundling.arrays(units([1, 1], [16, 32]), slurm, limit=1001, workers=1)
    assert sorted(array.memory_gb for array in made) == [16, 32]


def test_several_workers_of_a_job_halve_its_time():
    slurm = cluster.read(SLURM)
    (array,) = bundling.arrays(units([300] * 10), slurm, 1001, workers=2)
    assert [len(bundle) for bundle in array.bundles] == [10]
    assert array.minutes == (120 + 2 * 1500 + 180) / 60


def test_a_job_has_a_run_for_each_of_its_workers():
    slurm = cluster.read([*SLURM, "cluster.gpus=4"])
    (array,) = bundling.arrays(units([7200] * 8), slurm, 1001, workers=4)
    assert [len(bundle) for bundle in array.bundles] == [4, 4]
    assert array.minutes == (120 + 2 * 7200 + 180) / 60


def test_what_is_known_of_a_unit_counts_beside_what_is_not():
    slurm = cluster.read(SLURM)
    found = plan(*tiny("suite=calibration,noise"))
    jobs = [*found.runs, *found.evaluations]
    spent = {found.runs[0].key: 36000.0}
    (unit,) = bundling.units(jobs, lambda job: spent.get(job.key), lambda job: None)
    assert (unit.seconds, unit.unknown) == (36000, 2)
    (array,) = bundling.arrays([unit], slurm, 1001, workers=1)
    assert array.minutes == (120 + 2 * 36000 + 180) / 60 + 2 * 60


def test_the_time_of_an_evaluation_is_that_on_the_same_kind_of_device(tmp_path, monkeypatch):
    (asked,) = plan(*tiny("suite=calibration")).evaluations
    found = [
        SimpleNamespace(evaluation=asked, seconds={"evaluate": s}, environment={"cuda": cuda})
        for s, cuda in ((900.0, None), (60.0, "12.8"))
    ]
    monkeypatch.setattr(ResultsFolder, "scan_evaluated", lambda _: (found, {}))
    what = JobChoice([asked], SimpleNamespace(forecast=Forecast([])), {}, 0, [])
    for words, seconds in ((["cluster.gpus=1"], 60), ([], 900)):
        where = cluster.read([*SLURM, *words])
        scheduler = SimpleNamespace(array_limit=1000)
        (array,) = submit._bundle(what, ResultsFolder(tmp_path), scheduler, where, RunOptions())
        assert array.minutes == (120 + 2 * seconds + 180) / 60


def test_an_evaluation_goes_with_its_run():
    found = plan(*tiny("method=bitfit", "suite=calibration", "seed=0,1"))
    jobs = [*found.runs, *found.evaluations]
    both = bundling.units(jobs, lambda job: 1.0, lambda job: None)
    assert [len(unit.jobs) for unit in both] == [2, 2]
    assert all(unit.jobs[0].key == unit.jobs[1].run.key for unit in both)


# what is tried again


def test_memory_grows_after_each_failure_for_lack_of_it_until_the_most():
    slurm = cluster.read(SLURM)
    run = runs()[0]
    asked = [bundling.memory_gb(Failure(run, "memory", "", attempts=n), slurm) for n in (1, 2, 3)]
    assert asked == [32, 64, 64]  # at the most it failed too: not again
    again = retry_rule(slurm, None)
    tried = [again(Failure(run, "memory", "", n)) for n in (1, 2, 3)]
    assert tried == [True, True, False]
    steady = cluster.read([*SLURM, "cluster.more_memory=1"])
    assert not retry_rule(steady, None)(Failure(run, "memory", "", 1))


def test_more_memory_of_the_host_is_no_help_for_a_gpu():
    again = retry_rule(cluster.read(SLURM), None)
    reasons = {
        "OutOfMemoryError: CUDA out of memory": False,
        "PredictionOutOfMemory: no memory to predict for one example": False,
        "MemoryError: Unable to allocate 9 GiB": True,
        "killed by the kernel, which ran out of memory": True,
    }
    tried = {reason: again(Failure(runs()[0], "memory", reason)) for reason in reasons}
    assert tried == reasons


def test_a_run_that_is_lost_again_and_again_is_given_up():
    slurm = cluster.read(SLURM)
    run = runs()[0]
    again = retry_rule(slurm, None)
    assert [again(Failure(run, "lost", "", n)) for n in (1, 2, 3)] == [True, True, False]
    assert retry_rule(slurm, "lost")(Failure(run, "lost", "", 9))
    assert not again(Failure(run, "error", "", 1))


def test_a_failure_of_another_kind_is_no_attempt_of_this_one(tmp_path):
    """Lost twice, then out of memory three times; cancelled three times, then lost twice."""
    slurm, run = cluster.read(SLURM), runs()[0]
    again = retry_rule(slurm, None)
    for kinds, asked, tried in (
        (
            ["lost", "lost", "memory", "lost", "memory", "memory"],
            [16, 16, 32, 32, 64, 64],
            "111010",
        ),
        (["cancelled"] * 3 + ["lost", "cancelled", "lost", "lost"], [16] * 7, "1111110"),
        (["memory", "cancelled"], [32, 32], "11"),
    ):
        results = ResultsFolder(tmp_path / "-".join(kinds))
        for kind, gb, expected in zip(kinds, asked, tried, strict=True):
            results.fail(Failure(run, kind, ""))
            failure = results.failure(run.key)
            assert bundling.memory_gb(failure, slurm) == gb
            assert again(failure) == (expected == "1")
        assert results.failure(run.key).attempts == len(kinds)


# manifests


def submitted(results, count=4, size=2, **changes):
    jobs = runs(f"seed=range(0,{count})")
    pairs = [jobs[start : start + size] for start in range(0, count, size)]
    array = bundling.Array([list(pair) for pair in pairs], 30, 16)
    words = ["seed=0,1", *SLURM]
    made = manifest.begin(words, cluster.read(["cluster=local"]), [array], None, {}, {})
    for task, _ in made.tasks():
        manifest.write_jobs(results, task, array.bundles[task.number])
    made = replace(made, arrays=[replace(made.arrays[0], job="99")])
    manifest.save(results, made)
    return made, jobs


def test_a_manifest_is_read_as_it_was_written_wherever_the_folder_went(tmp_path):
    made, jobs = submitted(ResultsFolder(tmp_path / "runs"))
    (tmp_path / "runs").rename(tmp_path / "elsewhere")
    results = ResultsFolder(tmp_path / "elsewhere")
    assert manifest.scan(results) == ([made], [])
    assert manifest.read_jobs(results, Task(made.name, 0, 1)) == jobs[2:]


def test_a_name_cannot_leave_the_folder(tmp_path):
    submitted(ResultsFolder(tmp_path))
    assert ask("cancel", "../../etc", "--results", str(tmp_path)).exit_code == 2


def test_each_run_has_one_state(tmp_path):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)
    results.save(record(jobs[0]), {})
    results.fail(Failure(jobs[1], "error", "broke"))
    seen = look(results)  # nothing runs: the lock files are not there
    states = [seen.state[job.key] for job in jobs]
    assert states == ["done", "failed", "ended", "ended"]
    assert [(over.task.number, over.keys) for over in seen.ended] == [
        (1, [job.key for job in jobs[2:]])
    ]
    manifest.save(results, replace(made, cancelled=True))
    assert [look(results).state[job.key] for job in jobs[2:]] == ["cancelled", "cancelled"]


def test_a_record_that_comes_late_is_waited_for_and_the_rest_is_noted_once(tmp_path):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)
    patient = replace(made.cluster, settle_seconds=3.0)
    manifest.save(results, replace(made, cluster=patient))
    late = threading.Timer(1.0, lambda: [results.save(record(job), {}) for job in jobs[:3]])
    late.start()
    seen = settle(results, look(results))
    late.join()
    assert [seen.state[job.key] for job in jobs] == ["done", "done", "done", "failed"]
    failure = results.failure(jobs[3].key)
    assert (failure.kind, failure.attempts) == ("lost", 1)
    assert settle(results, look(results)).failures[jobs[3].key].attempts == 1


def test_claims_by_file_of_jobs_that_are_over_are_removed(tmp_path):
    """Where there are no locks: a killed job leaves its own, and others would wait for it."""
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)  # two in each of two tasks
    folder = results.folder / "claim_files"
    folder.mkdir()
    owner = replace(processes.current(), host="node7 0123").to_json()
    turns = [f"{made.name}/0_0/1", f"{made.name}/0_1/1", "20261122-131500-3f2a/0_0/1", ""]
    for job, turn in zip(jobs, turns, strict=True):
        (folder / f"{job.key}.1").write_text(json.dumps(owner | {"turn": turn}))
    alive = QueueSnapshot([made], {Task(made.name, 0, 1): ("running", "")}).again(results)
    settle(results, replace(alive, silent="it does not answer"))
    assert len(list(folder.iterdir())) == 4
    settle(results, replace(alive, ended=[]))
    assert {path.stem for path in folder.iterdir()} == {job.key for job in jobs[1:]}


@pytest.mark.parametrize("done", [1, 2])
def test_a_job_that_is_done_and_still_listed_keeps_nobody_from_submitting_the_rest(tmp_path, done):
    """Slurm lists a job for some seconds after its last record; another one of it has failed."""
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)  # two in each of two tasks
    for job in jobs[:done]:
        results.save(record(job), {})
    for job in jobs[2:]:
        results.fail(Failure(job, "error", "broke"))
    listed = {Task(made.name, 0, 0): ("running", "")}
    seen = QueueSnapshot([made], listed).again(results)
    assert len(collect.rest(seen, results)) == done - 1


@pytest.mark.parametrize("count", [1, 2])
def test_runs_that_a_later_submission_has_in_the_queue_are_no_rest(tmp_path, count):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)
    for job in jobs[:2]:
        results.save(record(job), {})
    array = bundling.Array([jobs[2 : 2 + count]], None, None)
    later = manifest.begin(["later"], made.cluster, [array], None, {}, {})
    later = replace(later, submitted=made.submitted + 1)
    manifest.write_jobs(results, Task(later.name, 0, 0), array.bundles[0])
    manifest.save(results, later)
    seen = QueueSnapshot([made, later], {Task(later.name, 0, 0): ("pending", "")}).again(results)
    assert len(collect.rest(seen, results)) == 2 - count


def test_what_is_held_is_told_with_the_way_out(tmp_path):
    made, _ = submitted(ResultsFolder(tmp_path))
    task = Task(made.name, 0, 0)
    alive, held = {task: ("pending", "launch failed requeued held")}, {task: "scontrol release JOB"}
    seen = QueueSnapshot([made], alive, held=held)
    told = collect.lines(seen)
    assert "waiting for: launch failed requeued held (1)" in told
    assert any("`scontrol release JOB` lets them go" in line for line in told)


def test_a_copied_folder_is_looked_at_where_no_scheduler_is(tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)
    manifest.save(results, replace(made, cluster=cluster.read(SLURM)))
    results.save(record(jobs[0]), {})
    monkeypatch.setenv("PATH", str(tmp_path))
    told = ask("status", "--results", str(tmp_path), "--json")
    assert told.exit_code == 0
    states = json.loads(told.output)["states"]
    assert [states[job.key] for job in jobs] == ["done", "unknown", "unknown", "unknown"]


def test_the_schedulers_last_answer_serves_until_it_is_old(tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)
    manifest.save(results, replace(made, cluster=cluster.read(SLURM)))
    monkeypatch.setenv("PATH", str(tmp_path))  # no squeue
    tasks = {Task(made.name, 0, number): ("pending", "Priority") for number in (0, 1)}
    queue._remember(results, QueueAnswer(tasks))
    seen = look(results, fresh=False)
    assert {seen.state[job.key] for job in jobs} == {"pending"}
    assert look(results, fresh=True).silent is not None
    kept = results.cache("queue.json")
    answer = json.loads(kept.read_text())
    kept.write_text(json.dumps(answer | {"asked": answer["asked"] - 31}))
    seen = look(results, fresh=False)
    assert {seen.state[job.key] for job in jobs} == {"unknown"}
    assert "squeue" in seen.silent


def test_a_folder_that_takes_no_file_is_looked_at_all_the_same(tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results)

    def full(*_):
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(ResultsFolder, "write", full)
    tasks = {Task(made.name, 0, number): ("pending", "") for number in (0, 1)}
    monkeypatch.setattr(local.Background, "alive", lambda *_: QueueAnswer(tasks))
    assert {look(results, fresh=False).state[job.key] for job in jobs} == {"pending"}
    monkeypatch.setattr(Path, "read_bytes", full)
    assert queue._remembered(results, [made]) is None


def test_what_the_scheduler_did_not_take_is_no_lost_attempt(tmp_path):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results, count=2, size=1)
    half = replace(made.arrays[0], tasks=made.arrays[0].tasks[:1])
    rest = replace(made.arrays[0], tasks=made.arrays[0].tasks[1:], job=None)
    manifest.save(results, replace(made, arrays=[half, rest]))
    seen = settle(results, look(results))
    assert [seen.state[job.key] for job in jobs] == ["failed", "unsent"]
    assert seen.failures[jobs[0].key].kind == "lost"
    assert results.failure(jobs[1].key) is None


def test_a_job_without_the_gpus_that_it_asked_for_does_not_fall_back(tmp_path):
    results = ResultsFolder(tmp_path)
    made, _ = submitted(results)
    asked = cluster.read(["cluster=local", "cluster.gpus=1"])
    order = {"device": "auto"}
    manifest.save(results, replace(made, cluster=asked, order=order))
    told = subprocess.run(
        [
            sys.executable,
            "-m",
            "peftbench.cluster.job_runner",
            manifest.folder(results, made.name),
            "0_0",
        ],
        env=os.environ | {"CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 1
    assert "the job asked for 1 GPUs and sees none on this node" in told.stderr
    assert not results.keys()


def test_an_old_failure_is_none_of_a_new_submission(tmp_path):
    results = ResultsFolder(tmp_path)
    job = runs()[0]
    results.fail(Failure(job, "lost", "before"))
    array = bundling.Array([[job]], None, None)
    made = manifest.begin([], cluster.read(["cluster=local"]), [array], None, {}, {job.key: 1})
    manifest.save(results, made)
    assert look(results).state[job.key] == "unsent"
    manifest.save(results, replace(made, arrays=[replace(made.arrays[0], job="99")]))
    assert look(results).state[job.key] == "ended"
    results.fail(Failure(job, "error", "now"))
    assert look(results).state[job.key] == "failed"


def test_without_locks_a_background_job_lives_as_long_as_its_process(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for name in ("flock", "lockf"):
        monkeypatch.setattr(fcntl, name, refuse)
    sleeper = tmp_path / "sleeper"
    sleeper.write_text("#!/bin/bash\nexec sleep 60\n")
    sleeper.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(sleeper))
    results = ResultsFolder(tmp_path / "runs")
    where = cluster.read(["cluster=local", "cluster.settle_seconds=0"])
    begun = hand_over(results, submission(results, where, count=1)[0])
    assert states(results) == ["running"]
    lock = manifest.folder(results, begun.name) / "0_0.lock"
    named = json.loads(lock.read_text())
    lock.write_text(json.dumps(named | {"host": "another"}))
    assert states(results) == ["unknown"]
    lock.write_text(json.dumps(named))
    told = ask("cancel", "--results", str(results.folder))
    assert (told.exit_code, "1 job cancelled" in told.output) == (0, True)
    end = time.monotonic() + 30
    while processes.start_of(named["pid"]) not in (None, "ended"):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert states(results) == ["cancelled"]


# shards


def test_shards_part_a_sweep_and_depend_on_nothing_else():
    whole = plan(*tiny("method=bitfit,lora", "seed=range(0,40)", "suite=calibration"))
    parts = [sharding.share(whole, number, 4) for number in (1, 2, 3, 4)]
    assert sorted(run.key for part in parts for run in part.runs) == sorted(
        run.key for run in whole.runs
    )
    assert [len(part.runs) for part in parts] == [20, 20, 20, 20]
    for part in parts:
        assert {one.run.key for one in part.evaluations} == {run.key for run in part.runs}
        assert len({run.method.name for run in part.runs}) == 2  # not a method each
    zero = [sharding.share(whole, number, 4) for number in (0, 1, 2, 3)]
    assert {tuple(p.runs) for p in zero} == {tuple(p.runs) for p in parts}  # from 0 or from 1


def slurm(index, first, last, step, count):
    names = ("ID", "MIN", "MAX", "STEP", "COUNT")
    values = (index, first, last, step, count)
    return {f"SLURM_ARRAY_TASK_{n}": str(v) for n, v in zip(names, values, strict=True)}


def sge(index, first, last, step):
    values = {"ID": index, "FIRST": first, "LAST": last, "STEPSIZE": step}
    return {f"SGE_TASK_{name}": str(value) for name, value in values.items()}


def lsf(index, last, name, step=1):
    values = {"": index, "_END": last, "_STEP": step}
    told = {f"LSB_JOBINDEX{part}": str(value) for part, value in values.items()}
    return told | {"LSB_JOBNAME": name}


@pytest.mark.parametrize(
    ("text", "environment", "expected"),
    [
        ("3/10", {}, (3, 10)),
        ("auto", slurm(7, 0, 19, 1, 20), (8, 20)),
        ("auto", slurm(6, 0, 6, 2, 4), (4, 4)),
        ("auto", slurm(7, 1, 7, 3, 3), (3, 3)),
        ("auto/4", slurm(4, 0, 6, 2, 4), (3, 4)),
        ("auto/10", slurm(7, 3, 7, 1, 2), (7, 10)),  # two of ten shards again
        ("auto/8", {"PBS_ARRAY_INDEX": "8"}, (8, 8)),
        ("auto/8", {"PBS_ARRAYID": "2"}, (2, 8)),
        ("auto", lsf(6, 10, "runs[5-10]"), (2, 6)),
        ("auto", lsf(5, 9, "runs[1-9:2]%3", 2), (3, 5)),
        ("auto/6", lsf(4, 6, "runs"), (4, 6)),
        ("auto", sge(4, 1, 9, 1), (4, 9)),
        ("auto", sge(10, 5, 10, 1), (6, 6)),
        ("auto", sge(5, 1, 10, 2), (3, 5)),
        ("auto/6", {"JOB_COMPLETION_INDEX": "0"}, (0, 6)),
    ],
)
def test_a_shard_is_named_by_hand_or_by_the_scheduler(text, environment, expected):
    assert sharding.read(text, environment) == expected


@pytest.mark.parametrize(
    ("text", "environment", "said"),
    [
        ("0/4", {}, "i from 1 to n"),
        ("5/4", {}, "i from 1 to n"),
        ("a half", {}, "write 3/10"),
        ("auto/4", {}, "no scheduler says"),
        ("auto/4", {"SGE_TASK_ID": "undefined"}, "no scheduler says"),
        ("auto", {"PBS_ARRAY_INDEX": "1"}, "from PBS_ARRAY_INDEX=1; give --shard I/N"),
        ("auto", slurm(4, 1, 7, 1, 3), "SLURM_ARRAY_TASK_COUNT=3; give --shard I/N"),
        ("auto/3", slurm(4, 1, 7, 1, 3), "give --shard I/N"),
        ("auto", lsf(6, 10, "runs"), "from LSB_JOBINDEX=6, LSB_JOBINDEX_END=10"),
        ("auto/4", {"PBS_ARRAY_INDEX": "6"}, "from PBS_ARRAY_INDEX=6"),
        ("auto/0", {"PBS_ARRAY_INDEX": "0"}, "give --shard I/N"),
    ],
)
def test_a_shard_that_is_none_is_refused(text, environment, said):
    with pytest.raises(ConfigError, match=said):
        sharding.read(text, environment)


# machines


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,2", ["0", "2"]),
        ("GPU-8a1b,MIG-77", ["GPU-8a1b", "MIG-77"]),  # as some schedulers name them
        ("", []),
        ("1,-1,2", ["1"]),
        ("NoDevFiles", []),
    ],
)
def test_gpus_are_those_that_the_scheduler_gave(monkeypatch, visible, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected


# this machine as a cluster


class Background:
    """A folder in which `cluster=local` is used for real."""

    def __init__(self, folder):
        self.folder = folder
        zoo.write_configs(folder / "configs")
        self.results = ResultsFolder(folder / "runs")

    def ask(self, *words):
        """A command in the folder, to its end."""
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        path = os.pathsep.join([str(Path(zoo.__file__).parent), inherited.get("PYTHONPATH", "")])
        return subprocess.run(
            [sys.executable, "-m", "peftbench", *words, "--results", "runs"],
            cwd=self.folder,
            env=inherited | {"ZOO": str(self.folder), "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def wait(self, done=lambda states: not {"running", "pending"} & set(states)):
        """Wait until nothing waits or runs."""
        end = time.monotonic() + 300
        while not done(list(look(self.results).state.values())):
            assert time.monotonic() < end, look(self.results).state
            time.sleep(0.2)


@pytest.mark.slow
def test_submit_and_leave_then_collect(tmp_path):
    here = Background(tmp_path)
    words = [*tiny("method=slow,breaks", "seed=0"), "cluster=local"]
    (tmp_path / "broken").touch()
    (tmp_path / "held").touch()  # or the job is done before the next command has started
    first = here.ask("submit", *words, "--device", "cpu")
    assert first.returncode == 0, first.stderr
    assert "2 to do (0 done, 0 in the queue already) in 1 job" in first.stdout
    again = here.ask("submit", *words, "--device", "cpu")
    assert "nothing to submit: 0 done, 2 in the queue already" in again.stdout
    assert "running" in here.ask("status").stdout
    (tmp_path / "held").unlink()
    here.wait()
    told = here.ask("collect")
    assert told.returncode == 1
    assert "something broke" in told.stdout
    assert "1 error (an exception; the log has the traceback)" in told.stdout
    assert "peftbench submit" in told.stdout.partition("to submit the rest:")[2]
    again = here.ask("submit", *words)
    assert "nothing to submit: 1 done, 0 in the queue already, 1 failed for good" in again.stdout
    (tmp_path / "broken").unlink()
    assert here.ask("submit", *words, "--retry", "error").returncode == 0
    here.wait()
    told = here.ask("collect", "--json")
    assert told.returncode == 0, told.stdout + told.stderr
    found = json.loads(told.stdout)
    assert found["rest"] == []
    assert found["report"]["tables"][0]["title"] == "Scores"
    assert len(here.results.keys()) == 2


@pytest.mark.slow
def test_what_is_cancelled_goes_on_from_its_checkpoint(tmp_path):
    here = Background(tmp_path)
    words = [*tiny("method=slow", "budget=steps", "budget.steps=40"), "cluster=local"]
    (tmp_path / "slow").touch()
    assert here.ask("submit", *words, "--device", "cpu").returncode == 0
    end = time.monotonic() + 120
    steps = tmp_path / "steps"
    # before its first step a run has no checkpoint to write; the first notes are of its start
    while not steps.exists() or len(steps.read_text().split()) < 3:
        assert time.monotonic() < end
        time.sleep(0.1)
    assert "1 job cancelled" in here.ask("cancel").stdout
    here.wait()
    assert list(look(here.results).state.values()) == ["cancelled"]
    (tmp_path / "slow").unlink()
    assert here.ask("submit", *words, "--device", "cpu").returncode == 0
    here.wait()
    (key,) = here.results.keys()
    assert here.results.load(key).work["resumed"]


# choosing learning rates on a cluster


def searched(*words):
    search = Search(trials=3, finalists=2, seeds=3)
    found, after = tune.first_round(plan(*tiny(*words)), search, ResultsFolder("nowhere"))
    return found.runs, after


def test_the_jobs_that_choose_start_when_those_of_the_first_round_are_over(tmp_path):
    trials, after = searched("method=lora,bitfit", "size=400")
    assert (len(trials), len(after)) == (6, 2)
    assert after[0].last_trials == 2 * 2
    slurm = cluster.read([*SLURM, "cluster.options.dependency=singleton", "cluster.array_size=2"])
    unknown = bundling.expected_seconds(Forecast([]), [])
    arrays = bundling.job_arrays([*trials, *after], unknown, {}, slurm, limit=1000, workers=1)
    assert [(len(array.bundles), array.after) for array in arrays] == [
        *[(2, ())] * 3,
        (2, (0, 1, 2)),
    ]
    made = manifest.begin(["--tune"], slurm, arrays, None, {}, {}, search=True)
    sent = [replace(array, job=str(70 + n)) for n, array in enumerate(made.arrays[:3])]
    made = replace(made, arrays=[*sent, made.arrays[3]])
    scripts = [Slurm(slurm).script(ResultsFolder(tmp_path), made, number) for number in (2, 3)]
    given = [options(text) for text in scripts]
    assert "--dependency=singleton" in given[0]
    assert "--dependency=afterany:70:71:72,singleton" in given[1]
    assert "--array=0-1%2" in given[1]
    manifest.save(ResultsFolder(tmp_path), made)
    assert manifest.load(ResultsFolder(tmp_path), made.name) == made
    task = Task(made.name, 3, 0)
    manifest.write_jobs(ResultsFolder(tmp_path), task, after)
    assert manifest.read_jobs(ResultsFolder(tmp_path), task) == after


def test_the_time_of_a_choice_is_that_of_its_second_round_and_of_a_trial_that_failed():
    _, (choice,) = searched("method=lora", "size=400")
    like = choice.question.trials(2e-3, 1)[0]
    known = bundling.expected_seconds(Forecast([record(like)]), [])
    assert known(choice) == pytest.approx((4 + 1) * known(like))
    assert known(like) > 0


def test_options_of_a_search_without_it_are_refused(tmp_path):
    told = ask("submit", *tiny("method=lora"), "cluster=local", "--trials", "4")
    assert told.exit_code == 2
    assert "submit --tune --trials" in told.output


def test_the_command_for_the_rest_has_the_options_of_the_first(tmp_path, monkeypatch):
    """But for --retry, which was meant for what had failed before."""
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: None)
    monkeypatch.setattr(local.Background, "send", lambda *_: "99")
    (tmp_path / "my configs").mkdir()
    options = ["--save-weights", "--deterministic", "--workers", "2", "--curve-part", "0.5"]
    options += ["--pack", "off", "--configs", str(tmp_path / "my configs")]
    given = [*options, "--retry", "error", "--results", str(tmp_path / "runs")]
    words = [*tiny("method=lora"), "cluster=local", "cluster.settle_seconds=0"]
    assert ask("submit", *words, *given).exit_code == 0
    results = ResultsFolder(tmp_path / "runs")
    (rest,) = collect.rest(look(results), results)
    where = ["--results", str(tmp_path / "runs")]
    assert sorted(shlex.split(rest)) == sorted(["peftbench", "submit", *words, *options, *where])
    again = ask(*shlex.split(rest)[1:], "--retry", "all")
    assert again.exit_code == 0, again.output
    before, after = (replace(one, name="", submitted=0) for one in manifest.scan(results)[0])
    assert (after.words, after.order) == (before.words, before.order)
    assert (after.order["workers"], after.order["save_weights"]) == (2, True)


def test_a_cell_whose_trials_fail_leaves_the_choices_of_others_alone(tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path)
    trials, after = searched("method=lora,bitfit", "size=400")

    def execute(todo, store, options, gpus, halted):
        for run in todo.runs:
            if run.method.name == "bitfit":
                store.fail(Failure(run, "error", "something broke"))
            elif run.train.lr == max(after[0].question.rates):
                store.fail(Failure(run, "diverged", "the loss is not finite"))
            else:
                store.save(record(run, selection=dict.fromkeys(run.task.metrics, 0.7)), {})
        return False

    monkeypatch.setattr(sweep, "execute", execute)
    monkeypatch.setenv(run_locks.TURN, "of a job around this test")
    array = bundling.Array([[*trials, *after]], None, None)
    order = asdict(RunOptions(device="cpu"))
    words = ["--tune", "method=lora,bitfit", "cluster=local"]
    made = manifest.begin(
        words, cluster.read(["cluster=local"]), [array], None, order, {}, search=True
    )
    task = Task(made.name, 0, 0)
    manifest.write_jobs(results, task, array.bundles[0])
    manifest.save(results, replace(made, arrays=[replace(made.arrays[0], job="99")]))
    assert (
        job_runner._work(manifest.folder(results, made.name), str(task)) == job_runner.DONE
    )  # or noted
    assert os.environ[run_locks.TURN] == f"{made.name}/0_0/1"
    (choice,) = choices.all_choices(results)
    assert choice.run.method.name == "lora"
    assert len(choice.trials) == 3 + 2 * 2
    seen = look(results)
    done = [run.key for run in trials if run.method.name == "lora"] + [after[0].key]
    assert {key for key, state in seen.state.items() if state == "done"} == set(done)
    failed = seen.failures[after[1].key]
    assert (failed.kind, failed.reason) == (
        "error",
        f"its trial {trials[3].key} failed: something broke",
    )
    (again,) = collect.rest(seen, results)
    assert again.startswith("peftbench submit --tune method=lora,bitfit cluster=local")


@pytest.mark.parametrize(
    ("kinds", "expected", "again", "ends"),
    [
        (["diverged"] * 3, "diverged", False, None),
        (["diverged", "system", "diverged"], "system", True, None),
        (["memory", None, None], "memory", False, None),
        (["disk", None, None], "disk", True, "disk"),
        (["diverged", None, "diverged"], None, False, None),
    ],
)
def test_a_choice_fails_of_what_its_trials_fail_of(
    tmp_path, monkeypatch, kinds, expected, again, ends
):
    results = ResultsFolder(tmp_path)
    trials, (choice,) = searched("method=lora", "size=400")
    of_rate = dict(zip(choice.question.rates, kinds, strict=True))

    def execute(todo, store, options, gpus, halted):
        for run in todo.runs:
            if kind := of_rate[run.train.lr]:
                store.fail(Failure(run, kind, "as the test says"))
            else:
                store.save(record(run, selection=dict.fromkeys(run.task.metrics, 0.7)), {})
        return False

    monkeypatch.setattr(sweep, "execute", execute)
    assert job_runner._choose(choice, None, RunOptions(device="cpu"), results) == ends
    noted = results.trials().failure(choice.key)
    assert (noted and noted.kind) == expected
    asked = choose_jobs(
        Plan(trials, 3, [], [], None),
        [choice],
        results.trials(),
        look(results),
        cluster.read(["cluster=local"]),
        waits=True,
        retry=None,
    )
    if expected is None:
        assert len(choices.all_choices(results)) == 1
    else:
        assert (choice in asked.jobs) == again
        assert (noted in asked.given_up) != again


@pytest.mark.slow
def test_rates_are_chosen_in_the_background_and_only_once(tmp_path):
    here = Background(tmp_path)
    words = ["submit", "--tune", "--trials", "2", "--finalists", "1", "--seeds", "2"]
    words += [*tiny("method=steady", "size=400", "train.lr=1e-3,1e-2"), "cluster=local"]
    words += ["--device", "cpu"]
    first = here.ask(*words)
    assert first.returncode == 0, first.stderr
    assert "3 to do (0 done, 0 in the queue already) in 1 job" in first.stdout
    here.wait()
    told = here.ask("collect")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "Chosen learning rates" in told.stdout
    (choice,) = choices.all_choices(here.results)
    assert len(choice.trials) == 3
    assert "all of these learning rates are chosen" in here.ask(*words).stdout
    assert here.results.keys() == []
    assert (tmp_path / "journal").read_text().split().count("steady") == 3


# what must be over first


def snapshot(made, jobs, alive):
    """The queue with these tasks pending, of a submission with a job in each task."""
    tasks = {Task(made.name, 0, number): ("pending", "") for number in alive}
    states = {jobs[number].key: "pending" for number in alive}
    return QueueSnapshot([made], tasks, state=states)


def chosen(found, results, seen, after=(), retry=None):
    slurm = cluster.read(SLURM)
    return choose_jobs(found, after, results, seen, slurm, waits=True, retry=retry)


def test_an_evaluation_is_submitted_when_its_run_is_over(tmp_path):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results, count=3, size=1)
    made = replace(made, order={"save_weights": True})
    found = plan(*tiny("seed=range(0,3)", "suite=calibration"))
    assert found.runs == jobs
    results.fail(Failure(jobs[2], "error", "broke"))
    told = chosen(found, results, snapshot(made, jobs, [0]))
    assert told.jobs == [jobs[1], found.evaluations[1]]
    assert (told.queued, told.later, len(told.given_up)) == (1, 1, 1)
    results.save(record(jobs[0]), {})
    told = chosen(found, results, snapshot(made, jobs, []))
    assert told.jobs == [jobs[1], *found.evaluations[:2]]


def test_an_evaluation_goes_along_with_a_run_that_is_tried_again(tmp_path):
    """Alone the run would keep no weights, and be trained once more for its evaluation."""
    results = ResultsFolder(tmp_path)
    found = plan(*tiny("seed=0,1", "suite=calibration"))
    (run, other), (evaluation, _) = found.runs, found.evaluations
    where = cluster.read(["cluster=local", "cluster.settle_seconds=0"])
    array = bundling.Array([[run, evaluation]], None, None)
    made = manifest.begin([], where, [array], None, {}, {})
    manifest.write_jobs(results, Task(made.name, 0, 0), array.bundles[0])
    manifest.save(results, replace(made, arrays=[replace(made.arrays[0], job="99")]))
    results.fail(Failure(run, "error", "broke"))
    results.save(record(other), {})
    seen = settle(results, look(results))
    noted = results.failure(evaluation.key)
    assert (noted.kind, noted.reason) == ("lost", "its run has no record")
    told = chosen(found, results, seen, retry="error")
    assert told.jobs == [run, *found.evaluations[1:], evaluation]
    assert told.given_up == []
    todo = sweep.select_jobs(sweep_status(found, results), sweep.retry_filter("error"))
    assert (todo.runs, todo.evaluations) == ([run], found.evaluations)


def test_an_evaluation_of_weights_that_the_queue_does_not_keep_is_refused(tmp_path):
    results = ResultsFolder(tmp_path)
    made, jobs = submitted(results, count=2, size=1)
    found = plan(*tiny("seed=0,1", "suite=calibration"))
    with pytest.raises(ConfigError) as refused:
        chosen(found, results, snapshot(made, jobs, [0]))
    assert "1 of the runs to evaluate are in the queue without --save-weights" in str(refused.value)
    assert f"`peftbench cancel {made.name}`, then submit again" in str(refused.value)
    manifest.write_jobs(results, Task(made.name, 0, 0), [jobs[0], found.evaluations[0]])
    assert chosen(found, results, snapshot(made, jobs, [0])).later == 1


def test_a_choice_is_submitted_when_the_trials_of_its_cell_are_over(tmp_path):
    """The scheduler took the first trial of LoRA's three before it took no more."""
    results = ResultsFolder(tmp_path)
    trials, after = searched("method=lora,bitfit", "size=400")
    array = bundling.Array([[trials[0]]], 30, 16)
    made = manifest.begin([], cluster.read(SLURM), [array], None, {}, {}, search=True)
    found = Plan(trials, len(trials), [], [], None)
    told = chosen(found, results.trials(), snapshot(made, trials, [0]), after)
    assert told.jobs == [*trials[1:], after[1]]
    assert (told.queued, told.later) == (1, 1)


# nodes without internet


def test_prefetched_runs_read_that_folder_alone(tmp_path, monkeypatch, glue_layout):
    root, words = glue_layout
    brought = tmp_path / "brought"
    told = ask("prefetch", *words, f"data.root={root}", "--to", str(brought))
    assert told.exit_code == 0, told.output
    about = offline_folder.manifest(brought)
    assert sorted(name.partition("/")[0] for name in about["files"]) == [
        "data",
        "data",
        "tokens",
        "tokens",
    ]
    assert offline_folder.wrong(brought) == []
    monkeypatch.setenv(offline_folder.VARIABLE, str(brought))
    run = plan(*words).runs[0]
    assert list(loading.kept(run.task, "train", offline_folder.data_root())) == [
        "mrpc/train-0.parquet"
    ]
    with pytest.raises(ConfigError, match="run `peftbench prefetch` again"):
        hub.snapshot("bert-base-uncased", None, ["*.json"])
    path = next((brought / "tokens").iterdir())
    path.write_bytes(b"x" + path.read_bytes()[1:])
    assert offline_folder.wrong(brought) == [f"tokens/{path.name} was altered"]
    found = ask("doctor", *words, "--results", str(tmp_path / "runs"))
    assert found.exit_code == 1
    assert "was altered" in found.output.replace("\n", " ")


def test_a_model_of_the_hub_comes_along_and_the_hub_is_needed_no_more(
    tmp_path, monkeypatch, glue_layout
):
    root, _ = glue_layout
    revision = "a" * 40
    cache = tmp_path / "hub"
    place = cache / "models--acme--mini" / "snapshots" / revision
    place.mkdir(parents=True)
    for path in locate(plan("model=minilm").runs[0].model).iterdir():
        if path.is_file():
            (place / path.name).symlink_to(path)  # as the hub's cache has them
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    words = ["model=auto", "model.checkpoint=acme/mini", f"model.revision={revision}", "task=mrpc"]
    words += ["size=16", "budget=steps", "budget.steps=2", "train.num_evals=1", "method=bitfit"]
    brought = tmp_path / "brought"
    told = ask("prefetch", *words, f"data.root={root}", "--to", str(brought))
    assert told.exit_code == 0, told.output
    assert f"models/acme--mini@{revision}/config.json" in offline_folder.manifest(brought)["files"]
    shutil.rmtree(cache)
    shutil.rmtree(root)
    monkeypatch.setenv(offline_folder.VARIABLE, str(brought))
    before = {path: path.stat().st_mtime_ns for path in brought.rglob("*")}
    run = plan(*words).runs[0]
    setting = RuntimeConfig(device="cpu", threads=1, data_root=offline_folder.data_root())
    assert trainer.execute(run, setting).record.work["steps"] == 2
    assert {path: path.stat().st_mtime_ns for path in brought.rglob("*")} == before


def test_what_nodes_will_lack_is_refused_at_submission(tmp_path, glue_layout):
    _, words = glue_layout
    brought, results = tmp_path / "brought", tmp_path / "runs"
    assert ask("prefetch", *tiny(), "--to", str(brought)).exit_code == 0
    where = ["cluster=local", f"cluster.prefetched={brought}", "--results", str(results)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(offline_folder.VARIABLE, "")  # what the verb sets ends with the test
        patch.setenv("HF_HUB_OFFLINE", "1")
        told = ask("submit", *words, *where)
    assert told.exit_code == 2
    assert "is not in" in told.output
    assert not results.exists()
    told = ask("submit", *words, "data.root=/nowhere", "cluster=local", "--results", str(results))
    assert told.exit_code == 2
    assert "/nowhere is not a folder" in told.output


def test_prefetch_keeps_its_hands_off_other_folders(tmp_path):
    (tmp_path / "mine").write_text("x")
    told = ask("prefetch", *tiny(), "--to", str(tmp_path))
    assert told.exit_code == 2
    assert "is not empty" in told.output


@pytest.fixture
def glue_layout(tmp_path):
    """A folder in the layout of the hub's GLUE, and words for a run on it."""
    import pyarrow
    from pyarrow import parquet

    root = tmp_path / "glue"
    (root / "mrpc").mkdir(parents=True)
    for split, rows in (("train", 3668), ("validation", 408)):
        columns = {
            "sentence1": [f"a text {n}" for n in range(rows)],
            "sentence2": [f"another text {n % 7}" for n in range(rows)],
            "label": [n % 2 for n in range(rows)],
            "idx": list(range(rows)),
        }
        parquet.write_table(pyarrow.table(columns), root / "mrpc" / f"{split}-0.parquet")
    return root, tiny("task=mrpc")


# doctor


def test_doctor_says_what_to_do(tmp_path, monkeypatch):
    good = ask("doctor", *tiny(), "cluster=local", "--results", str(tmp_path / "runs"), "--json")
    assert good.exit_code == 0, good.output
    assert {one["state"] for one in json.loads(good.output)} <= {"ok", "note"}
    (tmp_path / "file").touch()
    bad = ask("doctor", "--results", str(tmp_path / "file" / "runs"), "--json")
    assert bad.exit_code == 1
    (one,) = [one for one in json.loads(bad.output) if one["state"] == "failed"]
    assert one["what"] == "results folder"
    assert one["found"].endswith(f" does not exist yet; {tmp_path}/file cannot be written to")
    assert "--results" in one["do"]
    assert not (tmp_path / "runs").exists()  # else `report` would find a folder without records
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PEFTBENCH_PREFETCHED", str(tmp_path / "none"))
    words = [*SLURM, "method=lorra"]
    told = ask("doctor", *words, "--results", str(tmp_path / "runs"), "--json")
    failed = [one for one in json.loads(told.output) if one["state"] == "failed"]
    assert [one["what"] for one in failed] == ["Slurm", "prefetched", "overrides"]
    assert "none: folder not found; run `peftbench prefetch OVERRIDES --to" in failed[1]["found"]
    assert all(one["do"] for one in failed)


@pytest.mark.parametrize("native", [True, False], ids=["native", "not"])
def test_doctor_tells_what_the_cpu_can_do_beside_a_gpu_too(native, monkeypatch):
    monkeypatch.setattr(doctor, "bf16_on_cpu", lambda: native)
    for seen in ([], ["0"]):
        monkeypatch.setattr(doctor, "gpus", lambda seen=seen: seen)
        (one,) = [one for one in doctor.machine_checks() if one.what == "bf16 on the CPU"]
        assert f"auto is {'bf16' if native else 'fp32'}" in one.found


@pytest.mark.parametrize(
    ("built", "state", "told"),
    [
        ({"CUDA": "12.8"}, None, ""),
        ({"CUDA": "13.2"}, doctor.ODD, "is built for CUDA 13.2; the driver knows CUDA 12"),
        ({"ROCm": "6.4"}, doctor.BAD, "is built without CUDA and cannot use GPU 0, 1"),
        ({}, doctor.BAD, "is built without CUDA and cannot use GPU 0, 1"),
    ],
)
def test_doctor_compares_torch_with_the_gpus(built, state, told, monkeypatch):
    monkeypatch.setattr(doctor, "gpus", lambda: ["0", "1"])
    monkeypatch.setattr(doctor, "torch_gpus", lambda: built)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlSystemGetCudaDriverVersion", lambda: 12090)
    found = [one for one in doctor.machine_checks() if one.what == "torch"]
    assert [one.state for one in found] == [state] * bool(state)
    assert all(told in one.found and one.do for one in found)


def test_doctor_names_gpus_that_are_not_used(monkeypatch):
    monkeypatch.setattr(doctor, "gpus", list)
    monkeypatch.setattr(doctor, "unused_gpus", lambda: "ROCm")
    (one,) = [one for one in doctor.machine_checks() if one.what == "GPU"]
    assert one.found == "none that is used here: torch has ROCm, and only NVIDIA's are"


def test_doctor_estimates_the_memory_of_one_gpu(monkeypatch):
    """By the option's config where no checkpoint is here; torch counts on `meta`."""
    (run,) = plan("model=roberta_large", "method=full", "train.batch_size=16").runs
    monkeypatch.setattr(doctor, "gpus", list)
    found = doctor.memory_check(run)
    assert found.state == doctor.GOOD
    assert "about 9.2 GiB on a GPU (weights 3.2, gradients 1.3, optimizer 2.6" in found.found
    assert "16 bits (auto, on GPUs since Ampere), 16 × 128 tokens: one with 12 GB" in found.found
    for room, state in ((8, doctor.BAD), (10, doctor.BAD), (11, doctor.GOOD)):
        monkeypatch.setattr(doctor, "_largest_room", lambda seen, room=room: room * 2**30)
        found = doctor.memory_check(run)
        assert found.state == state
    monkeypatch.setattr(doctor, "_largest_room", lambda seen: 8 * 2**30)
    assert "8 GiB are free here" in (found := doctor.memory_check(run)).found
    assert "QLoRA" in found.do


def test_doctor_knows_rooms_beyond_the_gpus_that_are_sold(monkeypatch):
    (run,) = plan("model=roberta_large", "method=full", "train.batch_size=16").runs
    monkeypatch.setattr(doctor, "gpus", lambda: ["0"])
    monkeypatch.setattr(doctor, "_auto_is_bf16", lambda seen: True)
    monkeypatch.setattr(memory_need, "GPU_SIZES", (8,))
    for room, state in ((11, doctor.GOOD), (10, doctor.BAD)):
        monkeypatch.setattr(doctor, "_largest_room", lambda seen, room=room: room * 2**30)
        found = doctor.memory_check(run)
        assert (found.state, "more than one with 8 GB has" in found.found) == (state, True)
    assert "; 10 GiB are free here, of which tensors can fill 90%" in found.found


@pytest.mark.parametrize(
    ("words", "capability", "bits"),
    [
        ((), 7, 32),
        ((), 8, 16),
        (("train.precision=fp16",), 7, 16),
        (("train.precision=fp32",), 9, 32),
    ],
)
def test_doctor_estimates_in_the_precision_that_the_gpu_has(words, capability, bits, monkeypatch):
    (run,) = plan("model=tiny", *words).runs
    monkeypatch.setattr(doctor, "gpus", lambda: ["0"])
    monkeypatch.setattr(doctor, "_largest_room", lambda seen: 2**40)
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
    monkeypatch.setattr(
        pynvml, "nvmlDeviceGetCudaComputeCapability", lambda handle: (capability, 0)
    )
    assert f" {bits} bits, " in doctor.memory_check(run).found


def test_doctor_finds_gpus_by_the_beginning_of_their_uuid(monkeypatch):
    """CUDA takes it, NVML does not."""
    uuids = ["GPU-1a2b-33", "GPU-1a2c-44"]

    def by_uuid(name):
        if name not in uuids:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return uuids.index(name)

    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", by_uuid)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByIndex", lambda number: number)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetUUID", uuids.__getitem__)
    assert [doctor._handle(name) for name in ("GPU-1a2c", "GPU-1a2b-33", "1")] == [1, 0, 1]
    with pytest.raises(pynvml.NVMLError):
        doctor._handle("GPU-1a2")


def test_doctor_names_versions_other_than_the_tested_ones(tmp_path, monkeypatch):
    pins = doctor.tested_versions()
    direct = {Requirement(text).name for text in importlib.metadata.requires("peftbench")}
    assert set(pins) == direct, "every dependency is pinned"
    installed = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "99.0" if name == "peft" else installed(name)
    )
    told = ask("doctor", "--results", str(tmp_path / "runs"), "--json")
    (one,) = [one for one in json.loads(told.output) if one["what"] == "tested versions"]
    assert (one["state"], f"peft 99.0 (tested: {pins['peft']})" in one["found"]) == ("note", True)
