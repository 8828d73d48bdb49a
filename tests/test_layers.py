"""The sources keep to the import rules: downwards only, no torch where a person waits."""

import ast
import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import peftbench
from peftbench import catalog

ROOT = Path(peftbench.__file__).parent
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
METHODS = sorted(catalog.options("method", (catalog.packaged(),)))

#: Modules that plan, show and report; also the supervisor. They never wait for these libraries.
LIGHT = [
    "__init__",
    "__main__",
    "advice",
    "annotation",
    "augmentation",
    "background",
    "best",
    "builtin",
    "bundles",
    "catalog",
    "cells",
    "chances",
    "claiming",
    "claims",
    "cli",
    "cluster",
    "cluster_verbs",
    "causes",
    "collecting",
    "comparison",
    "completion",
    "compose",
    "deciding",
    "crossing",
    "costs",
    "curves",
    "delimited",
    "describe",
    "doctor",
    "evaluation",
    "fetching",
    "fields",
    "figure",
    "files",
    "forecast",
    "forms",
    "grid",
    "hub",
    "index",
    "inference",
    "layouts",
    "lexemes",
    "lines",
    "listing",
    "machine",
    "metrics",
    "mixing",
    "models",
    "node",
    "nodes",
    "noise",
    "options",
    "papers",
    "places",
    "palette",
    "pictures",
    "prefetched",
    "probe",
    "progress",
    "quantities",
    "queued",
    "recipe",
    "report_verbs",
    "reporting",
    "requeue",
    "resampling",
    "rows",
    "run",
    "scalars",
    "scheduler",
    "shards",
    "slurm",
    "sources",
    "spelling",
    "stacked",
    "status",
    "store",
    "submission",
    "submitting",
    "suite",
    "sweep",
    "sweep_run",
    "table",
    "typeset",
    "uncertainty",
    "workers",
    *(name for name in MODULES if name.startswith(("page", "reports", "suites", "builtin."))),
]
HEAVY = {"torch", "transformers", "accelerate", "safetensors", "tokenizers", "evaluate", "peft"}

