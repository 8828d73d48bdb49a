"""Labels and probabilities for texts, from a kept run or an exported folder."""

import csv
import fcntl
import io as text_io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from safetensors.torch import load
from torch import nn
from transformers import PreTrainedTokenizerBase

from peftbench.core.configs import GENERATE, WORDS, TaskConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record, Run, canonical
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.text import did_you_mean
from peftbench.data import data_report, glue_labels, hub_layout, loading, own_file, prompting
from peftbench.data.glue_labels import GlueTask
from peftbench.data.loading import LabelledTexts
from peftbench.data.own_file import FileTable
from peftbench.data.tokenization import TokenizedSplit
from peftbench.data.tokenizer import load_tokenizer
from peftbench.evaluation.evaluator import viewed
from peftbench.exporting.loading import (
    CalledModel,
    called_model,
    check_files,
    read_cut_off,
    read_export,
    trained_weights,
)
from peftbench.methods.base import MODEL, OWN, PEFT, Method, build_method
from peftbench.models import decoding, heads
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.system.run_locks import NO_LOCKS
from peftbench.training.device import device_of
from peftbench.training.precision import (
    AUTOCAST,
    build_accelerator,
    kept_precision,
    precision_note,
)
from peftbench.training.predictor import PredictionOutOfMemory, Predictor

#: Rows that are predicted and written together; a file of fewer gives what the run's own
#: evaluation gave, batch by batch.
PIECE = 4096


#: Called with the rows that are done and all of them.
Report = Callable[[int, int], None]


@dataclass(frozen=True)
class PredictionSource:
    """What predicts.

    Attributes:
        run: whose weights it has.
        identity: equal where the predictions are.
        tokenizer: of the model.
        predictor: of its outputs.
        root: folders of data sets in the hub's layout, or None for the hub.
        cut_off: confidence below which people review, infinite for all texts; None where none was
            chosen.
        note: what is odd of it, for a person.
    """

    run: Run
    identity: str
    tokenizer: PreTrainedTokenizerBase
    predictor: Predictor
    root: str | None
    cut_off: float | None = None
    note: str | None = None

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes by their numbers; None for values and texts."""
        return None if self.run.task.generation else glue_labels.label_names(self.run.task)

    def predict(self, columns: list[list[str]]) -> np.ndarray:
        """Probabilities (texts, classes), values or written texts (texts, 1), of columns."""
        return self.answer(self.tokenize(columns))

    def answer(self, tokens: TokenizedSplit) -> np.ndarray:
        """What `predict` returns, of texts that `tokenize` read.

        Raises:
            ConfigError: if predictions are not finite, or a text does not fit the memory.
        """
        run = self.run
        try:
            with torch.random.fork_rng():
                torch.manual_seed(run.seeds()["sampling"])
                found = self.predictor.predict(tokens, np.arange(len(tokens)))
        except FloatingPointError as error:
            what = str(error).partition(";")[0]
            raise ConfigError(
                f"{run.title}: {what}; a run in fp16 answers in fp32 with --device cpu, else train "
                "it again with train.precision=fp32"
            ) from error
        except PredictionOutOfMemory as error:
            raise ConfigError(
                f"{run.title}: no memory for one text of up to {tokens.longest} tokens; use "
                "--device cpu, or a device with more memory"
            ) from error
        if run.task.generation:
            written = found["written"].astype(np.int64)
            texts = decoding.texts_of(written, self.tokenizer, run.task.stop)
            return np.array(texts, dtype=object)[:, None]
        scores = found["scores"]
        if run.task.regression:
            return scores
        return torch.from_numpy(scores).double().softmax(-1).numpy()

    def tokenize(self, columns: list[list[str]]) -> TokenizedSplit:
        """Tokens of texts by column, in the run's prompt."""
        encode = prompting.coder(self.run, self.tokenizer, self.root)
        return encode(LabelledTexts(columns, np.zeros(len(columns[0]), dtype=np.int64)))


def open_run(record: Record, results: ResultsFolder, setting: RuntimeConfig) -> PredictionSource:
    """A kept run as what predicts, in the precision in which it trained; see `kept_precision`.

    A language model that was not trained needs no kept weights.

    Raises:
        ConfigError: if its weights were not kept, or the checkpoint or device is not at hand.
        RecordError: if the weights are not those that were saved with the record.
    """
    precision = str(record.environment["precision"])
    if is_pretrained(record.run):
        return _inserted(record.run, None, precision, record.run.key, setting)
    state = load(results.weights(record))
    identity = canonical([record.run.key, record.trained_sha256])
    return _inserted(record.run, state, precision, identity, setting)


