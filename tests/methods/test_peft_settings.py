"""The settings of peft's tuners, as planning knows them without torch."""

import importlib.util
import json
from pathlib import Path

import pytest
import tiny

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.methods import dry_run, peft_settings
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone

SCRIPT = Path(__file__).parents[2] / "scripts" / "peft_settings.py"


def test_the_file_is_what_the_installed_library_says():
    spec = importlib.util.spec_from_file_location("written", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.content() == peft_settings.peft_settings()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("config.r=0", "config.r must be a whole number of at least 1, got 0"),
        ("config.r=-4", "at least 1, got -4"),
        ("config.r=8.5", "config.r must be a value of kind int, got 8.5"),
        ("config.r=true", "config.r must be a value of kind int, got True"),
        ("config.lora_dropout=1.5", "config.lora_dropout must be a number from 0 to below 1"),
        ("config.lora_dropout=-0.1", "config.lora_dropout must be a number from 0 to below 1"),
        ("config.lora_alpha=0", "config.lora_alpha must be greater than 0"),
        ("config.bias=some", "config.bias must be one of none, all, lora_only, got 'some'"),
        ("config.use_dora=maybe", "config.use_dora must be a value of kind bool"),
        ("config.init_lora_weights=foo", "must be a value of kind bool, or one of corda, eva,"),
        (
            "config.init_lora_weights=pissa_niter_",
            r"pissa_niter_\[number of iters\], got 'pissa",
        ),
        ("config.rank=4", "LORA takes no rank; it takes"),
        (
            "config.target_modules=7",
            "must be a value of kind list or null or str, got 7",
        ),
    ],
)
def test_refused_at_planning(words, message):
    with pytest.raises(ConfigError, match=message):
        plan("model=tiny", "method=peft", f"method.{words}")


@pytest.mark.parametrize(
    "words",
    [
        ("type=LOHA", "config.rank_dropout=1"),
        ("type=VERA", "config.r=0"),
        ("type=BOFT", "config.boft_dropout=2"),
        ("type=BOFT", "config.bias=some"),
    ],
)
def test_refused_for_other_tuners(words):
    with pytest.raises(ConfigError, match=r"method\.config\.\w+ must be"):
        plan("model=tiny", "method=peft", *(f"method.{word}" for word in words))


@pytest.mark.parametrize(
    "words",
    [
        ("config.r=4", "config.lora_alpha=16.5", "config.use_rslora=true"),
        ("config.target_modules=[query]", "config.layers_to_transform=[1]"),
        ("config.init_lora_weights=pissa_niter_4",),
        ("config.init_lora_weights=gaussian", "config.rank_pattern={query:2}"),
        ("type=OFT", "config.r=0", "config.oft_block_size=8"),
    ],
)
def test_what_the_library_takes_is_planned_and_inserted(words):
    run = tiny.one_run("method=peft", *(f"method.{word}" for word in words))
    dry_run.validate_run(run)


def test_targets_that_are_not_there_are_found_in_the_rehearsal():
    run = tiny.one_run("method=peft", "method.config.target_modules=[q_proj,v_proj]")
    with pytest.raises(ConfigError, match=r"Target modules .* not found in the base model"):
        dry_run.validate_run(run)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("config.rank_pattern={nosuch:4}", r"rank_pattern keys did not match any .*'nosuch'"),
        ("config.alpha_pattern={key:4}", r"alpha_pattern keys did not match any .*'key'"),
        ("config.modules_to_save=[nosuch]", "modules_to_save: tiny has no module nosuch"),
        ("config.exclude_modules=[nosuch]", "exclude_modules=.*but no modules were excluded"),
    ],
)
def test_a_setting_that_finds_nothing_is_refused(words, message):
    """The library warns, trains without it, and is not heard in a worker's log."""
    with pytest.raises(ConfigError, match=message):
        dry_run.validate_run(tiny.one_run("method=peft", f"method.{words}"))


def test_blocks_named_in_a_pattern_are_there_in_the_rehearsal():
    words = ("method=peft", "model.shape={num_hidden_layers:4}")
    last = "method.config.rank_pattern={layer.3.attention.self.query:2}"
    dry_run.validate_run(tiny.one_run(*words, last))
    with pytest.raises(ConfigError, match="did not match any"):
        dry_run.validate_run(tiny.one_run(*words, last.replace("3", "4")))


@pytest.mark.parametrize("given", ["[1,3]", "3"])
@pytest.mark.parametrize("kind", ["LORA", "VERA"])
def test_roles_may_be_those_of_some_blocks(kind, given):
    words = ("method=peft", f"method.type={kind}", "model.shape={num_hidden_layers:4}")
    run = tiny.one_run(*words, f"method.config.layers_to_transform={given}")
    dry_run.validate_run(run)
    model, method = AdaptedModel(Backbone(run.model), 2, seed=0), build_method(run.method)
    method.insert(model)
    found = {model.block_of(name) for name in model.trained() if not model.in_head(name)}
    assert found - {None, -1} <= {1, 3}
    places = [path for path, part in model.module.named_modules() if "query.base_layer" in path]
    wanted = json.loads(given) if given.startswith("[") else [int(given)]
    assert places == [f"bert.encoder.layer.{n}.attention.self.query.base_layer" for n in wanted]


def test_blocks_of_roles_need_no_name():
    words = ("method.config.layers_to_transform=[1]", "method.config.layers_pattern=layer")
    with pytest.raises(ConfigError, match="layers_pattern is for config"):
        dry_run.validate_run(tiny.one_run("method=peft", *words))


@pytest.mark.parametrize("method", ["prefix", "mc_dropout"])
def test_values_that_leave_the_head_alone_are_refused(method):
    inner = "method.base_method" if method == "mc_dropout" else "method"
    words = [f"method={method}", f"{inner}.length=0"]
    if method == "mc_dropout":
        words.insert(1, "method.base_method=prefix")
    with pytest.raises(ConfigError, match="nothing but the head would train"):
        dry_run.validate_run(tiny.one_run(*words))
    dry_run.validate_run(tiny.one_run("method=head"))
