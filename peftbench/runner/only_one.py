"""One command at a time, of all that share a results folder."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from peftbench.core.plan import Plan
from peftbench.results.store import ResultsFolder
from peftbench.runner.progress import note

#: The claim of who notes commits.
_REVISIONS = "3" + 12 * "0"


@contextmanager
def only_one(results: ResultsFolder, claim: str, doing: str) -> Iterator[None]:
    """Hold off other commands with the same claim, on all machines that share the folder.

    By a claim as runs have it, which works on file systems without locks too.

    Args:
        results: the folder.
        claim: 13 hexadecimal digits, so that no run has it.
        doing: what the other one does into the folder, for the message that this one waits.

    Raises:
        ConfigError: if no claim can be taken.
    """
    results.check_claims()
    waits = False
    while not results.claim(claim):
        if not waits:
            who = results.claimed_by(claim)
            note(f"another command {doing} {results.folder}; waiting for it ({who})")
        waits = True
        time.sleep(0.2)
    try:
        yield
    finally:
        results.release(claim)


def keep_revisions(results: ResultsFolder, plan: Plan) -> None:
    """Keep the commits of a plan for later commands.

    Raises:
        ConfigError: if no claim can be taken.
        OSError: if the folder cannot be written to.
    """
    if plan.revisions:
        with only_one(results, _REVISIONS, "notes commits in"):
            results.keep_revisions(plan.revisions, plan.renewed)
