"""A kept run as it was after training: its model, method and tokenizer."""

from dataclasses import dataclass

import torch
from safetensors.torch import load
from transformers import PreTrainedTokenizerBase

from peftbench.core.errors import ConfigError
from peftbench.core.run import Record, Run
from peftbench.data import glue_labels, prompting
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import Method, build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder


@dataclass(frozen=True)
class KeptRun:
    """A run whose weights were kept.

    Attributes:
        record: of the run.
        method: inserted into the model.
        model: with the trained weights, in eval mode on the CPU, fp32.
        tokenizer: of the checkpoint.
    """

    record: Record
    method: Method
    model: AdaptedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def run(self) -> Run:
        """The run."""
        return self.record.run

    @property
    def labels(self) -> list[str] | None:
        """Names of the classes by their numbers; None for a regression."""
        return glue_labels.label_names(self.run.task)


def rebuild(record: Record, results: ResultsFolder) -> KeptRun:
    """Load the kept weights of a run into its model.

    Raises:
        ConfigError: if nothing was kept, or the checkpoint is not at hand.
        RecordError: if the weights are not those that were saved with the record.
    """
    run = record.run
    if run.task.generation:
        raise ConfigError(
            f"{run.title} writes texts, for which there is no export; `peftbench predict {run.key} "
            "FILE -o texts.csv` writes them from its kept weights"
        )
    kept = load(results.weights(record))
    tokenizer = load_tokenizer(run.model)
    backbone = Backbone(run.model, verbalizer_ids=prompting.verbalizer_ids(run, tokenizer))
    model, method = AdaptedModel(backbone, run.task.classes, seed=0), build_method(run.method)
    with torch.random.fork_rng():
        method.insert(model)
    model.restore(kept)
    return KeptRun(record, method, model.eval(), tokenizer)
