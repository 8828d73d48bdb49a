"""A prompt as tokens: what stands in front of a question, where its answer is, which words answer.

Tokens are those of the whole text, as the tokenizer makes them, specials included; what is too
long loses whole demonstrations from the front, and only then its own texts, never the template.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from peftbench.core.configs import GENERATE, WORDS, PromptConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Run, canonical
from peftbench.data import loading, tokenization
from peftbench.data.loading import LabelledTexts
from peftbench.data.prompt_config import reserved
from peftbench.data.tokenization import TokenizedSplit


@dataclass(frozen=True)
class Row:
    """Tokens of one example, their segments (or none), and the place of the answer.

    Of a text that is wanted the last `wanted` tokens are it, with the token that ends it.
    """

    ids: list[int]
    types: list[int]
    answer: int = -1
    wanted: int = 0


@dataclass(frozen=True)
class Prompt(ABC):
    """A prompt with its demonstrations.

    Attributes:
        prompt: the template and the label words.
        causal: whether the answer comes at the end of the text.
        shown: texts and class, or wanted text, of the demonstrations, the one nearest to the
            question first.
    """

    prompt: PromptConfig
    causal: bool
    shown: list[tuple[tuple[str, ...], int | str]]

    @property
    def identity(self) -> str:
        """Equal for prompts that give equal tokens."""
        shown = [[*texts, answer] for texts, answer in self.shown]
        prompt = [self.prompt.name, self.prompt.template, self.prompt.verbalizer]
        return canonical([*prompt, self.prompt.separator, self.causal, shown])

    def encode(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> TokenizedSplit:
        """Tokens of questions, cut to `most` and to what the tokenizer allows.

        `truncated` counts those that lost demonstrations or tokens.
        """
        most = min(most, tokenizer.model_max_length)
        rows: dict[int, Row] = {}
        left = list(range(len(table.label)))
        lost = np.zeros(len(table.label), dtype=bool)
        for count in range(len(self.shown), -1, -1):
            made = self._rows(table.take(np.array(left)), count, tokenizer) if left else []
            rows |= {n: row for n, row in zip(left, made, strict=True) if len(row.ids) <= most}
            left = [number for number in left if number not in rows]
            lost[left] = True
        if left:
            cut = self._cut(table.take(np.array(left)), tokenizer, most)
            rows |= dict(zip(left, cut, strict=True))
        ordered = [rows[number] for number in range(len(table.label))]
        return TokenizedSplit(
            ids=np.concatenate([np.asarray(row.ids, np.int32) for row in ordered]),
            types=np.concatenate([np.asarray(row.types, np.uint8) for row in ordered]),
            ends=np.cumsum([len(row.ids) for row in ordered], dtype=np.int64),
            label=table.label,
            truncated=int(lost.sum()),
            answer=np.array([row.answer for row in ordered if row.answer >= 0], dtype=np.int32),
            wanted=np.array([row.wanted for row in ordered if row.wanted], dtype=np.int32),
            lost=lost,
        )

    def front(self, count: int) -> str:
        """The `count` demonstrations nearest to the question, each with its answer."""
        solved = [
            "".join(self.prompt.filled(texts, self._said(answer)))
            for texts, answer in self.shown[:count]
        ]
        separator = "\n" if self.prompt.separator is None else self.prompt.separator
        return "".join(text + separator for text in reversed(solved))

    def _said(self, answer: int | str) -> str:
        return answer if isinstance(answer, str) else self.prompt.verbalizer[answer]

    @abstractmethod
    def _rows(
        self, table: LabelledTexts, count: int, tokenizer: PreTrainedTokenizerBase
    ) -> list[Row]:
        """Whole examples with so many demonstrations in front."""

    @abstractmethod
    def _cut(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> list[Row]:
        """Examples that are too long even without demonstrations."""


class DemonstrationPrompt(Prompt):
    """Demonstrations in front of the first text, for a classification head."""

    def _rows(
        self, table: LabelledTexts, count: int, tokenizer: PreTrainedTokenizerBase
    ) -> list[Row]:
        front = self.front(count)
        columns = [[front + text for text in table.texts[0]], *table.texts[1:]]
        return _parted(tokenization.encode(LabelledTexts(columns, table.label), tokenizer, None))

    def _cut(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> list[Row]:
        return _parted(tokenization.encode(table, tokenizer, most))


class TemplatePrompt(Prompt):
    """The template around the texts, for a language model."""

    def _cut(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> list[Row]:
        return [
            self._shortened(table.take(np.array([number])), tokenizer, most)
            for number in range(len(table.label))
        ]

    def _shortened(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> Row:
        """One example, the ends of its texts cut, those of the longer one first."""
        texts = [column[0] for column in table.texts]
        while True:
            (row,) = self._rows(replace(table, texts=[[text] for text in texts]), 0, tokenizer)
            over = len(row.ids) - most
            if over <= 0:
                return row
            spans = [_spans(text, tokenizer) for text in texts]
            lengths = [len(span) for span in spans]
            longest = int(np.argmax(lengths))
            if lengths[longest] == 0:
                raise ConfigError(
                    f"train.max_length={most} has no room for the template "
                    f"{self.prompt.template!r}; raise it"
                )
            apart = lengths[longest] - min(lengths)
            keep = max(0, lengths[longest] - min(over, max(apart, (over + 1) // 2)))
            # a character of several tokens ends where the last one that is kept does: leave it out
            end = min(spans[longest][keep - 1][1], spans[longest][keep][0]) if keep else 0
            texts[longest] = texts[longest][:end]


def _spans(text: str, tokenizer: PreTrainedTokenizerBase) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends."""
    given = {"add_special_tokens": False, "return_offsets_mapping": True, "verbose": False}
    found: list[tuple[int, int]] = tokenizer(text, **given)["offset_mapping"]
    return found


