"""README.md and docs/: links, examples, generated parts."""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from paths import ROOT

from peftbench.cli.main import main
from peftbench.core.failures import FAILURE_KINDS, TRANSIENT_FAILURES

README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
#: Prints the words of each command instead of running it: one a line, and an empty line.
RECORDER = 'peftbench() { printf "%q\\n" "$@"; echo; }\n'

_BLOCK = re.compile(
    r"(?:^ *<!-- (?P<mark>[^\n]+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """A fenced block, with the comment above it."""

    page: Path
    number: int
    mark: str
    language: str
    text: str

    @property
    def name(self) -> str:
        """The page and the number of the block."""
        return f"{self.page.stem}-{self.number}"


def blocks_of(page: Path) -> list[Block]:
    return [
        Block(
            page,
            number,
            found["mark"] or "",
            found["language"],
            re.sub(f"^{found['indent']}", "", found["text"], flags=re.MULTILINE),
        )
        for number, found in enumerate(_BLOCK.finditer(page.read_text()))
    ]


BLOCKS = {page: blocks_of(page) for page in PAGES}
BASH = [block for blocks in BLOCKS.values() for block in blocks if block.language == "bash"]
EXAMPLES = [
    pytest.param(block, id=block.name, marks=[pytest.mark.slow] if "slow" in block.mark else [])
    for blocks in BLOCKS.values()
    for block in blocks
    if block.mark.startswith("test")
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_has_an_example_that_is_run(page):
    marks = [block.mark for block in BLOCKS[page]]
    assert any(mark in ("test", "test: slow") for mark in marks)
    kinds = [mark.partition(":")[0] for mark in marks if mark]
    assert set(kinds) <= {"test", "output", "file"}


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_page_opens_with_what_its_reader_can_do(page):
    title, opening = page.read_text().split("\n\n")[:2]
    assert title.startswith("# ")
    assert opening.startswith("After this page you ")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_named_files_exist(page):
    text = _BLOCK.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        assert "://" in link or (page.parent / link).exists(), link
    folders = r"configs|peftbench|results|scripts|tests|docs"
    for path in re.findall(rf"`((?:{folders})/[\w./-]*\w)`", text):
        if not re.search(r"NAME|PAPER|GROUP|/(mine|x)\b|^results/runs\b", path):
            assert (ROOT / path).exists() or (ROOT / "peftbench" / path).exists(), path


def recorded(text: str, folder: Path, before: str = RECORDER) -> list[list[str]]:
    """The words of each `peftbench` command of a text, as bash passes them."""
    script = f"set -euo pipefail\n{before}{text}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    commands = done.stdout.strip("\n").split("\n\n")
    return [shlex.split(command) for command in commands]


@pytest.mark.parametrize("block", BASH, ids=lambda block: block.name)
def test_bash_is_safe(block, tmp_path):
    """No syntax error, and no word that bash expands: brackets and braces are quoted."""
    checked = subprocess.run(["bash", "-n"], input=block.text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stderr
    joined = block.text.replace("\\\n", " ").splitlines()
    lines = [line for line in joined if line.startswith("peftbench ")]
    plain = [shlex.split(line, comments=True)[1:] for line in lines]
    if lines:
        assert recorded("\n".join(lines), tmp_path) == plain
    for line in lines:
        bare = re.sub(r"'[^']*'|\"[^\"]*\"|#.*", "", line)
        assert not re.search(r"[][{}()<>*?;&|$]", bare), line


def test_python_is_valid():
    sources = [
        block for blocks in BLOCKS.values() for block in blocks if block.language == "python"
    ]
    assert len(sources) >= 4
    for block in sources:
        compile(block.text, block.name, "exec")


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """A copy of committed results, in which reports may keep their cache."""
    folder = tmp_path_factory.mktemp("docs") / "results"
    shutil.copytree(ROOT / "results/tuned/doering2024", folder / "tuned/doering2024")
    return folder


@pytest.mark.parametrize("block", EXAMPLES)
def test_example(block, results, tmp_path, monkeypatch):
    """Run an example in a folder with the files that its page shows."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").symlink_to(results)
    same = BLOCKS[block.page]
    for other in same:
        if other.mark.startswith("file: "):
            path = tmp_path / other.mark.removeprefix("file: ")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(other.text)
    output = run_example(block, tmp_path)
    following = same[block.number + 1] if block.number + 1 < len(same) else None
    if following is not None and following.mark == "output":
        for line in following.text.splitlines():
            assert line in output, output


