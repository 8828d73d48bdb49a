"""Revisions of what decides a score: raised when a correction makes runs score differently.

A revision above 1 is part of the keys of the runs (of the evaluations, for suites) that it
concerns, so that records from before it are not taken for records after it, and all others keep
their keys. `PROTOCOL` is in every key, and stays as it is for a correction of one method.

A revision is 1 and the number of corrections that concern a method, a loss or a suite as it is
configured: one of a penalty leaves runs without that penalty alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from peftbench.core.configs import GENERATE, WORDS, TaskConfig, class_name, method_nodes
from peftbench.core.run import Json, Run


def _always(*_: Any) -> bool:
    return True


@dataclass(frozen=True)
class Correction:
    """A change after which what it concerns scores differently.

    Attributes:
        what: was wrong; one line.
        concerns: of a method its node; of a loss the run; of a suite its node and the run.
    """

    what: str
    concerns: Callable[..., bool] = _always


def _host_was_lost(node: Json) -> bool:
    """Whether posteriors cover more than `down` of BH-PEFT's own base method."""
    base = node["base_method"]
    members = {class_name(one["_target_"]) for one in base.get("members", {}).values()}
    return node["matrices"] != ["down"] or members != {"Prefix", "Adapter"}


def _blocks_of_roles(node: Json) -> bool:
    """Whether the library is to change some blocks alone, and the roles say where in them."""
    config = node.get("config") or {}
    return config.get("layers_to_transform") is not None and "target_modules" not in config


#: Of methods, by the name of their class; a correction gets the method's node.
METHODS: dict[str, tuple[Correction, ...]] = {
    "BayesHybrid": (
        Correction("means did not start at the base method's weights", _host_was_lost),
        Correction(
            "flipout drew signs for an example, not for each token",
            lambda node: node.get("noise") == "flipout",
        ),
    ),
    "BLoB": (
        Correction(
            "AdamW minimised the KL over n, and A started wider than LoRA's: now BLoB's own"
        ),
    ),
    "IA3": (Correction("scales were rounded to 16 bits before they multiplied"),),
    "LoRA": (
        Correction(
            "DoRA's lengths were rounded to 16 bits before they multiplied",
            lambda node: bool(node.get("use_dora")),
        ),
    ),
    "Peft": (
        Correction(
            "IA3 scaled what ffn_out gives, not what it gets",
            lambda node: (
                node.get("type") == "IA3" and "ffn_out" in (node.get("target_modules") or ())
            ),
        ),
        Correction(
            "types that take layers_to_transform beside roles changed all blocks", _blocks_of_roles
        ),
    ),
    "RobustPartial": (
        Correction(
            "WiSE came before the best state was restored, or not at all",
            lambda node: node.get("wise", 0) > 0,
        ),
        Correction(
            "R-Drop took the cross entropy of one pass", lambda node: node.get("penalty") == "rdrop"
        ),
        Correction(
            "SMART's targets were not detached", lambda node: node.get("penalty") == "smart"
        ),
        Correction(
            "trials and selections scored states before WiSE", lambda node: node.get("wise", 0) > 0
        ),
    ),
}

#: Hyper-parameters that a method got later, by the name of its class: where one is None, the method
#: is as it was before and keeps its key.
ADDED: dict[str, frozenset[str]] = {
    "LoRA": frozenset({"loraplus_lr_ratio"}),
    "Prefix": frozenset({"start_std"}),
}


_WORDS_ROUNDED = "scores of label words were rounded to 16 bits, and many were equal"


def _in_16_bits(run: Run, prompt: str) -> bool:
    """Whether a run with this prompt multiplies in 16 bits; with `auto` that is for the device."""
    named = run.prompt is not None and run.prompt.name == prompt
    return named and run.train.precision != "fp32"


