"""The README.md of an exported folder, and the lines that load it."""

from importlib.metadata import version

from peftbench.core.text import one_line
from peftbench.exporting.held_out_scores import HeldOutScores
from peftbench.exporting.kept_run import KeptRun
from peftbench.methods.base import MODEL, PEFT

#: Ends the call that loads a base model whose weights were rounded for training.
ROUNDED = ", dtype='bfloat16').float()  # rounded, as they were for training"

_ROUNDED_WEIGHTS = "the checkpoint's are rounded to bf16, what trained is fp32; kept in fp32"


def loading_lines(
    kept: KeptRun, form: str, base: str, revision: str | None, folder: str
) -> list[str]:
    """Lines of Python that load a folder as `model`.

    Args:
        kept: the run.
        form: of the folder.
        base, revision: of the base model.
        folder: where it is.
    """
    if form == MODEL:
        return [
            "from transformers import AutoModelForSequenceClassification",
            f"model = AutoModelForSequenceClassification.from_pretrained({folder!r})",
        ]
    if form != PEFT:
        return ["import peftbench", f"model = peftbench.load_exported({folder!r})"]
    at = f", revision={revision!r}" if revision else ""
    rounded = kept.run.model.dtype is not None
    if kept.model.backbone.verbalizer_ids is not None:
        kind = "AutoModelForCausalLM" if kept.run.model.causal else "AutoModelForMaskedLM"
    else:
        kind, at = "AutoModelForSequenceClassification", f"{at}, num_labels={kept.run.task.classes}"
    return [
        f"from transformers import {kind}",
        "from peft import PeftModel",
        f"base = {kind}.from_pretrained({base!r}{at}{ROUNDED if rounded else ')'}",
        *(
            [f"base.config.pad_token_id = {kept.tokenizer.pad_token_id}"]
            if kept.run.model.causal
            else []
        ),
        f"model = PeftModel.from_pretrained(base, {folder!r})",
    ]


def model_card(
    kept: KeptRun,
    form: str,
    base: str,
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
        base: name of the base model.
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
    named = base + (f" at `{run.model.revision}`" if run.model.revision else "")
    if run.model.path is not None:
        named = f"{run.model.checkpoint}, a local folder (weights {str(run.model.sha256)[:12]})"
    given = {n: v for n, v in run.method.to_json().items() if n not in ("_target_", "name")}
    facts = {
        "Record": f"`{run.key}`",
        "Base model": named if run.model.path or run.model.checkpoint else "random weights",
        "Method": f"{run.method.name}: {given}" if given else run.method.name,
        "Task": f"{run.task.name}, {record.work['train_size']} training examples, seed {run.seed}",
        "Validation": scores,
        "Labels": "a value, in the unit of the training labels"
        if kept.labels is None
        else ", ".join(f"{number} {name}" for number, name in enumerate(kept.labels)),
        "Texts": f"columns {', '.join(run.task.texts)}; cut to {length} tokens",
        "Trained in": str(place["precision"]),
        **({} if run.model.dtype is None else {"Weights": _ROUNDED_WEIGHTS}),
        "Written by": f"peftbench {version('peftbench')}",
    }
    table = [f"| {n} | {one_line(v).replace('|', chr(92) + '|')} |" for n, v in facts.items()]
    beside = "" if run.model.path is None or form == MODEL else f" and the base model `{base}`"
    notes = [
        f"Run the code in the folder that holds `{folder}`{beside}. Loaded in fp32 the model gave "
        f"the logits of the run within {apart:.1g} on texts of several lengths."
    ]
    if len(run.task.texts) > 1 and kept.tokenizer.sep_token is None:
        notes.append("The tokenizer has no separator: the second text starts with a line break.")
    if run.prompt is not None:
        shown = run.prompt.num_demonstrations
        front = f" and {shown} solved training examples in front" if shown else ""
        notes.append(
            f"Texts were put as {run.prompt.template!r}, the labels as "
            f"{', '.join(run.prompt.verbalizer)}{front}; `peftbench predict` does the same."
        )
    library = {MODEL: "transformers", PEFT: "peft"}.get(form, "peftbench")
    head = ["---", f"library_name: {library}"]
    if kept.run.model.path is None and kept.run.model.checkpoint is not None:
        head.append(f"base_model: {base}")
    if kept.model.backbone.verbalizer_ids is None:
        head.append("pipeline_tag: text-classification")
    body = [
        *[*head, "---", "", f"# {one_line(run.title)}", ""],
        *["| | |", "| --- | --- |", *table, ""],
        *["```python", "from transformers import AutoTokenizer", *lines],
        f"tokenizer = AutoTokenizer.from_pretrained({folder!r})",
        *["```", "", *notes, "", *more, *([""] if more else [])],
    ]
    return "\n".join(body)
