"""Which way of fine-tuning is best for this model, this much data and this much time?

import peftbench

results = peftbench.run("method=lora,bitfit", "task=synthetic_opinion", "size=100,200")
results.table(columns="size")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftbench.api.results import Results, compare, load_records
    from peftbench.api.running import RunsFailed, evaluate, execute, plan, run
    from peftbench.core.errors import ConfigError, RecordError
    from peftbench.core.plan import Plan
    from peftbench.core.run import Record, Run
    from peftbench.core.runtime import RuntimeConfig
    from peftbench.exporting.loading import load_exported
    from peftbench.methods.base import Method, WrapperMethod
    from peftbench.suites.base import Suite
    from peftbench.training.trainer import TrainingOutput

__all__ = [
    "ConfigError",
    "Method",
    "Plan",
    "Record",
    "RecordError",
    "Results",
    "Run",
    "RunsFailed",
    "RuntimeConfig",
    "Suite",
    "TrainingOutput",
    "WrapperMethod",
    "compare",
    "evaluate",
    "execute",
    "load_exported",
    "load_records",
    "plan",
    "run",
]

_HOMES = {
    "peftbench.api.results": ("Results", "compare", "load_records"),
    "peftbench.api.running": ("RunsFailed", "evaluate", "execute", "plan", "run"),
    "peftbench.training.trainer": ("TrainingOutput",),
    "peftbench.core.errors": ("ConfigError", "RecordError"),
    "peftbench.core.plan": ("Plan",),
    "peftbench.core.run": ("Record", "Run"),
    "peftbench.core.runtime": ("RuntimeConfig",),
    "peftbench.exporting.loading": ("load_exported",),
    "peftbench.methods.base": ("Method", "WrapperMethod"),
    "peftbench.suites.base": ("Suite",),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: planning must not wait for torch."""
    import importlib

    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
