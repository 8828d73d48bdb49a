"""What a yaml under `configs/cluster` says of a cluster, as a value."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

import yaml
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from peftbench.config import aliases, catalog, old_names, schema
from peftbench.core.errors import ConfigError, first_line
from peftbench.core.run import Json
from peftbench.system import yaml_files

#: Numbers that may be 0, and those that may not.
_FROM_ZERO = (
    *("gpus", "bundle_minutes", "signal_seconds", "max_requeues", "poll_seconds", "settle_seconds"),
)
_ABOVE_ZERO = ("memory_gb", "most_memory_gb", "minutes")


@dataclass(frozen=True)
class Cluster:
    """Where and how jobs run; the comments of `configs/cluster/*.yaml` say what each key is.

    A scheduler takes the keys of its own yaml there, and no others.
    """

    about: str
    scheduler: str
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    template: str | None = None
    parallel_environment: str | None = None
    gpu_resource: str | None = None
    memory_resource: str | None = None
    memory_per_slot: bool = False
    resubmit: bool = False
    namespace: str | None = None
    image: str | None = None
    claim: str | None = None
    mount: str | None = None
    gpus: int | None = None
    cpus: int | None = None
    memory_gb: float | None = None
    more_memory: float = 1.0
    most_memory_gb: float | None = None
    modules: list[str] = field(default_factory=list)
    setup: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    prefetched: str | None = None
    minutes: int | None = None
    margin: float = 1.0
    unknown_minutes: float = 0.0
    most_minutes: int = 0
    bundle_minutes: float = 0.0
    signal_seconds: int = 0
    max_requeues: int = 0
    array_size: int = 1
    parallel: int = 1
    attempts: int = 1
    poll_seconds: float = 0.0
    settle_seconds: float = 0.0

    def to_json(self) -> Json:
        """Plain data, as it stands in a submission."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Json) -> "Cluster":
        """Read what `to_json` gave; keys of a later version are left out."""
        return cls(**{one.name: data[one.name] for one in fields(cls) if one.name in data})


def parted(words: Iterable[str]) -> tuple[list[str], list[str]]:
    """The words that speak of the cluster, and those that say which runs are meant."""
    ours: list[str] = []
    rest: list[str] = []
    for word in words:
        (ours if word.partition("=")[0].partition(".")[0] == "cluster" else rest).append(word)
    return ours, rest


def read(words: Iterable[str], configs: str | Path | None = None) -> Cluster:
    """The cluster that words such as `cluster=slurm cluster.partition=gpu` mean.

    Raises:
        ConfigError: where none or several are named, or a key or value is not what it may be.
    """
    words = [_current(word) for word in words]
    searched = catalog.folders(configs)
    names = [word.partition("=")[2] for word in words if word.startswith("cluster=")]
    if len(names) != 1:
        offered = ", ".join(catalog.options("cluster", tuple(searched)))
        raise ConfigError(f"no single cluster is named; set cluster=NAME, one of {offered}")
    path = catalog.find("cluster", names[0], searched)
    try:
        given = yaml_files.parse(path, old_names.read(path, "cluster"))
        base = _base(str(OmegaConf.select(given, "scheduler")), path, searched)
        said = _said(word.removeprefix("cluster.") for word in words if word.startswith("cluster."))
        _check_keys(names[0], [*map(str, given), *map(str, said)], base)
        typed = OmegaConf.structured(Cluster)
        OmegaConf.set_readonly(typed, False)  # it is frozen as the class is
        found = OmegaConf.to_object(OmegaConf.merge(typed, base, given, said))
    except yaml.YAMLError as error:
        raise ConfigError(f"cluster={names[0]}: {first_line(error)}") from error
    except OmegaConfBaseException as error:
        reason = schema.type_reason(error, Cluster)
        raise ConfigError(
            f"cluster={names[0]}: {'cluster.' * bool(error.full_key)}{reason}"
        ) from error
    assert isinstance(found, Cluster)
    _check(found)
    # a job may start in another folder
    return replace(
        found, prefetched=_resolved(found.prefetched), template=_resolved(found.template)
    )


