"""The head: weights that depend on the seed alone, the same for all methods; or no new ones."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class ExactLinear(nn.Linear):
    """A linear in fp32 under autocast too: 8 bits of bf16 do not hold a year, or a half point.

    Nor do they tell words apart: scores of a language model are 8 to 32, where bf16 has steps of
    1/16 and 1/8, so that some would be equal, and the first class chosen.
    """

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`."""
        with torch.autocast(input.device.type, enabled=False):
            return functional.linear(input.float(), self.weight, self.bias)


def is_cast(module: nn.Module) -> bool:
    """Whether a module is a linear that autocast multiplies in 16 bits."""
    return isinstance(module, nn.Linear) and not isinstance(module, ExactLinear)


def store_as_cast(modules: Iterable[nn.Module], autocast: torch.dtype | None) -> None:
    """Store linears as frozen ones are in training: autocast would cast them at each pass.

    The head of a regression computes in fp32.

    Args:
        modules: of a model that only answers.
        autocast: what matrix products are computed in; None without autocast.
    """
    for module in modules:
        if autocast is not None and is_cast(module):
            for name, p in [*module.named_parameters(recurse=False)]:
                setattr(module, name, nn.Parameter(p.to(autocast), requires_grad=False))


def start(root: Any, paths: list[str], classes: int, seed: int) -> str | None:
    """Give a classifier new weights for its head, drawn as all these families draw theirs.

    Args:
        root: transformers' classifier, made with two labels.
        paths: of the head's parts.
        classes: outputs; 1 for regression, whose last layer gets a bias where it has none.
        seed: of the weights.

    Returns:
        The name of the bias that a regression got.
    """
    added = None
    std = root.config.initializer_range
    generator = torch.Generator().manual_seed(seed)
    parts = [root.get_submodule(path) for path in paths]
    for module in dict.fromkeys(inner for part in parts for inner in part.modules()):
        last = isinstance(module, nn.Linear) and module.out_features == 2
        if last:
            module.out_features = classes  # the rest of the head is as wide as the model
            if classes == 1:
                module.__class__ = ExactLinear
            module.weight = nn.Parameter(module.weight.new_empty(classes, module.in_features))
            if module.bias is not None or classes == 1:
                if module.bias is None:
                    added = next(f"{n}.bias" for n, m in root.named_modules() if m is module)
                module.bias = nn.Parameter(module.weight.new_empty(classes))
        for name, p in module.named_parameters(recurse=False):
            if name == "weight" and isinstance(module, nn.Linear):
                value = torch.randn(p.shape, generator=generator) * std
            else:  # biases are 0, the weights of norms 1
                value = torch.full(p.shape, float(name == "weight"))
            setattr(module, name, nn.Parameter(value.to(p.device)))
    root.num_labels = root.config.num_labels = classes
    return added


def last_layer(root: Any, paths: list[str]) -> nn.Linear:
    """The linear of a head that gives its outputs."""
    [last] = _last_layers(root, paths)
    return last


def compute_exactly(root: Any, paths: list[str]) -> None:
    """Let the outputs of a regression be computed in fp32 in a model that others made, too.

    Args:
        root: a classifier of transformers with one output, or one in which the peft library put a
            head beside that of its base model.
        paths: of the head's parts.
    """
    for layer in _last_layers(root, paths):
        layer.__class__ = ExactLinear


def _last_layers(root: Any, paths: list[str]) -> list[nn.Linear]:
    parts = [root.get_submodule(path) for path in paths]
    modules = [module for part in parts for module in part.modules()]
    linears = [module for module in modules if isinstance(module, nn.Linear)]
    count = root.config.num_labels
    return list(dict.fromkeys(one for one in linears if one.out_features == count))


def narrow(root: Any, token_ids: list[int]) -> None:
    """Let a language model score some words alone, which saves the product with all others.

    Their rows are copies: where the model ties them to its word embeddings, they no longer are.
    Their scores are computed in fp32 in every precision.

    Args:
        root: transformers' model with a language-model head.
        token_ids: in the order of the scores.
    """
    whole = root.get_output_embeddings()
    part = ExactLinear(whole.in_features, len(token_ids), whole.bias is not None, device="meta")
    part.weight = nn.Parameter(whole.weight.detach()[token_ids].float())
    if whole.bias is not None:
        part.bias = nn.Parameter(whole.bias.detach()[token_ids].float())
    root.set_output_embeddings(part)
    for module in root.modules():  # some heads hold the bias once more
        if module is not part and _is_one(getattr(module, "bias", None), whole.bias, part.bias):
            module.bias = None


def _is_one(bias: object, *known: object) -> bool:
    return bias is not None and any(bias is one for one in known)
