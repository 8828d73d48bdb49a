"""Four synthetic tasks that need no download, from a seeded grammar of our own.

`synthetic_acceptability`, `synthetic_paraphrase`, `synthetic_similarity` and `synthetic_opinion`
have the columns and the labels of CoLA, MRPC, STS-B and SST-2, and short sentences. They exist so
that the whole benchmark runs offline; they are not a substitute for GLUE, and their scores compare
with nothing else.

The text is a function of `VERSION` alone: every draw comes from one `random.Random` with a fixed
seed, and no set or dictionary is iterated in hash order.
"""

from collections.abc import Callable
from random import Random
from typing import Any

from peftbench.data.synthetic import acceptability, opinion, paraphrase, similarity

VERSION = 1  # raised whenever a single character of any task changes

_Draw = Callable[[Random, str], tuple[dict[str, Any], tuple[str, ...]]]  # gets the split's name
_TASKS: dict[str, tuple[int, _Draw]] = {  # seed and source of examples
    "synthetic_acceptability": (1, lambda random, _: acceptability.draw_minimal_pair(random)),
    "synthetic_paraphrase": (2, lambda random, _: paraphrase.draw_paraphrase(random)),
    "synthetic_similarity": (3, lambda random, _: similarity.draw_similarity(random)),
    "synthetic_opinion": (4, opinion.draw_opinion),
}
NAMES: tuple[str, ...] = tuple(_TASKS)
_SIZES = {"train": 3000, "validation": 600}


def generate(name: str) -> dict[str, dict[str, list]]:
    """The splits of one task, each a dictionary of columns of equal length.

    No sentence occurs twice in a task, so nothing leaks between the splits.

    Raises:
        ValueError: If `name` is none of `NAMES`.
    """
    if name not in _TASKS:
        raise ValueError(f"unknown synthetic task {name!r}; the tasks are {', '.join(NAMES)}")
    seed, draw = _TASKS[name]
    random = Random(seed)
    seen: set[str] = set()
    examples: list[dict[str, Any]] = []
    while len(examples) < sum(_SIZES.values()):
        split = "train" if len(examples) < _SIZES["train"] else "validation"
        example, sentences = draw(random, split)
        if len(set(sentences)) == len(sentences) and seen.isdisjoint(sentences):
            seen.update(sentences)
            examples.append(example)
    splits, start = {}, 0
    for split, size in _SIZES.items():
        part = examples[start : start + size]
        splits[split] = {column: [row[column] for row in part] for column in part[0]}
        start += size
    return splits
