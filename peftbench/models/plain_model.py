"""An adapted model as transformers itself would have it, for a folder of its own."""

from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from peftbench.core.configs import ModelConfig
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import FusedLinear
from peftbench.system.hub import locate


def plain_model(
    model: AdaptedModel, config: ModelConfig, labels: list[str] | None, padding: int
) -> Any:
    """A sequence classifier of transformers with copies of all weights, in fp32.

    The head needs no mapping: it is that of the family's own class, with a last layer of another
    size.

    Args:
        model: with what its method inserted merged, see `AdaptedModel.merge`.
        config: of its backbone.
        labels: names of the classes; None for a regression.
        padding: the token that pads, which a causal model needs.

    Raises:
        ValueError: if transformers has no such classifier.
    """
    if model.backbone.verbalizer_ids is not None:
        raise ValueError(
            "prompt=words: the words of a language model answer, so that there is no classifier to "
            "write; export an adapter, or use `peftbench predict KEY`"
        )
    if model.added_bias is not None:
        raise ValueError(
            f"{model.name} has a head without a bias outside of peftbench, where a regression "
            "would lose the mean of its labels"
        )
    made = pretrained.skeleton(replace(config, dtype=None), config=_config(config, labels, padding))
    tensors = model.module.state_dict()
    for path, part in model.module.named_modules():
        if isinstance(part, FusedLinear):
            tensors |= {f"{path}.{n}": t for n, t in part.to_plain().state_dict().items()}
    for path, part in made.named_modules():
        if isinstance(part, Conv1D):  # its weight is (in, out)
            tensors[f"{path}.weight"] = tensors[f"{path}.weight"].T
    made.load_state_dict({name: tensors[name] for name in made.state_dict()})
    return made.eval()


def language_model(model: ModelConfig) -> nn.Module:
    """The pretrained language model of a checkpoint, as transformers has it, in fp32."""
    return pretrained.backbone(model, language=True)[0].float().eval()


def _config(model: ModelConfig, labels: list[str] | None, padding: int) -> PretrainedConfig:
    names = ["value"] if labels is None else labels
    folder = locate(model)
    changes: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": "regression" if labels is None else "single_label_classification",
    }
    if folder is None:
        config = pretrained.skeleton_config(model)
    else:
        config = pretrained.load_config(model, folder)
    for name, value in changes.items():
        setattr(config, name, value)
    if model.family_config.mask == "causal":
        config.pad_token_id = padding
    return config
