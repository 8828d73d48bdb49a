"""A user's own configuration folders as Hydra searches them, old names in them understood."""

from pathlib import Path

from hydra._internal.core_plugins.file_config_source import FileConfigSource
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigLoadError, ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin

from peftbench.config import old_names
from peftbench.system import yaml_files

_folders: list[Path] = []  # those that the plug-in puts in front


def search(folders: list[Path]) -> None:
    """Let the next compositions search these folders before the packaged one."""
    _folders[:] = folders
    for plugin in (OwnConfigs, OwnSource):
        Plugins.instance().register(plugin)


class OwnSource(FileConfigSource):
    """A folder of the user's own, in which names of the release before are understood."""

    @staticmethod
    def scheme() -> str:
        """What paths of such folders start with."""
        return "own"

    def load_config(self, config_path: str) -> ConfigResult:
        """Read a file."""
        path = self._path(self._normalize_file_name(config_path))
        if not path.is_file():
            raise ConfigLoadError(f"Config not found : {path}")
        text = old_names.read(path, config_path.strip("/").partition("/")[0])
        return ConfigResult(
            config=yaml_files.parse(path, text),
            path=f"{self.scheme()}://{self.path}",
            provider=self.provider,
            header=ConfigSource._get_header_dict(text[:512]),
        )

    def is_group(self, config_path: str) -> bool:
        """Whether there is such a group."""
        return self._path(config_path).is_dir()

    def is_config(self, config_path: str) -> bool:
        """Whether there is such a file."""
        return self._path(self._normalize_file_name(config_path)).is_file()

    def _path(self, config_path: str) -> Path:
        """Where something is: in the folder of its group, or in one of the group's old name."""
        group, _, rest = config_path.strip("/").partition("/")
        olds = [old for old, new in old_names.GROUPS.items() if new == group]
        places = [Path(self.path, name, rest) for name in (group, *olds)]
        return next((place for place in places if place.exists()), places[0])


class OwnConfigs(SearchPathPlugin):
    """Hydra's official way to search more folders: a user's own come first."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Put the folders of `search` before the packaged one."""
        for folder in reversed(_folders):
            search_path.prepend("own", f"own://{folder}")
