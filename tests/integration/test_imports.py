"""What import-linter's contracts in pyproject.toml cannot say.

Commands that answer at once do not load torch, the loop and the reports know no method by name, and
only the store knows what a results folder looks like inside.
"""

import ast
import graphlib
import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

import peftbench
from peftbench.config import catalog

PACKAGE = Path(peftbench.__file__).parent
METHODS = sorted(catalog.options("method", (catalog.packaged(),)))

#: Packages in which no method is named: whatever trains, runs, reads or shows any of them.
NAMELESS = (
    *("training", "evaluation", "suites", "results", "analysis", "claims", "reports"),
    "runner",
)


def sources(*packages: str) -> dict[str, ast.Module]:
    """The syntax trees of the modules in some packages, by path."""
    paths = sorted(path for name in packages for path in (PACKAGE / name).rglob("*.py"))
    return {str(path.relative_to(PACKAGE)): ast.parse(path.read_text()) for path in paths}


def test_no_module_is_loose():
    loose = {path.name for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__.py", "__main__.py"}


LAZY = """
import sys, peftbench
peftbench.Suite, peftbench.plan, peftbench.load_records
assert "torch" not in sys.modules
found = {name: getattr(peftbench, name) for name in peftbench.__all__}
print(*sorted(n for n in peftbench.__all__ if found[n].__name__ != n), found["Method"].__module__)
"""


def test_public_names_are_there_and_only_what_trains_loads_torch():
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True)
    assert done.stdout == "peftbench.methods.base\n", done.stderr


def test_every_package_says_what_it_is_for():
    for path in PACKAGE.rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_no_modules_import_each_other():
    graph = grimp.build_graph("peftbench", exclude_type_checking_imports=False, cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    graphlib.TopologicalSorter(imports).prepare()  # CycleError names the modules of a circle


def test_every_class_has_a_name_of_its_own():
    places: dict[str, list[str]] = {}
    for path, tree in sources(".").items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}
    assert len(places) > 200


def test_no_function_is_called_of_or_check():
    bare = [
        f"{path}:{node.lineno}"
        for path, tree in sources(".").items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name in ("of", "check")
    ]
    assert bare == []


def ordinary(name: str) -> bool:
    """Whether a method's name is a word that means something else too, as in size=full."""
    return name in ("full", "head", "prefix")


@pytest.mark.parametrize("package", NAMELESS)
def test_the_loop_and_the_reports_know_no_method_by_name(package):
    for path, tree in sources(package).items():
        check_names(path, tree)


