"""The CPU's own dropout and attention: the same distribution, the same derivative."""

import pytest
import torch
from torch import nn

from peftbench.models import cpu_kernels


@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
@pytest.mark.parametrize("count", [1, 7, 30_001])
def test_mask_is_zero_or_the_scale(p, count):
    torch.manual_seed(0)
    mask = cpu_kernels.dropout_mask(torch.Size((count,)), p, 1 / (1 - p))
    assert mask.dtype is torch.bfloat16
    kept = torch.tensor(1 / (1 - p), dtype=torch.bfloat16)
    assert bool(((mask == 0) | (mask == kept)).all())
    if count > 1000:
        share = (mask == 0).float()
        assert share.mean().item() == pytest.approx(p, abs=4 * (p * (1 - p) / count) ** 0.5)
        for lag in (1, 2, 4):  # neighbours are cut from one word
            together = (share[lag:] * share[:-lag]).mean().item()
            assert together == pytest.approx(p * p, abs=0.02)


def test_mask_follows_the_seed():
    shape = torch.Size((3, 50))
    torch.manual_seed(1)
    first, second = (
        cpu_kernels.dropout_mask(shape, 0.5, 2.0),
        cpu_kernels.dropout_mask(shape, 0.5, 2.0),
    )
    torch.manual_seed(1)
    assert torch.equal(first, cpu_kernels.dropout_mask(shape, 0.5, 2.0))
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_dropout_is_dropout(dtype):
    module = nn.Sequential(nn.Dropout(0.2), nn.Dropout(0.2, inplace=True), nn.Dropout1d(0.2))
    cpu_kernels.hasten(module)
    assert [type(inner) for inner in module] == [cpu_kernels.Dropout, nn.Dropout, nn.Dropout1d]
    dropout, x = module[0], torch.ones(200, 200, dtype=dtype, requires_grad=True)
    torch.manual_seed(0)
    y = dropout(x)
    assert y.dtype is dtype
    assert y.float().mean().item() == pytest.approx(1, abs=0.02)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())  # 0 or the scale, for x = 1
    dropout.eval()
    assert dropout(x) is x or torch.equal(dropout(x), x)


def attend(q, k, v, mask, scale, dropped):
    scores = q @ k.transpose(-1, -2) * scale
    probabilities = scores.masked_fill(~mask, -torch.inf).softmax(-1)
    return ((probabilities * dropped) @ v).transpose(1, 2)


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("keys", [5, 8], ids=["self", "longer"])
def test_attention_and_its_gradients(p, keys):
    """Against the formula in fp32, with the mask that the seed draws; bf16 keeps 8 bits."""
    torch.manual_seed(0)
    shapes = ((2, 4, 5, 8), (2, 4, keys, 8), (2, 4, keys, 8))
    ours = [torch.randn(shape).bfloat16().requires_grad_() for shape in shapes]
    exact = [x.detach().float().requires_grad_() for x in ours]
    mask = torch.ones(2, 1, 1, keys, dtype=torch.bool)
    mask[1, ..., 3:] = False
    pull = torch.randn(2, 5, 4, 8)

    torch.manual_seed(7)
    found, weights = cpu_kernels.attention(nn.Module(), *ours, mask, dropout=p)
    assert weights is None
    torch.manual_seed(7)
    shape = torch.Size((8, 5, keys))
    dropped = (
        cpu_kernels.dropout_mask(shape, p, 1 / (1 - p)).view(2, 4, 5, keys) if p else torch.ones(1)
    )
    expected = attend(*exact, mask, 8**-0.5, dropped.float())
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.03)

    found.backward(pull.bfloat16())
    expected.backward(pull)
    for ours_, exact_ in zip(ours, exact, strict=True):
        ours_, exact_ = ours_.grad.float().flatten(), exact_.grad.flatten()
        assert torch.cosine_similarity(ours_, exact_, dim=0) > 0.999
        assert (ours_.norm() / exact_.norm()).item() == pytest.approx(1, abs=0.01)
    assert not ours[1].grad[1, :, 3:].any(), "what is masked gets no gradient"
    assert not ours[2].grad[1, :, 3:].any()


@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (1, 4, 5, 5), (1, 4, 1, 5)])
def test_a_mask_that_trains_gets_its_gradient(shape, p):
    """As relative positions do; what it has once and is used for many is summed."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 4, 5, 8).bfloat16() for _ in range(3))
    ours = torch.randn(shape, requires_grad=True)
    exact = ours.detach().clone().requires_grad_()
    pull = torch.randn(2, 5, 4, 8)
    torch.manual_seed(7)
    found, _ = cpu_kernels.attention(nn.Module(), q, k, v, ours, dropout=p)
    torch.manual_seed(7)
    drawn = cpu_kernels.dropout_mask(torch.Size((8, 5, 5)), p, 1 / (1 - p)) if p else torch.ones(1)
    dropped = drawn.float().view(-1, 4, 5, 5) if p else drawn
    scores = q.float() @ k.float().transpose(-1, -2) * 8**-0.5 + exact
    expected = ((scores.softmax(-1) * dropped) @ v.float()).transpose(1, 2)
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.03)
    found.backward(pull.bfloat16())
    expected.backward(pull)
    assert ours.grad.dtype is torch.float32
    assert torch.cosine_similarity(ours.grad.flatten(), exact.grad.flatten(), dim=0) > 0.999
    assert (ours.grad.norm() / exact.grad.norm()).item() == pytest.approx(1, abs=0.01)


def test_a_dropout_in_several_places_stays_one():
    shared = nn.Dropout(0.2)
    module = nn.ModuleDict({"a": shared, "b": nn.Sequential(shared, nn.Linear(2, 2))}).eval()
    cpu_kernels.hasten(module)
    assert type(module["a"]) is cpu_kernels.Dropout
    assert module["a"] is module["b"][0]
    assert not module["a"].training
    assert module["a"].p == 0.2


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_a_torch_without_the_private_kernel_gives_the_same_gradients(monkeypatch, p):
    shape = (2, 4, 6, 8)
    torch.manual_seed(0)
    inputs = [torch.randn(shape).bfloat16() for _ in range(3)]
    pull = torch.randn(2, 6, 4, 8).bfloat16()

    def gradients():
        ours = [x.clone().requires_grad_() for x in inputs]
        torch.manual_seed(7)
        found, _ = cpu_kernels.attention(nn.Module(), *ours, None, dropout=p)
        found.backward(pull)
        return [x.grad for x in ours]

    fused = gradients()
    monkeypatch.setattr(cpu_kernels, "_FUSED_SOFTMAX_BACKWARD", None)
    plain = gradients()
    for one, other in zip(fused, plain, strict=True):
        torch.testing.assert_close(other, one, rtol=2**-8, atol=2**-8)  # one bf16 step


def test_softmax_backward_is_the_derivative(monkeypatch):
    monkeypatch.setattr(cpu_kernels, "_FUSED_SOFTMAX_BACKWARD", None)
    scores, pull = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    probabilities = scores.softmax(-1)
    probabilities.backward(pull)
    found = cpu_kernels._softmax_backward(pull, probabilities.detach())
    torch.testing.assert_close(found, scores.grad)


def test_attention_leaves_other_types_to_transformers():
    q = torch.randn(1, 2, 4, 8)
    mask = torch.ones(1, 1, 1, 4, dtype=torch.bool)
    found, _ = cpu_kernels.attention(nn.Module(), q, q, q, mask)
    expected = attend(q, q, q, mask, 8**-0.5, torch.ones(1))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
