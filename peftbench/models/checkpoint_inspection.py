"""A checkpoint's folder, opened once before work: headers and configs, no torch, no weights.

What can be known from them is refused here: torn or missing files, quantised weights, weights of
another shape or of other blocks than the config, a tokenizer that does not fit. That every single
tensor is there is checked with transformers' own code in `pretrained.check_weights`.
"""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from peftbench.core.configs import GENERATE, LEAST_LENGTH, WORDS, ModelConfig
from peftbench.core.errors import ConfigError, is_whole
from peftbench.core.run import Json, Run, canonical
from peftbench.models.config_values import CONFIG, refuse_wrong_values
from peftbench.models.safetensors_headers import INDEX, Tensor, read_headers, read_json
from peftbench.models.tokenizer_files import TokenizerFacts, read_tokenizer
from peftbench.system import io, memo

#: What wrappers put in front of every name: peft, DistributedDataParallel, torch.compile, a
#: LightningModule or another module around the model.
WRAPPERS = ("base_model.model.", "module.", "_orig_mod.", "model.")

#: Types that weights may have; all are loaded as fp32.
_FLOATS = ("F64", "F32", "F16", "BF16")

#: Ends of the names of tables, and where the config says how many rows they have.
_TABLES = (
    (("word_embeddings", "embed_tokens", "wte", "tok_embeddings"), ("vocab_size",)),
    (("position_embeddings", "wpe"), ("max_position_embeddings", "n_positions")),
    (("token_type_embeddings",), ("type_vocab_size",)),
)

#: Names of the number of blocks in config.json.
DEPTHS = ("num_hidden_layers", "n_layers", "n_layer")

#: Below this share of the model's vocabulary a tokenizer is another model's, or was cut.
_LEAST_SHARE = 0.5


@dataclass(frozen=True)
class CheckpointFacts:
    """What an inspection found.

    Attributes:
        wrapper: what stands in front of every name in the file, and is taken away.
        positions: how long an input may be; None where nothing says so.
        segments: how many texts of an input the model tells apart; None where it has no table.
        emits_segments: whether the tokenizer numbers them; None where only its class says so.
        model_max_length: the longest input of the tokenizer; None for any.
        notes: what is odd and was put right, for people.
    """

    wrapper: str
    positions: int | None
    segments: int | None
    emits_segments: bool | None
    model_max_length: int | None
    notes: list[str]


def inspect_checkpoint(model: ModelConfig, folder: Path) -> CheckpointFacts:
    """Open a checkpoint; what passed is remembered while its files do not change.

    Raises:
        ConfigError: with all that is wrong, and what to do.
    """
    files = sorted(path for path in folder.glob("*") if path.is_file())
    about = [[p.name, str(p.resolve()), s.st_size, s.st_mtime_ns] for p in files if (s := p.stat())]
    inputs = [about, model.family_config.json]
    if (known := memo.recall("checkpoints", inputs)) is not None:
        return CheckpointFacts(**known)
    found = _inspect(model, folder)
    memo.remember("checkpoints", inputs, asdict(found))
    return found


def check_fit(run: Run, facts: CheckpointFacts) -> None:
    """Refuse a run whose inputs are too long for its model's positions, or have too many segments.

    Raises:
        ConfigError: saying what to set.
    """
    longest = min(run.train.max_length, facts.model_max_length or run.train.max_length)
    if longest < LEAST_LENGTH:
        raise ConfigError(
            f"{run.model.name}: its tokenizer_config.json has model_max_length="
            f"{facts.model_max_length}, which leaves nothing of a text; give that of the model, at "
            f"least {LEAST_LENGTH}"
        )
    new = run.task.new_tokens if run.task.generation else 0
    if new and facts.positions is not None and longest + new > facts.positions:
        raise ConfigError(
            f"{run.task.name}: train.max_length={run.train.max_length} and "
            f"task.max_new_tokens={new} are more than {run.model.name} has positions for, "
            f"{facts.positions}; lower one of them"
        )
    if facts.positions is not None and longest > facts.positions:
        raise ConfigError(
            f"train.max_length={run.train.max_length}: {run.model.name} has positions for "
            f"{facts.positions} tokens, and its tokenizer cuts at "
            f"{facts.model_max_length or 'none'}; give train.max_length={facts.positions} or less"
        )
    pairs = len(run.task.texts) > 1 and not answers_in_words(run)  # a prompt is one text
    if pairs and facts.segments == 1 and facts.emits_segments:
        raise ConfigError(one_segment(run.model.name))


