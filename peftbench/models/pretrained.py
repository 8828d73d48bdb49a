"""Pretrained weights from a package, a folder or the hub, or random ones."""

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
)
from transformers.utils import logging

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.data.tokenizer import load_tokenizer
from peftbench.system.hub import locate


def backbone(model: ModelConfig, language: bool = False) -> tuple[nn.Module, list[str]]:
    """Load a sequence classifier in fp32, and name the parameters that the checkpoint lacks.

    With `language` load a language model instead, of which nothing may be lacking.

    Raises:
        ConfigError: if the weights are not those that the configuration names.
    """
    folder = locate(model)
    if folder is None:
        return skeleton(model, language=language), []
    if model.sha256 and weights_hash(folder) != model.sha256:
        raise ConfigError(
            f"the weights of {model.name} in {folder.name} hash to {weights_hash(folder)[:12]}, "
            f"not to {model.sha256[:12]}: install the checkpoint again"
        )
    logging.set_verbosity_error()  # the head is new, and we know it
    logging.disable_progress_bar()
    loaded, info = architecture(model, language).from_pretrained(
        folder,
        num_labels=2,
        dtype=torch.float32,
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
    )
    lacking = sorted(info["missing_keys"])
    if language and lacking:
        raise ConfigError(_without_head(model, lacking[0]))
    if model.family_config.mask == "causal":
        loaded.config.use_cache = False
        loaded.config.pad_token_id = load_tokenizer(
            model
        ).pad_token_id  # the head reads what is before
    return loaded, lacking


def architecture(model: ModelConfig, language: bool) -> Any:
    """The class of transformers that makes a model of this family.

    Raises:
        ConfigError: if a language model is asked for and the family has none.
    """
    if not language:
        return AutoModelForSequenceClassification
    return AutoModelForCausalLM if model.causal else AutoModelForMaskedLM


def check_language_head(model: ModelConfig) -> None:
    """Refuse a checkpoint whose files name no part of its family's language-model head.

    Raises:
        ConfigError: saying what to choose instead.
    """
    language_model = model.family_config.language_model
    folder, head = locate(model), None if language_model is None else language_model.head
    if folder is None or head is None:
        return
    names: set[str] = set()
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="np") as file:
            names.update(file.keys())
    if not any(f"{head}." in name for name in names):
        raise ConfigError(_without_head(model, head))


def _without_head(model: ModelConfig, lacking: str) -> str:
    return (
        f"prompt=words: the checkpoint of {model.name} has no language-model head (no {lacking}); "
        "choose a model that was published with one, such as model=bert_base, or prompt=head"
    )


def skeleton(model: ModelConfig, device: str = "cpu", language: bool = False) -> nn.Module:
    """Build the architecture of `model["shape"]` with random weights, or none on `meta`."""
    config = AutoConfig.for_model(model.family_config.model_type, **model.shape, num_labels=2)
    with torch.device(device), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the weights of a random model are part of what it is
        made: nn.Module = architecture(model, language).from_config(config, dtype=torch.float32)
    if model.family_config.mask == "causal":
        made.config.use_cache = False  # type: ignore[union-attr]
    return made


@cache
def weights_hash(folder: Path) -> str:
    """SHA-256 over the safetensors of a folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with open(path, "rb") as file:
            while chunk := file.read(1 << 22):
                digest.update(chunk)
    return digest.hexdigest()
