"""Trained weights as a folder that the peft library loads."""

import inspect
import json
from pathlib import Path

from safetensors.torch import load, save_file
from torch import Tensor

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record
from peftbench.data import prompting
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import Method, build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import Results


def export_peft_adapter(record: Record, results: Results, folder: Path) -> None:
    """Write adapter_config.json and adapter_model.safetensors for a run's kept weights.

    Raises:
        ConfigError: if nothing was kept, the folder is not empty, or the library has no such thing.
        RecordError: if the weights are not those that were saved with the record.
    """
    run = record.run
    kept = results.weights(record)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; name a new folder")
    method = build_method(run.method)
    verbalizer_ids = prompting.verbalizer_ids(run, load_tokenizer(run.model))
    encoder = AdaptedModel(
        Backbone(run.model, verbalizer_ids=verbalizer_ids), run.task.classes, seed=0
    )
    method.insert(encoder)
    encoder.restore(load(kept))
    try:
        config, tensors = peft_form(method, encoder)
    except ValueError as error:
        raise ConfigError(f"{run.title}: {error}") from error
    config |= base_model(run.model)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def base_model(model: ModelConfig) -> Json:
    """Where the library finds the model under an adapter: on the hub at a commit, or in a folder.

    The folder is absolute: the library takes a bare name for that of a model on the hub.
    """
    if model.path is None:
        return {"base_model_name_or_path": model.checkpoint, "revision": model.revision}
    return {"base_model_name_or_path": str(Path(model.path).absolute()), "revision": None}


def peft_form(method: Method, encoder: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
    """The library's config and tensors, head included, and behind a prefix the position table.

    Raises:
        ValueError: if the library has no such thing.
    """
    backbone = encoder.backbone
    if backbone.family_config.split:
        raise ValueError(
            f"{encoder.name} has query, key and value in one linear outside of peftbench, where "
            "the library cannot tell them apart"
        )
    if encoder.added_bias is not None:
        raise ValueError(
            f"{encoder.name} has a head without a bias outside of peftbench, where a regression "
            "would lose the mean of its labels"
        )
    config, inner = method.to_peft(encoder)
    prompt = config["peft_type"] == "PREFIX_TUNING"
    start = "base_model" if prompt else "base_model.model"
    tensors = inner if prompt else {f"{start}.{name}": tensor for name, tensor in inner.items()}
    state = encoder.state()
    tensors |= {f"{start}.{name}": t for name, t in state.items() if encoder.in_head(name)}
    if prompt:
        name, places = position_table(encoder)
        _check_takes_prefix(encoder)
        tensors[f"{start}.{name}"] = places.roll(config["num_virtual_tokens"], 0)
    kind: str | None = "SEQ_CLS"
    if backbone.verbalizer_ids is not None:  # the library has no name for a masked language model
        kind = "CAUSAL_LM" if backbone.causal else None
    config |= {"task_type": kind, "modules_to_save": backbone.head or None, "inference_mode": True}
    return config, {name: tensor.contiguous() for name, tensor in tensors.items()}


def _check_takes_prefix(encoder: AdaptedModel) -> None:
    """Refuse a model to which the library cannot give keys and values, as it does when it runs.

    Raises:
        ValueError: if transformers' forward of the model has no argument for them.
    """
    forward = encoder.module.base_model.forward
    if "past_key_values" not in inspect.signature(forward).parameters:
        raise ValueError(
            f"{encoder.name} takes no keys and values from outside in transformers, so that the "
            "library cannot put a prefix in front; choose another method to export"
        )


def position_table(encoder: AdaptedModel) -> tuple[str, Tensor]:
    """The name and the values of a backbone's embeddings of positions.

    Behind a prefix of n keys the library counts positions from n on; here they are as they were in
    pretraining. A table moved on by n, which the library loads by its name, makes up for it.

    Raises:
        ValueError: if positions are not learned, one by one.
    """
    for name, table in encoder.module.named_parameters():
        if name.endswith("position_embeddings.weight"):
            return name, table.detach()
    raise ValueError(
        f"{encoder.name} has no table of positions; behind a prefix the library would count them "
        "otherwise, and give other logits"
    )
