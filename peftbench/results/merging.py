"""Results folders united: each record, evaluation and choice once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from peftbench.core.errors import ClosedFileError, ConfigError, OtherSchemaError
from peftbench.core.evaluation import Evaluated
from peftbench.core.run import Record, canonical
from peftbench.core.text import one_line
from peftbench.core.tuning import Choice
from peftbench.metrics.task_metrics import factor
from peftbench.results import choices
from peftbench.results.store import ResultsFolder
from peftbench.system import io

Made = Record | Evaluated | Choice


@dataclass(frozen=True)
class Entry:
    """What folders hold under one key.

    Attributes:
        versions: distinct contents and the folders that have them, in the order of the folders.
    """

    key: str
    versions: list[tuple[Made, list[ResultsFolder]]]

    @property
    def differs(self) -> bool:
        """Whether folders hold other contents."""
        return len(self.versions) > 1

    @property
    def kept_from(self) -> str:
        """The folder whose content is kept."""
        return one_line(str(self.versions[0][1][0].folder))

    @property
    def title(self) -> str:
        """A line that names it to a person."""
        made = self.versions[0][0]
        if isinstance(made, Evaluated):
            return made.evaluation.title
        return f"{'choice for ' if isinstance(made, Choice) else ''}{made.run.title}"

    def lines(self) -> list[str]:
        """Title, key and the numbers of each version, for a person."""
        told = [f"{self.key}  {self.title}"]
        for made, folders in self.versions:
            where = ", ".join(one_line(str(folder.folder)) for folder in folders)
            told.append(f"  {where}: {_numbers(made)}")
        return told


@dataclass
class Merged:
    """What a merge did.

    Attributes:
        counts: by kind, how many the folder has now, and how many of these are new.
        left_out: why something is not in it.
        notes: what a person should know beside that.
    """

    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def merge(
    folders: Sequence[ResultsFolder], into: ResultsFolder, keep_first: bool = False
) -> Merged:
    """Copy records, evaluations, choices and their trials into a folder.

    What the folder holds stays as it is. Every file is written whole, a record after its
    predictions and weights, so the same call continues after an interruption.

    Args:
        folders: in the order in which they count.
        into: a new folder, one of them, or any other.
        keep_first: where contents differ under one key, take the first, instead of refusing.

    Raises:
        ConfigError: if a folder is no results folder, or contents differ; nothing is written.
        OSError: if the disk is full or the folder cannot be written to.
    """
    for folder in folders:
        _require_results(folder, into)
    others = {one.folder.resolve(): one for one in reversed(folders)}  # the first of its name
    every = [into, *(one for one in folders if one in others.values() and not _same(one, into))]
    done = Merged()
    stores = [
        (store[0], _gathered(store, done.left_out))
        for store in (every, [one.trials() for one in every])
    ]
    differing = [e for _, found in stores for kind in found.values() for e in kind if e.differs]
    if differing and not keep_first:
        lines = [line for entry in differing for line in entry.lines()]
        count = f"{len(differing)} {'keys have' if differing[1:] else 'key has'}"
        raise ConfigError(
            "\n".join(
                [
                    f"{count} other numbers in another folder; nothing was written:",
                    *lines,
                    "--keep-first keeps those of the folder that is named first, and of the output "
                    "before any; or remove what should not count with `peftbench rm`",
                ]
            )
        )
    for place, found in stores:
        if (place is into or any(found.values())) and (odd := place.check_claims()):
            done.notes.append(odd)
    done.notes += [f"{one.key}  {one.title}: kept that of {one.kept_from}" for one in differing]
    for place, found in stores:
        for kind, entries in found.items():
            new = [_copy(place, entry, found["run"], done) for entry in entries]
            if entries:
                name = kind if place is into else "trial"
                done.counts[name] = len(entries), sum(new)
    _copy_diverged(every, done)
    _merge_revisions(every, done)
    return done


def _copy_diverged(every: list[ResultsFolder], done: Merged) -> None:
    """Note what diverged in a folder and has no record in any; reports count it."""
    into, *others = every
    there = {run.key for run in into.diverged()}
    for folder in others:
        for run in folder.diverged():
            note = None if into.has(run.key) or run.key in there else folder.failure(run.key)
            if note is not None:
                into.fail(note)
                there.add(run.key)
                done.notes.append(f"{run.key}  {run.title}: diverged in {folder.folder}")


def _require_results(folder: ResultsFolder, into: ResultsFolder) -> None:
    here, there = folder.folder.resolve(), into.folder.resolve()
    if not folder.folder.is_dir():
        raise ConfigError(f"{folder.folder}: no such folder")
    if here != there and (here in there.parents or there in here.parents):
        raise ConfigError(
            f"-o {into.folder} and {folder.folder}: one lies in the other; give a folder beside it"
        )
    made = folder.keys() or folder.evaluations() or folder.trials().keys()
    if not (made or any(folder.choices().glob("*.json"))):
        raise ConfigError(
            f"{folder.folder} holds no records, evaluations, choices or trials; give results "
            "folders, such as results/runs"
        )


def _same(one: ResultsFolder, other: ResultsFolder) -> bool:
    return one.folder.resolve() == other.folder.resolve()


def _gathered(folders: list[ResultsFolder], left_out: list[str]) -> dict[str, list[Entry]]:
    """Records, evaluations and choices of folders by kind; what no folder has whole is noted."""
    found: dict[str, dict[str, dict[str, tuple[Made, list[ResultsFolder]]]]]
    found = {"run": {}, "evaluation": {}, "choice": {}}
    bad: dict[str, str] = {}
    for folder in folders:
        records, torn = folder.scan()
        evaluated, odd = folder.scan_evaluated()
        chosen, other = choices.scan(folder)
        torn |= odd | other
        bad |= {key: f"{folder.folder}: {reason}" for key, reason in torn.items()}
        every: list[tuple[str, str, Made]] = [
            *(("run", one.run.key, one) for one in records),
            *(("evaluation", one.evaluation.key, one) for one in evaluated),
            *(("choice", one.key, one) for one in chosen),
        ]
        for kind, key, made in every:
            versions = found[kind].setdefault(key, {})
            content = io.digest(canonical(made.to_json()).encode())
            versions.setdefault(content, (made, []))[1].append(folder)
    whole = {key for keys in found.values() for key in keys}
    left_out += [f"unreadable, {reason}" for key, reason in bad.items() if key not in whole]
    return {
        kind: [Entry(key, list(versions.values())) for key, versions in sorted(keys.items())]
        for kind, keys in found.items()
    }


def _copy(into: ResultsFolder, entry: Entry, runs: list[Entry], done: Merged) -> bool:
    """Copy a record, an evaluation or a choice; whether it is new."""
    made, folders = entry.versions[0]
    if isinstance(made, Choice):
        if new := into not in folders:
            choices.save(into, made)
        return new
    if isinstance(made, Evaluated):
        found = _of_kept_weights(entry, runs)
        if found is None:
            done.left_out.append(
                f"{entry.key}  {entry.title}: of other weights than the record that is kept; "
                "`peftbench evaluate` makes it again"
            )
            return False
        made, folders = found
    others = [folder for folder in folders if folder is not into]
    if not others:
        return False
    if not into.claim(entry.key):
        done.left_out.append(f"{entry.key} is in progress ({into.claimed_by(entry.key)})")
        return False
    try:
        if into not in folders and (there := _arrived(into, made)) and there != made:
            done.left_out.append(
                f"{entry.key}  {entry.title}: {into.folder} got another one meanwhile; merge again"
            )
            return False
        # what one has lost of its files another may have
        whole = [into.adopt(folder, made) for folder in others]
    except (OtherSchemaError, ClosedFileError) as error:  # what is there may be good work
        done.left_out.append(f"{entry.key}  {entry.title}: {error}")
        return False
    finally:
        into.release(entry.key)
    if not whole[-1]:
        done.notes.append(
            f"{entry.key}  {entry.title}: without predictions, which no folder has as they were "
            "saved; tests leave it out"
        )
    return into not in folders


def _arrived(into: ResultsFolder, made: Record | Evaluated) -> Record | Evaluated | None:
    """What a folder has got of a record's or an evaluation's key since it was read."""
    if isinstance(made, Record):
        return into.load(made.run.key) if into.done(made.run) else None
    return into.evaluated(made.evaluation.key) if into.done(made.evaluation) else None


def _of_kept_weights(
    entry: Entry, runs: list[Entry]
) -> tuple[Evaluated, list[ResultsFolder]] | None:
    """The first evaluation of the weights of the record that is kept, or of none."""
    every = [(made, there) for made, there in entry.versions if isinstance(made, Evaluated)]
    of_run = every[0][0].evaluation.run.key
    kept = [run.versions[0][0] for run in runs if run.key == of_run]
    digests = [record.trained_sha256 for record in kept if isinstance(record, Record)]
    return next((one for one in every if all(map(one[0].of_weights, digests))), None)


def _merge_revisions(every: list[ResultsFolder], done: Merged) -> None:
    """Keep the commits of unpinned repositories; the first folder that has one counts."""
    into, *others = every
    found: dict[str, str] = dict(into.revisions())
    for folder in others:
        for label, commit in folder.revisions().items():
            if found.setdefault(label, commit) != commit:
                done.notes.append(
                    f"{folder.folder} used another commit of {label}, {commit[:12]}; later runs "
                    f"without a revision take {found[label][:12]}"
                )
    into.keep_revisions(found)


def _numbers(made: Made) -> str:
    if isinstance(made, Choice):
        return f"lr {made.rate:g} of {len(made.trials)} trials"
    seconds = f"{sum(made.seconds.values()):.1f} s, {made.environment['device']}"
    if isinstance(made, Evaluated):
        scores = made.headline_text
    else:
        shown = {
            n: "undefined" if v is None else f"{factor(n) * v:.4g}" for n, v in made.metrics.items()
        }
        scores = ", ".join(f"{name} {value}" for name, value in shown.items())
    return one_line(f"{scores}, {seconds}")
