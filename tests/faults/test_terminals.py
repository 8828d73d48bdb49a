"""Terminals and logs as they are: of any encoding and width, full, closed."""

import ast
import errno
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import records
from click.testing import CliRunner
from rich.console import Console

import peftbench
from peftbench.cli import options
from peftbench.cli.main import main
from peftbench.core.text import command
from peftbench.reports import registry
from peftbench.reports.tables.markdown import Table
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep
from peftbench.system import terminal

#: What a terminal may be set to that cannot show all of our characters.
ENCODINGS = [
    {"PYTHONIOENCODING": "ascii"},
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"PYTHONIOENCODING": "latin-1"},
]

#: What opens a text, and where its mode stands among the arguments.
OPENERS = {"open": 1, "fdopen": 1, "read_text": None, "write_text": None}


def calls_without_encoding(path):
    for node in ast.walk(ast.parse(path.read_bytes())):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        owner = ast.unparse(node.func.value) if isinstance(node.func, ast.Attribute) else ""
        if name not in OPENERS or (
            name == "open" and owner in ("os", "Image", "whole")
        ):  # a zip too
            continue
        mode = OPENERS[name]
        given = node.args[mode] if mode is not None and len(node.args) > mode else None
        given = next((one.value for one in node.keywords if one.arg == "mode"), given)
        if isinstance(given, ast.Constant) and "b" in given.value:
            continue
        if not any(one.arg == "encoding" for one in node.keywords):
            yield f"{path}:{node.lineno}: {ast.unparse(node)}"


def test_every_text_file_is_opened_with_an_encoding(tmp_path):
    package = Path(peftbench.__file__).parent
    assert [call for path in package.rglob("*.py") for call in calls_without_encoding(path)] == []
    probe = tmp_path / "probe.py"
    probe.write_text('open("x")\nopen("x", "wb")\nPath("x").read_text()\nos.open("x", 0)\n')
    assert len(list(calls_without_encoding(probe))) == 2, "the check itself can fail"


def written(text, encoding, monkeypatch):
    body = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(body, encoding=encoding))
    terminal.write(text)
    return body.getvalue()


def test_any_text_is_printed(monkeypatch):
    line = "lora · 82.0 ± 0.3 …"
    assert written(line, "ascii", monkeypatch) == b"lora - 82.0 +- 0.3 ..."
    assert written(line, "latin-1", monkeypatch) == b"lora \xb7 82.0 \xb1 0.3 ..."
    assert written(line, "utf-8", monkeypatch) == line.encode()
    assert written("漢.csv", "ascii", monkeypatch) == b"\\u6f22.csv"
    name = os.fsdecode(b"caf\xe9.csv")  # of a file whose name is not UTF-8
    assert written(name, "utf-8", monkeypatch).decode() in (r"caf\xe9.csv", "café.csv")


def process(*words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=None, **environment):
    return subprocess.run(
        [sys.executable, "-m", "peftbench", *words],
        env=os.environ | environment,
        stdout=stdout,
        stderr=stderr,
        cwd=cwd,
        timeout=240,
    )


