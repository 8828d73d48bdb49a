"""pytorch_model.bin to safetensors: the same tensors, nothing but tensors, nothing is run."""

import json
import os

import pytest
import torch
from safetensors.torch import load_file

from peftbench.core.errors import ConfigError
from peftbench.models import pickle_conversion
from peftbench.models.safetensors_headers import read_headers


def weights():
    torch.manual_seed(0)
    table = torch.randn(6, 4)
    return {
        "table": table,
        "tied": table,
        "row": table[2],
        "turned": torch.randn(3, 5).T,
        "half": torch.randn(7).half(),
        "ids": torch.arange(4),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "of torch 1.5"])
def test_every_name_keeps_its_tensor(tmp_path, zipped):
    torch.save(weights(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    pickle_conversion.convert(tmp_path, tmp_path)
    found = load_file(tmp_path / "model.safetensors")
    assert found.keys() == weights().keys()
    for name, tensor in weights().items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def shards(folder):
    given = weights()
    files = {f"pytorch_model-0000{n}-of-00002.bin": n for n in (1, 2)}
    where = {name: f"pytorch_model-0000{1 + i % 2}-of-00002.bin" for i, name in enumerate(given)}
    for file in files:
        torch.save({n: given[n] for n in given if where[n] == file}, folder / file)
    (folder / pickle_conversion.PICKLE_INDEX).write_text(json.dumps({"weight_map": where}))


def test_shards_stay_shards(tmp_path):
    shards(tmp_path)
    pickle_conversion.convert(tmp_path, tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert {name: t.shape for name, t in read_headers(tmp_path).items()} == {
        name: tuple(tensor.shape) for name, tensor in weights().items()
    }
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * (24 + 24 + 4 + 15) + 2 * 7 + 8 * 4


class Evil:
    """A pickle that runs a command when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch evil",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"w": torch.ones(2), "more": Evil()}, "no pickle of tensors alone .* never loaded"),
        ({"w": torch.ones(2), "epoch": 3}, "holds 'epoch', a int, where named tensors"),
        ([torch.ones(2)], "holds a list where"),
        ({"w": torch.eye(2).to_sparse()}, "the sparse or quantised tensor 'w'"),
    ],
)
def test_all_else_is_refused(tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "pytorch_model.bin")
    with pytest.raises(ConfigError, match=message):
        pickle_conversion.convert(tmp_path, tmp_path)
    assert os.listdir() == ["pytorch_model.bin"], "nothing ran, nothing was written"


def test_torn_and_missing_files(tmp_path):
    shards(tmp_path)
    second = tmp_path / "pytorch_model-00002-of-00002.bin"
    body = second.read_bytes()
    second.write_bytes(body[: len(body) // 2])
    with pytest.raises(ConfigError, match=r"00002.bin is torn or no file of torch.save"):
        pickle_conversion.convert(tmp_path, tmp_path)
    second.unlink()
    with pytest.raises(ConfigError, match=r"names pytorch_model-00002-of-00002.bin, which is miss"):
        pickle_conversion.convert(tmp_path, tmp_path)
    (tmp_path / pickle_conversion.PICKLE_INDEX).unlink()
    with pytest.raises(ConfigError, match=r"shards of weights and no pytorch_model.bin.index"):
        pickle_conversion.convert(tmp_path, tmp_path)
