"""Every input that changes a score changes the key, and no cache serves what another input gave."""

import shutil

import checkpoints as made
import pytest
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import tokenization
from peftbench.data.tokenizer import load_tokenizer
from peftbench.models.backbone import Backbone


def flipped(folder):
    def change(tensors):
        tensors["pooler.dense.bias"] += 1

    made.rewrite(folder, change)


def appended(file):
    def change(folder):
        path = folder / file
        path.write_text(path.read_text() + "\n" if path.exists() else "{}")

    return change


#: Inputs of a local checkpoint, each changed by itself.
CHANGES = {
    "weights": flipped,
    **{
        f"config {name}": lambda f, n=name, v=value: made.edit(f / "config.json", **{n: v})
        for name, value in (
            ("layer_norm_eps", 1e-6),
            ("hidden_act", "relu"),
            ("attention_probs_dropout_prob", 0.3),
        )
    },
    **{
        f"tokenizer {name}": lambda f, n=name, v=value: made.edit(
            f / "tokenizer_config.json", **{n: v}
        )
        for name, value in (
            ("model_max_length", 16),
            ("truncation_side", "left"),
            ("padding_side", "left"),
            ("model_input_names", ["input_ids", "attention_mask"]),
            ("eos_token", "[SEP]"),
            ("add_prefix_space", True),
        )
    },
    **{file: appended(file) for file in ("tokenizer.json", "special_tokens_map.json")},
    **{file: appended(file) for file in ("added_tokens.json", "vocab.txt", "merges.txt")},
    "other name of a file": lambda f: (f / "vocab.txt").write_text("{}"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_input_is_in_the_key(tmp_path, change):
    folder = made.checkpoint(tmp_path / "model")
    words = made.words_of(folder)
    (before,) = plan(*words).runs
    copy = shutil.copytree(folder, tmp_path / "elsewhere" / "model")
    elsewhere = made.words_of(copy, *made.table(tmp_path))
    assert plan(*elsewhere).runs[0].key == before.key, "where a folder lies is not in it"
    (folder / "README.md").write_text("prose")
    assert plan(*words).runs[0].key == before.key
    CHANGES[change](folder)
    after = plan(*words).runs[0]
    assert after.key != before.key
    with pytest.raises(ConfigError, match="give the same command again"):
        Backbone(before.model)  # planned before the change


def test_files_are_told_apart_by_their_names(tmp_path):
    """The same bytes in another file are another tokenizer."""
    folder = made.checkpoint(tmp_path / "model")
    keys = set()
    for file in ("vocab.txt", "merges.txt", "added_tokens.json"):
        (folder / file).write_text("{}")
        keys.add(plan(*made.words_of(folder)).runs[0].key)
        (folder / file).unlink()
    assert len(keys) == 3


#: Settings of a tokenizer that change tokens, or could.
SETTINGS = {
    "model_max_length": 9,
    "truncation_side": "left",
    "padding_side": "left",
    "model_input_names": ["input_ids", "attention_mask"],
    "sep_token": None,
    "eos_token": "[SEP]",
    "add_prefix_space": True,
    "clean_up_tokenization_spaces": True,
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_tokens_of_other_settings_are_not_taken_from_the_cache(tmp_path, cache_folder, setting):
    folder = made.checkpoint(tmp_path / "model")
    texts = long_texts(tmp_path)
    words = made.words_of(folder, *texts)

    def tokens():
        (run,) = plan(*words).runs
        return tokenization.tokenize_split(
            run.task, "train", load_tokenizer(run.model), run.train.max_length, None
        )

    def kept():
        return len(list(tokenization.cache_folder().glob("*.tokens")))

    tokens()
    tokens()
    assert kept() == 1
    made.edit(folder / "tokenizer_config.json", **{setting: SETTINGS[setting]})
    found = tokens()
    assert kept() == 2
    if setting == "model_max_length":
        assert found.lengths.max() == 9
    moved = folder.rename(tmp_path / "moved")
    words = made.words_of(moved, *texts)
    tokens()
    assert kept() == 2, "where a folder lies is no setting"


def test_cut_from_the_other_side(tmp_path, cache_folder):
    """A left cut keeps the ends of texts; the cache does not serve the beginnings."""
    folder = made.checkpoint(tmp_path / "model")
    sides = {}
    for side in ("right", "left"):
        made.edit(folder / "tokenizer_config.json", truncation_side=side, model_max_length=8)
        (run,) = plan(*made.words_of(folder, *long_texts(tmp_path))).runs
        found = tokenization.tokenize_split(run.task, "train", load_tokenizer(run.model), 8, None)
        sides[side] = found.ids[:8].tolist()
    assert sides["right"][1] == 5 + made.WORDS.index("the")
    assert sides["left"][-2] >= 5 + len(made.WORDS)


def long_texts(folder):
    path = folder / "long.csv"
    rows = [f"the {'very ' * 9}w{n % 20},{n % 2}" for n in range(20)]
    path.write_text("sentence,label\n" + "\n".join(rows) + "\n")
    return ("task=file", f"task.path='{path}'")


def test_weights_are_read_as_they_are_now(tmp_path):
    """One process that plans again after a change sees the new weights."""
    folder = made.checkpoint(tmp_path / "model")
    before = Backbone(plan(*made.words_of(folder)).runs[0].model)
    flipped(folder)
    after = Backbone(plan(*made.words_of(folder)).runs[0].model)
    bias = [b.module.bert.pooler.dense.bias for b in (before, after)]
    torch.testing.assert_close(bias[1], bias[0] + 1)
