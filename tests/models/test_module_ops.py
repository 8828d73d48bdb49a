"""Copies of a model are what `copy.deepcopy` makes."""

import copy

import pytest
import tiny
import torch
from torch import nn

from peftbench.models.module_ops import copied


def shape_of(value, shared, seen):
    """All that hangs on a value, as plain data; what is shared by its identity."""
    if isinstance(value, torch.Tensor):
        return id(value) if id(value) in shared else "own"
    if callable(value) and not isinstance(value, nn.Module):
        return id(value)
    if id(value) in seen:
        return seen[id(value)]
    seen[id(value)] = f"seen {len(seen)}"
    if isinstance(value, dict):
        return [type(value), [(k, shape_of(v, shared, seen)) for k, v in value.items()]]
    if isinstance(value, list | tuple | set):
        return [type(value), [shape_of(v, shared, seen) for v in value]]
    if hasattr(value, "__dict__"):
        return [type(value), shape_of(vars(value), shared, seen)]
    return repr(value)


@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_copies_are_those_of_deepcopy(family):
    module = tiny.backbone(family).module
    tensors = [*module.parameters(), *module.buffers()]
    mine, theirs = (make(module, {id(t): t for t in tensors}) for make in (copied, copy.deepcopy))
    shared = {id(tensor) for tensor in tensors}
    assert shape_of(mine, shared, {}) == shape_of(theirs, shared, {})
    assert {id(p) for p in mine.parameters()} == {id(p) for p in module.parameters()}
    modules = {id(part) for part in module.modules()}
    assert not modules & {id(part) for part in mine.modules()}
    assert mine.config is not module.config
    assert mine.config.to_dict() == module.config.to_dict()


def test_a_module_that_says_how_it_is_copied_is_asked():
    class Odd(nn.Module):
        def __deepcopy__(self, memo):
            return Odd()

    module = nn.Sequential(Odd(), nn.Linear(2, 2))
    module[0].note = 1
    new = copied(module, {})
    assert not hasattr(new[0], "note")
    assert torch.equal(new[1].weight, module[1].weight)
    assert new[1].weight is not module[1].weight
