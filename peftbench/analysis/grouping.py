"""Which runs a table puts into one row: those that differ in nothing but what columns show."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from peftbench.analysis import costs
from peftbench.core.configs import TaskConfig
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import ROLES, Json, Record, Run, canonical, identity, leaves

Row = tuple[str, ...]
Sized = tuple[str, int | float | str]  # task, training examples
T = TypeVar("T")

#: What `conditions` are of.
_CONDITIONS = ("budget.", "precision", "machine")

#: What a method does not choose: where it differs, rows of two methods say so as well.
_SHARED = (
    *("model", "protocol", "loss_revision", "task.", *_CONDITIONS),
    *("prompt", "augmentation", "suite", "curve_examples"),
)


def grouped(
    items: list[T],
    run: Callable[[T], Run],
    cell: Callable[[T], tuple[Any, ...]],
    size: Callable[[T], int],
    more: Callable[[T], Json] = lambda item: {},
) -> tuple[dict[Row, list[T]], list[str]]:
    """Group things into rows; settings that differ within one cell make rows of their own.

    Args:
        items: records, evaluations.
        run: of an item.
        cell: what the columns tell apart beside the method, such as task and training examples.
        size: trained parameters; rows with most of them come first.
        more: settings of an item beside its run's.

    Returns:
        Items by (method, value of each such setting), and the names of these settings.
    """
    cells: dict[tuple[Any, ...], list[Json]] = {}
    for item in items:
        here = settings(run(item)) | more(item)
        shared = {name: value for name, value in here.items() if name.startswith(_SHARED)}
        if run(item).untrained:  # such a row is called so
            shared = {n: value for n, value in shared.items() if not n.startswith("budget.")}
        cells.setdefault((run(item).row, *cell(item)), []).append(here)
        cells.setdefault((None, *cell(item)), []).append(shared)
    split = sorted(
        {
            name
            for found in cells.values()
            for name in {key for setting in found for key in setting}
            # a base method brings keys of its own: these differ where two of one base method do
            if len({str(setting[name]) for setting in found if name in setting}) > 1
        }
        - _told([setting for found in cells.values() for setting in found])
    )
    rows: dict[Row, list[T]] = {}
    for item in items:
        here = settings(run(item)) | more(item)
        row = (run(item).row, *(_value(here.get(name)) for name in split))
        rows.setdefault(row, []).append(item)
    order = sorted(rows, key=lambda row: (-max(map(size, rows[row])), *map(_place, row)))
    return {row: rows[row] for row in order}, split


def _place(value: str) -> tuple[int, float, str]:
    """Where a value stands among others: numbers by size, then words by letter."""
    try:
        return 0, float(value), value
    except ValueError:
        return 1, 0.0, value


def _told(found: list[Json]) -> set[str]:
    """What another setting says already, where each of its values goes with one value of it.

    The name of a model says its revision and its hash; the precision that was asked for the one
    that was computed in, unless it is auto.
    """
    pairs = [("model", "model.revision"), ("model", "model.sha256")]
    pairs.append(("train.precision", "precision"))
    return {
        key
        for name, key in pairs
        if len({(str(s[name]), str(s[key])) for s in found if name in s and key in s})
        == len({str(s[name]) for s in found if name in s and key in s})
    }


def of_records(
    records: list[Record], more: Callable[[Record], Json] | None = None
) -> tuple[dict[Row, list[Record]], list[str]]:
    """Records by row, most trained parameters first, and what tells rows of one method apart.

    Args:
        more: settings beside those of runs; `made_with` where it is not given.
    """
    return grouped(
        records, lambda r: r.run, sized, lambda r: r.parameters["trained"], more or made_with
    )


def of_curves(records: list[Record]) -> tuple[dict[Row, list[Record]], list[str]]:
    """The same for curves, which may be of a part of the reporting split (--curve-part)."""
    return of_records(
        records, lambda r: made_with(r) | {"curve_examples": r.work.get("curve_examples")}
    )


def made_with(record: Record) -> Json:
    """What a run was made with that its score depends on: so many seconds buy more elsewhere."""
    told: Json = {"precision": record.environment.get("precision")}
    if record.run.budget.seconds is not None:
        told["machine"] = costs.called(costs.machine(record))
    return told


def conditions(record: Record) -> str:
    """What rows share that are compared, ranked, tested for the best, or drawn as one front.

    The budget and the precision, and of a budget in seconds the machine.
    """
    return canonical([record.run.budget, made_with(record)])


def have_several_conditions(records: Iterable[Record]) -> bool:
    """Whether no test can tell which of the rows of these is best.

    What trained nothing may stand beside any budget: who is above it is so with the budget.
    """
    every = list(records)
    trained = {conditions(record) for record in every if not record.run.untrained}
    return len(trained) > 1 or len({record.environment.get("precision") for record in every}) > 1


def sized(record: Record) -> tuple[str, int]:
    """Task and training examples of a record."""
    return record.run.task.name, record.work["train_size"]


def asked(run: Run) -> str:
    """The data of a run and what it is to say of them: equal where answers can be compared."""
    return canonical(identity(run.task))


def alike(records: list[Record]) -> list[tuple[tuple[str, int], list[Record]]]:
    """Records parted by task and training examples, and by data where those of a task differ.

    Those of one part answered the same questions.
    """
    parted: dict[tuple[str, int, str], list[Record]] = {}
    for record in records:
        parted.setdefault((*sized(record), asked(record.run)), []).append(record)
    return [((task, size), parted[task, size, data]) for task, size, data in sorted(parted)]


def title(one: Sized, among: Iterable[Sized]) -> str:
    """The task, and its training examples where several are among the others."""
    task, size = one
    if len({other for other in among if other[0] == task}) < 2:
        return task
    return f"{task} {size}" if isinstance(size, str) else f"{task} {size:,}"


@dataclass(frozen=True)
class TableSection:
    """Evaluations of one task at one training size.

    Attributes:
        title: the task, and the size where there are several.
        task: of all its runs.
        rows: evaluations by method and the settings, of run and suite, that differ.
        split: names of these settings.
    """

    title: str
    task: TaskConfig
    rows: dict[Row, list[Evaluated]]
    split: list[str]

    @property
    def found(self) -> list[Evaluated]:
        """All of them."""
        return [e for members in self.rows.values() for e in members]


def labels(by_row: Iterable[Row], split: list[str]) -> dict[Row, str]:
    """What a figure calls each row: its method, and settings in which rows of that differ.

    Budgets and precisions are shown where any two rows differ in them. A setting that a row does
    not have is not shown, nor how often it was evaluated in training where the other settings tell
    rows apart.
    """
    every = list(by_row)
    found = {}
    for row in every:
        alike = [other for other in every if other[0] == row[0]]
        told = [
            i
            for i in range(1, len(row))
            for among in [every if split[i - 1].startswith(_CONDITIONS) else alike]
            if len({other[i] for other in among}) > 1
        ]
        enough = [i for i in told if split[i - 1] != "train.num_evals"]
        if len({tuple(other[i] for i in enough) for other in alike}) == len(alike):
            told = enough
        words = [word(split[i - 1], row[i]) for i in told if row[i] != str(None)]
        found[row] = ", ".join([row[0], *words])
    return found


def differences(runs: Iterable[Run]) -> dict[str, str]:
    """By key, what a title needs behind it: the settings in which runs of one title differ.

    Such as ` · lr=0.001`; nothing where a title is unique.
    """
    alike: dict[str, dict[str, Run]] = {}
    for run in runs:
        alike.setdefault(run.title, {})[run.key] = run
    found = {}
    for by_key in alike.values():
        known = {key: settings(run) for key, run in by_key.items()} if len(by_key) > 1 else {}
        names = sorted({name for flat in known.values() for name in flat})
        split = [n for n in names if len({str(flat.get(n)) for flat in known.values()}) > 1]
        for key in by_key:
            words = [word(name, _value(known[key].get(name))) for name in split]
            found[key] = "".join(f" · {word}" for word in words)
    return found


def word(name: str, value: str) -> str:
    """A setting in words: 20 s, 3 epochs, lr=0.001."""
    node, _, last = name.rpartition(".")
    if node == "budget" and last == "seconds":
        return f"{value} s"
    if node == "budget" and last in ("epochs", "steps"):
        return f"{value} {last[:-1] if value == '1' else last}"
    if node == "seed":
        return f"{name}={value}"
    return f"{last}={value}"


def sections(found: list[Evaluated], trained: dict[str, int]) -> list[TableSection]:
    """Evaluations by one suite, parted by task and training size; pools nothing but seeds.

    Args:
        found: the evaluations.
        trained: trained parameters of each run, by key.
    """
    parted: dict[Sized, list[Evaluated]] = {}
    for e in found:
        parted.setdefault(_asked(e.evaluation.run), []).append(e)
    made = []
    for one in sorted(parted, key=lambda one: (one[0], isinstance(one[1], str), one[1])):
        by_row, split = grouped(
            parted[one],
            lambda e: e.evaluation.run,
            lambda e: (),
            lambda e: trained[e.evaluation.run.key],
            lambda e: (
                _flat("suite", e.evaluation.suite)
                | {"precision": e.environment.get("precision", e.evaluation.run.train.precision)}
            ),
        )
        task = parted[one][0].evaluation.run.task
        made.append(TableSection(title(one, parted), task, by_row, split))
    return made


def _asked(run: Run) -> Sized:
    """Task and training examples; the size as it was asked for where the task tells no total."""
    total = run.task.examples.get("train")
    return run.task.name, run.train_size(total) if total else run.size


def series(parts: list[TableSection], trained: dict[str, int]) -> list[str]:
    """Labels of all rows, those that train most first: one look each in every panel."""
    return methods(
        (labels(part.rows, part.split)[row], trained[e.evaluation.run.key])
        for part in parts
        for row, members in part.rows.items()
        for e in members
    )


def methods(trained: Iterable[tuple[str, int]]) -> list[str]:
    """Names of methods, those that train most first, from pairs of name and count."""
    most: dict[str, int] = {}
    for name, count in trained:
        most[name] = max(most.get(name, 0), count)
    return sorted(most, key=lambda name: (-most[name], name))


def settings(run: Run) -> Json:
    """Everything that a cell of a table must agree on, flat."""
    flat: Json = {"model": run.model.title, "protocol": run.protocol}
    flat |= {"loss_revision": run.loss_revision, "method.revision": run.method.revision}
    flat |= {"model.revision": run.model.revision, "model.sha256": run.model.sha256}
    flat["model.dtype"] = run.model.dtype
    flat |= {"task.source": run.task.source, "method._target_": run.method.target}
    task = run.task  # what is None in one record and not in another tells them apart
    flat |= {"task.texts": task.texts, "task.label": task.label, "task.quoting": task.quoting}
    flat["task.validation_fraction"] = task.validation_fraction
    flat |= {"task.folds": task.folds, "task.fold": task.fold, "task.group": task.group}
    flat["task.fold_seed"] = task.fold_seed
    flat["task.rows_sha256"] = task.rows_sha256 and task.rows_sha256[:12]
    flat |= {"task.metrics": task.metrics, "task.range": task.range}
    flat |= {"task.template": task.template, "task.stop": task.stop}
    flat["task.rouge_tokens"] = task.rouge_tokens
    flat |= {"task.max_new_tokens": task.max_new_tokens, "task.class_names": task.class_names}
    flat["train.class_weights"] = run.train.class_weights
    flat |= {f"seed.{role}": (run.role_seeds or {}).get(role, "as seed") for role in ROLES}
    flat["prompt"] = run.prompt.name if run.prompt else "head"
    flat["augmentation"] = run.augmentation.name if run.augmentation else "none"
    nodes = run.to_json()
    for node in ("method", "budget", "train", "checkpoint_selection", "prompt", "augmentation"):
        for key, value in (nodes[node] or {}).items():
            if key not in ("name", "_target_", "gradient_checkpointing"):
                flat |= _flat(f"{node}.{key}", value)
    return flat


def _flat(key: str, value: Any) -> Json:
    """A value by its key; a method inside a method by its name, and what is in it by theirs.

    A first revision is not written in a node, but tells it from a later one.
    """
    every = dict(leaves({key: value}))
    found: Json = {}
    for path, inner in every.items():
        node, _, name = path.rpartition(".")
        if name == "_target_":
            found[node] = every[f"{node}.name"]
            found[f"{node}.revision"] = every.get(f"{node}.revision", 1)
        elif path == key or name not in ("name", "path"):
            found[path] = inner
    return found


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def spread(values: list[float | None], scale: float = 100, digits: int = 1) -> str:
    """Mean ± standard deviation (number): of the defined values, and how many of all these are."""
    mean, deviation = mean_and_deviation(values, scale, digits)
    some = sum(value is not None for value in values)
    count = f"{len(values)}" if some == len(values) else f"{some} of {len(values)}"
    return f"{mean}{f' ± {deviation}' if deviation else ''} ({count})"


def mean_and_deviation(
    values: list[float | None], scale: float = 100, digits: int = 1
) -> tuple[str, str]:
    """The mean and the standard deviation of the defined values, as all reports print them.

    Tables, pictures and the page take them from here, so that their figures are the same.

    Returns:
        "–" where no value is defined; nothing for the deviation of fewer than two.
    """
    import statistics

    defined = [scale * value for value in values if value is not None]
    mean = f"{statistics.fmean(defined):.{digits}f}" if defined else "–"
    return mean, f"{statistics.stdev(defined):.{digits}f}" if len(defined) > 1 else ""
