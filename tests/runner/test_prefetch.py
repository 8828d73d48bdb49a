"""What `prefetch` brings again into a folder that it filled before."""

import pyarrow
import pytest
from pyarrow import parquet
from records import plan, tiny

from peftbench.runner import prefetch
from peftbench.system import offline_folder


def write(path, labels):
    """A split of MRPC, of one size whatever its labels are."""
    count = len(labels)
    columns = {
        "sentence1": [f"a text {n}" for n in range(count)],
        "sentence2": [f"another text {n % 7}" for n in range(count)],
        "label": labels,
        "idx": list(range(count)),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(pyarrow.table(columns), path, **plain)


@pytest.fixture
def fetch(tmp_path, cache_folder):
    """What brings the data of a folder, of which the lines are returned."""
    write(tmp_path / "glue" / "mrpc" / "train-0.parquet", [n % 2 for n in range(3668)])
    write(tmp_path / "glue" / "mrpc" / "validation-0.parquet", [n % 2 for n in range(408)])
    words = [*tiny("task=mrpc"), f"data.root={tmp_path / 'glue'}"]
    return lambda: list(prefetch.fetch(plan(*words), words, tmp_path / "brought"))


def test_a_corrected_label_comes_along_though_its_file_has_the_size_it_had(fetch, tmp_path):
    fetch()
    source = tmp_path / "glue" / "mrpc" / "validation-0.parquet"
    brought = tmp_path / "brought" / "data" / "nyu-mll--glue" / "mrpc" / source.name
    before, size = brought.stat().st_mtime_ns, source.stat().st_size
    fetch()
    assert brought.stat().st_mtime_ns == before, "what is the same is not copied again"
    write(source, [1, *(n % 2 for n in range(1, 408))])
    assert source.stat().st_size == size
    fetch()
    assert parquet.read_table(brought)["label"].to_pylist()[:3] == [1, 1, 0]
    assert offline_folder.wrong(tmp_path / "brought") == []


def test_a_file_that_the_data_have_no_more_would_be_read_and_is_removed(fetch, tmp_path):
    folder = tmp_path / "glue" / "mrpc"
    fetch()
    (folder / "train-0.parquet").rename(folder / "train-new.parquet")
    gone = "data/nyu-mll--glue/mrpc/train-0.parquet"
    assert f"removed, as it is in the data no more: {gone}" in fetch()
    names = offline_folder.manifest(tmp_path / "brought")["files"]
    assert gone not in names
    assert gone.replace("-0", "-new") in names
