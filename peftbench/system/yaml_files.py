"""Configuration files as people have them: text, yaml, or refused with their name."""

from pathlib import Path
from typing import Any

from peftbench.core.errors import ConfigError, first_line


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
        ConfigError: if it is no yaml, with the line.
    """
    import yaml  # `peftbench --help` takes a quarter less processor time without it and OmegaConf
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        return OmegaConf.create(text)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{path} is not a yaml file: {_reason(error, text)}") from error
    except RecursionError:
        raise ConfigError(f"{path} is not a yaml file: an alias in it holds itself") from None
    except AssertionError:  # a text or a number
        raise ConfigError(f"{path} must hold key: value lines, got one value") from None


def _reason(error: Exception, text: str) -> str:
    """What is wrong and in which line; only the first line of what OmegaConf has to say."""
    mark = getattr(error, "problem_mark", None)
    if mark is not None:
        return f"line {mark.line + 1}: {getattr(error, 'problem', None)}"
    if (place := getattr(error, "position", None)) is not None:  # a character that yaml has not
        line = text[:place].count("\n") + 1
        return f"line {line}: {getattr(error, 'reason', None)} (#x{ord(text[place]):02x})"
    return first_line(error)


def parse_value(text: str) -> Any:
    """The value that a text is behind a key of a yaml file, or as an override: 1e-3 is a number.

    Raises:
        ConfigError: if it is no yaml.
    """
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        found: Any = OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"]))
        return found["value"]
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise ConfigError(f"{text!r}: {_reason(error, text)}") from error


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
        raise ConfigError(f"{path}: {first_line(error)}") from error
    if not isinstance(found, dict):
        raise ConfigError(f"{path} must hold key: value lines, got {type(found).__name__}")
    return {str(key): value for key, value in found.items()}