def _said(words: Iterable[str]) -> DictConfig:
    """Overrides of keys, scalars as the texts that were typed: `Cluster` has their types.

    YAML would make 83 of the account 0123, and 3.1 of the version 3.10.

    Raises:
        ConfigError: for a key without a value or with two.
    """
    found = OmegaConf.create()
    given: set[str] = set()
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise ConfigError(f"cluster.{key}: no value is given; write cluster.{key}=VALUE")
        if key in given:
            raise ConfigError(f"cluster.{key} is given twice; leave one out")
        given.add(key)
        value = yaml.load(text, Loader=yaml.BaseLoader) if text else ""
        none = value in ("", "null", "~") and "." not in key
        OmegaConf.update(found, key, None if none else value)
    return found


def _resolved(path: str | None) -> str | None:
    return str(Path(path).expanduser().resolve()) if path else path


def _base(scheduler: str, path: Path, searched: list[Path]) -> DictConfig:
    """The yaml with all keys of a scheduler: a packaged one, or for `package.module` one's own.

    Raises:
        ConfigError: where there is none.
    """
    offered = {one.stem: one for one in sorted((catalog.packaged() / "cluster").glob("*.yaml"))}
    if "." in scheduler:
        offered = catalog.options("cluster", tuple(searched))
    stem = scheduler.rpartition(".")[2]
    file = offered.get(stem)
    base = None if file is None else yaml_files.parse(file, yaml_files.read_utf8(file))
    if not isinstance(base, DictConfig) or base.get("scheduler") != scheduler:
        raise ConfigError(
            f"{path}: scheduler: {scheduler}: there is no {stem}.yaml that says which keys it has; "
            f"the schedulers are {', '.join(offered)}, and a module of your own as package.module"
        )
    return base


def _check_keys(name: str, given: list[str], base: DictConfig) -> None:
    """Refuse keys that a scheduler has no use for."""
    known = [str(key) for key in base]
    for key in given:
        if key not in known:
            raise ConfigError(
                f"cluster={name}: the scheduler {base.scheduler} has no key {key!r}; its keys are "
                f"{', '.join(known)}"
            )


def _current(word: str) -> str:
    key, equals, value = word.partition("=")
    now = aliases.current_key(key, value)
    if now != key:
        old_names.note(key, now)
    return now + equals + value


def _check(cluster: Cluster) -> None:
    """Refuse what a scheduler would take and then do something else with.

    Some schedulers warn up to a minute early, and a job needs some time to start.
    """
    numbers = {
        name: value for name, value in vars(cluster).items() if isinstance(value, int | float)
    }
    for name, value in numbers.items():
        if not math.isfinite(value):
            raise ConfigError(f"cluster.{name}={value}: must be a finite number")
    for name in (*_FROM_ZERO, *_ABOVE_ZERO):
        if (value := numbers.get(name, 1)) < 0 or (name in _ABOVE_ZERO and value == 0):
            allowed = "above 0" if name in _ABOVE_ZERO else "at least 0"
            raise ConfigError(f"cluster.{name}={value}: must be {allowed}")
    if cluster.scheduler == "local":
        return
    if cluster.unknown_minutes <= 0:
        raise ConfigError(f"cluster.unknown_minutes={cluster.unknown_minutes}: must be above 0")
    least = math.ceil((cluster.signal_seconds + 90) / 60)
    for name in ("minutes", "most_minutes"):
        value = getattr(cluster, name)
        if value is not None and value < least:
            raise ConfigError(
                f"cluster.{name}={value} leaves no time to work: the scheduler's warning comes "
                f"{cluster.signal_seconds} s (cluster.signal_seconds) before the end, and up to a "
                f"minute early; at least {least} minutes are needed"
            )
    for name in ("margin", "array_size", "parallel", "attempts", "cpus"):
        value = getattr(cluster, name)
        if value is not None and value < 1:
            raise ConfigError(f"cluster.{name}={value}: must be at least 1")
    if cluster.more_memory < 1:
        raise ConfigError(f"cluster.more_memory={cluster.more_memory}: must be at least 1")
