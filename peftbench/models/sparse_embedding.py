"""Training word embeddings without carrying along the words that training never shows.

A word without an occurrence has no gradient, and AdamW's moments of it stay 0; yet a dense step
writes the gradient, both moments and the weight of the whole table, which is half of MiniLM. So
only the rows that occur are parameters. One thing differs from the dense step: rows that never
occur are not decayed (by less than a thousandth over a usual training).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SparseEmbedding(nn.Module):
    """An embedding whose rows in `token_ids` train, under the name `weight`, while the rest stay.

    Args:
        embedding: with a `padding_idx` or without; its weight is the start of the rows.
        rest: the rows of all words, (vocabulary, dim), never written to.
        token_ids: every token that training shows, sorted, without repeats.
    """

    def __init__(self, embedding: nn.Embedding, rest: Tensor, token_ids: Tensor):
        super().__init__()
        weight = embedding.weight
        self.token_ids = token_ids.to(weight.device)
        self.rest = rest.detach()
        self.weight = nn.Parameter(weight.detach()[self.token_ids])
        # not a buffer: what follows from the data needs no place in a checkpoint
        self.place = torch.full((len(weight),), -1, device=weight.device)
        self.place[self.token_ids] = torch.arange(len(self.token_ids), device=weight.device)
        padding = embedding.padding_idx
        self.padding = None if padding is None else _or_none(int(self.place[padding]))

    def forward(self, ids: Tensor) -> Tensor:
        """(batch, tokens) to (batch, tokens, dim); where gradients are wanted, seen words only.

        Predictions with dropout are made in training mode too, of any words.
        """
        place = self.place[ids]
        if self.training and torch.is_grad_enabled():
            return F.embedding(place, self.weight, self.padding)
        seen = F.embedding(place.clamp(min=0), self.weight, self.padding)
        return torch.where(place[..., None] >= 0, seen, F.embedding(ids, self.rest))

    def weights(self) -> int:
        """How many weights train, as a person counts them: the whole table."""
        return self.rest.numel()

    def whole(self) -> Tensor:
        """The table of all words as it is now."""
        table = self.rest.to(self.weight.dtype, copy=True)
        table[self.token_ids] = self.weight.detach()
        return table

    def take(self, table: Tensor) -> None:
        """Undo `whole`."""
        with torch.no_grad():
            table = table.to(self.weight.device)
            self.weight.copy_(table[self.token_ids])
            others = (self.place < 0)[:, None]
            rest = table.to(self.rest)
            if bool(((rest != self.rest) & others).any()):  # `rest` is others' too
                self.rest = rest.clone()


def _or_none(place: int) -> int | None:
    return None if place < 0 else place
