"""What a worker keeps between runs, so that the next one starts at once."""

import gc
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from peftbench.core.run import Run, canonical
from peftbench.data import prompting, tokenization
from peftbench.data.prompt_config import WORDS
from peftbench.data.tokenization import TokenizedSplit
from peftbench.data.tokenizer import load_tokenizer
from peftbench.models.backbone import Backbone


@dataclass
class WarmCache:
    """What a worker keeps between jobs: one backbone, and tokens of what it has seen.

    Attributes:
        untrained: outputs of the model before training, by what they are outputs for.
    """

    backbones: dict[str, tuple[Backbone, PreTrainedTokenizerBase]] = field(default_factory=dict)
    tokens: dict[str, TokenizedSplit] = field(default_factory=dict)
    untrained: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    _frozen: bool = False

    def backbone(self, run: Run, device: torch.device) -> tuple[Backbone, Any]:
        """The backbone of a run's model, as its form wants it, and the tokenizer."""
        prompt = run.prompt if run.prompt and run.prompt.name == WORDS else None
        name = canonical([run.model, prompt and [prompt.template, prompt.verbalizer]])
        name += " writes" * run.task.generation
        if name not in self.backbones:
            self.backbones.clear()
            self.tokens.clear()
            if self._frozen:  # a program around this one may have frozen its own
                gc.unfreeze()
                self._frozen = False
            tokenizer = load_tokenizer(run.model)
            verbalizer_ids = prompting.verbalizer_ids(run, tokenizer)
            self.backbones[name] = (
                Backbone(run.model, device, verbalizer_ids=verbalizer_ids),
                tokenizer,
            )
        return self.backbones[name]

    def tokenised(
        self, run: Run, split: str, tokenizer: Any, root: str | None, *, asked: bool = False
    ) -> TokenizedSplit:
        """The tokens of a split for a run; `asked`: without the texts that are wanted."""
        length = run.train.max_length
        seed = run.seeds()["subset"] if run.prompt and run.prompt.num_demonstrations else None
        name = canonical([run.task, split, length, run.prompt, seed, asked])
        if name not in self.tokens:
            prompt = prompting.build_prompt(run, root)
            self.tokens[name] = tokenization.tokenize_split(
                run.task, split, tokenizer, length, root, prompt, asked=asked
            )
        return self.tokens[name]

    def keep(self) -> None:
        """Spare the collector what stays: libraries and backbone, a million objects or so.

        For a process of its own: to look through them took longer than all else between two runs.
        """
        if not self._frozen:
            gc.collect()
            gc.freeze()
            self._frozen = True
