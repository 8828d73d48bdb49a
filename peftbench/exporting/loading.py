"""Exported folders as models that are called like those of transformers."""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Run, canonical
from peftbench.data import batching, glue_labels, prompting
from peftbench.data.batching import Batch
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import MODEL, OWN, PEFT, build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.plain_model import language_model, plain_model
from peftbench.system import io

#: What an exported folder says about itself.
ABOUT = "peftbench.json"

#: The cut-off on the confidence, where one was chosen; see `exporting.review`.
REVIEW = "review.json"

#: An adapter of the form `PEFT`.
ADAPTER = "adapter_model.safetensors"

#: The trained weights in the form `OWN`.
WEIGHTS = "peftbench.safetensors"


@dataclass(frozen=True)
class Export:
    """What an exported folder says about itself.

    Attributes:
        folder: where it is.
        form: one of `methods.base.MODEL`, `PEFT`, `OWN`.
        run: whose weights it has.
        about: all that it says.
    """

    folder: Path
    form: str
    run: Run
    about: Json


def read_export(folder: Path) -> Export:
    """What an exported folder says about itself.

    Raises:
        ConfigError: if `peftbench export` did not write it, or it needs a local base model that is
            neither where it was nor beside the folder.
        RecordError: if its own description was altered.
    """
    try:
        about = io.unsealed(folder / ABOUT)
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{folder} is no folder of `peftbench export`: it has no {ABOUT}"
        ) from None
    run = Run.from_json(about["run"])
    if about["form"] != MODEL:
        run = _with_base(run, folder)
    return Export(folder, about["form"], run, about)


def _with_base(run: Run, folder: Path) -> Run:
    """A run whose local base model is where it was, or beside the folder, as the card says."""
    path = run.model.path
    if path is None or Path(path).is_dir():
        return run
    beside = folder.absolute().parent / str(run.model.checkpoint)
    if not beside.is_dir():
        raise ConfigError(
            f"the base model of {folder} is neither at {path} nor at {beside}; copy it there"
        )
    return replace(run, model=replace(run.model, path=str(beside)))


def weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files with weights in a folder, by name."""
    return {path.name: io.hash_files((path,)) for path in sorted(folder.glob("*.safetensors"))}


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of what an exported folder says of its model and tokenizer, by the file's name."""
    ends = (".json", ".txt", ".model", ".jinja")
    files = sorted(path for path in folder.iterdir() if path.suffix in ends)
    return {path.name: _hash(path) for path in files}


def _hash(path: Path) -> str:
    if path.name != "adapter_config.json":
        return io.hash_files((path,))
    config = json.loads(path.read_bytes())
    for name in ("base_model_name_or_path", "revision"):  # a folder that was moved has another
        config.pop(name, None)
    return io.digest(canonical(config).encode())


def check_files(export: Export) -> dict[str, str]:
    """Refuse a folder that is not what was exported; return the hashes of its weights.

    Exports of earlier versions have a hash of weights in the form `OWN` alone, and none of the
    other files.

    Raises:
        ConfigError: naming the file.
    """
    expected = export.about.get("weights_sha256") or (
        {WEIGHTS: export.about["trained_sha256"]} if export.form == OWN else {}
    )
    files: Json = export.about.get("files_sha256", {})
    try:
        found = weight_hashes(export.folder)
        others = file_hashes(export.folder) if files else {}
    except (OSError, ValueError) as error:
        raise _unreadable(export.folder, error) from error
    for name in [*expected, *files]:
        if name not in found | others:
            raise ConfigError(f"{export.folder / name} is missing; export the run again")
    if not found or (export.form == PEFT and ADAPTER not in found):  # pickles are not loaded
        what = ADAPTER if export.form == PEFT else "safetensors"
        raise ConfigError(f"{export.folder} has no {what}; export the run again")
    for name, known in expected.items():
        if found[name] != known:
            raise ConfigError(
                f"{export.folder / name} is torn or of another model (SHA-256 "
                f"{found[name][:12]}, exported {known[:12]}); export the run again"
            )
    for name, known in files.items():
        if others[name] != known:
            raise ConfigError(
                f"{export.folder / name} was changed since the export (SHA-256 "
                f"{others[name][:12]}, exported {known[:12]}); export the run again"
            )
    return found


def read_cut_off(export: Export) -> float | None:
    """The confidence below which people review, infinite for all texts; None where none is given.

    Raises:
        ConfigError: if it was chosen for another model.
        RecordError: if the file was altered.
    """
    try:
        about = io.unsealed(export.folder / REVIEW)
    except FileNotFoundError:
        return None
    key = about.get("key", export.run.key)  # earlier versions have none
    if key != export.run.key:
        raise ConfigError(
            f"{export.folder / REVIEW} was chosen for the run {key[:12]}, not for "
            f"{export.run.key[:12]}; export the run again with --review-error"
        )
    return math.inf if about["cut_off"] is None else float(about["cut_off"])


def load_exported(folder: str | Path, backbone: Backbone | None = None) -> nn.Module:
    """The model of an exported folder, in eval mode on the CPU.

    It is called like a model of transformers: `model(**tokenizer(text, return_tensors="pt"))` has
    `logits`, with `AutoTokenizer.from_pretrained(folder)`. Adapters that peftbench inserts itself
    come as an `InsertedModel`.

    Args:
        folder: of `peftbench export`.
        backbone: of an `InsertedModel`, to be shared with it by another one.

    Raises:
        ConfigError: if it is no such folder, or its base model is not at hand.
        RecordError: if its own description was altered.
    """
    export = read_export(Path(folder))
    if export.form == OWN:
        return InsertedModel(adapted(export, backbone), export.run)
    return called_model(export)