@pytest.mark.parametrize("environment", ENCODINGS, ids=["ascii", "C", "latin-1"])
def test_lists_and_errors_in_any_encoding(environment, tmp_path):
    own = tmp_path / "configs" / "method"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("# Größe ± 漢 …\nname: mine\n", encoding="utf-8")
    done = process("list", "methods", cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert b"method=mine" in done.stdout
    done = process("list", "größe", cwd=tmp_path, **environment)
    assert done.returncode == 2
    assert b"Traceback" not in done.stderr
    assert done.stderr.startswith(b"peftbench: list gr")


@pytest.mark.slow
@pytest.mark.parametrize("environment", ENCODINGS[:2], ids=["ascii", "C"])
def test_a_run_in_any_encoding(environment, tmp_path):
    """Titles and logs hold characters that the terminal has not."""
    source = tmp_path / "größe.csv"
    rows = [f"text {n} ± 漢,{('gut', 'schlecht')[n % 2]}\n" for n in range(40)]
    source.write_text("sentence,label\n" + "".join(rows), encoding="utf-8")
    words = ["task=file", "task.path='größe.csv'", "method=bitfit"]
    done = process("run", *records.tiny(*words, "size=16"), cwd=tmp_path, **environment)
    assert done.returncode == 0, done.stderr
    assert b"1/1" in done.stderr
    folder = tmp_path / "results" / "runs"
    (key,) = ResultsFolder(folder).keys()
    assert "±" in (folder / "reports" / "scores.md").read_text(encoding="utf-8")
    log = (folder / "logs" / f"{key}.log").read_text(encoding="utf-8")
    assert log.startswith("bitfit · ")


# full and closed


@pytest.mark.parametrize("words", [("list",), ("--help",), ("completion", "bash")])
def test_standard_output_that_is_full(words):
    with open("/dev/full", "w") as full:
        done = process(*words, stdout=full)
    assert done.returncode == 2
    told = done.stderr.decode()
    assert told == "peftbench: standard output takes no more: No space left on device\n"


@pytest.mark.parametrize("words", [("list",), ("list", "suites"), ("--help",), ("gate", "--help")])
def test_a_reader_that_has_left(words):
    """As a shell reports SIGPIPE; 1 is an answer of `gate`, `doctor` and `report --check`."""
    reader, writer = os.pipe()
    os.close(reader)
    done = process(*words, stdout=writer)
    os.close(writer)
    assert done.returncode == 141
    assert done.stderr == b""


@pytest.mark.parametrize("words", [("list", "form"), ("list", "nothing")])
def test_standard_error_that_is_full_ends_nothing(words):
    """`list form` prints a note of the new name first."""
    with open("/dev/full", "w") as full:
        done = process(*words, stderr=full)
    assert done.returncode == (0 if words[1] == "form" else 2)
    assert (b"prompt=words" in done.stdout) == (words[1] == "form")


class Full(io.RawIOBase):
    """A device without room, until some is made."""

    full = True

    def writable(self):
        """It looks as if it had."""
        return True

    def write(self, body):
        """It has not."""
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return len(body)


def test_the_report_of_a_run_is_written_though_its_tables_cannot_be_printed(
    tmp_path, monkeypatch, capsys
):
    results = ResultsFolder(tmp_path / "runs")
    planned = records.runs("method=lora,bitfit")
    for run in planned:
        results.save(records.record(run), records.predictions(40))
    dropped = []
    monkeypatch.setattr(terminal, "discard_output", lambda: dropped.append(1))
    monkeypatch.setattr(registry, "draw_figures", lambda *given: ({}, []))
    device = Full()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(device)))
    plan = sweep.Plan(list(planned), 2, [], [], None)
    assert sweep._sum_up(plan, results, set(), as_json=False) == 0
    assert dropped == [1]
    told = capsys.readouterr().err
    assert "standard output takes no more (No space left on device)" in told
    assert (results.reports() / "scores.md").is_file()
    device.full = False  # else it cannot be closed


# width

WIDE = Table(
    "4 runs",
    ["method", "task", "seeds", "done", "missing"],
    [["a_method_of_a_long_name", "a_task_of_a_long_name", "0-4", "1234", "5678"]],
    2,
    bold=frozenset({(0, 3)}),
)


@pytest.mark.parametrize("width", [20, 40, 60, 200])
def test_no_figure_is_cut_in_a_terminal(width):
    file = io.StringIO()
    Console(file=file, width=width).print(WIDE.rich())
    drawn = file.getvalue()
    assert "…" not in drawn
    for figure in ("0-4", "1234", "5678"):
        assert re.search(rf"(?<!\d){figure}(?!\d)", drawn), drawn
    assert max(len(line.rstrip()) for line in drawn.splitlines()) <= width
    assert ("done: 1234" in drawn) == (width < 60), "rows as lines where columns do not fit"


def test_a_pipe_cuts_nothing():
    name = "n" * 300
    table = Table("t", ["row", "score"], [[name, "81.2"], ["b", "70.0"]])

    @main.command("a_table_of_tests")
    def print_it():
        options.show(table.rich())

    try:
        for columns in ("0", "40", "x"):
            told = CliRunner().invoke(main, ["a_table_of_tests"], env={"COLUMNS": columns})
            assert name in told.output
            assert "81.2" in told.output
            assert all(line == line.rstrip() for line in told.output.splitlines())
    finally:
        del main.commands["a_table_of_tests"]


@pytest.mark.parametrize("columns", ["0", ""])
def test_columns_of_zero_are_no_width(columns, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    terminal.prepare()
    assert "COLUMNS" not in os.environ
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert terminal.columns() >= 20


# hints


@pytest.mark.parametrize("name", ["my runs", "runs[1]*", "it's", "-$HOME;ls"])
def test_printed_commands_are_quoted_for_a_shell(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(registry, "draw_figures", lambda *given: ({}, []))
    assert shlex.split(command("show", "--results", name)) == [
        "peftbench",
        "show",
        "--results",
        name,
    ]
    results = ResultsFolder(tmp_path / name)
    (run,) = records.runs("method=lora")
    results.save(records.record(run), records.predictions(40))
    sweep._sum_up(sweep.Plan([run], 1, [], [], None), results, set(), as_json=False)
    told = re.search(r"look at it: (.*)", capsys.readouterr().err)[1]
    assert shlex.split(told) == ["peftbench", "report", "html", "--results", str(results.folder)]
