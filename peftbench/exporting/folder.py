"""A kept run as a folder: weights in one of the forms of its method, tokenizer, card, reference."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

from safetensors.torch import save_file

from peftbench.core.configs import ModelConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record
from peftbench.core.text import decoded
from peftbench.exporting import adapters_library, card, loading, reference
from peftbench.exporting.card import Base
from peftbench.exporting.held_out_scores import HeldOutScores
from peftbench.exporting.kept_run import KeptRun, rebuild
from peftbench.exporting.probe import check_same, probe_logits
from peftbench.methods.base import MODEL, OWN, PEFT
from peftbench.methods.peft_export import peft_form
from peftbench.models import pretrained
from peftbench.models.checkpoint_inspection import inspect_checkpoint
from peftbench.models.plain_model import plain_model
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.system.hub import locate

#: Where weights that are in no other place are written beside their adapter.
_BASE = "base"


def export_run(
    record: Record,
    results: ResultsFolder,
    folder: Path,
    form: str | None = None,
    data_root: str | None = None,
    validation: bool = True,
    held: HeldOutScores | None = None,
    add: Callable[[Path], None] | None = None,
) -> list[str]:
    """Write a folder with a run's kept weights, once it gives the run's logits.

    Args:
        record: of the run.
        results: where its weights and predictions are.
        folder: that is made.
        form: one of the method's `export_forms`; None is the first.
        data_root: folders of data sets in the hub's layout, or None for the hub.
        validation: whether to describe the validation texts, which must be at hand.
        held: in place of the record's scores, of a model that was trained on all its texts.
        add: called with the whole folder before it gets its name, to put more into it.

    Returns:
        Lines of Python that load it.

    Raises:
        ConfigError: if nothing was kept, the folder is not empty, the method has no such form, data
            are not at hand, or the libraries do not load it to the same logits.
        RecordError: if the weights are not those that were saved with the record.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} is there already; name a new folder")
    if decoded(str(folder)) != str(folder):
        raise ConfigError(
            f"{decoded(str(folder))}: the libraries that write it take names in UTF-8 only; name "
            "another folder"
        )
    pretrained.quiet()  # or saving shows a bar of its own
    kept = rebuild(record, results)
    title = record.run.title
    try:
        forms = kept.method.export_forms()
    except ValueError as error:
        raise ConfigError(f"{title}: {error}") from error
    if form not in (None, *forms):
        raise ConfigError(f"{title}: --form {form} is not one of its forms: {', '.join(forms)}")
    form = form or forms[0]
    base = _base(record.run.model, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        expected = probe_logits(kept)
        facts = reference.describe(kept, results, data_root, held) if validation else None
        try:
            _WRITERS[form](kept, results, base, draft)
        except ValueError as error:
            others = " or ".join(f"--form {one}" for one in forms if one != form)
            hint = f"; try {others}" if others else ""
            raise ConfigError(f"{title}: {error}{hint}") from error
        length = min(record.run.train.max_length, kept.tokenizer.model_max_length)
        kept.tokenizer.model_max_length = length  # so that others cut texts as the run did
        kept.tokenizer.padding_side = "right"  # as `collate` pads; positions count from the left
        kept.tokenizer.save_pretrained(draft)
        about = _about(kept, form, base)
        about["weights_sha256"] = loading.weight_hashes(draft)
        about["files_sha256"] = loading.file_hashes(draft)
        draft.joinpath(loading.ABOUT).write_bytes(io.sealed(about))
        here = card.loading_lines(kept, form, _base_here(record.run.model, draft), str(draft))
        apart = check_same(kept, expected, draft, partial(card.run_lines, here))
        near = Path(folder.name)  # others have the folder in another place
        shown = _shown_base(record.run.model, near)
        more = _for_adapters(kept, shown, draft, near) if form == OWN else []
        text = card.model_card(
            *(kept, form, None if _in_no_other_place(record.run.model) else shown, near.name),
            card.loading_lines(kept, form, shown, near.name),
            *(apart, more, held),
        )
        draft.joinpath("README.md").write_text(text, encoding="utf-8")
        if facts is not None:
            draft.joinpath(reference.NAME).write_text(
                json.dumps(facts, indent=1) + "\n", encoding="utf-8"
            )
        if add is not None:
            add(draft)
        draft.chmod(0o777 & ~_umask())  # a temporary folder is its owner's alone
        os.replace(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return card.loading_lines(kept, form, base, str(folder))


def _for_adapters(kept: KeptRun, base: Base, draft: Path, folder: Path) -> list[str]:
    """Write for the adapters library too, where its layout allows; what the card says of it."""
    name = adapters_library.NAME
    if _in_no_other_place(kept.run.model):
        what = "weights from packages" if kept.run.model.checkpoint else "random weights"
        return [f"The adapters library cannot load it: it has no base model but {what}."]
    try:
        adapters_library.write_adapters(kept, draft / name)
    except ValueError as error:
        return [f"The adapters library cannot load it: {error}."]
    lines = adapters_library.loading_lines(kept, base, str(folder / name))
    return ["With the adapters library:", "", "```python", *lines, "```"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _in_no_other_place(model: ModelConfig) -> bool:
    """Whether others cannot get the weights: they are random, or made of a file in a package."""
    return model.path is None and (model.checkpoint is None or model.converted)


def _base(model: ModelConfig, folder: Path) -> Base:
    """A hub name with its revision, or an absolute path: a bare name would be looked for there."""
    if _in_no_other_place(model):
        return Base(str(folder / _BASE))
    wrapper = _wrapper(model)
    if model.path is not None:
        return Base(str(Path(model.path).absolute()), None, wrapper)
    return Base(str(model.checkpoint), model.revision, wrapper)


def _shown_base(model: ModelConfig, folder: Path) -> Base:
    """The same in a card, which other machines read: of a local folder the name, with a dot."""
    found = _base(model, folder)
    return found if model.path is None else replace(found, name=f"./{model.checkpoint}")


def _base_here(model: ModelConfig, draft: Path) -> Base:
    """The same on this machine while the folder is a draft: nothing is asked of the hub."""
    found = _base(model, draft)
    place = None if _in_no_other_place(model) else locate(model)
    return found if place is None else Base(str(place), None, found.wrapper)


def _wrapper(model: ModelConfig) -> str:
    place = locate(model)
    assert place is not None  # as the weights are in another place
    return inspect_checkpoint(model, place).wrapper


def _about(kept: KeptRun, form: str, base: Base) -> Json:
    """What `loading.read_export` reads; where the training data lie is nobody's business."""
    run = kept.run.to_json()
    if not (kept.run.prompt and kept.run.prompt.num_demonstrations):  # which are read again
        for name in ("path", "validation_path"):
            run["task"].pop(name, None)
    return {
        "peftbench": version("peftbench"),
        "form": form,
        "key": kept.run.key,
        "run": run,
        "labels": kept.labels,
        "precision": kept.record.environment["precision"],
        "base": {
            "name": base.name if _has_base(kept, form) else None,
            "revision": base.revision,
            "sha256": kept.run.model.sha256,
        },
        "trained_sha256": kept.record.trained_sha256,
    }


def _has_base(kept: KeptRun, form: str) -> bool:
    """Whether there is a base model to be named: of `PEFT` alone one is written, if need be."""
    return form == PEFT or not _in_no_other_place(kept.run.model)


# forms


def _write_model(kept: KeptRun, results: ResultsFolder, base: Base, draft: Path) -> None:
    kept.method.merge(kept.model)
    padding = kept.tokenizer.pad_token_id
    made = plain_model(kept.model, kept.run.model, kept.labels, padding)
    made.config.name_or_path = ""
    made.save_pretrained(draft)


def _write_adapter(kept: KeptRun, results: ResultsFolder, base: Base, draft: Path) -> None:
    config, tensors = peft_form(kept.method, kept.model)
    config |= {"base_model_name_or_path": base.name, "revision": base.revision}
    draft.joinpath("adapter_config.json").write_text(
        json.dumps(config, indent=2) + "\n", encoding="utf-8"
    )
    save_file(tensors, draft / loading.ADAPTER, metadata={"format": "pt"})
    if _in_no_other_place(kept.run.model):
        loading.base_model(kept.run).save_pretrained(draft / _BASE)
        kept.tokenizer.save_pretrained(draft / _BASE)


def _write_own(kept: KeptRun, results: ResultsFolder, base: Base, draft: Path) -> None:
    draft.joinpath(loading.WEIGHTS).write_bytes(results.weights(kept.record))


_WRITERS = {MODEL: _write_model, PEFT: _write_adapter, OWN: _write_own}