def check_names(path: str, tree: ast.Module) -> None:
    """Fail where a method is named outside of prose."""
    prose = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            prose.add(node.value)
    named = {method for method in METHODS if not ordinary(method)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in prose:
            words = node.value.lower().replace("_", " ").split()
            assert not set(words) & named, f"{path}, line {node.lineno}: {node.value!r}"
        elif isinstance(node, ast.Name | ast.Attribute):
            word = node.id if isinstance(node, ast.Name) else node.attr
            assert word.lower() not in named, f"{path}, line {node.lineno}: {word}"
        elif isinstance(node, ast.Compare | ast.match_case):
            constants = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
            assert not constants & set(METHODS), f"{path}: {ast.unparse(node)}"


def test_only_the_store_knows_a_path_in_a_results_folder():
    kinds = {"records", "failures", "predictions", "checkpoints", "trained", "drafts", "claims"}
    for name, tree in sources(".").items():
        if name == "results/store.py":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
                parts = {n.value for n in ast.walk(node) if isinstance(n, ast.Constant)}
                assert not parts & kinds, f"{name}, line {node.lineno}: {ast.unparse(node)}"


REFUSED = """
import json, sys
from peftbench.cli.main import main

for words in json.loads(sys.argv[1]):
    try:
        main(words, prog_name="peftbench")
    except SystemExit as end:
        assert end.code == 2, (words, end.code)
    slow = {"torch", "transformers", "accelerate", "peft"} & set(sys.modules)
    assert not slow, (words, slow)
"""


def test_what_is_refused_for_a_name_or_a_value_does_not_load_torch(tmp_path):
    from records import predictions, record, runs

    from peftbench.results.store import ResultsFolder

    results = ResultsFolder(tmp_path / "runs")
    (run,) = runs("method=lora")
    results.save(record(run), predictions())
    folder = ["--results", str(results.folder)]
    refused = [
        ["run"],
        ["run", "method=lorra", *folder],
        ["run", "train.lr=fast", *folder],
        ["run", "task=mrpc", "method.rnak=4", *folder],
        ["run", "task=mrpc", "method=lora", "method.rank=0", *folder],
        ["plan", "task=mrpc", "method=lora", "method.rank=400", *folder],
        ["plan", "task=mrpc", "method=peft", "method.type=VERAA", *folder],
        ["run", "task=mrpc", "--device", "gpu", *folder],
        ["run", "task=mrpc", "--retry", "eror", *folder],
        ["tune", "task=mprc", *folder],
        ["evaluate", "task=mrpc", *folder],
        ["evaluate", "task=mrpc", "suite=nois", *folder],
        ["submit", "task=mrpc", "cluster=nowhere", *folder],
        ["prefetch", "model=nothing"],
        ["show", "zzz", *folder],
        ["export", "zzz", str(tmp_path / "out"), *folder],
        ["export", run.key, str(tmp_path / "out"), *folder],
        ["export", run.key, str(tmp_path / "out"), "--form", "peftt", *folder],
        ["predict", run.key, "--out", "x", *folder],
        ["predict", "zzz", str(tmp_path / "mine.csv"), "-o", str(tmp_path / "x"), *folder],
        ["advise", "task=mprc", "size=3", *folder],
        ["report", "--against", "lor", *folder],
        ["report", "table", "rows=methd", *folder],
    ]
    command = [sys.executable, "-c", REFUSED, json.dumps(refused)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


VERBS = """
import io, json, sys
from contextlib import redirect_stdout
from peftbench.cli.main import main

heavy = {}
for verb in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out:
        try:
            main(verb, prog_name="peftbench")
        except SystemExit as end:
            assert end.code == 0, (verb, end.code)
    assert out.getvalue(), verb
    slow = {"torch", "transformers", "accelerate", "evaluate"}
    heavy[" ".join(verb[:1])] = sorted(slow & set(sys.modules))
print(json.dumps(heavy))
"""


LIGHT = """
import io, sys
from contextlib import redirect_stdout
from peftbench.cli.main import main

with redirect_stdout(io.StringIO()):
    try:
        main(sys.argv[1:], prog_name="peftbench")
    except SystemExit:
        pass
heavy = {"numpy", "pandas", "pyarrow", "omegaconf", "yaml", "hydra", "torch"}
print(sorted(heavy & set(sys.modules)))
"""


PANDAS = """
import io, json, sys
from contextlib import redirect_stdout
from peftbench.cli.main import main

for verb in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()):
        try:
            main(verb, prog_name="peftbench")
        except SystemExit as end:
            assert end.code == 0
    print(verb[0], "pandas" in sys.modules)
"""


def test_planning_does_not_load_pandas(tmp_path):
    folder = ["--results", str(tmp_path)]
    verbs = json.dumps([["list"], ["plan", *folder], ["status", *folder]])
    done = subprocess.run([sys.executable, "-c", PANDAS, verbs], capture_output=True, text=True)
    assert done.stdout == "list False\nplan False\nstatus False\n", done.stderr


@pytest.mark.parametrize("words", [["--help"], ["report", "--help"]])
def test_help_loads_no_library(words):
    done = subprocess.run([sys.executable, "-c", LIGHT, *words], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_verbs_that_answer_at_once_do_not_load_torch(tmp_path):
    from records import predictions, record, runs

    from peftbench.results.store import ResultsFolder

    results = ResultsFolder(tmp_path / "runs")
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
        ["advise", "task=synthetic_paraphrase", "size=32", "model=tiny", *folder],
        ["report", "table", *folder],
        ["report", "html", *folder, "-o", str(tmp_path / "report.html")],
    ]
    done = subprocess.run(
        [sys.executable, "-c", VERBS, json.dumps(verbs)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert set(map(tuple, json.loads(done.stdout).values())) == {()}, done.stdout
