"""An evaluation beyond the task's own score, and what it found: plain data and the key."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from peftbench.core.configs import class_name
from peftbench.core.run import (
    ASIDE,
    SCHEMA,
    Json,
    Run,
    canonical,
    identity,
    key_of_text,
    known,
    of_schema,
)
from peftbench.core.text import one_line
from peftbench.core.tuning import RateChoice


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A suite applied to the trained weights of a run, as a value.

    Attributes:
        run: whose weights were kept.
        suite: the suite's node, as it is for the run's task.
    """

    run: Run
    suite: Json

    @cached_property
    def key(self) -> str:
        """First 12 hex digits of the SHA-256 of the run's key and the suite, `ASIDE` left out.

        A suite's own `examples` say what is asked; only those of a task's node are left out.
        """
        text = canonical([self.run.key, _asked(self.suite)])
        return key_of_text(text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Evaluation) and other.key == self.key

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def kind(self) -> str:
        """What the suite is, however its option is called: see `core.configs.class_name`."""
        return class_name(self.suite["_target_"])

    @property
    def title(self) -> str:
        """A line that names the evaluation to a person; not unique."""
        return one_line(f"{self.suite['name']} of {self.run.title}")

    def to_json(self) -> Json:
        """The evaluation as plain data, which `from_json` reads."""
        return {"run": self.run.to_json(), "suite": self.suite}

    @classmethod
    def from_json(cls, data: Json) -> "Evaluation":
        """Read what `to_json` wrote.

        Raises:
            RecordError: if a field is missing or unknown.
        """
        given = known(cls, data)
        return cls(Run.from_json(given["run"]), given["suite"])


def _asked(value: Any) -> Any:
    """A suite's node without what cannot change a finding; tasks in it as in a run."""
    if isinstance(value, Mapping):
        told = {name: inner for name, inner in value.items() if name not in ASIDE - {"examples"}}
        return {n: identity(inner) if n == "task" else _asked(inner) for n, inner in told.items()}
    return [_asked(inner) for inner in value] if isinstance(value, list) else value


#: What a worker is given to do.
Job = Run | Evaluation

#: What is handed to a cluster.
ClusterJob = Job | RateChoice


def job_json(job: ClusterJob) -> Json:
    """A job as plain data that says which kind it is; `cluster_job_of` reads it."""
    kinds = {Run: "run", Evaluation: "evaluation", RateChoice: "rate_choice"}
    return {kinds[type(job)]: job.to_json()}


def job_of(data: Json) -> Job:
    """Read what `job_json` gave for a worker, beside whatever else is in `data`.

    Raises:
        RecordError: if a field is missing or unknown.
    """
    return Run.from_json(data["run"]) if "run" in data else Evaluation.from_json(data["evaluation"])


def cluster_job_of(data: Json) -> ClusterJob:
    """Read what `job_json` gave, beside whatever else is in `data`.

    Raises:
        RecordError: if a field is missing or unknown.
    """
    return RateChoice.from_json(data["rate_choice"]) if "rate_choice" in data else job_of(data)


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What an evaluation found. Undefined values are None, never a stand-in.

    Attributes:
        evaluation: of which run, by which suite.
        findings: what the suite says, plain data.
        headline: the few figures of the findings that a line has room for.
        seconds: load, tokenise (texts are made here too), evaluate.
        environment: versions, device, threads, commit.
        trained_sha256: of the weights that were evaluated.
        predictions_sha256: of the predictions' file.
    """

    evaluation: Evaluation
    findings: Json
    headline: dict[str, float | None]
    seconds: dict[str, float]
    environment: Json
    trained_sha256: str | None
    predictions_sha256: str | None = None
    schema: int = field(default=SCHEMA)

    def of_weights(self, digest: str | None) -> bool:
        """Whether these weights were evaluated, as far as both are known."""
        return None in (digest, self.trained_sha256) or digest == self.trained_sha256

    @property
    def headline_text(self) -> str:
        """The headline on one line; its figures have different units, so none is in percent."""
        shown = {n: "undefined" if v is None else f"{v:.4g}" for n, v in self.headline.items()}
        return ", ".join(f"{name} {value}" for name, value in shown.items())

    def to_json(self) -> Json:
        """Plain data, which `from_json` reads."""
        rest = {one.name: getattr(self, one.name) for one in fields(self)} | {"evaluation": None}
        return copy.deepcopy(rest) | {"evaluation": self.evaluation.to_json()}

    @classmethod
    def from_json(cls, data: Json) -> "Evaluated":
        """Read what `to_json` wrote.

        Raises:
            RecordError: if the schema is another one, or a field is missing or unknown.
        """
        given = known(cls, of_schema("an evaluation", data))
        return cls(**given | {"evaluation": Evaluation.from_json(given["evaluation"])})