def answers_in_words(run: Run) -> bool:
    """Whether the head of a language model answers."""
    return run.prompt is not None and run.prompt.name in (WORDS, GENERATE)


def require_language_head(model: ModelConfig, folder: Path) -> None:
    """Refuse a checkpoint whose files name no part of its family's language-model head.

    Raises:
        ConfigError: saying what to choose instead.
    """
    language_model = model.family_config.language_model
    head = None if language_model is None else language_model.head
    if head is not None and not any(f"{head}." in name for name in read_headers(folder)):
        raise ConfigError(without_language_head(model, head))


def without_language_head(model: ModelConfig, missing: str) -> str:
    """Why a checkpoint without the weights `missing` cannot answer in words."""
    return (
        f"prompt=words: the checkpoint of {model.name} has no language-model head (no {missing}); "
        "choose a model that was published with one, such as model=bert_base (for texts "
        "model=smollm2_135m), or prompt=head"
    )


def one_segment(name: str) -> str:
    """Why a tokenizer that numbers the texts of a pair does not fit a model with one segment."""
    return (
        f"{name} has one segment (type_vocab_size=1), but its tokenizer gives the second text "
        "of a pair segment 1: it is another model's tokenizer; use the checkpoint's own, or, if it "
        'is meant, set "model_input_names": ["input_ids", "attention_mask"] in its '
        "tokenizer_config.json"
    )


def unwrapped(names: list[str], blocks: str) -> tuple[str, bool]:
    """What wrappers put in front of all names, and whether the blocks are found behind it.

    Args:
        names: of tensors.
        blocks: the family's path of blocks, `bert.encoder.layer`; a file may leave out its first
            part, the name of the base model.
    """
    starts = (f"{blocks}.", f"{blocks.partition('.')[2]}.")
    taken = ""
    while True:
        rest = [name.removeprefix(taken) for name in names]
        if any(name.startswith(starts) for name in rest):
            return taken, True
        wrapper = next((w for w in WRAPPERS if all(name.startswith(w) for name in rest)), None)
        if wrapper is None:
            return taken, False
        taken += wrapper


def _inspect(model: ModelConfig, folder: Path) -> CheckpointFacts:
    config = read_config(folder)
    tensors = read_headers(folder)
    if (folder / "adapter_config.json").is_file():
        raise ConfigError(
            f"{folder} has adapter_config.json beside full weights, so that transformers would put "
            "the adapter on top of them; if it is merged into them already, move "
            "adapter_config.json and adapter_model.safetensors out of the folder, else merge it "
            "first (PeftModel.merge_and_unload, then save_pretrained)"
        )
    _refuse_quantised(folder, config, tensors)
    blocks = model.family_config.blocks
    wrapper, found = unwrapped(list(tensors), blocks)
    if not found:
        some = sorted(tensors)[0] if tensors else "nothing"
        raise ConfigError(
            f"{folder}: no name in its weights is in {blocks}.0, where {model.family} has its "
            f"blocks (the first name is {some}); names may start with {', '.join(WRAPPERS)} if "
            "all do, other ones are to be renamed before saving"
        )
    inner = {name.removeprefix(wrapper): tensor for name, tensor in tensors.items()}
    inner = {_with_base(name, blocks): tensor for name, tensor in inner.items()}
    problems = [*_blocks(config, inner, model), *_tables(config, inner)]
    try:
        tokenizer = read_tokenizer(folder)
    except ConfigError as error:
        raise ConfigError("\n".join([f"{folder}: {one}" for one in problems] + [str(error)])) from (
            error
        )
    rows = _rows(inner, _TABLES[0][0])
    problems += _vocabulary(tokenizer, rows or _number(config, _TABLES[0][1]))
    if problems:
        raise ConfigError("\n".join(f"{folder}: {one}" for one in problems))
    notes = []
    if wrapper:
        notes.append(
            f"{model.name}: all {len(tensors)} names of its weights start with {wrapper!r}, which "
            "a wrapper left there and which is taken away"
        )
    if head := _head(inner, model.family_config.head):
        notes.append(
            f"{model.name}: its checkpoint has a head of its own ({head}), which is replaced: "
            "every run starts with a new one for its task"
        )
    if tokenizer.segments and "type_vocab_size" not in config and model.family != "bert":
        notes.append(
            f"{model.name}: its tokenizer numbers the texts of a pair, for which the model has no "
            "place; the numbers are left out"
        )
    return CheckpointFacts(
        wrapper,
        _positions(config, inner),
        _rows(inner, _TABLES[2][0]),
        tokenizer.segments,
        tokenizer.model_max_length,
        notes,
    )


