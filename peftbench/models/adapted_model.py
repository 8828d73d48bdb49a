"""The backbone, its parts by role, and its head.

`Backbone` is loaded once and stays as it was. Each run gets an `AdaptedModel` of its own that
shares every frozen tensor with it; what a run trains is a private copy. So a warm worker goes from
run to run without loading, and no run can see another.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from peftbench.core.roles import ROLES
from peftbench.core.text import listed_names
from peftbench.data.batching import Batch
from peftbench.models import attention, heads, masked_state
from peftbench.models.backbone import Backbone
from peftbench.models.module_ops import (
    FusedLinear,
    Mergeable,
    Tap,
    copied,
    replace_module,
    share,
    stands_for_others,
    unshare,
    within,
)
from peftbench.models.sparse_embedding import SparseEmbedding


class AdaptedModel(nn.Module):
    """One run's backbone and head.

    Args:
        backbone: whose frozen tensors are shared.
        classes: outputs of the head; 1 for regression.
        seed: of the head's weights.
        examples: to train on, for objectives that need their count.
    """

    def __init__(self, backbone: Backbone, classes: int, seed: int, examples: int = 1):
        super().__init__()
        self.examples: float | Tensor = examples
        self.rehearsal = False  # whether this is a tiny model in the place of another
        self.exact = False  # whether a method computes with frozen weights itself, in fp32
        self.micro_batch_size: int | None = None  # examples of a pass with gradients
        self.backbone = backbone
        shared = [*backbone.module.parameters(), *backbone.module.buffers()]
        self.module: Any = copied(backbone.module, {id(t): t for t in shared})
        self._pretrained = {name for name, _ in self.module.named_parameters()}
        self._buffers_before = {name for name, _ in self.module.named_buffers()}
        self.added_bias = heads.start(self.module, backbone.head, classes, seed)
        self._tied = _is_tied(self.module)
        self._unit: tuple[float, float] | None = None  # mean, scale of the labels it trains on
        self._past: DynamicCache | None = None  # of the tokens before all that come, see `after`

    # what methods use

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.backbone.name

    @property
    def pre_norm(self) -> bool:
        """Whether a block normalises its input instead of its sum with the residual."""
        return bool(self.backbone.family_config.pre_norm)

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks; a shared one (ALBERT) is one."""
        blocks: nn.ModuleList = self.module.get_submodule(self.backbone.family_config.blocks)
        return blocks

    @property
    def pretrained(self) -> dict[str, nn.Parameter]:
        """The backbone's own parameters by name; not to be written to."""
        return dict(self.backbone.module.named_parameters())

    def pretrained_of(self, name: str) -> nn.Parameter | None:
        """The backbone's parameter of which a trained one is a copy; None of an inserted one.

        A part that was put around a module has added its own name for it to the path.
        """
        pretrained = self.pretrained
        if name in pretrained:
            return pretrained[name]
        plain = ".".join(one for one in name.split(".") if one not in _AROUND)
        return pretrained.get(plain)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.module.parameters()).device

    @property
    def dim(self) -> int:
        """The width of what goes from block to block."""
        return int(self.module.config.hidden_size)

    @property
    def key_dim(self) -> int:
        """The width of an attention's keys, all heads side by side; less than `dim` if grouped."""
        config = self.module.config
        heads = config.num_attention_heads
        groups = getattr(config, "num_key_value_heads", None) or heads
        return int(groups * (getattr(config, "head_dim", None) or config.hidden_size // heads))

    def block_of(self, name: str) -> int | None:
        """The block of a trained parameter; -1 for what is below the blocks, None above them."""
        path = self.backbone.family_config.blocks
        if within(name, path):
            return int(name.removeprefix(path + ".").partition(".")[0])
        names = [n for n, _ in self.module.named_parameters()]
        first = next(i for i, n in enumerate(names) if within(n, path))
        return -1 if names.index(name) < first else None

    def path(self, role: str) -> str:
        """Where in a block a role is.

        Raises:
            ValueError: for a role that the family does not have.
        """
        paths = self.backbone.family_config.roles
        if role not in paths:
            raise ValueError(f"{self.name} has no role {role!r}; its roles are {', '.join(paths)}")
        return str(paths[role])

    def pattern(self, *roles: str, which: Sequence[int] | None = None) -> str:
        """A regular expression that the names of the parts with these roles match, no others.

        Args:
            roles: of the parts.
            which: numbers of the blocks; None is all.

        Raises:
            ValueError: for a role that the family does not have.
        """
        blocks = re.escape(self.backbone.family_config.blocks)
        numbers = r"\d+" if which is None else f"(?:{'|'.join(map(str, which))})"
        paths = "|".join(re.escape(self.path(role)) for role in roles)
        return rf".*{blocks}\.{numbers}\.(?:{paths})"

    def each(self, *roles: str) -> Iterator[nn.Module]:
        """The parts with these roles, block by block.

        Raises:
            ValueError: for a role that the family does not have.
        """
        for block in self.blocks:
            for role in roles:
                yield block.get_submodule(self.path(role))

    def replace(self, *roles: str, by: Callable[[nn.Module], nn.Module]) -> None:
        """Put `by(part)` in the place of every part with these roles.

        Raises:
            ValueError: for a role that the family does not have, or that matches nothing.
        """
        if not roles:
            raise ValueError(f"no role to replace was given; the roles are {', '.join(ROLES)}")
        for block in self.blocks:
            for role in roles:
                path = self.path(role)
                replace_module(block, path, by(block.get_submodule(path)))

    def inserted(self, *names: str) -> dict[str, nn.Linear]:
        """The linears that methods have inserted and called one of the names, by path."""
        return {
            path: part
            for path, part in self.module.named_modules()
            if isinstance(part, nn.Linear)
            and part.weight.requires_grad
            and path.rpartition(".")[2] in names
            and f"{path}.weight" not in self._pretrained
        }

    def has_part(self, mark: str) -> bool:
        """Whether a part says something of itself, by a class attribute of this name."""
        return any(getattr(part, mark, False) for part in self.modules())

    @property
    def drops(self) -> bool:
        """Whether there is dropout, so that two passes over a batch differ in training."""
        modules = [part.p for part in self.modules() if isinstance(part, nn.Dropout)]
        config = self.module.config
        return any((*modules, *(getattr(config, name, 0) for name in _ATTENTION_DROPOUT)))

    def put(self, path: str, part: nn.Module) -> None:
        """Set what is at a path that `inserted` gave."""
        replace_module(self.module, path, part)

    def merge(self) -> None:
        """Put linears in the place of all that was inserted; what is computed stays the same.

        The backbone's own tensors are not written to.

        Raises:
            ValueError: if an inserted part is not a `Mergeable`.
        """
        for path, part in reversed([*self.module.named_modules()]):  # what is inside comes first
            if isinstance(part, Mergeable) and not isinstance(part, FusedLinear):
                replace_module(self.module, path, part.to_plain())
        known = self._pretrained | {n for n in self.state() if self.in_head(n)}
        left = sorted({name for name, _ in self.module.named_parameters()} - known)
        if left:
            raise ValueError(
                f"{left[0]} and {len(left) - 1} other inserted weights of {self.name} have no "
                "place in the plain model"
            )

    def tap(self, role: str) -> Iterator[Tap]:
        """Let the parts with a role remember what they got; an iterator over them, by block."""
        self.replace(role, by=Tap)
        return (part for part in self.each(role) if isinstance(part, Tap))

    def prepend(self, source: nn.Module) -> None:
        """Put learned keys and values in front of every block's own.

        Args:
            source: called once a forward pass with the number of examples; gives keys and values
                of shape (blocks, 2, length, dim), or (blocks, 2, batch, length, dim).

        Raises:
            ValueError: if something is in front already, or the family's attention cannot take it.
        """
        if hasattr(self.module, "prefix"):
            raise ValueError(f"{self.name} has keys and values in front already")
        for part in self.each("attention"):
            attention.admit(part, self.name)
        self.module.prefix = source

    def unfreeze(self, what: str, which: Callable[[str, nn.Parameter], bool]) -> None:
        """Let the pretrained parameters train for which `which(name, parameter)` holds.

        Args:
            what: names them in the error.
            which: is asked about every pretrained parameter outside the head.

        Raises:
            ValueError: if none does, or if something was put around one.
        """
        chosen = [
            name
            for name, p in self.module.named_parameters()
            if (name in self._pretrained or self.backbone.owns(p))
            and not self.in_head(name)
            and which(name, p)
        ]
        if around := sorted(set(chosen) - self._pretrained):
            raise ValueError(
                f"another method has put something around {listed_names(around, 2)} before the one "
                f"that trains each {what}: let it come first"
            )
        if not chosen:
            raise ValueError(f"{self.name} has no {what} to train; choose another method for it")
        for name in chosen:
            unshare(self.module, name)
        self._tie()

    def freeze(self, which: Callable[[str], bool]) -> None:
        """Stop training what has a name for which `which` holds; pretrained values come back."""
        pretrained = self.pretrained
        for name, parameter in self.trained().items():
            if which(name) and not self.in_head(name):
                if name in pretrained:
                    share(self.module, name, pretrained[name])
                else:
                    parameter.requires_grad_(False)
        self._tie()

    def _tie(self) -> None:
        """Let the head have the weight of the word embeddings again, where the model ties them."""
        if self._tied:
            self.module.get_output_embeddings().weight = self.module.get_input_embeddings().weight

    def rest(self, which: Callable[[str], bool]) -> None:
        """Let what trains have no gradient where `which(name)` holds, until asked again."""
        for name, parameter in self.module.named_parameters():
            if not self.backbone.owns(parameter):
                parameter.requires_grad_(not which(name))

    # the unit of a regression

    def standardise(self, mean: float, scale: float) -> None:
        """Let the head give z-scores (y - mean) / scale of the labels while it trains."""
        self._unit = (mean, scale)

    @contextmanager
    def in_unit(self) -> Iterator[None]:
        """The head in the unit of the labels for a while: W scale, b scale + mean.

        Afterwards its parameters have the bits that they had.
        """
        if self._unit is None:
            yield
            return
        parameters = self._last_layer()
        before, unit = [p.detach().clone() for p in parameters], self._unit
        self.to_unit()
        try:
            yield
        finally:
            self._unit = unit
            with torch.no_grad():
                for parameter, value in zip(parameters, before, strict=True):
                    parameter.copy_(value)

    def to_unit(self) -> None:
        """Fold mean and scale into the head, which gives labels from now on; once."""
        if self._unit is not None:
            (mean, scale), self._unit = self._unit, None
            weight, bias = self._last_layer()
            with torch.no_grad():
                weight.mul_(scale)
                bias.mul_(scale).add_(mean)

    def from_unit(self) -> None:
        """Take mean and scale out of a head that gives labels, to train it further."""
        if self._unit is not None:
            mean, scale = self._unit
            weight, bias = self._last_layer()
            with torch.no_grad():
                weight.div_(scale)
                bias.sub_(mean).div_(scale)

    def _last_layer(self) -> list[Tensor]:
        last = heads.last_layer(self.module, self.backbone.head)
        return [last.weight, last.bias]

    # what the loop and the record use

    def forward(self, batch: Batch) -> Tensor:
        """Logits of shape (batch, classes); of a language model those at the answer's place.

        Where texts are to be written they are (batch, wanted, vocabulary), at the batch's places.
        """
        if "places" in batch:
            states = self._pass(self.module.base_model, batch, None).last_hidden_state
            rows = torch.arange(len(states), device=states.device)[:, None]
            wanted: Tensor = self.module.get_output_embeddings()(states[rows, batch["places"]])
            return wanted
        logits: Tensor = self._pass(self.module, batch, self.past(len(batch["input_ids"]))).logits
        if logits.ndim == 3:
            return logits[torch.arange(len(logits), device=logits.device), batch["answer"]]
        return logits

    def _pass(self, module: Any, batch: Batch, past: DynamicCache | None) -> Any:
        """What a part of the model, all of it or the model without its head, makes of a batch."""
        inputs: dict[str, Any] = {name: batch[name] for name in _INPUTS if name in batch}
        if past is not None:
            inputs |= {"past_key_values": past, "use_cache": True}
        if hasattr(self.module, "prefix"):
            made = self.module.prefix(len(batch["input_ids"]))
            for part, prefix in zip(self.each("attention"), made.unbind(), strict=True):
                part.prefix = prefix
        return module(**inputs)

    # keys and values of tokens that were seen, of a causal model

    def hidden(self, batch: Batch, past: DynamicCache) -> Tensor:
        """States (batch, tokens, dim) below the head; keys and values are added to `past`."""
        states: Tensor = self._pass(self.module.base_model, batch, past).last_hidden_state
        return states

    def past(self, count: int) -> DynamicCache | None:
        """Keys and values of what comes before so many texts; None where nothing does."""
        if self._past is None:
            return None
        layers: list[Any] = self._past.layers
        whole = [(one.keys, one.values) for one in layers]
        return DynamicCache([tuple(t.expand(count, -1, -1, -1) for t in pair) for pair in whole])

    @contextmanager
    def after(self, batch: Batch) -> Iterator[None]:
        """Let the texts of a batch of one come before all that is given inside.

        Their keys and values are computed once. What is given inside says so in its mask, see
        `batching.collate`.
        """
        past = DynamicCache()
        self.hidden(batch, past)
        self._past = past
        try:
            yield
        finally:
            self._past = None

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters that train, head included, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def own(self) -> dict[str, Tensor]:
        """All that is not the backbone's: trained and inserted parameters, inserted buffers."""
        buffers, backbone = self.module.named_buffers(), self.backbone
        own: dict[str, Tensor] = {n: b for n, b in buffers if n not in self._buffers_before}
        return own | {n: p for n, p in self.module.named_parameters() if not backbone.owns(p)}

    def state(self) -> dict[str, Tensor]:
        """The values of `own`, tables of words whole."""
        state = {name: tensor.detach() for name, tensor in self.own().items()}
        return state | {name: seen.whole() for name, seen in self._seen()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state back, also one in which other pretrained parameters train.

        Raises:
            ValueError: if it is of another method or model.
        """
        own, whole = self.state(), dict(self._seen())
        pretrained = self.pretrained
        odd = sorted(name for name in set(own) ^ set(state) if name not in pretrained)
        if odd:
            raise ValueError(f"these trained weights do not fit {self.name}: {', '.join(odd[:3])}")
        for name in set(own) - set(state):
            share(self.module, name, pretrained[name])
        for name in set(state) - set(own):
            unshare(self.module, name)
        self._tie()
        state = masked_state.unpacked(state, own)
        own = self.state()
        with torch.no_grad():
            for name in own:
                if name in whole:
                    whole[name].take(state[name])
                else:
                    own[name].copy_(state[name])

    def counts(self) -> dict[str, int]:
        """Parameters: trained (head left out), head, total."""
        sizes = {name: p.numel() for name, p in self.module.named_parameters()}
        for path, part in self.module.named_modules():
            if stands_for_others(part):
                sizes[f"{path}.weight"] = part.weights()
        trained = self.trained()
        head = sum(sizes[name] for name in trained if self.in_head(name))
        return {
            "trained": sum(sizes[name] for name in trained) - head,
            "head": head,
            "total": sum(sizes.values()),
        }

    def in_head(self, name: str) -> bool:
        """Whether a parameter belongs to the head."""
        return any(within(name, path) for path in self.backbone.head)

    def _seen(self) -> Iterator[tuple[str, SparseEmbedding]]:
        """Word embeddings that are reduced to the words that occur, by their weight's name."""
        for name, module in self.module.named_modules():
            if isinstance(module, SparseEmbedding):
                yield f"{name}.weight", module


#: What modules that are put around another one call it.
_AROUND = ("part", "linear")

#: Of a config, the dropout of attention, which has no module in most models.
_ATTENTION_DROPOUT = ("attention_dropout", "attention_probs_dropout_prob", "attn_pdrop")

_INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def _is_tied(module: Any) -> bool:
    """Whether a language model's head has the weight of its word embeddings."""
    head, words = module.get_output_embeddings(), module.get_input_embeddings()
    return head is not None and head.weight is getattr(words, "weight", None)
