"""Values that the settings of methods may have, and models and budgets that they fit.

Read without torch: runs are refused when they are planned. The classes of the methods apply the
same rules, for whoever makes one in Python. What only the model itself can say is left to the
rehearsal (`dry_run.py`), as are methods from outside of the package.
"""

from collections.abc import Callable, Mapping
from typing import Any

from peftbench.core.configs import Budget, FamilyConfig, MethodConfig, method_nodes
from peftbench.core.errors import ConfigError, above, at_least, between, one_of
from peftbench.core.roles import LINEARS, ROLES, check_roles
from peftbench.core.run import Run
from peftbench.core.text import did_you_mean
from peftbench.methods.peft_effects import NOT_OFFERED, refuse_ineffective
from peftbench.methods.peft_settings import check_peft_settings, installed_peft, peft_settings
from peftbench.methods.peft_support import peft_support
from peftbench.models.layer_sizes import LayerSizes

Values = Mapping[str, Any]

#: Words that settings take; the layers that they mean are where they are built.
ACTIVATIONS = ("relu", "gelu", "silu", "tanh")
STARTS = ("normal", "lora")
MATRICES = ("down", "up")
NOISES = ("batch", "flipout", "local")  # where that of a training step comes from
NORMALISERS = ("mean", "data")
SCORES = ("random", "magnitude", "er", "snip", "grasp", "learned")
SCOPES = ("global", "local")
CHOICES = ("rgn", "fisher", "lisa", "manual", "all")
RDROP = "rdrop"  # its second pass is one of the task's own
PENALTIES = ("none", RDROP, "r3f", "smart")

#: Settings of the methods that hold roles.
_ROLE_SETTINGS = ("target_modules", "at", "outputs", "inputs")


def check_values(target: str, values: Values, at: str = "") -> None:
    """Refuse values that a method of the package cannot have.

    Args:
        target: dotted path of the class; nothing is known of classes from elsewhere.
        values: of its settings.
        at: what stands before the names of settings in messages, `method.`.

    Raises:
        ConfigError: with the setting, what is allowed and what was given.
    """
    rule = _RULES.get(target)
    if rule is None:
        return
    try:
        rule(values, at)
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
    if target not in _RULES:
        return
    for setting in _ROLE_SETTINGS:
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
        if run.task.generation and target in NOT_TOKEN_WISE:
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
        ranks, blocks = {}, {}
        if target == _LORA:
            ranks["rank"] = values["rank"]
        elif target == _ADALORA:
            ranks["initial_rank"] = values["initial_rank"]
        elif target == _PEFT:
            if values["type"] == "LORA" and config.get("target_modules") is None:
                ranks["config.r"] = config.get("r", 1)
            blocks["config.layers_to_transform"] = config.get("layers_to_transform")
        elif target == _ROBUST_PARTIAL:
            blocks["which"] = values["which"]
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
    if budget.steps is not None:
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


# Rules, by the class of a method


def _part(name: str, value: Any) -> None:
    above(name, value, 0)
    between(name, value, 0, 1)


def _lora(values: Values, at: str) -> None:
    at_least(f"{at}rank", values["rank"], 1, whole=True)
    above(f"{at}alpha", values["alpha"], 0)
    between(f"{at}dropout", values["dropout"], 0, 0.9)
    between(f"{at}rank_scaling", values["rank_scaling"], 0, 1)
    check_roles(f"{at}target_modules", values["target_modules"], LINEARS)
    if values.get("loraplus_lr_ratio") is not None:
        at_least(f"{at}loraplus_lr_ratio", values["loraplus_lr_ratio"], 1)


def _adalora(values: Values, at: str) -> None:
    at_least(f"{at}target_rank", values["target_rank"], 1, whole=True)
    at_least(f"{at}initial_rank", values["initial_rank"], values["target_rank"], whole=True)
    above(f"{at}alpha", values["alpha"], 0)
    between(f"{at}dropout", values["dropout"], 0, 0.9)
    check_roles(f"{at}target_modules", values["target_modules"], LINEARS)
    between(f"{at}initial", values["initial"], 0, 1)
    between(f"{at}final", values["final"], 0, 1)
    if values["initial"] + values["final"] >= 1:
        raise ConfigError(
            f"{at}initial + final must be below 1, got {values['initial']} + {values['final']}: no "
            "steps are left in which ranks fall"
        )
    at_least(f"{at}interval", values["interval"], 1, whole=True)
    at_least(f"{at}orthogonality", values["orthogonality"], 0)
    if len(values["betas"]) != 2:
        raise ConfigError(f"{at}betas must be two numbers, got {values['betas']}")
    for beta in values["betas"]:
        between(f"{at}betas", beta, 0, 1)


def _adapter(values: Values, at: str) -> None:
    at_least(f"{at}width", values["width"], 1, whole=True)
    if not values["at"]:
        raise ConfigError(
            f"{at}at is empty: name places of bottlenecks, or train norms alone with "
            "method=layernorm"
        )
    check_roles(f"{at}at", values["at"], (*ROLES, "ffn"))
    one_of(f"{at}activation", values["activation"], ACTIVATIONS)
    above(f"{at}scale", values["scale"], 0)
    one_of(f"{at}start", values["start"], STARTS)


