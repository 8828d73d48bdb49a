"""Values that the settings of methods may have, and models and budgets that they fit.

Read without torch, from the source of the methods (`Limits`): runs are refused when they are
planned. The classes apply the same limits, for whoever makes one in Python. What only the model
itself can say is left to the rehearsal (`dry_run.py`), as are methods from outside of the package.
"""

import ast
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from peftbench.core.configs import Budget, FamilyConfig, MethodConfig, method_nodes
from peftbench.core.errors import ConfigError, above, at_least, between, one_of
from peftbench.core.roles import LINEARS, ROLES, check_roles
from peftbench.core.run import Run
from peftbench.core.text import did_you_mean
from peftbench.methods.peft_effects import (
    DROPPED_WEIGHTS,
    NOT_OFFERED,
    PAPER_ROLES,
    refuse_ineffective,
)
from peftbench.methods.peft_settings import check_peft_settings, installed_peft, peft_settings
from peftbench.methods.peft_support import peft_support
from peftbench.models.layer_sizes import LayerSizes

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Values that a setting may have: `rank: Annotated[int, Limits(at_least=1)]`.

    Planning reads them from the source of a method, which it does not import: arguments are
    literals and names of `_NAMES`. A setting of type `int` takes whole numbers, one that may be
    None is not looked at then.

    Attributes:
        at_least, above, between: of a number.
        choices: words, of which it is one or a list.
        roles: which a list of roles may hold.
        empty: whether that list may be.
        if_empty: what to do about an empty list or mapping, which is refused.
        length: of a list of numbers, each with these limits.
        inner: limits of values of a mapping, by key.
        rank: it is a rank of updates of the linears of `target_modules`.
        blocks: it lists blocks by number.
    """

    at_least: float | None = None
    above: float | None = None
    between: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    empty: bool = False
    if_empty: str = ""
    length: int | None = None
    inner: Mapping[str, "Limits"] = field(default_factory=dict)
    rank: bool = False
    blocks: bool = False

    def check_value(self, name: str, value: Any, whole: bool) -> None:
        """Refuse another value.

        Raises:
            ConfigError: with the name, what is allowed and what was given.
        """
        if self.if_empty and not value:
            raise ConfigError(f"{name} is empty: {self.if_empty}")
        if self.length not in (None, len(value) if isinstance(value, list) else -1):
            raise ConfigError(f"{name} must be {self.length} numbers, got {value}")
        for one in value if self.length is not None else [value]:
            if self.at_least is not None:
                at_least(name, one, self.at_least, whole)
            if self.above is not None:
                above(name, one, self.above)
            if self.between is not None:
                between(name, one, *self.between)
        for key, limits_of_key in self.inner.items():
            limits_of_key.check_value(f"{name}.{key}", value[key], whole=False)
        if self.choices:
            for one in value if isinstance(value, list) else [value]:
                one_of(name, one, self.choices)
        if self.roles:
            check_roles(name, value, self.roles, self.empty)


#: What the arguments of limits may name.
_NAMES = {"Limits": Limits, "ROLES": ROLES, "LINEARS": LINEARS}


@cache
def _sources(target: str) -> tuple[ast.ClassDef, ...]:
    """The source of a method of the package and of its bases, `methods.base` left out."""
    module, _, name = target.rpartition(".")
    file = Path(__file__).parents[2].joinpath(*module.split(".")).with_suffix(".py")
    if not module.startswith(f"{_HERE}.") or module == f"{_HERE}.base" or not file.is_file():
        return ()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imported for alias in node.names}
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
            found = [_sources(f"{homes.get(base, module)}.{base}") for base in bases]
            return (node, *(one for several in found for one in several))
    return ()


class Declared(NamedTuple):
    """A setting as the class of a method declares it: its type, and whether it may be left out."""

    kind: str
    limits: Limits
    has_default: bool


@cache
def limits(target: str) -> dict[str, Declared]:
    """Each setting with limits of a method of the package."""
    found: dict[str, Declared] = {}
    for node in _sources(target):
        for one in node.body:
            if isinstance(one, ast.AnnAssign) and isinstance(one.annotation, ast.Subscript):
                hint = one.annotation
                if ast.unparse(hint.value) == "Annotated" and isinstance(hint.slice, ast.Tuple):
                    kind, said = map(ast.unparse, hint.slice.elts)
                    made = Declared(kind, eval(said, _NAMES), one.value is not None)
                    found.setdefault(ast.unparse(one.target), made)
    return found


def token_wise(target: str) -> bool:
    """Whether a class may be `Method.token_wise`; those inside of it may say otherwise."""
    for node in _sources(target):
        for one in node.body:
            if isinstance(one, ast.FunctionDef) and one.name in ("predict", "token_wise"):
                return one.name != "predict" and ast.unparse(one.body[-1]) != "return False"
    return True


def check_values(target: str, values: Values, at: str = "") -> None:
    """Refuse values that a method of the package cannot have.

    Args:
        target: dotted path of the class; nothing is known of classes from elsewhere.
        values: of its settings.
        at: what stands before the names of settings in messages, `method.`.

    Raises:
        ConfigError: with the setting, what is allowed and what was given.
    """
    try:
        for name, (kind, allowed, has_default) in limits(target).items():
            if has_default and name not in values:
                continue
            if values[name] is not None or not kind.endswith("None"):
                allowed.check_value(at + name, values[name], whole=kind.startswith("int"))
        if target in RULES:
            RULES[target](values, at)
    except KeyError as error:
        raise ConfigError(
            f"{at}{error.args[0]} is missing; write it into the method's file (see configs/method)"
        ) from None


def check_family(target: str, values: Values, at: str, name: str, family: FamilyConfig) -> None:
    """Refuse roles that the family of a model does not have, and tuners that do not run there.

    Args:
        target: as of `check_values`, as are values and `at`.
        values: of the settings.
        at: before their names.
        name: of the family.
        family: with its roles.

    Raises:
        ConfigError: with the roles that it has, or the reason.
    """
    for setting in [name for name, one in limits(target).items() if one.limits.roles]:
        for role in values.get(setting) or ():
            if role in ROLES and role not in family.roles:
                raise ConfigError(
                    f"{at}{setting}: the family {name} has no {role}; its roles are "
                    f"{', '.join(family.roles)}"
                )
    if target == _PEFT and (reason := peft_support()[1].get(values["type"], {}).get(name)):
        raise ConfigError(f"{at}type={values['type']} does not run on {name}: {reason}")


def check_run(run: Run) -> None:
    """Refuse a budget or a task that the method cannot have.

    Raises:
        ConfigError: with the reason.
    """
    for _, method in method_nodes(run.method.to_json()):
        target = method["_target_"]
        if target == _ADALORA:
            check_adalora_budget(method, run.budget)
        if run.task.generation and not token_wise(target):
            raise ConfigError(cannot_write(run))


def cannot_write(run: Run) -> str:
    """Why a method cannot have a task that wants texts."""
    return (
        f"method={run.method.name} on {run.model.name}: the method looks at whole texts, or draws "
        f"its predictions, so that no cache of keys and values holds what {run.task.name} needs to "
        "write; choose another"
    )


def check_sizes(method: MethodConfig, model: str, sizes: LayerSizes) -> None:
    """Refuse ranks above the width of a layer, and blocks that the model does not have.

    Args:
        method: of a run.
        model: its name.
        sizes: of its blocks.

    Raises:
        ConfigError: with the setting, what is allowed and what was given.
    """
    for at, values in method_nodes(method.to_json(), "method."):
        target, config = values["_target_"], values.get("config") or {}
        named = limits(target).items()
        ranks = {name: values[name] for name, one in named if one.limits.rank}
        blocks = {name: values[name] for name, one in named if one.limits.blocks}
        if target == _PEFT:
            if values["type"] == "LORA" and config.get("target_modules") is None:
                ranks["config.r"] = config.get("r", 1)
            blocks["config.layers_to_transform"] = config.get("layers_to_transform")
        for setting, rank in ranks.items():
            for role in values["target_modules"]:
                check_rank(f"{at}{setting}", rank, f"{role} in {model}", sizes.narrow_side(role))
        for setting, given in blocks.items():
            for block in given if isinstance(given, list) else [given]:
                if isinstance(block, int) and not 0 <= block < sizes.blocks:
                    raise ConfigError(
                        f"{at}{setting}={given}: {model} has {sizes.blocks} blocks, 0 to "
                        f"{sizes.blocks - 1}"
                    )


def check_rank(setting: str, rank: int, layer: str, side: int) -> None:
    """Refuse a rank above the narrow side of a layer, which no update of it can have.

    Raises:
        ConfigError: with both.
    """
    if rank > side:
        raise ConfigError(
            f"{setting} must be at most {side}, the narrow side of {layer}, got {rank}"
        )


def check_adalora_budget(values: Values, budget: Budget) -> None:
    """Refuse a budget without a number of steps, or of too few of them.

    Raises:
        ConfigError: saying what to take.
    """
    if budget.seconds is not None:
        raise ConfigError("AdaLoRA's ranks fall by steps; take a budget of steps or epochs")
    if budget.steps:  # 0 is the model before training
        adalora_schedule(values, budget.steps)


def adalora_schedule(values: Values, steps: int) -> tuple[int, int]:
    """The steps after which ranks fall, and at which they have fallen.

    Raises:
        ConfigError: if none are in between.
    """
    start, end = round(values["initial"] * steps), steps - round(values["final"] * steps)
    if end <= start:
        raise ConfigError(f"{steps} steps are too few for AdaLoRA's ranks to fall in: take more")
    return start, end


# What limits of one setting cannot say


def _adalora(values: Values, at: str) -> None:
    at_least(f"{at}initial_rank", values["initial_rank"], values["target_rank"], whole=True)
    if values["initial"] + values["final"] >= 1:
        raise ConfigError(
            f"{at}initial + final must be below 1, got {values['initial']} + {values['final']}: no "
            "steps are left in which ranks fall"
        )


def _combined(values: Values, at: str) -> None:
    for name, member in values["members"].items():
        if "base_method" in (member if isinstance(member, Mapping) else vars(member)):
            raise ConfigError(
                f"{at}members.{name}: a method around another one acts on all that is inserted or "
                "trains, not on its base method alone: give it method.base_method=combined"
            )


def _ia3(values: Values, at: str) -> None:
    if not [*values["outputs"], *values["inputs"]]:
        raise ConfigError(f"{at}outputs and inputs are both empty: there is nothing to scale")


def _peft(values: Values, at: str) -> None:
    kind, config = values["type"], values["config"]
    known = peft_settings()["types"]
    if kind in NOT_OFFERED:
        raise ConfigError(f"{at}type={kind} {NOT_OFFERED[kind]}; choose {', '.join(known)}")
    if kind not in known and installed_peft() == peft_settings()["peft"]:
        raise ConfigError(
            f"{at}type={kind} is no tuner of the installed peft (types that put tokens in front of "
            f"the input are not offered: method=prefix); {did_you_mean(str(kind), known)}"
        )
    norms = PAPER_ROLES["LN_TUNING"]
    if kind == "LN_TUNING" and not set(values["target_modules"]) <= set(norms):
        raise ConfigError(
            f"{at}target_modules: LN_TUNING trains norms, choose of {', '.join(norms)}, got "
            f"{values['target_modules']}"
        )
    refuse_ineffective(kind, config)
    check_peft_settings(kind, config, at)


def _mc_dropout(values: Values, at: str) -> None:
    for inside, node in method_nodes(values.get("base_method"), f"{at}base_method."):
        drawn = []
        if node["_target_"] == _SPARSE and node["score"] == "learned":
            drawn = ["score=learned"]
        elif node["_target_"] == _PEFT:
            names = DROPPED_WEIGHTS.get(node["type"], ())
            drawn = [f"config.{name}" for name in names if node["config"].get(name)]
        if drawn:
            raise ConfigError(
                f"{inside}{drawn[0]}: MCDropout predicts in training mode, in which these weights "
                "are drawn once for all samples and all texts of a batch; choose another setting "
                "or base method, such as method.base_method=lora"
            )


def _sparse_adapter(values: Values, at: str) -> None:
    if _ADALORA in {node["_target_"] for _, node in method_nodes(values.get("base_method"))}:
        raise ConfigError(
            f"{at}base_method: AdaLoRA keeps whole matrices orthogonal, pruned weights too, and at "
            "the start the task says nothing of them (singular values of 0); choose another base "
            "method, such as adapter"
        )


def _robust_partial(values: Values, at: str) -> None:
    if (values["choose"] == "manual") != bool(values["which"]):
        raise ConfigError(
            f"{at}choose={values['choose']}, {at}which={values['which']}: only manual lists blocks"
        )
    inside = {node["_target_"] for _, node in method_nodes(values.get("base_method"))}
    if values["choose"] == "lisa" and _ADALORA in inside:
        raise ConfigError(
            f"{at}choose=lisa lets most blocks rest, and AdaLoRA ranks by the gradients of all at "
            "each step; choose rgn, fisher, manual or all, or another base_method"
        )


_HERE = "peftbench.methods"
_ADALORA = f"{_HERE}.adalora.AdaLoRA"
_PEFT = f"{_HERE}.peft.Peft"
_SPARSE = f"{_HERE}.sparse_adapter.SparseAdapter"

#: Rules between settings, by the class of the method.
RULES: dict[str, Callable[[Values, str], None]] = {
    _ADALORA: _adalora,
    f"{_HERE}.combined.Combined": _combined,
    f"{_HERE}.ia3.IA3": _ia3,
    f"{_HERE}.mc_dropout.MCDropout": _mc_dropout,
    _PEFT: _peft,
    _SPARSE: _sparse_adapter,
    f"{_HERE}.robust_partial.RobustPartial": _robust_partial,
}
