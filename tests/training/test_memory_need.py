"""The memory of a run, by parts that can be counted by hand from published sizes."""

import numpy as np
import pytest
import tiny
import torch
from full_size import trained

from peftbench.data import batching
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.training.memory_need import MemoryNeed, memory_need

#: Touvron et al. 2023 (arXiv 2307.09288); 6,738,415,616 parameters with the language model's head.
LLAMA = (
    "model=tiny",
    "model.family=llama",
    "model.shape={hidden_size:4096,num_hidden_layers:32,num_attention_heads:32,"
    "num_key_value_heads:32,intermediate_size:11008,vocab_size:32000}",
)


def need(*words, low=True):
    run = tiny.one_run(*words)
    return memory_need(run, pretrained.skeleton_config(run.model), low)


def test_roberta_large_trained_in_full():
    """355 M parameters, each of them shared and as the run's own copy."""
    found = need("model=roberta_large", "method=full", "train.batch_size=16")
    count, head = 355_361_794, 1024 * 1024 + 1024 + 2 * 1024 + 2
    assert found.parameters == found.trained == count
    assert found.gradients == 4 * count
    assert found.optimizer == 8 * count
    linear = 24 * (4 * (1024**2 + 1024) + 2 * 1024 * 4096 + 4096 + 1024) + head
    assert found.weights == 4 * (count + count) + 2 * linear
    block = 128 * 16 * 1024 * (34 + 5 * 16 * 128 / 1024)  # Korthikanti et al., equation 2
    assert found.activations == 24 * block
    assert found.total == 20 * count + 2 * linear + 24 * block
    assert found.smallest_gpu() == 12


def test_only_what_trains_has_gradients():
    words = ("model=roberta_base", "method.rank=8", "method.target_modules=[query,value]")
    found = need(*words, "method=lora")
    assert found.trained == trained("roberta_base", "lora", *words[1:]) + 768**2 + 768 + 2 * 768 + 2
    assert found.optimizer == 2 * found.gradients == 8 * found.trained
    assert need(*words, "method=lora", low=False).activations == 2 * found.activations
    half = need(*words, "method=lora", "train.micro_batch_size=8", "train.batch_size=16")
    whole = need(*words, "method=lora", "train.batch_size=16")
    assert half.activations == whole.activations / 2
    assert half.weights == whole.weights


@pytest.mark.parametrize("low", [True, False])
def test_gradient_checkpointing_keeps_the_input_of_each_block(low):
    words = ("model=roberta_large", "method=lora", "train.batch_size=16")
    kept = need(*words, low=low)
    again = need(*words, "train.gradient_checkpointing=true", low=low)
    assert again.activations == 24 * 128 * 16 * 1024 * 4 + kept.activations / 24
    assert again.weights == kept.weights


def test_seven_billion():
    """6.74 B with the head of 32,000 words, for which a classifier has two outputs."""
    lora = need(*LLAMA, "method=lora", "train.batch_size=4")
    full = need(*LLAMA, "method=full", "train.batch_size=4")
    assert full.parameters == 6_738_415_616 - 32_000 * 4096 + 2 * 4096
    block = 128 * 4 * (18 * 4096 + 8 * 11008 + 5 * 32 * 128)  # silu(gate) * up keeps four tensors
    assert lora.activations == full.activations == 32 * block == 32 * 512 * 182_272
    assert lora.smallest_gpu() == 48
    assert full.smallest_gpu() == 180
    assert full.total > 20 * full.parameters


def test_written_texts_have_log_probabilities_and_two_gradients():
    words = ("task=socialqa", "train.batch_size=16", "train.max_length=256", "method=lora")
    found = need(*words, "model.family=llama")
    more = need(*words, "model.family=llama", "model.shape={vocab_size:1264}")
    assert more.activations - found.activations == 12 * 16 * 60 * 1000


def kept_for_backward(family, inner):
    """Bytes that the backward pass keeps in fp32 beside parameters, and the tokens of the batch."""
    setting = {"gpt2": "n_inner", "distilbert": "hidden_dim"}.get(family, "intermediate_size")
    run = tiny.one_run(
        f"model.family={family}", f"model.shape={{{setting}:{inner}}}", "method=full"
    )
    model = AdaptedModel(Backbone(run.model), 2, seed=0)
    build_method(run.method).insert(model)
    parameters = {p.untyped_storage().data_ptr() for p in model.module.parameters()}
    kept = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = tensor, storage.nbytes()  # held, so that none is reused
        return tensor

    batch = batching.collate(tiny.tokens(), np.arange(8), 0, run.model.family_config.mask)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.train()(batch)
    return sum(count for _, count in kept.values()), batch["input_ids"].numel()


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_as_many_inner_tensors_are_kept_as_the_family_says(family):
    (narrow, tokens), (wide, _) = kept_for_backward(family, 64), kept_for_backward(family, 128)
    family_config = tiny.one_run(f"model.family={family}").model.family_config
    assert wide - narrow == 2 * tokens * 64 * 4 * family_config.inner_tensors  # two blocks


@pytest.mark.parametrize(("gib", "gpu"), [(7, 8), (7.3, 12), (72, 80), (150, 180), (300, None)])
def test_the_smallest_gpu(gib, gpu):
    assert MemoryNeed(1, 1, int(gib * 2**30), 0, 0, 0).smallest_gpu() == gpu


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_every_family_is_counted(family):
    """Whatever its config calls width, heads and blocks."""
    found = need(f"model.family={family}", "method=head")
    assert 0 < found.trained < found.parameters
    assert found.weights >= 4 * found.parameters
    assert found.activations > 0
    assert need(f"model.family={family}", "method=full").trained == found.parameters
