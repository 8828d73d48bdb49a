"""LSF, HTCondor, Flux and Kubernetes, on answers in the formats that their manuals describe."""

import errno
import json
import os
import re
from dataclasses import replace
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import yaml
from submissions import hand_over, submission

from peftbench.cluster import base, commands, manifest
from peftbench.cluster.manifest import SchedulerUnreachable, Task, job_name
from peftbench.cluster.scripted import asked_for
from peftbench.config import cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

SITE = {"kubernetes": ["cluster.image=registry/pb:1", "cluster.claim=results", "cluster.mount=/"]}


def read(name, *words):
    keys = {word.partition("=")[0] for word in words}
    given = [*(one for one in SITE.get(name, []) if one.partition("=")[0] not in keys), *words]
    return cluster.read([f"cluster={name}", *given, "cluster.poll_seconds=0"])


def build(name, *words):
    where = read(name, *words)
    return base.find_scheduler(name)(where), where


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "runs")


@pytest.fixture
def answers(monkeypatch):
    """Answers of commands, by their first words; and what was called, with what it read."""
    told, called = {}, []

    def run(*words, text=None):
        called.append((words, text))
        keys = (words[:n] for n in (3, 2, 1))
        found = next((told[key] for key in keys if key in told), "")
        code, out, err = found if isinstance(found, tuple) else (0, found, "")
        return SimpleNamespace(returncode=code, stdout=out, stderr=err)

    monkeypatch.setattr(commands, "run", run)
    for name in ("lsf", "kubernetes"):
        module = base.import_module(f"peftbench.cluster.schedulers.{name}")
        monkeypatch.setattr(module, "run", run)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    return told, called


def alive(scheduler, begun, results):
    found = scheduler.alive([begun], results)
    return {task.number: state for task, state in found.alive.items()}, found.held


# LSF


def bjobs(name, *rows):
    keys = ("JOBID", "JOBINDEX", "STAT", "EXIT_CODE", "EXIT_REASON", "PEND_REASON")
    records = [
        dict(zip(keys, row, strict=True)) | {"JOB_NAME": f"{name}[{row[1]}]"} for row in rows
    ]
    return json.dumps({"COMMAND": "bjobs", "JOBS": len(records), "RECORDS": records})


def test_lsf(results, answers):
    told, called = answers
    lsf, where = build("lsf", "cluster.gpus=1", "cluster.partition=normal")
    told["bsub",] = "Job <12> is submitted to queue <normal>.\n"
    begun = hand_over(results, submission(results, where, count=7, after=True)[0])
    assert begun.arrays[0].job == "12"
    (words, script), (later, _) = called
    name = job_name(begun.name, 0)
    assert f"{name}[1-7]%7" in words
    assert {"-W", "30", "-r", "-Q", "75", "16384MB", "rusage[mem=16384MB]", "num=1"} <= set(words)
    assert "span[hosts=1]" in words
    assert later[later.index("-w") + 1] == "ended(12)"
    assert "task=0_$((LSB_JOBINDEX - 1))" in script
    told["bjobs",] = bjobs(
        name,
        ("12", "1", "RUN", "", "", ""),
        ("12", "2", "PEND", "", "", "Job's requirements for resources not satisfied;"),
        ("12", "3", "PSUSP", "", "", ""),
        ("12", "4", "UNKWN", "", "", ""),
        ("12", "5", "DONE", "", "", ""),
        ("12", "6", "EXIT", "137", "TERM_MEMLIMIT: job killed after reaching LSF memory limit", ""),
        ("12", "7", "EXIT", "3", "", ""),
        ("13", "1", "RUN", "", "", ""),
    )
    told["lsid",] = "IBM Spectrum LSF Standard 10.1\nMy cluster name is alpha\n"
    begun = replace(begun, site="alpha", arrays=begun.arrays[:1])
    states_, held = alive(lsf, begun, results)
    assert states_ == {
        0: ("running", ""),
        1: ("pending", "Job's requirements for resources not satisfied"),
        2: ("pending", "psusp"),
        3: ("running", ""),  # its host is silent: that is no end
    }
    assert held == {Task(begun.name, 0, 2): "bresume JOB"}
    found = lsf.explain(begun, [task for task, _ in begun.tasks()], results)
    assert [(f.kind, f.words[:13]) for f in found.values()] == [
        ("exit", "exit code 0"),
        ("memory", "TERM_MEMLIMIT"),
        ("exit", "exit code 3"),
    ]


