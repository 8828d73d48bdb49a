"""Any tuner of the peft library, inside our loop.

Mangrulkar, Gugger, Debut, Belkada, Paul and Bossan: PEFT, 2022, github.com/huggingface/peft.

The library's own modules are put into the encoder, its own code computes; data, batches, head,
precision and measurement are as for every other method.

Departures from the library: the head is ours and trains for every type; types that put tokens in
front of the input are refused (method=prefix is ours), and so are those that need a loop of their
own. Roles name the targets, so that a family needs no list of module names. IA3 has the places of
its paper (keys, values, inner activations), not query and value; see `peft_effects.py`.
"""

import copy
import re
import warnings
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import torch
from peft import PeftModel
from peft.config import PromptLearningConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import PeftType, get_peft_model_state_dict
from torch import Tensor, nn

from peftbench.core.roles import ROLES
from peftbench.core.run import Json
from peftbench.methods.base import MODEL, PEFT, Method
from peftbench.methods.peft_effects import NOT_OFFERED, SCALED_INPUTS, SCALES
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.module_ops import replace_module

#: Of the library's warnings those that a setting found nothing in the model.
_INEFFECTIVE = re.compile("did not match any|but no module|but no parameter")


@dataclass(frozen=True, kw_only=True)
class Peft(Method):
    """The tuner `type` with the arguments in `config`, on the roles in `target_modules`."""

    identity_at_init: ClassVar[bool] = False

    type: str
    target_modules: Annotated[list[str], Limits(roles=ROLES)]
    config: dict[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.type not in (kinds := offered()):  # of another version than the settings' file
            raise ValueError(
                f"type={self.type} is no tuner of the installed peft; choose {', '.join(kinds)}"
            )
        known = set(_config_class(self.type).__dataclass_fields__)
        if odd := sorted(set(self.config) - known):
            raise ValueError(f"{self.type} takes no {odd[0]}; it takes {', '.join(sorted(known))}")

    @property
    def names_blocks(self) -> bool:
        """Whether the config says which blocks."""
        modules = ("target_modules", "exclude_modules", "feedforward_modules")
        named = [str(self.config.get(name) or "") for name in modules]
        for name in ("rank_pattern", "alpha_pattern"):
            named += self.config.get(name) or {}
        numbered = any(re.search(r"\d", str(one)) for one in named)
        return numbered or self.config.get("layers_to_transform") is not None

    def insert(self, model: AdaptedModel) -> None:
        """Let the library put its modules in, on weights that it may write to."""
        paths = [f".{path}" for path, _ in model.module.named_modules()]
        for name in self.config.get("modules_to_save") or ():
            if not any(path.endswith(f".{name}") for path in paths):
                raise ValueError(f"config.modules_to_save: {model.name} has no module {name}")
        kind = PEFT_TYPE_TO_TUNER_MAPPING[PeftType(self.type)]
        head = set(model.trained())
        shared = _unshare(model.module)
        try:
            config = _config_class(self.type)(**self._arguments(model))
            with warnings.catch_warnings(record=model.rehearsal) as told:
                kind(model.module, config, "default")
            for one in told or ():
                if _INEFFECTIVE.search(str(one.message)):
                    raise ValueError(str(one.message))
                warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)
        except Exception as error:  # the library raises what it likes
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"{model.name} has no place for peft's {self.type}: {reason}"
            ) from error
        for module in model.module.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                clone, original = shared.get(id(parameter), (parameter, parameter))
                same = clone.is_meta or torch.equal(clone, original)
                if same and not clone.requires_grad:
                    setattr(module, name, original)  # the library left it alone
        for name in head:
            model.module.get_parameter(name).requires_grad_(True)
        for name, parameter in model.trained().items():
            parameter.data = parameter.data.float()  # some types follow the weights below them
            if any(scale in name.split(".") for scale in SCALES):
                parameter._no_weight_decay = True  # type: ignore[attr-defined]
        model.exact = True

    def export_forms(self) -> tuple[str, ...]:
        """An adapter of the library, or merged where the type can be."""
        return (PEFT, MODEL)

    def merge(self, model: AdaptedModel) -> None:
        """Let the library's layers merge, into copies of the weights below them."""
        for path, part in reversed([*model.module.named_modules()]):
            if not isinstance(part, BaseTunerLayer):
                continue
            _unshare(part.get_base_layer())
            try:
                part.merge(safe_merge=True)
            except Exception as error:  # the library raises what it likes
                reason = " ".join(str(error).split()) or type(error).__name__
                raise ValueError(f"peft cannot merge {self.type}: {reason}") from error
            replace_module(model.module, path, part.get_base_layer())
        model.merge()

    def to_peft(self, model: AdaptedModel) -> tuple[Json, dict[str, Tensor]]:
        """What the library writes of a model of its own with the same values."""
        config = _config_class(self.type)(**self._arguments(model))
        with torch.random.fork_rng():
            made = PeftModel(copy.deepcopy(model.backbone.module), config)
        inner: Any = made.base_model.model
        places = dict(inner.named_buffers()) | dict(inner.named_parameters())
        with torch.no_grad():
            for name, tensor in model.state().items():
                if not model.in_head(name):
                    places[name].copy_(tensor)
        given = {
            name: sorted(value) if isinstance(value, set) else value
            for name, value in config.to_dict().items()
        }
        return given, get_peft_model_state_dict(made, save_embedding_layers=False)

    def _arguments(self, model: AdaptedModel) -> dict[str, Any]:
        """What the config class gets."""
        fields = _config_class(self.type).__dataclass_fields__
        roles = self.target_modules
        found: dict[str, Any] = {}
        given, which = dict(self.config), None
        if "target_modules" not in self.config:
            # a pattern names the blocks itself: beside one the library takes no numbers
            which = given.pop("layers_to_transform", None)
            if given.get("layers_pattern"):
                raise ValueError(
                    "config.layers_pattern is for config.target_modules; roles name the blocks: "
                    "drop it"
                )
        which = [which] if isinstance(which, int) else which or None
        if "target_modules" in fields:
            found["target_modules"] = model.pattern(*roles, which=which)
        if "feedforward_modules" in fields:
            scaled = [role for role in roles if role in SCALED_INPUTS]
            found["feedforward_modules"] = model.pattern(*scaled) if scaled else []
        return found | given


def offered() -> list[str]:
    """The types that can be asked for."""
    kinds = (
        kind.value
        for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()
        if kind in PEFT_TYPE_TO_TUNER_MAPPING and not issubclass(config, PromptLearningConfig)
    )
    return sorted(kind for kind in kinds if kind not in NOT_OFFERED)


def _config_class(kind: str) -> Any:
    return PEFT_TYPE_TO_CONFIG_MAPPING[PeftType(kind)]


def _unshare(root: nn.Module) -> dict[int, tuple[nn.Parameter, nn.Parameter]]:
    """Put a copy in the place of each frozen parameter; the copies by id, with the originals."""
    found = {}
    for module in root.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if not parameter.requires_grad:
                clone = nn.Parameter(parameter.detach().clone(), requires_grad=False)
                setattr(module, name, clone)
                found[id(clone)] = (clone, parameter)
    return found
