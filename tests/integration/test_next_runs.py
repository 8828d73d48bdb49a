"""What scripts/next_runs.sh trains next, from what is in the folders."""

import importlib
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from paths import ROOT
from records import predictions, record, tiny

import peftbench
from peftbench.core.failures import Failure
from peftbench.core.tuning import Choice, subject
from peftbench.results import choices
from peftbench.results.store import ResultsFolder

sys.path.append(str(ROOT / "scripts"))
next_runs = importlib.import_module("next_runs")


def choose(part, skip=None):
    """Write the choices of a part as if they had been made, but for one task; their runs."""
    runs = peftbench.plan(*(word for word in part.words if "=" in word)).runs
    for run in runs:
        if run.task.name != skip:
            made = Choice(subject(run), 7e-4, run.task.metric, "a test", [], None)
            choices.save(ResultsFolder(part.folder), made)
    return runs


@pytest.mark.slow  # plans 600 runs, and each choice
def test_rates_come_first_then_cells_of_five_seeds_at_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, *rest = [part for part in next_runs.missing("glue") if not part.runs]
    assert first.title == "Learning rates of full on mrpc, stsb, cola: minilm, 1,000 examples"
    assert len(rest) == 20 - 1 + 4 * 3
    assert next_runs.next_parts("glue", 4) == [first]
    fixed = [part for part in next_runs.missing("glue") if part.runs]
    rows = Counter((p.words[-1], p.runs[0].row, p.runs[0].seed) for p in fixed)
    assert rows == {  # full fine-tuning with three more seeds
        **{("data.root=generalization", row, 0): 5 for row in ("full", "lora", "untrained")},
        **{("data.root=glue", row, 0): 4 for row in ("full", "lora", "layernorm", "untrained")},
        ("data.root=generalization", "full", 3): 4,  # not with one demonstration
        ("data.root=glue", "full", 3): 4,
    }
    assert {len(part.runs) for part in fixed} == {3}, "seeds"
    assert {
        (
            part.runs[0].row == "untrained" and "generalization" in part.words[-1],
            len(part.evaluations),
        )
        for part in fixed
    } == {(False, 3), (True, 0)}, "on other sets the pretrained model is in every evaluation"
    choose(first, skip="cola")
    assert next(next_runs.missing("glue")).title.startswith(
        "Learning rates of full on cola: minilm"
    )
    for part in (first, *rest):
        choose(part)
    variants = [
        part
        for stage in next_runs.STAGES
        if stage.rates in (next_runs.FIRST, next_runs.OTHERS)
        for grid in stage.grids
        for part in next_runs.unchosen_variants(stage.rates, grid, "glue")
    ]
    chosen = [(part.folder.name, run) for part in variants for run in choose(part)]
    assert Counter(name for name, _ in chosen) == {
        "unipelt2022": 3,
        "robust2024": 10 - 2,
        "sparse_adapter2022": 22 + 2 - 2,
        "bh_peft2025": 1,
        "generalization2024": 2,
    }
    assert {run.size for _, run in chosen} == {1000}
    first, *rest = next_runs.missing("glue")
    assert first.title == "methods: full on mrpc, size 1000, 5 seeds"
    assert [run.seed for run in first.runs] == [0, 1, 2, 3, 4]
    tuned = [part for part in (first, *rest) if "tuned" in part.folder.parts]
    assert {run.train.lr for part in tuned for run in part.runs} == {7e-4}
    cells = Counter(part.folder.name for part in tuned)
    assert cells == {
        "doering2024": 3 * 9,
        "trainer": 3,
        "methods": 20 * 3,
        "unipelt2022": 6 * 9 + 2 * 3,
        "robust2024": 10,
        "sparse_adapter2022": 22 + 2 + 3 * 2,
        "bh_peft2025": 6 + 1,
        "generalization2024": 6 + 2,
        "mpnet": 4 * 3,
    }
    assert len({part.title for part in rest}) == len(rest)
    (rounds,) = [part for part in rest if len(part.evaluations) == 10]  # with a prior and without
    assert rounds.title == "bh_peft2025: bayes_hybrid on mrpc, size 1500, 5 seeds"
    doering = [part for part in rest if part.folder.name == "doering2024"]
    assert doering == rest[5 * 3 - 1 :][: len(doering)]  # before the rates of other methods
    assert doering[0].command.startswith("peftbench run sweep=doering2024_mini 'seed=range(0,5)'")
    together = next_runs.next_parts("glue", 4)
    assert together == [first, *rest[:3]]
    assert len({part.command for part in together}) == 1
    kept = sorted(path.name for path in (tmp_path / doering[0].folder / "choices").iterdir())
    assert len(kept) == 9
    assert kept[0].startswith("adapter-cola-minilm-1000-")


