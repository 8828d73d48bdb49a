"""Embeddings of texts by the pretrained model as it came."""

import time

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
        self._seconds: dict[str, float] = {}

    def embed(self, texts: LabelledTexts) -> tuple[Floats, float]:
        """(rows, width) embeddings of one column of texts, each of length 1, and their seconds.

        The seconds are those of the first time that each text was embedded: folds share texts, and
        each would have to embed its own.
        """
        (column,) = texts.texts
        new = [text for text in dict.fromkeys(column) if text not in self._known]
        if new:
            start = time.perf_counter()
            table = LabelledTexts([new], np.zeros(len(new), np.int64))
            tokens = encode(table, self.tokenizer, self.run.train.max_length)
            rows = np.arange(len(new))
            found = text_embeddings(tokens, rows, self.run.model, self.model, self.tokenizer)
            self._known |= dict(zip(new, found, strict=True))
            each = (time.perf_counter() - start) / len(new)
            self._seconds |= dict.fromkeys(new, each)
        found = np.stack([self._known[text] for text in column])
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        seconds = sum(self._seconds[text] for text in dict.fromkeys(column))
        return np.asarray(found / np.where(norms > 0, norms, 1), dtype=np.float64), seconds
