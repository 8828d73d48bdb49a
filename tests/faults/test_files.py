"""Files that cannot be read, and files of users as they are: one line, or left out and said."""

import os
import shutil
from pathlib import Path

import pytest
import records
from click.testing import CliRunner

from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.errors import ClosedFileError, ConfigError, RecordError
from peftbench.core.failures import Failure
from peftbench.core.plan import RunOptions
from peftbench.methods import dry_run
from peftbench.methods.base import Method
from peftbench.reports.base import gather
from peftbench.results import status
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder
from peftbench.runner import sweep
from peftbench.system import io


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def call(*words, code=0):
    done = CliRunner().invoke(main, words, prog_name="peftbench")
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    return done.output


def close(path, how):
    """Make a file one that cannot be read, also for root."""
    path.unlink()
    if how == "folder":
        path.mkdir()
    else:
        path.symlink_to(path.name)


WORDS = ("method=lora,bitfit", "seed=0,1")


@pytest.fixture(params=["folder", "loop"])
def closed(request, tmp_path):
    """A results folder with four records, of which the last cannot be read, and its key."""
    results = ResultsFolder(tmp_path / "runs")
    for run in records.runs(*WORDS):
        results.save(records.record(run), records.predictions(40))
    key = records.runs(*WORDS)[-1].key
    close(tmp_path / "runs" / "records" / f"{key}.json", request.param)
    return results, key


def test_a_record_that_cannot_be_read_is_left_out_and_said(closed):
    results, key = closed
    good, bad = results.scan()
    assert len(good) == 3
    assert list(bad) == [key]
    assert "cannot be read: " in bad[key]
    for _ in range(2):  # the second time from its cache
        assert list(load_frame(results).unreadable) == [key]
    told = call("plan", *records.tiny(*WORDS), "--results", "runs")
    assert "3 done, 1 missing" in told
    assert f"left out: runs/records/{key}.json cannot be read" in told
    assert "made again" not in told
    told = call("report", "table", "rows=method", "columns=task", "cell=score", "--results", "runs")
    assert key in told
    told = call("report", "html", "--results", "runs", "--output", "page.html")
    assert key in Path("page.html").read_text(encoding="utf-8")
    told = call("show", key, "--results", "runs", code=2)
    assert told.startswith(f"peftbench: runs/records/{key}.json cannot be read: ")


def test_a_record_that_cannot_be_read_is_never_trained_again(closed):
    results, _ = closed
    planned = plan(*records.tiny(*WORDS), results=results.folder)
    with pytest.raises(ConfigError, match=r"cannot be read.*the work may be done"):
        sweep.run_plan(planned, results, RunOptions())
    with pytest.raises(ClosedFileError):
        results.done(planned.runs[-1])
    others = plan(*records.tiny("method=lora", "seed=0,1"), results=results.folder)
    status.sweep_status(others, results).refuse_closed()
    assert sweep.run_plan(others, results, RunOptions(quiet=True)) == 0, "it is none of these"


@pytest.mark.parametrize("how", ["folder", "loop"])
def test_other_files_of_a_folder_that_cannot_be_read(how, tmp_path):
    results = ResultsFolder(tmp_path / "runs")
    runs = records.runs("method=lora", "seed=0,1")
    saved = [results.save(records.record(run), records.predictions(40)) for run in runs]
    close(tmp_path / "runs" / "predictions" / f"{runs[0].key}.npz", how)
    with pytest.raises(RecordError, match="cannot be read"):
        results.predictions(saved[0])
    _, (gone,) = gather(results, saved, [])
    assert gone.startswith(f"left out of tests, predictions of {runs[0].key} unreadable: ")
    assert "cannot be read" in gone
    results.fail(Failure(records.runs("method=bitfit")[0], "error", "x"))
    key = records.runs("method=bitfit")[0].key
    close(tmp_path / "runs" / "failures" / f"{key}.json", how)
    assert "cannot be read" in call("plan", *records.tiny("method=bitfit"), "--results", "runs")


