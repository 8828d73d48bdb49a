"""A process that helps another one with a run: it computes, and writes nothing."""

import json
import os
import signal
import sys
import threading
from contextlib import suppress

from peftbench.core.run import Run
from peftbench.results.store import Results
from peftbench.runner.worker_pool import HELD


def main() -> None:
    """Take the order on standard input and do it; leave when the first process does."""
    for name in HELD:  # the first process decides when all stop
        signal.signal(name, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    order = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_first, daemon=True).start()
    from peftbench.training import loop, trainer
    from peftbench.training.runtime import RuntimeConfig

    with suppress(loop.TrainingInterrupted):
        trainer.execute(
            Run.from_json(order["run"]),
            RuntimeConfig(**order["setting"]),
            results=Results(order["results"]),
        )


def _leave_with_the_first() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    main()
