"""Which way of fine-tuning is best for this model, this much data and this much time?

import peftbench

planned = peftbench.plan("method=lora,bitfit", "task=builtin_paraphrase", "size=300")
for run in planned.runs:
    print(run.title, peftbench.execute(run).record.metrics)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.execution import Outcome, execute
    from peftbench.run import ConfigError, Record, RecordError, Run
    from peftbench.setting import Setting
    from peftbench.store import Results
    from peftbench.sweep import Plan, plan

__all__ = [
    "ConfigError",
    "Outcome",
    "Plan",
    "Record",
    "RecordError",
    "Results",
    "Run",
    "Setting",
    "execute",
    "plan",
]

_HOMES = {
    "peftbench.execution": ("Outcome", "execute"),
    "peftbench.run": ("ConfigError", "Record", "RecordError", "Run"),
    "peftbench.setting": ("Setting",),
    "peftbench.store": ("Results",),
    "peftbench.sweep": ("Plan", "plan"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: planning must not wait for torch."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
