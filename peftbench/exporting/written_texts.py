"""Texts that kept runs write, beside those that are wanted, for the page alone.

Records hold the scores and hashes of texts, never the texts: kept weights write them again.
"""

import numpy as np

from peftbench.analysis import grouping, selection
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import loading
from peftbench.exporting import prediction
from peftbench.metrics.task_metrics import text_metrics
from peftbench.models import decoding
from peftbench.reports import glossary
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder

#: Texts of a task that are shown, the first of its reporting split.
SHOWN = 12

#: Characters of an input that are shown; an article would fill the page.
INPUT = 300


def tables(
    results: ResultsFolder, setting: RuntimeConfig, where: str = "", count: int = SHOWN
) -> list[Table]:
    """For each task that wants texts: inputs, wanted texts, and those of every row's first run.

    Args:
        results: where records, predictions and weights are.
        setting: device and data.
        where: conditions of `analysis.fields` on the runs that are shown.
        count: texts of each task.

    Raises:
        ConfigError: if no run with kept weights writes texts, or data or checkpoint is missing.
        RecordError: if weights or predictions are not those that were saved with the record.
    """
    records, _ = selection.of_records(results, results.scan()[0], [], where)
    by_row, split = grouping.of_records(records)
    labels = grouping.labels(by_row, split)
    row_of = {record.run.key: labels[row] for row, here in by_row.items() for record in here}
    writing = [record for record in records if record.run.task.generation]
    if not writing:
        raise ConfigError("--show-texts: no task of these runs wants texts; leave it out")
    parts = grouping.alike(writing)
    made = []
    for one, members in parts:
        rows: dict[str, Record] = {}
        for record in sorted(members, key=lambda record: record.run.seed):
            kept = record.trained_sha256 and results.trained(record.run.key).is_file()
            if kept or prediction.is_pretrained(record.run):
                rows.setdefault(row_of[record.run.key], record)
        gone = dict.fromkeys(row_of[record.run.key] for record in members)
        lost = [glossary.row(label) for label in gone if label not in rows]
        if rows:
            title = glossary.section(grouping.title(one, dict(parts)))
            made.append(_table(title, rows, lost, results, setting, count))
    if not made:
        raise ConfigError(
            "--show-texts: weights write the texts again, and no run here has kept any; train with "
            "--save-weights"
        )
    return made


def _table(
    title: str,
    rows: dict[str, Record],
    lost: list[str],
    results: ResultsFolder,
    setting: RuntimeConfig,
    count: int,
) -> Table:
    task = next(iter(rows.values())).run.task
    table = loading.load_split(task, task.splits["validation"], setting.data_root)
    table = table.take(np.arange(min(count, len(table.label))))
    assert table.targets is not None
    columns = [
        [text if len(text) <= INPUT else f"{text[:INPUT]} …" for text in column]
        for column in table.texts
    ]
    columns.append(table.targets)
    place, differ = [one.name for one in text_metrics()].index(task.metrics[0]), 0
    for record in rows.values():
        source = prediction.open_run(record, results, setting)
        texts = source.predict(table.texts)[:, 0]
        known = results.predictions(record)
        same = decoding.digests(list(texts)) == known["text_sha256"][: len(texts)]
        differ += int((~same.all(axis=1)).sum())
        scores = known["scores"][:, place]
        columns.append([f"{t or '–'} ({100 * s:.0f})" for t, s in zip(texts, scores, strict=False)])
    metric = glossary.name("metrics", task.metrics[0])
    notes = [
        f"The first {len(table.label)} texts of the reporting split, written again by the weights "
        f"of each row's first seed; in parentheses {metric} of the text as recorded."
    ]
    if differ:
        notes.append(f"{differ} of these texts are not those that were scored, by their hashes.")
    if lost:
        notes.append(f"Without kept weights: {', '.join(lost)}.")
    names = ["text", *task.texts, "wanted", *map(glossary.row, rows)]
    numbers = [str(number + 1) for number in range(len(table.label))]
    lines = [list(line) for line in zip(numbers, *columns, strict=True)]
    return Table(f"Texts: {title}", names, lines, notes=notes, prose=len(names) - 1)
