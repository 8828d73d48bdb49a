"""Embeddings of texts by the pretrained model as it came."""

import numpy as np
import torch

from peftbench.core.arrays import Floats
from peftbench.core.run import Run
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import encode
from peftbench.data.tokenizer import load_tokenizer
from peftbench.exporting.reference import text_embeddings
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone


class FrozenModel:
    """A pretrained model that embeds texts; each text is passed through it once.

    Args:
        run: whose model and longest text are used.
    """

    def __init__(self, run: Run):
        self.run = run
        self.tokenizer = load_tokenizer(run.model)
        with torch.random.fork_rng():
            self.model = AdaptedModel(Backbone(run.model), classes=2, seed=0).eval()
        self._known: dict[str, Floats] = {}

    def embed(self, texts: LabelledTexts) -> Floats:
        """(rows, width) embeddings of one column of texts, each of length 1."""
        (column,) = texts.texts
        new = [text for text in dict.fromkeys(column) if text not in self._known]
        if new:
            table = LabelledTexts([new], np.zeros(len(new), np.int64))
            tokens = encode(table, self.tokenizer, self.run.train.max_length)
            rows = np.arange(len(new))
            found = text_embeddings(tokens, rows, self.run.model, self.model, self.tokenizer)
            self._known |= dict(zip(new, found, strict=True))
        found = np.stack([self._known[text] for text in column])
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found / np.where(norms > 0, norms, 1), dtype=np.float64)
