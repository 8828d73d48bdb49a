"""The command: what a person types, and what comes back; no worker is started but by the last."""

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import suite_records
from checkpoints import checkpoint
from click.testing import CliRunner
from paths import GOLDEN
from records import predictions, record, runs, tiny

from peftbench.cli.group import SECTIONS
from peftbench.cli.main import main
from peftbench.cli.options import OVERRIDES
from peftbench.cli.report import report
from peftbench.config import catalog
from peftbench.config.sweep import plan
from peftbench.core.failures import Failure
from peftbench.core.run import Run
from peftbench.core.tuning import Choice, subject
from peftbench.results import choices, in_flight
from peftbench.results.store import ResultsFolder
from peftbench.system import io, terminal


@pytest.fixture(autouse=True)
def _somewhere(tmp_path, monkeypatch):
    """A folder of its own for every test: ./configs and results/runs are looked for there."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def results(tmp_path):
    return ResultsFolder(tmp_path / "results" / "runs")


def call(*words, code=0, **environment):
    """What the command prints; its exit code must be this one, and no traceback."""
    done = CliRunner().invoke(main, words, prog_name="peftbench", env=environment)
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    assert "Traceback" not in done.output
    return done.output


BOTH = "task=synthetic_paraphrase,synthetic_similarity"

SCORES = {
    ("lora", "synthetic_paraphrase"): (0.8, 0.84, 0.82),
    ("lora", "synthetic_similarity"): (0.5, 0.6, 0.7),
    ("bitfit", "synthetic_paraphrase"): (0.7, 0.71, None),
    ("bitfit", "synthetic_similarity"): (0.4, None),
}


def fill(results):
    """Eleven records: a table with a cell without one of its seeds, and collapsed runs."""
    made = []
    for run in runs("method=lora,bitfit", BOTH, "seed=0,1,2"):
        scores = SCORES[run.method.name, run.task.name]
        if run.seed < len(scores):
            score = scores[run.seed]
            trained = {"lora": 2048, "bitfit": 512}[run.method.name]
            counts = {"trained": trained, "head": 66, "total": 40000}
            gone = score is None
            if gone and run.task.kind == "classification":
                score = 0.5  # that of the constant prediction; a correlation is undefined
            one = record(run, score, collapsed=gone, parameters=counts)
            made.append(results.save(one, predictions()))
    return made


# help, lists


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_shows_a_first_command_and_every_verb(option):
    said = call(option)
    assert "peftbench run sweep=quickstart" in said
    shown = [line for line in said.splitlines() if re.match("  [a-z]+ +[A-Z]", line)]
    assert sorted(line.split()[0] for line in shown) == sorted(main.commands)
    for section in SECTIONS:
        assert f"\n{section}:\n" in said
    shown += call("report", "--help").partition("Commands:\n")[2].splitlines()
    assert all(line.endswith(".") and "..." not in line for line in shown)  # none is cut


def examples(one, title="peftbench"):
    """The command lines that the help of a command and of those below it shows."""
    text = f"{one.help}\n{one.epilog}"
    found = re.findall(r"^ *(peftbench .*(?:\n {8,}\S.*)*)$", text, re.MULTILINE)
    for name, inner in getattr(one, "commands", {}).items():
        found += examples(inner, f"{title} {name}")
    return found


def test_examples_in_help_are_commands_that_a_shell_accepts():
    found = examples(main)
    assert len(found) > 10
    for line in found:
        assert not re.search(r"[^\\]\n", line), f"pasted, this is two commands: {line}"
        done = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        command, *_ = shlex.split(line)[1:]
        assert command in main.commands


HELPS = [[], *([name] for name in main.commands), *(["report", n] for n in report.commands)]


@pytest.mark.parametrize("words", HELPS, ids="-".join)
def test_help_fits_80_columns(words):
    lines = call(*words, "--help", COLUMNS="80").splitlines()
    assert max(map(len, lines)) <= 80


def test_a_terminal_of_80_columns_breaks_lines_between_words(monkeypatch):
    monkeypatch.setattr(terminal, "columns", lambda: 80)
    lines = call("list").splitlines()
    assert max(map(len, lines)) <= 80
    (at,) = [n for n, line in enumerate(lines) if line.startswith("  method=lora ")]
    assert lines[at].endswith("query and value (Hu et al.")
    assert lines[at + 1] == " " * 25 + "2022)"


@pytest.mark.parametrize(
    ("verb", "example"),
    [
        ("run", "sweep=quickstart"),
        ("tune", "method=lora,bitfit task=mrpc size=1000"),  # the sweep names its rates
        ("submit", "sweep=quickstart cluster=local"),
        ("prefetch", "sweep=quickstart"),
    ],
)
def test_work_without_overrides_is_explained_and_not_started(verb, example):
    said = call(verb, code=2)
    assert f"\n  peftbench {verb} {example}\n" in said
    assert not Path("results").exists()


@pytest.mark.parametrize("verb", ["plan", "run"])
def test_the_help_of_a_verb_teaches_the_words(verb):
    said = call(verb, "--help")
    for word in (
        "method=lora,bitfit",
        "size=100,30%",
        "seed=0-4",
        "sweep=quickstart",
        "zip='size=100,1000 budget.epochs=10,3'",
        "when='method=lora: train.lr=1e-4,1e-3'",
        "exclude='method=full size=100'",
        "--results",
        "--configs",
    ):
        assert word in said


def test_the_words_that_help_teaches_are_words():
    examples = [line.split("  ")[1] for line in OVERRIDES.splitlines() if line.startswith("  ")]
    assert len(examples) == 12
    examples.remove("tuned=true")  # there is no choice in an empty folder
    assert "`peftbench tune` with the same overrides" in call("plan", "tuned=true", code=2)
    for example in examples:
        assert "distinct run" in call("plan", *shlex.split(example))


@pytest.mark.parametrize(
    "verb", ["show", "tune", "export", "predict", "list", "report", "completion"]
)
def test_every_verb_says_what_it_does(verb):
    said = call(verb, "--help")
    assert said.startswith(f"Usage: peftbench {verb}")
    assert len(said.splitlines()[2].strip()) > 20


def test_list_names_everything_with_its_purpose():
    said = call("list")
    searched = (catalog.packaged(),)
    for group in ("method", "task", "model", "budget", "checkpoint_selection", "sweep"):
        for name, path in catalog.options(group, searched).items():
            (line,) = (x for x in said.splitlines() if x.split()[:1] == [f"{group}={name}"])
            assert catalog.about(path) in line
    assert call("list", "methods") == call("list", "method")
    assert "task=" not in call("list", "methods")
    assert "did you mean methods" in call("list", "metods", code=2)


def test_list_takes_every_name_that_it_prints():
    """Metrics and reports have no files, and names of options stand behind their group."""
    said = call("list", "accuracy")
    assert said.splitlines()[0] == "metrics"
    assert said.splitlines()[1].startswith("  accuracy  ")
    (found,) = json.loads(call("list", "scores", "--json"))["reports"].items()
    assert found[0] == "scores"
    assert call("list", "method=lora") == call("list", "lora")
    assert call("list", "sweep=quickstart").startswith("sweep=quickstart  (")
    said = call("list", "method=lorra", code=2)
    assert "list method=lorra: no such group or option; did you mean method=lora or " in said


def test_list_peft_is_of_tuners_and_list_method_peft_of_keys():
    told = json.loads(call("list", "peft", "--json"))
    assert list(told) == ["versions", "tuners"]
    assert told["tuners"]["LORA"]["bert"] == ""
    (found,) = json.loads(call("list", "method=peft", "--json"))
    assert found == "method=peft"
    assert "change a key with method.KEY=VALUE" in call("list", "method=peft")


def test_words_of_a_submission_are_answered_with_the_command_for_them():
    for verb in ("plan", "run", "tune"):
        said = call(verb, "sweep=quickstart", "cluster=slurm", code=2)
        assert "cluster=slurm: cluster= is for `peftbench submit`, `prefetch` and" in said
    words = ("prefetch", *tiny(), "cluster=slurm")
    said = call(*words, "cluster.prefetched=/shared/f", code=2)
    assert "cluster.prefetched=/shared/f is where jobs look; fill it with --to /shared/f" in said
    assert "did you mean slurm?" in call(*words[:-1], "cluster=slrum", code=2)


def test_list_shows_a_users_own_options():
    Path("configs/method").mkdir(parents=True)
    Path("configs/method/mine.yaml").write_text("# An idea of mine\nname: mine\n")
    assert "method=mine" in call("list", "methods")
    assert "An idea of mine" in call("list", "methods")
    assert "method=lora" in call("list", "methods")
    Path("other").mkdir()
    assert "method=mine" not in call("list", "methods", "--configs", "other")


# plan


def test_plan_counts_what_is_done_missing_and_failed(results):
    made = fill(results)
    (failed,) = runs("method=full", "task=synthetic_paraphrase", "seed=3")
    results.fail(Failure(failed, "diverged", "the loss is nan at step 7"))
    words = tiny("method=lora,bitfit,full", BOTH, "seed=range(0,5)")
    said = call("plan", *words)
    rows = {tuple(line.split()[:2]): line.split()[2:] for line in said.splitlines()}
    assert rows["lora", "synthetic_paraphrase"] == ["32", "0.0004", "0-4", "3", "2", "8", "s"]
    assert rows["bitfit", "synthetic_similarity"] == ["32", "0.001", "0-4", "2", "3", "12", "s"]
    assert rows["full", "synthetic_paraphrase"] == ["32", "2e-05", "0-4", "4", "1", "20", "s"]
    assert "30 distinct runs: 11 done, 19 missing, 1 of them failed before" in said
    assert "failed (diverged) full" in said
    assert "the loss is nan at step 7" in said
    assert "about 76 s of work" in said
    planned = json.loads(call("plan", *words, "--json"))
    states = [run["state"] for run in planned["runs"]]
    assert {state: states.count(state) for state in states} == {
        "done": 11,
        "missing": 18,
        "failed": 1,
    }
    found = next(run for run in planned["runs"] if run["state"] == "failed")
    assert found["failure"] == {"kind": "diverged", "reason": "the loss is nan at step 7"}
    assert found["seconds"] == 4.0
    for run in planned["runs"]:
        assert Run.from_json(run["run"]).key == run["key"]
    assert {run["key"] for run in planned["runs"] if run["state"] == "done"} == {
        one.run.key for one in made
    }


def test_plan_tells_programs_why_an_evaluation_failed(results):
    (evaluation, other) = suite_records.planned("suite=noise", "method=lora", "seed=0,1")
    results.save(record(evaluation.run), predictions())
    results.fail(Failure(evaluation, "memory", "out of memory"))
    planned = json.loads(call("plan", *tiny("suite=noise", "method=lora", "seed=0,1"), "--json"))
    told = {one["key"]: (one["state"], one["failure"]) for one in planned["evaluations"]}
    assert told == {
        evaluation.key: ("failed", {"kind": "memory", "reason": "out of memory"}),
        other.key: ("missing", None),
    }


def test_plan_reports_cells_that_are_one_run():
    words = tiny("size=0.5,1500", "task=synthetic_paraphrase", "seed=0,1")
    said = call("plan", *words)
    assert "4 grid points are 2 distinct runs" in said
    assert "duplicates model=tiny" in said
    planned = json.loads(call("plan", *words, "--json"))
    assert (planned["cells"], len(planned["runs"]), len(planned["repeats"])) == (4, 2, 2)
    assert "size=0.5" in planned["repeats"][0]["same_as"]


def test_plan_shows_axes_and_estimates_time_without_records(monkeypatch):
    monkeypatch.setattr("peftbench.results.runtime_estimates.cores", lambda: 2)
    monkeypatch.setattr("peftbench.results.runtime_estimates.bf16_on_cpu", lambda: True)
    said = call("plan", "train.lr=1e-4,1e-3", "method.rank=4,8")
    head = next(line for line in said.splitlines() if "seeds" in line)
    assert head.split() == ["method", "task", "size", "lr", "rank", "seeds", "time"]
    assert "4 runs of minilm" in said
    noisy = call("plan", "augmentation=none,noise", "method=lora", "prompt=head,demonstrations")
    assert {tuple(line.split()[3:5]) for line in noisy.splitlines() if " lora " in line} == {
        (augmentation, prompt)
        for augmentation in ("none", "noise")
        for prompt in ("head", "demonstrations")
    }
    lines = call("plan", "sweep=quickstart").partition("28 runs of minilm")[2].splitlines()[2:15]
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["method", "task", "size", "epochs", "lr", "seeds", "time"]
    rates = {(line.split()[0], line.split()[4]) for line in lines[2:-1]}
    assert {("lora", "0.0076"), ("lora", "0.0038"), ("bitfit", "0.0024")} <= rates
    assert "1 run of minilm, train.lr=0.0005\n" in call("plan", "method=lora", "lr=5e-4")
    assert "from shipped step times, as there is no record yet" in said
    assert not Path("results").exists()
    # it takes about 2 minutes on two cores
    assert re.search("roughly (1.[6-9]|2.[0-9]) min", call("plan", "sweep=quickstart"))
    words = ["task=mrpc", "size=1000", "budget=epochs", "budget.epochs=9", "method=full"]
    small, base = (call("plan", f"model={m}", *words) for m in ("minilm", "bert_base"))
    minutes = [float(re.search(r"roughly ([\d.]+) min", one)[1]) for one in (small, base)]
    assert minutes[1] / minutes[0] == pytest.approx(8, rel=0.1)  # 12 blocks of twice the width
    said = call("plan", "model=auto", "model.checkpoint=a/b", "model.family=bert", *words)
    assert "no time estimate: sizes of the model" in said


def test_plan_names_a_damaged_record(results):
    key = fill(results)[0].run.key
    path = results.folder / "records" / f"{key}.json"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    words = tiny("method=lora,bitfit", BOTH, "seed=0,1,2")
    said = call("plan", *words)
    assert f"{key}.json was altered" in said
    assert "10 done, 2 missing" in said


# show


def test_show_takes_the_first_digits_of_a_key(results):
    made = fill(results)
    for one in made:
        said = call("show", one.run.key)
        assert one.run.title in said
        assert one.run.key in said
        for name, value in one.metrics.items():
            shown = "undefined" if value is None else f"{100 * value:.2f}"
            assert f"{name} {shown}" in said
        assert ("COLLAPSED" in said) == one.collapsed
    assert call("show", made[0].run.key[:8]) == call("show", made[0].run.key)


def test_show_prints_the_command_that_repeats_the_run(results):
    words = tiny("method=sparse_adapter", "method.base_method=lora", "method.base_method.rank=2")
    words += ["budget=steps", "budget.steps=7", "size=0.5", "seed=3", "seed.order=1"]
    words += ["train.lr=0.002", "checkpoint_selection=best_on_holdout", "augmentation=noise"]
    words += ["task=synthetic_paraphrase", "augmentation.probability=0.25"]
    (run,) = runs(*[word for word in words if word not in tiny()])
    results.save(record(run), predictions())
    (line,) = [one for one in call("show", run.key).splitlines() if one.startswith("repeat")]
    again = shlex.split(line.removeprefix("repeat"))
    assert again[:2] == ["peftbench", "run"]
    (planned,) = json.loads(call("plan", *again[2:], "--json"))["runs"]
    assert planned["key"] == run.key
    assert planned["state"] == "done"


@pytest.mark.parametrize("name", ["legal-bert", "minilm"])
def test_show_repeats_a_run_of_a_users_own_checkpoint(results, name):
    """Also where its folder is called like a model of peftbench, which has other weights."""
    folder = checkpoint(Path("checkpoints") / name)
    words = [word for word in tiny("method=bitfit") if word != "model=tiny"]
    given = ["model=auto", f"model.checkpoint={folder}", "model.dtype=bf16"]
    (run,) = plan(*words, *given).runs
    results.save(record(run), predictions())
    (line,) = [one for one in call("show", run.key).splitlines() if one.startswith("repeat")]
    (planned,) = json.loads(call("plan", *shlex.split(line)[3:], "--json"))["runs"]
    assert planned["key"] == run.key
    (folder / "model.safetensors").unlink()
    checkpoint(folder, hidden_size=16)
    (line,) = [one for one in call("show", run.key).splitlines() if one.startswith("repeat")]
    assert line.split(None, 1)[1].startswith("none: ")
    assert "another checkpoint now" in line
    folder.rename("moved")
    assert "no such folder" in call("show", run.key)


@pytest.mark.parametrize("name", ["jokes", "mrpc"])
def test_show_says_that_task_hub_is_not_repeated(results, name):
    (run,) = plan(*tiny("method=bitfit", "task=mrpc")).runs
    task = replace(run.task, name=name, source=run.task.source | {"hub": f"people/{name}"})
    run = replace(run, task=task)
    results.save(record(run), predictions())
    (line,) = [one for one in call("show", run.key).splitlines() if one.startswith("repeat")]
    assert line.split(None, 1)[1] == (
        f"none: its data set people/{name} was given by task=hub, which is not repeated"
    )


def test_show_repeats_a_run_of_a_users_own_file(results):
    rows = (f"text {n},{('no', 'yes')[n % 2]}\n" for n in range(60))
    Path("small.csv").write_text("text,label\n" + "".join(rows))
    words = tiny("method=bitfit", "task=file", "task.path=small.csv", "task.texts=[text]")
    (run,) = plan(*words, "train.lr=0.002").runs
    results.save(record(run), predictions())
    lines = call("show", run.key).splitlines()
    (line,) = [one for one in lines if one.startswith("repeat")]
    (planned,) = json.loads(call("plan", *shlex.split(line)[3:], "--json"))["runs"]
    assert planned["key"] == run.key
    Path("small.csv").rename("moved.csv")
    said = call("show", run.key)
    (line,) = [one for one in said.splitlines() if one.startswith("repeat")]
    again = line.replace("task.path=FILE", "task.path=moved.csv")
    (planned,) = json.loads(call("plan", *shlex.split(again)[3:], "--json"))["runs"]
    assert planned["key"] == run.key
    assert (
        f"must be the file with these rows (SHA-256 {run.task.source['file']['train'][:12]})"
        in (said)
    )


def test_reading_verbs_print_json(results):
    made = fill(results)[0]
    assert json.loads(call("show", made.run.key, "--json"))["metrics"] == made.metrics
    listed = json.loads(call("list", "methods", "--json"))
    assert listed["methods"]["method=bitfit"] == catalog.about(
        catalog.packaged() / "method/bitfit.yaml"
    )
    assert sorted(listed["methods"]) == [f"method={name}" for name in METHODS]


def test_reports_print_json(results):
    made = fill(results)
    told = json.loads(call("report", "--json"))
    assert list(told) == ["folder", "answer", "scores", "comparisons", "notes"]
    (cell,) = [
        one for one in told["scores"] if one["method"] == "lora" and one["metric"] == "accuracy"
    ]
    assert (cell["seeds"], cell["mean"]) == (3, pytest.approx(0.82))
    assert {pair["row"] for pair in told["comparisons"]} == {"bitfit"}
    assert {pair["against"] for pair in told["comparisons"]} == {"lora"}
    assert not results.reports().exists()
    cells = json.loads(call("report", "table", "--json"))
    assert cells == json.loads(call("report", "table", "--format", "json"))
    assert [one["mean"] for one in cells if one["method"] == "lora"] == [
        pytest.approx(0.82),
        pytest.approx(0.6),
    ]
    for words in (["claims"], ["errors"]):
        shown = json.loads(call("report", *words, "--json"))
        assert shown["tables"][0]["columns"]
        assert len(shown["tables"][0]["rows"][0]) == len(shown["tables"][0]["columns"])
    assert isinstance(json.loads(call("report", "claims", "--plan", "--json")), list)
    chosen = Choice(subject(made[0].run), 7e-4, "accuracy", "a test", [], None)
    choices.save(results, chosen)
    (told,) = json.loads(call("report", "tuning", "--json"))
    assert told["rate"] == 7e-4


def test_a_run_prints_what_it_found_as_json(results):
    """Nothing is left to do here, so that it trains nothing."""
    fill(results)
    words = tiny("method=lora", "task=synthetic_paraphrase", "seed=0,1,2")
    done = CliRunner().invoke(main, ["run", *words, "--json"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)  # notes are on standard error
    assert list(told) == ["answer", "tables", "notes"]
    scores = next(table for table in told["tables"] if "method" in table["columns"])
    assert ["lora", "82.0 ± 2.0 (3)"] in [row[:2] for row in scores["rows"]]


def test_a_dry_run_with_nothing_left_writes_no_report(results):
    fill(results)
    words = tiny("method=lora", "task=synthetic_paraphrase", "seed=0,1,2")
    done = CliRunner().invoke(main, ["run", *words, "--dry-run", "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"runs": 0, "evaluations": 0}
    assert done.stderr.splitlines()[-1] == "nothing is left to do"
    assert not results.reports().exists()
    (failed,) = runs("method=lora", "task=synthetic_paraphrase", "seed=3")
    results.fail(Failure(failed, "diverged", "the loss is nan at step 7"))
    done = CliRunner().invoke(main, ["run", *words[:-1], "seed=3", "--dry-run"])
    assert done.exit_code == 0, done.output
    told = "nothing is left to do; not tried again (see --retry): 1 failure"
    assert done.stderr.splitlines()[-1] == told


def test_conditions_select_runs_of_plans_records_and_reports(results):
    made = fill(results)
    words = tiny("method=lora,bitfit,full", BOTH, "seed=range(0,5)")
    said = call("plan", *words, "--where", "method!=full seed<3 task=synthetic_paraphrase")
    assert "6 distinct runs: 6 done, 0 missing" in said
    planned = json.loads(call("plan", *words, "--where", "method=full", "--json"))
    assert {run["run"]["method"]["name"] for run in planned["runs"]} == {"full"}
    assert "leaves no run; did you mean lora" in call(
        "run", *words, "--where", "method=lorra", code=2
    )
    said = call("show", "--where", "method=lora")
    assert said.splitlines()[0] == "6 records; `peftbench show KEY` shows one:"
    assert f"{made[0].run.key}  {made[0].run.title}  accuracy 80.00" in said
    one = ("--where", "method=lora task=synthetic_paraphrase seed=0")
    assert call("show", *one) == call("show", made[0].run.key)
    (shown,) = json.loads(call("show", *one, "--json"))
    assert shown == made[0].to_json()
    said = call("report", "--where", "method=lora")
    assert "lora" in said
    assert "bitfit" not in said
    assert not results.reports().exists()
    told = json.loads(call("report", "--json", "--where", "method=lora seed<2"))
    assert {(cell["method"], cell["seeds"]) for cell in told["scores"]} == {("lora", 2)}
    assert "leave out --where" in call("report", "--check", "--where", "seed=0", code=2)
    for words in (
        ("report", "table", "--where", "method=lora", "--format", "csv"),
        ("report", "errors", "--where", "method=lora"),
        ("report", "claims", "--where", "method=lora", "paper=doering2024"),
    ):
        assert "bitfit," not in call(*words)
        assert "leaves no run" in call(*words[:2], "--where", "seed=9", *words[4:], code=2)
    call("report", "html", "-o", "page.html", "--where", "method=lora")
    page = Path("page.html").read_text()
    assert made[0].run.key in page
    assert not [one for one in made if one.run.method.name == "bitfit" and one.run.key in page]


def test_a_misspelt_command_is_told_its_name():
    assert "did you mean report" in call("rport", code=2)
    assert call("help") == call("--help")
    assert call("help", "plan") == call("plan", "--help")
    assert call("version") == call("--version")


def test_list_shows_keys_defaults_and_source_of_an_option():
    said = call("list", "LoRA")
    assert "rank: 8" in said
    assert "Hu et al. 2022" in said
    assert "change a key with method.KEY=VALUE" in said
    (found,) = json.loads(call("list", "LoRA", "--json")).values()
    assert found["keys"]["rank"] == 8
    assert found["path"].endswith("configs/method/lora.yaml")
    assert call("list", "mam") == call("list", "combined")


def test_show_refuses_what_names_no_record_or_several(results):
    keys = [one.run.key for one in fill(results)]
    assert "no record in results/runs begins with zzz" in call("show", "zzz", code=2)
    assert "no record" in call("show", "../../etc/passwd", code=2)
    assert "11 keys begin with" in call("show", "", code=2)
    digit = max("0123456789abcdef", key=lambda d: sum(key.startswith(d) for key in keys))
    if sum(key.startswith(digit) for key in keys) > 1:
        assert f"keys begin with {digit}" in call("show", digit, code=2)
    assert "--results nowhere does not exist" in call(
        "show", keys[0], "--results", "nowhere", code=2
    )


def test_show_refuses_a_damaged_record(results):
    key = fill(results)[0].run.key
    path = results.folder / "records" / f"{key}.json"
    path.write_bytes(path.read_bytes()[:300])
    assert "is not whole" in call("show", key, code=2)


def test_status_shows_what_runs_on_this_machine(results):
    assert "--results results/runs does not exist" in call("status", code=2)
    results.folder.mkdir(parents=True)
    assert "no command runs on this machine, and no jobs were submitted" in call("status")
    assert json.loads(call("status", "--json"))["running"] == []
    job = {"title": "lora · mrpc", "fraction": 0.25, "step": 7, "loss": 0.5}
    in_flight.write(results, "peftbench run sweep=mine", 1, 3, 120.0, [job])
    said = call("status")
    assert "1 of 3 done, about 2.0 min left: peftbench run sweep=mine" in said
    assert " 25 % lora · mrpc, step 7, loss 0.500" in said
    in_flight.write(results.trials(), "peftbench tune method=lora", 2, 6, None, [])
    assert "2 of 6 done: peftbench tune method=lora" in call("status")
    in_flight.remove(results.trials())
    assert json.loads(call("status", "--json"))["running"][0]["jobs"] == [job]


def test_rm_lists_files_and_removes_them_when_told(results):
    first, second, *_ = (one.run.key for one in fill(results))
    said = call("rm", first[:8])
    assert f"records/{first}.json" in said
    assert f"predictions/{first}.npz" in said
    assert "nothing was removed" in said
    assert results.has(first)
    call("rm", first[:8], "--yes")
    assert results.files_of(first) == []
    assert results.has(second)
    assert "begins with zzz" in call("rm", second, "zzz", "--yes", code=2)
    assert results.has(second)


def test_rm_and_merge_work_on_a_file_system_without_locks(results, tmp_path, monkeypatch):
    first, *_ = (one.run.key for one in fill(results))

    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.lockf", refuse)
    assert "has no locks" in call("merge", "-o", str(tmp_path / "all"), str(results.folder))
    assert "has no locks" in call("rm", first, "--yes")
    assert results.files_of(first) == []


def test_rm_leaves_a_run_of_which_an_evaluation_is_in_progress(results, monkeypatch):
    (evaluation,) = suite_records.planned("suite=noise", "method=lora")
    results.save(record(evaluation.run), predictions())
    results.save_evaluated(suite_records.noisy(evaluation, 0.75), predictions())
    files = results.files_of(evaluation.run.key)
    with monkeypatch.context() as patch:
        patch.setattr(ResultsFolder, "claim", lambda self, key: key != evaluation.key)
        said = call("rm", evaluation.run.key, "--yes", code=1)
    assert f"left: {evaluation.key} is in progress" in said
    assert results.files_of(evaluation.run.key) == files
    call("rm", evaluation.run.key, "--yes")
    assert (results.keys(), results.evaluations()) == ([], [])


def test_rm_removes_what_a_run_has_written_until_it_was_claimed(results, monkeypatch):
    (run,) = runs("method=lora")
    results.fail(Failure(run, "killed", "by the test"))
    claim = ResultsFolder.claim

    def late(self, key):
        if not self.has(key):  # its process ends just now
            self.save(record(run), predictions())
        return claim(self, key)

    monkeypatch.setattr(ResultsFolder, "claim", late)
    assert f"records/{run.key}.json" in call("rm", run.key, "--yes")
    assert results.files_of(run.key) == []


# a choice that cannot be read


def test_reports_leave_out_a_torn_choice_and_say_what_makes_it_again(results):
    made = fill(results)
    path = torn_choice(results, made[0].run)
    advice = f"{path} is not whole"
    again = "remove it, and `peftbench tune` makes it again from the trials in"
    for verb in (("report", "table", "rows=method", "columns=task"), ("report",), TESTED):
        said = " ".join(call(*verb).split())
        assert f"left out, unreadable: {advice}" in said, verb
        assert again in said, verb
    said = " ".join(call("report", "tuning", code=2).split())
    assert advice in said
    assert "holds no chosen learning rates" in said


def test_work_at_a_torn_choice_is_refused_with_what_to_do(results):
    path = torn_choice(results, runs("method=lora")[0])
    for verb in (("plan", "tuned=true"), ("tune",)):
        said = " ".join(call(*verb, *tiny("method=lora"), code=2).split())
        assert f"{path} is not whole" in said, verb
        assert "remove it, and `peftbench tune` makes it again" in said, verb


TESTED = ("report", "claims", "paper=unipelt2022")


def torn_choice(results, run):
    """The file of a choice for a run, of which half came."""
    choices.save(results, Choice(subject(run), 1e-3, run.task.metric, "a test", [], None))
    (path,) = results.choices().iterdir()
    path.write_bytes(path.read_bytes()[:200])
    return path.relative_to(Path.cwd())


# bad input

BAD_WORDS = {
    ("methd=lora",): "did you mean method?",
    ("method=lorra",): "did you mean lora or adalora?",
    ("method.rnak=4",): "did you mean method.rank",
    ("lora",): "cannot read the override 'lora': write method=lora",
    ("size=0",): "a fraction between 0 and 1, or full, got 0",
    ("train.lr=fast",): "train.lr must be a number, got 'fast'",
    ("seed=0", "seed=1"): "seed is given twice",
    ("sweep=nothing",): "unknown sweep",
    ("task=file",): "needs task.path=FILE",
    ("task=file", "task.path=nowhere.csv"): "task.path=nowhere.csv: no such file",
    ("task=file", "task.path=."): "task.path=.: is a folder; give a file in it",
    ("method=lora", "--configs", "nowhere"): "--configs nowhere: no such folder",
}


@pytest.mark.parametrize("verb", ["plan", "run"])
@pytest.mark.parametrize("words", BAD_WORDS, ids=" ".join)
def test_bad_words_are_refused_before_anything_starts(verb, words):
    said = call(verb, *words, code=2)
    assert BAD_WORDS[words] in said
    assert said.startswith("peftbench: ")
    assert not Path("results").exists()


BAD_OPTIONS = {
    ("--wrkers", "2"): "No such option",
    ("--workers", "0"): "--workers",
    ("--workers", "many"): "--workers",
    ("--device", "gpu"): "--device gpu: choose auto, cpu, cuda or cuda:i; here is",
    ("--device", "cuda:99"): "--device cuda:99: choose",
    ("--retry", "killed,eror"): "'eror' is no class; there are all, none, diverged",
    ("--keep", "everything"): "--keep",
    ("--checkpoint-minutes", "0"): "--checkpoint-minutes",
    ("--results", "file"): "file",
    ("--results", "file/runs"): "cannot write to the results folder file/runs",
}


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=" ".join)
def test_bad_options_are_refused_before_anything_starts(options):
    Path("file").write_text("")
    assert BAD_OPTIONS[options] in call("run", *tiny(), *options, code=2)
    assert not Path("results").exists()


@pytest.mark.parametrize("words", [["verb"], ["show"], ["completion", "tcsh"], ["list", "a", "b"]])
def test_a_command_that_cannot_be_meant_says_how_it_is_used(words):
    assert "Usage: peftbench" in call(*words, code=2)


# report


def test_a_report_is_the_same_to_the_byte(results):
    fill(results)
    call("report")
    for name in ("scores.md", "metrics.md", "costs.md", "scores.csv"):
        golden = GOLDEN / "report" / name
        made = (results.reports() / name).read_bytes()
        if "GOLDEN" in os.environ:
            golden.parent.mkdir(parents=True, exist_ok=True)
            golden.write_bytes(made)
        assert made.decode() == golden.read_text()


def test_a_report_prints_the_answer_the_scores_and_the_files(results):
    for run in runs("method=full,lora,bitfit", "seed=0,1,2"):
        good = {"full": 0.8, "lora": 0.9, "bitfit": 0.6}[run.method.name]
        label = np.arange(40) % 2
        guess = np.where(np.arange(40) < 40 * good, label, 1 - label)
        made = predictions() | {"label": label, "scores": np.eye(2)[guess]}
        made["item"] = np.arange(40)
        results.save(record(run, good + 0.01 * run.seed), made)
    said = call("report", "--against", "bitfit")
    lines = said.splitlines()
    assert lines[0] == (
        "Significantly better than BitFit: Full fine-tuning (Synthetic paraphrase) and LoRA "
        "(Synthetic paraphrase); undecided: 0 of 2 comparisons."
    )
    assert len(lines) < 30
    assert said.count("method") == 1 + said.count("methods")  # one table
    assert "scores.md" in said
    assert "report html --results results/runs --open" in said


def test_settings_that_differ_within_a_cell_make_rows(results):
    for run in runs("method=lora", "train.lr=1e-4,1e-3", "seed=0,1"):
        results.save(record(run, 0.5 + 100 * run.train.lr), predictions())
    lines = call("report").splitlines()
    header = next(line for line in lines if line.split()[:2] == ["method", "train.lr"])
    assert "accuracy" in header
    assert ["lora", "0.0001", "51.0", "±", "0.0", "(2)"] in [line.split() for line in lines]
    assert ["lora", "0.001", "60.0", "±", "0.0", "(2)"] in [line.split() for line in lines]


def test_a_report_leaves_out_damaged_records_and_says_so(results):
    key = fill(results)[0].run.key
    path = results.folder / "records" / f"{key}.json"
    path.write_text(path.read_text().replace("0.8", "0.9"))
    said = call("report")
    assert "left out, unreadable" in said
    assert f"{key}.json was altered" in said


def test_report_check_holds_the_files_to_the_records(results):
    made = fill(results)
    assert "is not what the records give" in call("report", "--check", code=1)
    call("report")
    call("report", "--check")
    table = results.reports() / "scores.md"
    written = table.read_text()
    table.write_text(written.replace("82.0", "92.0"))
    assert "scores.md is not what the records give" in call("report", "--check", code=1)
    table.write_text(written)
    (results.folder / "records" / f"{made[0].run.key}.json").unlink()
    assert "scores.md" in call("report", "--check", code=1)


def test_a_report_of_nothing_is_bad_input():
    Path("results/runs").mkdir(parents=True)
    assert "holds no records" in call("report", code=2)
    assert "holds no records" in call("report", "--check", code=2)


@pytest.mark.parametrize(
    "words",
    [
        *(["report"], ["report", "--check"], ["report", "--json"], ["report", "html"]),
        *(["report", "table"], ["report", "plots", "-o", "figures"], ["show", "--where", "seed=0"]),
        *(["report", name] for name in ("claims", "errors", "variance")),
        *(["export", "records", "-o", "x.csv"], ["advise", "task=mrpc"]),
    ],
    ids=" ".join,
)
def test_records_that_cannot_be_read_are_not_said_to_be_missing(results, words):
    """Of another schema: what helps is their migration, not training them again."""
    for run in runs("method=lora", "seed=0,1"):
        saved = results.save(record(run), predictions())
        path = results.folder / "records" / f"{saved.run.key}.json"
        path.write_bytes(io.sealed(saved.to_json() | {"schema": 1}))
    said = call(*words, code=2)
    assert said.startswith("peftbench: results/runs holds no readable record: "), said
    assert "`python scripts/migrate_records.py FOLDER`" in said
    assert said.endswith(" (and 1 more)\n")
    assert "peftbench run" not in said


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["variance", "--json", "--check", "-o", "x.md"], "leave out -o and --check"),
        (["variance", "--json", "-o", "x.md"], "leave out -o and --check"),
        (["tuning", "--json", "-o", "figures"], "leave out -o"),
        (["--json", "--all"], "--all prints every table; leave it out with --json and --check"),
        (["--check", "--all"], "--all prints every table; leave it out with --json and --check"),
    ],
    ids=" ".join,
)
def test_options_that_would_do_nothing_are_refused(results, words, told):
    fill(results)
    assert told in call("report", *words, code=2)


READERS = [
    *(["show", "abc"], ["show", "--where", "seed=0"], ["rm", "abc"], ["gc"], ["status"]),
    *(["collect"], ["cancel"], ["export", "abc", "out"], ["export", "records", "-o", "x.csv"]),
    *(["predict", "abc", "x.csv", "-o", "y.csv"], ["advise", "task=mrpc"], ["report"]),
    *(["report", "html"], ["report", "table"], ["report", "plots", "-o", "figures"]),
    *(["report", name] for name in ("claims", "errors", "tuning", "variance")),
]


@pytest.mark.parametrize("words", READERS, ids=" ".join)
def test_a_missing_results_folder_is_refused_by_all_that_read_one(words):
    said = call(*words, "--results", "nowhere", code=2)
    assert said == (
        "peftbench: --results nowhere does not exist; name the folder of a `run` or `submit`\n"
    )


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (["plan", "--method", "lora"], "No such option '--method'; write method=lora"),
        (["plan", "--train.lr=1e-3"], "write train.lr=1e-3"),
        (["run", "-results", "foo"], "No such option '-r'; write --results"),
        (["--results", "foo", "plan"], "behind the command: peftbench plan … --results"),
        (["--method", "lora", "run"], "behind the command: peftbench run … method=lora"),
    ],
)
def test_an_option_in_the_wrong_place_is_answered_with_what_to_write(words, instead):
    assert instead in " ".join(call(*words, code=2).split())


def test_a_plan_refuses_a_folder_of_data_that_is_not_there():
    said = call("plan", "task=mrpc", "data.root=/nowhere", code=2)
    assert "data.root=/nowhere: /nowhere is not a folder" in said
    call("plan", "task=synthetic_paraphrase", "data.root=/nowhere")  # which reads none


def test_an_unknown_group_is_answered_with_the_groups():
    assert "no such group or option; groups: methods, tasks, models" in call("list", "foo", code=2)
    assert "did you mean methods?" in call("list", "metod", code=2)


@pytest.mark.parametrize("verb", ["run", "tune"])
def test_a_dry_run_that_is_stopped_has_kept_nothing(verb, monkeypatch):
    monkeypatch.setattr("peftbench.runner.sweep.execute", lambda *given: True)
    said = call(verb, *tiny(), "--dry-run", code=130)
    assert said.splitlines()[-1].startswith("stopped; nothing was trained; check again with: ")


# completion


def complete(shell, line):
    """What a shell offers for a line whose last word is being typed; bash breaks words at `=`."""
    words = line.replace("=", " = ") if shell == "bash" else line
    parts = words.split(" ")
    typed = parts[-1] if shell == "fish" else str(len([p for p in parts if p]) - bool(parts[-1]))
    environment = {"COMP_WORDS": words, "COMP_CWORD": typed}
    said = call(**environment, _PEFTBENCH_COMPLETE=f"{shell}_complete")
    lines = [line for line in said.splitlines() if line]
    if shell == "zsh":  # type, value, help
        return lines[1::3]
    return [line.partition(",")[2].partition("\t")[0] for line in lines]


METHODS = sorted(catalog.options("method", (catalog.packaged(),)))


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_words_are_completed(shell):
    def whole(*values):  # zsh and fish replace the whole word, bash what follows the `=`
        return [value.partition("=")[2] if shell == "bash" else value for value in values]

    assert complete(shell, "peftbench pl") == ["plan"]
    assert complete(shell, "peftbench run method=bi") == whole("method=bitfit")
    assert complete(shell, "peftbench run method=lora,bi") == whole("method=lora,bitfit")
    assert complete(shell, "peftbench run seed=1 task=mrp") == whole("task=mrpc")
    assert complete(shell, "peftbench plan sweep=quick") == whole("sweep=quickstart")
    assert complete(shell, "peftbench run method=") == whole(*(f"method={m}" for m in METHODS))
    assert complete(shell, "peftbench run me") == [f"method={name}" for name in METHODS]
    assert complete(shell, "peftbench run s") == ["suite=", "sweep=", "size=", "seed="]
    assert complete(shell, "peftbench run method=nothing") == []
    assert complete(shell, "peftbench run train.b") == ["train.batch_size="]
    assert complete(shell, "peftbench run method.ran") == ["method.rank=", "method.rank_scaling="]
    assert complete(shell, "peftbench run budget.st") == ["budget.steps="]
    assert complete(shell, "peftbench list me") == ["methods", "metrics"]
    assert "--retry" in complete(shell, "peftbench run --re")


def test_completion_knows_a_users_own_options():
    Path("mine/method").mkdir(parents=True)
    Path("mine/method/bigger.yaml").write_text("# A bigger one\nname: bigger\n")
    line = "peftbench run --configs mine method=bi"
    assert complete("zsh", line) == ["method=bigger", "method=bitfit"]
    assert complete("zsh", line.replace("mine", "nowhere")) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_line_that_switches_completion_on(shell):
    assert f"_PEFTBENCH_COMPLETE={shell}_source peftbench" in call("completion", shell)


BASH = """
eval "$(peftbench completion bash)"
offer() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _peftbench_completion peftbench
          echo "${COMPREPLY[*]}"; }
