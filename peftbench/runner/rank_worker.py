"""A process of rank 1 or above in a run of several processes.

It trains with the process of rank 0, which started it, and stores nothing.
"""

import json
import os
import signal
import threading
from contextlib import suppress
from typing import TextIO

from peftbench.core.run import Run
from peftbench.core.runtime import RuntimeConfig
from peftbench.results.store import ResultsFolder
from peftbench.runner.stop_signals import HELD
from peftbench.runner.worker import take_input


def main() -> None:
    """Execute the run given on standard input; exit when the process of rank 0 does."""
    for name in HELD:  # rank 0 decides when all stop
        signal.signal(name, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
    given = take_input()
    order = json.loads(given.readline())
    threading.Thread(target=_exit_with_rank_zero, args=(given,), daemon=True).start()
    from peftbench.training import session, trainer

    with suppress(session.TrainingInterrupted):
        trainer.execute(
            Run.from_json(order["run"]),
            RuntimeConfig(**order["setting"]),
            results=ResultsFolder(order["results"]),
        )


def _exit_with_rank_zero(given: TextIO) -> None:
    given.read()
    os._exit(1)


if __name__ == "__main__":
    main()
