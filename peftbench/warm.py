"""What a worker keeps between runs, so that the next one starts at once."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from peftbench import checkpoints, tasks
from peftbench.backbone import Backbone
from peftbench.run import Json, Run, canonical
from peftbench.tasks import Tokens


@dataclass
class Warm:
    """What a worker keeps between jobs: one backbone, and tokens of what it has seen.

    Attributes:
        untrained: outputs of the model before training, by what they are outputs for.
    """

    backbones: dict[str, tuple[Backbone, PreTrainedTokenizerBase]] = field(default_factory=dict)
    tokens: dict[str, Tokens] = field(default_factory=dict)
    untrained: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def backbone(self, model: Json, device: torch.device) -> tuple[Backbone, Any]:
        """The backbone of a model and its tokenizer."""
        name = canonical(model)
        if name not in self.backbones:
            self.backbones.clear()
            self.tokens.clear()
            self.untrained.clear()
            self.backbones[name] = (Backbone(model, device), checkpoints.tokenizer(model))
        return self.backbones[name]

    def tokenised(self, run: Run, split: str, tokenizer: Any, root: str | None) -> Tokens:
        """The tokens of a split for a run."""
        length = run.train["max_length"]
        name = canonical([run.task, split, length])
        if name not in self.tokens:
            self.tokens[name] = tasks.tokenise(run.task, split, tokenizer, length, root)
        return self.tokens[name]
