"""Train the next missing parts of the papers' grids; see next_runs.sh, which prepares the worktree.

A part is the choice of one learning rate, or one cell of a grid with all its seeds. Each is made by
the command that it prints, and committed when it is whole. Parts come in the order in which
findings need them; a sweep with budgets in seconds is not among them, as it needs a quiet machine.
"""

import argparse
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import peftbench
from peftbench.core.plan import RunOptions
from peftbench.core.run import Run
from peftbench.core.text import format_duration
from peftbench.core.tuning import subject
from peftbench.results import choices, status
from peftbench.results.store import Results
from peftbench.runner import sweep
from peftbench.system.hardware import bf16_on_cpu, devices

SEEDS = "seed=range(0,5)"

#: Passes over the 1,000 examples on which learning rates are chosen, as in sweep=methods_minilm.
EPOCHS = {"mrpc": 4, "stsb": 3, "cola": 4}


@dataclass(frozen=True)
class Rates:
    """Learning rates that are chosen, one for each method and task.

    Attributes:
        folder: of their choices.
        options: of `peftbench tune`.
    """

    folder: Path
    model: str
    methods: tuple[str, ...]
    options: tuple[str, ...] = ()


#: Methods whose rates are chosen: those of the first paper, of the second, all others.
MINILM = Rates(
    Path("results/tuned/methods"),
    "minilm",
    (
        *("full", "bitfit", "adapter"),
        *("lora", "pfeiffer", "prefix", "unipelt"),
        *("head", "ia3", "sparse_adapter", "robust_partial"),
        *("combined", "bayes_hybrid", "mc_dropout", "blob"),
        *("parallel", "layernorm", "random_mask", "peft"),
    ),
)
MPNET = Rates(
    Path("results/tuned/mpnet"),
    "mpnet_base",
    ("full", "bitfit", "lora", "adapter"),
    ("--trials", "4", "--finalists", "1", "--seeds", "1"),
)

#: Rates, then the folders and sweeps that use them, in the order in which they are trained.
STAGES: tuple[tuple[Rates, tuple[tuple[Path, list[str]], ...]], ...] = (
    (
        MINILM,
        (
            (Path("results/tuned/doering2024"), ["sweep=doering2024_mini", SEEDS]),
            (MINILM.folder, ["sweep=methods_minilm", SEEDS]),
            (Path("results/tuned/unipelt2022"), ["sweep=unipelt2022_mini", SEEDS]),
        ),
    ),
    (MPNET, ((MPNET.folder, ["sweep=methods_mpnet"]),)),
)


