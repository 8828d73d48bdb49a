"""State of linears with a fixed mask, stored small: bits, and the weights that exist.

A mask is a boolean tensor called `….mask` beside the `….weight` that it covers.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def packed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state in which masks are bits and masked weights a list of those that exist."""
    found = dict(state)
    for name, mask in state.items():
        if name.endswith(".mask"):
            weight = name.removesuffix("mask") + "weight"
            found[weight] = state[weight][mask]
            bits = F.pad(mask.flatten(), (0, -mask.numel() % 8)).view(-1, 8).to(torch.uint8)
            powers = 2 ** torch.arange(8, dtype=torch.uint8, device=mask.device)
            found[name] = (bits * powers).sum(-1, dtype=torch.uint8)
    return found


def unpacked(state: dict[str, Tensor], like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Undo `packed`; a state that is not packed comes back as it is."""
    found = dict(state)
    for name, bits in state.items():
        if name.endswith(".mask") and bits.dtype == torch.uint8:
            powers = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
            flat = (bits[:, None] & powers).bool().flatten()[: like[name].numel()]
            mask = flat.view_as(like[name])
            weight = name.removesuffix("mask") + "weight"
            dense = torch.zeros(mask.shape, dtype=state[weight].dtype, device=mask.device)
            dense[mask] = state[weight]
            found |= {name: mask, weight: dense}
    return found
