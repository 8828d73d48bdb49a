"""Train the next missing parts of the papers' grids; see next_runs.sh, which prepares the worktree.

A part is the choice of a method's learning rates, one for each task, or one cell of a grid with
all its seeds and their evaluations. Each is made by the command that it prints, and committed when
it is whole; a few cells of a grid are trained together, so that no core waits for the last seed of
each. Parts come in the order in which findings need them; runs of the methods that most papers have
do not wait for the rates of the others. Budgets in seconds need a machine without other work:
`--seconds` makes these runs, in one go, and nothing else.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path

import peftbench
from peftbench.analysis import grouping
from peftbench.config import catalog
from peftbench.config.composer import Composer
from peftbench.config.grid import Cell, Grid
from peftbench.config.override_parsing import OverrideParser, of_suite, override_value
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.plan import RunOptions
from peftbench.core.run import Run
from peftbench.core.text import format_duration
from peftbench.core.tuning import subject
from peftbench.results import choices, status
from peftbench.results.store import ResultsFolder
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
        tasks: of `EPOCHS`.
    """

    folder: Path
    model: str
    methods: tuple[str, ...]
    options: tuple[str, ...] = ()
    tasks: tuple[str, ...] = tuple(EPOCHS)


#: Methods whose rates are chosen and whose runs are made first: those that most papers have.
FIRST = Rates(
    Path("results/tuned/methods"), "minilm", ("full", "bitfit", "adapter", "lora", "pfeiffer")
)
#: Then those of the second paper, then all others; the runs of a group follow its rates.
GROUPS = tuple(
    replace(FIRST, methods=methods)
    for methods in (
        ("prefix", "unipelt"),
        ("head", "ia3", "sparse_adapter", "robust_partial"),
        ("combined", "bayes_hybrid", "mc_dropout", "blob"),
        ("parallel", "layernorm", "random_mask", "peft", "adalora"),
    )
)
OTHERS = replace(FIRST, methods=tuple(method for group in GROUPS for method in group.methods))

#: A larger model, with fewer trials; one task after the other, as each takes hours.
MPNET = {
    task: Rates(
        Path("results/tuned/mpnet"),
        "mpnet_base",
        ("full", "lora", "bitfit", "adapter"),
        ("--trials", "4", "--finalists", "1", "--seeds", "1"),
        (task,),
    )
    for task in EPOCHS
}

#: Adapters that SparseAdapter prunes beside Houlsby's, what its claims compare them with, and full
#: fine-tuning.
_HOSTS = [
    *("train.precision=bf16", "model=minilm", "size=1000", "train.num_evals=1", SEEDS),
    "zip=task=mrpc,stsb budget.epochs=4,3",
]
_PRUNED = ["method=sparse_adapter", "method.base_method=pfeiffer", "method.score=snip"]


def _on(*tasks: str) -> list[str]:
    """The words of tasks, each with its passes."""
    if len(tasks) == 1:
        return [f"task={tasks[0]}", f"budget.epochs={EPOCHS[tasks[0]]}"]
    passes = ",".join(str(EPOCHS[task]) for task in tasks)
    return [f"zip=task={','.join(tasks)} budget.epochs={passes}"]


@dataclass(frozen=True)
class Sweep:
    """A grid and the folder that it fills.

    Attributes:
        words: without those of the data and of the rates.
        variants: whether it has methods with settings, texts or prompts of their own, for which
            learning rates are chosen too, into its folder.
        data: name of the folder of its data beside GLUE's; None where it is GLUE's.
        more_data: the same of a second one, which suites need.
    """

    folder: Path
    words: list[str]
    variants: bool = False
    data: str | None = None
    more_data: str | None = None

    def data_root(self, glue: str) -> str:
        """Its folders of data."""
        beside = Path(glue).parent
        own = str(beside / self.data) if self.data else glue
        return f"{own}:{beside / self.more_data}" if self.more_data else own


def _sweep(name: str, *words: str, variants: bool = True, more_data: str | None = None) -> Sweep:
    folder = Path("results/tuned") / name.removesuffix("_mini").removesuffix("_fticl")
    return Sweep(folder, [f"sweep={name}", *words, SEEDS], variants, more_data=more_data)


