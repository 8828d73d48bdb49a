"""Checkpoints with pytorch_model.bin alone: refused with a command, converted once by it, used."""

import shlex

import checkpoints as made
import huggingface_hub
import pytest
import torch
from click.testing import CliRunner
from hub_server import COMMIT, Hub
from safetensors.torch import load_file, save_file

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.models.backbone import Backbone
from peftbench.system import hub, io, offline_folder, pickled


@pytest.fixture(autouse=True)
def _refusing(monkeypatch, cache_folder):
    monkeypatch.setattr(pickled, "_allowed", False)  # what the verb sets ends with the test


def pickle_only(folder, content=None):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(tensors if content is None else content, folder / "pytorch_model.bin")
    return tensors


def ask(*words):
    done = CliRunner().invoke(main, words)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def told_command(output):
    return shlex.split(output.replace("\n", " ").partition("once: peftbench ")[2])


def test_a_folder_is_refused_then_converted_once_and_used(tmp_path, cache_folder):
    folder = made.checkpoint(tmp_path / "my model", whole=True)
    words = made.words_of(folder)
    (before,) = plan(*words).runs
    tensors = pickle_only(folder)
    refused = ask("plan", *words)
    assert refused.exit_code == 2
    assert "pytorch_model.bin alone, a pickle, which can run code" in refused.output
    assert ask("run", *words, "--results", str(tmp_path / "runs")).exit_code == 2
    assert not (cache_folder / "converted").exists()
    done = ask(*told_command(refused.output))
    assert done.exit_code == 0, done.output
    [place] = [path for path in (cache_folder / "converted").iterdir() if path.is_dir()]
    source = io.unsealed(place / pickled.SOURCE)
    assert source == {
        "sha256_of": {"pytorch_model.bin": io.hash_files((folder / "pytorch_model.bin",))}
    }
    (run,) = plan(*words).runs
    assert run.key == before.key, "the same weights, however they came"
    found = Backbone(run.model).module.state_dict()
    for name in ("bert.embeddings.word_embeddings.weight", "bert.pooler.dense.bias"):
        assert torch.equal(found[name], tensors[name])
    written = place.stat().st_mtime_ns
    ask(*told_command(refused.output))
    assert place.stat().st_mtime_ns == written
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, folder / "pytorch_model.bin")
    with pytest.raises(ConfigError, match="convert it to safetensors once"):
        plan(*words)


def test_an_adapter_that_was_left_beside_a_pickle_is_not_the_model(tmp_path):
    folder = made.checkpoint(tmp_path / "model", whole=True)
    pickle_only(folder)
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")
    words = made.words_of(folder)
    refused = ask("plan", *words)
    assert "convert it to safetensors once" in refused.output.replace("\n", " ")
    assert ask(*told_command(refused.output)).exit_code == 0
    (run,) = plan(*words).runs
    assert [path.name for path in hub.locate(run.model).glob("*.safetensors")] == [
        "model.safetensors"
    ]


@pytest.mark.slow
def test_a_pickle_that_is_more_than_tensors_is_never_loaded(tmp_path, cache_folder):
    folder = made.checkpoint(tmp_path / "model")
    pickle_only(folder, {"w": torch.ones(2), "code": made.checkpoint})
    done = ask("prefetch", *made.words_of(folder))
    assert done.exit_code == 2
    assert "no pickle of tensors alone" in done.output.replace("\n", " ")
    assert not [path for path in (cache_folder / "converted").iterdir() if path.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", [False, True], ids=["alone", "beside an adapter"])
def test_a_model_in_the_cache_of_the_hub(adapter, tmp_path, monkeypatch):
    """As transformers left it there; planned without the hub, brought to nodes as safetensors."""
    place = tmp_path / "hub/models--people--old/snapshots" / COMMIT
    made.checkpoint(place, whole=True)
    pickle_only(place)
    if adapter:
        save_file({"x": torch.zeros(1)}, place / "adapter_model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    words = [w for w in made.words_of(place) if "checkpoint" not in w]
    words += ["model.checkpoint=people/old", f"model.revision={COMMIT}"]
    refused = ask("plan", *words)
    assert refused.exit_code == 2
    assert told_command(refused.output)[1:] == [
        *("model=auto", "model.checkpoint=people/old", f"model.revision={COMMIT}"),
    ]
    brought = tmp_path / "brought"
    done = ask("prefetch", *words, "--to", str(brought))
    assert done.exit_code == 0, done.output
    (run,) = plan(*words).runs
    assert (
        hub.locate(run.model)
        == hub.at_hand(run.model)
        == pickled.place_of_hub("people/old", COMMIT)
    )
    held = {path.name for path in (brought / f"models/people--old@{COMMIT}").iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", pickled.SOURCE} <= held
    assert "pytorch_model.bin" not in held
    monkeypatch.setenv(offline_folder.VARIABLE, str(brought))
    Backbone(run.model)


LOCATE = """
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.system import hub, pickled
from contextlib import nullcontext
words = ("model=auto", "model.checkpoint=people/old", "model.revision={commit}")
try:
    with pickled.converting() if {allowed} else nullcontext():
        print(hub.locate(plan(*words, "model.family=bert").runs[0].model))
except ConfigError as error:
    print("refused:", error)
"""


@pytest.mark.slow
def test_a_model_of_the_hub_is_fetched_and_converted_once(tmp_path):
    folder = made.checkpoint(tmp_path / "models/people/old", whole=True)
    pickle_only(folder)
    served = Hub(tmp_path)
    try:

        def locate(allowed):
            return served.run(LOCATE.format(allowed=allowed, commit=COMMIT)).stdout.strip()

        refused = locate(allowed=False)
        assert refused.startswith("refused: people/old has its weights as pytorch_model.bin alone")
        assert not any("resolve" in line and ".bin" in line for line in served.asked)
        done = locate(allowed=True)
        assert done.endswith(f"converted/people--old@{COMMIT}")
        asked = len(served.asked)
        assert locate(allowed=False) == done
        assert len(served.asked) == asked, "the hub is not asked again"
    finally:
        served.close()