@pytest.mark.parametrize("code", [0, 255])
def test_lsf_without_any_job(results, answers, code):
    told, _ = answers
    lsf, where = build("lsf")
    told["bjobs",] = (code, "", "No unfinished job found\n")
    told["lsid",] = "My cluster name is alpha\n"
    begun, _ = submission(results, where, job="12", site="alpha")
    assert alive(lsf, begun, results) == ({}, {})
    told["bjobs",] = (255, "", "LSF is down. Please wait ...\n")
    with pytest.raises(SchedulerUnreachable, match="LSF is down"):
        lsf.alive([begun], results)


@pytest.mark.parametrize(
    ("says", "hidden"),
    [("SECURE_JOB_INFO_LEVEL = 0", False), ("SECURE_JOB_INFO_LEVEL = 4", True), ("", True)],
)
def test_jobs_that_lsf_may_hide_are_not_over(results, answers, says, hidden):
    told, _ = answers
    lsf, where = build("lsf")
    told["bjobs",] = (255, "", "No unfinished job found\n")
    told["lsid",] = "My cluster name is alpha\n"
    told["bparams",] = f"MAX_JOB_ARRAY_SIZE = 2000\n{says}\n"
    begun, _ = submission(results, where, job="12", site="alpha")
    assert lsf.alive([begun], results).unsure == {}
    unsure = lsf.alive([replace(begun, owner=os.getuid() + 1)], results).unsure
    assert bool(unsure) == hidden
    assert all("SECURE_JOB_INFO_LEVEL" in why for why in unsure.values())


def test_lsf_has_time_to_end_jobs():
    """The bkill command sends INT, TERM and KILL, ten seconds apart."""
    assert base.find_scheduler("lsf").settle == 30


def test_lsf_bounds_the_index(answers):
    told, _ = answers
    lsf, _ = build("lsf")
    told["bparams",] = "MAX_JOB_ARRAY_SIZE = 2000\n"
    assert lsf.array_limit == 2000
    told["bparams",] = "nothing of it\n"
    assert lsf.array_limit == 1000


# HTCondor


