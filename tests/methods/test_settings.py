"""Settings of methods, refused when a run is planned and by the methods themselves."""

from dataclasses import fields, replace
from typing import Annotated, get_origin, get_type_hints

import pytest
import tiny

from peftbench.config.sweep import plan
from peftbench.core.configs import import_class
from peftbench.core.errors import ConfigError
from peftbench.methods import adapter, dry_run, regularizers, settings
from peftbench.methods.base import Method, build_method

TASK = "task=synthetic_opinion"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("lora rank=0", r"method\.rank must be a whole number of at least 1, got 0"),
        ("lora rank=2.5", r"method\.rank must be a whole number of at least 1, got 2\.5"),
        ("lora rank=33", r"method\.rank must be at most 32, the narrow side of query in tiny"),
        ("lora alpha=-1", r"method\.alpha must be a number greater than 0, got -1"),
        ("lora dropout=2", r"method\.dropout must be a number from 0 to 0\.9, got 2"),
        ("lora loraplus_lr_ratio=0.5", "loraplus_lr_ratio must be a number of at least 1"),
        ("lora target_modules=[querry]", "'querry' is no role; the roles are query, key, value"),
        ("lora target_modules=[]", r"method\.target_modules must list some of query"),
        ("lora target_modules=[attn_norm]", "attn_norm is not a linear layer"),
        ("adalora initial_rank=40", r"method\.initial_rank must be at most 32"),
        ("adalora target_rank=13", "initial_rank must be a whole number of at least 13"),
        ("adalora initial=0.5", r"initial \+ final must be below 1, got 0\.5 \+ 0\.52"),
        ("adalora betas=[0.9]", r"method\.betas must be 2 numbers, got \[0\.9\]"),
        ("adalora betas=[0.9,2]", r"method\.betas must be a number from 0 to 1, got 2"),
        ("adapter width=0", r"method\.width must be a whole number of at least 1, got 0"),
        ("adapter at=[]", r"method\.at is empty: name places of bottlenecks"),
        ("adapter activation=elu", "activation must be one of relu, gelu, silu, tanh"),
        ("bayes_hybrid matrices=[]", r"method\.matrices is empty: choose down, up or both"),
        ("bayes_hybrid noise=row", "noise must be one of batch, flipout, local, got 'row'"),
        ("bayes_hybrid prior.std=0", r"method\.prior\.std must be a number greater than 0"),
        ("bayes_hybrid base_method=adapter base_method.width=0", r"method\.base_method\.width"),
        ("bitfit target_modules=[queries]", "'queries' is no role"),
        ("blob gamma=0", r"method\.gamma must be a number greater than 0"),
        ("combined members={}", "members is empty"),
        ("combined members.prefix.length=-1", r"method\.members\.prefix\.length must be a whole"),
        ("full layer_decay=0", "layer_decay must be a number greater than 0"),
        ("ia3 outputs=[] inputs=[]", "outputs and inputs are both empty"),
        ("ia3 outputs=[key,key]", "outputs: key twice"),
        ("mc_dropout samples=0", r"method\.samples must be a whole number of at least 1"),
        (
            "mc_dropout base_method=sparse_adapter base_method.score=learned",
            r"method\.base_method\.score=learned: MCDropout .* drawn once for all samples",
        ),
        (
            "mc_dropout base_method=peft base_method.type=LOHA base_method.config.rank_dropout=0.1",
            r"method\.base_method\.config\.rank_dropout: MCDropout .* drawn once",
        ),
        ("prefix length=-1", r"method\.length must be a whole number of at least 0"),
        ("random_mask keep=0", "keep must be a number greater than 0"),
        ("robust_partial choose=manual", "only manual lists blocks"),
        ("robust_partial choose=manual which=[7]", r"which=\[7\]: tiny has 2 blocks, 0 to 1"),
        ("sparse_adapter score=best", "score must be one of random"),
        (
            "sparse_adapter base_method=adalora",
            r"method\.base_method: AdaLoRA keeps whole matrices",
        ),
        ("sparse_adapter base_method=lora base_method.rank=64", r"method\.base_method\.rank must"),
        ("peft type=VERAA", r"method\.type=VERAA is no tuner .* did you mean .*VERA"),
        ("peft type=XLORA", "mixes LoRAs that were trained before"),
        ("peft type=POLY", "POLY does not run on bert: task_ids"),
        ("peft config.task_type=SEQ_CLS", "LORA: config.task_type has no effect here"),
        ("peft config.r=33", r"method\.config\.r must be at most 32"),
        ("peft config.layers_to_transform=[2]", "tiny has 2 blocks, 0 to 1"),
        ("peft type=LN_TUNING target_modules=[query]", "LN_TUNING trains norms, .* got .*query"),
        ("peft target_modules=[querry]", "'querry' is no role"),
        ("unipelt base_method.members.lora.rank=0", r"method\.base_method\.members\.lora\.rank"),
    ],
)
def test_refused_at_planning(words, message):
    method, *others = words.split()
    with pytest.raises(ConfigError, match=message):
        plan("model=tiny", TASK, f"method={method}", *(f"method.{word}" for word in others))


