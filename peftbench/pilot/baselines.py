"""What a careful person tries before fine-tuning, on the folds of the pilot, by scikit-learn.

TF-IDF with logistic regression, and logistic regression on the model's frozen embeddings (means
over the tokens of the last block). The inverse strength of the penalty is chosen inside each
training fold. Predictions are kept in `baselines/` of the results folder.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np

from peftbench.core.arrays import Floats
from peftbench.core.run import Json, Run, canonical, identity, key_of_text
from peftbench.data import loading
from peftbench.data.loading import LabelledTexts
from peftbench.results.store import ResultsFolder
from peftbench.system import io

#: Names, in tables.
TF_IDF, FROZEN = "tf-idf + logistic regression", "frozen embeddings + logistic regression"
NAMES = (TF_IDF, FROZEN)

#: Embeddings of one column of texts, (rows, width), and the seconds that these take.
Embed = Callable[[LabelledTexts], tuple[Floats, float]]

#: Raised when a change makes a baseline predict otherwise, or its seconds mean something else.
_REVISION = 2

#: Inverse strengths of the penalty, and folds of the choice.
_STRENGTHS, _INNER = (0.1, 1.0, 10.0, 100.0), 3


@dataclass(frozen=True)
class FittedBaselines:
    """Baselines of one fold.

    Attributes:
        probability: by baseline (rows, classes) of the held-out rows.
        seconds: by baseline, of the features of its training rows and the choice of its penalty,
            with the model loaded already.
    """

    probability: dict[str, Floats]
    seconds: dict[str, float]


def fit(run: Run, results: ResultsFolder, embed: Embed) -> FittedBaselines:
    """The baselines of a run's fold, from the results folder where an earlier call left them.

    Args:
        run: whose task has a fold.
        results: the folder.
        embed: see `Embed`.

    Raises:
        RecordError: if what is kept was altered.
    """
    about = [identity(run.task.json), identity(run.model.json), run.train.max_length, _REVISION]
    about.append(metadata.version("scikit-learn"))
    key = key_of_text(canonical(about))
    path = results.folder / "baselines" / f"{key}.json"
    if not path.exists():
        results.write(path, io.sealed(_fitted(run, embed)))
    found = io.unsealed(path)
    return FittedBaselines(
        {name: np.array(rows) for name, rows in found["probability"].items()},
        found["seconds"],
    )


def _fitted(run: Run, embed: Embed) -> Json:
    task = run.task
    train, held = (loading.load_split(task, task.splits[p], None) for p in ("train", "validation"))
    group = loading.training_groups(task)
    made: Json = {"probability": {}, "seconds": {}}
    for name, features in zip(NAMES, (_tf_idf, _embedded(embed)), strict=True):
        ours, theirs, seconds = features(train, held)
        start = time.perf_counter()
        found = _regression(ours, train.label, theirs, task.classes, group)
        made["seconds"][name] = seconds + time.perf_counter() - start
        made["probability"][name] = np.round(found, 9).tolist()
    return made


def _tf_idf(train: LabelledTexts, held: LabelledTexts) -> tuple[Any, Any, float]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    start = time.perf_counter()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    words.fit([text for column in train.texts for text in column])
    ours, theirs = ([words.transform(c) for c in split.texts] for split in (train, held))
    return _together(ours), _together(theirs), time.perf_counter() - start


def _embedded(
    embed: Embed,
) -> Callable[[LabelledTexts, LabelledTexts], tuple[Any, Any, float]]:
    def features(train: LabelledTexts, held: LabelledTexts) -> tuple[Any, Any, float]:
        ours, theirs = (
            [embed(LabelledTexts([column], split.label)) for column in split.texts]
            for split in (train, held)
        )
        seconds = sum(taken for _, taken in ours)
        return *(_together([found for found, _ in one]) for one in (ours, theirs)), seconds

    return features


def _together(columns: list[Any]) -> Any:
    """Features of a text, or of the difference and the product of those of a pair."""
    from scipy.sparse import hstack, issparse

    if len(columns) == 1:
        return columns[0]
    one, other = columns
    if issparse(one):
        return hstack([abs(one - other), one.multiply(other)]).tocsr()
    return np.hstack([np.abs(one - other), one * other])


def _regression(
    train: Any, label: np.ndarray, held: Any, classes: int, group: np.ndarray | None
) -> Floats:
    """(rows, classes) probabilities; 0 for a class that the training rows do not have.

    Its strength is chosen by cross-validation in which groups of rows stay together.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold

    ways = StratifiedKFold if group is None else StratifiedGroupKFold
    group = np.arange(len(label)) if group is None else group
    fewest = min(len(np.unique(group[label == one])) for one in np.unique(label))
    model: Any = LogisticRegression(max_iter=2000)
    if fewest >= _INNER:
        inner = [*ways(_INNER, shuffle=True, random_state=0).split(label, label, group)]
        model = GridSearchCV(model, {"C": list(_STRENGTHS)}, cv=inner)
    model.fit(train, label)
    found = np.zeros((held.shape[0], classes))
    found[:, model.classes_] = model.predict_proba(held)
    return found