def run_example(block: Block, folder: Path) -> str:
    if block.language == "python":
        with contextlib.redirect_stdout(io.StringIO()) as told:
            exec(compile(block.text, block.name, "exec"), {})
        return told.getvalue()
    if block.mark == "test":
        told = ""
        for words in recorded(block.text, folder):
            done = CliRunner().invoke(main, words, prog_name="peftbench")
            told += done.output
            assert done.exit_code == 0, told
        return told
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=block.text,
        env=os.environ | {"PATH": path},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def test_readme_is_short_and_ci_finds_its_commands():
    text = README.read_text()
    assert len(text.splitlines()) <= 200
    commands = re.findall(r"^    (python3 -m pip install .*)$", text, re.MULTILINE)
    assert [command.rpartition("uv run ")[2] for command in commands] == [
        "peftbench run sweep=quickstart",
        "pytest -n auto --dist loadfile",
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("    install && uv run pytest -n auto\n", "install && uv run pytest -n auto\n"),
        ("`uv run pytest -n auto`\n", ""),
    ],
)
def test_ci_refuses_a_readme_without_its_command(text, told, tmp_path):
    """An empty command would pass, and no test be run."""
    (tmp_path / "README.md").write_text(text)
    function = re.search(r"^of_readme.*?^}", (ROOT / ".ci" / "run").read_text(), re.M | re.S)[0]
    code = f'set -euo pipefail\n{function}\ntests=$(of_readme "pytest.*")\necho "$tests"'
    done = subprocess.run(["bash", "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == told
    assert ("README.md has no command: pytest" in done.stderr) is (not told)
    assert (done.returncode == 0) is bool(told)


def offered(group: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / "configs" / group).glob("[!_]*.yaml"))


def test_readme_names_every_method():
    section = README.read_text().partition("\n## Methods\n")[2].partition("\n## ")[0]
    listed = [
        name
        for line in re.findall(r"^- .*", section, re.M)
        for name in re.findall(r"`(\w+)`", line)
    ]
    assert sorted(listed) == offered("method")


@pytest.mark.parametrize(("group", "page"), [("method", "methods"), ("suite", "suites")])
def test_every_method_and_suite_has_a_row(group, page):
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / f"docs/{page}.md").read_text(), re.MULTILINE)
    assert sorted(rows) == offered(group)


def test_every_class_of_failure_is_explained():
    text = (ROOT / "docs/troubleshooting.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| .+ \| (yes|no) \|$", text, re.MULTILINE)
    retried = {kind: again for kinds, again in rows for kind in re.findall(r"\w+", kinds)}
    assert retried == {
        kind: "yes" if kind in TRANSIENT_FAILURES else "no" for kind in FAILURE_KINDS
    }


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"- (\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(listed) == [page.name for page in PAGES[1:]]


def test_generated_parts_are_up_to_date():
    """All but the counts of methods, which `.ci/run` checks and test_published_counts computes."""
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        import docs
    finally:
        sys.path.pop(0)
    for page in PAGES:
        if page.stem != "methods":
            text = page.read_text()
            assert docs.filled(text) == text, f"{page.name}: run scripts/docs.py"
    for copied, picture in docs.PICTURES.items():
        assert copied.read_bytes() == picture.read_bytes(), f"{copied.name}: run scripts/docs.py"


def test_the_notebook_is_what_its_cells_give(monkeypatch):
    """Every cell runs, and the first output is that of the file."""
    monkeypatch.chdir(ROOT)
    notebook = json.loads((ROOT / "docs" / "notebook.ipynb").read_text(encoding="utf-8"))
    codes = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    for cell in codes:
        source = "".join(cell["source"])
        with contextlib.redirect_stdout(io.StringIO()):
            exec(source, names)
    told = "".join(codes[0]["outputs"][0]["data"]["text/plain"])
    assert told == repr(names["results"])
