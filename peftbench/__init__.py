"""Which way of fine-tuning is best for this model, this much data and this much time?

import peftbench

planned = peftbench.plan("method=lora,bitfit", "task=synthetic_paraphrase", "size=300")
for run in planned.runs:
    print(run.title, peftbench.execute(run).record.metrics)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.config.sweep import plan
    from peftbench.core.errors import ConfigError, RecordError
    from peftbench.core.plan import Plan
    from peftbench.core.run import Record, Run
    from peftbench.exporting.loading import load_exported
    from peftbench.results.store import Results
    from peftbench.training.runtime import RuntimeConfig
    from peftbench.training.trainer import TrainingOutput, execute

__all__ = [
    "ConfigError",
    "Plan",
    "Record",
    "RecordError",
    "Results",
    "Run",
    "RuntimeConfig",
    "TrainingOutput",
    "execute",
    "load_exported",
    "plan",
]

_HOMES = {
    "peftbench.training.trainer": ("TrainingOutput", "execute"),
    "peftbench.core.errors": ("ConfigError", "RecordError"),
    "peftbench.core.plan": ("Plan",),
    "peftbench.core.run": ("Record", "Run"),
    "peftbench.exporting.loading": ("load_exported",),
    "peftbench.training.runtime": ("RuntimeConfig",),
    "peftbench.results.store": ("Results",),
    "peftbench.config.sweep": ("plan",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: planning must not wait for torch."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