def _last_token(coded: Any, number: int, place: int) -> int | None:
    """The token of a character, or of the nearest one before it that has any.

    Tokenizers that leave out blanks have none for the last character.
    """
    answer = coded.char_to_token(number, place)
    while answer is None and place > 0:
        place -= 1
        answer = coded.char_to_token(number, place)
    return None if answer is None else int(answer)


class GenerationPrompt(TemplatePrompt):
    """The template with the text that is wanted behind it, and the token that ends it."""

    def _rows(
        self, table: LabelledTexts, count: int, tokenizer: PreTrainedTokenizerBase
    ) -> list[Row]:
        front, end = self.front(count), end_of_text(tokenizer)
        questions, gaps = [], []
        for texts in zip(*table.texts, strict=True):
            whole = front + self.prompt.filled(texts, "")[0]
            questions.append(whole.rstrip(" "))
            gaps.append(whole[len(questions[-1]) :])
        targets = table.targets or [""] * len(questions)  # of texts that are to be written
        inside = {"add_special_tokens": False, "verbose": False}
        said = [gap + text if text else "" for gap, text in zip(gaps, targets, strict=True)]
        wanted = tokenizer(said, **inside)["input_ids"]
        coded = tokenizer(questions, verbose=False)
        rows = []
        for number, question in enumerate(questions):
            place = _last_token(coded, number, len(question) - 1)
            if place is None:
                raise ConfigError(
                    f"prompt={GENERATE}: this model's tokenizer has no token in "
                    f"{question[:60]!r}; choose another template"
                )
            ids = [*coded["input_ids"][number][: place + 1], *wanted[number], end]
            rows.append(Row(ids, [], place, len(wanted[number]) + 1))
        return rows

    def _cut(
        self, table: LabelledTexts, tokenizer: PreTrainedTokenizerBase, most: int
    ) -> list[Row]:
        """Examples that are too long: of what is wanted half of the tokens are kept at most."""
        targets = [
            text[: spans[most // 2 - 2][1]] if len(spans) >= most // 2 else text
            for text in table.targets or []
            for spans in [_spans(text, tokenizer)]
        ]
        return super()._cut(replace(table, targets=targets or None), tokenizer, most)


def end_of_text(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a text.

    Raises:
        ConfigError: if the tokenizer has none.
    """
    found = tokenizer.eos_token_id if tokenizer.eos_token is not None else tokenizer.sep_token_id
    if found is None:
        raise ConfigError(
            "this model's tokenizer has no token that ends a text; name an eos_token in its "
            "tokenizer_config.json"
        )
    return int(found)


class VerbalizerPrompt(TemplatePrompt):
    """The template around the texts, for a language model that chooses among words."""

    def _rows(
        self, table: LabelledTexts, count: int, tokenizer: PreTrainedTokenizerBase
    ) -> list[Row]:
        front, end = self.front(count), self.lead(tokenizer)[0]
        mask = "" if self.causal else str(tokenizer.mask_token)
        texts, places = [], []
        for row in zip(*table.texts, strict=True):
            before, after = self.prompt.filled(row, mask)
            before = front + (before.rstrip() + end if self.causal else before)
            texts.append(before + after)
            places.append(len(before) - 1 if self.causal else len(before))
        coded = tokenizer(texts, verbose=False)
        rows = []
        for number, (ids, place) in enumerate(zip(coded["input_ids"], places, strict=True)):
            if self.causal:
                answer = _last_token(coded, number, place)
            else:
                answer = coded.char_to_token(number, place)
            if answer is None:
                raise ConfigError(
                    f"prompt=words: this model's tokenizer has no token at the answer's place in "
                    f"{texts[number][:60]!r}; choose another prompt.template, or prompt=head"
                )
            types = coded.get("token_type_ids", [[]] * len(texts))[number]
            last = answer + 1 if self.causal else len(ids)  # what a tokenizer adds comes after it
            rows.append(Row(ids[:last], types[:last], answer))
        return rows

    def lead(self, tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
        """What a causal prompt ends with after its last word, and the words' first tokens.

        A word's first token is that after the template's text, so that a space before the word is
        in it for the tokenizers that put it there (" Yes"); for others it ends the prompt.

        Raises:
            ConfigError: if two words have the same first token, or one has none of its own.
        """
        start = self.prompt.template.partition("{answer}")[0].rpartition("}")[2]
        inside = {"add_special_tokens": False, "verbose": False}
        stripped = start.rstrip()
        wholes = [tokenizer(start + word, **inside)["input_ids"] for word in self.prompt.verbalizer]
        for before in (start, stripped):
            ids = tokenizer(before, **inside)["input_ids"] if before else []
            if all(whole[: len(ids)] == ids and len(whole) > len(ids) for whole in wholes):
                first = [whole[len(ids)] for whole in wholes]
                self._check(first, tokenizer)
                return before[len(stripped) :], first
        raise ConfigError(
            f"prompt: {start!r} and the words {', '.join(self.prompt.verbalizer)} run together as "
            "tokens of "
            "this model; put a space before {answer}"
        )

    def _check(self, first: list[int], tokenizer: PreTrainedTokenizerBase) -> None:
        said = dict(
            zip(self.prompt.verbalizer, tokenizer.convert_ids_to_tokens(first), strict=True)
        )
        if tokenizer.unk_token_id in first:
            unknown = [w for w, token in said.items() if token == tokenizer.unk_token]
            raise ConfigError(
                f"prompt.verbalizer: this model does not know {', '.join(unknown)}; "
                "choose other words"
            )
        if len(set(first)) < len(first):
            raise ConfigError(
                f"prompt.verbalizer: first tokens must differ, got {said}; choose other words"
            )


def _parted(tokens: TokenizedSplit) -> list[Row]:
    starts = tokens.ends - tokens.lengths
    types = tokens.types if len(tokens.types) else None
    return [
        Row(tokens.ids[a:b].tolist(), [] if types is None else types[a:b].tolist())
        for a, b in zip(starts, tokens.ends, strict=True)
    ]


def build_prompt(
    run: Run,
    root: str | None,
    count: int | None = None,
    demonstrations: LabelledTexts | None = None,
) -> Prompt | None:
    """The prompt of a run; None where its texts go to the model as they are.

    Args:
        run: its subset seed chooses the demonstrations.
        root: folders of data sets in the hub's layout, or None for the hub.
        count: of demonstrations, in place of the prompt's own.
        demonstrations: in place of the run's, the one nearest to the question first.

    Raises:
        ConfigError: if the data cannot be loaded.
    """
    if run.prompt is None:
        return None
    prompt = run.prompt
    count = prompt.num_demonstrations if count is None else count
    if demonstrations is None and count:
        train = loading.load_split(run.task, run.task.splits["train"], root)
        demonstrations = train.take(reserved(run, train.label)[:count])
    shown: list[tuple[tuple[str, ...], int | str]] = []
    if demonstrations is not None:
        answers = demonstrations.targets or demonstrations.label.tolist()
        shown = list(zip(zip(*demonstrations.texts, strict=True), answers, strict=True))
    return _KINDS[prompt.name](prompt, run.model.causal, shown)


_KINDS: dict[str, type[Prompt]] = {
    WORDS: VerbalizerPrompt,
    GENERATE: GenerationPrompt,
    "demonstrations": DemonstrationPrompt,
}


def coder(
    run: Run,
    tokenizer: PreTrainedTokenizerBase,
    root: str | None,
    count: int | None = None,
    demonstrations: LabelledTexts | None = None,
) -> Callable[[LabelledTexts], TokenizedSplit]:
    """What makes tokens of texts as a run sees them; see `build_prompt`."""
    prompt = build_prompt(run, root, count, demonstrations)
    encode = tokenization.encode if prompt is None else prompt.encode
    return lambda table: encode(table, tokenizer, run.train.max_length)


def verbalizer_ids(run: Run, tokenizer: PreTrainedTokenizerBase) -> list[int] | None:
    """The tokens whose scores are the logits of a run; None where a head gives them.

    Empty for all tokens, of a run that writes texts.

    Raises:
        ConfigError: if the words cannot be told apart by their first tokens, or the model has no
            token for the answer's place.
    """
    if run.task.generation:
        return []
    if run.prompt is None or run.prompt.name != WORDS:
        return None
    prompt = build_prompt(run, None, count=0)
    assert isinstance(prompt, VerbalizerPrompt)
    if not prompt.causal and tokenizer.mask_token is None:
        raise ConfigError(f"prompt=words: the tokenizer of {run.model.name} has no mask token")
    return prompt.lead(tokenizer)[1]
