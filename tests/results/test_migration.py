"""`scripts/migrate_records.py`, on a folder that the last commit of schema 1 wrote.

tests/golden/schema1 is of 3943946: tiny models on builtin tasks, by `hybrid`, `sparse_adapter` with
kept weights, `bayes_hybrid` with rounds, LoRA with `decompose` and `form`, BitFit with `at`,
`augment` and `select`; a run that diverged, and one whose worker was killed after a checkpoint.
"""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records
from paths import ROOT

from peftbench import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError, OtherSchemaError, RecordError
from peftbench.core.evaluation import Evaluation
from peftbench.core.run import Run
from peftbench.results.status import sweep_status
from peftbench.results.store import ResultsFolder
from peftbench.system import io

OLD = ROOT / "tests/golden/schema1"
SCRIPT = ROOT / "scripts/migrate_records.py"

SHORT = (
    *("model=tiny", "size=32", "budget=steps", "train.num_evals=1"),
    "train.precision=bf16",  # what it was before it could be auto
)
TWO = (*SHORT, "budget.steps=2", "train.lr=1e-3")
PLANS = {
    "method=combined,sparse_adapter task=synthetic_paraphrase suite=shift": (
        *TWO,
        "suite.targets={synthetic_similarity:{above:3.5,examples:40}}",
    ),
    "method=bayes_hybrid task=synthetic_similarity suite=continual": (
        *TWO,
        "suite.chunks=[8,24]",
        "suite.posterior_as_prior=true",
    ),
    "method=lora method.use_dora=true method.use_rslora=true task=synthetic_acceptability": (
        *TWO,
        "prompt=demonstrations",
        "prompt.num_demonstrations=1",
    ),
    "method=bitfit method.target_modules=[query] task=synthetic_paraphrase": (
        *TWO,
        "augmentation=noise",
        "checkpoint_selection=best_on_holdout",
        "checkpoint_selection.fraction=0.25",
    ),
}


def migrate(*folders: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, folders)], capture_output=True, text=True
    )


def first_revision(run: Run) -> Run:
    """The run of a method that has since been corrected, as it was before."""
    node = {name: value for name, value in run.method.to_json().items() if name != "revision"}
    return replace(run, method=MethodConfig.from_json(node))


def planned(words: str):
    """What words mean, of first revisions as all records of schema 1 are."""
    found = plan(*words.split(), *PLANS[words])
    runs = [replace(first_revision(run), loss_revision=1) for run in found.runs]
    asked = [
        Evaluation(
            replace(e.run, loss_revision=1),
            {name: value for name, value in e.suite.items() if name != "revision"},
        )
        for e in found.evaluations
    ]
    return replace(found, runs=runs, evaluations=asked)


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "runs"))


@pytest.fixture(scope="module")
def migrated(tmp_path_factory):
    copy = shutil.copytree(OLD, tmp_path_factory.mktemp("migrated") / "runs")
    done = migrate(copy)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{copy}: 5 records, 3 evaluations, 2 failures\n"
    return ResultsFolder(copy)


@pytest.mark.parametrize("words", PLANS)
def test_what_was_done_is_done_under_the_names_of_today(words, migrated):
    found = planned(words)
    for job in [*found.runs, *found.evaluations]:
        assert migrated.done(job), job.title
    for run in found.runs:
        record = migrated.load(run.key)
        assert set(migrated.predictions(record)) >= {"item", "label", "scores"}
        assert record.work["micro_batch_size"] == 16


def test_names_of_generated_tasks_are_new_in_findings_and_arrays(migrated):
    (found, _) = sorted(
        (migrated.evaluated(e.key) for e in planned(next(iter(PLANS))).evaluations),
        key=lambda found: found.evaluation.run.method.name,
    )
    assert list(found.findings["targets"]) == ["synthetic_similarity"]
    names = migrated.evaluated_predictions(found)
    assert {name.rpartition("/")[2] for name in names} == {"synthetic_similarity"}