def test_a_cell_is_whole_when_each_seed_has_a_record_or_diverged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = ResultsFolder(tmp_path / "made")
    runs = peftbench.plan(*tiny("method=lora", "seed=0,1")).runs
    folder.save(record(runs[0]), predictions())
    assert next_runs.is_whole(folder, runs[:1])
    assert not next_runs.is_whole(folder, runs)
    for kind, whole in (("error", False), ("diverged", True)):
        folder.fail(Failure(runs[1], kind, "as a test wants it"))
        assert next_runs.is_whole(folder, runs) is whole
    (folder.folder / "records" / f"{runs[0].key}.json").write_bytes(b"")  # of a full disk
    assert not next_runs.is_whole(folder, runs)


def test_what_suites_ask_belongs_to_a_cell(tmp_path):
    folder = ResultsFolder(tmp_path)
    found = peftbench.plan(*tiny("method=lora", "suite=calibration"))
    (run,), asked = found.runs, found.evaluations
    folder.save(record(run), {})
    assert next_runs.is_whole(folder, [run])
    assert not next_runs.is_whole(folder, [run], asked)
    folder.fail(Failure(asked[0], "diverged", "as a test wants it"))
    assert next_runs.is_whole(folder, [run], asked)


def test_a_record_of_another_tuned_folder_is_taken_over_unless_suites_need_weights(tmp_path):
    found = peftbench.plan(*tiny("method=lora", "suite=calibration", "seed=0,1"))
    ResultsFolder(tmp_path / "one").save(record(found.runs[0]), predictions())
    part = next_runs.Part("a test", tmp_path / "other", [], found.runs)
    next_runs.take_over(replace(part, evaluations=found.evaluations))
    assert ResultsFolder(part.folder).keys() == []
    next_runs.take_over(part)
    assert ResultsFolder(part.folder).keys() == [found.runs[0].key]
    path = part.folder / "records" / f"{found.runs[0].key}.json"
    path.write_bytes(b"")  # as a full disk leaves it
    next_runs.take_over(part)
    taken = ResultsFolder(part.folder).load(found.runs[0].key)
    assert len(ResultsFolder(part.folder).predictions(taken)["label"]) == 5


def test_a_cell_of_which_all_diverged_leaves_nothing_to_commit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "a test")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "test@localhost")
    subprocess.run(["git", "init", "-q"], check=True)
    folder = ResultsFolder("made")
    first, second = peftbench.plan(*tiny("method=lora", "seed=0,1")).runs
    part = next_runs.Part("a cell", folder.folder, ["a", "test"], [first])
    (tmp_path / "other").write_text("staged by someone else")
    subprocess.run(["git", "add", "other"], check=True)
    next_runs.commit(part)  # without choices there is no file at all
    choice = Choice(subject(first), 7e-4, first.task.metric, "a test", [], None)
    choices.save(folder, choice)
    for _ in range(2):
        next_runs.commit(part)
    folder.save(record(second), predictions())
    assert next_runs.uncommitted(folder.folder) == {second.key}  # as after a call that was killed
    next_runs.commit(replace(part, title="another cell", runs=[second]))
    (folder.folder / "evaluations").mkdir()
    (
        folder.folder / "evaluations" / f"{second.key}.npz"
    ).touch()  # of most suites it is not committed
    assert next_runs.uncommitted(folder.folder) == set()
    log = ["git", "log", "--format=%s", "--name-only"]
    told = subprocess.run(log, check=True, capture_output=True, text=True).stdout.split("\n")
    (name,) = folder.choices().iterdir()
    assert [line for line in told if line] == [
        "another cell",
        f"made/predictions/{second.key}.npz",
        f"made/records/{second.key}.json",
        "a cell",
        str(name),
    ]