def test_htcondor(results, answers):
    told, called = answers
    condor, where = build("htcondor", "cluster.gpus=1")
    told["condor_submit",] = "12.0 - 12.6\n"
    begun = hand_over(results, submission(results, where, count=7)[0])
    assert begun.arrays[0].job == "12"
    name = job_name(begun.name, 0)
    place = manifest.folder(results, begun.name)
    ((words, _),) = called
    described = (place / "0.submit").read_text().splitlines()
    assert words == ("condor_submit", "-terse", str(place / "0.submit"))
    assert f'+Peftbench = "{name}"' in described
    assert f'arguments = "-l {place.resolve()}/0.sh $(Process)"' in described
    assert {"request_gpus = 1", "request_memory = 16384MB", "queue 7"} <= set(described)
    assert "on_exit_remove = ExitBySignal || ExitCode != 75" in described
    assert not any(line.startswith("max_materialize") for line in described)  # it hides tasks
    rows = [(1, {}), (2, {}), (5, {"HoldReasonCode": 1, "HoldReason": "via condor_hold"})]
    rows += [(5, {"HoldReasonCode": 34, "HoldReason": "over memory"}), (3, {}), (4, {})]
    jobs = [
        {"ClusterId": 12, "ProcId": n, "JobStatus": state, "Peftbench": name} | more
        for n, (state, more) in enumerate(rows)
    ]
    told["condor_q",] = json.dumps([*jobs, jobs[0] | {"Peftbench": "another's"}])
    told["condor_config_val",] = "submit.example.org\n"
    begun = replace(begun, site="submit.example.org")
    states_, held = alive(condor, begun, results)
    assert states_ == {
        0: ("pending", ""),
        1: ("running", ""),
        2: ("pending", "via condor_hold"),
        3: ("pending", "over memory"),
    }
    assert held == {Task(begun.name, 0, 2): "condor_release JOB"}  # the other is removed
    told["condor_history",] = json.dumps(
        [
            {"ProcId": 0, "JobStatus": 3, "HoldReasonCode": 34, "RemoveReason": "PeriodicRemove"},
            {
                "ProcId": 1,
                "JobStatus": 3,
                "LastHoldReasonCode": 47,
                "RemoveReason": "PeriodicRemove",
            },
            {"ProcId": 2, "JobStatus": 3, "RemoveReason": "via condor_rm (by user anna)"},
            {"ProcId": 3, "JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9},
            {"ProcId": 4, "JobStatus": 4, "ExitBySignal": False, "ExitCode": 3},
        ]
    )
    found = condor.explain(begun, [task for task, _ in begun.tasks()], results)
    assert [(f.kind, f.words) for f in found.values()] == [
        ("memory", "PeriodicRemove"),
        ("time", "PeriodicRemove"),
        ("cancelled", "via condor_rm (by user anna)"),
        ("exit", "signal 9"),
        ("exit", "exit code 3"),
    ]


def test_htcondor_prints_nothing_where_there_is_no_job(results, answers):
    told, _ = answers
    condor, where = build("htcondor")
    told["condor_config_val",] = "here\n"
    begun, _ = submission(results, where, job="12", site="here")
    assert alive(condor, begun, results) == ({}, {})
    told["condor_config_val",] = "elsewhere\n"  # another schedd has another queue
    assert (
        "it went to the HTCondor cluster here" in condor.alive([begun], results).unsure[begun.name]
    )


# Flux


def test_flux(results, answers):
    told, called = answers
    flux, where = build("flux", "cluster.gpus=1")
    told["flux", "submit"] = "fA\nƒB\nf5\nf6\nf7\n"
    begun = hand_over(results, submission(results, where, count=5, after=True)[0])
    assert begun.arrays[0].job == "fA ƒB f5 f6 f7"
    words, later = called[0][0], called[1][0]
    assert words[-3:] == ("bash", str(manifest.folder(results, begun.name) / "0.sh"), "{cc}")
    name = job_name(begun.name, 0)
    assert {"--cc=1-5", f"--job-name={name}.{{cc}}"} <= set(words)
    assert {"--time-limit=30m", "--gpus-per-task=1", "--signal=USR2@120s"} <= set(words)
    assert [w for w in later if w.startswith("--dependency")] == [
        f"--dependency=afterany:{number}" for number in ("fA", "ƒB", "f5", "f6", "f7")
    ]
    about = [
        (9, {"state": "RUN"}),  # fA
        (10, {"state": "SCHED"}),
        (4, {"state": "PRIORITY", "urgency": 0}),
        (5, {"state": "INACTIVE", "result": "TIMEOUT", "returncode": 142}),
        (6, {"state": "INACTIVE", "result": "CANCELED"}),
    ]
    jobs = [{"id": number, "name": name} | more for number, more in about]
    told["flux", "jobs"] = json.dumps({"jobs": jobs})
    begun = replace(begun, arrays=begun.arrays[:1])
    states_, held = alive(flux, begun, results)
    assert states_ == {0: ("running", ""), 1: ("pending", "sched"), 2: ("pending", "priority")}
    assert list(held) == [Task(begun.name, 0, 2)]
    found = flux.explain(begun, [task for task, _ in begun.tasks()], results)
    assert {task.number: ending.kind for task, ending in found.items()} == {
        3: "time",
        4: "cancelled",
    }
    told["flux", "submit"] = "submitted!\n"
    with pytest.raises(ConfigError, match="not understood"):
        hand_over(results, submission(results, where)[0])


def test_names_of_flux_jobs_name_their_tasks_whatever_order_numbers_are_printed_in(
    results, answers
):
    told, _ = answers
    flux, where = build("flux")
    begun, _ = submission(results, where, count=3, job="f5 f4 f6")
    name = job_name(begun.name, 0)
    jobs = [
        {"id": number, "name": f"{name}.{task}", "state": "RUN"}
        for number, task in ((3, 1), (4, 2), (5, 3))
    ]
    for missing, alive_ in ((None, [0, 1, 2]), (0, [1, 2]), (1, [0, 2])):
        shown = [one for n, one in enumerate(jobs) if n != missing]
        told["flux", "jobs"] = json.dumps({"jobs": shown})
        assert sorted(alive(flux, begun, results)[0]) == alive_


def test_flux_numbers():
    number = base.import_module("peftbench.cluster.schedulers.flux")._number
    assert [number(text) for text in ("ƒ1", "f2", "fz", "f21", "12")] == [0, 1, 57, 58, 12]


# Kubernetes


def manifest_of(results, where, count=8):
    begun, _ = submission(results, where, count=count)
    text = base.find_scheduler("kubernetes")(where).script(results, begun, 0)
    return begun, yaml.safe_load("\n".join(asked_for(text)))


@pytest.mark.parametrize("version", ["1.29", "newest"])
@pytest.mark.parametrize(
    "more", [[], ["cluster.partition=gpus", "cluster.gpus=2"], ["cluster.cpus=null"]]
)
def test_the_manifest_of_kubernetes_is_valid(results, version, more):
    validate = pytest.importorskip("kubernetes_validate")
    _, made = manifest_of(results, read("kubernetes", *more))
    version = validate.latest_version() if version == "newest" else version
    validate.validate(made, version, strict=True)
    made["spec"]["completionModes"] = "Indexed"
    with pytest.raises(validate.ValidationError):
        validate.validate(made, version, strict=True)


def test_the_manifest_of_kubernetes(results):
    begun, made = manifest_of(
        results,
        read("kubernetes", "cluster.partition=gpus", "cluster.gpus=2", "cluster.parallel=3"),
    )
    spec, pod = made["spec"], made["spec"]["template"]["spec"]
    assert made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert len(made["metadata"]["name"]) <= 63
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made["metadata"]["name"])
    assert (spec["completions"], spec["parallelism"], spec["completionMode"]) == (8, 3, "Indexed")
    assert spec["podFailurePolicy"]["rules"][0] == {
        "action": "Ignore",
        "onExitCodes": {"containerName": "task", "operator": "In", "values": [75]},
    }
    assert spec["backoffLimitPerIndex"] == 0  # `submit` tries again, with more memory
    assert [rule["action"] for rule in spec["podFailurePolicy"]["rules"]] == ["Ignore", "Ignore"]
    assert pod["restartPolicy"] == "Never"  # what a failure policy needs
    assert "backoffLimit" not in spec  # beside the limit of each index it is refused
    (container,) = pod["containers"]
    assert container["resources"]["limits"] == {"memory": "16384Mi", "nvidia.com/gpu": "2"}
    assert container["resources"]["requests"]["cpu"] == "4"
    script = f"{manifest.folder(results, begun.name).resolve()}/0.sh"
    assert container["command"] == ["bash", script]
    assert {one["mountPath"] for one in container["volumeMounts"]} == {"/", "/dev/shm"}


