"""Names from outside are only text, in every form in which a report is written."""

import csv
import io
import re
from dataclasses import replace

import pytest
import records
from click.testing import CliRunner
from suite_records import planned, sure

from peftbench.cli.main import main
from peftbench.core.failures import Failure
from peftbench.core.text import file_stem, one_line
from peftbench.reports import builder, registry
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep

HOSTILE = {
    "html": "<img src=x onerror=alert(1)>",
    "script": "</script><script>alert(1)</script>",
    "markdown": "[x](javascript:alert(1)) | `a` | ![](http://h)",
    "latex": r"\input{/etc/passwd} $x^2$ #1 & 50% {~",
    "lines": "one\ntwo | three\r\nkey 0000",
    "terminal": "\x1b[2J\x1b]0;title\x07 \x9b31m",
    "order": "safe\u202etxt.exe",
    "path": "../../outside/etc",
    "rich": "[bold red]x[/] [/nothing]",
}


#: Names with which pictures are drawn as well.
DRAWN = (HOSTILE["latex"], HOSTILE["path"])


@pytest.fixture(params=HOSTILE)
def name(request):
    return HOSTILE[request.param]


@pytest.fixture
def results(name, tmp_path):
    """Records of two methods whose task, model and method are called so."""
    folder = ResultsFolder(tmp_path / "runs")
    for run in records.runs("method=lora,bitfit", "seed=0,1"):
        hostile = replace(
            run,
            task=replace(run.task, name=name, class_names=["no", name]),
            model=replace(run.model, name=f"model {name}"),
            method=replace(run.method, name=f"{run.method.name} {name}"),
        )
        work = records.record(run).work | {
            "per_class": [
                {"class": name, "examples": 3, "precision": 0.5, "recall": None, "f1": 0.5}
            ]
        }
        folder.save(records.record(hostile, work=work), records.predictions(40))
    return folder


def is_clean(text):
    """No control character, nothing that turns the text round."""
    return not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", text)


def test_tables_of_all_forms(name, results):
    for ending in ("md", "csv", "tex", "html", "txt"):
        target = results.folder / f"table.{ending}"
        words = ["report", "table", "rows=method,model", "columns=task", "cell=score"]
        done = CliRunner().invoke(
            main, [*words, "--results", str(results.folder), "--output", str(target)]
        )
        assert done.exit_code == 0, done.output
        text = target.read_text()
        assert is_clean(text)
        if ending == "md":
            rows = [line for line in text.splitlines() if line.startswith("|")]
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1
            assert not re.search(r"<(img|script|/script)", text)
            assert not re.search(r"(?<!\\)\]\((?=javascript|http)", text)
        elif ending == "csv":
            assert len({len(row) for row in csv.reader(io.StringIO(text))}) == 1
        elif ending == "tex":
            assert "\\input{/etc" not in text
        elif ending == "html":
            assert "<img" not in text
            assert "<script>alert" not in text


def test_the_report_of_a_folder(name, results, monkeypatch):
    if name not in DRAWN:  # pictures take seconds
        monkeypatch.setattr(registry, "draw_figures", lambda *given: ({}, []))
    outside = sorted(path for path in results.folder.parent.rglob("*") if path.is_file())
    for path in builder.write(results):
        assert path.resolve().is_relative_to(results.reports().resolve())
        if path.suffix == ".md":
            text = path.read_text()
            assert is_clean(text)
            assert not re.search(r"<(img|script|/script)", text)
            for table in text.split("\n\n"):
                rows = [line for line in table.splitlines() if line.startswith("|")]
                assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1
    new = {path for path in results.folder.parent.rglob("*") if path.is_file()} - set(outside)
    assert all(path.is_relative_to(results.reports()) for path in new)


def test_the_page(name, results):
    target = results.folder / "page.html"
    given = ["report", "html", "--results", str(results.folder), "--output", str(target)]
    done = CliRunner().invoke(main, given)
    assert done.exit_code == 0, done.output
    text = target.read_text()
    assert "<img src=x" not in text
    assert "</script><script>alert" not in text


def test_what_is_printed(name, results):
    key = results.keys()[0]
    told = CliRunner().invoke(main, ["show", key[:8], "--results", str(results.folder)]).output
    assert is_clean(told)
    run = results.load(key).run
    assert "\n" not in run.title
    assert is_clean(run.title)
    line = sweep._sentence(Failure(run, "data", f"ConfigError: {name}"), results)
    assert "\n" not in line
    assert is_clean(line)
    table = Table(name, [name, "score"], [[name, "1"]], notes=[name])
    for text in (table.markdown(), table.plain(), table.csv()):
        assert is_clean(text)


def test_a_suite_of_a_hostile_name_is_a_file_in_the_folder(name, tmp_path, monkeypatch):
    if name not in DRAWN:
        monkeypatch.setattr(registry, "draw_figures", lambda *given: ({}, []))
    folder = ResultsFolder(tmp_path / "runs")
    (run,) = records.runs("method=lora")
    folder.save(records.record(run), records.predictions(40))
    for one in planned("suite=calibration", "method=lora"):
        named = replace(one, suite=one.suite | {"name": name})
        folder.save_evaluated(sure(named, 0.75), {})
    for path in builder.write(folder):
        assert path.resolve().is_relative_to(folder.reports().resolve())


def test_one_line_and_a_file_stem():
    assert one_line("Größe 漢字 \u200c ok") == "Größe 漢字 \u200c ok"
    assert one_line("a\tb\nc\x1b[0m\u202e") == "a b c\\x1b[0m\\u202e"
    assert file_stem("../../x y<z>") == "_.._x_y_z_"
    assert file_stem("sts-b_2.0") == "sts-b_2.0"
    assert file_stem("..") == "_"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a*b* | `x y` \\", r"a\*b\* \| \`x y\` \\"),
        ("_loud_ ~~gone~~ $x$", r"\_loud\_ \~\~gone\~\~ \$x\$"),
        ("[x][y] [z]: w &lt;", r"[x\][y] [z\]: w \&lt;"),
        ("snake_case 5 ~ 6 a & b", "snake_case 5 ~ 6 a & b"),
    ],
)
def test_names_are_text_in_notes_and_cells_of_markdown(name, shown):
    text = Table(name, [name], [[name]], notes=[f"Of {name}.", f"See `seed.order=3` of {name}."])
    *_, first, _, second = text.markdown().split("\n")
    assert first == f"Of {shown}."
    assert second == f"See `seed.order=3` of {shown}."
    if "[" not in name:  # in a cell a link needs a parenthesis
        assert f"| {shown}" in text.markdown()


@pytest.mark.parametrize("name", ["# big", "- item", "> said", "1. first", "2) second", "+ more"])
def test_a_note_begins_no_heading_or_list(name):
    note = Table("t", ["a"], [["b"]], notes=[name]).markdown().splitlines()[-1]
    assert note.replace("\\", "") == name
    assert not re.match(r"([#>+-]|\d+[.)])\s", note)