@dataclass(frozen=True)
class Part:
    """What is made, and committed, as one.

    Attributes:
        title: of the commit.
        folder: of results.
        words: of `peftbench tune` for a choice, with its options; of `peftbench run` for the whole
            grid of a cell.
        runs: of a cell, with all seeds; none for a choice.
    """

    title: str
    folder: Path
    words: list[str]
    runs: list[Run] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What makes it; of a cell, what makes its grid."""
        verb = "run" if self.runs else "tune"
        return shlex.join(["peftbench", verb, *self.words, "--results", str(self.folder)])


def missing(data: str) -> Iterator[Part]:
    """The parts that are not there, the next one first; cells once their rates are chosen."""
    for rates, grids in STAGES:
        yield from unchosen(rates, data)
        if not any(unchosen(rates, data)):
            for folder, words in grids:
                yield from _cells(rates, folder, words, data)


def unchosen(rates: Rates, data: str) -> Iterator[Part]:
    """The choices that are not there."""
    folder = Results(rates.folder)
    for method in rates.methods:
        for task, epochs in EPOCHS.items():
            words = ["train.precision=bf16", f"model={rates.model}", "size=1000"]
            words += ["train.num_evals=1", f"method={method}", f"task={task}"]
            words += [f"budget.epochs={epochs}", f"data.root={data}"]
            (run,) = peftbench.plan(*words).runs
            if choices.find(folder, subject(run).key) is None:
                title = f"Learning rate of {method} on {task}: {rates.model}, 1,000 examples"
                yield Part(title, rates.folder, [*words, *rates.options])


def _cells(rates: Rates, path: Path, words: list[str], data: str) -> Iterator[Part]:
    folder = Results(path)
    words = [*words, f"data.root={data}"]
    if path != rates.folder:
        wanted = peftbench.plan(*words).runs
        for choice in choices.all_choices(Results(rates.folder)):
            if any(choice.is_of(run) for run in wanted):
                choices.save(folder, choice)
    words.append("tuned=true")
    cells: dict[str, list[Run]] = {}
    for run in peftbench.plan(*words, results=path).runs:
        cells.setdefault(replace(run, seed=0).key, []).append(run)
    for runs in cells.values():
        if not is_whole(folder, runs):
            run = runs[0]
            title = f"{path.name}: {run.method.name} on {run.task.name}, size {run.size}"
            yield Part(f"{title}, {len(runs)} seeds", path, words, runs)


def is_whole(folder: Results, runs: list[Run]) -> bool:
    """Whether each run has a record, or diverged."""
    notes = {run.key: folder.failure(run.key) for run in runs if not folder.has(run.key)}
    return all(note is not None and note.kind == "diverged" for note in notes.values())


def make(part: Part) -> bool:
    """Train a part; whether it is whole."""
    if not part.runs:
        words = ["tune", *part.words, "--quiet", "--results", str(part.folder)]
        return subprocess.run([sys.executable, "-m", "peftbench", *words]).returncode == 0
    folder = Results(part.folder)
    whole = peftbench.plan(*part.words, results=part.folder)
    before = status.sweep_status(replace(whole, runs=part.runs, cells=len(part.runs)), folder)
    todo = sweep.select_jobs(before, sweep.retry_filter(None))
    if todo.runs:
        sweep.execute(todo, folder, RunOptions(quiet=True), devices("auto"))
    return is_whole(folder, part.runs)


def commit(part: Part) -> None:
    """Commit a part, and nothing else."""
    files = [part.folder / "choices"]
    for run in part.runs:
        files += [part.folder / "records" / f"{run.key}.json"]
        files += [part.folder / "predictions" / f"{run.key}.npz"]
    given = [str(path) for path in files if path.exists()]
    subprocess.run(["git", "add", "--", *given], check=True)
    body = f"Made by: {part.command}"
    subprocess.run(["git", "commit", "-q", "-m", part.title, "-m", body, "--", *given], check=True)


def main() -> None:
    """Make parts until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, help="for which to start parts")
    parser.add_argument("--data", default="../shared/glue", help="the folder of GLUE")
    parser.add_argument("--list", action="store_true", help="print what is missing, train nothing")
    asked = parser.parse_args()
    if asked.list:
        for part in missing(asked.data):
            print(part.title)
        return
    if not bf16_on_cpu() and not devices("auto"):
        sys.exit("these folders are in bf16, and this machine has no instructions for it")
    start, longest = time.monotonic(), 0.0
    for part in missing(asked.data):
        began = time.monotonic()
        if began - start + longest > 60 * asked.minutes:
            break
        print(f"{part.title}: {part.command}", flush=True)
        if not make(part):
            sys.exit(f"not whole, nothing committed: {part.title}")
        commit(part)
        longest = max(longest, time.monotonic() - began)
        print(f"committed after {format_duration(time.monotonic() - began)}", flush=True)
    for rates, _ in STAGES:
        if left := len(list(unchosen(rates, asked.data))):
            print(f"{left} learning rates of {rates.model} are to choose before its grids")
    print(f"{len(list(missing(asked.data)))} parts are missing, but for these grids")
    print("take over what was made: git merge next-runs; then `peftbench report` of its folders")


if __name__ == "__main__":
    main()
