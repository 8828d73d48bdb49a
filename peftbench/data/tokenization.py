"""A task as numbers: tokenised once for each tokenizer, and cached whole."""

import hashlib
import json
import math
import warnings
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays
from transformers import PreTrainedTokenizerBase

from peftbench.core.configs import TaskConfig
from peftbench.core.run import canonical
from peftbench.data import loading
from peftbench.system import memo, offline_folder
from peftbench.system.io import write_whole


class TextEncoder(Protocol):
    """What puts texts to a model in another form than one after the other: a prompt."""

    @property
    def identity(self) -> str:
        """Equal for encoders that give equal tokens."""

    def encode(
        self, table: loading.LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> "TokenizedSplit":
        """Tokens of these texts, at most `most` of each."""


@dataclass(frozen=True)
class TokenizedSplit:
    """Tokenised examples, end to end.

    Attributes:
        ids, types: token and segment numbers of all examples (int32, uint8); types may be empty.
        ends: where each example ends in them (int64).
        label: (examples,) classes (int64) or values (float32).
        truncated: how many examples lost tokens or demonstrations to the maximum length.
        answer: where in each example a language model says its class, or where the question ends
            behind which it writes (int32); empty with a head.
        wanted: how many tokens at the end of each example are to be written (int32); empty where
            none are.
        lost: (examples,) which ones `truncated` counts; empty for a split from the cache.
    """

    ids: np.ndarray
    types: np.ndarray
    ends: np.ndarray
    label: np.ndarray
    truncated: int
    answer: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    wanted: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int32))
    lost: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each example."""
        return np.diff(self.ends, prepend=0)

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest example."""
        return int(self.lengths.max())

    @cached_property
    def sha256(self) -> str:
        """Of what a model is shown: equal tokens get equal answers."""
        found = hashlib.sha256()
        for array in (self.ids, self.types, self.ends, self.answer, self.wanted):
            found.update(np.ascontiguousarray(array).tobytes())
        return found.hexdigest()

    def questions(self) -> "TokenizedSplit":
        """The examples without what is to be written."""
        kept = np.ones(len(self.ids), dtype=bool)
        for end, count in zip(self.ends, self.wanted, strict=True):
            kept[end - count : end] = False
        return replace(
            self,
            ids=self.ids[kept],
            ends=np.cumsum(self.lengths - self.wanted, dtype=np.int64),
            wanted=np.zeros(0, np.int32),
        )

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the first of each example that a model can tell apart, and which is whose."""
        numbers: dict[tuple[bytes, bytes, int], int] = {}
        firsts, whose = [], []
        starts = self.ends - self.lengths
        for example, part in enumerate(map(slice, starts, self.ends)):
            answer = int(self.answer[example]) if len(self.answer) else 0
            same = (self.ids[part].tobytes(), self.types[part].tobytes(), answer)
            if same not in numbers:
                numbers[same] = len(numbers)
                firsts.append(example)
            whose.append(numbers[same])
        return np.array(firsts, dtype=np.int64), np.array(whose, dtype=np.int64)


def tokenize_split(
    task: TaskConfig,
    split: str,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    root: str | None,
    prompt: TextEncoder | None = None,
    *,
    asked: bool = False,
) -> TokenizedSplit:
    """The tokens of a split, from the cache where an earlier run left them.

    The cache (`PEFTBENCH_CACHE`, else ~/.cache/peftbench) is safe between processes: a file is
    moved there whole, and one that does not hash to what it says is made again.

    Args:
        asked: without the texts that are wanted, which would take room from the questions.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    loading.check_unchanged(task, root)  # or the cache would serve what the plan does not mean
    what = [
        loading.fingerprint(task, split, root),
        split,
        repr((task.texts, task.label, task.classes, max_length)),
        tokenizer_hash(tokenizer),
        *([prompt.identity] if prompt else []),
        *(["asked"] if asked else []),
        *([f"labels {canonical(task.source['labels'])}"] if task.source.get("labels") else []),
    ]
    name = f"{hashlib.sha256('|'.join(what).encode()).hexdigest()[:24]}.tokens"
    path = cache_folder() / name
    here = offline_folder.folder()
    for place in (path,) if here is None else (here / "tokens" / name, path):
        cached = _read(place)
        if cached is not None:
            return cached
    table = loading.load_split(task, split, root)
    if asked:
        table = table.asked()
    coded = encode if prompt is None else prompt.encode
    tokens = coded(table, tokenizer, max_length)
    names = ["ids", "types", "ends", "label", "answer", *(["wanted"] if len(tokens.wanted) else [])]
    arrays = {name: getattr(tokens, name) for name in names}
    note = {"truncated": str(tokens.truncated), "sha256": _digest(arrays)}
    try:
        write_whole(path, save_arrays(arrays, metadata=note))
    except OSError as error:  # a full or read-only cache costs time, not the run
        warnings.warn(f"tokens are not kept: {path.parent}: {error.strerror}", stacklevel=2)
    return tokens


