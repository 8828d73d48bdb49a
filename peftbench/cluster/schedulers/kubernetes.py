"""Kubernetes 1.29 and later, with or without Kueue, from their manuals.

An array is an Indexed Job. The results folder is on a claim that pods mount where this machine has
it. A pod that leaves with code 75 is replaced (the failure policy ignores it), so one that leaves
for good does so with 0: what became of a run is in the folder.
"""

import json
import os
import shlex
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftbench.cluster.base import Check
from peftbench.cluster.commands import answers, ask, reading, refusal, run
from peftbench.cluster.manifest import (
    PENDING,
    RUNNING,
    Ending,
    SchedulerUnreachable,
    Submission,
    Task,
)
from peftbench.cluster.scripted import OVER, Scripted, Seen, asked_for
from peftbench.config.cluster import Cluster
from peftbench.core.errors import ConfigError
from peftbench.results.store import ResultsFolder

_INDEX = "batch.kubernetes.io/job-completion-index"


class Kubernetes(Scripted):
    """The cluster and namespace that kubectl reaches."""

    title = "Kubernetes"
    commands = ("kubectl",)
    submit = ("kubectl", "create", "-f", "-", "-o", "json")
    required = ("image", "claim", "mount")
    resources = (("gpu_resource", "gpus"),)
    again = 75
    left_code = 0
    # a pod that is evicted, or whose Job is suspended gets TERM, and has to say that it is not done
    warnings = Scripted.warnings | {signal.SIGTERM}
    waits = False
    array_limit = 10000
    settle = 30.0

    @property
    def site(self) -> str | None:
        """The context."""
        return ask("kubectl", "config", "current-context").strip() or None

    def check_config(self) -> None:
        """Also that pods find the folder where it is here; see `base.Scheduler`."""
        super().check_config()
        if not Path(str(self.cluster.mount)).is_absolute():
            raise ConfigError(f"cluster.mount={self.cluster.mount}: must be an absolute path")

    def resolved(self) -> Cluster:
        """With the namespace: that of the context may be another one later."""
        space = self.cluster.namespace
        if not space:  # the context has none: it is `default`
            words = ("kubectl", "config", "view", "--minify", "-o", "jsonpath={..namespace}")
            space = ask(*words).strip() or "default"
        return replace(self.cluster, namespace=space)

    def hidden(self, submission: Submission) -> str | None:
        """Also in a namespace that older submissions do not name; see `Scripted`."""
        if reason := super().hidden(submission):
            return reason
        if submission.cluster.namespace is None:
            return (
                f"it went to the namespace that the context {submission.site} had then: choose "
                f"that one, or run `peftbench cancel {submission.name}` if its jobs are over"
            )
        return None

    def exports(self) -> dict[str, str]:
        """None: the image has its own."""
        return {}

    def fields(self, results: ResultsFolder, submission: Submission, array: int) -> dict[str, Any]:
        """With resources and what a pod runs; see `Scripted`."""
        found = super().fields(results, submission, array)
        asked = submission.cluster
        place = Path(found["place"])
        if not place.is_relative_to(str(asked.mount)):
            raise ConfigError(
                f"{results.folder} is not in {asked.mount} (cluster.mount), where pods mount the "
                f"claim {asked.claim}: mount it here at the same path, and choose a folder in it "
                "with --results"
            )
        memory = {"memory": f"{found['memory_mb']}Mi"} if found["memory_mb"] else {}
        gpus = {str(asked.gpu_resource): str(asked.gpus)} if asked.gpus else {}
        wanted = {"cpu": str(asked.cpus)} if asked.cpus else {}
        work = f"python -u -m peftbench.cluster.job_runner {shlex.quote(str(place))}"
        return found | {
            "asked": wanted | memory | gpus,
            "limits": memory | gpus,
            "job": _job(submission.name, array),
            "script": f"{place}/{array}.sh",
            "work": work,
            "folder": found["place"],  # the image has no other
            "group": os.getgid(),
        }

    def call(self, text: str, path: Path) -> Any:
        """The manifest is read, and the script lies on the claim; see `Scripted`."""
        return run(*self.submit, *self._where, text="\n".join([*asked_for(text), ""]))

    def submitted(self, printed: str) -> str:
        """The name of the Job."""
        return str(json.loads(printed)["metadata"]["name"])

    def find(self, submissions: list[Submission], results: ResultsFolder) -> dict[Task, Seen]:
        """Jobs and pods with a label of ours, in the namespace; see `Scripted`."""
        only = ("-l", "peftbench/submission")
        answer = ask("kubectl", "get", "jobs,pods", *self._where, *only, "-o", "json")
        names = {_job(s.name, a): (s.name, a) for s in submissions for a in range(len(s.arrays))}
        with reading("kubectl", answer):
            return dict(_tasks(json.loads(answer)["items"], names))

    def end(self, submission: Submission, seen: dict[Task, Seen], whole: set[int]) -> None:
        """Whole Jobs: an index cannot be ended alone, its pod would be replaced; see `Scripted`."""
        if {task.array for task in seen} - whole:
            raise SchedulerUnreachable("one index of a Job cannot be ended alone")
        jobs = [_job(submission.name, array) for array in sorted(whole)]
        ask("kubectl", "delete", "job", *jobs, *self._where, "--wait=false", "--ignore-not-found")

    def examine(self, results: ResultsFolder) -> Iterator[Check]:
        """Rights, claim, the queue of Kueue; see `base.Scheduler`."""
        if not answers("kubectl", "auth", "can-i", "create", "jobs", *self._where):
            found = "this user may not create jobs in the namespace"
            yield Check("rights", found, "cluster.namespace=", bad=True)
        claim = self.cluster.claim
        if not answers("kubectl", "get", "pvc", str(claim), *self._where):
            found = "there is none; `kubectl get pvc` lists them"
            yield Check(f"claim {claim}", found, "cluster.claim=", bad=True)
        queue = self.cluster.partition
        if queue and not answers("kubectl", "get", "localqueue", queue, *self._where):
            found = "Kueue has none in the namespace; `kubectl get localqueue` lists them"
            yield Check(f"queue {queue}", found, "cluster.partition=", bad=True)
        done = run("kubectl", "get", "nodes", "-o", "json")
        name = self.cluster.gpu_resource
        if self.cluster.gpus and not done.returncode and f'"{name}"' not in done.stdout:
            yield Check("GPUs", f"no node has {name}", "cluster.gpu_resource=", bad=True)
        elif done.returncode:
            yield Check("nodes", f"cannot be listed: {refusal(done)}", "nothing has to be done")

    @property
    def _where(self) -> tuple[str, ...]:
        return ("-n", self.cluster.namespace) if self.cluster.namespace else ()


