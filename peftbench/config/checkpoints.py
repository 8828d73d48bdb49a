"""Checkpoints of a plan, opened once: what is at hand is inspected, the rest is listed."""

from collections.abc import Iterable

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run, canonical, distinct_inputs
from peftbench.methods.settings import check_sizes
from peftbench.models.checkpoint_inspection import (
    answers_in_words,
    check_fit,
    inspect_checkpoint,
    require_language_head,
)
from peftbench.models.layer_sizes import layer_sizes
from peftbench.system import hub, offline_folder


def check_checkpoints(runs: Iterable[Run]) -> tuple[list[str], list[str]]:
    """Inspect the checkpoints of runs without torch and without the hub; ranks must fit them.

    Returns:
        A line on each model that is not at hand, so that nothing is known of it: what `run` does
        about it; and notes on those that are.

    Raises:
        ConfigError: with all that is wrong with those that are at hand.
    """
    by_model: dict[str, list[Run]] = {}
    for run in distinct_inputs(runs):
        by_model.setdefault(canonical(run.model), []).append(run)
    absent, notes, errors = [], [], []
    for those in by_model.values():
        model = those[0].model
        folder = None if model.checkpoint is None else hub.at_hand(model)
        facts = None
        if folder is not None:
            try:
                facts = inspect_checkpoint(model, folder)
            except ConfigError as error:
                ours = hub.comes_from_hub(model) and offline_folder.folder() is None
                if ours and not hub.offline():
                    absent.append(_fate(model))  # a download may have stopped, or still go on
                else:
                    errors.append(f"model.checkpoint={model.checkpoint}: {error}")
                continue
            notes += facts.notes
        elif model.checkpoint is not None:
            absent.append(_fate(model))
        sizes = layer_sizes(model, folder)
        for run in those:
            try:
                if facts is not None and folder is not None:
                    check_fit(run, facts)
                    if answers_in_words(run):
                        require_language_head(model, folder)
                if sizes is not None:
                    check_sizes(run.method, model.name, sizes)
            except ConfigError as error:
                errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(dict.fromkeys(errors)))
    return absent, notes


def _fate(model: ModelConfig) -> str:
    """What `run` does about a model that is not at hand."""
    try:
        hub.require_obtainable(model)
    except ConfigError as error:
        return f"{error}; `peftbench run` refuses it"
    revision = "" if model.revision is None else f" at {model.revision[:12]}"
    if hub.comes_from_hub(model):
        return (
            f"{model.checkpoint}{revision}: not on this machine; `peftbench run` fetches and "
            "checks it before it trains"
        )
    return f"{model.checkpoint}: `peftbench run` converts and checks it once, before it trains"