def _last_fold_was_early(run: Run) -> bool:
    """Whether the last part that is held out in turn is shorter than those before it."""
    selection, size = run.checkpoint_selection, run.counted_size
    if not selection.fold or not isinstance(size, int):
        return False
    if run.prompt is not None and (total := run.task.examples.get("train")):
        size = min(size, total - run.prompt.reserved)
    return selection.start_of(size) + round(selection.fraction * size) > size


#: Kinds of noise that took away line breaks and further blanks, and the families of models whose
#: tokenizers do so all the same.
_JOINED = frozenset({"order", "dropout", "punctuation"})
_BLIND_TO_BLANKS = frozenset({"bert", "distilbert", "electra", "mpnet"})

#: Packaged tasks whose texts have single blanks alone, in the split that is trained on or scored.
_SINGLE_BLANKS = {"train": frozenset({"cola"}), "validation": frozenset({"cola", "mrpc"})}


def _lost_blanks(kinds: Mapping[str, Any], run: Run, split: str) -> bool:
    """Whether noise of these kinds may have changed white space, and the model sees it."""
    used = {kind for kind, rate in kinds.items() if rate is not None}
    if "synthetic" in run.task.source or run.task.name in _SINGLE_BLANKS[split]:
        return False
    return bool(used & _JOINED) and run.model.family not in _BLIND_TO_BLANKS


def _has(run: Run, method: str, setting: str, *values: str) -> bool:
    """Whether a run's method, or one inside it, has one of these values of a setting."""
    return any(
        class_name(node["_target_"]) == method and node.get(setting) in values
        for _, node in method_nodes(run.method.to_json())
    )


def _has_in_fp16(method: str, setting: str, *values: str) -> Callable[[Run], bool]:
    """As `_has`, of runs that compute in fp16."""
    return lambda run: run.train.precision == "fp16" and _has(run, method, setting, *values)


def _scales_decayed(run: Run) -> bool:
    """Whether a tuner of the library trains scales, with weight decay."""
    return run.train.weight_decay > 0 and _has(run, "Peft", "type", "BOFT", "IA3")


#: Of runs of all tasks, behind those of a kind.
_EVERY = (
    Correction(
        "noise took away line breaks and further blanks",
        lambda run: (
            run.augmentation is not None and _lost_blanks(run.augmentation.kinds, run, "train")
        ),
    ),
    Correction(
        "a last fold that is shorter held out rows of the one before it", _last_fold_was_early
    ),
    Correction(
        "blocks were chosen by gradients that fp16 rounds to 0",
        _has_in_fp16("RobustPartial", "choose", "rgn", "fisher"),
    ),
    Correction(
        "SMART's direction came from gradients that fp16 rounds to 0",
        _has_in_fp16("RobustPartial", "penalty", "smart"),
    ),
    Correction(
        "fp16 rounded variances of local noise to 0", _has_in_fp16("BayesHybrid", "noise", "local")
    ),
    Correction("weight decay pulled scales of IA3 and BOFT from 1 to 0", _scales_decayed),
    Correction(
        "rows of one group, or near duplicates, were trained and selected on",
        lambda run: run.task.folds is not None and run.checkpoint_selection.fraction > 0,
    ),
)

#: Of losses and scores, by the kind of task.
LOSSES: dict[str, tuple[Correction, ...]] = {
    "classification": (
        Correction(
            _WORDS_ROUNDED,
            lambda run: _in_16_bits(run, WORDS),
        ),
        *_EVERY,
    ),
    "regression": (
        Correction("labels were not standardised: the unit changed the score"),
        *_EVERY,
    ),
    "generation": (
        Correction(
            "penalties counted what is behind the end of a text",
            lambda run: _has(run, "RobustPartial", "penalty", "rdrop", "r3f", "smart"),
        ),
        *_EVERY,
    ),
}


def _chunks_are_fewer(node: Json, run: Run) -> bool:
    """Whether the chunks of a stream are known not to be all examples of the run."""
    return bool(not node["sequence"] and sum(node["chunks"] or []) != run.counted_size)


