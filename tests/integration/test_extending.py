"""What is added as files of its own is found: nothing else has to be edited."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from paths import ROOT

FILES = {
    "peftbench/methods/norm_scale.py": '''
"""Norm scale: the weights of the norms."""

from dataclasses import dataclass
from typing import Annotated

from peftbench.methods.base import Method
from peftbench.methods.settings import Limits
from peftbench.models.adapted_model import AdaptedModel


@dataclass(frozen=True, kw_only=True)
class NormScale(Method):
    """The weights of the norms, without their biases."""

    share: Annotated[float, Limits(above=0, between=(0, 1))]

    def insert(self, model: AdaptedModel) -> None:
        """Unfreeze them."""
        norms = {id(norm.weight) for norm in model.each("attn_norm", "ffn_norm")}
        model.unfreeze("norm", lambda name, parameter: id(parameter) in norms)
''',
    "configs/method/norm_scale.yaml": """
_target_: peftbench.methods.norm_scale.NormScale
name: norm_scale
title: Norm scale
about: weights of the norms
share: 1.0
recipe: {lr: 1e-3, lr_scheduler_type: linear, warmup_steps: 0.06, weight_decay: 0.0}
""",
    "configs/task/shouting.yaml": """
name: shouting
title: Shouting
about: Is a sentence loud?
kind: classification
classes: 3
range: null
source: {hub: mine/shouting, revision: main, config: null}
texts: [sentence]
label: label
splits: {train: train, validation: validation}
extra: {}
examples: {train: 100, validation: 50}
metrics: [within_one]
""",
    "peftbench/suites/length.py": '''
"""Length: does the score depend on how long a text is?"""

from dataclasses import dataclass

from peftbench.core.run import Json, Record
from peftbench.suites.base import Arrays, Suite


@dataclass(frozen=True, kw_only=True)
class Length(Suite):
    """Score short and long texts."""

    words: int

    def findings(self, record: Record, known: Arrays, found: dict[str, Arrays]) -> Json:
        """The score by length."""
        return {"headline": {"short texts": 0.625}}
''',
    "configs/suite/length.yaml": """
_target_: peftbench.suites.length.Length
name: length
about: score by the length of a text
words: 10
tasks: {}
""",
    "peftbench/reports/steps.py": '''
"""How many steps did each method take?"""

from peftbench.analysis import grouping
from peftbench.core.run import Record
from peftbench.reports.base import Report
from peftbench.reports.plotting import style
from peftbench.reports.plotting.style import Figure
from peftbench.reports.tables.markdown import Table

REPORT = Report(
    name="steps",
    question="how many steps did each method take?",
    order=100,
    tables=lambda inputs: [table(inputs.records)],
    figures=lambda inputs: [Figure(style.panels(1, height=1.0)[0], "Steps.")],
    needs="records",
)


def table(records: list[Record]) -> Table:
    """Steps of each row."""
    by_row, split = grouping.of_records(records)
    lines = [[*row, str(here[0].work["steps"])] for row, here in by_row.items()]
    return Table("Optimizer steps", ["method", *split, "steps"], lines, 1 + len(split))
''',
    "peftbench/metrics/scores/within_one.py": '''
"""Share of classes that are at most one off."""

import numpy as np

from peftbench.metrics.base import Array, Metric


def within_one(predicted: Array, label: Array) -> float | None:
    """Share of `(examples,)` predictions at most one class off."""
    return float(np.mean(np.abs(np.subtract(predicted, label)) <= 1))


METRIC = Metric(
    name="within_one",
    title="within one",
    about="share of classes at most one off",
    compute=within_one,
    kinds=("classification",),
)
''',
}

#: Scores by the new metric, as runs and reports take them.
SCORED = """
import numpy as np
from peftbench.analysis import bootstrap
from peftbench.metrics import task_metrics
outputs, label = np.eye(3)[[0, 2, 1, 1]], np.array([0, 0, 1, 2])
print(task_metrics.score(["within_one"], outputs, label)["within_one"])
print(bootstrap.score("within_one", outputs[None], label, np.ones((1, 4)))[0, 0])
"""

#: Records of a run and an evaluation of it by the new suite.
SAVED = """
import sys
from pathlib import Path
import records
from peftbench.config.sweep import plan
from peftbench.core.evaluation import Evaluated
from peftbench.results.store import ResultsFolder
results = ResultsFolder(Path(sys.argv[1]))
planned = plan(*records.tiny("method=bitfit,full", "seed=0,1", "suite=length"))
for run in planned.runs:
    results.save(records.record(run), records.predictions())
