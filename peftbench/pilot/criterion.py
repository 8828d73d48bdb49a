"""What counts as success: written to a file before the first run, and hashed."""

import json
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

from peftbench.core.errors import ConfigError, above, between
from peftbench.core.run import Json
from peftbench.core.text import did_you_mean, listed_names
from peftbench.metrics import task_metrics
from peftbench.results.store import ResultsFolder
from peftbench.system import io, yaml_files

#: The file of the criterion in a results folder, and that of its versions.
NAME, VERSIONS = "criterion.yaml", "criterion.json"

#: The option of the command that gives a part.
OPTIONS = {
    "metric": "--metric",
    "least": "--at-least",
    "largest_seconds": "--most-seconds",
    "largest_review": "--most-review",
    "review_error": "--review-error",
}


@dataclass(frozen=True)
class PilotCriterion:
    """What a method must reach.

    Attributes:
        data: SHA-256 of the file that it is about.
        metric: of the score.
        least: value that the lower end of the interval must reach, in [0, 1].
        largest_seconds: of one training with the choice of its rate; None is no limit.
        largest_review: share of texts that people may have to check; None is no review.
        review_error: share of wrong answers, at most, among the texts that nobody checks.
    """

    data: str
    metric: str
    least: float
    largest_seconds: float | None = None
    largest_review: float | None = None
    review_error: float | None = None

    def __post_init__(self) -> None:
        if self.metric not in task_metrics.METRICS:
            near = did_you_mean(str(self.metric), task_metrics.METRICS)
            raise ConfigError(f"criterion: no metric {self.metric!r}; {near}")
        between("criterion: least", self.least, 0, 1)
        if self.largest_seconds is not None:
            above("criterion: largest_seconds", self.largest_seconds, 0)
        if (self.largest_review is None) != (self.review_error is None):
            raise ConfigError(
                "criterion: --most-review and --review-error (largest_review and review_error in "
                f"{NAME}) belong together: how many texts people may check, and how many of the "
                "other answers may be wrong; give both"
            )
        if self.largest_review is not None:
            between("criterion: largest_review", self.largest_review, 0, 0.95)
            # no number of rows shows that none is wrong
            above("criterion: review_error", self.review_error, 0)
            between("criterion: review_error", self.review_error, 0, 0.5)

    def text(self) -> str:
        """The content of its file."""
        return "".join(
            f"{name}: {json.dumps(value)}  # {_ABOUT[name]}\n"
            for name, value in asdict(self).items()
        )


_ABOUT = {
    "data": "SHA-256 of the file of the pilot",
    "metric": "the score",
    "least": "what the lower end of its interval must reach",
    "largest_seconds": "of one training with the choice of its rate; null: no limit",
    "largest_review": "share of texts that people may check; null: no review",
    "review_error": "share of wrong answers, at most, among the texts that nobody checks",
}


@dataclass(frozen=True)
class CriterionVersion:
    """A content of the file that a pilot was run with.

    Attributes:
        sha256: of its bytes.
        written: when it was noted, UTC in ISO 8601.
        runs: trainings that were finished by then.
        criterion: in it.
    """

    sha256: str
    written: str
    runs: int
    criterion: PilotCriterion

    @classmethod
    def from_json(cls, data: Json) -> "CriterionVersion":
        """Read what `asdict` gave."""
        return cls(**data | {"criterion": PilotCriterion(**data["criterion"])})


@dataclass(frozen=True)
class WrittenCriterion:
    """A criterion as it is on disk.

    Attributes:
        criterion: as the file is now.
        sha256: of the bytes of the file.
        versions: every content that a pilot was run with, the first one first.
    """

    criterion: PilotCriterion
    sha256: str
    versions: list[CriterionVersion]

    @property
    def changes(self) -> list[CriterionVersion]:
        """The versions that were noted after trainings were finished."""
        return [version for version in self.versions if version.runs]

    def to_json(self) -> Json:
        """The criterion's own keys, and beside them those of its file."""
        return asdict(self.criterion) | {
            "sha256": self.sha256,
            "versions": [asdict(one) for one in self.versions],
            "changed": [asdict(one) for one in self.changes],
        }

    @classmethod
    def from_json(cls, data: Json) -> "WrittenCriterion":
        """Read what `to_json` gave."""
        return cls(
            PilotCriterion(**{one.name: data[one.name] for one in fields(PilotCriterion)}),
            data["sha256"],
            [CriterionVersion.from_json(one) for one in data["versions"]],
        )


def read(results: ResultsFolder) -> PilotCriterion | None:
    """The criterion in a results folder, if there is one.

    Raises:
        ConfigError: if the file is no criterion.
    """
    path = results.folder / NAME
    return _parsed(path) if path.exists() else None


def fix(results: ResultsFolder, wanted: PilotCriterion, runs: int) -> WrittenCriterion:
    """Write the criterion if there is none yet, and note which one holds.

    Args:
        results: the folder of the pilot.
        wanted: the one of the file, or of the options.
        runs: trainings that are finished by now.

    Raises:
        RecordError: if the noted versions were altered.
    """
    path, notes = results.folder / NAME, results.folder / VERSIONS
    if not path.exists():
        results.write(path, wanted.text().encode())
    body = path.read_bytes()
    sha256 = io.digest(body)
    noted = io.unsealed(notes)["versions"] if notes.exists() else []
    versions = [CriterionVersion.from_json(one) for one in noted]
    if not versions or versions[-1].sha256 != sha256:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        versions.append(CriterionVersion(sha256, now, runs, wanted))
        results.write(notes, io.sealed({"versions": [asdict(one) for one in versions]}))
    return WrittenCriterion(wanted, sha256, versions)


def _parsed(path: Path) -> PilotCriterion:
    found = yaml_files.read_mapping(path, resolve=False)
    known = {one.name for one in fields(PilotCriterion)}
    for key in found:
        if key not in known:
            raise ConfigError(f"{path}: unknown key {key}; {did_you_mean(str(key), known)}")
    if missing := [key for key in ("data", "metric", "least") if key not in found]:
        raise ConfigError(
            f"{path}: without {listed_names(missing)}; write it back, or choose another --results"
        )
    try:
        return PilotCriterion(**found)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
