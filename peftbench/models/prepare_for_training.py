"""The last thing before training: what makes an encoder faster and smaller, and changes nothing."""

import torch
from torch import Tensor, nn

from peftbench.models import cpu_kernels, mapped_linear
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.gradient_checkpointing import recompute_blocks
from peftbench.models.module_ops import first_position
from peftbench.models.sparse_embedding import SparseEmbedding


def prepare_for_training(
    encoder: AdaptedModel,
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
        encoder: with all that its method inserts.
        autocast: what autocast computes in: frozen linear weights are stored in it, or they would
            be cast at each pass. None is no autocast.
        token_ids: those that occur in training.
        gradient_checkpointing: whether blocks compute their activations again.
    """
    backbone = encoder.backbone
    embedding = encoder.module.get_input_embeddings()
    head = encoder.module.get_output_embeddings()
    tied = head is not None and head.weight is getattr(
        embedding, "weight", None
    )  # then all words have gradients
    if isinstance(embedding, nn.Embedding) and embedding.weight.requires_grad and not tied:
        rest = backbone.module.get_input_embeddings().weight
        if not torch.equal(rest.float(), embedding.weight):  # it goes on from an earlier training
            rest = embedding.weight
        encoder.module.set_input_embeddings(SparseEmbedding(embedding, rest, token_ids))
    if backbone.verbalizer_ids is None and (path := backbone.family_config.first):
        encoder.blocks[-1].get_submodule(path).register_forward_hook(first_position)
    if gradient_checkpointing:
        recompute_blocks(encoder)
    mapped_linear.let_map(encoder.module)
    if encoder.device.type == "cpu":
        cpu_kernels.hasten(encoder.module)
    for module in encoder.module.modules():
        if autocast is not None and not encoder.exact and isinstance(module, nn.Linear):
            for name, p in module.named_parameters(recurse=False):
                if backbone.owns(p):
                    setattr(module, name, backbone.cast(p, autocast))