def read_config(folder: Path) -> Json:
    """The config.json of a checkpoint.

    Raises:
        ConfigError: if it is missing or torn, has no model_type, or a value of a wrong type.
    """
    if not (folder / "config.json").is_file():
        raise ConfigError(
            f"{folder} has no config.json: a checkpoint is a transformers folder with config.json "
            "and safetensors weights"
        )
    config = read_json(folder / "config.json")
    refuse_wrong_values(folder / "config.json", config, CONFIG)
    if "model_type" not in config:
        raise ConfigError(
            f"{folder / 'config.json'} has no model_type; save the model again with transformers"
        )
    return config


def _refuse_quantised(folder: Path, config: Json, tensors: dict[str, Tensor]) -> None:
    how = config.get("quantization_config") or config.get("compression_config")
    method = how.get("quant_method", "quantised") if isinstance(how, dict) else None
    odd = [
        name
        for name, tensor in tensors.items()
        if tensor.dtype not in _FLOATS and not _is_buffer(name)
    ]
    if method is not None or odd:
        reason = (
            f"its config.json has a quantization_config ({method})"
            if method is not None
            else f"{odd[0]} is of type {tensors[odd[0]].dtype}"
        )
        raise ConfigError(
            f"{folder} is quantised: {reason}; runs train on weights in 16 or 32 bits: give the "
            "checkpoint that it was made from, or dequantise it (model.dequantize(), then "
            "save_pretrained); to train on top of 4-bit weights use QLoRA (peft with bitsandbytes)"
        )


def _is_buffer(name: str) -> bool:
    """Whether a name is one of the buffers that older releases of transformers saved."""
    return bool(re.search(r"(^|\.)(position_ids|token_type_ids|masked_bias|attn\.bias)$", name))


def _with_base(name: str, blocks: str) -> str:
    """The name with its base model in front, where the file holds the base model alone."""
    base, _, rest = blocks.partition(".")
    first = rest.partition(".")[0]
    bare = ("embeddings.", "pooler.", f"{first}.", "wte.", "wpe.", "embed_tokens.")
    return f"{base}.{name}" if name.startswith(bare) else name


def _head(tensors: dict[str, Tensor], head: list[str]) -> str | None:
    """What a checkpoint was trained to answer, by the last weight of its classifier."""
    named = [name for name in tensors if name.startswith(f"{head[-1]}.")]
    last = [name for name in sorted(named) if len(tensors[name].shape) == 2]
    return f"{last[-1]}, {tensors[last[-1]].shape[0]} outputs" if last else None


def _blocks(config: Json, tensors: dict[str, Tensor], model: ModelConfig) -> Iterator[str]:
    """What is wrong with the blocks: how many there are, and whether they are alike."""
    path = f"{model.family_config.blocks}."
    inside: dict[int, set[str]] = {}
    for name in tensors:
        number, _, rest = name.removeprefix(path).partition(".")
        if name.startswith(path) and number.isdigit() and not _is_buffer(name):
            inside.setdefault(int(number), set()).add(rest)
    shared = model.family_config.model_type == "albert"  # one block, applied again and again
    depth = None if shared else _number(config, DEPTHS)
    if depth is not None and sorted(inside) != list(range(depth)):
        have = len(inside)
        yield (
            f"config.json says {depth} blocks, the weights hold {have}"
            f"{'' if have != depth else f' (numbers {min(inside)} to {max(inside)})'}; give "
            "the config.json that was saved with these weights, or the weights that belong to it"
        )
        return
    every = set().union(*inside.values()) if inside else set()
    norm = str(model.family_config.roles.get("attn_norm"))
    for block, names in sorted(inside.items()):
        missing = sorted(
            name for name in every - names if block or not name.startswith(norm)
        )  # ModernBERT's first block has no attn_norm
        if missing:
            yield (
                f"the weights of {path}{block}.{missing[0]} are missing"
                f"{f' and {len(missing) - 1} more of that block' if missing[1:] else ''}, which "
                "other blocks have; save or copy the checkpoint again"
            )