def _of_another_unit(node: Json, run: Run) -> bool:
    """Whether a target's values are of another unit than what the run predicts."""
    tasks = [
        TaskConfig.from_json(target["task"])
        for target in (node["targets"] or {}).values()
        if target["above"] is None
    ]
    return any(task.regression and not run.task.shares_unit(task) for task in tasks)


def _orders_classes(node: Json, run: Run) -> bool:
    """Whether a run predicts values, and a target has two classes that they order."""
    targets = (node["targets"] or {}).values()
    return run.task.regression and any(
        target["above"] is not None or not TaskConfig.from_json(target["task"]).regression
        for target in targets
    )


def _few_are_held(node: Json, run: Run) -> bool:
    """Whether fewer than 50 training examples are known to be left to fit on, but not none."""
    total, size = run.task.examples.get("train"), run.counted_size
    if not total or not isinstance(size, int):
        return False
    reserved = 0 if run.prompt is None else run.prompt.reserved
    left = max(0, total - size - reserved)
    if not left:
        left = run.checkpoint_selection.held_of(min(size, total - reserved))
    return 0 < min(left, node["examples"]) < 50


def _own_linears(node: Json, run: Run) -> bool:
    """Whether a run trains linears of the model itself, and may multiply in 16 bits."""
    name = class_name(run.method.to_json()["_target_"])
    return name in ("Full", "RobustPartial") and run.train.precision != "fp32"


#: Of suites, by the name of their class; a correction gets the suite's node and the run.
SUITES: dict[str, tuple[Correction, ...]] = {
    "Calibration": (
        Correction(
            "with a prompt, what was selected on was not what was held out",
            lambda node, run: run.prompt is not None and run.checkpoint_selection.fraction > 0,
        ),
        Correction("a temperature was fitted on a handful of examples", _few_are_held),
        Correction(
            "rows of one group, or near duplicates, were trained and fitted on",
            lambda node, run: run.task.folds is not None,
        ),
    ),
    "Noise": (
        Correction(
            "noise took away line breaks and further blanks",
            lambda node, run: _lost_blanks(node["kinds"], run, "validation"),
        ),
    ),
    "Continual": (
        Correction("at once was trained on more than the chunks hold", _chunks_are_fewer),
    ),
    "Latency": (
        Correction(
            "linears that trained were cast at each pass, of merged models none were", _own_linears
        ),
    ),
    "Shift": (
        Correction("targets had examples that the run's task trains on"),
        Correction(
            _WORDS_ROUNDED,
            lambda node, run: _in_16_bits(run, GENERATE),
        ),
        Correction(
            "predictions were flat or not by the spread of labels of another unit", _of_another_unit
        ),
        Correction("values that are one value of a regression ordered classes", _orders_classes),
    ),
}


def method_revision(name: str, node: Json) -> int:
    """The revision of a method.

    Args:
        name: of its class.
        node: its hyper-parameters and those of methods inside it.
    """
    return _revision(METHODS, name, node)


def loss_revision(run: Run) -> int:
    """The revision of the loss of a run."""
    return _revision(LOSSES, run.task.kind, run)


def suite_revision(name: str, node: Json, run: Run) -> int:
    """The revision of a suite on a run.

    Args:
        name: of its class.
        node: its values.
        run: whose weights are evaluated.
    """
    return _revision(SUITES, name, node, run)


@lru_cache(4096)
def outdated(run: Run) -> tuple[str, ...]:
    """What was corrected since a run was planned, in its loss and its method; empty if nothing."""
    found: list[str] = []
    if run.loss_revision < loss_revision(run):
        found += [one.what for one in LOSSES[run.task.kind] if one.concerns(run)]
    for _, node in method_nodes(run.method.to_json()):
        name = class_name(node["_target_"])
        if node.get("revision", 1) < method_revision(name, node):
            found += [one.what for one in METHODS[name] if one.concerns(node)]
    return tuple(found)


def _revision(known: Mapping[str, tuple[Correction, ...]], name: str, *given: Any) -> int:
    return 1 + sum(correction.concerns(*given) for correction in known.get(name, ()))
