"""Whether a folder gives the logits of the run: it is loaded as others would, and compared."""

from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from peftbench.core.errors import ConfigError
from peftbench.core.run import Run
from peftbench.data import batching, prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenization import TokenizedSplit
from peftbench.exporting.kept_run import KeptRun
from peftbench.exporting.loading import CalledModel
from peftbench.methods.base import SAME_LOGITS

#: Texts of several lengths, so that some are padded; of a pair each stands beside the one before.
TEXTS = (
    "A short one.",
    "The committee postponed its decision, because half of the members had not read the report.",
    "Is it raining again?",
    "She sold the old boat last summer and has regretted it ever since; nobody asked her why.",
)


def probe_tokens(run: Run, tokenizer: PreTrainedTokenizerBase) -> TokenizedSplit:
    """The tokens of `TEXTS` as the run sees texts, without demonstrations."""
    columns = [[*TEXTS[-i:], *TEXTS[:-i]] if i else [*TEXTS] for i in range(len(run.task.texts))]
    encode = prompting.coder(run, tokenizer, None, 0)
    return encode(LabelledTexts(columns, np.zeros(len(TEXTS), dtype=np.int64)))


def probe_logits(kept: KeptRun) -> Tensor:
    """What the run's own model gives for `TEXTS`; (texts, classes)."""
    tokens = probe_tokens(kept.run, kept.tokenizer)
    mask = kept.run.model.family_config.mask
    padding = kept.tokenizer.pad_token_id
    batch = batching.collate(tokens, np.arange(len(TEXTS)), padding, mask)
    with torch.inference_mode():
        return kept.method.predict(kept.model, batch)["scores"].clone()


def check_same(
    kept: KeptRun, expected: Tensor, folder: Path, load: Callable[[], nn.Module]
) -> float:
    """Load a folder as others would, and compare its logits and tokens with those of the run.

    Args:
        kept: the run.
        expected: from `probe_logits`, before anything was merged.
        folder: that was written.
        load: what loads its model.

    Returns:
        The largest difference.

    Raises:
        ConfigError: if it cannot be loaded, or gives something else.
    """
    tokens = probe_tokens(kept.run, kept.tokenizer)
    batch = batching.collate(tokens, np.arange(len(TEXTS)), kept.tokenizer.pad_token_id, "2d")
    try:
        with torch.random.fork_rng(), torch.inference_mode():
            found = CalledModel(load(), kept.model.backbone.verbalizer_ids)(batch)
    except Exception as error:  # the libraries raise what they like
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ConfigError(
            f"{kept.run.title}: the folder cannot be loaded by {_versions()}: {reason}; "
            "choose another --form, or use `peftbench predict KEY`"
        ) from error
    apart = float((found - expected).abs().max())
    if not apart <= SAME_LOGITS * max(1.0, float(expected.abs().max())):
        raise ConfigError(
            f"{kept.run.title}: the folder gives other logits in {_versions()} than the run (by "
            f"{apart:.2g}), so that nothing is exported; choose another --form, or use `peftbench "
            "predict KEY`"
        )
    again = probe_tokens(kept.run, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))
    if not all(np.array_equal(getattr(again, n), getattr(tokens, n)) for n in ("ids", "types")):
        raise ConfigError(
            f"{kept.run.title}: the tokenizer gives other tokens once it is saved by "
            f"{_versions()}, so that nothing is exported; use `peftbench predict KEY`"
        )
    return apart


def _versions() -> str:
    return f"transformers {version('transformers')} and peft {version('peft')}"
