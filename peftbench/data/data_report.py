"""What a person should know of a user's own file before training, in at most ten lines.

Rows, classes, lengths, duplicates, overlaps, unknown tokens and cut texts. The counts need no
torch; `token_lines` needs the tokenizer of the run.
"""

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from peftbench.core.configs import TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.core.text import listed_names
from peftbench.data import glue_labels, loading, own_labels, splitting
from peftbench.data.loading import LabelledTexts
from peftbench.data.own_file import FileTable
from peftbench.metrics.task_metrics import METRICS
from peftbench.system import hub

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

#: Lines about the data; the lines about tokens make up the rest of ten.
MOST_LINES = 8

#: Classes that are listed with their counts, at most.
_MOST_CLASSES = 6

#: Texts of which the tokens are counted, evenly over the training examples.
_SAMPLE = 2000

#: Share of unknown tokens above which a tokenizer does not know the language.
_UNKNOWN = 0.05

#: Texts that are probably a missing value written out.
_MISSING_TEXTS = ("nan", "none", "null", "n/a", "#n/a", "<na>")


def data_lines(task: TaskConfig, root: str | None, brief: bool = False) -> list[str]:
    """The report of a task: of a user's own file whole, of others what is odd in them.

    Args:
        brief: another part of the same cross-validation has been described; only what is odd, and
            which classes have no examples in this part.

    Raises:
        ConfigError: if the data cannot be loaded, or cannot be learnt.
    """
    train = loading.load_split(task, task.splits["train"], root)
    held = loading.load_split(task, task.splits["validation"], root)
    odd = loading.data_warnings(task, root)
    if task.rows_sha256 is not None and task.source["hub"] is not None:
        odd.append(
            f"{task.name}: the rows in data.root are not known to be those of "
            f"{task.source['hub']} at {str(task.source['revision'])[:12]}; their hash "
            f"{task.rows_sha256[:12]} is part of the runs' keys"
        )
    if "file" not in task.source:
        return odd
    described = [
        f"{task.name}: {len(train.label):,} training and {len(held.label):,} validation examples"
        + _held_out(task),
        f"{task.name}: {_labels(task, train, held)}",
        f"{task.name}: {_lengths(train)}; {_duplicates(train)}",
    ]
    absent = [f"{task.name}{_held_out(task)}: {line}" for line in _absent(task, train, held)]
    told = absent if brief else described
    for table in loading.own_tables(task).values():
        notes = [*table.notes]
        if not task.generation:
            notes += own_labels.label_notes(table, task.label, task.regression)
        odd += [f"{table.path.name}: {note}" for note in [*notes, *text_notes(task, table)]]
    room = MOST_LINES - len(told)
    if len(odd) > room:
        more = len(odd) - room + 1
        odd = [*odd[: room - 1], f"{task.name}: {more} further notes, such as: {odd[room - 1]}"]
    return told + odd


def absent_classes(run: Run, root: str | None) -> list[str]:
    """Which classes a run sees no training example of; the same line for all seeds.

    Raises:
        ConfigError: if the data cannot be loaded, or have too few examples.
    """
    if run.task.classes < 2 or run.size == "full":
        return []
    label = loading.load_split(run.task, run.task.splits["train"], root).label
    shown = set(label[splitting.split_training(run, label).train].tolist())
    names = glue_labels.label_names(run.task) or []
    gone = [name for number, name in enumerate(names) if number not in shown]
    if not gone:
        return []
    return [
        f"{run.task.name}, size {run.size}: a draw has no training example of "
        f"{listed_names(gone, _MOST_CLASSES)}; a model cannot learn a class that it never sees"
    ]


def _held_out(task: TaskConfig) -> str:
    if task.folds is not None and task.fold is not None:
        return f" (part {task.fold + 1} of {task.folds})"
    return "" if task.validation_path else f" ({task.validation_fraction:.0%} of the file)"


def _labels(task: TaskConfig, train: LabelledTexts, held: LabelledTexts) -> str:
    if train.targets is not None:
        lengths = list(map(len, train.targets))
        middle, most = np.quantile(lengths, [0.5, 0.95], method="nearest")
        return f"characters of a wanted text: median {middle}, 95 % up to {most}"
    if task.class_names is None:
        both = np.concatenate([train.label, held.label])
        return (
            f"labels from {both.min():g} to {both.max():g}, mean {train.label.mean():.4g}, "
            f"standard deviation {train.label.std():.4g}"
        )
    classes = len(task.class_names)
    counts = np.bincount(train.label, minlength=classes)
    others = np.bincount(held.label, minlength=classes)
    order = np.argsort(-counts, kind="stable")
    shown = [f"{_short(task.class_names[i])} {counts[i]} + {others[i]}" for i in order]
    if classes > _MOST_CLASSES:
        last = shown[-1]
        shown = [*shown[: _MOST_CLASSES - 1], f"… and {classes - _MOST_CLASSES} more, {last}"]
    told = [f"{classes} classes (training + validation): {', '.join(shown)}"]
    if one_sided := [name for name in task.metrics if METRICS[name].classes == 2]:
        told.append(f"{listed_names(one_sided)} of class {_short(task.class_names[1])!r}")
    return "; ".join([*told, *_absent(task, train, held)])


def _absent(task: TaskConfig, train: LabelledTexts, held: LabelledTexts) -> list[str]:
    """Classes that only one of the splits has examples of."""
    if task.class_names is None or train.targets is not None:
        return []
    classes = len(task.class_names)
    counts, others = (np.bincount(split.label, minlength=classes) for split in (train, held))
    told = []
    for what, here, there in (("validation", others, counts), ("training", counts, others)):
        if names := [task.class_names[i] for i in np.flatnonzero((here == 0) & (there > 0))]:
            told.append(
                f"{len(names)} without {what} examples: {', '.join(map(_short, names[:5]))}"
            )
    return told


