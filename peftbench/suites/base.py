"""What an evaluation beyond the task's own score may ask, and of which texts.

A suite is a frozen dataclass: it is its parameters. It names sets of texts, somebody else predicts
on all of them at once, and it says what the predictions mean. No suite knows a method or torch.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

from peftbench.core.arrays import Arrays
from peftbench.core.configs import import_class
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record, Run
from peftbench.core.text import did_you_mean
from peftbench.data.loading import LabelledTexts

#: What a suite's yaml holds beside the fields of its class.
TITLE = ("_target_", "name", "implementation", "revision", "about", "tasks")


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A question to the trained weights of a run.

    Attributes:
        untrained: whether the sets are also predicted on by the pretrained model with the head
            that the run started from; those predictions are named `untrained/SET`.
        trains: whether it trains itself, and needs no kept weights; then it is `suites.continual`.
    """

    untrained: ClassVar[bool] = False
    trains: ClassVar[bool] = False

    def check_run(self, run: Run) -> None:
        """Refuse a run of which the question makes no sense.

        Raises:
            ConfigError: saying why.
        """

    def refuse_texts(self, run: Run) -> None:
        """Refuse a run that writes texts, where the question is about classes or values.

        Raises:
            ConfigError: naming the task.
        """
        if run.task.generation:
            raise ConfigError(
                f"{type(self).__name__.lower()}: {run.task.name} wants texts, and this suite is "
                "about classes and values; for texts there are in_context, shift, transfer and "
                "continual"
            )

    def check_data(self, run: Run, root: str | None) -> None:
        """Refuse data of which the sets cannot be made, before any training starts.

        By default the sets are made; a suite whose sets take long overrides this.

        Args:
            run: whose weights will be evaluated.
            root: folders of data sets in the hub's layout, or None for the hub.

        Raises:
            ConfigError: if the data are missing or do not fit.
        """
        self.sets(run, root)

    def sets(self, run: Run, root: str | None) -> dict[str, LabelledTexts]:
        """Labelled texts to predict on, by name.

        Args:
            run: whose weights are asked.
            root: folders of data sets in the hub's layout, or None for the hub.

        Raises:
            ConfigError: if the data cannot be loaded.
        """
        raise NotImplementedError

    def asked_as(self, name: str, run: Run) -> Run:
        """The run as which the weights are asked about a set: of another task or prompt."""
        return run

    def asked_runs(self, run: Run) -> list[Run]:
        """The runs as which the weights are asked, or trained, beside the run itself."""
        return []

    def recorded(self, name: str, run: Run) -> bool:
        """Whether a set is the whole reporting split as the run's record has predicted on it."""
        return False

    def shown(self, name: str) -> int | None:
        """How many demonstrations stand in front of a set's texts; None as many as in training."""
        return None

    def demonstrations(self, name: str, run: Run, root: str | None) -> LabelledTexts | None:
        """Solved examples of another task for a set's texts; None for `shown` of the run's own."""
        return None

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """What the predictions mean, plain data.

        `headline` holds the few most telling figures, shares by name: the columns of the table of a
        suite that has no file in `peftbench/reports`. `curve` is drawn if it is there: `x` and `y`
        name the axes, `points` are pairs of a place and a share, None where it is undefined.

        Args:
            record: of the run.
            known: its predictions of the reporting split.
            found: for each set label, scores and whatever spread the method has.
        """
        raise NotImplementedError


def build_suite(node: Json) -> Suite:
    """Instantiate a suite's node.

    Raises:
        ConfigError: if its `_target_` is no suite, or the suite refuses a value.
    """
    try:
        kind = import_class(node["_target_"], Suite)
    except ConfigError as error:
        raise ConfigError(f"suite {node['name']}: {error}") from error
    given: dict[str, Any] = {key: value for key, value in node.items() if key not in TITLE}
    known = [f.name for f in fields(kind)]
    for key in given:
        if key not in known:
            raise ConfigError(f"{node['name']} has no suite.{key}; {did_you_mean(key, known)}")
    try:
        return kind(**given)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"suite {node['name']}: {error}") from error