def test_kept_weights_failures_and_checkpoints_go_along(migrated):
    one, two = planned(next(iter(PLANS))).runs
    with pytest.raises(ConfigError, match="no weights"):  # left out of the golden folder
        migrated.weights(migrated.load(one.key))
    before = next((OLD / "trained").iterdir()).read_bytes()
    assert migrated.weights(migrated.load(two.key)) == before
    words = ("method=full", "task=synthetic_paraphrase", *SHORT, "train.max_grad_norm=null")
    (diverged,) = plan(*words, "train.lr=1e30", "budget.steps=20").runs
    assert migrated.failure(diverged.key).kind == "diverged"
    words = ("method=ia3", "task=synthetic_paraphrase", *SHORT, "budget.steps=1000000")
    unfinished = first_revision(*plan(*words).runs)
    old, new = next((OLD / "checkpoints").iterdir()), migrated.checkpoint(unfinished.key)
    assert metadata(new) == metadata(old) | {"run": unfinished.key}
    assert tensors(new) == tensors(old)
    assert migrated.log(unfinished.key).read_text().startswith("ia3 · builtin_paraphrase")
    assert migrated.failure(unfinished.key).kind == "killed"


def header(path: Path) -> tuple[dict, bytes]:
    body = path.read_bytes()
    end = 8 + int.from_bytes(body[:8], "little")
    return json.loads(body[8:end]), body[end:]


def metadata(path: Path) -> dict:
    return header(path)[0]["__metadata__"]


def tensors(path: Path) -> tuple[dict, bytes]:
    said, data = header(path)
    return {name: where for name, where in said.items() if name != "__metadata__"}, data


def test_a_second_time_there_is_nothing_to_do(migrated):
    def files() -> dict[Path, bytes]:
        return {p: p.read_bytes() for p in sorted(migrated.folder.rglob("*")) if p.is_file()}

    before = files()
    again = migrate(migrated.folder)
    assert (again.returncode, again.stdout) == (0, f"{migrated.folder}: nothing to do\n")
    assert files() == before


def test_nothing_is_left_of_the_old_keys(migrated):
    before = {path.stem for path in OLD.rglob("*.*")}
    assert before.isdisjoint(path.stem for path in migrated.folder.rglob("*.*"))


def test_an_altered_record_stays_and_is_named(folder):
    path = next((folder / "records").iterdir())
    path.write_text(re.sub(r'"steps": 2', '"steps": 3', path.read_text(), count=1))
    body = path.read_bytes()
    done = migrate(folder)
    assert done.returncode == 1
    assert f"records/{path.name} is left as it is: it was altered" in done.stderr
    assert path.read_bytes() == body
    assert "4 records" in done.stdout


def test_what_cannot_be_said_today_stays(folder):
    path = next((folder / "records").iterdir())
    data = json.loads(path.read_bytes())
    data["run"]["train"]["warmup"] = 1.0
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        import migrate_records
    finally:
        sys.path.remove(str(SCRIPT.parent))
    del data["sha256"]
    from peftbench.core.run import canonical

    path.unlink()
    path = path.with_stem(migrate_records.old_key(data["run"]))
    path.write_text(json.dumps(data | {"sha256": io.digest(canonical(data).encode())}))
    done = migrate(folder)
    assert done.returncode == 1
    assert "a warm-up of the whole budget" in done.stderr


