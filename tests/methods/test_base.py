"""What every method has in common."""

import pytest

from peftbench.methods.base import OLD_HOOKS, Method, WrapperMethod


@pytest.mark.parametrize(("old", "new"), OLD_HOOKS.items())
def test_a_hook_by_its_old_name_is_refused(old, new):
    """Nothing would call it, and the method would train without it."""
    value = True if old == "starts_pretrained" else lambda self: None
    with pytest.raises(TypeError, match=f"Mine.{old}: this hook is called {new} now"):
        type("Mine", (Method,), {old: value})
    assert hasattr(Method, new)
    assert type("Mine", (WrapperMethod,), {new: value})


def test_a_hyperparameter_may_be_called_as_an_old_hook():
    assert type("Mine", (Method,), {"__annotations__": {"rates": "float"}, "rates": 0.5}).rates
