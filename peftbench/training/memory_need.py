"""The memory that training a run needs on one GPU, from the config alone: no weights are read.

In bytes, for N parameters of the model, of which T train (a method's own included), C of them as
copies of the run's own, and L stand in linear layers:

- weights: 4 N, the frozen fp32 weights that all runs of a worker share; 4 C, what the run has
  beside them (a method's modules, its copies of weights that train, the head); 2 L in bf16 and
  fp16, the copies that are multiplied. With model.dtype=bf16 the matrices of frozen linears and the
  word embeddings have 2 bytes, and these linears no copy.
- gradients: 4 T.
- optimizer: 8 T, the two moments of AdamW in fp32.
- activations, as by Korthikanti et al. 2022 (arXiv 2205.05198, equation 2) without recomputation:
  for each of the blocks s b (18 h + 2 k i) + 5 a s² b, which is their s b h (34 + 5 a s / h) with
  i = 4 h and k = 2; twice that in fp32. s is `train.max_length`, b the micro batch, h the width, a
  the heads, i the inner width, k the family's `inner_tensors`: 2 are the inputs of the activation
  and of the last linear; 4 where a gate is multiplied in. With gradient checkpointing those of one
  block, and 4 s b h for each as its input: sums are fp32. Where texts are written, 12 b t v more:
  the log probabilities of t wanted tokens over a vocabulary of v, and two gradients of that size.

It is an estimate for the longest inputs and a method that needs every activation. Under autocast
norms keep their inputs in fp32, which is not counted, and a fused attention does not keep its
scores, which are. The libraries' own half a gigabyte or so is not in it. Predictions are: where a
batch of them needs more than what training leaves, it is halved, down to one example.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PretrainedConfig

from peftbench.core.configs import WORDS, ModelConfig
from peftbench.core.run import Run
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.system import hub

#: Gibibytes of GPUs that are sold, of which a bit less is free.
GPU_SIZES = (8, 12, 16, 24, 32, 40, 48, 80, 96, 141, 180, 288)

#: Of a GPU's memory, the part that tensors may fill.
USABLE = 0.9


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes by part, and the parameters that they are for.

    Attributes:
        parameters: of the model and of what the method adds.
        trained: of these.
        weights, gradients, optimizer, activations: bytes.
    """

    parameters: int
    trained: int
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations

    def smallest_gpu(self) -> int | None:
        """The gibibytes of the smallest GPU that is large enough; None if no single one is."""
        return next((size for size in GPU_SIZES if self.total <= USABLE * size * 2**30), None)


def config_at_hand(model: ModelConfig) -> PretrainedConfig | None:
    """The config of a model: its checkpoint's, else that of its option; None if there is neither.

    Raises:
        ConfigError: if the checkpoint's cannot be read.
    """
    folder = hub.at_hand(model) if model.checkpoint is not None else None
    if folder is None and model.checkpoint is not None:
        folder = hub.cached(model.checkpoint, model.revision)
    if folder is not None and (folder / "config.json").is_file():
        return pretrained.load_config(model, folder)
    return pretrained.skeleton_config(model) if model.shape else None


def memory_need(run: Run, config: PretrainedConfig, low_precision: bool) -> MemoryNeed:
    """The memory of a run.

    Args:
        run: any.
        config: of its model.
        low_precision: whether it multiplies in 16 bits.

    Raises:
        ValueError: if the method cannot be inserted into the model.
    """
    words = _words(run)
    bare = pretrained.skeleton(run.model, "meta", language=words is not None, config=config)
    backbone = Backbone(run.model, "meta", bare, words)
    with torch.device("meta"):
        model = AdaptedModel(backbone, run.task.classes, seed=0)
        build_method(run.method).insert(model)
    every = list(model.module.parameters())
    trained = sum(p.numel() for p in every if p.requires_grad)
    own = sum(p.numel() for p in every if not backbone.owns(p))
    linear = {
        id(p): p.numel() if p.dtype == torch.float32 else 0
        for module in model.module.modules()
        if isinstance(module, nn.Linear)
        for p in module.parameters(recurse=False)
    }
    shared = sum(p.nbytes for p in backbone.module.parameters())
    copies = 2 * sum(linear.values()) if low_precision else 0
    return MemoryNeed(
        parameters=sum(p.numel() for p in every),
        trained=trained,
        weights=shared + 4 * own + copies,
        gradients=4 * trained,
        optimizer=8 * trained,
        activations=_activations(run, config, 1 if low_precision else 2) + _scores(run, config),
    )


def _words(run: Run) -> list[int] | None:
    """As many tokens as a language model scores, see `Backbone`."""
    if run.task.generation:
        return []
    worded = run.prompt is not None and run.prompt.name == WORDS
    return list(range(run.task.classes)) if worded else None


def _scores(run: Run, config: PretrainedConfig) -> int:
    """Bytes of log probabilities over the vocabulary where texts are written, and two gradients."""
    if not run.task.generation:
        return 0
    wanted = min(run.task.new_tokens, run.train.max_length)
    batch = run.train.micro_batch_size or run.train.batch_size
    return 12 * batch * wanted * int(config.vocab_size)


def _activations(run: Run, config: PretrainedConfig, factor: int) -> int:
    """Bytes, where all that has 16 bits has so many times as many."""
    length = run.train.max_length
    batch = run.train.micro_batch_size or run.train.batch_size
    width, heads = config.hidden_size, config.num_attention_heads
    inner = getattr(config, "intermediate_size", None) or 4 * width
    kept = 18 * width + 2 * run.model.family_config.inner_tensors * inner
    block = factor * batch * (length * kept + 5 * heads * length**2)
    if run.train.gradient_checkpointing:
        return int(config.num_hidden_layers * 4 * length * batch * width + block)
    return int(config.num_hidden_layers * block)
