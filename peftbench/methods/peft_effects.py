"""What `method=peft` makes of the library's settings: defaults by type, and what it refuses.

Read without torch and without peft.
"""

from typing import Any

from peftbench.core.errors import ConfigError

#: Roles that a type changes in its paper, where that is not query and value. IA3 (Liu et al. 2022,
#: arXiv 2205.05638, section 3.3) scales keys, values and the inner activation, what ffn_out gets;
#: LN_TUNING (Qi et al. 2022, arXiv 2211.08682) trains norms, and nothing else.
PAPER_ROLES = {"IA3": ("key", "value", "ffn_out"), "LN_TUNING": ("attn_norm", "ffn_norm")}

#: Of the roles of IA3 those of which it scales what they get, not what they give.
SCALED_INPUTS = ("ffn_out",)

#: Names of parameters that change nothing at 1; decay would pull them to 0.
SCALES = ("boft_s", "ia3_l")

#: Settings by which a type drops weights, not inputs: once for all texts of a pass.
DROPPED_WEIGHTS = {
    "BOFT": ("boft_dropout",),
    "LOHA": ("rank_dropout", "module_dropout"),
    "LOKR": ("rank_dropout", "module_dropout"),
    "OFT": ("module_dropout",),
}

#: Types that the library offers and this method does not, and why.
NOT_OFFERED = {
    "ADAPTION_PROMPT": "is made for LLaMA's attention",
    "XLORA": "mixes LoRAs that were trained before",
    "ADALORA": "moves ranks about in a loop of its own (method=adalora does)",
    "SHADOW": "runs a second network beside the model",
    "TRAINABLE_TOKENS": "trains rows of the embeddings, by their ids",
    "OSF": "needs optimizer hooks of its own",
}

#: Settings of every type that only the library's own models and its trainer read.
UNREAD = {
    "inference_mode": "would leave nothing to train",
    "task_type": "is for the library's own model classes",
    "base_model_name_or_path": "is written when an adapter is saved",
    "revision": "is written when an adapter is saved",
    "auto_mapping": "is written when an adapter is saved",
    "peft_type": "is method.type here",
    "peft_version": "is written when an adapter is saved",
}

_ASA = (
    "belongs to its adaptive subspace allocation (use_asa), a callback that peftbench's loop does "
    "not call"
)

_QALORA = "acts on weights quantised by GPTQ alone, and trains plain LoRA on all others"

#: Settings of one type that a step outside of the training loop reads, which is never called here.
NEVER_CALLED = {
    "LORA": {
        "alora_invocation_tokens": "is read by the library's own forward, which is not called here",
        "arrow_config": "mixes LoRAs that were trained before",
        "megatron_config": "is for Megatron's parallel layers",
        "qalora_group_size": _QALORA,
        "use_qalora": _QALORA,
    },
    "ADAMSS": dict.fromkeys(
        (
            *("use_asa", "asa_target_subspaces", "asa_importance_beta", "asa_uncertainty_beta"),
            *("asa_schedule_exponent", "init_warmup", "final_warmup", "mask_interval"),
        ),
        _ASA,
    ),
}

#: Settings of one type of which the library leaves a part to its caller's loop.
HALF_CALLED = {
    "LORA": {
        "kasa_config": "adds terms to the loss (KaSA), which peftbench's loop does not",
        "monteclora_config": "adds terms to the loss (MonteCLoRA), which peftbench's loop does not",
    },
}

#: Values of LoRA's `init_lora_weights` that a step before insertion must prepare; without it the
#: library trains LoRA from its usual start under their name, or stops. And the config of each.
PREPARED_INITS = {
    "corda": ("corda_config", "needs covariances of activations (preprocess_corda)"),
    "eva": ("eva_config", "needs a decomposition of activations (initialize_lora_eva_weights)"),
    "loftq": ("loftq_config", "starts from weights that are quantised, which peftbench's are not"),
    "lora_ga": ("lora_ga_config", "needs gradients of the pretrained model (preprocess_loraga)"),
}


def default_roles(kind: str) -> list[str]:
    """The roles that a type of the library changes where nobody says which."""
    return list(PAPER_ROLES.get(kind, ("query", "value")))


def refuse_ineffective(kind: str, config: dict[str, Any]) -> None:
    """Refuse settings that would do nothing, or mean something else than they say.

    Args:
        kind: a type of the library.
        config: arguments of its config class.

    Raises:
        ConfigError: naming the setting, and why.
    """
    unread = UNREAD | NEVER_CALLED.get(kind, {})
    for name in config:
        if name in unread and config[name] not in (None, False):
            raise ConfigError(
                f"{kind}: config.{name} has no effect here: it {unread[name]}; drop it"
            )
    for name, why in HALF_CALLED.get(kind, {}).items():
        if config.get(name) is not None:
            raise ConfigError(f"{kind}: config.{name} {why}; something else would train: drop it")
    init = str(config.get("init_lora_weights")).lower()
    for name, (settings, why) in PREPARED_INITS.items():
        if init.startswith(name):
            raise ConfigError(
                f"{kind}: config.init_lora_weights={init} {why}; peftbench does not prepare that, "
                "and the library would train something else; choose true, gaussian, orthogonal, "
                "olora, pissa or mica"
            )
        if config.get(settings):
            raise ConfigError(
                f"{kind}: config.{settings} has no effect here: it is read with "
                f"init_lora_weights={name}, which is not offered; drop it"
            )
    if (config.get("velora_config") or {}).get("init_type") == "batch_average_once":
        raise ConfigError(
            f"{kind}: config.velora_config.init_type=batch_average_once keeps what the first pass "
            "gives, which here may be a warm-up before training; choose batch_average or random"
        )
    if kind == "IA3" and "target_modules" in config and "feedforward_modules" not in config:
        raise ConfigError(
            "IA3: config.target_modules without config.feedforward_modules would scale what every "
            "module gives; name those whose input is scaled, [] for none"
        )
