"""The tokenizer of a checkpoint."""

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.system.hub import locate


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, bytes for a random model; without padding it pads with ends.

    Of a model without segments the tokenizer numbers none: GPT-2 would add word embeddings for
    them, DistilBERT refuse them.

    Raises:
        ConfigError: if its files cannot be read.
    """
    folder = locate(model)
    if folder is None:
        return _bytes(model)
    try:
        found = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, use_fast=True)
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # tokenizers and transformers raise what they like
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise ConfigError(
            f"the tokenizer in {folder} cannot be loaded ({reason}); copy its files again, or save "
            "it with the installed transformers"
        ) from error
    if not found.is_fast:
        raise ConfigError(
            f"the tokenizer in {folder} is {type(found).__name__}, which has no fast form; "
            "save one there (tokenizer.json)"
        )
    if found.pad_token is None:
        found.pad_token = found.eos_token
    if not getattr(config, "type_vocab_size", None):
        found.model_input_names = [n for n in found.model_input_names if n != "token_type_ids"]
    return found


def _bytes(model: ModelConfig) -> PreTrainedTokenizerBase:
    """A tokenizer that needs no download: padding, start, end, unknown, 256 bytes, mask.

    Padding, start and end come in the order that the family's numbers for them say.
    """
    numbered = {"[PAD]": "pad_token_id", "[CLS]": "bos_token_id", "[SEP]": "eos_token_id"}
    given = {token: model.shape.get(name, n) for n, (token, name) in enumerate(numbered.items())}
    specials = [*sorted(given, key=lambda token: given[token]), "[UNK]"]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*specials, *alphabet, "[MASK]"]
    vocabulary = {token: number for number, token in enumerate(words)}
    config = AutoConfig.for_model(model.family_config.model_type, **model.shape)
    segments = ["token_type_ids"] * (getattr(config, "type_vocab_size", 0) > 1)
    fast = Tokenizer(models.BPE(vocabulary, [], unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    fast.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=fast,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
        model_max_length=512 if model.family_config.mask == "causal" else 128,
        model_input_names=["input_ids", *segments, "attention_mask"],
    )
