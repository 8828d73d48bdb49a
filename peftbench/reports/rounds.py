"""What rounds do: the score after each, what was forgotten, training on all at once beside it."""

import json
from itertools import accumulate

from peftbench import figure as drawing
from peftbench import rows
from peftbench.evaluation import Evaluated
from peftbench.run import Json
from peftbench.table import Table

#: The suite whose findings these are.
SUITE = "peftbench.suites.rounds.Rounds"

_NOTE = (
    "Percent, mean ± standard deviation over seeds (number of seeds). {columns}; in the end: the "
    "mean over the {what}; what they gained since their own round (backward transfer); what they "
    "lost since their best (forgetting). Prior: of a round, where the method has one."
)
_CHUNKS = (
    "The score on the reporting split after each round, by the training examples so far; at once: "
    "one training on all examples of the run"
)
_TASKS = "The score on each task after the last round; alone: after the first"


def tables(found: list[Evaluated], trained: dict[str, int]) -> list[Table]:
    """For each task and division into rounds: scores over the rounds by method.

    Args:
        found: evaluations by the suite.
        trained: trained parameters of each run, by key.
    """
    made = []
    for (task, size, names), here in _streams(found).items():
        sequence = isinstance(names[0], str)
        by_row, split = rows.grouped(
            here,
            lambda e: e.evaluation.run,
            lambda e: (e.evaluation.run.size,),
            lambda e: trained[e.evaluation.run.key],
        )
        lines = []
        for row, all_of_row in by_row.items():
            for how, members in _by_setting(all_of_row).items():
                told = [e.findings for e in members]
                columns = [
                    [one["scores"][-1][n] if sequence else one["validation"][n] for one in told]
                    for n in range(len(names))
                ]
                columns.append([one["joint"] for one in told])
                columns += [[one[name] for one in told] for name in _MEASURES]
                lines.append([*row, *how, *map(rows.spread, columns)])
        metric = here[0].findings["metrics"][0]
        if sequence:
            title, note = f"Rounds: {', then '.join(map(str, names))}", _TASKS
            shown = [*(f"{name} in the end" for name in names), f"{task} alone"]
        else:
            title, note = f"Rounds: {task}, {metric}", _CHUNKS
            shown = [*(f"{count:,}" for count in _so_far(names)), f"{size} at once"]
        made.append(
            Table(
                title,
                [
                    *("method", *split, "replay", "prior"),
                    *(*shown, "average", "backward transfer", "forgetting"),
                ],
                lines,
                3 + len(split),
                [_NOTE.format(columns=note, what="tasks" if sequence else "chunks")],
            )
        )
    return made


def plot(found: list[Evaluated], trained: dict[str, int]) -> bytes | None:
    """The score over the training examples so far; the mark at the right is training at once."""
    streams = {k: here for k, here in _streams(found).items() if not isinstance(k[2][0], str)}
    if not streams:
        return None
    methods = rows.methods(
        (e.evaluation.run.method["name"], trained[e.evaluation.run.key]) for e in found
    )
    lines = sorted({(methods.index(e.evaluation.run.method["name"]), *_how(e)) for e in found})
    figure, axes = drawing.panels(len(streams), width=5.2)
    for axis, ((task, _, names), here) in zip(axes[0], streams.items(), strict=True):
        seen = _so_far(names)
        for number, (place, *how) in enumerate(lines):
            told = [
                e.findings
                for e in here
                if (methods.index(e.evaluation.run.method["name"]), *_how(e)) == (place, *how)
            ]
            curves = [one["validation"] for one in told if None not in one["validation"]]
            if not curves:
                continue
            means = [100 * sum(points) / len(points) for points in zip(*curves, strict=True)]
            label = ", ".join(
                [methods[place], *(word for word in how if word not in ("0", "same"))]
            )
            look = drawing.look(number)
            axis.plot(seen, means, markersize=4, label=label, **look)
            joint = [one["joint"] for one in told if one["joint"] is not None]
            if joint:
                mean = 100 * sum(joint) / len(joint)
                axis.plot([seen[-1] * 1.15], [mean], linestyle="", markersize=8, **look)
        axis.set_xscale("log")
        axis.set_xticks(seen, [f"{count:,}" for count in seen])
        axis.minorticks_off()
        metric = here[0].findings["metrics"][0]
        drawing.plain(axis, task, "training examples so far (right: at once)", f"{metric} (%)")
    labels = list(dict.fromkeys(axes.flat[0].get_legend_handles_labels()[1]))
    drawing.legend(figure, axes, labels, most=3)
    return drawing.png(figure)


_MEASURES = ("average", "backward_transfer", "forgetting")

Stream = tuple[str, object, tuple[int | str, ...]]


def _streams(found: list[Evaluated]) -> "dict[Stream, list[Evaluated]]":
    """Evaluations by task, size and division into rounds."""
    streams: dict[Stream, list[Evaluated]] = {}
    for e in found:
        run = e.evaluation.run
        name = (run.task["name"], run.size, tuple(e.findings["names"]))
        streams.setdefault(name, []).append(e)
    return dict(sorted(streams.items(), key=lambda item: json.dumps(item[0])))


def _so_far(chunks: tuple[int | str, ...]) -> list[int]:
    return list(accumulate(map(int, chunks)))


def _by_setting(found: list[Evaluated]) -> dict[tuple[str, str], list[Evaluated]]:
    by: dict[tuple[str, str], list[Evaluated]] = {}
    for e in found:
        by.setdefault(_how(e), []).append(e)
    return dict(sorted(by.items()))


def _how(e: Evaluated) -> tuple[str, str]:
    """What is replayed, and what the prior of a round is."""
    suite: Json = e.evaluation.suite
    return f"{suite['replay']:g}", "last posterior" if suite["chain"] else "same"