offer peftbench run method = lora,bi
offer peftbench run me
offer peftbench run sweep = quick
"""


def test_bash_itself_completes():
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    try:
        done = subprocess.run(
            ["bash", "-c", BASH], env=os.environ | {"PATH": path}, capture_output=True, text=True
        )
    except FileNotFoundError:
        pytest.skip("there is no bash here")
    if "Bash version" in done.stderr:
        pytest.skip("completion needs bash 4.4")
    every = " ".join(f"method={name}" for name in METHODS)
    assert done.stdout.splitlines() == ["lora,bitfit", every, "quickstart"]


# with a worker


def test_bad_values_anywhere_are_refused_before_the_first_run(tmp_path):
    """Modules that peft does not find in run 11 of 20, and data that are not at hand."""
    configs = "method.config={target_modules:[query]},{target_modules:[foo]}"
    words = tiny("method=peft", configs, "seed=range(0,10)", "task=mrpc", "size=100")
    environment = {"HF_HOME": str(tmp_path / "huggingface")}
    done = CliRunner().invoke(main, ["run", *words, "--device", "cpu"], env=environment)
    assert done.exit_code == 2
    assert "20 distinct runs" in done.stderr
    assert "Target modules {'foo'} not found in the base model" in done.stderr
    sentence = next(line for line in done.stderr.splitlines() if "nyu-mll/glue" in line)
    for way in ("a connection to the hub", "HF_HOME", "data.root=FOLDER"):
        assert way in sentence
    assert "Traceback" not in done.stderr
    assert [path for path in Path("results").rglob("*") if path.is_file()] == []


def test_a_dry_run_checks_and_trains_nothing(tmp_path):
    words = tiny("method=lora,head", "task=file", "task.path=mine.jsonl", "size=1.0", "seed=0,1")
    rows = [{"sentence": f"a text {n // 2}", "label": ("no", "yes")[n % 2]} for n in range(40)]
    Path("mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    done = CliRunner().invoke(main, ["run", *words, "--device", "cpu", "--dry-run"])
    assert done.exit_code == 0, done.stderr
    assert "ready to train: 4 runs" in done.stderr
    assert "training texts carry more than one label" in done.stderr
    assert done.stdout == ""
    assert [path for path in Path("results").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    "option", [("--results", "elsewhere"), ("--check",), ("--against", "lora")]
)
def test_an_option_before_a_verb_of_report_is_not_swallowed(option):
    said = call("report", *option, "table", code=2)
    assert f"write {option[0]} after `report table`" in said


@pytest.mark.parametrize(
    "words",
    [
        ("report", "claims"),
        ("report", "claims", "--plan"),
        ("advise", "task=synthetic_paraphrase", "size=32"),
    ],
    ids=" ".join,
)
def test_a_record_that_cannot_be_read_is_named(results, words):
    key = fill(results)[0].run.key
    torn = results.folder / "records" / f"{key}.json"
    torn.write_bytes(torn.read_bytes()[:-20])
    (told,) = (line for line in call(*words).splitlines() if "left out, unreadable" in line)
    assert key in told


@pytest.mark.parametrize(
    ("words", "harm"),
    [
        (("report",), "missing"),
        (("report", "plots", "-o", "plots"), "altered"),
        (("report", "claims"), "missing"),
        (("advise", "task=synthetic_paraphrase", "size=32"), "altered"),
        (("advise", "task=synthetic_paraphrase", "size=32"), "missing"),
    ],
    ids=str,
)
def test_predictions_that_cannot_be_read_are_named(results, words, harm):
    key = fill(results)[0].run.key
    path = results.folder / "predictions" / f"{key}.npz"
    path.write_bytes(b"PK") if harm == "altered" else path.unlink()
    (told,) = (line for line in call(*words).splitlines() if "left out of tests" in line)
    assert f"predictions of {key} unreadable" in told


def test_the_page_is_opened_where_asked(results, monkeypatch):
    fill(results)
    opened = []
    monkeypatch.setattr("click.launch", lambda path: opened.append(path) or len(opened) - 1)
    assert "no browser" not in call("report", "html", "-o", "page.html", "--open")
    assert opened == [str(Path("page.html").resolve())]
    assert "no browser could be started" in call("report", "html", "--open")


def test_records_alone_make_a_report_without_tests(results):
    made = fill(results)
    shutil.rmtree(results.folder / "predictions")
    told = f"left out of tests likewise: {len(made) - 3} more runs"
    said = call("report", "--all")
    assert told in said
    assert "Costs (training)" in said
    said = call("report")
    assert told in said
    assert "Costs (training)" not in said
    call("report", "html", "-o", "page.html")
    assert told in Path("page.html").read_text()


@pytest.mark.parametrize(
    ("verb", "default"),
    [
        ("run", "transient ones: killed,exit,disk,data,system,lost,cancelled"),
        ("tune", "all but diverged"),
        ("pilot", "transient ones; in the choice of rates all but diverged"),
        (
            "submit",
            "transient ones; lost up to cluster.attempts times, memory while more can be asked for",
        ),
    ],
)
def test_the_help_of_retry_says_what_a_command_does_without_it(verb, default):
    assert f"[default: {default}]" in " ".join(call(verb, "--help").split())


@pytest.mark.parametrize("verb", [("gate", "a", "b", "c.csv"), ("report",), ("doctor",)])
def test_an_interruption_is_no_answer(verb, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main.commands[verb[0]], "invoke", interrupted)
    assert "interrupted" in call(*verb, code=130)
