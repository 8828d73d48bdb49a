"""Checks of a run before it starts: its method on a tiny model, its prompt on its tokenizer."""

from dataclasses import replace

from peftbench.core.configs import WORDS
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import prompting
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone


def validate_run(run: Run, chain: bool = False) -> None:
    """Refuse a run whose method its model cannot take, on a tiny model of its family.

    Args:
        run: any.
        chain: whether the method is to take what it learnt as a prior.

    Raises:
        ConfigError: naming what the model has not, or which value is out of range.
    """
    method, model, classes = build_method(run.method), run.model, run.task.classes
    shape = model.family_config.tiny | {"vocab_size": 264}
    language = run.prompt is not None and run.prompt.name == WORDS
    skeleton = pretrained.skeleton(replace(model, shape=shape), language=language)
    verbalizer_ids = list(range(classes)) if language else None
    encoder = AdaptedModel(
        Backbone(model, loaded=skeleton, verbalizer_ids=verbalizer_ids), classes, seed=0
    )
    encoder.rehearsal = True
    try:
        method.insert(encoder)
        if chain:
            method.posterior_to_prior(encoder)
    except ValueError as error:
        raise ConfigError(f"method={run.method.name} on {model.name}: {error}") from error


def check_prompt(run: Run) -> None:
    """Refuse words that the model's tokenizer, or a checkpoint, cannot take; no weights are read.

    Raises:
        ConfigError: saying which.
    """
    if (
        run.prompt is not None
        and prompting.verbalizer_ids(run, load_tokenizer(run.model)) is not None
    ):
        pretrained.check_language_head(run.model)