def cache_folder() -> Path:
    """Where tokens are kept between runs."""
    return memo.cache_root() / "tokens"


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """What a tokenizer does, as a hash: its rules and every setting of its files.

    Left out are the state of padding and truncation, which each call sets, and where its files are.
    """
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    settings = {
        "class": type(tokenizer).__name__,
        "model_max_length": tokenizer.model_max_length,
        "sides": [tokenizer.truncation_side, tokenizer.padding_side],
        "inputs": tokenizer.model_input_names,
        "special": dict(tokenizer.special_tokens_map),
        "files": {n: v for n, v in tokenizer.init_kwargs.items() if n not in _PLACES},
    }
    text = json.dumps([settings, backend.to_str()], sort_keys=True, default=repr)
    return hashlib.sha256(text.encode()).hexdigest()


#: Arguments of a tokenizer that say where its files are, or that hold its rules once more.
_PLACES = frozenset(
    {"name_or_path", "vocab_file", "merges_file", "tokenizer_file", "tokenizer_object", "vocab"}
    | {"merges", "is_local", "local_files_only", "_commit_hash", "backend"}
)


def encode(
    table: loading.LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int | None
) -> TokenizedSplit:
    """Tokens of any texts, cut to `most` and to what the tokenizer allows; None cuts nothing.

    Where a tokenizer has no separator (GPT-2, Llama) the second text starts on a new line.
    """
    columns = table.texts
    if tokenizer.sep_token is None:
        columns = [columns[0], *([f"\n{text}" for text in column] for column in columns[1:])]
    rows = tokenizer(*columns, verbose=False)
    limit = math.inf if most is None else min(most, tokenizer.model_max_length)
    long = [i for i, ids in enumerate(rows["input_ids"]) if len(ids) > limit]
    types = rows.get("token_type_ids", [])
    if long:
        texts = [[column[i] for i in long] for column in columns]
        cut = tokenizer(*texts, truncation=True, max_length=limit, verbose=False)
        for place, i in enumerate(long):
            rows["input_ids"][i] = cut["input_ids"][place]
            if types:
                types[i] = cut["token_type_ids"][place]
    ids = [row or [tokenizer.eos_token_id] for row in rows["input_ids"]]  # an empty text alone
    return TokenizedSplit(
        ids=np.concatenate([np.asarray(row, np.int32) for row in ids]),
        types=np.concatenate([np.asarray(row, np.uint8) for row in types or [[]]]),
        ends=np.cumsum([len(row) for row in ids], dtype=np.int64),
        label=table.label,
        truncated=len(long),
        lost=np.isin(np.arange(len(ids)), long),
    )


def _read(path: Path) -> TokenizedSplit | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="np") as file:
            note = file.metadata()
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest(arrays) == note["sha256"]:
            return TokenizedSplit(**arrays, truncated=int(note["truncated"]))
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        pass  # torn, or of another time: said below, and made again
    warnings.warn(f"cached tokens {path.name} are corrupt and are made again", stacklevel=3)
    return None


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest()
