"""What the environment says of the hub, read before huggingface_hub is imported."""

import runpy
import sys

import pytest
from huggingface_hub import constants

from peftbench.system import hub


@pytest.mark.parametrize(
    ("given", "offline", "cache"),
    [
        ({}, False, "home/.cache/huggingface/hub"),
        ({"HF_HUB_OFFLINE": "1"}, True, "home/.cache/huggingface/hub"),
        ({"TRANSFORMERS_OFFLINE": "yes", "HF_HOME": "~/hf"}, True, "home/hf/hub"),
        ({"HF_HUB_OFFLINE": "", "TRANSFORMERS_OFFLINE": "1"}, True, "home/.cache/huggingface/hub"),
        (
            {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "1"},
            False,
            "home/.cache/huggingface/hub",
        ),
        ({"HF_HUB_CACHE": "$SCRATCH/hub"}, False, "scratch/hub"),
        ({"HUGGINGFACE_HUB_CACHE": "~/hub", "HF_HOME": "$SCRATCH"}, False, "home/hub"),
        ({"XDG_CACHE_HOME": "$SCRATCH"}, False, "scratch/huggingface/hub"),
    ],
)
def test_the_environment_is_read_as_the_library_reads_it(
    given, offline, cache, monkeypatch, tmp_path
):
    for name in (
        *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "XDG_CACHE_HOME"),
        *("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"),
    ):
        monkeypatch.delenv(name, raising=False)
    there = {"HOME": str(tmp_path / "home"), "SCRATCH": str(tmp_path / "scratch")}
    for name, value in (there | given).items():
        monkeypatch.setenv(name, value)
    read = runpy.run_path(constants.__file__)
    monkeypatch.delitem(sys.modules, "huggingface_hub.constants")
    assert hub.offline() == read["HF_HUB_OFFLINE"] == offline
    assert str(hub.cache()) == read["HF_HUB_CACHE"] == str(tmp_path / cache)
