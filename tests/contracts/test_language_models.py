"""The contract of methods in models with a language-model head. No method is named here.

In both forms: the scores of label words are the logits (words), or the whole vocabulary is scored
at each wanted token (texts). The default set has every method on one family.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pairs
import pytest
import tiny
import torch
from torch import Tensor

from peftbench.core.errors import ConfigError
from peftbench.data import batching
from peftbench.data.tokenization import TokenizedSplit
from peftbench.methods import dry_run
from peftbench.models import decoding, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training

USUAL = "llama"
CAUSAL = [
    family
    for family in tiny.FAMILIES
    if tiny.one_run(f"model.family={family}").model.family_config.mask == "causal"
]
#: Words of a run by its form; none of them needs data before it trains.
FORMS = {
    "words": ("task=synthetic_paraphrase", "prompt=words"),
    "texts": ("task=socialqa", "prompt=generate"),
}
STEPS = 20
RATES = (1e-2, 1e-1, 3e-2, 1.0)  # the first that lowers the loss so far counts
FALLS_TO = {"words": 0.8, "texts": 0.95}  # few weights under a random vocabulary change little
WANTED = 3  # tokens of each text
MOST = 5  # tokens that are written


class Pair(pairs.Pair):
    """A method on a causal family, in one form."""

    @property
    def falls_to(self) -> float:
        """The part of the loss that may be left."""
        return FALLS_TO["texts" if self.run.task.generation else "words"]

    def adapted_model(self, seed: int = 0) -> AdaptedModel:
        """The model as a training starts with it."""
        model = AdaptedModel(self.backbone, self.run.task.classes, seed).eval()
        torch.manual_seed(seed)
        self.method.insert(model)
        self.method.on_train_begin(model, iter(lambda: dict(self.batch), None))
        prepare_for_training(model, None, self.batch["input_ids"].unique())
        return model.eval()

    def loss(self, model: AdaptedModel) -> float:
        """Of the batch."""
        with torch.no_grad():
            torch.manual_seed(0)
            return float(self.method.compute_loss(model, self.batch))


@cache
def backbone(family: str, form: str) -> Backbone:
    """A tiny random language model; its tensors are shared."""
    model = tiny.one_run(f"model.family={family}", tiny.WIDE).model
    with torch.inference_mode(False):
        loaded = pretrained.skeleton(model, language=True)
        return Backbone(model, loaded=loaded, verbalizer_ids=[] if form == "texts" else [10, 20])


def tokens(form: str) -> TokenizedSplit:
    """Eight texts that end with the answer's place, or with what is wanted."""
    made = tiny.tokens()
    if form == "words":
        return replace(made, answer=(made.lengths - 1).astype(np.int32))
    more = {
        "label": np.zeros(8, np.int64),
        "answer": (made.lengths - WANTED - 1).astype(np.int32),
        "wanted": np.full(8, WANTED, np.int32),
    }
    return replace(made, **more)


def parameters():
    for family in CAUSAL:
        for name in tiny.METHODS:
            for form in FORMS:
                marks = [] if family == USUAL else [pytest.mark.slow]
                yield pytest.param((name, family, form), id=f"{name}-{family}-{form}", marks=marks)


@pytest.fixture(scope="module", params=parameters())
def pair(request):
    name, family, form = request.param
    words = (f"method={name}", f"model.family={family}", tiny.WIDE, *FORMS[form])
    try:
        run = tiny.one_run(*words)
        dry_run.validate_run(run)
    except ConfigError as refusal:
        pytest.skip(str(refusal))
    batch = batching.collate(tokens(form), np.arange(8), 0, "causal")
    return Pair(run, backbone(family, form), batch)


@pytest.fixture(scope="module")
def trained(pair):
    """The model after some steps with the loop of real runs, and the losses before and after."""
    for rate in RATES:
        model = pair.adapted_model()
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        first = pair.loss(model)
        tiny.fit(model, pair.method, pair.batch, STEPS, lr=rate)
        last = pair.loss(model.eval())
        if last <= pair.falls_to * first:
            break
    changed = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    return model, changed, (first, last)


def test_the_loss_falls_and_nothing_else_changes(pair, trained):
    model, changed, (first, last) = trained
    assert last <= pair.falls_to * first
    marked = {f"module.{name}" for name in model.trained()}
    assert changed
    assert changed <= marked
    assert not any(p.requires_grad for p in pair.backbone.module.parameters())


def test_state_is_the_whole_difference(pair, trained):
    model, *_ = trained
    other = pair.adapted_model(seed=1)
    other.restore(model.state())
    with torch.inference_mode():
        torch.testing.assert_close(other(pair.batch), model(pair.batch), rtol=1e-5, atol=1e-5)


def test_scores_have_a_place_for_each_answer(pair, trained):
    model, *_ = trained
    with torch.inference_mode():
        shape = model(pair.batch).shape
    vocabulary = pair.backbone.module.config.vocab_size
    assert tuple(shape) == ((8, WANTED, vocabulary) if pair.run.task.generation else (8, 2))


def test_texts_are_written_as_without_a_cache(pair, trained):
    if not pair.run.task.generation:
        pytest.skip("label words write no texts")
    model, *_ = trained
    questions = tokens("texts").questions()
    batch = batching.collate(questions, np.arange(8), 0, "causal")
    with torch.inference_mode():
        written = decoding.greedy(model, batch, decoding.Decoding(MOST, end=-5))
        for number in (0, 3, 7):
            start = int(questions.ends[number] - questions.lengths[number])
            ids = questions.ids[start : questions.ends[number]].tolist()
            for token in written[number].tolist():
                scores = following(model, ids)
                # a tie within rounding may go either way
                assert float(scores[token]) >= float(scores.max()) - 1e-4
                ids.append(token)


def following(model: AdaptedModel, ids: list[int]) -> Tensor:
    """Scores (vocabulary,) of what comes after the tokens, all of which are passed."""
    one = TokenizedSplit(
        ids=np.array([*ids, 0], np.int32),
        types=np.zeros(0, np.uint8),
        ends=np.array([len(ids) + 1], np.int64),
        label=np.zeros(1, np.int64),
        truncated=0,
        answer=np.array([len(ids) - 1], np.int32),
        wanted=np.ones(1, np.int32),
    )
    return model(batching.collate(one, np.arange(1), 0, "causal"))[0, 0]
