"""What the contracts of methods are tested on."""

from dataclasses import dataclass

from peftbench.core.run import Run
from peftbench.data.batching import Batch
from peftbench.methods.base import Method, build_method
from peftbench.models.backbone import Backbone


@dataclass(frozen=True)
class Pair:
    """A method, a model and a batch."""

    run: Run
    backbone: Backbone
    batch: Batch

    @property
    def method(self) -> Method:
        """The method, without what earlier encoders left in it."""
        return build_method(self.run.method)