#: What a module may import of peftbench, at any depth of its code.
MAY = {
    "run": set(),
    "metrics": set(),
    "table": set(),
    "measure": {"machine", "run"},
    "machine": {"run"},
    "probe": {"machine", "run", "store"},
    "recipe": {"run"},
    "setting": {"run"},
    "evaluation": {"run"},
    "describe": {"evaluation", "run", "store"},
    "figure": set(),
    "annotation": set(),
    "palette": {"catalog"},
    "curves": set(),
    "costs": {"run"},
    "lines": {"annotation", "curves", "evaluation", "figure", "palette", "rows"},
    "inference": set(),
    "resampling": {"metrics"},
    "files": {"run"},
    "lexemes": set(),
    "noise": {"lexemes"},
    "rows": {"evaluation", "run"},
    "stacked": {"run"},
    "augmentation": {"catalog", "noise", "recipe", "run", "sources"},
    "store": {"evaluation", "files", "run"},
    "suite": {"catalog", "run", "sources"},
    "uncertainty": set(),
    "quantities": {"run"},
    "papers": {"catalog", "run"},
    "places": {"catalog", "evaluation", "papers", "rows", "run"},
    "cells": {"comparison", "inference", "papers", "places", "quantities", "run"},
    "claims": {
        *("catalog", "cells", "comparison", "evaluation", "inference", "papers", "places"),
        *("quantities", "run"),
    },
    "chances": {"comparison", "inference", "run", "stacked"},
    "advice": {"catalog", "chances", "rows", "run", "stacked", "store", "sweep"},
    "spelling": {"evaluation", "run", "sweep"},
    "deciding": {"claims", "places", "run", "spelling"},
    "catalog": {"run"},
    "hub": {"prefetched", "run"},
    "prefetched": {"files", "run"},
    "models": {"catalog", "files", "hub", "run"},
    "cluster": {"catalog", "run"},
    "bundles": {"cluster", "evaluation", "run"},
    "submission": {
        *("bundles", "cluster", "evaluation", "files", "machine", "progress", "run", "store"),
    },
    "scheduler": {"background", "cluster", "run", "slurm", "store", "submission"},
    "slurm": {"cluster", "node", "run", "store", "submission"},
    "requeue": set(),
    "background": {"run", "store", "submission"},
    "queued": {"evaluation", "run", "scheduler", "store", "submission"},
    "causes": set(),
    "collecting": {
        *("causes", "evaluation", "forecast", "queued", "run", "store", "submission", "table"),
    },
    "grouping": {"evaluation", "run"},
    "shards": {"run", "sweep"},
    "distributed": {"encoder", "run"},
    "comparison": {"catalog", "inference", "resampling", "rows", "run", "stacked"},
    "compose": {"catalog", "run"},
    "forecast": {"run"},
    "forms": {"catalog", "recipe", "run", "sources"},
    "prompts": {"checkpoints", "forms", "run", "sources", "tasks"},
    "rehearsal": {"backbone", "checkpoints", "encoder", "forms", "method", "run"},
    "method": {"encoder", "run"},
    "tasks": {"files", "prefetched", "run", "sources"},
    "train": {
        *("batches", "distributed", "encoder", "headway", "measure", "passes", "recipe", "resume"),
        *("run", "warmup"),
    },
    "headway": {"encoder", "recipe", "run"},
    "passes": {"batches", "distributed", "encoder", "tasks"},
    "mapped": {"batches", "encoder", "passes"},
    "pack": {"batches", "mapped", "passes"},
    "calibration": {"grouping", "measure", "run", "store"},
    "stage": {"encoder", "method"},
    "sweep": {"catalog", "compose", "evaluation", "nodes", "run", "store"},
    **{
        name: {
            "encoder",
            "gaussian",
            "method",
            "parts",
            "pruning",
            "recipe",
            "run",
            "smoothness",
        }
        for name in MODULES
        if name.startswith("methods.")
    },
    "methods.peft": {"catalog", "encoder", "method", "parts"},
    "layouts": {"run"},
    "scalars": {"files", "layouts", "run", "store"},
    "index": {"files", "run", "scalars", "store"},
    "fields": {"catalog", "run"},
    "mixing": {"fields", "index", "run"},
    "grid": {"catalog", "fields", "index", "mixing", "run"},
    "best": {"comparison", "grid", "inference", "run", "store"},
    "typeset": {"table"},
    "gaussian": set(),
    "heads": set(),
    "parts": set(),
    "pruning": set(),
    "vocabulary": set(),
    "smoothness": {"encoder"},
    **{
        name: {
            *("forms", "metrics", "noise", "recipe", "run", "sources", "suite", "uncertainty"),
        }
        for name in MODULES
        if name.startswith("suites.")
    },
    **{
        name: {
            "annotation",
            "comparison",
            "costs",
            "curves",
            "evaluation",
            "figure",
            "inference",
            "lines",
            "metrics",
            "palette",
            "resampling",
            "rows",
            "run",
            "stacked",
            "store",
            "table",
            "uncertainty",
        }
        for name in MODULES
        if name.startswith("reports.")
    },
    "reports.claims": {
        *("cells", "claims", "inference", "papers", "places", "quantities", "rows", "run", "table"),
    },
    "reports.advice": {"advice", "comparison", "rows", "run", "table"},
    "reports.crossed": {"best", "comparison", "fields", "grid", "table"},
    "page": {"files", "page.contents", "run", "store"},
    "page.cells": {"rows", "run"},
    "page.curves": {"evaluation", "rows", "run"},
    "page.listed": {"evaluation", "page.cells", "rows", "run"},
    "page.sentences": {"comparison", "evaluation", "page.cells", "page.listed", "rows", "run"},
    "page.contents": {
        *("comparison", "evaluation", "page", "page.cells", "page.curves", "page.listed"),
        *("page.sentences", "palette", "reporting", "reports.ensembles", "reports.ranking"),
        *("reports.ranks", "reports.scores", "reports.spending", "rows", "run", "stacked"),
        *("store", "table"),
    },
}