for e in planned.evaluations:
    share = {"short texts": 0.5 + 0.25 * e.run.seed}
    results.save_evaluated(Evaluated(e, {}, share, {}, records.ENVIRONMENT, None), {})
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """The package and its configurations, with one file or two of each kind more."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("peftbench", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in FILES.items():
        path = folder / name
        assert path.parent.is_dir(), name
        assert not path.exists(), name
        path.write_text(text.lstrip())
    return folder


@pytest.fixture(scope="module")
def results(checkout):
    run(checkout, "-c", SAVED, "runs")
    return checkout / "runs"


def run(checkout: Path, *words: str) -> str:
    """What Python prints in the folder of the copy."""
    found = os.pathsep.join([str(checkout), str(ROOT / "tests/support")])
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": found},
        cwd=checkout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_metric_scores_runs_and_resamples(checkout):
    assert run(checkout, "-c", SCORED).split() == ["0.75", "0.75"]


#: Commands given as JSON, one after the other; their exit codes and what they print.
TOLD = """
import json, sys
from click.testing import CliRunner
from peftbench.cli.main import main
done = [CliRunner().invoke(main, words, prog_name="peftbench") for words in json.loads(sys.argv[1])]
print(json.dumps([(one.exit_code, one.output) for one in done]))
"""


@pytest.fixture(scope="module")
def told(checkout, results):
    """What commands print in the folder of the copy, by their first words."""
    new = ["method=norm_scale", "task=shouting", "suite=length", "model=tiny"]
    given = {
        "list": (["list"], 0),
        "plots": (["report", "plots", "--help"], 0),
        "plan": (["plan", *new], 0),
        "bound": (["plan", "method=norm_scale", "method.share=2", "model=tiny"], 2),
        "refused": (["plan", "method=full", "task=stsb", "task.metrics=[within_one]"], 2),
        "report": (["report", "--all", "--results", "runs"], 0),
        "page": (["report", "html", "--results", "runs", "-o", "report.html"], 0),
    }
    words = json.dumps([words for words, _ in given.values()])
    done = json.loads(run(checkout, "-c", TOLD, words))
    for (wanted, code), (found, output) in zip(given.values(), done, strict=True):
        assert found == code, (wanted, output)
    return {name: output for name, (_, output) in zip(given, done, strict=True)}


def test_lists_name_what_was_added(told):
    for option, about in {
        "method=norm_scale": "weights of the norms",
        "task=shouting": "Is a sentence loud?",
        "suite=length": "score by the length of a text",
        "within_one": "share of classes at most one off",
        "steps": "how many steps did each method take?",
    }.items():
        line = rf"^  {re.escape(option)} +{re.escape(about)}$"
        assert re.search(line, told["list"], re.MULTILINE)
    offered = told["plots"]
    assert re.search(r"^ +steps +how many steps did each method take\?$", offered, re.MULTILINE)
    assert re.search(r"results of suites: [^-]*\blength\b", offered)


def test_a_run_of_all_that_is_new_is_planned(told):
    assert "norm_scale" in told["plan"]
    assert "within_one is no metric of regression" in told["refused"]
    assert "method.share must be a number from 0 to 1, got 2" in told["bound"]


def test_a_new_report_is_written_printed_and_drawn(told, results):
    assert "Optimizer steps" in told["report"]
    steps = (results / "reports" / "steps.md").read_text()
    assert re.search(r"\| bitfit +\| +4 \|", steps), steps
    assert (results / "reports" / "steps.png").exists()
    assert "### steps" in (results / "reports" / "plots.md").read_text()


def test_a_suite_without_a_report_has_a_table(told, results):
    table = (results / "reports" / "length.md").read_text()
    assert "short texts" in table
    assert "62.5 ± 17.7 (2)" in table


def test_the_page_shows_both(told, checkout):
    page = (checkout / "report.html").read_text()
    assert '"title":"Optimizer steps"' in page
    assert '"title":"Length: synthetic_paraphrase"' in page


#: Tests of the package about its own lists.
LISTS = (
    "tests/integration/test_docs.py::test_readme_names_every_method",
    "tests/integration/test_docs.py::test_every_method_and_suite_has_a_row",
    "tests/metrics/test_task_metrics.py::test_every_metric_is_tested",
    "tests/methods/test_settings.py::test_every_number_of_a_method_has_limits_that_planning_reads",
    "tests/methods/test_settings.py::test_methods_that_cannot_write_texts_are_those_that_say_so",
    "tests/reports/test_html.py::test_every_packaged_method_task_and_metric_has_a_name",
)


@pytest.mark.slow
def test_the_packages_own_tests_of_its_lists_pass(checkout):
    """Once the generated parts of the documentation are written again."""
    for name in ("docs", "scripts", "tests"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    (checkout / "results").symlink_to(ROOT / "results")
    (checkout / "tests/metrics/test_within_one.py").write_text("")  # a test of one's own
    wrote = run(checkout, "scripts/docs.py")
    assert {"wrote README.md", "wrote docs/methods.md", "wrote docs/suites.md"} <= set(
        wrote.splitlines()
    )
    done = run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *LISTS)
    assert re.search(r"\d+ passed", done)
    assert "failed" not in done
