"""A folder of a user of a real cluster, where the zoo's methods train."""

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import zoo
from records import tiny

from peftbench.cluster import manifest
from peftbench.cluster.queue import look
from peftbench.results.store import ResultsFolder

#: Seconds after which a test would rather fail than wait.
PATIENCE = 400


class Site:
    """A folder of a user of the cluster that `yaml` says, reached by `environment`."""

    def __init__(self, folder, environment, yaml):
        self.folder = folder
        configs = zoo.write_configs(folder / "configs")
        (configs / "cluster").mkdir()
        (configs / "cluster" / "test.yaml").write_text(yaml)
        path = [str(Path(zoo.__file__).parent), os.environ.get("PYTHONPATH", "")]
        self.environment = environment | {
            "ZOO": str(folder),
            "PYTHONPATH": os.pathsep.join(filter(None, path)),
        }
        self.results = ResultsFolder(folder / "runs")

    def ask(self, *words, results="runs"):
        """A command of peftbench, to its end."""
        command = [sys.executable, "-m", "peftbench", *words, "--results", results]
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        return SimpleNamespace(
            code=done.returncode, out=done.stdout, said=done.stdout + done.stderr
        )

    def submit(self, *words):
        """`peftbench submit`, for the CPU; the newest submission."""
        told = self.ask("submit", *tiny(*words), "cluster=test", "--device", "cpu")
        assert told.code == 0, told.said
        return manifest.scan(self.results)[0][-1]

    def run(self, *command):
        """A command of the scheduler."""
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=True
        )
        return done.stdout

    def states(self):
        """State of each key, as the scheduler and the files have it now."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                if os.environ.get(name) != value and name not in ("PYTHONPATH", "ZOO"):
                    patch.setenv(name, value)
            return look(self.results).state

    def wait(self, what, seconds=PATIENCE):
        """Wait until something is true."""
        end = time.monotonic() + seconds
        while not what():
            assert time.monotonic() < end, (self.states(), self.logs())
            time.sleep(0.3)

    def wait_over(self):
        """Wait until no job waits or runs."""
        self.wait(lambda: not {"pending", "running"} & set(self.states().values()))

    def trainings(self, method):
        """How often trainings of a method began."""
        path = self.folder / "journal"
        return path.read_text().split().count(method) if path.exists() else 0

    def training_slowly(self, times=1):
        """Wait until so many processes are some steps into a training of the method `slow`.

        Before its first step a run that is stopped has no checkpoint to write.
        """
        self.wait(lambda: sum(steps >= 3 for steps in self._steps().values()) >= times)

    def _steps(self):
        path = self.folder / "steps"
        return Counter(path.read_text().split()) if path.exists() else {}

    def logs(self):
        """What the jobs said."""
        return "\n".join(p.read_text() for p in self.results.folder.glob("submissions/*/*.log"))

    def record(self):
        """The one record that there is."""
        (key,) = self.results.keys()
        return self.results.load(key)