#: What a module may import of others, beside the standard library.
OUTSIDE = {
    "run": set(),
    "recipe": set(),
    "catalog": set(),
    "forecast": set(),
    "evaluation": set(),
    "files": {"numpy"},
    "layouts": {"orjson"},
    "scalars": {"orjson"},
    "index": {"pyarrow"},
    "fields": {"pyarrow"},
    "mixing": {"pyarrow"},
    "grid": {"pyarrow"},
    "best": set(),
    "typeset": set(),
    "annotation": {"matplotlib"},
    "comparison": {"numpy"},
    "costs": set(),
    "curves": {"numpy"},
    "figure": {"PIL", "matplotlib", "numpy"},
    "lines": set(),
    "palette": set(),
    "pictures": set(),
    "inference": {"numpy", "scipy"},
    "lexemes": set(),
    "noise": set(),
    "augmentation": {"numpy"},
    "resampling": {"numpy"},
    "rows": set(),
    "stacked": {"numpy"},
    "store": {"numpy"},
    "suite": {"hydra", "numpy"},
    "uncertainty": {"numpy", "scipy"},
    **{name: {"numpy"} for name in MODULES if name.startswith("suites.")},
    "metrics": {"numpy", "scipy", "sklearn"},
    "encoder": {"torch", "transformers"},
    **{name: {"torch"} for name in MODULES if name.startswith("methods.")},
    "methods.peft": {"torch", "peft"},
    **{name: {"matplotlib", "numpy", "scipy"} for name in MODULES if name.startswith("reports.")},
}

#: These never know which method runs.
BLIND = [
    "train",
    "assessment",
    "distributed",
    "execution",
    "follower",
    "node",
    "stream",
    "worker",
    "workers",
    "best",
    "grid",
    "annotation",
    "comparison",
    "papers",
    "places",
    "quantities",
    "cells",
    "claims",
    "deciding",
    "spelling",
    "chances",
    "advice",
    "costs",
    "curves",
    "figure",
    "lines",
    "palette",
    "pictures",
    "reporting",
    *(name for name in MODULES if name.startswith(("page", "reports.", "suites."))),
]


@cache
def tree(name):
    return ast.parse(MODULES[name].read_text())


def imports(name, deep):
    """Full names of what a module imports; with `deep`, inside functions too.

    What stands under `if TYPE_CHECKING` is not imported.
    """
    found = set()

    def walk(node):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not deep:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            walk(child)

    walk(tree(name))
    return found


def inside(name, deep):
    """Modules of peftbench that a module imports."""
    found = set()
    for full in imports(name, deep):
        parts = full.split(".")
        if parts[0] == "peftbench":
            candidates = (".".join(parts[1:end]) for end in range(len(parts), 1, -1))
            found.add(next((part for part in candidates if part in MODULES), "__init__"))
    return found


def outside(name, deep):
    """Top names of other libraries that a module imports."""
    tops = {full.split(".")[0] for full in imports(name, deep)}
    return tops - set(sys.stdlib_module_names) - {"peftbench", "__future__"}


def reached(name):
    """All modules that importing this one imports."""
    found, new = set(), {name}
    while new:
        found |= new
        new = {inner for outer in new for inner in inside(outer, deep=False)} - found
    return found


def test_the_rules_speak_of_modules_that_exist():
    assert set(MAY) | set(OUTSIDE) | set(LIGHT) | set(BLIND) <= set(MODULES)
    assert len(MODULES) > 30


@pytest.mark.parametrize("name", LIGHT)
def test_planning_status_and_reports_never_load_torch(name):
    for module in sorted(reached(name)):
        heavy = outside(module, deep=False) & HEAVY
        assert not heavy, f"{name} imports {module}, which imports {heavy}"


