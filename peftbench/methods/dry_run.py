"""Checks of a run before it starts: its checkpoint, and its method and prompt on two real texts.

The model of a rehearsal has the checkpoint's own config and tokenizer, cut to two blocks with
random weights, so that no login node loads a large model.
"""

from importlib.metadata import version
from itertools import repeat

import numpy as np
import torch
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from peftbench.core.configs import MethodConfig, method_nodes
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Run
from peftbench.data import batching, loading, prompting
from peftbench.data.batching import Batch
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import TokenizedSplit, tokenizer_hash
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import Method, build_method, task_loss
from peftbench.methods.settings import cannot_write
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.checkpoint_inspection import (
    answers_in_words,
    check_fit,
    inspect_checkpoint,
    one_segment,
)
from peftbench.system import hub, memo

#: Blocks of a rehearsal's model.
BLOCKS = 2

#: Batches that a method sees before the first step: more of the same tell no more.
_BATCHES = 2

#: Steps that a training of epochs has, as far as a rehearsal knows.
_STEPS = 1000

#: Training examples among which the longest is looked for.
_LOOKED_AT = 1000


def validate_run(run: Run, posterior_as_prior: bool = False) -> None:
    """Refuse a run whose method its model cannot take, on a model of two blocks.

    Args:
        run: any.
        posterior_as_prior: whether the method is to take what it learnt as a prior.

    Raises:
        ConfigError: naming what the model has not, or which value is out of range.
    """
    ids = list(range(run.task.classes)) if answers_in_words(run) else None
    _insert(run, build_method(run.method), ids, posterior_as_prior)


def check_checkpoint(run: Run) -> list[str]:
    """Refuse a checkpoint whose files or weights are not those of the model; no weights are read.

    Returns:
        What is odd and was put right.

    Raises:
        ConfigError: with all that is wrong; also if it is neither here nor to be fetched.
    """
    model = run.model
    folder = hub.locate(model)
    if folder is None:
        return []
    facts = inspect_checkpoint(model, folder)
    check_fit(run, facts)
    if answers_in_words(run):
        pretrained.check_language_head(model)
    new = pretrained.check_weights(model, answers_in_words(run))
    modules = dict.fromkeys(name.rpartition(".")[0] for name in new)
    base = model.family_config.blocks.partition(".")[0]
    poolers = [name for name in modules if name.startswith(f"{base}.")]
    notes = [
        f"{model.name}: its checkpoint has no {name}, which starts from random values and trains "
        "with the head"
        for name in poolers
        if name not in model.family_config.head
    ]
    return facts.notes + notes


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


def rehearse(run: Run, root: str | None) -> None:
    """Take one step on two real texts with the run's model of two blocks, and predict for them.

    All that a training calls of a method is called once. What passed is remembered by a hash of its
    inputs and of the versions of libraries. A method whose code is not peftbench's is inserted and
    passed through each time, but its other hooks may wait, write or leave: they are first called in
    a training, which fails alone.

    Args:
        run: any.
        root: folders of data sets, None for the hub.

    Raises:
        ConfigError: naming the method, the model and the reason.
    """
    tokenizer = load_tokenizer(run.model)
    inputs = _inputs(run, root, tokenizer)
    if inputs is not None and memo.recall("rehearsals", inputs):
        return
    config = _config(run, BLOCKS)
    texts = _two_texts(run, root)
    tokens = prompting.coder(run, tokenizer, root)(texts)
    _check_tokens(run, tokenizer, tokens, config)
    method = build_method(run.method)
    model = _insert(run, method, prompting.verbalizer_ids(run, tokenizer))
    assert tokenizer.pad_token_id is not None  # `_check_tokens`
    mask = run.model.family_config.mask
    if mask == "causal":  # as `pretrained` does: their heads look for the last token before padding
        model.module.config.pad_token_id = int(tokenizer.pad_token_id)
    batch = batching.collate(tokens, np.arange(len(texts.label)), int(tokenizer.pad_token_id), mask)
    try:
        with torch.random.fork_rng(devices=[]):
            if _own(run.method):
                _begin(run, method, model, batch)
                outputs = _one_step(run, method, model, batch)
            else:
                outputs = _there_and_back(model, batch)
    except (ConfigError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch, transformers and peft raise what they like
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{_called(run)}: a step on two texts of {run.task.name} fails in a model of two "
            f"blocks with this config and tokenizer: {type(error).__name__}: {reason}"
        ) from error
    if odd := [name for name, output in outputs.items() if not bool(output.isfinite().all())]:
        raise ConfigError(
            f"{_called(run)}: a model of two blocks with random weights gives {odd[0]} that are "
            "not finite; check the values of the method and of config.json"
        )
    if inputs is not None:
        memo.remember("rehearsals", inputs, True)