def _bayes_hybrid(values: Values, at: str) -> None:
    if not values["matrices"]:
        raise ConfigError(f"{at}matrices is empty: choose {', '.join(MATRICES)} or both")
    for matrix in values["matrices"]:
        one_of(f"{at}matrices", matrix, MATRICES)
    one_of(f"{at}noise", values["noise"], NOISES)
    one_of(f"{at}normalise", values["normalise"], NORMALISERS)
    above(f"{at}spread", values["spread"], 0)
    above(f"{at}prior.std", values["prior"]["std"], 0)
    at_least(f"{at}kl", values["kl"], 0)
    at_least(f"{at}samples", values["samples"], 0, whole=True)


def _bitfit(values: Values, at: str) -> None:
    if values.get("target_modules") is not None:
        check_roles(f"{at}target_modules", values["target_modules"], empty=True)


def _blob(values: Values, at: str) -> None:
    above(f"{at}spread", values["spread"], 0)
    above(f"{at}prior.std", values["prior"]["std"], 0)
    at_least(f"{at}kl_lr", values["kl_lr"], 0)
    above(f"{at}gamma", values["gamma"], 0)
    at_least(f"{at}samples", values["samples"], 0, whole=True)


def _combined(values: Values, at: str) -> None:
    if not values["members"]:
        raise ConfigError(f"{at}members is empty: name at least one method")


def _full(values: Values, at: str) -> None:
    _part(f"{at}layer_decay", values["layer_decay"])  # 1 is the same rate for all


def _ia3(values: Values, at: str) -> None:
    for setting in ("outputs", "inputs"):
        check_roles(f"{at}{setting}", values[setting], LINEARS, empty=True)
    if not [*values["outputs"], *values["inputs"]]:
        raise ConfigError(f"{at}outputs and inputs are both empty: there is nothing to scale")


def _mc_dropout(values: Values, at: str) -> None:
    at_least(f"{at}samples", values["samples"], 1, whole=True)


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
    refuse_ineffective(kind, config)
    check_peft_settings(kind, config, at)
    check_roles(f"{at}target_modules", values["target_modules"])


def _prefix(values: Values, at: str) -> None:
    at_least(f"{at}length", values["length"], 0, whole=True)
    at_least(f"{at}width", values["width"], 0, whole=True)


def _random_mask(values: Values, at: str) -> None:
    _part(f"{at}keep", values["keep"])


def _robust_partial(values: Values, at: str) -> None:
    one_of(f"{at}choose", values["choose"], CHOICES)
    one_of(f"{at}penalty", values["penalty"], PENALTIES)
    between(f"{at}part", values["part"], 0, 1)
    if (values["choose"] == "manual") != bool(values["which"]):
        raise ConfigError(
            f"{at}choose={values['choose']}, {at}which={values['which']}: only manual lists blocks"
        )
    at_least(f"{at}batches", values["batches"], 1, whole=True)
    at_least(f"{at}interval", values["interval"], 1, whole=True)
    at_least(f"{at}strength", values["strength"], 0)
    at_least(f"{at}epsilon", values["epsilon"], 0)
    between(f"{at}wise", values["wise"], 0, 1)


def _sparse_adapter(values: Values, at: str) -> None:
    _part(f"{at}keep", values["keep"])
    one_of(f"{at}score", values["score"], SCORES)
    one_of(f"{at}scope", values["scope"], SCOPES)
    at_least(f"{at}batches", values["batches"], 1, whole=True)
    at_least(f"{at}widen", values["widen"], 1, whole=True)
    at_least(f"{at}penalty", values["penalty"], 0)


_HERE = "peftbench.methods"
_ADALORA = f"{_HERE}.adalora.AdaLoRA"
_LORA = f"{_HERE}.lora.LoRA"
_PEFT = f"{_HERE}.peft.Peft"
_ROBUST_PARTIAL = f"{_HERE}.robust_partial.RobustPartial"

_RULES: dict[str, Callable[[Values, str], None]] = {
    _ADALORA: _adalora,
    f"{_HERE}.adapter.Adapter": _adapter,
    f"{_HERE}.bayes_hybrid.BayesHybrid": _bayes_hybrid,
    f"{_HERE}.bitfit.BitFit": _bitfit,
    f"{_HERE}.blob.BLoB": _blob,
    f"{_HERE}.combined.Combined": _combined,
    f"{_HERE}.full.Full": _full,
    f"{_HERE}.ia3.IA3": _ia3,
    _LORA: _lora,
    f"{_HERE}.mc_dropout.MCDropout": _mc_dropout,
    _PEFT: _peft,
    f"{_HERE}.prefix.Prefix": _prefix,
    f"{_HERE}.random_mask.RandomMask": _random_mask,
    _ROBUST_PARTIAL: _robust_partial,
    f"{_HERE}.sparse_adapter.SparseAdapter": _sparse_adapter,
}

#: Methods of the package that are not `Method.token_wise`, whatever is inside them.
NOT_TOKEN_WISE = frozenset(
    f"{_HERE}.{name}"
    for name in ("bayes_hybrid.BayesHybrid", "blob.BLoB", "mc_dropout.MCDropout", "unipelt.UniPELT")
)
