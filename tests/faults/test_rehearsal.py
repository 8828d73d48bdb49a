"""The rehearsal before the first training, and the share of rows that is held out."""

from dataclasses import replace

import checkpoints as made
import pytest
import tiny

from peftbench.config.sweep import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run


@pytest.mark.parametrize("share", ["1", "0", "-0.2", "1.5", "100", "0.0", "null"])
def test_share_of_rows_to_hold_out(tmp_path, share):
    with pytest.raises(ConfigError, match="must be greater than 0 and less than 1"):
        plan("model=tiny", *made.table(tmp_path), f"task.validation_fraction={share}")
    plan("model=tiny", *made.table(tmp_path), "task.validation_fraction=0.5")


@pytest.mark.parametrize("prompt", ["head", "demonstrations"])
@pytest.mark.parametrize("method", tiny.METHODS)
def test_every_method_passes_its_rehearsal(tmp_path, cache_folder, method, prompt):
    words = [f"method={method}", *made.table(tmp_path), "train.max_length=32"]
    if prompt != "head":
        words += ["prompt=demonstrations", "prompt.verbalizer=[good,bad]"]
        words += ["prompt.masked='{0} it was {answer}'"]
    (run,) = plan("model=tiny", *words).runs
    dry_run.rehearse(run, None)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_causal_checkpoint_without_a_pad_token_of_its_own(tmp_path, cache_folder, family):
    """As on the hub: config.json does not say pad_token_id, the tokenizer pads all the same."""
    from peftbench.models import pretrained

    folder = tmp_path / "own"
    model = tiny.one_run(f"model.family={family}").model
    pretrained.skeleton(model).save_pretrained(folder)
    load_tokenizer(model).save_pretrained(folder)
    made.edit(folder / "config.json", pad_token_id=None)
    words = ["model=auto", f"model.checkpoint='{folder}'", *made.table(tmp_path)]
    (run,) = plan(*words, "method=head", "train.max_length=32").runs
    dry_run.rehearse(run, None)


def test_hooks_of_a_users_own_method_wait_for_its_training(tmp_path, cache_folder, monkeypatch):
    """They may write, wait or leave, by which other runs would suffer."""
    monkeypatch.setenv("ZOO", str(tmp_path))
    (run,) = plan("model=tiny", "method=head", *made.table(tmp_path), "train.max_length=32").runs
    dry_run.rehearse(replace(run, method=MethodConfig(name="steady", target="zoo.Steady")), None)
    assert not (tmp_path / "journal").exists()
