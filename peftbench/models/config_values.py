"""Types of the values in a checkpoint's JSON files that are read at planning, without torch.

All other values of config.json are judged by the config class of transformers, in
`pretrained.load_config`.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError, is_whole
from peftbench.core.run import Json

#: What a value must be, in words, and whether it is.
Kind = tuple[str, Callable[[Any], bool]]


def _is_token(value: Any) -> bool:
    text = value.get("content") if isinstance(value, dict) else value
    return value is None or isinstance(text, str)


def _is_length(value: Any) -> bool:
    """Whether it is a longest input: files write 1e30 for none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or (number and value >= 1 and (value == math.inf or value % 1 == 0))


_COUNT: Kind = ("a whole number, 1 or more", lambda value: is_whole(value) and value >= 1)
_COUNT_OR_NONE: Kind = ("a whole number, 0 or more", lambda value: is_whole(value) and value >= 0)
_OBJECT: Kind = (
    "an object ({...}) or null",
    lambda value: value is None or isinstance(value, dict),
)
_TOKEN: Kind = ('a text, an object with "content", or null', _is_token)
_SIDE: Kind = ('"left" or "right"', lambda value: value in ("left", "right"))
_TEXTS: Kind = (
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
)

#: Of config.json: sizes under the names that the families' configs have for them.
CONFIG: dict[str, Kind] = {
    "model_type": ("a text", lambda value: isinstance(value, str)),
    **dict.fromkeys(("vocab_size", "max_position_embeddings", "n_positions"), _COUNT),
    **dict.fromkeys(("hidden_size", "n_embd", "dim", "embedding_size"), _COUNT),
    **dict.fromkeys(("num_hidden_layers", "n_layers", "n_layer"), _COUNT),
    **dict.fromkeys(("num_attention_heads", "n_heads", "n_head"), _COUNT),
    **dict.fromkeys(("intermediate_size", "hidden_dim"), _COUNT),
    **dict.fromkeys(
        ("num_key_value_heads", "head_dim"),
        ("a whole number, 1 or more, or null", lambda v: v is None or (is_whole(v) and v >= 1)),
    ),
    "type_vocab_size": _COUNT_OR_NONE,
    "pad_token_id": ("a whole number or null", lambda value: value is None or is_whole(value)),
    **dict.fromkeys(("rope_scaling", "rope_parameters"), _OBJECT),
    **dict.fromkeys(("quantization_config", "compression_config"), _OBJECT),
    **dict.fromkeys(("id2label", "label2id"), _OBJECT),
}

#: Of tokenizer_config.json and special_tokens_map.json.
TOKENIZER: dict[str, Kind] = {
    "model_max_length": ("a whole number, 1 or more, or null", _is_length),
    "model_input_names": _TEXTS,
    "tokenizer_class": ("a text or null", lambda value: value is None or isinstance(value, str)),
    "padding_side": _SIDE,
    "truncation_side": _SIDE,
    "added_tokens_decoder": (
        'an object from token ids to tokens, such as {"0": {"content": "[PAD]"}}',
        lambda value: (
            isinstance(value, dict)
            and all(key.isdecimal() and _is_token(token) for key, token in value.items())
        ),
    ),
    **{f"{name}_token": _TOKEN for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")},
}


def refuse_wrong_values(path: Path, content: Json, kinds: dict[str, Kind]) -> None:
    """Refuse a file in which a known key has a value of another type or out of range.

    Raises:
        ConfigError: with file, key, what was given and what is allowed, for every such key.
    """
    wrong = [
        f"{path}: {key} is {_shown(content[key])}; it must be {words}"
        for key, (words, fits) in kinds.items()
        if key in content and not fits(content[key])
    ]
    if wrong:
        raise ConfigError(
            "\n".join(wrong) + "\ncopy the file again from where the checkpoint was saved"
        )


def token_ids(path: Path, content: Json) -> dict[str, int]:
    """The content of a file that holds the ids of tokens and nothing else.

    Raises:
        ConfigError: naming the first token whose id is none.
    """
    for token, number in content.items():
        if not is_whole(number):
            raise ConfigError(
                f"{path}: the id of {token!r} is {_shown(number)}; it must be a whole number; copy "
                "the file again from where the checkpoint was saved"
            )
    return content


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
