"""All records as one file, with the values and types that they have."""

import pandas as pd
import pytest
import records

from peftbench.core.errors import ConfigError
from peftbench.results.records_file import write_records
from peftbench.results.store import ResultsFolder


@pytest.fixture
def results(tmp_path):
    """Four records and one that is torn."""
    folder = ResultsFolder(tmp_path / "runs")
    runs = records.runs("method=lora,bitfit", "seed=0,1")
    for run in runs:
        folder.save(records.record(run, 0.5 + run.seed / 10), records.predictions())
    other = records.runs("method=full")[0]
    (folder.folder / "records" / f"{other.key}.json").write_text("{")
    return folder


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_what_is_written_is_what_the_records_hold(results, tmp_path, suffix):
    path = tmp_path / f"runs.{suffix}"
    count, left_out = write_records(results, path)
    frame = (pd.read_csv if suffix == "csv" else pd.read_parquet)(path)
    assert (count, len(frame), len(left_out)) == (4, 4, 1)
    means = frame.groupby("run.method.name", observed=True)["score"].mean()
    assert means.to_dict() == {"lora": pytest.approx(0.55), "bitfit": pytest.approx(0.55)}
    assert sorted(frame["run.seed"]) == [0, 0, 1, 1]
    assert set(frame["key"]) == set(results.keys()) - set(left_out)


def test_what_cannot_be_written_is_refused(results, tmp_path):
    with pytest.raises(ConfigError, match=r"runs\.xls: .*\.csv, \.parquet"):
        write_records(results, tmp_path / "runs.xls")
    with pytest.raises(ConfigError, match="none holds no records; `peftbench run` makes them"):
        write_records(ResultsFolder(tmp_path / "none"), tmp_path / "runs.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="give another place"):
        write_records(results, tmp_path / "file" / "runs.csv")
