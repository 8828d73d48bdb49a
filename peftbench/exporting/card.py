"""The README.md of an exported folder, and the lines that load it."""

import re
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from peftbench.core.configs import ModelConfig
from peftbench.core.text import as_markdown
from peftbench.exporting.held_out_scores import HeldOutScores
from peftbench.exporting.kept_run import KeptRun
from peftbench.methods.base import MODEL, PEFT

_ROUNDED_WEIGHTS = "the checkpoint's are rounded to bf16, what trained is fp32; kept in fp32"


@dataclass(frozen=True)
class Base:
    """Where the base model of an adapter is found again.

    Attributes:
        name: on the hub, or a folder.
        revision: commit on the hub.
        wrapper: what stands in front of all names of its weights, see `CheckpointFacts`.
    """

    name: str
    revision: str | None = None
    wrapper: str = ""


def loading_lines(kept: KeptRun, form: str, base: Base, folder: str) -> list[str]:
    """Lines of Python that load a folder as `model`.

    Args:
        kept: the run.
        form: of the folder.
        base: of an adapter.
        folder: where it is.
    """
    if form == MODEL:
        return [
            "from transformers import AutoModelForSequenceClassification",
            f"model = AutoModelForSequenceClassification.from_pretrained({folder!r})",
        ]
    if form != PEFT:
        return ["import peftbench", f"model = peftbench.load_exported({folder!r})"]
    return [
        "from peft import PeftModel",
        *base_lines(kept, base, "base"),
        f"model = PeftModel.from_pretrained(base, {folder!r})",
    ]


def base_lines(kept: KeptRun, base: Base, name: str) -> list[str]:
    """Lines of Python that load a base model as a run had it, with the names of its classes.

    Args:
        kept: the run.
        base: where it is.
        name: of the variable.
    """
    model, labels = kept.run.model, kept.labels
    words = kept.model.backbone.verbalizer_ids is not None
    given = [repr(base.name)]
    if base.revision:
        given.append(f"revision={base.revision!r}")
    if base.wrapper:
        given.append(f"key_mapping={{{'^' + re.escape(base.wrapper)!r}: ''}}")
    if words:
        kind = "AutoModelForCausalLM" if model.causal else "AutoModelForMaskedLM"
    else:  # a head of the checkpoint's own may have another size; the adapter brings the run's
        kind = "AutoModelForSequenceClassification"
        given += [f"num_labels={kept.run.task.classes}", "ignore_mismatched_sizes=True"]
    if model.dtype is None:  # or transformers takes what config.json says
        given, end = [*given, "dtype='float32'"], ""
    else:
        given, end = [*given, "dtype='bfloat16'"], ".float()  # rounded, as they were for training"
    lines = [
        f"from transformers import {kind}",
        f"{name} = {kind}.from_pretrained({', '.join(given)}){end}",
    ]
    if not words:  # or a pipeline answers LABEL_0, and squeezes values into [0, 1]
        names = ["value"] if labels is None else labels
        numbers = {label: number for number, label in enumerate(names)}
        problem = "regression" if labels is None else "single_label_classification"
        lines.append(f"{name}.config.id2label = {dict(enumerate(names))}")
        lines.append(f"{name}.config.label2id = {numbers}")
        lines.append(f"{name}.config.problem_type = {problem!r}")
    if model.causal:
        lines.append(f"{name}.config.pad_token_id = {kept.tokenizer.pad_token_id}")
    return lines


def run_lines(lines: list[str]) -> Any:
    """What `loading_lines` load: they are run as a person would, in a namespace of their own."""
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), namespace)
    return namespace["model"].eval()


def model_card(
    kept: KeptRun,
    form: str,
    base: Base | None,
    folder: str,
    lines: list[str],
    apart: float,
    more: list[str],
    held: HeldOutScores | None = None,
) -> str:
    """The README.md: what the model is, of which record, how it is loaded, what it does to texts.

    Args:
        kept: the run.
        form: of the folder.
        base: of an adapter; None for weights that are in no other place.
        folder: its name.
        lines: that load it from the folder above it.
        apart: largest difference of its logits from the run's.
        more: lines about other libraries.
        held: in place of the record's scores.
    """
    record, run = kept.record, kept.run
    metrics = record.metrics if held is None else held.metrics
    scores = ", ".join(f"{n} {'–' if s is None else f'{s:.4f}'}" for n, s in metrics.items())
    if held is not None:
        scores += f" ({held.source}; this model was trained on all of the texts)"
    place = record.environment
    length = min(run.train.max_length, kept.tokenizer.model_max_length)
    given = {n: v for n, v in run.method.to_json().items() if n not in ("_target_", "name")}
    method = f"{run.method.name}: {given}" if given else run.method.name
    facts = {
        "Record": f"`{run.key}`",
        "Base model": _base_model(run.model, base, form),
        "Method": as_markdown(method),
        "Task": f"{as_markdown(run.task.name)}, {record.work['train_size']} training examples, "
        f"seed {run.seed}",
        "Validation": as_markdown(scores),
        "Labels": "a value, in the unit of the training labels"
        if kept.labels is None
        else ", ".join(f"{n} {as_markdown(name)}" for n, name in enumerate(kept.labels)),
        "Texts": f"columns {as_markdown(', '.join(run.task.texts))}; cut to {length} tokens",
        "Trained in": str(place["precision"]),
        **({} if run.model.dtype is None else {"Weights": _ROUNDED_WEIGHTS}),
        "Written by": f"peftbench {version('peftbench')}",
    }
    table = [f"| {name} | {value} |" for name, value in facts.items()]
    local = base is not None and run.model.path is not None and form != MODEL
    beside = f" and the base model `{base.name}`" if local and base else ""
    notes = [
        f"Run the code in the folder that holds `{folder}`{beside}. Loaded in fp32 the "
        f"model gave the logits of the run within {apart:.1g} on texts of several lengths."
    ]
    if len(run.task.texts) > 1 and kept.tokenizer.sep_token is None:
        notes.append("The tokenizer has no separator: the second text starts with a line break.")
    if run.prompt is not None:
        shown = run.prompt.num_demonstrations
        front = f" and {shown} solved training examples in front" if shown else ""
        notes.append(
            f"Texts were put as {as_markdown(repr(run.prompt.template))}, the labels as "
            f"{as_markdown(', '.join(run.prompt.verbalizer))}{front}; `peftbench predict` does the "
            "same."
        )
        if shown:
            notes.append(
                "These examples are not in this folder: `peftbench predict` reads them from the "
                "training data, which must be at hand."
            )
    library = {MODEL: "transformers", PEFT: "peft"}.get(form, "peftbench")
    head = ["---", f"library_name: {library}"]
    if base is not None and run.model.path is None:
        head.append(f"base_model: {base.name}")
    if kept.model.backbone.verbalizer_ids is None:
        head.append("pipeline_tag: text-classification")
    body = [
        *[*head, "---", "", f"# {as_markdown(run.title)}", ""],
        *["| | |", "| --- | --- |", *table, ""],
        *["```python", "from transformers import AutoTokenizer", *lines],
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})",
        *["```", "", *notes, "", *more, *([""] if more else [])],
    ]
    return "\n".join(body)


def _base_model(model: ModelConfig, base: Base | None, form: str) -> str:
    """The base model for the table of facts."""
    name = as_markdown(model.checkpoint or "random weights")
    if base is None:
        return name + (", in `base`" if form == PEFT else "")
    if model.path is not None:
        return f"{name}, a local folder (weights {str(model.sha256)[:12]})"
    return name + (f" at `{base.revision}`" if base.revision else "")
