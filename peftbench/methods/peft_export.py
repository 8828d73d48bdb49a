"""Trained weights in the form in which the peft library keeps an adapter."""

import inspect

from torch import Tensor

from peftbench.core.run import Json
from peftbench.methods.base import PEFT_PREFIX, Method
from peftbench.models.adapted_model import AdaptedModel


def peft_form(method: Method, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
    """The library's config and tensors, head included, and behind a prefix the position table.

    Raises:
        ValueError: if the library has no such thing.
    """
    backbone = model.backbone
    if backbone.family_config.split:
        raise ValueError(
            f"{model.name} has query, key and value in one linear outside of peftbench, where "
            "the library cannot tell them apart"
        )
    if model.added_bias is not None:
        raise ValueError(
            f"{model.name} has a head without a bias outside of peftbench, where a regression "
            "would lose the mean of its labels"
        )
    config, tensors = method.to_peft(model)
    prompt = config["peft_type"] == "PREFIX_TUNING"
    start = "base_model." if prompt else PEFT_PREFIX
    saved = list(backbone.head)
    state = model.state()
    tensors |= {start + name: t for name, t in state.items() if model.in_head(name)}
    if prompt:
        name, places = position_table(model)
        _check_takes_prefix(model)
        tensors[start + name] = places.roll(config["num_virtual_tokens"], 0)
        saved.append(name.removesuffix(".weight"))  # beside the model's own, which stays as it is
    kind: str | None = "SEQ_CLS"
    if backbone.verbalizer_ids is not None:  # the library has no name for a masked language model
        kind = "CAUSAL_LM" if backbone.causal else None
    config |= {"task_type": kind, "modules_to_save": saved or None, "inference_mode": True}
    return config, {name: tensor.contiguous() for name, tensor in tensors.items()}


def _check_takes_prefix(model: AdaptedModel) -> None:
    """Refuse a model to which the library cannot give keys and values, as it does when it runs.

    Raises:
        ValueError: if transformers' forward of the model has no argument for them.
    """
    forward = model.module.base_model.forward
    if "past_key_values" not in inspect.signature(forward).parameters:
        raise ValueError(
            f"{model.name} takes no keys and values from outside in transformers, so that the "
            "library cannot put a prefix in front; choose another method to export"
        )


def position_table(model: AdaptedModel) -> tuple[str, Tensor]:
    """The name and the values of a backbone's embeddings of positions.

    Behind a prefix of n keys the library counts positions from n on; here they are as they were in
    pretraining. A table moved on by n, which the library loads by its name, makes up for it.

    Raises:
        ValueError: if positions are not learned, one by one.
    """
    for name, table in model.module.named_parameters():
        if name.endswith("position_embeddings.weight"):
            return name, table.detach()
    raise ValueError(
        f"{model.name} has no table of positions; behind a prefix the library would count them "
        "otherwise, and give other logits"
    )
