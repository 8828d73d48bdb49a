"""Models of their published size on the meta device, without weights."""

from functools import cache

import tiny

from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone


@cache
def backbone(model: str) -> Backbone:
    run = tiny.one_run(f"model={model}")
    return Backbone(run.model, "meta", pretrained.skeleton(run.model, "meta"))


def adapted_model(model: str, method: str, *words: str) -> AdaptedModel:
    inserted = AdaptedModel(backbone(model), classes=2, seed=0)
    build_method(tiny.one_run(f"method={method}", *words).method).insert(inserted)
    return inserted


def trained(model: str, method: str, *words: str) -> int:
    return adapted_model(model, method, *words).counts()["trained"]


def bottlenecks(model: str, method: str, *words: str) -> int:
    parameters = adapted_model(model, method, *words).trained().items()
    return sum(p.numel() for name, p in parameters if ".bottleneck." in name)
