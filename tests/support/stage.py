"""Commands run as processes in a folder of their own, for tests of what goes wrong."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import zoo
from records import tiny

from peftbench.config.sweep import plan
from peftbench.results.store import ResultsFolder


class Stage:
    """A folder in which commands run: configurations, switches and journal of the zoo, results."""

    def __init__(self, folder):
        self.folder = folder
        self.configs = zoo.write_configs(folder / "configs")
        self.results = ResultsFolder(folder / "runs")
        self.switch(slow=False)

    def switch(self, **states):
        """Put files of these names into the folder, or take them away."""
        for name, on in states.items():
            (self.folder / name).touch() if on else (self.folder / name).unlink(missing_ok=True)

    @property
    def environment(self):
        """That of commands; bytecode is kept, or every worker would compile its libraries."""
        inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        path = [str(Path(zoo.__file__).parent), *inherited.get("PYTHONPATH", "").split(":")]
        return inherited | {"ZOO": str(self.folder), "PYTHONPATH": ":".join(filter(None, path))}

    def start(self, *words, results=None):
        """Start `peftbench run`."""
        command = [sys.executable, "-m", "peftbench", "run", *tiny(*words)]
        command += ["--device", "cpu", "--threads", "1", "--results", str(results or "runs")]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words, results=None):
        """`peftbench run`, to its end."""
        return finish(self.start(*words, results=results))

    @property
    def journal(self):
        """(method, process) of every training that was started."""
        path = self.folder / "journal"
        lines = path.read_text().splitlines() if path.exists() else []
        return [(line.split()[0], int(line.split()[1])) for line in lines]

    def trained(self, method):
        """Processes that started a training of the method, in order."""
        return [pid for name, pid in self.journal if name == method]

    def next_training(self, method, process, already=0):
        """The worker that takes up its `already`+1st training of a method."""
        while len(self.trained(method)) <= already:
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        return self.trained(method)[already]

    def some_steps(self, worker):
        """Wait until a worker is some steps into a training of `slow`: sooner it saves nothing."""
        path = self.folder / "steps"
        while not path.exists() or path.read_text().split().count(str(worker)) < 3:
            assert not gone(worker)
            time.sleep(0.05)

    def files(self, kind):
        """Names of the files of a kind in the results folder."""
        return sorted(path.name for path in (self.results.folder / kind).glob("*"))


def finish(process):
    """Wait for a command; what it said and gave."""
    out, err = process.communicate()
    return SimpleNamespace(code=process.returncode, out=out, err=err, said=out + err)


def gone(pid):
    """Whether a process has ended; one that nobody has asked after is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(pid):
    """Wait until a process has ended."""
    while not gone(pid):
        time.sleep(0.05)


def first_child(process):
    """The first process that a command starts."""
    while not (found := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()):
        time.sleep(0.02)
    return int(found.split()[0])


def parent(pid):
    """The parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def one(stage, *words):
    """The one run that overrides mean on a stage."""
    (run,) = plan(*tiny(*words), configs=stage.configs).runs
    return run


def no_traceback(done):
    """Whether a command printed no traceback; fails with what it printed."""
    assert "Traceback" not in done.said, done.said
    return True