def test_a_record_that_is_removed_while_others_are_read_is_none(tmp_path, monkeypatch):
    results = ResultsFolder(tmp_path / "runs")
    for run in records.runs("method=lora", "seed=0,1"):
        results.save(records.record(run), records.predictions(40))
    keys = results.keys()
    monkeypatch.setattr(results, "keys", lambda: keys)
    (tmp_path / "runs" / "records" / f"{keys[0]}.json").unlink()
    good, bad = results.scan()
    assert [record.run.key for record in good] == keys[1:]
    assert bad == {}


@pytest.mark.parametrize("words", [("list", "methods"), ("plan", "method=lora"), ("doctor",)])
def test_a_working_folder_that_is_gone(words, tmp_path):
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    shutil.rmtree(gone)
    try:
        told = call(*words, code=2)
    finally:
        os.chdir(tmp_path)
    assert told.startswith("peftbench: the working folder is gone")


@pytest.mark.parametrize("verb", ["plan", "run", "report", "show", "status", "advise"])
def test_results_on_a_device_or_a_file(verb, tmp_path):
    words = {
        "plan": ["method=lora"],
        "run": ["method=lora"],
        "show": ["abc"],
        "advise": ["task=mrpc", "size=300"],
    }
    given = [verb, *words.get(verb, [])]
    assert "/dev/null is not a folder" in call(*given, "--results", "/dev/null", code=2)
    (tmp_path / "file").write_text("x")
    assert "file" in call(*given, "--results", "file", code=2)


def test_a_place_that_cannot_be_written_to_is_one_line(tmp_path):
    results = ResultsFolder(tmp_path / "runs")
    (run,) = records.runs("method=lora")
    results.save(records.record(run), records.predictions(40))
    (tmp_path / "file").write_text("x")
    told = call("report", "html", "--results", "runs", "-o", "file/page.html", code=2)
    assert told.count("\n") == 1
    assert told.startswith("peftbench: ")
    assert "file" in told


# files of users


def own(group, name, body):
    path = Path("configs", group, f"{name}.yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    return path


LATIN = "about: Größe\n".encode("latin-1")


@pytest.mark.parametrize("body", [b"# first\n" + LATIN, "name: mine\n".encode("utf-16")])
@pytest.mark.parametrize("group", ["method", "task", "train", "sweep", "suite", "model"])
def test_a_yaml_that_is_not_utf8(group, body, tmp_path):
    path = own(group, "mine", body)
    more = ["method=lora"] * (group == "suite")
    told = call("plan", f"{group}=mine", *more, code=2)
    line = 2 if b"first" in body else 1
    assert f"{path.resolve()}: line {line} is not UTF-8" in told
    assert "save the file as UTF-8" in told
    if group != "train":  # which is not listed
        assert f"{group}=mine" in call("list", f"{group}s"), "a list goes on"


@pytest.mark.parametrize("body", ["a: [1, 2\n", "- a\n- b\n", "a: 1\na: 2\n"])
@pytest.mark.parametrize("group", ["model_family", "model"])
def test_a_broken_family_names_its_file(group, body):
    path = own(group, "_x", body)
    told = call("plan", *records.tiny("method=lora"), code=2)
    assert told.startswith(f"peftbench: {path.resolve()}"), told


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("5\n", "must hold key: value lines, got one value"),
        (
            "_target_: 5\nname: mine\nrecipe: {lr: 1e-3}\n",
            "method._target_ must be the dotted path of a class, got 5",
        ),
        ("a: &a [*a]\nname: mine\n", "mine.yaml is not a yaml file: an alias in it holds itself"),
        ("defaults:\n  - mine\nname: mine\n", "refers to itself, in its defaults or by an alias"),
        (
            "defaults: lora\nname: mine\n",
            "Invalid defaults list in 'method/mine', defaults must be",
        ),
    ],
)
def test_an_odd_yaml_is_one_line(body, said):
    own("method", "mine", body)
    told = call("plan", *records.tiny("method=mine"), code=2)
    assert said in told
    assert "files of your own take part" in told
    assert len(told) < 400