def test_a_results_folder_that_pods_do_not_see_is_refused(results):
    with pytest.raises(ConfigError, match=r"is not in /results \(cluster.mount\)"):
        manifest_of(results, read("kubernetes", "cluster.mount=/results"))


def pod(job, index, phase, made="2026-11-27T10:00:00Z", **status):
    about = {
        "name": f"{job}-{index}-x",
        "creationTimestamp": made,
        "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
        "ownerReferences": [{"kind": "Job", "name": job}],
    }
    return {"kind": "Pod", "metadata": about, "status": {"phase": phase} | status}


def ended(reason, code):
    return {"containerStatuses": [{"state": {"terminated": {"reason": reason, "exitCode": code}}}]}


def test_kubernetes(results, answers):
    told, called = answers
    kubernetes, where = build("kubernetes", "cluster.namespace=nlp")
    told["kubectl", "config"] = "alpha\n"
    begun, _ = submission(results, where, count=9, site="alpha")
    name = f"peftbench-{begun.name}-0"
    told["kubectl", "create"] = json.dumps({"kind": "Job", "metadata": {"name": name}})
    begun = hand_over(results, begun)
    assert begun.arrays[0].job == name
    words, text = called[-1]
    assert words == ("kubectl", "create", "-f", "-", "-o", "json", "-n", "nlp")
    assert yaml.safe_load(text)["kind"] == "Job"
    job = {
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"completions": 9, "suspend": False},
        "status": {"completedIndexes": "2", "failedIndexes": "3-5"},
    }
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/4 nodes are available"}
    pods = [
        pod(name, 0, "Failed", "2026-11-27T09:00:00Z", **ended("Error", 75)),
        pod(name, 0, "Running"),
        pod(name, 1, "Pending", conditions=[unscheduled]),
        pod(name, 2, "Succeeded", **ended("Completed", 0)),
        pod(name, 3, "Failed", **ended("OOMKilled", 137)),
        pod(name, 4, "Failed", reason="DeadlineExceeded"),
        pod(name, 5, "Failed", **ended("Error", 1)),
        pod(name, 6, "Failed", conditions=[{"type": "DisruptionTarget", "status": "True"}]),
    ]
    told["kubectl", "get"] = json.dumps({"items": [job, *pods]})
    states_, _ = alive(kubernetes, begun, results)
    assert states_ == {
        0: ("running", ""),
        1: ("pending", "0/4 nodes are available"),
        **dict.fromkeys((6, 7, 8), ("pending", "")),  # its pod is replaced, or not yet made
    }
    found = kubernetes.explain(begun, [task for task, _ in begun.tasks()], results)
    kinds = {task.number: ending.kind for task, ending in found.items()}
    assert kinds == {2: "exit", 3: "memory", 4: "time", 5: "exit"}
    job["spec"]["suspend"] = True
    told["kubectl", "get"] = json.dumps({"items": [job]})
    states_, _ = alive(kubernetes, begun, results)
    assert set(states_.values()) == {("pending", "suspended")}
    told["kubectl", "delete"] = ""
    seen = kubernetes.find([begun], results)
    kubernetes.end(begun, seen, {0})
    assert called[-1][0][:4] == ("kubectl", "delete", "job", name)
    told["kubectl", "get"] = json.dumps({"items": []})
    assert alive(kubernetes, begun, results) == ({}, {})


