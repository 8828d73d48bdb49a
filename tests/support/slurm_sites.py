"""Real Slurms of one node, which scripts/slurm-ci.sh starts, and folders of users of them."""

import os
import shutil
import signal
import subprocess
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from paths import ROOT
from sites import Site

SCRIPT = ROOT / "scripts" / "slurm-ci.sh"

#: Of tests that use one.
MARKS = [
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


#: A run that takes half a minute while the zoo holds the file `slow`, else a second.
SLOW = ("method=slow", "budget.steps=300")


@contextmanager
def started(port, accounting=True):
    """A cluster on this port and the next two; gives its environment. Sockets want a short path."""
    root = tempfile.mkdtemp(prefix="pb-", dir="/tmp")
    os.chmod(root, 0o755)  # munged wants its folder to be open to others
    environment = os.environ | {
        "SLURM_TEST_ROOT": f"{root}/s",
        "SLURM_TEST_PORT": str(port),
        "SLURM_TEST_ACCT": "1" if accounting else "0",
        "SLURM_CONF": f"{root}/s/slurm.conf",
    }
    try:
        start = subprocess.run(["bash", SCRIPT, "start"], env=environment, stderr=subprocess.PIPE)
        assert start.returncode == 0, start.stderr.decode()
        yield environment
    finally:
        subprocess.run(["bash", SCRIPT, "stop"], env=environment, check=False, capture_output=True)
        shutil.rmtree(root, ignore_errors=True)


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