def called_model(export: Export) -> nn.Module:
    """The model of an export of the form `MODEL` or `PEFT`.

    Raises:
        ConfigError: if its weights are missing, torn or others, or its base model is not at hand.
    """
    check_files(export)
    base = base_model(export.run) if export.form == PEFT else None
    try:
        return load_model(export.folder) if base is None else load_adapter(export.folder, base)
    except _UNREADABLE as error:
        raise _unreadable(export.folder, error) from error


def trained_weights(export: Export) -> dict[str, Tensor]:
    """The trained weights of an export of the form `OWN`.

    Raises:
        ConfigError: if they are missing, torn or others.
    """
    check_files(export)
    return load_file(export.folder / WEIGHTS)


#: What the libraries raise where a file is missing, torn, or does not fit the model.
_UNREADABLE = (SafetensorError, OSError, ValueError, RuntimeError)


def _unreadable(folder: Path, error: Exception) -> ConfigError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ConfigError(f"{folder} cannot be loaded: {reason}; export the run again")


def load_model(folder: Path) -> nn.Module:
    """A folder of transformers; neither a pickle nor code of its own is loaded."""
    pretrained.quiet()
    made: nn.Module = AutoModelForSequenceClassification.from_pretrained(
        folder, use_safetensors=True, trust_remote_code=False, dtype=torch.float32
    )
    return made.eval()


def load_adapter(folder: Path, base: nn.Module) -> nn.Module:
    """An adapter of the peft library on a base model."""
    from peft import PeftModel

    made: nn.Module = PeftModel.from_pretrained(base, folder)
    return made.eval()


def base_model(run: Run) -> Any:
    """The pretrained model of a run as transformers has it, with a new head of the run's size.

    Raises:
        ConfigError: if it is not at hand.
    """
    if run.prompt is not None and run.prompt.name == prompting.WORDS:
        return language_model(run.model)
    model = AdaptedModel(Backbone(run.model), run.task.classes, seed=0)
    padding = load_tokenizer(run.model).pad_token_id
    return plain_model(model, run.model, glue_labels.label_names(run.task), padding)


def adapted(export: Export, backbone: Backbone | None = None) -> AdaptedModel:
    """The model of an export of the form `OWN`, as it was after training.

    Raises:
        ConfigError: if its weights are missing, torn or others, or its base model is not at hand.
    """
    run = export.run
    if backbone is None:
        ids = prompting.verbalizer_ids(run, load_tokenizer(run.model))
        backbone = Backbone(run.model, verbalizer_ids=ids)
    model = AdaptedModel(backbone, run.task.classes, seed=0)
    with torch.random.fork_rng():
        build_method(run.method).insert(model)
    model.restore(trained_weights(export))
    return model.eval()


class InsertedModel(nn.Module):
    """A model with parts that peftbench inserts itself.

    Args:
        model: of the run.
        run: whose weights it has.
    """

    def __init__(self, model: AdaptedModel, run: Run):
        super().__init__()
        self.model = model
        self.run = run

    @property
    def backbone(self) -> Backbone:
        """The pretrained weights, which no adapter writes to: others may share them."""
        return self.model.backbone

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        answer: Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """As of a classifier of transformers.

        Args:
            input_ids, token_type_ids: (batch, tokens), padded on the right.
            attention_mask: (batch, tokens), 1 where a token is one; None where all are.
            answer: (batch,) places of the answer, with prompt=words.
        """
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        kind = self.backbone.family_config.mask
        batch = {
            "input_ids": input_ids,
            "attention_mask": batching.attention_mask(real.bool(), kind),
            "lengths": real.sum(1),
        }
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        if answer is not None:
            batch["answer"] = answer
        return SequenceClassifierOutput(logits=self.model(batch))

    def unload(self) -> nn.Module:
        """The base model without the adapter, bit for bit, with a new head."""
        run = self.run
        model = AdaptedModel(self.backbone, run.task.classes, seed=0)
        padding = load_tokenizer(run.model).pad_token_id
        made: nn.Module = plain_model(model, run.model, glue_labels.label_names(run.task), padding)
        return made


class CalledModel(nn.Module):
    """A model that is called like those of transformers, for batches of `data.batching`.

    Args:
        model: a classifier, or a language model.
        verbalizer_ids: tokens that a language model scores; None for a classifier.
    """

    def __init__(self, model: nn.Module, verbalizer_ids: list[int] | None):
        super().__init__()
        self.model = model
        self.verbalizer_ids = verbalizer_ids

    def forward(self, batch: Batch) -> Tensor:
        """Logits (batch, classes) of a batch whose mask is of the kind "2d"."""
        own = isinstance(self.model, InsertedModel)  # it scores the words by itself
        names = ["input_ids", "attention_mask", "token_type_ids", *(["answer"] if own else [])]
        logits: Tensor = self.model(**{n: batch[n] for n in names if n in batch}).logits
        if own or self.verbalizer_ids is None:
            return logits
        rows = torch.arange(len(logits), device=logits.device)
        return logits[rows, batch["answer"]][:, self.verbalizer_ids]
