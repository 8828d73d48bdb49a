"""Values in a checkpoint's files that are of a wrong type, and weights that are no numbers."""

import json
import re

import checkpoints as made
import pytest
import torch

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.models import finite_weights, pretrained
from peftbench.models.backbone import Backbone
from peftbench.runner.failure_causes import classify
from peftbench.runner.worker import preflight
from peftbench.training.trainer import execute

CPU = RuntimeConfig(device="cpu")

#: File, key, value; what is said of it after "FILE: KEY is VALUE; it must be".
WRONG = [
    ("config.json", "hidden_size", "abc", "a whole number, 1 or more"),
    ("config.json", "num_attention_heads", 12.5, "a whole number, 1 or more"),
    ("config.json", "num_hidden_layers", True, "a whole number, 1 or more"),
    ("config.json", "vocab_size", None, "a whole number, 1 or more"),
    ("config.json", "intermediate_size", 0, "a whole number, 1 or more"),
    ("config.json", "type_vocab_size", [2], "a whole number, 0 or more"),
    ("config.json", "id2label", ["no", "yes"], "an object"),
    ("config.json", "pad_token_id", "[PAD]", "a whole number or null"),
    ("config.json", "rope_scaling", "linear", "an object ({...}) or null"),
    ("config.json", "rope_parameters", [], "an object ({...}) or null"),
    ("config.json", "num_key_value_heads", "4", "a whole number, 1 or more, or null"),
    ("config.json", "head_dim", 0, "a whole number, 1 or more, or null"),
    ("config.json", "model_type", 5, "a text"),
    ("tokenizer_config.json", "model_max_length", "abc", "a whole number, 1 or more, or null"),
    ("tokenizer_config.json", "model_max_length", 0, "a whole number, 1 or more, or null"),
    ("tokenizer_config.json", "model_input_names", "input_ids", "a list of texts"),
    ("tokenizer_config.json", "padding_side", "up", '"left" or "right"'),
    ("tokenizer_config.json", "pad_token", 7, "a text, an object"),
    ("tokenizer_config.json", "added_tokens_decoder", {"a": "b"}, "an object from token ids"),
    ("special_tokens_map.json", "mask_token", ["[MASK]"], "a text, an object"),
]

#: The same for keys that the config class of transformers judges, in the worker.
JUDGED = [
    ("layer_norm_eps", "1e-12", "'layer_norm_eps' expected float, got str (value: '1e-12')"),
    ("hidden_act", 3, "'hidden_act' expected str, got int (value: 3)"),
    ("hidden_act", "nosuch", 'hidden_act is "nosuch"; it must be one of gelu, gelu_10, '),
    ("num_attention_heads", 3, "no BertForSequenceClassification .*not a multiple"),
    ("hidden_dropout_prob", 2, "no BertForSequenceClassification .*between 0 and 1, but got 2"),
]

#: What files of tokenizers write, beside the texts and numbers of the others.
RIGHT = [
    ("tokenizer_config.json", "model_max_length", 1e30),
    ("tokenizer_config.json", "model_max_length", None),
    ("tokenizer_config.json", "pad_token", {"__type": "AddedToken", "content": "[PAD]"}),
    ("tokenizer_config.json", "tokenizer_class", None),
    ("config.json", "id2label", None),
    ("config.json", "pad_token_id", None),
    ("config.json", "num_key_value_heads", None),
]


def put(folder, file, key, value):
    """As `checkpoints.edit`, but null is a value."""
    path = folder / file
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(content | {key: value}))


@pytest.mark.parametrize(("file", "key", "value", "allowed"), WRONG)
def test_a_value_of_a_wrong_type_is_refused_at_planning(tmp_path, file, key, value, allowed):
    folder = made.checkpoint(tmp_path / "model")
    put(folder, file, key, value)
    said = f"{folder / file}: {key} is {json.dumps(value)}; it must be {allowed}"
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(*made.words_of(folder))


@pytest.mark.parametrize(("key", "value", "said"), JUDGED)
def test_what_transformers_says_of_a_value_is_whole(tmp_path, key, value, said):
    folder = made.checkpoint(tmp_path / "model")
    put(folder, "config.json", key, value)
    (error,) = preflight(plan(*made.words_of(folder)).runs, [], CPU)["errors"]
    assert error.startswith(f"{folder / 'config.json'}: ")
    assert re.search(said if said.startswith("no ") else re.escape(said), error), error


@pytest.mark.parametrize(("file", "key", "value"), RIGHT)
def test_values_that_files_have_are_taken(tmp_path, file, key, value):
    folder = made.checkpoint(tmp_path / "model")
    put(folder, file, key, value)
    assert preflight(plan(*made.words_of(folder)).runs, [], CPU)["errors"] == []


@pytest.mark.parametrize("number", ["5", None, 5.5])
def test_an_id_that_is_no_number(tmp_path, number):
    folder = made.checkpoint(tmp_path / "model")
    (folder / "added_tokens.json").write_text(json.dumps({"[NEW]": number}))
    said = f"the id of '[NEW]' is {json.dumps(number)}; it must be a whole number"
    with pytest.raises(ConfigError, match=re.escape(said)):
        plan(*made.words_of(folder))


def everywhere(tensors):
    for tensor in tensors.values():
        tensor.fill_(float("nan"))


