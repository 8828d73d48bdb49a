"""Configuration files as people have them: text, yaml, or refused with their name."""

from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError


def read_utf8(path: Path) -> str:
    """The text of a file.

    Raises:
        ConfigError: if it cannot be read or is not UTF-8, with the line.
    """
    try:
        body = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = body[: error.start].count(b"\n") + 1
        raise ConfigError(
            f"{path}: line {line} is not UTF-8 (byte {body[error.start]:#04x}); save the file as "
            "UTF-8"
        ) from error
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parse(path: Path, text: str) -> Any:
    """The config of OmegaConf in the text of a file.

    Raises:
        ConfigError: if it is no yaml.
    """
    import yaml  # `peftbench --help` takes a quarter less processor time without it and OmegaConf
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"{path} is not a yaml file: {reason}") from error
    except RecursionError:
        raise ConfigError(f"{path} is not a yaml file: an alias in it holds itself") from None
    except AssertionError:  # a text or a number
        raise ConfigError(f"{path} must hold key: value lines, got one value") from None


def read_mapping(path: Path, text: str | None = None, resolve: bool = True) -> dict[str, Any]:
    """The keys and values of a yaml file.

    Args:
        path: of the file.
        text: of it, if it was read before.
        resolve: whether to resolve interpolations.

    Raises:
        ConfigError: if it holds anything else.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    config = parse(path, read_utf8(path) if text is None else text)
    try:
        found = OmegaConf.to_container(config, resolve=resolve)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold key: value lines, got {type(found).__name__}")
    return {str(key): value for key, value in found.items()}
