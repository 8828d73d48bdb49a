"""What the GLUE server and the hub's GLUE say of labels: names, files, columns.

Wang et al. 2019, arXiv 1804.07461; gluebenchmark.com, "How do I submit?". The server takes one TSV
file a test set, `index` and `prediction`, all of them in one zip.
"""

from dataclasses import dataclass

from peftbench.core.configs import TaskConfig

#: The data set on the hub that these names belong to.
HUB = "nyu-mll/glue"


@dataclass(frozen=True)
class GlueTask:
    """A task of GLUE.

    Attributes:
        labels: names of the classes by their numbers; empty for a regression.
        files: the server's file by test split.
        named: whether the server takes names in place of numbers.
        diagnostic: the server's file for GLUE's diagnostic set, which has no training data and is
            answered by models of this task; None for all tasks but one.
    """

    labels: tuple[str, ...]
    files: dict[str, str]
    named: bool = False
    diagnostic: str | None = None


#: Config and split of the diagnostic set on the hub; its texts and labels are those of MNLI.
DIAGNOSTIC = ("ax", "test")

_ENTAILED = ("entailment", "not_entailment")

TASKS = {
    "cola": GlueTask(("unacceptable", "acceptable"), {"test": "CoLA.tsv"}),
    "sst2": GlueTask(("negative", "positive"), {"test": "SST-2.tsv"}),
    "mrpc": GlueTask(("not_equivalent", "equivalent"), {"test": "MRPC.tsv"}),
    "stsb": GlueTask((), {"test": "STS-B.tsv"}),
    "qqp": GlueTask(("not_duplicate", "duplicate"), {"test": "QQP.tsv"}),
    "mnli": GlueTask(
        ("entailment", "neutral", "contradiction"),
        {"test_matched": "MNLI-m.tsv", "test_mismatched": "MNLI-mm.tsv"},
        named=True,
        diagnostic="AX.tsv",
    ),
    "qnli": GlueTask(_ENTAILED, {"test": "QNLI.tsv"}, named=True),
    "rte": GlueTask(_ENTAILED, {"test": "RTE.tsv"}, named=True),
    "wnli": GlueTask(("not_entailment", "entailment"), {"test": "WNLI.tsv"}),
}


def glue_task(task: TaskConfig) -> GlueTask | None:
    """What GLUE says of a task; None for a task of another source."""
    source = task.source
    return TASKS.get(str(source.get("config"))) if source.get("hub") == HUB else None


def spellings(task: TaskConfig) -> list[list[str]]:
    """The names that a task's classes go by, each in the order of their numbers.

    Those of a user's own data; of others the numbers, and the names of GLUE.
    """
    if task.class_names is not None:
        return [task.class_names]
    numbers = [str(number) for number in range(task.classes)]
    named = label_names(task)
    return [numbers] if named in (None, numbers) else [named, numbers]


def label_names(task: TaskConfig) -> list[str] | None:
    """Names of a task's classes by their numbers, which are named by these where nothing says how.

    None for a regression.
    """
    if task.regression:
        return None
    known = glue_task(task)
    if known is not None and len(known.labels) == task.classes:
        return list(known.labels)
    return task.class_names or [str(number) for number in range(task.classes)]
