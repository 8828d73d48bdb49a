"""What a tokenizer's files say: how many tokens, which pad, whether they can be read here."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.models.config_values import TOKENIZER, refuse_wrong_values, token_ids
from peftbench.models.safetensors_headers import not_content, read_json

#: Tokenizers of transformers that number the two texts of a pair, where no file says otherwise.
_WITH_SEGMENTS = ("Bert", "Electra", "Albert", "Deberta", "Funnel", "Splinter", "XLNet")


@dataclass(frozen=True)
class TokenizerFacts:
    """What the files of a tokenizer say.

    Attributes:
        tokens: in the vocabulary, added ones included.
        highest: the highest id; its token.
        highest_token: as above.
        can_pad: whether it has a token to pad with or one that ends texts; None where only its
            class says so.
        segments: whether it numbers the texts of a pair; None where only its class says so.
        model_max_length: the longest input that it allows; None for any.
    """

    tokens: int
    highest: int
    highest_token: str
    can_pad: bool | None
    segments: bool | None
    model_max_length: int | None


def read_tokenizer(folder: Path) -> TokenizerFacts:
    """Read the files of a tokenizer without loading it.

    Raises:
        ConfigError: if there are none, if one is torn, or if a library that reads them is missing.
    """
    config = _settings(folder / "tokenizer_config.json")
    special = _settings(folder / "special_tokens_map.json")
    tokens = _vocabulary(folder)
    if not tokens:
        raise ConfigError(
            f"{folder} has no tokenizer (no tokenizer.json, vocab.txt, vocab.json or *.model): "
            "every word would be unknown; copy the tokenizer's files from the checkpoint that the "
            "model was made from, or save it there: tokenizer.save_pretrained(FOLDER)"
        )
    for number, about in dict(config.get("added_tokens_decoder") or {}).items():
        tokens[_text(about)] = int(number)
    added = folder / "added_tokens.json"
    tokens |= token_ids(added, _optional(added))
    named = {
        name: _text(value)
        for source in (special, config)
        for name, value in source.items()
        if name.endswith("_token") and isinstance(value, str | dict) and _text(value)
    }
    highest_token, highest = max(tokens.items(), key=lambda item: item[1])
    for text in named.values():  # transformers adds those that the vocabulary does not have
        if text not in tokens and (folder / "tokenizer.json").is_file():
            highest_token, highest = text, highest + 1
            tokens[text] = highest
    # without a name the model's type chooses a class, and most classes have a token to pad with
    kind = str(config.get("tokenizer_class") or "")
    plain = kind in ("PreTrainedTokenizerFast", "TokenizersBackend", "PreTrainedTokenizer")
    can_pad = "pad_token" in named or "eos_token" in named
    inputs = config.get("model_input_names")
    segments = None if inputs is None else "token_type_ids" in inputs
    if segments is None and kind.startswith(_WITH_SEGMENTS):
        segments = True
    longest = config.get("model_max_length")
    return TokenizerFacts(
        len(tokens),
        highest,
        highest_token,
        True if can_pad else (False if plain else None),
        segments,
        int(longest) if isinstance(longest, int | float) and longest < 1e9 else None,
    )


def _vocabulary(folder: Path) -> dict[str, int]:
    """The ids of all tokens by their text, of the first file that says them."""
    if (folder / "tokenizer.json").is_file():
        return _fast(folder / "tokenizer.json")
    if (folder / "vocab.txt").is_file():
        body = (folder / "vocab.txt").read_bytes()
        if refused := not_content(folder / "vocab.txt", body[:64]):
            raise ConfigError(refused)
        lines = body.decode(errors="replace").replace("\r\n", "\n").rstrip("\n").split("\n")
        return {line: number for number, line in enumerate(lines)}
    if (folder / "vocab.json").is_file():
        if not (folder / "merges.txt").is_file():
            raise ConfigError(f"{folder} has vocab.json without merges.txt; copy that file too")
        return token_ids(folder / "vocab.json", read_json(folder / "vocab.json"))
    pieces = sorted(folder.glob("*.model"))
    if not pieces:
        return {}
    with open(pieces[0], "rb") as file:
        if refused := not_content(pieces[0], file.read(64)):
            raise ConfigError(refused)
    missing = [
        package
        for package, module in (("sentencepiece", "sentencepiece"), ("protobuf", "google.protobuf"))
        if not _importable(module)
    ]
    if missing:
        raise ConfigError(
            f"{folder} has its tokenizer as {pieces[0].name} alone, which needs "
            f"{' and '.join(missing)}: pip install {' '.join(missing)}; or save a fast tokenizer "
            "(tokenizer.json) there"
        )
    return _pieces(pieces[0])


def _pieces(path: Path) -> dict[str, int]:
    import sentencepiece  # type: ignore[import-untyped,unused-ignore]

    try:
        found = sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        raise ConfigError(f"{path} is torn or no sentencepiece model ({error})") from error
    return {found.id_to_piece(number): number for number in range(found.get_piece_size())}


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of its parent
        return False


def _fast(path: Path) -> dict[str, int]:
    content = read_json(path)
    try:
        found = content["model"]["vocab"]
        if isinstance(found, dict):
            tokens = {str(text): int(number) for text, number in found.items()}
        else:  # Unigram: pairs of a piece and its score
            tokens = {str(piece[0]): number for number, piece in enumerate(found)}
        for added in content.get("added_tokens") or []:
            tokens[str(added["content"])] = int(added["id"])
        dropout = content["model"].get("dropout")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(
            f"{path} is no tokenizer of the tokenizers library ({error!r}); copy it again"
        ) from error
    if dropout:
        raise ConfigError(
            f"{path} has model.dropout={dropout}, so that a text has other tokens each time; set "
            "it to null"
        )
    of_id: dict[int, str] = {}
    for text, number in tokens.items():
        if (other := of_id.setdefault(number, text)) != text:
            raise ConfigError(
                f"{path} gives {other!r} and {text!r} the same id, {number}: its vocabulary was "
                "changed by hand or is of two models; copy it again from the model's checkpoint"
            )
    return tokens


def _settings(path: Path) -> Json:
    found = _optional(path)
    refuse_wrong_values(path, found, TOKENIZER)
    return found


def _optional(path: Path) -> Json:
    return read_json(path) if path.is_file() else {}


def _text(token: Any) -> str:
    """The text of a special token, which files write as a text or as an object."""
    return str((token.get("content") if isinstance(token, dict) else token) or "")
