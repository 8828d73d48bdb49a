"""The last thing before training: what makes a model faster and smaller, and changes nothing."""

import torch
from torch import Tensor, nn

from peftbench.models import cpu_kernels, mapped_linear
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.gradient_checkpointing import recompute_blocks
from peftbench.models.heads import is_cast
from peftbench.models.module_ops import first_position
from peftbench.models.sparse_embedding import SparseEmbedding


def prepare_for_training(
    model: AdaptedModel,
    autocast: torch.dtype | None,
    token_ids: Tensor,
    gradient_checkpointing: bool = False,
) -> None:
    """Make ready to train, once all is inserted and prepared; what is computed stays the same.

    The last block goes on with the first position alone where a head reads no other, word
    embeddings that train are reduced to the words that occur (not those that a head is tied to, as
    all of these have gradients), linears are ready to be mapped over
    runs, and a CPU gets its own dropout.

    Args:
        model: with all that its method inserts.
        autocast: what autocast computes in: frozen linear weights are stored in it, or they would
            be cast at each pass. None is no autocast.
        token_ids: those that occur in training.
        gradient_checkpointing: whether blocks compute their activations again.
    """
    backbone = model.backbone
    embedding = model.module.get_input_embeddings()
    head = model.module.get_output_embeddings()
    tied = head is not None and head.weight is getattr(
        embedding, "weight", None
    )  # then all words have gradients
    if isinstance(embedding, nn.Embedding) and embedding.weight.requires_grad and not tied:
        rest = backbone.module.get_input_embeddings().weight
        if not torch.equal(rest.float(), embedding.weight):  # it goes on from an earlier training
            rest = embedding.weight
        model.module.set_input_embeddings(SparseEmbedding(embedding, rest, token_ids))
    if backbone.verbalizer_ids is None and (path := backbone.family_config.first):
        model.blocks[-1].get_submodule(path).register_forward_hook(first_position)
    if gradient_checkpointing:
        recompute_blocks(model)
    mapped_linear.let_map(model.module)
    if model.device.type == "cpu":
        cpu_kernels.hasten(model.module)
    for module in model.module.modules():
        if autocast is not None and not model.exact and is_cast(module):
            for name, p in module.named_parameters(recurse=False):
                if backbone.owns(p):
                    setattr(module, name, backbone.cast(p, autocast))