def _job(name: str, array: int) -> str:
    """The name of a Job, which its pods have as their host's."""
    return f"peftbench-{name}-{array}"


def _tasks(
    items: list[dict[str, Any]], names: dict[str, tuple[str, int]]
) -> Iterator[tuple[Task, Seen]]:
    """Each index of each Job: its newest pod, else what the Job says of it."""
    pods: dict[tuple[str, int], dict[str, Any]] = {}
    for pod in items:
        if pod["kind"] == "Pod":
            about = pod["metadata"]
            job = next((o["name"] for o in about.get("ownerReferences", [])), "")
            index = (job, int(about["annotations"][_INDEX]))
            if index not in pods or _made(pods[index]) <= _made(pod):
                pods[index] = pod
    for job in items:
        name = job["metadata"]["name"]
        if job["kind"] != "Job" or name not in names:
            continue
        status = job.get("status", {})
        good, bad = (_indexes(status.get(f"{key}Indexes")) for key in ("completed", "failed"))
        over = any(
            one["type"] in ("Complete", "Failed") and one["status"] == "True"
            for one in status.get("conditions", [])
        )
        gone = "deletionTimestamp" in job["metadata"]
        for number in range(job["spec"]["completions"]):
            task, pod = Task(*names[name], number), pods.get((name, number), {})
            if over or number in good or number in bad:
                yield task, Seen(OVER, name, ending=_ending(pod) if pod else None)
            elif (phase := pod.get("status", {}).get("phase")) == "Running":
                yield task, Seen(RUNNING, name, leaving=gone)
            else:
                suspended = bool(job["spec"].get("suspend"))
                reason = "suspended" if suspended else _waits_for(pod) if phase == "Pending" else ""
                yield task, Seen(PENDING, name, reason, leaving=gone)


def _made(pod: dict[str, Any]) -> str:
    return str(pod["metadata"].get("creationTimestamp", ""))


def _indexes(text: str | None) -> set[int]:
    """`0,2-4`."""
    found: set[int] = set()
    for part in filter(None, (text or "").split(",")):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _waits_for(pod: dict[str, Any]) -> str:
    for one in pod["status"].get("containerStatuses", []):
        if waiting := one.get("state", {}).get("waiting"):
            return str(waiting.get("message") or waiting.get("reason") or "")
    for one in pod["status"].get("conditions", []):
        if one["type"] == "PodScheduled" and one["status"] == "False":
            return str(one.get("message") or one.get("reason") or "")
    return ""


def _ending(pod: dict[str, Any]) -> Ending:
    status = pod["status"]
    if status.get("reason") == "DeadlineExceeded":
        return Ending("time", "DeadlineExceeded")
    if status.get("reason") == "Evicted" or any(
        one["type"] == "DisruptionTarget" for one in status.get("conditions", [])
    ):
        return Ending("node", str(status.get("reason") or "DisruptionTarget"))
    for one in status.get("containerStatuses", []):
        if ended := one.get("state", {}).get("terminated"):
            if ended.get("reason") == "OOMKilled":
                return Ending("memory", "OOMKilled")
            return Ending("exit", f"exit code {ended.get('exitCode')}")
    return Ending("exit", str(status.get("reason") or status.get("phase")))


SCHEDULER = Kubernetes
