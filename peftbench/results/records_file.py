"""The records of a folder as one file for other programs: a row a record, a column a scalar."""

from collections.abc import Collection
from pathlib import Path

from peftbench.core.errors import ConfigError, no_records
from peftbench.core.text import did_you_mean
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder
from peftbench.system import io

#: Suffixes of the files that can be written.
SUFFIXES = (".csv", ".parquet")


def write_records(
    results: ResultsFolder, output: Path, keys: Collection[str] | None = None
) -> tuple[int, dict[str, str]]:
    """Write all columns of `load_frame`, the whole file or nothing.

    Parquet keeps the types (text is categorical, whole numbers may be missing), CSV has text.

    Args:
        results: the folder.
        output: the file.
        keys: of the records to write; None is all.

    Returns:
        How many records were written, and why others are left out, by key.

    Raises:
        ConfigError: for another suffix, a folder without readable records, or a file that cannot
            be written.
    """
    if output.suffix not in SUFFIXES:
        raise ConfigError(f"--output {output}: {did_you_mean(output.suffix, SUFFIXES)}")
    records = load_frame(results)
    if not len(records):
        raise no_records(results.folder, records.unreadable)
    frame = records.read()
    if keys is not None:
        frame = frame[frame["key"].isin(list(keys))]
    body = (
        frame.to_parquet(index=False)
        if output.suffix == ".parquet"
        else frame.to_csv(index=False, lineterminator="\n").encode()
    )
    try:
        io.write_whole(output, body)
    except OSError as error:
        raise ConfigError(f"--output {output}: {error.strerror}; give another place") from error
    return len(frame), records.unreadable
