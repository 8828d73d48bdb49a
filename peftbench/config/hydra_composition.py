"""Compositions by Hydra over a list of configuration folders, its errors as a user reads them."""

from functools import lru_cache
from pathlib import Path

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from peftbench.config import own_configs, schema
from peftbench.core.errors import ConfigError, first_line
from peftbench.core.text import did_you_mean

ConfigStore.instance().store(name=schema.NAME, node=schema.RunSchema, provider="peftbench")

#: What chose an option: `method=lora`, and words for the methods inside it.
Words = tuple[str, ...]


class HydraFolders:
    """Configuration folders, the last being the packaged one, as their files are now."""

    def __init__(self, searched: list[Path]):
        self._searched = tuple(searched)
        paths = (path for folder in searched for path in folder.rglob("*.yaml"))
        stats = [(str(path), path.stat()) for path in paths]
        self._state = tuple((path, stat.st_mtime_ns, stat.st_size) for path, stat in stats)

    def compose(self, words: Words) -> DictConfig:
        """All groups, with the options that the words choose; it must not be written to.

        Raises:
            ConfigError: if Hydra cannot compose it; which file is wrong, and what in it.
        """
        try:
            return _compose(self._searched, self._state, words)
        except yaml.YAMLError as error:
            raise ConfigError(f"{' '.join(words)}: a yaml file is broken: {error}") from error
        except RecursionError:
            raise ConfigError(
                f"{' '.join(words)}: a yaml file refers to itself, in its defaults or by an alias"
            ) from None
        except AssertionError:
            raise ConfigError(
                f"{' '.join(words)}: a yaml file must hold key: value lines, got one value"
            ) from None
        except (HydraException, OmegaConfBaseException) as error:
            inner = [word for word in words if "@" in word]
            if inner and "Could not override" in str(error):
                raise ConfigError(
                    f"{inner[0].partition('@')[2]}: this method takes no other one inside; "
                    "`peftbench list methods` says which are around another one"
                ) from error
            raise ConfigError(_reason(error)) from error
        except ValueError as error:  # of Hydra, about a list of defaults
            raise ConfigError(first_line(error)) from error


@lru_cache(maxsize=256)
def _compose(searched: tuple[Path, ...], state: object, words: Words) -> DictConfig:
    """Compose once for all plans of a process while no file changes, which `state` tells."""
    own_configs.search(list(searched[:-1]))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(searched[-1]), version_base="1.3"):
        return compose("run", overrides=list(words))


def _reason(error: Exception) -> str:
    """Why a composition failed: which file, and which key or type was wrong in it."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, ConfigKeyError):
        fields = [str(name) for name in getattr(cause.object_type, "__dataclass_fields__", ())]
        near = f"; {did_you_mean(str(cause.key), fields)}" if fields else ""
        return f"{first_line(error).partition(':')[0]}: {first_line(cause)}{near}"
    if isinstance(cause, OmegaConfBaseException):
        return f"{first_line(error).partition(':')[0]}: {schema.type_reason(cause)}"
    return first_line(error)