def _at_1000(rates: Rates) -> Sweep:
    words = ["sweep=methods_minilm", f"method={','.join(rates.methods)}", SEEDS]
    return Sweep(rates.folder, words)


#: At the epochs of the runs of a plain Trainer that our loop is compared with.
_AS_TRAINER = Sweep(
    Path("results/tuned/trainer"),
    [
        *("train.precision=bf16", "model=minilm", "method=full", "size=full", "train.num_evals=1"),
        *("zip=task=mrpc,stsb,cola budget.epochs=5,3,4", SEEDS),
    ],
)

#: Spreads need ten seeds: five more of what UniPELT's claims compare.
_STEADIER = Sweep(
    Path("results/tuned/unipelt2022"),
    [
        *("train.precision=bf16", "model=minilm", "train.num_evals=1", "task=stsb"),
        *("zip=size=100,500,1000 budget.epochs=30,6,3", "method=lora,unipelt", "seed=range(5,10)"),
    ],
    variants=True,
)

_SPARSE = Path("results/tuned/sparse_adapter2022")


@dataclass(frozen=True)
class Stage:
    """Grids that are trained together.

    Attributes:
        rates: that they use, chosen before; None where each has those of its yaml.
    """

    rates: Rates | None
    grids: tuple[Sweep, ...]


_GENERATION = "generalization2024_generation_mini"
_CLAIMED = ("method=full", "exclude=prompt.num_demonstrations=1")


def _language(name: str, *words: str, data: str | None = None) -> Sweep:
    return Sweep(Path("results/generalization2024"), [f"sweep={name}", *words], data=data)


def _mpnet(task: str) -> Stage:
    rates = MPNET[task]
    return Stage(rates, (Sweep(rates.folder, ["sweep=methods_mpnet", *_on(task)]),))


#: In the order in which they are trained: first tables that other work waits for.
STAGES: tuple[Stage, ...] = (
    Stage(FIRST, (_at_1000(FIRST), _sweep("doering2024_mini", variants=False))),
    _mpnet("mrpc"),
    Stage(FIRST, (_AS_TRAINER,)),
    *(Stage(group, (_at_1000(group),)) for group in GROUPS),
    Stage(
        None,
        (
            _language("in_context_smollm2", "seed=range(0,3)"),
            # claims are about full fine-tuning, and not about one demonstration
            _language(_GENERATION, *_CLAIMED, "seed=range(0,3)", data="generalization"),
            _language(_GENERATION, "seed=range(0,3)", data="generalization"),
            # three seeds decide few of them
            _language(_GENERATION, *_CLAIMED, "seed=range(3,6)", data="generalization"),
            _language("in_context_smollm2", "method=full", "seed=range(3,6)"),
        ),
    ),
    _mpnet("stsb"),
    _mpnet("cola"),
    Stage(
        OTHERS,
        (
            _sweep("unipelt2022_mini"),
            _sweep("robust2024_mini"),
            _sweep("sparse_adapter2022_mini"),
            Sweep(_SPARSE, [*_HOSTS, *_PRUNED, "method.keep=0.6", "method.widen=1"], True),
            Sweep(_SPARSE, [*_HOSTS, "method=full,adapter,pfeiffer"]),
            _sweep("bh_peft2025_mini"),
            _sweep("generalization2024_mini", "method=full", more_data="ood"),
            # on CoLA seeds differ by more than any margin of the claim
            _sweep("generalization2024_fticl_mini", "method=full", "task=mrpc", "suite=null"),
            _STEADIER,
        ),
    ),
)

#: Budgets in seconds, of which runs are made alone.
SECONDS = _sweep("doering2024_time_mini", variants=False)

#: Cells of a grid that are trained together at most. An odd number of seeds, one cell at a time,
#: leaves one of two cores without work for a sixth of the time.
TOGETHER = 4

#: Processes that wait or run, on average over a minute, beside which seconds are not measured.
_QUIET = 0.9