def _short(name: str) -> str:
    return name if len(name) <= 40 else f"{name[:39]}…"


def _lengths(split: LabelledTexts) -> str:
    lengths = [sum(map(len, row)) for row in zip(*split.texts, strict=True)]
    middle, most = np.quantile(lengths, [0.5, 0.95], method="nearest")
    return f"characters of a text: median {middle}, 95 % up to {most}, longest {max(lengths)}"


def _duplicates(split: LabelledTexts) -> str:
    rows = [*zip(*split.texts, strict=True)]
    count = len(rows) - len(set(rows))
    return f"{count} of {len(rows)} training texts repeat another one"


def text_notes(task: TaskConfig, table: FileTable) -> list[str]:
    """What is odd in the texts of a file that can be used, with the rows."""
    told = []
    for name in task.texts:
        cells = ["" if cell is None or cell != cell else str(cell) for cell in table.column(name)]
        empty = [i for i, cell in enumerate(cells) if not cell.strip()]
        missing = [i for i, cell in enumerate(cells) if cell.strip().casefold() in _MISSING_TEXTS]
        broken = [i for i, cell in enumerate(cells) if _mojibake(cell)]
        for what, rows in (
            (f"empty cells in {name!r}", empty),
            (f"texts of {name!r} that say only nan, none or null", missing),
            (f"texts of {name!r} whose letters were broken by another encoding", broken),
        ):
            if rows:
                told.append(f"{len(rows)} {what} ({table.where(rows)})")
    return told


def _mojibake(text: str) -> bool:
    """Whether a text holds replacement characters, or UTF-8 that was read as Windows-1252."""
    if text.isascii():
        return False
    if "\N{REPLACEMENT CHARACTER}" in text:
        return True
    try:
        return text.encode("cp1252").decode() != text
    except UnicodeError:
        return False


def token_lines(run: Run, root: str | None, brief: bool = False) -> list[str]:
    """What the tokenizer of a run makes of its training texts.

    Args:
        brief: only what is odd.

    Raises:
        ConfigError: if data or tokenizer cannot be loaded.
    """
    from peftbench.data import prompting
    from peftbench.data.tokenizer import load_tokenizer

    try:
        tokenizer = load_tokenizer(run.model)
    except (OSError, ValueError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(f"cannot load the tokenizer of {run.model.name}: {reason}") from error
    train = loading.load_split(run.task, run.task.splits["train"], root)
    rows = np.unique(np.linspace(0, len(train.label) - 1, _SAMPLE).astype(np.int64))
    tokens = prompting.coder(run, tokenizer, root)(train.take(rows))
    unknown = _unknown_share(tokens.ids, tokenizer)
    where = f"{run.task.name}, tokenizer of {run.model.name}"
    told = []
    if "file" in run.task.source and not brief:
        lengths = tokens.lengths
        told.append(
            f"{where}: median {int(np.median(lengths))} tokens, longest {lengths.max()}; "
            f"{unknown:.1%} unknown; " + cut_note(tokens.truncated, len(rows), run.train.max_length)
        )
    if unknown > _UNKNOWN:
        told.append(
            f"{where}: {unknown:.0%} of the tokens are unknown to it: this tokenizer does not know "
            "the language of the texts; choose a model that was trained on it"
        )
    told += [f"{where}: {one}" for one in _tokenizer_notes(run, tokenizer, train.texts[0][:50])]
    return told


def cut_note(cut: int, total: int, most: int) -> str:
    """How many texts lose what is behind `train.max_length` tokens."""
    return f"{cut} of {total} texts are cut to train.max_length={most} ({cut / total:.1%})"


def _tokenizer_notes(run: Run, tokenizer: "PreTrainedTokenizerBase", texts: list[str]) -> list[str]:
    """What a tokenizer does otherwise than its files or its model let expect."""
    from tokenizers import Tokenizer

    told, plain = [], {"add_special_tokens": False, "verbose": False}
    first = {ids[0] for ids in tokenizer(texts, verbose=False)["input_ids"] if ids}
    if tokenizer.cls_token_id not in (None, *first) and not run.model.causal:
        told.append(
            f"it puts no {tokenizer.cls_token} in front of a text, where the head looks; save it "
            "with a post_processor"
        )
    folder = hub.locate(run.model)
    if folder is None or not (folder / "tokenizer.json").is_file():
        return told
    written = Tokenizer.from_file(str(folder / "tokenizer.json"))
    written.no_padding()
    written.no_truncation()
    as_written = [one.ids for one in written.encode_batch(texts, add_special_tokens=False)]
    pairs = zip(as_written, tokenizer(texts, **plain)["input_ids"], strict=True)
    if other := sum(theirs != ours for theirs, ours in pairs):
        told.append(
            f"{type(tokenizer).__name__}, which tokenizer_config.json names, reads {other} of "
            f"{len(texts)} texts otherwise than tokenizer.json; only one of the two files is right"
        )
    return told


def _unknown_share(ids: np.ndarray, tokenizer: "PreTrainedTokenizerBase") -> float:
    """Share of unknown tokens among those that are no special ones."""
    specials = set(tokenizer.all_special_ids)
    unknown = tokenizer.unk_token_id
    ends = {tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.pad_token_id}
    if unknown is None or unknown in ends:
        return 0.0  # made of bytes: nothing is unknown
    counts = Counter(ids.tolist())
    plain = sum(count for number, count in counts.items() if number not in specials)
    return counts[unknown] / max(1, plain + counts[unknown])
