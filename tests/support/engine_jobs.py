"""Jobs of a real Grid Engine that do what a task may do; without torch, so that they are quick."""

import sys
import time
from dataclasses import replace
from pathlib import Path

from submissions import hand_over, submission

from peftbench.cluster.manifest import Task
from peftbench.cluster.schedulers.grid_engine import GridEngine
from peftbench.config import cluster
from peftbench.results.store import ResultsFolder

WORDS = ["cluster=grid_engine", "cluster.cpus=1", "cluster.settle_seconds=0"]
SGE = cluster.read([*WORDS, "cluster.poll_seconds=0", "cluster.memory_gb=4"])

#: In place of Python: what tasks do, by number, and how often each was started.
PYTHON = """\
#!/bin/bash
task=${@: -1}
echo "turn of $task" >> "$TRACE/$task"
case $task in
  0_1) echo broken; exit 3 ;;
  0_2) [ $(wc -l < "$TRACE/$task") -gt 2 ] || exit 99 ;;
  0_3) trap "" USR2; sleep 100 & wait; wait ;;
  0_4) kill -9 $$ ;;
  0_5|0_6|0_7) sleep 300 & wait ;;
esac
"""


def wait(what, seconds=120):
    """Wait until something is true; what it is."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, found
        time.sleep(0.3)
    return found


def array(folder):
    """Hand over 8 tasks, three at a time: one raises, one goes back twice, one breaks its limit."""
    trace = folder / "trace"
    trace.mkdir()
    python = folder / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    results = ResultsFolder(folder / "it's odd, 100%")
    where = replace(
        SGE, memory_gb=0.5, environment={"TRACE": str(trace)}, options={"l": "h_rt=6"}, parallel=3
    )
    begun, _ = submission(results, where, count=8)
    before, sys.executable = sys.executable, str(python)
    try:
        return results, hand_over(results, begun), trace
    finally:
        sys.executable = before


def states_of(results, begun):
    """State of each task that is not over, by number."""
    found = GridEngine(begun.cluster).alive([begun], results).alive
    return {task.number: state for task, (state, _) in found.items()}


def main(home):
    """The whole, for a user who has only this folder; prints how tasks ended."""
    results, begun, _ = array(Path(home))
    asked = GridEngine(begun.cluster)
    wait(lambda: states_of(results, begun).get(5) == "running")
    left = asked.cancel(begun, [Task(begun.name, 0, n) for n in (5, 6, 7)], results)
    wait(lambda: not states_of(results, begun))
    tasks = [task for task, _ in begun.tasks()]
    told = wait(lambda: len(found := asked.explain(begun, tasks, results)) > 5 and found)
    ended = sorted((task.number, ending.words) for task, ending in told.items())
    print(left, ended[:3], asked.array_limit)


if __name__ == "__main__":
    main(sys.argv[1])
