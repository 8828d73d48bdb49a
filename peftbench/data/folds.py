"""A file cut into parts for cross-validation: near duplicates and groups stay in one part.

Two texts are near duplicates if the sets of their character 5-grams have a Jaccard similarity of
at least 0.8, the threshold of Lee et al. 2022 (arXiv 2107.06499), who compare n-grams of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from peftbench.core.errors import ConfigError

#: Letters of a shingle, and the similarity from which two texts count as one.
_LETTERS, _ALIKE = 5, 0.8

#: Texts that are compared with all others at once.
_PIECE = 256


@dataclass(frozen=True)
class Cut:
    """Where each row of a file belongs.

    Attributes:
        part: (rows,) number of the part, from 0.
        group: (rows,) number of what stays together: near duplicates, and groups of the user.
        alike: rows that are near duplicates of another one.
    """

    part: np.ndarray
    group: np.ndarray
    alike: int


def cut(
    texts: Sequence[Sequence[str]],
    label: np.ndarray,
    classes: int,
    parts: int,
    seed: int,
    given: Sequence[str] | None = None,
) -> Cut:
    """Cut rows into parts of like size and like shares of the classes.

    Args:
        texts: one or two columns.
        label: (rows,) classes; or values, which are stratified by their tenths.
        classes: 1 for values.
        parts: how many.
        seed: of the order in which groups are handed out.
        given: a value for each row; rows with the same one stay together, an empty one is none.

    Raises:
        ConfigError: if there are fewer groups, or rows of every class, than parts.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    same = near_duplicates(texts)
    group = same if given is None else _joined(same, _numbers(given))
    found = len(np.unique(group))
    if found < parts:
        raise ConfigError(
            f"task.folds={parts} needs {parts} groups of rows, the file has {found}; "
            + (f"use task.folds={found} or fewer" if found > 1 else "add rows that differ")
        )
    kinds = label
    if classes == 1:
        ranks = np.argsort(np.argsort(label, kind="stable"), kind="stable")
        kinds = ranks * max(1, min(10, len(label) // parts)) // len(label)
    fewest = int(np.unique(kinds, return_counts=True)[1].min())
    if fewest < parts and classes != 1:
        raise ConfigError(
            f"task.folds={parts}: the rarest class has {fewest} rows, and each fold needs one; "
            "add rows of it, or leave it out"
        )
    part = np.empty(len(label), dtype=np.int64)
    ways = StratifiedGroupKFold(parts, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(ways.split(kinds, kinds, group)):
        part[held] = number
    sizes = np.bincount(part, minlength=parts)
    if not sizes.all():
        raise ConfigError(
            f"task.folds={parts}: groups of rows are so large that {int((sizes == 0).sum())} folds "
            "stay empty; use fewer folds"
        )
    return Cut(part, group, int((np.bincount(same)[same] > 1).sum()))


def near_duplicates(texts: Sequence[Sequence[str]]) -> np.ndarray:
    """Number of the group of each row: rows are in one if a chain of like rows joins them.

    Case and blanks do not count. Rows without letters, and rows shorter than a shingle, are alike
    if they are equal.

    Args:
        texts: one or two columns, which count together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from sklearn.feature_extraction.text import CountVectorizer

    rows = [
        "\n".join(" ".join(cell.casefold().split()) for cell in row)
        for row in zip(*texts, strict=True)
    ]
    padded = [row.ljust(_LETTERS, "\0") for row in rows]  # the vectorizer takes blanks together
    shingles = CountVectorizer(
        analyzer="char", ngram_range=(_LETTERS, _LETTERS), binary=True, lowercase=False
    ).fit_transform(padded)
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    pairs = []
    for start in range(0, len(rows), _PIECE):
        shared = (shingles[start : start + _PIECE] @ shingles.T).tocoo()
        one, other = shared.row + start, shared.col
        alike = shared.data >= _ALIKE * (sizes[one] + sizes[other] - shared.data)
        pairs.append(np.stack([one[alike], other[alike]]))
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(rows), len(rows)))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)


def _numbers(given: Sequence[str]) -> np.ndarray:
    """Equal values as equal numbers; an empty one is like no other."""
    numbers: dict[str | int, int] = {}
    keys = [value.strip() or place for place, value in enumerate(given)]
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _joined(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Numbers of the finest groups that keep together what either of two groupings does."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = int(one.max()) + 1
    edges = (np.ones(len(one)), (one, count + other))
    size = count + int(other.max()) + 1
    found = connected_components(coo_array(edges, shape=(size, size)), directed=False)[1]
    return np.unique(found[one], return_inverse=True)[1].astype(np.int64)
