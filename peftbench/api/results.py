"""A results folder for notebooks: records as data frames, tables, comparisons and figures."""

import html
import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftbench.core.errors import ConfigError, is_number, one_of
from peftbench.core.run import Record
from peftbench.core.text import did_you_mean
from peftbench.results import store

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from peftbench.reports.plotting.style import Figure
    from peftbench.reports.tables.markdown import Table


class Results(store.ResultsFolder):
    """A results folder; what a notebook shows of it is how many records of what it holds.

        results = peftbench.Results("results/tuned/doering2024")
        results.frame()
        results.table(rows="method", columns="task")

    Args:
        folder: made when the first run is claimed; one that is committed is no different.
    """

    def frame(self, *columns: str) -> "pd.DataFrame":
        """One row a record, one column a scalar of it, named by its dotted path.

        Args:
            columns: such as "run.method.name" and "score"; all by default.

        Raises:
            ConfigError: for a column that no record has, with the nearest names.
        """
        from peftbench.results.frame import load_frame

        found = load_frame(self)
        for name in columns:
            if name not in found.columns:
                raise ConfigError(f"no record has {name!r}; {did_you_mean(name, found.columns)}")
        return found.read(columns or None)

    def curves(self, *keys: str) -> "pd.DataFrame":
        """One row an evaluation during training: key, method, task, size, seed and the point.

        A point has step, fraction (of the budget), seconds, examples, loss (mean since the last
        point), the task's metrics and the method's own diagnostics.

        Args:
            keys: of runs; all by default.
        """
        import pandas as pd

        rows = []
        for record in self._records(keys):
            run = record.run
            about = {
                "key": run.key,
                "method": run.method.name,
                "task": run.task.name,
                "size": run.size,
                "seed": run.seed,
            }
            rows += [about | point for point in record.curve]
        return pd.DataFrame(rows)

    def predictions(self, record: "Record | str") -> "dict[str, np.ndarray]":
        """Arrays over the reporting split: item, label, scores.

        Args:
            record: or the key of its run.

        Raises:
            RecordError: if no record has this key, several begin so, or the file is not the one
                that was saved with the record.
        """
        [found] = [record] if isinstance(record, Record) else self._records([record])
        return super().predictions(found)

    def errors(self, key: str) -> "pd.DataFrame":
        """What a run answered to each example of the reporting split.

        Columns of a classification: item (row in the split), label, predicted, right, confidence
        (probability of the answer); the surest wrong answers come first. Of a regression: item,
        label, predicted, residual; the largest first.

        Raises:
            ConfigError: if the run writes texts.
            RecordError: if no record has this key, several begin so, or the predictions are not
                those that were saved with the record.
        """
        import pandas as pd

        from peftbench.analysis.errors import RowPredictions

        (record,) = self._records([key])
        if record.run.task.generation:
            raise ConfigError(
                f"{record.run.title} writes texts, which are not right or wrong answers; their "
                "scores are in predictions(key)['scores']"
            )
        answers = RowPredictions.from_records([record], super().predictions)
        columns = {"item": answers.item, "label": answers.label, "predicted": answers.predicted[0]}
        if answers.probability is None:
            made = pd.DataFrame(columns | {"residual": answers.residuals()[0]})
            return made.sort_values("residual", key=abs, ascending=False, ignore_index=True)
        sure = answers.probability[0].max(axis=1)
        right = answers.predicted[0] == answers.label
        made = pd.DataFrame(columns | {"right": right, "confidence": sure})
        return made.sort_values(["right", "confidence"], ascending=[True, False], ignore_index=True)

    def table(
        self,
        rows: "str | list[str]" = "method",
        columns: "str | list[str]" = "task",
        cell: str = "score",
        where: str = "",
        summary: str = "mean",
        mix: "str | list[str]" = "",
    ) -> "ShownTable":
        """A table as `peftbench report table` makes it; its help says what each word may be.

            results.table(rows=["method", "lr"], cell="score", where="task=mrpc size=1000")

        Raises:
            ConfigError: for words that the command would refuse, or no records.
        """
        from peftbench.reports.pivot_table import build_pivot_table

        given = {"rows": rows, "columns": columns, "cell": cell}
        given |= {"where": where, "summary": summary, "mix": mix}
        spelt = {n: v if isinstance(v, str) else ",".join(v) for n, v in given.items()}
        words = [f"{name}={value}" for name, value in spelt.items() if value]
        made = build_pivot_table(self, words, "csv", None)
        for line in made.warnings:
            warnings.warn(line, stacklevel=2)
        assert made.text is not None
        return ShownTable(made.table, made.text)

    def compare(
        self, against: str | None = None, margin: float | None = None, where: str = ""
    ) -> "pd.DataFrame":
        """Each row of the score table against a baseline, paired over seeds and examples.

        Columns: task, row, against, seeds, examples, metric, difference with low and high (of the
        interval that holds for all of a task together), adjusted p and verdict. Scores are between
        0 and 1.

        Args:
            against: the baseline's name in figures, such as "full"; by default what trains most.
            margin: a loss of at most this fraction is not worse; 0.01, the command's `--margin 1`,
                by default.
            where: conditions on the runs that count, as of `table`.

        Raises:
            ConfigError: if there is no such baseline, or no record, or the margin is no fraction.
        """
        import pandas as pd

        from peftbench.analysis.comparison import MARGIN
        from peftbench.reports.builder import read_inputs

        margin = MARGIN if margin is None else margin
        if not is_number(margin) or not 0 < margin < 0.5:
            raise ConfigError(
                "margin must be a fraction greater than 0 and less than 0.5, such as 0.01 for the "
                f"command's --margin 1, got {margin!r}"
            )
        inputs, _ = read_inputs(self, against=against, margin=margin, where=where)
        return pd.DataFrame([pair.to_json() for pair in inputs.pairs])

    def plot(self, name: str, where: str = "") -> "list[Picture]":
        """The figures that `peftbench report plots NAME` writes; a notebook shows them.

        Args:
            name: of a report with figures.
            where: conditions on the runs that count, as of `table`.

        Raises:
            ConfigError: for an unknown name, or where these records do not have what it shows.
        """
        from peftbench.reports import registry
        from peftbench.reports.builder import read_inputs

        drawn, missing = registry.draw_figures(read_inputs(self, where=where)[0], [name])
        if missing:
            raise ConfigError("; ".join(missing))
        return [Picture(file, figure) for file, figure in drawn.items()]

    def _records(self, keys: "tuple[str, ...] | list[str]") -> list[Record]:
        """Records by the first digits of their keys; all where none are given."""
        return [self.load(self.key_of(key)) for key in keys] if keys else self.scan()[0]

    def __repr__(self) -> str:
        count = len(self.keys())
        return f"Results({str(self.folder)!r}): {count} record{'s' * (count != 1)}"

    def _repr_html_(self) -> str:
        told = f"<p><code>{html.escape(repr(self))}</code></p>"
        if not self.keys():
            return told
        names = ["run.task.name", "run.method.name"]
        frame = self.frame(*names).rename(columns=dict(zip(names, ("task", "method"), strict=True)))
        counts = frame.astype(str).value_counts(["method", "task"]).unstack(fill_value=0)
        return told + str(counts.to_html())


