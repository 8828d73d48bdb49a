"""Timed passes through a trained model, as it was trained and with its weights merged."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from peftbench.core.arrays import Arrays
from peftbench.core.run import Json
from peftbench.data.batching import Batch
from peftbench.data.tokenization import TokenizedSplit
from peftbench.methods.base import MODEL, SAME_LOGITS, Method
from peftbench.models import heads
from peftbench.models.adapted_model import AdaptedModel
from peftbench.suites.latency import Latency
from peftbench.training.measurement import synchronized_clock
from peftbench.training.precision import AUTOCAST
from peftbench.training.predictor import Predictor
from peftbench.training.session import TrainingInterrupted

#: Rebuilds the trained model in a precision, frozen; true folds what was inserted.
View = Callable[[str, bool], Predictor]

#: Texts of which the logits of both forms are compared.
_COMPARED = 64


@dataclass(frozen=True)
class Merging:
    """Whether a trained model could be merged.

    Attributes:
        difference: the largest of the logits in fp32; None where it could not be merged.
        why_not: where it was not timed.
        plain: whether nothing was inserted, so that the trained model is what merging gives.
    """

    difference: float | None = None
    why_not: str | None = None
    plain: bool = False

    def to_json(self) -> Json:
        """As part of findings."""
        if self.why_not is not None:
            return {"not_merged": self.why_not, "difference": self.difference}
        return {"difference": self.difference, "tolerance": SAME_LOGITS}


def measure(
    asked: Latency,
    method: Method,
    view: View,
    tokens: TokenizedSplit,
    precision: str,
    report: Callable[[Json], None],
    stop: Callable[[], bool],
) -> tuple[dict[str, Arrays], Merging]:
    """Seconds of each pass, by form and kind, and how the forms compare.

    Raises:
        TrainingInterrupted: after `stop`.
    """
    merging = compare_merged(method, view, tokens)
    forms = {"unmerged": view(precision, False)}
    if merging.why_not is None:
        forms["merged"] = view(precision, True)
    if merging.plain or merging.why_not is None:
        deployed = forms["unmerged" if merging.plain else "merged"]
        heads.store_as_cast(deployed.model.modules(), AUTOCAST.get(precision))
    seconds: dict[str, Arrays] = {form: {} for form in forms}
    passes = [
        (kind, rows, number >= 0)
        for kind, every in asked.passes(len(tokens)).items()
        for number, rows in enumerate([*every[: asked.warmup], *every], -len(every[: asked.warmup]))
    ]
    taken: dict[tuple[str, str], list[float]] = {}
    for done, (kind, rows, counts) in enumerate(passes, 1):
        batch = forms["unmerged"].collate(tokens, rows)
        for form, predictor in forms.items():
            spent = timed(predictor, batch)
            if counts:
                taken.setdefault((form, kind), []).append(spent)
        report({"fraction": done / len(passes)})
        if stop():
            raise TrainingInterrupted("stopped; an evaluation starts again")
    for (form, kind), found in taken.items():
        seconds[form][kind] = np.array(found)
    return seconds, merging


def timed(view: Predictor, batch: Batch) -> float:
    """Seconds from a batch on the CPU to its outputs, once the device has them."""
    view.model.eval()
    start = synchronized_clock(view.device)
    with torch.inference_mode(), view.accelerator.autocast():
        (moved,) = view.moved(iter([batch]))
        view.method.predict(view.model, moved)
    return synchronized_clock(view.device) - start


def compare_merged(method: Method, view: View, tokens: TokenizedSplit) -> Merging:
    """Whether the method's class says that it folds, and whether the logits stay the same."""
    try:
        forms = method.export_forms()
    except ValueError as error:
        return Merging(why_not=str(error))
    if MODEL not in forms:
        return Merging(why_not=f"{type(method).__name__} has no place in the model's own weights")
    plain = view("fp32", False)
    try:
        merged = view("fp32", True)
    except ValueError as error:
        return Merging(why_not=str(error))
    if _names(plain.model) == _names(merged.model):
        why_not = f"{type(method).__name__} inserts nothing beside the model"
        return Merging(why_not=why_not, plain=True)
    rows = np.arange(min(len(tokens), _COMPARED))
    one, other = (each.predict(tokens, rows)["scores"] for each in (plain, merged))
    difference = float(np.abs(one - other).max())
    if not difference <= SAME_LOGITS * max(1.0, float(np.abs(one).max())):
        return Merging(difference, f"merged logits differ by {difference:.2g} in fp32")
    return Merging(difference)


def _names(model: AdaptedModel) -> set[str]:
    return {name for name, _ in model.named_parameters()}
