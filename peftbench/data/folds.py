"""A file cut into parts for cross-validation: near duplicates and groups stay in one part.

Two texts are near duplicates if the sets of their character 5-grams have a Jaccard similarity of
at least 0.8, the threshold of Lee et al. 2022 (arXiv 2107.06499), who compare n-grams of tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from peftbench.core.errors import ConfigError

if TYPE_CHECKING:
    from scipy.sparse import csr_array

#: Letters of a shingle, and the similarity from which two texts count as one.
_LETTERS, _ALIKE = 5, 0.8

#: Texts that are compared with others at once.
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
    same: np.ndarray,
    label: np.ndarray,
    classes: int,
    parts: int,
    seed: int,
    given: Sequence[str] | None = None,
) -> Cut:
    """Cut rows into parts of like size and like shares of the classes.

    Args:
        same: (rows,) groups of `near_duplicates`.
        label: (rows,) classes; or values, which are stratified by their tenths.
        classes: 1 for values.
        parts: how many.
        seed: of the order in which groups are handed out.
        given: a value for each row; rows with the same one stay together, an empty one is none.

    Raises:
        ConfigError: if there are fewer groups, or rows of every class, than parts.
    """
    from sklearn.model_selection import StratifiedGroupKFold

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
    padded = list(dict.fromkeys(row.ljust(_LETTERS, "\0") for row in rows))
    numbers = {row: number for number, row in enumerate(padded)}
    place = [numbers[row.ljust(_LETTERS, "\0")] for row in rows]
    shingles = CountVectorizer(
        analyzer="char", ngram_range=(_LETTERS, _LETTERS), binary=True, lowercase=False
    ).fit_transform(padded)
    sizes = np.asarray(shingles.sum(axis=1)).ravel()
    rare = _rarest(shingles, sizes)
    pairs, by_size = [], np.argsort(sizes, kind="stable")
    for start in range(0, len(padded), _PIECE):
        piece = by_size[start : start + _PIECE]
        least, most = _ALIKE * sizes[piece[0]], sizes[piece[-1]] / _ALIKE
        near = np.unique((rare[piece] @ rare.T).indices)
        near = near[(sizes[near] >= least - 1) & (sizes[near] <= most + 1)]  # 1: rounding
        shared = (shingles[piece] @ shingles[near].T).tocoo()
        one, other = piece[shared.row], near[shared.col]
        alike = shared.data >= _ALIKE * (sizes[one] + sizes[other] - shared.data)
        pairs.append(np.stack([one[alike], other[alike]]))
    one, other = np.concatenate(pairs, axis=1)
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(padded), len(padded)))
    found = np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)
    return found[place]


def _rarest(shingles: "csr_array", sizes: np.ndarray) -> "csr_array":
    """The rarest shingles of each row, of which two that are alike have one in common.

    Sets of similarity t share at least t |a| of the larger one's |a| members, so that of any order
    of all members, here by their frequency, they share one among the first |a| - t |a| + 1 of each
    (prefix filtering: Chaudhuri, Ganti and Kaushik 2006, Bayardo, Ma and Srikant 2007). Pairs
    without one, by far the most, need not be compared.
    """
    from scipy.sparse import csr_array

    frequency = np.bincount(shingles.indices, minlength=shingles.shape[1])
    rank = np.empty(len(frequency), dtype=np.int64)
    rank[np.argsort(frequency, kind="stable")] = np.arange(len(frequency))
    row = np.repeat(np.arange(len(sizes)), sizes)
    order = np.lexsort((rank[shingles.indices], row))
    within = np.arange(len(row)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    first = within < np.repeat(sizes - np.ceil(_ALIKE * sizes - 1e-9) + 1, sizes)
    columns = shingles.indices[order][first]
    ends = np.concatenate([[0], np.cumsum(np.bincount(row[first], minlength=len(sizes)))])
    return csr_array((np.ones(len(columns)), columns, ends), shape=shingles.shape)


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
