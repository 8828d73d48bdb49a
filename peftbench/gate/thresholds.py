"""The limits of a gate, from a yaml file."""

from dataclasses import dataclass, fields
from pathlib import Path

from peftbench.config import catalog
from peftbench.core.errors import ConfigError, above, at_least, between, one_of
from peftbench.core.text import did_you_mean
from peftbench.gate.abnormal import KINDS
from peftbench.suites.noise import Noise
from peftbench.system import yaml_files

#: The packaged file.
NAME = "gate.yaml"

#: What is compared with a limit.
DECIDE_BY = ("interval", "value")


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What a new model may not exceed, or fall below; None is no limit. See configs/gate.yaml."""

    decide_by: str
    score_difference: float | None
    negative_flips: float | None
    calibration_difference: float | None
    noise_difference: float | None
    shift_difference: float | None
    abnormal_difference: float | None
    latency_ratio: float | None
    size_ratio: float | None
    noise: dict[str, float]
    abnormal: list[str]
    latency_texts: int

    def __post_init__(self) -> None:
        one_of("decide_by", self.decide_by, DECIDE_BY)
        for one in fields(self):
            value = getattr(self, one.name)
            if value is None:
                continue
            if one.name.endswith("_difference"):
                between(one.name, value, -1, 1)
            elif one.name.endswith("_ratio"):
                above(one.name, value, 0)
        if self.negative_flips is not None:
            between("negative_flips", self.negative_flips, 0, 1)
        at_least("latency_texts", self.latency_texts, 20, whole=True)
        if not isinstance(self.abnormal, list):
            raise ConfigError(f"abnormal must be a list of kinds, got {self.abnormal!r}")
        for kind in self.abnormal:
            one_of("abnormal", kind, KINDS)
        if all(getattr(self, name) is None for name in _LIMITS):
            raise ConfigError(
                f"no limit is set, so that every model would pass; set one of {', '.join(_LIMITS)}"
            )
        if not isinstance(self.noise, dict):
            raise ConfigError(f"noise must hold kinds with rates, got {self.noise!r}")
        try:
            self.noise_suite  # noqa: B018 - it refuses kinds and rates
        except ValueError as error:
            raise ConfigError(str(error).replace("suite.kinds", "noise")) from error

    @property
    def noise_suite(self) -> Noise:
        """The kinds of noise, each at its rate."""
        return Noise(kinds=self.noise, intensities=[1.0], examples=None, seed=0)

    def not_measured(self, shift: bool) -> list[str]:
        """Names of limits that are set and compared with nothing.

        Args:
            shift: whether there are files of another source.
        """
        given = {
            "noise_difference": bool(self.noise),
            "abnormal_difference": bool(self.abnormal),
            "shift_difference": shift,
        }
        return [n for n, known in given.items() if not known and getattr(self, n) is not None]

    def require_one_measured(self, shift: bool) -> None:
        """Refuse limits of which none is compared with anything: every model would pass.

        Raises:
            ConfigError: saying what is missing.
        """
        missing = self.not_measured(shift)
        if all(getattr(self, name) is None or name in missing for name in _LIMITS):
            raise ConfigError(
                f"no limit is compared with anything, so that every model would pass: only "
                f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} set, which nothing "
                "measures; give --shift FILE for shift_difference, kinds of noise or abnormal "
                "input for the others, or set another limit"
            )


#: Keys of `Thresholds` that decide.
_LIMITS = tuple(
    one.name for one in fields(Thresholds) if one.name.endswith(("_difference", "_flips", "_ratio"))
)


def read(path: Path | None) -> Thresholds:
    """The packaged limits, with those of a user's own file in their place.

    Raises:
        ConfigError: if the file cannot be read, or has an unknown key or a value out of range.
    """
    found = yaml_files.read_mapping(catalog.packaged() / NAME)
    if path is None:
        return Thresholds(**found)
    own = yaml_files.read_mapping(path)
    for name in own:
        if name not in found:
            raise ConfigError(f"{path}: unknown key {name}; {did_you_mean(name, found)}")
    try:
        return Thresholds(**found | own)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