def in_a_row(tensors):
    tensors["embeddings.word_embeddings.weight"][7] = float("inf")


def one_bias(tensors):
    tensors["encoder.layer.1.output.dense.bias"][0] = float("-inf")


NOT_FINITE = {
    "all": (everywhere, r"1536 of 1536 values of bert\.embeddings\.word_embeddings\.weight .* 39 "),
    "row": (in_a_row, r"32 of 1536 values of bert\.embeddings\.word_embeddings\.weight .* in 1 of"),
    "one": (one_bias, r"1 of 32 values of bert\.encoder\.layer\.1\.output\.dense\.bias .* in 1 of"),
}


@pytest.mark.parametrize("fault", NOT_FINITE)
def test_weights_that_are_not_finite_are_refused_before_the_first_step(tmp_path, fault):
    """Their headers are right, so that only loading them shows it."""
    spoil, said = NOT_FINITE[fault]
    folder = made.checkpoint(tmp_path / "model")
    made.rewrite(folder, spoil)
    (run,) = plan(*made.words_of(folder)).runs
    with pytest.raises(ConfigError, match=said) as told:
        execute(run, CPU)
    assert classify(told.value) == "data"


def test_bits_that_overflow_in_fp32_are_refused(tmp_path):
    folder = made.checkpoint(tmp_path / "model")

    def widen(tensors):
        large = tensors["pooler.dense.weight"].double()
        large[0, 0] = 1e300
        tensors["pooler.dense.weight"] = large

    made.rewrite(folder, widen)
    (run,) = plan(*made.words_of(folder)).runs
    with pytest.raises(ConfigError, match=r"1 of 1024 values of bert\.pooler\.dense\.weight"):
        pretrained.backbone(run.model)


def test_a_head_that_is_replaced_may_be_anything(tmp_path):
    folder = made.checkpoint(tmp_path / "model", whole=True)
    made.rewrite(folder, lambda tensors: tensors | {"classifier.bias": torch.full((2,), torch.nan)})
    (run,) = plan(*made.words_of(folder)).runs
    assert execute(run, CPU).record.work["steps"] == 2


def test_weights_are_looked_at_once_for_a_backbone(tmp_path, monkeypatch):
    folder = made.checkpoint(tmp_path / "model")
    (run,) = plan(*made.words_of(folder)).runs
    looked = []
    real = finite_weights.torch.aminmax
    monkeypatch.setattr(
        finite_weights.torch, "aminmax", lambda tensor: looked.append(tensor) or real(tensor)
    )
    module = Backbone(run.model).module
    assert len(looked) == sum(
        1 for name, _ in module.named_parameters() if "classifier" not in name
    )
    own = {parameter.data_ptr() for parameter in module.parameters()}
    assert {tensor.data_ptr() for tensor in looked} <= own  # no copies


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_every_precision_is_looked_at(dtype, value):
    module = torch.nn.Linear(3, 4).to(dtype)
    finite_weights.refuse_not_finite("m", module, [])
    module.weight.data[2, 1] = float(value)
    with pytest.raises(ConfigError, match="m: 1 of 12 values of weight"):
        finite_weights.refuse_not_finite("m", module, [])
    finite_weights.refuse_not_finite("m", torch.nn.Sequential(module), ["0"])


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("distilbert", "activation"),
        ("gpt2", "activation_function"),
        ("modernbert", "hidden_activation"),
        ("modernbert", "classifier_activation"),
        ("deberta_v2", "pooler_hidden_act"),
        ("llama", "hidden_act"),
    ],
)
def test_an_activation_that_is_none_is_named_with_those_there_are(tmp_path, family, key):
    folder = made.checkpoint(tmp_path / "model", family)
    put(folder, "config.json", key, "GELU")
    (error,) = preflight(plan(*made.words_of(folder)).runs, [], CPU)["errors"]
    assert f'config.json: {key} is "GELU"; it must be one of gelu, ' in error
    assert ", relu, " in error


@pytest.mark.parametrize(
    ("start", "first", "more"),
    [
        ("", "embeddings.word_embeddings.weight", " and of 19 more tensors"),
        ("encoder.layer.1.", "encoder.layer.1.attention.self.query.weight", " and of 7 more ten"),
        ("encoder.layer.0.output.LayerNorm.weight", "encoder.layer.0.output.LayerNorm.weight", ""),
    ],
)
def test_weights_of_zeros_are_refused(tmp_path, start, first, more):
    """As in a file whose space was reserved, and of which a part never came."""
    folder = made.checkpoint(tmp_path / "model")

    def clear(tensors):
        for name, tensor in tensors.items():
            if name.startswith(start):
                tensor.zero_()

    made.rewrite(folder, clear)
    (run,) = plan(*made.words_of(folder)).runs
    with pytest.raises(ConfigError, match=rf"all values of bert\.{first}{more}.* are 0, as in a"):
        pretrained.backbone(run.model)


def test_a_table_of_one_segment_may_be_zeros(tmp_path):
    """As RoBERTa's was written."""
    folder = made.checkpoint(tmp_path / "model", "roberta")
    made.rewrite(folder, lambda ts: [t.zero_() for n, t in ts.items() if "token_type" in n] and ts)
    (run,) = plan(*made.words_of(folder)).runs
    pretrained.backbone(run.model)
