"""The backbone, its parts by role, and its head.

`Backbone` is loaded once and stays as it was. Each run gets an `Encoder` of its own that shares
every frozen tensor with it; what a run trains is a private copy. So a warm worker goes from run to
run without loading, and no run can see another.
"""

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from peftbench import attention, cpu, heads
from peftbench.backbone import Backbone, put, within
from peftbench.vocabulary import SeenWords

#: The parts of a block that a method may ask for; a family's yaml says where each one is.
ROLES = (
    "attention",
    "query",
    "key",
    "value",
    "attn_out",
    "attn_norm",
    "ffn_in",
    "ffn_out",
    "ffn_norm",
)

Batch = dict[str, Tensor]


def check_roles(name: str, roles: Iterable[str]) -> None:
    """Refuse a word that is no role.

    Raises:
        ValueError: with the roles there are.
    """
    for role in roles:
        if role not in ROLES:
            raise ValueError(f"{name}: {role!r} is no role; the roles are {', '.join(ROLES)}")


class Encoder(nn.Module):
    """One run's backbone and head.

    Args:
        backbone: whose frozen tensors are shared.
        classes: outputs of the head; 1 for regression.
        seed: of the head's weights.
        start: the bias of the last layer; for regression the mean of the training labels, or the
            first hundred steps go into learning it.
    """

    def __init__(self, backbone: Backbone, classes: int, seed: int, start: float = 0.0):
        super().__init__()
        self.backbone = [backbone]  # in a list: not a submodule
        shared = [*backbone.module.parameters(), *backbone.module.buffers()]
        self.module: Any = copy.deepcopy(backbone.module, {id(t): t for t in shared})
        self._pretrained = {name for name, _ in self.module.named_parameters()}
        self._buffers_before = {name for name, _ in self.module.named_buffers()}
        heads.start(self.module, backbone.head, classes, seed, start)

    # what methods use

    @property
    def name(self) -> str:
        """The model's name, for messages."""
        return self.backbone[0].name

    @property
    def pre_norm(self) -> bool:
        """Whether a block normalises its input instead of its sum with the residual."""
        return bool(self.backbone[0].parts.get("pre_norm", False))

    @property
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks; a shared one (ALBERT) is one."""
        blocks: nn.ModuleList = self.module.get_submodule(self.backbone[0].parts["blocks"])
        return blocks

    @property
    def dim(self) -> int:
        """The width of what goes from block to block."""
        return int(self.module.config.hidden_size)

    def block_of(self, name: str) -> int | None:
        """The block of a trained parameter; -1 for what is below the blocks, None above them."""
        path = self.backbone[0].parts["blocks"]
        if within(name, path):
            return int(name.removeprefix(path + ".").partition(".")[0])
        names = [n for n, _ in self.module.named_parameters()]
        first = next(i for i, n in enumerate(names) if within(n, path))
        return -1 if names.index(name) < first else None

    def each(self, *roles: str) -> Iterator[nn.Module]:
        """The parts with these roles, block by block.

        Raises:
            ValueError: for a role that the family does not have.
        """
        for block in self.blocks:
            for role in roles:
                yield block.get_submodule(self._path(role))

    def replace(self, *roles: str, by: Callable[[nn.Module], nn.Module]) -> None:
        """Put `by(part)` in the place of every part with these roles.

        Raises:
            ValueError: for a role that the family does not have, or that matches nothing.
        """
        if not roles:
            raise ValueError(f"no role to replace was given; the roles are {', '.join(ROLES)}")
        for block in self.blocks:
            for role in roles:
                path = self._path(role)
                put(block, path, by(block.get_submodule(path)))

    def tap(self, role: str) -> Iterator["Tap"]:
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
            ValueError: if none does.
        """
        chosen = [n for n, p in self._frozen() if which(n, p)]
        if not chosen:
            raise ValueError(f"{self.name} has no {what} to train; choose another method for it")
        for name in chosen:
            _own(self.module, name)

    # what the loop and the record use

    def forward(self, batch: Batch) -> Tensor:
        """Logits of shape (batch, classes)."""
        inputs = {name: batch[name] for name in _INPUTS if name in batch}
        if hasattr(self.module, "prefix"):
            made = self.module.prefix(len(batch["input_ids"]))
            for part, prefix in zip(self.each("attention"), made.unbind(), strict=True):
                part.prefix = prefix
        return self.module(**inputs).logits

    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters that train, head included, by name."""
        return {name: p for name, p in self.module.named_parameters() if p.requires_grad}

    def state(self) -> dict[str, Tensor]:
        """What training changes: trained parameters and the buffers that the method inserted."""
        buffers = dict(self.module.named_buffers())
        inserted = {n: b for n, b in buffers.items() if n not in self._buffers_before}
        state = {name: tensor.detach() for name, tensor in (self.trained() | inserted).items()}
        return state | {name: seen.whole() for name, seen in self._seen()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Copy a state back.

        Raises:
            ValueError: if it is of another method or model.
        """
        own = self.state()
        if set(own) != set(state):
            odd = sorted(set(own) ^ set(state))[:3]
            raise ValueError(f"these trained weights do not fit {self.name}: {', '.join(odd)} …")
        whole = dict(self._seen())
        with torch.no_grad():
            for name, tensor in own.items():
                if name in whole:
                    whole[name].take(state[name])
                else:
                    tensor.copy_(state[name])

    def counts(self) -> dict[str, int]:
        """Parameters: trained (head left out), head, total."""
        sizes = {name: p.numel() for name, p in self.module.named_parameters()}
        sizes |= {name: seen.rest.numel() for name, seen in self._seen()}
        trained = self.trained()
        head = sum(sizes[name] for name in trained if self.in_head(name))
        return {
            "trained": sum(sizes[name] for name in trained) - head,
            "head": head,
            "total": sum(sizes.values()),
        }

    def in_head(self, name: str) -> bool:
        """Whether a parameter belongs to the head."""
        return any(within(name, path) for path in self.backbone[0].head)

    def settle(self, half: bool, words: Tensor) -> None:
        """Make ready to train, once all is inserted; what is computed stays the same.

        The last block goes on with the first position alone where the head reads no other, word
        embeddings that train are reduced to the words that occur, and a CPU gets its own dropout.

        Args:
            half: store frozen linear weights in bf16, to which autocast would cast them each time.
            words: ids that occur in training.
        """
        embedding = self.module.get_input_embeddings()
        if isinstance(embedding, nn.Embedding) and embedding.weight.requires_grad:
            rest = self.backbone[0].module.get_input_embeddings().weight
            self.module.set_input_embeddings(SeenWords(embedding, rest, words))
        if path := self.backbone[0].parts.get("first"):
            self.blocks[-1].get_submodule(path).register_forward_hook(_first_position)
        if next(self.module.parameters()).device.type == "cpu":
            cpu.hasten(self.module)
        for module in self.module.modules():
            if half and isinstance(module, nn.Linear):
                for name, p in module.named_parameters(recurse=False):
                    if not p.requires_grad:
                        setattr(module, name, self.backbone[0].half(p))

    def _seen(self) -> Iterator[tuple[str, SeenWords]]:
        """Word embeddings that are reduced to the words that occur, by their weight's name."""
        for name, module in self.module.named_modules():
            if isinstance(module, SeenWords):
                yield f"{name}.weight", module

    def _frozen(self) -> Iterator[tuple[str, nn.Parameter]]:
        for name, parameter in self.module.named_parameters():
            if name in self._pretrained and not self.in_head(name):
                yield name, parameter

    def _path(self, role: str) -> str:
        paths = self.backbone[0].parts["roles"]
        if role not in paths:
            raise ValueError(f"{self.name} has no role {role!r}; its roles are {', '.join(paths)}")
        return str(paths[role])


class Tap(nn.Module):
    """A part that remembers what it got, for another part of its block."""

    seen: Tensor

    def __init__(self, part: nn.Module):
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        """What the part makes of x."""
        self.seen = x
        return self.part(x)


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def _first_position(module: nn.Module, given: object, output: object) -> object:
    """A hook that keeps position 0 of (batch, tokens, dim), alone or first in a tuple."""
    if isinstance(output, tuple):
        return (output[0][:, :1], *output[1:])
    assert isinstance(output, Tensor)
    return output[:, :1]


def _own(root: nn.Module, name: str) -> None:
    """Give a module a trainable copy of a parameter that it shares."""
    path, _, leaf = name.rpartition(".")
    owner = root.get_submodule(path)
    shared = getattr(owner, leaf)
    setattr(owner, leaf, nn.Parameter(shared.detach().clone(), requires_grad=True))