def is_pretrained(run: Run) -> bool:
    """Whether it is the pretrained model throughout: not trained, and without parts of its own."""
    prompted = run.prompt is not None and run.prompt.name in (WORDS, GENERATE)
    return run.untrained and prompted and build_method(run.method).identity_at_init


def open_export(folder: Path, setting: RuntimeConfig) -> PredictionSource:
    """An exported folder as what predicts, in its run's precision; see `kept_precision`.

    Raises:
        ConfigError: if it is no such folder, if its weights are missing, torn or others, or if its
            base model or the device is not at hand.
        RecordError: if its own description was altered.
    """
    export = read_export(folder)
    run, precision = export.run, str(export.about["precision"])
    identity = canonical([run.key, export.form, check_files(export)])
    cut_off = read_cut_off(export)
    if export.form == OWN:
        own = _inserted(run, trained_weights(export), precision, identity, setting)
        return replace(own, cut_off=cut_off)
    device = device_of(setting)
    tokenizer = load_tokenizer(run.model) if export.form != MODEL else _own_tokenizer(folder, run)
    model: Any = called_model(export)
    inner = model.get_base_model() if export.form == PEFT else model
    ids = prompting.verbalizer_ids(run, tokenizer)
    if run.task.regression:  # as `AdaptedModel` does
        heads.compute_exactly(inner, run.model.family_config.head)
    if ids is not None:  # as `Backbone` does
        heads.narrow(inner, ids)
        ids = list(range(len(ids)))
    resolved = kept_precision(precision, device)
    modules = _plain_modules(model) if export.form == PEFT else model.modules()
    heads.store_as_cast(modules, AUTOCAST.get(resolved))
    called = CalledModel(model, ids).to(device)
    predictor = Predictor(
        tokenizer.pad_token_id,
        "2d",
        device,
        Method(),
        cast(AdaptedModel, called),  # `Method.predict` calls it with a batch, no more
        build_accelerator(device, resolved, run.train.tf32),
    )
    note = precision_note(precision, resolved)
    return PredictionSource(run, identity, tokenizer, predictor, setting.data_root, cut_off, note)


def _plain_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Modules that peft did not wrap: what it wrapped may read its weights, as DoRA does."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not isinstance(model, BaseTunerLayer):
        yield model
        for child in model.children():
            yield from _plain_modules(child)


