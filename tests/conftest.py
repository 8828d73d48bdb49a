"""For all tests: no network, one thread, a cache of their own and nothing of the user's."""

import gc
import os
import sys
from pathlib import Path

import pytest

# before huggingface_hub is imported, which reads these once
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # for processes that tests start
_GLUE = os.environ.pop("PEFTBENCH_DATA", None)


#: Files that take longest, in order: where several processes share the work they start first, or
#: one would be left alone with them at the end.
FIRST = [
    f"test_{name}.py"
    for name in (
        *("slurm", "slurm_interruptions", "failures", "stops", "two_commands", "killed_packs"),
        *("faults", "methods", "cli", "significance", "folder", "packing", "trainer"),
    )
]


def pytest_configure(config):
    """One thread; torch takes seconds to import, for which all processes of `-n` would wait."""
    if hasattr(config, "workerinput") or not config.getoption("numprocesses", None):
        import torch

        torch.set_num_threads(1)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Put the longest files in front in a process of `-n`."""
    if hasattr(config, "workerinput"):
        place = {name: number for number, name in enumerate(FIRST)}
        items.sort(key=lambda item: place.get(item.path.name, len(FIRST)))


_modules = 0  # how many were loaded when the collector last learned what stays


def _spare():
    """Keep what is loaded by now out of garbage collections, of which each training makes one.

    With torch and thousands of tests in memory, one takes a third of the time of a tiny training.
    """
    global _modules
    gc.collect()
    gc.freeze()
    _modules = len(sys.modules)


def pytest_collection_finish():
    """Spare libraries and tests."""
    _spare()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item, nextitem):
    """Spare what tests have loaded since: models and reports import libraries when first used."""
    yield
    if nextitem is None or nextitem.path != item.path or len(sys.modules) > _modules + 50:
        _spare()


@pytest.fixture(scope="session", autouse=True)
def _caches(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("huggingface")))
        yield


@pytest.fixture
def cache_folder(tmp_path, monkeypatch):
    """A cache for one test alone."""
    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def glue():
    """The folder of the real GLUE data, for tests that are marked `data`."""
    root = Path(_GLUE or Path(__file__).parents[2] / "shared" / "glue")
    if not root.is_dir():
        pytest.skip("no GLUE folder: set PEFTBENCH_DATA")
    return str(root)