#: Kinds of evaluations whose predictions are committed, as reports read them: the tree is small.
_PREDICTIONS = ("Shift", "Calibration")


@dataclass(frozen=True)
class Part:
    """What is made, and committed, as one.

    Attributes:
        title: of the commit.
        folder: of results.
        words: of `peftbench tune` for a choice, with its options; of `peftbench run` for the whole
            grid of a cell.
        runs: of a cell, with all seeds; none for a choice.
        evaluations: of these runs.
    """

    title: str
    folder: Path
    words: list[str]
    runs: list[Run] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What makes it; of a cell, what makes its grid."""
        verb = "run" if self.runs else "tune"
        return shlex.join(["peftbench", verb, *self.words, "--results", str(self.folder)])


def missing(data: str) -> Iterator[Part]:
    """The parts that are not there, the next one first; cells once their rates are chosen."""
    told: set[str] = set()
    for stage in STAGES:
        rates = stage.rates
        if rates is not None:
            for part in unchosen(rates, data):
                if part.title not in told:
                    yield part
                told.add(part.title)
            if any(unchosen(rates, data)):
                continue
        for grid in stage.grids:
            own = grid.data_root(data)
            if rates is not None:
                yield from unchosen_variants(rates, grid, own)
                if any(unchosen_variants(rates, grid, own)):
                    continue
            for part in _cells(rates, grid, own):
                if part.title not in told:  # a grid may hold an earlier one
                    yield part
                told.add(part.title)


def unchosen(rates: Rates, data: str) -> Iterator[Part]:
    """The choices that are not there."""
    folder = ResultsFolder(rates.folder)
    for method in rates.methods:
        words = ["train.precision=bf16", f"model={rates.model}", "size=1000"]
        words += ["train.num_evals=1", f"method={method}", f"data.root={data}"]
        tasks = []
        for task in rates.tasks:
            (run,) = peftbench.plan(*words, *_on(task)).runs
            if choices.find(folder, subject(run).key) is None:
                tasks.append(task)
        if tasks:
            title = (
                f"Learning rates of {method} on {', '.join(tasks)}: {rates.model}, 1,000 examples"
            )
            yield Part(title, rates.folder, [*words, *_on(*tasks), *rates.options])


def unchosen_variants(rates: Rates, grid: Sweep, data: str) -> Iterator[Part]:
    """The choices for cells of a grid of which `rates` have none, at 1,000 examples.

    Each has as many trials as those of `rates`.
    """
    if not grid.variants:
        return
    known = [
        choice
        for folder in (rates.folder, grid.folder)
        for choice in choices.all_choices(ResultsFolder(folder))
    ]
    for variant, tasks in _variants(grid.words).items():
        words = [*variant, "size=1000", f"data.root={data}"]
        left = []
        for task in tasks:
            (run,) = peftbench.plan(*words, *_on(task)).runs
            if not any(choice.is_of(run) for choice in known):
                left.append(task)
        if left:
            title = f"{grid.folder.name}: learning rates of {_settings(words)} on {', '.join(left)}"
            yield Part(title, grid.folder, [*words, *_on(*left), *rates.options])


#: Axes of a grid over which one learning rate is used, and those that say nothing of a run.
_ASIDE = ("seed", "size", "budget", "train.lr")


def _variants(words: list[str]) -> dict[tuple[str, ...], list[str]]:
    """The words of the cells of a grid, but for seeds, sizes, budgets, rates and suites.

    Behind those of each: its tasks.
    """
    searched = catalog.folders(None)
    composer, parser = Composer(searched), OverrideParser(searched)
    named = [word.removeprefix("sweep=") for word in words if word.startswith("sweep=")]
    own = [word for word in words if not word.startswith("sweep=")]
    grid = Grid.read([*own, "tuned=true"], parser, named[0] if named else None)
    found: dict[tuple[str, ...], dict[str, None]] = {}
    for cell in grid.cells(composer):
        found.setdefault(tuple(_spelled(cell)), {})[str(cell["task"])] = None
    return {variant: list(tasks) for variant, tasks in found.items()}


def _spelled(cell: Cell) -> Iterator[str]:
    for key, value in cell.items():
        left_out = key in (*_ASIDE, "tuned", "task") or key.startswith("budget.") or of_suite(key)
        if not left_out:
            yield f"{key}={override_value(value)}"


def _settings(words: list[str]) -> str:
    """What a variant is, for a title."""
    named = ("method", "augmentation", "prompt")
    return ", ".join(word for word in words if word.partition("=")[0].partition(".")[0] in named)


def _cells(rates: Rates | None, grid: Sweep, data: str) -> Iterator[Part]:
    """The cells that are not whole, or not committed since a call that was killed.

    Their words are those of `_tuned_words`; without rates the grid's own.
    """
    folder, words = ResultsFolder(grid.folder), [*grid.words, f"data.root={data}"]
    if rates is not None:
        words = _tuned_words(rates, grid, data)
    plan = peftbench.plan(*words, results=grid.folder)
    rows, _ = grouping.grouped(plan.runs, lambda run: run, _sized, lambda run: run.seed)
    names = {run.key: " ".join(row) for row, runs in rows.items() for run in runs}
    cells: dict[str, list[Run]] = {}
    loose = uncommitted(grid.folder)
    for run in plan.runs:
        cells.setdefault(replace(run, seed=0).key, []).append(run)
    for runs in cells.values():
        asked = [one for one in plan.evaluations if one.run in runs]
        keys = {*(run.key for run in runs), *(one.key for one in asked)}
        if loose & keys or not is_whole(folder, runs, asked):
            run = runs[0]
            title = f"{grid.folder.name}: {names[run.key]} on {run.task.name}, size {run.size}"
            first = min(run.seed for run in runs)
            seeds = f"{len(runs)} seeds" + f" from {first} on" * bool(first)
            yield Part(f"{title}, {seeds}", grid.folder, words, runs, asked)


def _sized(run: Run) -> grouping.Sized:
    return run.task.name, run.counted_size


def _tuned_words(rates: Rates, grid: Sweep, data: str) -> list[str]:
    """The words of a grid at chosen rates; the choices that it uses are copied to its folder."""
    words = [*grid.words, f"data.root={data}"]
    if grid.folder != rates.folder:
        wanted = peftbench.plan(*words).runs
        for choice in choices.all_choices(ResultsFolder(rates.folder)):
            if any(choice.is_of(run) for run in wanted):
                choices.save(ResultsFolder(grid.folder), choice)
    return [*words, "tuned=true"]


def is_whole(folder: ResultsFolder, runs: list[Run], asked: list[Evaluation] | None = None) -> bool:
    """Whether each run and each evaluation of one is there and whole, or diverged."""
    gone = [run for run in runs if not folder.done(run)]
    left = [one for one in asked or [] if one.run not in gone and not folder.done(one)]
    lacking = [*(run.key for run in gone), *(one.key for one in left)]
    notes = [folder.failure(key) for key in lacking]
    return all(note is not None and note.kind == "diverged" for note in notes)


def uncommitted(folder: Path) -> set[str]:
    """Keys of the records and evaluations of a folder that git does not know.

    Predictions do not count: those of most evaluations are never committed. Outside a repository
    that is none: there is nothing to commit them to.
    """
    asked = ["git", "ls-files", "--others", "--exclude-standard", "--"]
    places = [str(folder / kind) for kind in ("records", "evaluations")]
    found = subprocess.run([*asked, *places], check=False, capture_output=True, text=True)
    return {Path(line).stem for line in found.stdout.splitlines() if line.endswith(".json")}


def take_over(part: Part) -> None:
    """Copy records of the part that another folder of tuned runs has: an equal key is that run.

    Not where suites need the weights, which no folder keeps.
    """
    if part.evaluations:
        return
    into = ResultsFolder(part.folder)
    for run in part.runs:
        for path in sorted(part.folder.parent.glob(f"*/records/{run.key}.json")):
            other = ResultsFolder(path.parents[1])
            if other.folder != into.folder and other.done(run):
                into.adopt(other, other.load(run.key))


def next_parts(data: str, most: int, failed: Collection[str] = ()) -> list[Part]:
    """The parts to make next: a choice, or up to so many cells of one grid; none are missing.

    Args:
        data: the folder of GLUE.
        most: cells.
        failed: titles of parts that are left out.
    """
    found = (part for part in missing(data) if part.title not in failed)
    first = next(found, None)
    if first is None:
        return []
    if not first.runs:
        return [first]
    same = takewhile(lambda one: one.runs and one.command == first.command, found)
    return [first, *islice(same, most - 1)]


class Interrupted(Exception):
    """A signal ended the work; `whole` are the parts that are whole all the same."""

    def __init__(self, whole: list[Part]):
        super().__init__("stopped")
        self.whole = whole


def make(parts: list[Part], workers: int | None = None) -> list[Part]:
    """Make a choice, or train and evaluate cells of one grid together; the parts that are whole.

    Raises:
        ConfigError: if a part cannot be made at all.
        Interrupted: after a signal.
    """
    first, stopped = parts[0], False
    if not first.runs:
        return parts if tune(first) else []
    folder = ResultsFolder(first.folder)
    for part in parts:
        take_over(part)
    runs = [run for part in parts for run in part.runs]
    asked = [one for part in parts for one in part.evaluations]
    whole = peftbench.plan(*first.words, results=first.folder)
    mine = replace(whole, runs=runs, cells=len(runs), evaluations=asked)
    before = status.sweep_status(mine, folder)
    # what had no memory beside other work may find it now
    todo = sweep.select_jobs(before, sweep.retry_filter(sweep.BUT_DIVERGED))
    if todo.runs or todo.evaluations:
        sweep.check_weights(todo, before, folder)
        how = RunOptions(quiet=True, workers=workers)
        stopped = sweep.execute(todo, folder, how, devices("auto"))
    made = [part for part in parts if is_whole(folder, part.runs, part.evaluations)]
    if stopped:
        raise Interrupted(made)
    return made


def tune(part: Part) -> bool:
    """Whether learning rates were chosen; a signal that would end this process ends the search.

    Raises:
        Interrupted: after that.
    """
    words = ["tune", *part.words, "--quiet", "--results", str(part.folder)]
    search, ended = subprocess.Popen([sys.executable, "-m", "peftbench", *words]), []

    def end(number: int, frame: object) -> None:
        ended.append(number)
        search.terminate()

    before = signal.signal(signal.SIGTERM, end)
    try:
        done = search.wait() == 0
    finally:
        signal.signal(signal.SIGTERM, before)
    if ended and not done:
        raise Interrupted([])
    return done


def commit(part: Part) -> None:
    """Commit a part, and nothing else; weights that suites asked are removed.

    Those of the first seed stay where texts are generated, for a page with `--show-texts`. Where
    all runs diverged there is nothing to commit.
    """
    files = [part.folder / "choices"]
    for run in part.runs:
        files += [part.folder / "records" / f"{run.key}.json"]
        files += [part.folder / "predictions" / f"{run.key}.npz"]
    for one in part.evaluations:
        ends = (".json", ".npz") if one.kind in _PREDICTIONS else (".json",)
        files += [part.folder / "evaluations" / f"{one.key}{end}" for end in ends]
    given = [str(path) for path in files if path.exists()]
    if given:
        subprocess.run(["git", "add", "--", *given], check=True)
    changed = ["git", "diff", "--cached", "--quiet", "--", *given]
    if given and subprocess.run(changed).returncode:
        body = f"Made by: {part.command}"
        said = ["git", "commit", "-q", "-m", part.title, "-m", body, "--", *given]
        subprocess.run(said, check=True)
    for run in part.runs:
        if not (run.task.generation and run.seed == 0):
            ResultsFolder(part.folder).trained(run.key).unlink(missing_ok=True)


def seconds(data: str) -> None:
    """Make and commit the runs with budgets in seconds, one after the other.

    Exits where seconds would not compare: beside other work, or beside runs of an earlier call.
    """
    if (nice := os.nice(0)) > 0:
        sys.exit(f"budgets of seconds are trained at normal priority, and this process has {nice}")
    if (load := os.getloadavg()[0]) > _QUIET:
        sys.exit(f"budgets of seconds need the machine alone; its load is {load:.1f}")
    if left := list(unchosen(FIRST, data)):
        sys.exit(f"{len(left)} learning rates are to choose first, by next_runs.sh MINUTES")
    words = _tuned_words(FIRST, SECONDS, data)
    runs = peftbench.plan(*words, results=SECONDS.folder).runs
    there = [run for run in runs if ResultsFolder(SECONDS.folder).has(run.key)]
    if len(there) == len(runs):
        print(f"all {len(runs)} runs are there")
        return
    if there:
        records = " ".join(f"{SECONDS.folder}/*/{run.key}.*" for run in there)
        sys.exit(
            f"{len(there)} of {len(runs)} runs are there, of an earlier call, and seconds compare "
            f"only in one go; remove them to make all: rm {records}"
        )
    part = Part(f"doering2024: budgets of seconds, {len(runs)} runs", SECONDS.folder, words, runs)
    print(f"{part.title}: {part.command}", flush=True)
    try:
        whole = make([part], workers=1)
    except ConfigError as error:
        sys.exit(str(error))
    except Interrupted as interrupted:
        whole = interrupted.whole
    if not whole:
        sys.exit("not whole, nothing committed")
    commit(part)


def make_until(end: float, data: str) -> None:
    """Make and commit parts, of which none is begun that the slowest yet would end after `end`.

    What fails is named and left out, so that it keeps nothing else waiting; exits non-zero then.
    """
    slowest, failed = 0.0, set[str]()
    while True:
        began = time.monotonic()
        room = TOGETHER if not slowest else min(TOGETHER, int((end - began) / slowest))
        parts = next_parts(data, room, failed) if room > 0 and began < end else []
        if not parts:
            break
        print("\n".join(part.title for part in parts), parts[0].command, sep="\n", flush=True)
        stopped = False
        try:
            whole = make(parts)
        except ConfigError as error:
            print(error, flush=True)
            whole = []
        except Interrupted as interrupted:
            whole, stopped = interrupted.whole, True
        for part in whole:
            commit(part)
        if stopped:
            sys.exit(f"stopped; {len(whole)} of {len(parts)} committed")
        if lacking := [part.title for part in parts if part not in whole]:
            print(f"{len(lacking)} of these are not whole and not committed", flush=True)
            failed.update(lacking)
        seconds = time.monotonic() - began
        slowest = max(slowest, seconds / len(parts))
        print(f"{len(whole)} committed after {format_duration(seconds)}", flush=True)
    if failed:
        sys.exit("not made:\n" + "\n".join(sorted(failed)))


def main() -> None:
    """Make parts until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("minutes", type=float, nargs="?", help="for which to start parts")
    parser.add_argument("--seconds", action="store_true", help="make the budgets in seconds, alone")
    parser.add_argument("--data", default="../shared/glue", help="the folder of GLUE")
    parser.add_argument("--list", action="store_true", help="print what is missing, train nothing")
    asked = parser.parse_args()
    if asked.list:
        for part in missing(asked.data):
            print(part.title)
        return
    if not bf16_on_cpu() and not devices("auto"):
        sys.exit("these folders are in bf16, and this machine has no instructions for it")
    if asked.seconds:
        seconds(asked.data)
        return
    if asked.minutes is None:
        parser.error("say for how many MINUTES parts are started, or --seconds")
    make_until(time.monotonic() + 60 * asked.minutes, asked.data)
    for rates in dict.fromkeys(stage.rates for stage in STAGES if stage.rates is not None):
        if left := len(list(unchosen(rates, asked.data))):
            tasks = ", ".join(rates.tasks)
            print(f"rates of {left} methods on {tasks} with {rates.model} are to choose first")
    print(f"{len(list(missing(asked.data)))} parts are missing, but for these grids")
    print("take over what was made: git merge next-runs; then `peftbench report` of its folders")


if __name__ == "__main__":
    main()
