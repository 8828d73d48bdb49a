"""Pretrained weights as they came, loaded once for all runs of a worker."""

from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from peftbench.core.configs import ModelConfig
from peftbench.models import attention, bf16_storage, heads, mpnet, pretrained
from peftbench.models.module_ops import FusedLinear, replace_module, untransposed, within


class Backbone:
    """Pretrained weights as they came, and what is known about their architecture.

    Args:
        model: the model node of a run.
        device: where encoders are to live.
        loaded: a module to use instead of loading one (a skeleton on `meta`, in tests).
        verbalizer_ids: tokens that a language model scores, in place of a classifier's classes;
            an empty list is all of them.
    """

    def __init__(
        self,
        model: ModelConfig,
        device: str | torch.device = "cpu",
        loaded: nn.Module | None = None,
        verbalizer_ids: list[int] | None = None,
    ):
        missing: list[str] = []
        if loaded is None:
            loaded, missing = pretrained.backbone(model, verbalizer_ids is not None)
        if verbalizer_ids:
            heads.narrow(loaded, verbalizer_ids)
        self.name: str = model.name
        self.family: str = model.family
        self.family_config = model.family_config
        self.causal = model.causal
        self.module: Any = loaded.to(device).eval().requires_grad_(False)
        config: Any = loaded.config
        config.return_dict = True
        for part in loaded.modules():  # in chunks it is the same, and fits fewer lengths
            if getattr(part, "chunk_size_feed_forward", 0):
                part.chunk_size_feed_forward = 0  # type: ignore[assignment]
        if loaded._supports_attention_backend:
            loaded.set_attn_implementation(attention.NAME)  # type: ignore[operator]
        mpnet.unify(loaded)
        _put_blocks_last(loaded)
        if model.dtype is not None:
            bf16_storage.widen_small(self.module)
        for block in self.module.get_submodule(self.family_config.blocks).children():
            for path, part in list(block.named_modules()):
                if isinstance(part, Conv1D):
                    replace_module(block, path, untransposed(part))
            for path, names in self.family_config.split.items():
                replace_module(block, path, FusedLinear(block.get_submodule(path), names))
        if model.dtype is not None:
            bf16_storage.let_store(self.module)
        self.verbalizer_ids = verbalizer_ids
        self.head = self._head(missing) if verbalizer_ids is None else []
        #: parts beside the family's head that the checkpoint had no weights for
        self.new_parts = [path for path in self.head if path not in self.family_config.head]
        self.flops: dict[str, int] = {}  # of passes, by what passes; see `training.measurement`
        self.warm: set[str] = set()  # what has passed on this device
        self._cast: dict[tuple[nn.Parameter, torch.dtype], nn.Parameter] = {}
        self._own = {id(p) for p in self.module.parameters()}

    def _head(self, missing: list[str]) -> list[str]:
        """The family's head, and whatever else the checkpoint had no weights for."""
        head: list[str] = list(self.family_config.head)
        for name in missing:
            owner = name.rpartition(".")[0]
            if not any(within(owner, path) for path in head):
                head.append(owner)
        return head

    def owns(self, parameter: nn.Parameter) -> bool:
        """Whether a parameter is shared by all runs."""
        return id(parameter) in self._own

    def cast(self, parameter: nn.Parameter, dtype: torch.dtype) -> nn.Parameter:
        """A frozen parameter in another precision, made once for all runs."""
        if (parameter, dtype) not in self._cast:
            low = nn.Parameter(parameter.detach().to(dtype), requires_grad=False)
            self._cast[parameter, dtype] = low
            self._own.add(id(low))
        return self._cast[parameter, dtype]


#: Encoders that register what their blocks stand on (relative positions, their norm) behind them.
_BLOCKS_FIRST = ("DebertaV2Encoder",)


def _put_blocks_last(root: nn.Module) -> None:
    """Let parameters that blocks stand on come before these, as in all other models."""
    for part in root.modules():
        if type(part).__name__ in _BLOCKS_FIRST:
            part.register_module("layer", part._modules.pop("layer"))