def test_dropout_of_inputs_inside_the_library_is_each_texts_own():
    words = ("method=mc_dropout", "method.base_method=peft")
    plan("model=tiny", TASK, *words, "method.base_method.config.lora_dropout=0.1")
    off = ("method.base_method.type=LOHA", "method.base_method.config.rank_dropout=0.0")
    plan("model=tiny", TASK, *words, *off)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("method=adalora", "budget=seconds", "budget.seconds=9"), "take a budget of steps"),
        (("method=adalora", "budget=steps", "budget.steps=1"), "1 steps are too few"),
        (("method=lora", "method.rank=400", "model=minilm"), "at most 384, .* query in minilm"),
        (
            ("method=lora", "method.rank=200", "model=smollm2_135m"),
            "at most 192, the narrow side of value in smollm2_135m",  # three heads of 64
        ),
    ],
)
def test_budgets_and_models_are_looked_at_too(words, message):
    with pytest.raises(ConfigError, match=message):
        plan(TASK, *words)
    plan(TASK, "method=lora", "method.rank=384", "model=minilm")


def packaged(method):
    return plan("model=tiny", TASK, f"method={method}").runs[0].method


@pytest.mark.parametrize("method", tiny.METHODS)
def test_every_number_of_a_method_has_limits_that_planning_reads(method):
    """What the source says is what the class has."""
    config = packaged(method)
    kind = import_class(config.target, Method)
    hints = get_type_hints(kind, include_extras=True)
    declared = {
        f.name: hints[f.name] for f in fields(kind) if get_origin(hints[f.name]) is Annotated
    }
    read = {name: one.limits for name, one in settings.limits(config.target).items()}
    assert read == {name: hint.__metadata__[0] for name, hint in declared.items()}
    numbers = {f.name for f in fields(kind) if get_type_hints(kind)[f.name] in (int, float)}
    assert numbers <= declared.keys()


def test_a_setting_with_a_default_may_be_left_out_of_a_file_and_others_may_not():
    values = packaged("lora").to_json()
    assert "loraplus_lr_ratio" not in values
    settings.check_values("peftbench.methods.lora.LoRA", values, "method.")
    del values["alpha"]
    with pytest.raises(ConfigError, match=r"method\.alpha is missing; write it into"):
        settings.check_values("peftbench.methods.lora.LoRA", values, "method.")


def test_what_methods_dispatch_on_is_what_planning_allows():
    def choices(target: str, name: str) -> tuple[str, ...]:
        return settings.limits(f"peftbench.methods.{target}")[name].limits.choices

    assert tuple(adapter.ACTIVATIONS) == choices("adapter.Adapter", "activation")
    penalties = {"none", "rdrop", *regularizers.PENALTIES}
    assert penalties == set(choices("robust_partial.RobustPartial", "penalty"))
    for target in settings.RULES:
        assert import_class(target, Method)


@pytest.mark.parametrize("method", tiny.METHODS)
def test_methods_that_cannot_write_texts_are_those_that_say_so(method):
    config = packaged(method)
    assert settings.token_wise(config.target) == build_method(config).token_wise


def test_a_rehearsal_knows_the_layers_themselves():
    """A class of one's own is left to it."""
    run = plan("model=tiny", TASK, "method=lora").runs[0]
    wide = replace(run.method, hyperparameters=run.method.hyperparameters | {"rank": 33})
    settings.check_values("zoo.Mine", {"rank": 0})
    with pytest.raises(ConfigError, match="rank must be at most 32, the narrow side of a layer"):
        dry_run.validate_run(replace(run, method=wide))