def _begin(run: Run, method: Method, model: AdaptedModel, batch: Batch) -> None:
    """Let the method read batches, as before the first step.

    Raises:
        ConfigError: if it refuses the model with its values.
    """
    try:
        method.on_train_begin(model, repeat(batch, _BATCHES))
    except ValueError as error:
        raise ConfigError(f"{_called(run)}: {error}") from error


def _one_step(
    run: Run, method: Method, model: AdaptedModel, batch: Batch
) -> dict[str, torch.Tensor]:
    """Call all that a training calls of a method then, in its order; the loss and predictions."""
    steps = None if run.budget.seconds is not None else _STEPS
    factors = method.lr_multipliers(model)
    groups = [{"params": p, "lr": 1e-6 * factors.get(n, 1)} for n, p in model.trained().items()]
    method.on_step_end(model, 0, steps)
    loss = method.compute_loss(model.train(), batch)
    if groups:
        loss.backward()
        method.on_gradients(model)
        torch.optim.SGD(groups).step()
        model.zero_grad(set_to_none=True)
    method.extra_update(model, 1, len(batch["labels"]), 1.0)
    method.on_step_end(model, 1, steps)
    method.on_train_end(model)
    found = {"loss": loss.detach()}
    with torch.no_grad():
        method.diagnostics(model)
    if not run.task.generation:
        with torch.inference_mode():
            found |= method.predict(model.eval(), batch)
    return found


def _there_and_back(model: AdaptedModel, batch: Batch) -> dict[str, torch.Tensor]:
    """The logits of a batch, once their gradients are taken."""
    logits = model.train()(batch)
    if trained := list(model.trained().values()):
        torch.autograd.grad(task_loss(logits, batch["labels"]), trained, allow_unused=True)
    return {"logits": logits.detach()}


def _insert(
    run: Run, method: Method, verbalizer_ids: list[int] | None, posterior_as_prior: bool = False
) -> AdaptedModel:
    """The method in a model with random weights: of all blocks if it names some by number."""
    if run.task.generation and not method.token_wise:
        raise ConfigError(cannot_write(run))
    config = _config(run, None if method.names_blocks else BLOCKS)
    language = verbalizer_ids is not None
    skeleton = pretrained.skeleton(run.model, language=language, config=config)
    if hub.locate(run.model) is not None:
        _fill_zeros(skeleton)
    backbone = Backbone(run.model, loaded=skeleton, verbalizer_ids=verbalizer_ids)
    model = AdaptedModel(backbone, run.task.classes, seed=0)
    model.rehearsal = True
    try:
        with torch.random.fork_rng(devices=[]):
            method.insert(model)
        method.check_budget(run.budget)
        if posterior_as_prior:
            method.posterior_to_prior(model)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except ValueError as error:
        raise ConfigError(f"{_called(run)}: {error}") from error
    except Exception as error:  # the code of a user's own method raises what it likes
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"{_called(run)}: the method cannot be inserted: {type(error).__name__}: {reason}"
        ) from error
    if _own(run.method) and not method.head_alone and model.counts()["trained"] == 0:
        raise ConfigError(
            f"{_called(run)}: with these values nothing but the head would train (a length or a "
            "width of 0?); method=head does that on purpose"
        )
    empty = [name for name, p in model.trained().items() if p.numel() == 0]
    if empty:
        raise ConfigError(f"{_called(run)}: {empty[0]} has no elements, so nothing of it trains")
    return model