def test_what_models_of_ones_own_share_is_no_family():
    own("model", "_base", "name: ???\nfamily: ${nothing.there}\n")
    assert "1 run of tiny, train.lr=" in call("plan", *records.tiny("method=lora"))


def test_a_family_without_its_type_names_its_file():
    own("model_family", "mine", "blocks: encoder.layer\n")
    assert "missing model_type" in call("plan", *records.tiny("method=lora"), code=2)


@pytest.mark.parametrize("body", ["", "about: nothing yet\n", "grid: []\nzip: []\n", "# only\n"])
def test_an_empty_sweep_is_refused(body):
    path = own("sweep", "mine", body)
    told = call("plan", "sweep=mine", code=2)
    assert f"{path.resolve()}: it is empty" in told
    assert "grid:" in told


class Odd(Method):
    """A method whose code fails."""

    error = KeyError("attention")

    def insert(self, model):
        """Fail."""
        raise self.error


@pytest.mark.parametrize(
    "error", [KeyError("q"), AttributeError("no x"), AssertionError(), OSError(5, "io")]
)
def test_a_method_that_fails_in_rehearsal_is_told(error, monkeypatch):
    monkeypatch.setattr(Odd, "error", error)
    (run,) = records.runs("method=bitfit")
    with pytest.raises(ConfigError) as told:
        dry_run._insert(run, Odd(), None)
    assert f"method=bitfit on tiny: the method cannot be inserted: {type(error).__name__}" in str(
        told.value
    )


def test_memory_that_is_full_in_rehearsal_is_no_fault_of_the_method(monkeypatch):
    monkeypatch.setattr(Odd, "error", MemoryError())
    with pytest.raises(MemoryError):
        dry_run._insert(records.runs("method=bitfit")[0], Odd(), None)


@pytest.mark.parametrize("number", ["NaN", "Infinity"])
def test_a_record_with_a_number_that_is_none(number, tmp_path):
    results = ResultsFolder(tmp_path / "runs")
    for run in records.runs("method=lora", "seed=0,1"):
        results.save(records.record(run), records.predictions(40))
    key = results.keys()[0]
    path = tmp_path / "runs" / "records" / f"{key}.json"
    content = path.read_bytes().replace(b"0.75", number.encode())[: -io.SEAL_LENGTH]
    path.write_bytes(content + io.seal_of(content))  # as a program of someone else would write it
    good, bad = results.scan()
    assert len(good) == 1
    assert f"{key}.json is not whole" in bad[key]
    assert "made again" in call(
        "plan", *records.tiny("method=lora", "seed=0,1"), "--results", "runs"
    )


@pytest.mark.parametrize("name", [b"caf\xe9.csv", b"\xff\xfe-\xe4.csv"])
def test_a_file_whose_name_is_not_utf8(name, tmp_path):
    """Its record can be read again, and has its key."""
    path = os.fsdecode(name)
    rows = [f"text {n},{('a', 'b')[n % 2]}\n" for n in range(40)]
    Path(path).write_text("sentence,label\n" + "".join(rows))
    (run,) = plan(*records.tiny("task=file", f"task.path='{path}'", "method=bitfit")).runs
    spelled = name.decode("utf-8", "backslashreplace").removesuffix(".csv")
    assert run.task.name == spelled
    results = ResultsFolder(tmp_path / "runs")
    results.save(records.record(run), records.predictions(8))
    assert results.load(run.key).run == run
    told = call(
        "plan",
        *records.tiny("task=file", f"task.path='{path}'", "method=bitfit"),
        "--results",
        "runs",
    )
    assert "1 done" in told
    assert spelled in told