@pytest.mark.parametrize("name", MAY)
def test_a_module_imports_only_what_lies_below_it(name):
    assert inside(name, deep=True) - MAY[name] == set()


@pytest.mark.parametrize("name", OUTSIDE)
def test_a_module_uses_only_its_own_libraries(name):
    assert outside(name, deep=True) - OUTSIDE[name] == set()


def test_imports_have_no_cycle():
    rest = {name: inside(name, deep=True) - {name} for name in MODULES}
    while free := {name for name, below in rest.items() if not below & set(rest)}:
        rest = {name: below for name, below in rest.items() if name not in free}
    assert not rest, f"these import each other: {', '.join(sorted(rest))}"


def test_no_module_is_a_drawer():
    drawers = {"utils", "common", "helpers", "base", "registry", "manager", "types", "constants"}
    assert not {part for name in MODULES for part in name.split(".")} & drawers


@pytest.mark.parametrize("name", MODULES)
def test_a_module_can_be_read_at_one_sitting(name):
    most = 150 if name.startswith("methods.") else 300
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= most, f"{MODULES[name].name} has {lines} lines, more than {most}"


def ordinary(name):
    """Whether a method's name is a word that means something else too: size=full, encoder.head."""
    return name in ("full", "head")


@pytest.mark.parametrize("name", BLIND)
def test_the_loop_and_the_reports_never_ask_which_method_runs(name):
    assert not {full for full in imports(name, deep=True) if ".methods" in full}
    prose = set()
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(node.value)
    told = [method for method in METHODS if not ordinary(method)]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            words = node.value.lower().replace("_", " ").split()
            assert not set(words) & set(told), f"{name}, line {node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            assert word.lower() not in told, f"{name}, line {node.lineno}: {word}"
        elif isinstance(node, ast.Compare | ast.match_case):
            constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            assert not constants & set(METHODS), f"{name}: {ast.unparse(node)}"


def test_only_the_store_knows_a_path_in_a_results_folder():
    kinds = {"records", "failures", "predictions", "checkpoints", "trained", "drafts", "claims"}
    for name in MODULES:
        if name == "store":
            continue
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not parts & kinds, f"{name}, line {node.lineno}: {ast.unparse(node)}"


VERBS = """
import io, json, sys
from contextlib import redirect_stdout
from peftbench.cli import main

heavy = {}
for verb in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out:
        try:
            main(verb, prog_name="peftbench")
        except SystemExit as end:
            assert end.code == 0, (verb, end.code)
    assert out.getvalue(), verb
    heavy[" ".join(verb[:1])] = sorted({"torch", "transformers", "accelerate"} & set(sys.modules))
print(json.dumps(heavy))
"""


def test_verbs_that_answer_at_once_do_not_load_torch(tmp_path):
    from records import predictions, record, runs

    from peftbench.store import Results

    results = Results(tmp_path / "runs")
    for run in runs("method=lora,bitfit", "seed=0,1"):
        results.save(record(run), predictions())
    data = tmp_path / "mine.jsonl"
    data.write_text('{"sentence": "a b", "label": "no"}\n{"sentence": "c d", "label": "yes"}\n')
    folder = ["--results", str(results.folder)]
    verbs = [
        ["--help"],
        ["run", "--help"],
        ["list"],
        ["plan", "method=glob(*)", "task=mrpc,cola", "model=minilm,roberta_base", *folder],
        ["plan", "task=file", f"task.path={data}", "--json", *folder],
        ["show", results.keys()[0], *folder],
        ["report", *folder],
        ["report", "--check", *folder],
        ["report", "claims", "paper=doering2024", *folder],
        ["report", "claims", "--plan", *folder],
        ["advise", "task=builtin_paraphrase", "size=32", "model=tiny", *folder],
        ["report", "table", *folder],
        ["report", "page", *folder, "-o", str(tmp_path / "report.html")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", VERBS, json.dumps(verbs)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(map(tuple, json.loads(done.stdout).values())) == {()}, done.stdout
