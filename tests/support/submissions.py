"""Submissions made by hand, and commands of peftbench in this process."""

from dataclasses import replace

from click.testing import CliRunner
from records import runs, tiny

from peftbench.cluster import base, bundling, manifest
from peftbench.cluster.queue import look


def ask(results, *words):
    """A command of peftbench in this process."""
    from peftbench.cli.main import main

    return CliRunner().invoke(
        main, [*words, "--results", str(results.folder)], catch_exceptions=False
    )


def submission(results, where, count=2, job=None, after=False, **changes):
    """A submission of so many runs, each in a job of its own, and the runs.

    With `after` there is a second array like the first, which waits for it.
    """
    jobs = runs(f"seed=range(0,{count})")
    array = bundling.Array([[job] for job in jobs], 30, where.memory_gb)
    words = [*tiny(f"seed=range(0,{count})"), f"cluster={where.scheduler}"]
    arrays = [array, *([replace(array, after=(0,))] if after else [])]
    begun = manifest.begin(words, where, arrays, None, {}, {})
    sent = [replace(one, job=job) for one in begun.arrays]
    begun = replace(begun, arrays=sent, **changes)
    for task, _ in begun.tasks():
        manifest.write_jobs(results, task, array.bundles[task.number])
    manifest.save(results, begun)
    return begun, jobs


def hand_over(results, begun, note=True):
    """Send all arrays, and note the scheduler's numbers."""
    asked = base.build_scheduler(begun.cluster)
    for number in range(len(begun.arrays)):
        job = asked.send(results, begun, number)
        sent = [replace(one, job=job) if a == number else one for a, one in enumerate(begun.arrays)]
        begun = replace(begun, arrays=sent)
        if note:
            manifest.save(results, begun)
    return begun


def states(results):
    """State of each key, in order."""
    return list(look(results).state.values())