def test_a_submission_keeps_the_namespace_of_its_context(results, answers):
    told, called = answers
    kubernetes, where = build("kubernetes")
    told["kubectl", "config", "current-context"] = "prod\n"
    told["kubectl", "config", "view"] = "nlp\n"
    kept = kubernetes.resolved()
    assert kept.namespace == "nlp"
    told["kubectl", "config", "view"] = ""
    assert kubernetes.resolved().namespace == "default"
    assert build("kubernetes", "cluster.namespace=ours")[0].resolved().namespace == "ours"
    told["kubectl", "get"] = json.dumps({"items": []})
    begun, _ = submission(results, kept, job="7", site="prod")
    later = base.find_scheduler("kubernetes")(kept)
    assert alive(later, begun, results) == ({}, {})
    assert called[-2][0][3:5] == ("-n", "nlp")  # before the question for the context
    assert kubernetes.alive([begun], results).unsure == {}
    older = replace(begun, cluster=where)  # of before: it does not say which one it was
    why = kubernetes.alive([older], results).unsure[begun.name]
    assert "the namespace that the context prod had then" in why


# all of them


@pytest.mark.parametrize("name", ["lsf", "htcondor", "flux", "kubernetes"])
@pytest.mark.parametrize(
    "answer", ["Welcome!\n", '{"jobs": [', "[1, 2]", '{"jobs": [{}], "items": [{}]}']
)
def test_what_is_not_understood_proves_nothing(results, answers, monkeypatch, name, answer):
    told, _ = answers
    asked, where = build(name)
    begun, _ = submission(results, where, job="f12")
    for command in ("bjobs", "condor_q", "flux", "kubectl"):
        told[command,] = answer
    with pytest.raises(SchedulerUnreachable, match="not understood"):
        asked.alive([begun], results)
    assert (manifest.folder(results, begun.name) / "answer.txt").read_text() == answer
    full = OSError(errno.EDQUOT, "Disk quota exceeded")
    monkeypatch.setattr(ResultsFolder, "write", Mock(side_effect=full))
    with pytest.raises(SchedulerUnreachable, match="not understood") as refused:
        asked.alive([begun], results)
    assert "answer.txt" not in str(refused.value)


@pytest.mark.parametrize("name", ["lsf", "htcondor", "flux", "kubernetes"])
def test_doctor_of_a_cluster_without_what_is_asked_for(results, answers, monkeypatch, name):
    told, _ = answers
    refuse = (1, "", "no such thing")
    for command in ("bqueues", "bhosts", "flux"):
        told[command,] = refuse
    told["kubectl",] = refuse
    words = ["cluster.gpus=1", *([] if name == "htcondor" else ["cluster.partition=none"])]
    bad = {one.what for one in build(name, *words)[0].examine(results) if one.bad}
    assert (
        bad
        == {
            "lsf": {"queue none", "GPUs"},
            "htcondor": {"GPUs"},
            "flux": {"queue none"},
            "kubernetes": {"rights", "claim results", "queue none"},
        }[name]
    )
