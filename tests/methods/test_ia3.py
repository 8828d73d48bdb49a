"""Scales near 1 in 16 bits, as the peft library multiplies them."""

import pytest
import torch
from peft import IA3Config
from peft.tuners.ia3.layer import Linear
from torch import nn

from peftbench.methods.ia3 import ScaledInput, ScaledOutput
from peftbench.methods.lora import Decomposed


@pytest.mark.parametrize(("kind", "inner"), [(ScaledOutput, False), (ScaledInput, True)])
def test_scales_near_1_count_in_bf16(kind, inner):
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 32), torch.randn(4, 6, 48).to(torch.bfloat16)
    ours = kind(linear)
    theirs = Linear(linear, "default", IA3Config(), is_feedforward=inner)
    scale = 1 + 0.003 * torch.rand(len(ours.scale))  # bf16 has no number from 1 to 1.0039
    with torch.no_grad():
        ours.scale.copy_(scale)
        theirs.ia3_l["default"].copy_(scale.view_as(theirs.ia3_l["default"]))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, plain = ours(x), linear(x)
        assert torch.equal(found, theirs(x))
        assert found.dtype == plain.dtype == torch.bfloat16
    assert not torch.equal(found, plain)


def test_lengths_of_dora_near_1_count_in_bf16():
    torch.manual_seed(0)
    linear, x = nn.Linear(48, 32), torch.randn(4, 6, 48).to(torch.bfloat16)
    made = Decomposed(linear, rank=2, scale=1.0, dropout=0.0)
    with torch.no_grad():
        made.length.mul_(1.003)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found, plain = made(x), nn.functional.linear(x, linear.weight)
        expected = (1.003 * plain).to(torch.bfloat16) + linear.bias.to(torch.bfloat16)
    assert torch.equal(found, expected)
