"""Sizes of a model's blocks, from its config.json or its YAML file; no torch, no weights."""

from dataclasses import dataclass
from pathlib import Path

from peftbench.core.configs import ModelConfig
from peftbench.core.run import Json
from peftbench.models.checkpoint_inspection import DEPTHS, read_config

_WIDTHS = ("hidden_size", "n_embd", "dim")
_HEADS = ("num_attention_heads", "n_heads", "n_head")


@dataclass(frozen=True)
class LayerSizes:
    """Sizes of the blocks of a model.

    Attributes:
        blocks: how many; where they share their weights, how often these are used.
        width: of what goes from block to block.
        keys: width of an attention's keys, all heads side by side.
    """

    blocks: int
    width: int
    keys: int

    def narrow_side(self, role: str) -> int:
        """The smaller of inputs and outputs of a linear layer."""
        return min(self.width, self.keys) if role in ("key", "value") else self.width


def layer_sizes(model: ModelConfig, folder: Path | None = None) -> LayerSizes | None:
    """What a checkpoint's config.json says, or the model's `shape`; None where neither does.

    Args:
        model: of a run.
        folder: its checkpoint, where that is at hand.
    """
    config = model.shape if folder is None else read_config(folder)
    blocks, width, heads = (_first(config, names) for names in (DEPTHS, _WIDTHS, _HEADS))
    if blocks is None or width is None:
        return None
    groups = config.get("num_key_value_heads")
    of_head = config.get("head_dim") or (None if heads is None else width // heads)
    keys = width if groups is None or of_head is None else groups * of_head
    return LayerSizes(blocks, width, keys)


def _first(config: Json, names: tuple[str, ...]) -> int | None:
    return next((int(config[name]) for name in names if config.get(name) is not None), None)