def test_what_no_schema_knows_stays_and_the_rest_is_migrated(folder):
    """A sealed record with one more field, and an evaluation whose arrays are not its own."""
    from peftbench.core.run import canonical

    path = next(path for path in (folder / "records").iterdir() if "bitfit" in path.read_text())
    data = json.loads(path.read_bytes()) | {"extra": 1}
    del data["sha256"]
    path.write_text(json.dumps(data | {"sha256": io.digest(canonical(data).encode())}))
    arrays = next(
        path for path in (folder / "evaluations").glob("*.npz") if b"builtin_" in path.read_bytes()
    )
    arrays.write_bytes(arrays.read_bytes() + b" ")
    done = migrate(folder)
    assert done.returncode == 1
    assert done.stdout == f"{folder}: 4 records, 2 evaluations, 2 failures\n"
    named = re.findall(r"/(\w+/\w+)\.json is left as it is: .+", done.stderr)
    assert named == [f"records/{path.stem}", f"evaluations/{arrays.stem}"]
    assert "Traceback" not in done.stderr
    assert path.exists()
    assert arrays.exists()


def test_regressions_whose_values_hardly_vary_are_marked_as_collapsed(tmp_path):
    results = ResultsFolder(tmp_path / "runs")
    label = np.linspace(0, 5, 40)
    for run in records.runs("task=synthetic_similarity", "seed=0,1,2"):
        spread = 1.0 if run.seed else 1e-3
        scores = (2.7 + spread * (label - 2.5))[:, None]
        arrays = {"item": np.arange(40), "label": label, "scores": scores}
        results.save(records.record(run, 0.4), arrays)
    keys = {record.run.seed: record.run.key for record in results.scan()[0]}
    (results.folder / "predictions" / f"{keys[2]}.npz").write_bytes(b"torn")
    done = migrate(results.folder)
    assert done.returncode == 1
    assert "1 regressions marked as collapsed" in done.stdout
    assert f"records/{keys[2]}.json is left as it is" in done.stderr
    dead, live = (results.load(keys[seed]) for seed in (0, 1))
    assert (dead.collapsed, dead.score, dead.curve[-1]["pearson"]) == (True, None, None)
    assert (live.collapsed, live.score) == (False, 0.4)
    assert "nothing to do" in migrate(results.folder).stdout


def test_a_folder_is_migrated_whole_after_a_kill_at_any_write(folder, monkeypatch):
    sys.path.insert(0, str(SCRIPT.parent))
    try:
        from migrate_records import Migration
    finally:
        sys.path.remove(str(SCRIPT.parent))

    class Killed(BaseException):
        pass

    write, last = ResultsFolder.write, 0

    def limited(limit: int):
        count = 0

        def some(results, path, body):
            nonlocal count
            count += 1
            if count > limit:
                raise Killed
            write(results, path, body)

        return some

    for limit in range(1, 100):  # each goes on where the last one was killed
        monkeypatch.setattr(ResultsFolder, "write", limited(limit))
        try:
            Migration(folder).migrate()
        except Killed:
            continue
        last = limit
        break
    assert last > 2
    results = ResultsFolder(folder)
    before = {path.stem for path in OLD.rglob("*.*")}
    assert before.isdisjoint(path.stem for path in folder.rglob("*.*"))
    for words in PLANS:
        found = planned(words)
        assert all(results.done(job) for job in [*found.runs, *found.evaluations])


def test_an_old_folder_is_refused_with_the_name_of_the_script(folder):
    key = next((folder / "records").iterdir()).stem
    with pytest.raises(OtherSchemaError, match=r"schema 1 .*scripts/migrate_records\.py FOLDER"):
        ResultsFolder(folder).load(key)
    with pytest.raises(ConfigError, match="of an older peftbench"):
        sweep_status(planned(next(iter(PLANS))), ResultsFolder(folder))


def test_a_newer_record_is_never_overwritten(migrated, tmp_path):
    (run, _) = planned(next(iter(PLANS))).runs
    results = ResultsFolder(tmp_path)
    data = io.unsealed(migrated.folder / "records" / f"{run.key}.json") | {"schema": 3}
    path = tmp_path / "records" / f"{run.key}.json"
    results.write(path, io.sealed(data))
    with pytest.raises(RecordError, match="of a newer peftbench"):
        results.done(run)
    with pytest.raises(ConfigError, match=r"newer peftbench; this one reads 2: update it"):
        sweep_status(planned(next(iter(PLANS))), results)