def load_records(folder: str | Path, *columns: str) -> "pd.DataFrame":
    """The records of a folder, one row each; see `Results.frame`."""
    return _existing(folder).frame(*columns)


def compare(
    folder: str | Path, against: str | None = None, margin: float | None = None, where: str = ""
) -> "pd.DataFrame":
    """The rows of a folder against a baseline; see `Results.compare`."""
    return _existing(folder).compare(against, margin, where)


def _existing(folder: str | Path) -> Results:
    """The folder of a function that only reads it.

    Raises:
        ConfigError: if there is none.
    """
    if not Path(folder).is_dir():
        raise ConfigError(f"{folder}: no such folder; name the results folder of a run")
    return Results(folder)


@dataclass(frozen=True)
class ShownTable:
    """A table that a terminal and a notebook show as they can.

    Attributes:
        table: of text, with title, columns, rows and notes; also `.markdown()`.
        csv: its figures as numbers, one line a row and column.
    """

    table: "Table"
    csv: str

    def frame(self) -> "pd.DataFrame":
        """The figures as numbers."""
        import pandas as pd

        return pd.read_csv(io.StringIO(self.csv))

    def __repr__(self) -> str:
        return self.table.plain()

    def _repr_html_(self) -> str:
        import pandas as pd

        title = f"<p><b>{html.escape(self.table.title)}</b></p>"
        cells = pd.DataFrame(self.table.rows, columns=self.table.columns)
        notes = "".join(f"<p>{html.escape(note)}</p>" for note in self.table.notes)
        return title + str(cells.to_html(index=False)) + notes


@dataclass(frozen=True)
class Picture:
    """A figure with its caption.

    Attributes:
        name: of its file in a folder of reports, without the suffix.
        figure: as reports draw it.
    """

    name: str
    figure: "Figure"

    @property
    def caption(self) -> str:
        """What is seen, in sentences."""
        return self.figure.caption

    def save(self, path: str) -> None:
        """Write it, as png, svg or pdf by the name's suffix."""
        from peftbench.reports.plotting.style import FORMATS
        from peftbench.system.io import write_whole

        kind = Path(path).suffix.removeprefix(".")
        one_of("the suffix of a figure", kind, FORMATS)
        write_whole(Path(path), self.figure.file(kind))

    def _repr_png_(self) -> bytes:
        return self.figure.file("png")

    def __repr__(self) -> str:
        return f"Picture({self.name!r}): {self.caption}"