def _fill_zeros(skeleton: torch.nn.Module) -> None:
    """Give what starts at 0 other values: the biases of a checkpoint have some."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in skeleton.parameters():
            if not parameter.any():
                parameter.normal_(std=0.02, generator=generator)


def _config(run: Run, blocks: int | None) -> PretrainedConfig:
    """The config of a run's model, cut to so many blocks."""
    model = run.model
    folder = hub.locate(model)
    if folder is None:
        config = pretrained.skeleton_config(model)
    else:
        config = pretrained.load_config(model, folder)
    depth = config.num_hidden_layers
    if blocks is None or depth <= blocks:
        return config
    name = config.attribute_map.get("num_hidden_layers", "num_hidden_layers")
    whole = config.to_dict()
    cut = {
        key: value[:blocks]
        for key, value in whole.items()
        if isinstance(value, list) and len(value) == depth and key.endswith("layer_types")
    }
    made: PretrainedConfig = type(config).from_dict(whole | cut | {name: blocks})
    return made


def _two_texts(run: Run, root: str | None) -> LabelledTexts:
    """The first training example and the longest of the first thousand, twice if it is one."""
    train = loading.load_split(run.task, run.task.splits["train"], root)
    batching.check_count(run, len(train.label))
    count = min(len(train.label), _LOOKED_AT)
    lengths = [sum(len(column[row]) for column in train.texts) for row in range(count)]
    return train.take(np.array([0, int(np.argmax(lengths))]))


def _check_tokens(
    run: Run, tokenizer: PreTrainedTokenizerBase, tokens: TokenizedSplit, config: PretrainedConfig
) -> None:
    """Refuse a tokenizer that does not fit its model: its padding, its ids, its segments."""
    name, rows = run.model.name, int(config.vocab_size)
    padding = tokenizer.pad_token_id
    if padding is None or not 0 <= int(padding) < rows:
        raise ConfigError(
            f"the tokenizer of {name} pads with "
            f"{'nothing (no pad_token, no eos_token)' if padding is None else f'token {padding}'}, "
            f"the model has embeddings for 0 to {rows - 1}; name a pad_token that the vocabulary "
            "has in tokenizer_config.json, or resize the embedding and save it"
        )
    if (highest := int(tokens.ids.max(initial=0))) >= rows:
        raise ConfigError(
            f"the tokenizer of {name} gives token {highest}, the model has embeddings for {rows}: "
            "call model.resize_token_embeddings(len(tokenizer)) and save, or use the tokenizer "
            "that belongs to the model"
        )
    segments = getattr(config, "type_vocab_size", None)
    if segments and int(tokens.types.max(initial=0)) >= segments:
        raise ConfigError(one_segment(name))
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    words = [number for number in tokens.ids.tolist() if number not in special]
    if words and all(number == tokenizer.unk_token_id for number in words):
        raise ConfigError(
            f"the tokenizer of {name} knows no word of the first texts of {run.task.name}: all "
            "are unknown to it; choose a model of their language, or the tokenizer that belongs to "
            "this one"
        )


def _inputs(run: Run, root: str | None, tokenizer: PreTrainedTokenizerBase) -> Json | None:
    """All on which a rehearsal depends; None where that cannot be known."""
    if not _own(run.method):
        return None
    split = run.task.splits["train"]
    return {
        "model": run.model.to_json(),
        "method": run.method.to_json(),
        "prompt": run.prompt and [run.prompt.to_json(), run.seeds()["subset"]],
        "task": [run.task.classes, run.task.texts, run.task.label],
        "data": loading.fingerprint(run.task, split, root),
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": run.train.max_length,
        "steps": run.budget.seconds is None,
        "versions": [version(name) for name in ("torch", "transformers", "peft", "tokenizers")],
    }


def _own(method: MethodConfig) -> bool:
    """Whether a method and all that are inside it are peftbench's own."""
    targets = [node["_target_"] for _, node in method_nodes(method.to_json())]
    return all(target.startswith("peftbench.") for target in targets)


def _called(run: Run) -> str:
    return f"method={run.method.name} on {run.model.name}"