def _own_tokenizer(folder: Path, run: Run) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder that needs no base model."""
    return load_tokenizer(replace(run.model, path=str(folder)))


def _inserted(
    run: Run,
    state: dict[str, torch.Tensor] | None,
    precision: str,
    identity: str,
    setting: RuntimeConfig,
) -> PredictionSource:
    device = device_of(setting)
    tokenizer = load_tokenizer(run.model)
    ids = prompting.verbalizer_ids(run, tokenizer)
    backbone = Backbone(run.model, device, verbalizer_ids=ids)
    method = Method() if state is None else build_method(run.method)
    resolved = kept_precision(precision, device)
    predictor = viewed(run, method, state, backbone, tokenizer, device, resolved)
    model = predictor.model
    if not model.exact:  # what trained, too; frozen ones are stored so
        own = (
            m
            for n, m in model.module.named_modules()
            if model.pretrained_of(f"{n}.weight") is not None
        )
        heads.store_as_cast(own, AUTOCAST.get(resolved))
    note = precision_note(precision, resolved)
    return PredictionSource(run, identity, tokenizer, predictor, setting.data_root, note=note)


# files


def predict_file(
    source: PredictionSource,
    path: Path,
    out: Path,
    quoting: str | None = None,
    note: Callable[[str], None] = lambda text: None,
    report: Report = lambda done, total: None,
) -> int:
    """Write a csv with label and probability, value or written text for each row of a file.

    Where a cut-off was chosen, a further column has yes for the rows that people review.

    The first column is the row's place in the file, as messages name it. What was written stays
    when the process ends, and the same call continues after it.

    Args:
        source: what predicts.
        path: of a csv, tsv, json, jsonl or parquet file with the columns that the run trained on.
        out: the csv that is made.
        quoting: in place of the run's own, see `delimited.read_rows`.
        note: told what is odd in the texts.
        report: told how far it is.

    Returns:
        The number of rows.

    Raises:
        ConfigError: as `check_file`, if `out` cannot be written, or some texts have no answer.
    """
    task = source.run.task
    table = check_file(task, path, out, quoting)
    content, columns = io.hash_file(path), [own_file.text_cells(table, n) for n in task.texts]
    for text in [*table.notes, *data_report.text_notes(task, table)]:
        note(f"{path.name}: {text}")
    labels, cut_off = source.labels, source.cut_off

    def lines(found: np.ndarray, start: int) -> list[list[str]]:
        places = table.rows[start : start + len(found)]
        if labels is None:
            return [[str(p), str(value)] for p, value in zip(places, found[:, 0], strict=True)]
        made = [
            [str(place), labels[number], f"{row[number]:.6f}"]
            for place, number, row in zip(places, found.argmax(1), found, strict=True)
        ]
        if cut_off is None:
            return made
        unsure = found.max(1) < cut_off
        return [[*row, "yes" if one else "no"] for row, one in zip(made, unsure, strict=True)]

    header = ["row", "label", "probability"]
    if labels is None:
        header = ["row", "text" if task.generation else "value"]
    header += ["review"] if cut_off is not None else []
    identity = canonical([source.identity, content, header, quoting, str(cut_off)])
    answers = _Answers(path.name, columns, out, ",", header, lines, identity)
    _write(source, [answers], note, report)
    return len(table.rows)


def check_file(task: TaskConfig, path: Path, out: Path, quoting: str | None) -> FileTable:
    """Read a file that is to be predicted, before a model is loaded for it.

    Args:
        task: of the run.
        path, out, quoting: as for `predict_file`.

    Raises:
        ConfigError: if it cannot be read, with the row, or `out` is no csv, or there already.
    """
    if out.suffix.lower() != ".csv":
        raise ConfigError(
            f"-o {out}: predictions are written as csv; give a name that ends in .csv"
        )
    _refuse_existing(out)
    content = own_file.content_of(path)
    table = own_file.read_table(
        *(str(path), content, task.texts, task.label, quoting or task.quoting), keep_empty=True
    )
    loading.check_repeated_header(table, task.texts)
    for name in task.texts:
        own_file.text_cells(table, name)
    return table


def predict_glue(
    source: PredictionSource,
    folder: Path,
    note: Callable[[str], None] = lambda text: None,
    report: Report = lambda done, total: None,
) -> list[Path]:
    """Write the GLUE server's files for the test splits of the run's task.

    Of MNLI also that of the diagnostic set, where its texts are at hand.

    Args:
        source: what predicts.
        folder: where the files are made, all of them at the end: until then the same call goes on
            with what is missing.
        note: told if the diagnostic set is missing, and of texts that are cut.
        report: told how far a file is.

    Raises:
        ConfigError: as `check_glue`, if the test split is not at hand, or if a file cannot be
            written.
    """
    task = source.run.task
    known = check_glue(task, folder)
    asked = [(task, split, name) for split, name in known.files.items()]
    if known.diagnostic is not None:
        config, split = glue_labels.DIAGNOSTIC
        diagnostic = replace(task, source=task.source | {"config": config})
        try:
            hub_layout.find_files(diagnostic, split, source.root)
        except ConfigError as error:
            note(f"{known.diagnostic} is not written, as its texts are missing: {error}")
        else:
            asked.append((diagnostic, split, known.diagnostic))
    answers = []
    for source_task, split, name in asked:
        found, numbers = loading.load_columns(source_task, split, source.root)
        if lacking := [column for column in task.texts if column not in found]:
            raise ConfigError(f"{task.name} {split} has no column {lacking[0]!r}")
        columns = [["" if t is None else str(t) for t in found[column]] for column in task.texts]
        index = found.get("idx") or (numbers - 1).tolist()

        def lines(found: np.ndarray, start: int, index: list[int] = index) -> list[list[str]]:
            places = index[start : start + len(found)]
            if task.regression:
                low, high = task.range or (-np.inf, np.inf)
                told = [f"{value:.3f}" for value in found[:, 0].clip(low, high)]
            elif known.named:
                told = [known.labels[number] for number in found.argmax(1)]
            else:
                told = [str(number) for number in found.argmax(1)]
            return [[str(place), said] for place, said in zip(places, told, strict=True)]

        data = loading.fingerprint(source_task, split, source.root)
        identity = canonical([source.identity, data, "glue"])
        header = ["index", "prediction"]
        answers.append(_Answers(split, columns, folder / name, "\t", header, lines, identity))
    _write(source, answers, note, report)
    return [one.out for one in answers]


def check_glue(task: TaskConfig, folder: Path) -> GlueTask:
    """Refuse what has no files of the GLUE server, before a model is loaded; return its facts.

    Raises:
        ConfigError: if the task is none of GLUE's, or one of the files is there already.
    """
    known = glue_labels.glue_task(task)
    if known is None:
        raise ConfigError(
            f"--glue: {task.name} is no task of GLUE; {did_you_mean(task.name, glue_labels.TASKS)}"
        )
    for name in [*known.files.values(), *([known.diagnostic] if known.diagnostic else [])]:
        _refuse_existing(folder / name)
    return known


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise ConfigError(f"{out} is there already; name another file with -o, or remove it")


@dataclass(frozen=True)
class _Answers:
    """A file of answers.

    Attributes:
        what: is answered, for notes.
        columns: of the texts.
        out: the file.
        delimiter: of its cells.
        header: its first line.
        lines: makes its lines of what was predicted, from a row's number on.
        identity: equal where the same is written.
    """

    what: str
    columns: list[list[str]]
    out: Path
    delimiter: str
    header: list[str]
    lines: Callable[[np.ndarray, int], list[list[str]]]
    identity: str

    @property
    def total(self) -> int:
        """Rows below the header."""
        return len(self.columns[0])

    @property
    def draft(self) -> Path:
        """Where it is written."""
        name = f".{self.out.name}.{io.digest(self.identity.encode())[:12]}.part"
        return self.out.with_name(name)


def _write(
    source: PredictionSource,
    files: list[_Answers],
    note: Callable[[str], None],
    report: Report,
) -> None:
    """Write files into drafts, which are moved to their places when all of them are whole.

    Raises:
        ConfigError: if one cannot be written or came up meanwhile, or another process writes it.
    """
    with ExitStack() as stack:
        for one in files:
            _fill(source, one, stack.enter_context(_locked(one.draft, one.out)), note, report)
        for one in files:
            _refuse_existing(one.out)
        for one in files:
            os.replace(one.draft, one.out)


def _fill(
    source: PredictionSource,
    answers: _Answers,
    file: BinaryIO,
    note: Callable[[str], None],
    report: Report,
) -> None:
    """Predict piece by piece what a draft does not have yet."""
    total, most = answers.total, source.run.train.max_length
    done, cut = _continued(file, answers), 0
    for start in range(0, total, PIECE):
        piece = [column[start : start + PIECE] for column in answers.columns]
        tokens = source.tokenize(piece)
        cut += tokens.truncated
        if start < done:
            continue
        report(start, total)
        try:
            found = source.answer(tokens)
        except ConfigError as error:
            last = start + len(piece[0])
            raise ConfigError(f"{answers.what}, texts {start + 1} to {last}: {error}") from error
        file.write(_table(answers.lines(found, start), answers.delimiter))
        file.flush()
        os.fsync(file.fileno())
    report(total, total)
    if cut:
        note(f"{answers.what}: {data_report.cut_note(cut, total, most)}")


@contextmanager
def _locked(draft: Path, out: Path) -> Iterator[BinaryIO]:
    """Open a draft, made where there is none, for this process alone.

    Where the file system has no locks two processes may do the same work.
    """
    with ExitStack() as stack:
        try:
            io.make_folder(out.parent)
            file = stack.enter_context(open(draft, "ab+"))
        except OSError as error:
            raise ConfigError(f"-o {out}: {error.strerror}; give another place") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"another process writes {out} now; wait for it, or name another file with -o"
            ) from None
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
        _refuse_existing(out)  # the other process was done between the first look and the lock
        yield file


def _continued(file: BinaryIO, answers: _Answers) -> int:
    """Rows of whole pieces in a draft; what an ended process left of another one is cut off."""
    file.seek(0)
    body = file.read()
    text = body[: body.rfind(b"\n") + 1].decode("utf-8")  # it may end inside a character
    delimiter = answers.delimiter
    reader = csv.reader(text_io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[list[str]] = []
    with suppress(csv.Error):  # inside a text of several lines
        for row in reader:
            rows.append(row)
    whole = len(rows[1:])
    if whole < answers.total:
        whole = whole // PIECE * PIECE
    kept = _table([answers.header, *rows[1 : whole + 1]], delimiter)
    if not body.startswith(kept):  # nothing yet
        file.truncate(0)
        file.write(kept)
        file.flush()
        return 0
    file.truncate(len(kept))
    return whole


def _table(rows: list[list[str]], delimiter: str) -> bytes:
    return "".join(
        f"{delimiter.join(_cell(cell, delimiter) for cell in row)}\n" for row in rows
    ).encode("utf-8")


def _cell(text: str, delimiter: str) -> str:
    """A cell as the csv module writes it; before Python 3.13 that leaves carriage returns bare."""
    if any(mark in text for mark in (delimiter, '"', "\n", "\r")):
        return '"' + text.replace('"', '""') + '"'
    return text