def _tables(config: Json, tensors: dict[str, Tensor]) -> Iterator[str]:
    """What is wrong with the rows of the tables of words, positions and segments."""
    for ends, keys in _TABLES:
        rows, said = _rows(tensors, ends), _number(config, keys)
        if rows is not None and said is not None and rows != said:
            key = next(key for key in keys if key in config)
            yield (
                f"config.json says {key}={said}, the table in the weights has {rows} rows; give "
                "the config.json that was saved with these weights"
            )


def _vocabulary(tokenizer: TokenizerFacts, rows: int | None) -> Iterator[str]:
    """What is wrong with a tokenizer, for a model with so many rows of words."""
    if rows is not None and tokenizer.highest >= rows:
        yield (
            f"its tokenizer has tokens up to {tokenizer.highest} ({tokenizer.highest_token!r}), "
            f"the model has embeddings for {rows} (0 to {rows - 1}): tokens were added and the "
            "embedding was not resized; call model.resize_token_embeddings(len(tokenizer)) and "
            "save, or use the tokenizer that belongs to the model"
        )
    if rows is not None and tokenizer.tokens < _LEAST_SHARE * rows:
        yield (
            f"its tokenizer knows {tokenizer.tokens} tokens, the model has embeddings for {rows}: "
            "it is another model's or was cut, and most words would be unknown; copy the "
            "tokenizer's files from the checkpoint that the model was made from"
        )
    if tokenizer.can_pad is False:
        yield (
            "its tokenizer has neither a pad_token nor an eos_token, so that texts of different "
            "lengths cannot share a batch; name one in its tokenizer_config.json, such as "
            '"pad_token": "<pad>" of a token that the vocabulary has'
        )


def _positions(config: Json, tensors: dict[str, Tensor]) -> int | None:
    """How many tokens have a position; RoBERTa counts them from behind the padding's number.

    In the code of MPNet that number is 1. Positions that are rotations have no table: there it is
    the length of the pretraining, unless the config stretches them.
    """
    rows = _rows(tensors, _TABLES[1][0])
    if rows is None and not config.get("relative_attention") and not _stretched(config):
        found = config.get("max_position_embeddings")
        return found if isinstance(found, int) else None
    if rows is not None and config["model_type"] == "mpnet":
        return rows - 2
    if rows is not None and config["model_type"] in ("roberta", "xlm-roberta", "camembert"):
        padding = config.get("pad_token_id", 1)
        return rows - 1 - int(padding or 0)
    return rows


def _stretched(config: Json) -> bool:
    rotary = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return bool({"rope_type", "type"} & rotary.keys()) and "default" not in rotary.values()


def _rows(tensors: dict[str, Tensor], ends: tuple[str, ...]) -> int | None:
    for name, tensor in tensors.items():
        if name.removesuffix(".weight").rpartition(".")[2] in ends and len(tensor.shape) == 2:
            return tensor.shape[0]
    return None


def _number(config: Json, keys: tuple[str, ...]) -> int | None:
    found = next((config[key] for key in keys if key in config), None)
    return found if is_whole(found) else None


def files_hash(folder: Path) -> str:
    """SHA-256 over names and contents of the files beside the weights that decide a score.

    These are the config, the index of shards, and whatever a tokenizer reads.
    """
    found = {path for pattern in _FILES for path in folder.glob(pattern) if path.is_file()}
    return io.digest(canonical([[p.name, io.hash_files((p,))] for p in sorted(found)]).encode())


_FILES = (
    *("config.json", INDEX, "tokenizer.json", "tokenizer_config.json", "tokenizer.*.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.*", "*.vocab", "merges.txt"),
    *("*.model", "*.tiktoken", "bpe.codes", "dict.txt", "emoji.json", "normalizer.json"),
)