def test_budgets_of_seconds_are_made_alone_and_in_one_go(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = {"nice": 5, "load": 3.0, "there": []}
    monkeypatch.setattr(next_runs.os, "nice", lambda more: state["nice"])
    monkeypatch.setattr(next_runs.os, "getloadavg", lambda: (state["load"], 0.0, 0.0))
    monkeypatch.setattr(next_runs, "unchosen", lambda rates, data: iter(()))
    monkeypatch.setattr(ResultsFolder, "has", lambda self, key: key in state["there"])
    for run in peftbench.plan(*next_runs.SECONDS.words[:1], "seed=0").runs:
        choice = Choice(subject(run), 7e-4, run.task.metric, "a test", [], None)
        choices.save(ResultsFolder(next_runs.FIRST.folder), choice)
    made = []
    monkeypatch.setattr(next_runs, "make", lambda parts, workers: made.append((*parts, workers)))
    with pytest.raises(SystemExit, match="at normal priority, and this process has 5"):
        next_runs.seconds("glue")
    state["nice"] = 0
    with pytest.raises(SystemExit, match=r"its load is 3\.0"):
        next_runs.seconds("glue")
    state["load"] = 0.1
    with pytest.raises(SystemExit, match="not whole"):
        next_runs.seconds("glue")
    ((part, workers),) = made
    assert (len(part.runs), workers) == (3 * 3 * 3 * 5, 1)
    assert {run.train.lr for run in part.runs} == {7e-4}

    def refuse(parts, workers):
        raise next_runs.ConfigError("no such data")

    monkeypatch.setattr(next_runs, "make", refuse)
    with pytest.raises(SystemExit, match="no such data"):
        next_runs.seconds("glue")
    state["there"] = [part.runs[0].key]
    with pytest.raises(SystemExit, match="1 of 135 runs are there, of an earlier call"):
        next_runs.seconds("glue")


def test_cells_are_made_together_committed_one_by_one_and_not_begun_late(monkeypatch):
    now, left, log = [0.0], list("abcdefgh"), []

    def make(parts):
        now[0] += 10 * len(parts)
        log.append("".join(part.title for part in parts))
        whole = [part for part in parts if part.title != "g"]
        for part in whole:
            left.remove(part.title)
        if "i" in log[-1]:
            raise next_runs.Interrupted(whole)
        return whole

    def parts(data, most, failed):
        there = [title for title in left if title not in failed]
        return [next_runs.Part(title, None, []) for title in there[:most]]

    monkeypatch.setattr(next_runs.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(next_runs.Part, "command", "as a test wants it")
    monkeypatch.setattr(next_runs, "make", make)
    monkeypatch.setattr(next_runs, "next_parts", parts)
    monkeypatch.setattr(next_runs, "commit", lambda part: log.append(part.title.upper()))
    next_runs.make_until(64.0, "glue")  # after the first four there is time for two
    assert log == ["abcd", *"ABCD", "ef", *"EF"]
    with pytest.raises(SystemExit, match=r"not made:\ng"):  # what fails keeps nothing waiting
        next_runs.make_until(1000.0, "glue")
    assert log[-2:] == ["gh", "H"]
    left[:] = list("ij")
    with pytest.raises(SystemExit, match="stopped; 2 of 2 committed"):
        next_runs.make_until(1000.0, "glue")
    assert log[-3:] == ["ij", "I", "J"]


def test_what_a_killed_call_left_does_not_stop_the_next_one(tmp_path):
    """Staged records become files again, as their part commits them; changed choices are kept."""

    def git(where, *words):
        given = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(
            ["git", "-C", where, *given, *words], check=True, capture_output=True, text=True
        )
        return done.stdout

    main, tree = tmp_path / "main", tmp_path / "next_runs"
    for path, text in {
        "scripts/next_runs.sh": (ROOT / "scripts" / "next_runs.sh").read_text(),
        ".gitignore": ".venv\n.uv\n",
        "results/choices/full.json": "1e-4",
        ".uv/bin/uv": "#!/bin/sh\n",
    }.items():
        (main / path).parent.mkdir(parents=True, exist_ok=True)
        (main / path).write_text(text)
    (main / ".uv/bin/uv").chmod(0o755)
    git(tmp_path, "init", "-q", "-b", "main", "main")
    git(main, "config", "user.name", "a")
    git(main, "config", "user.email", "a@b.c")
    git(main, "add", "-A")
    git(main, "commit", "-qm", "one")
    git(main, "branch", "next-runs")
    git(main, "worktree", "add", "-q", tree, "next-runs")
    git(main, "commit", "-q", "--allow-empty", "-m", "two")
    (tree / "results" / "records").mkdir()
    (tree / "results" / "records" / "staged.json").write_text("{}")
    git(tree, "add", "-A")
    (tree / "results" / "choices" / "full.json").write_text("2e-4")
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / ".venv" / "bin" / "python").write_text('#!/bin/sh\necho "trains $2 minutes"\n')
    (tree / ".venv" / "bin" / "python").chmod(0o755)
    done = subprocess.run(
        ["bash", main / "scripts" / "next_runs.sh", "5"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("trains 5 minutes\n")
    titles = git(tree, "log", "--format=%s").splitlines()
    assert titles == ["Choices of a call that was killed", "two", "one"]
    assert git(tree, "status", "--short", "-uall") == "?? results/records/staged.json\n"
