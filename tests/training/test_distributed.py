"""One run over several processes: the same batches, the same steps, the same items once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zoo
from records import tiny

from peftbench.config.catalog import packaged
from peftbench.results.store import ResultsFolder

pytestmark = pytest.mark.slow  # each command is three processes that load torch

TINY = (packaged() / "model" / "tiny.yaml").read_text()

RUN = tiny(
    "method=lora", "task=synthetic_paraphrase", "size=100", "budget.steps=12", "train.lr=3e-3"
)


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The same runs by one process and by two."""
    folder = tmp_path_factory.mktemp("parallel")
    zoo.write_configs(folder / "configs")
    words = [*RUN, "method=lora,full,sparse_adapter"]
    words = [word for word in words if word != "method=lora"]
    return folder, {n: train(folder, n, *words) for n in (1, 2)}


def command(folder, processes, *words):
    path = os.pathsep.join([str(Path(zoo.__file__).parent), os.environ.get("PYTHONPATH", "")])
    return {
        "args": [
            *(sys.executable, "-m", "peftbench", "run", *words, "--gpus-per-run", str(processes)),
            *("--device", "cpu", "--threads", "1", "--workers", "1"),
            *("--results", f"by-{processes}"),
        ],
        "cwd": folder,
        "env": os.environ | {"ZOO": str(folder), "PYTHONPATH": path},
    }


def train(folder, processes, *words):
    done = subprocess.run(
        **command(folder, processes, *words), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = ResultsFolder(folder / f"by-{processes}")
    return {record.run.method.name: record for record in results.scan()[0]}


def test_the_same_items_are_scored_once_and_the_same(both):
    folder, records = both
    assert set(records[1]) == {"lora", "full", "sparse_adapter"}
    for name, alone in records[1].items():
        together = records[2][name]
        one = ResultsFolder(folder / "by-1").predictions(alone)
        two = ResultsFolder(folder / "by-2").predictions(together)
        assert np.array_equal(one["item"], two["item"])
        assert np.array_equal(one["label"], two["label"])
        assert together.run == alone.run
        for work in ("steps", "examples", "tokens", "padded_tokens", "train_size"):
            assert together.work[work] == alone.work[work]
        assert together.parameters == alone.parameters


def test_without_dropout_a_step_is_the_same_step(tmp_path):
    configs = zoo.write_configs(tmp_path / "configs")
    (configs / "model").mkdir(exist_ok=True)
    still = "{hidden_dropout_prob: 0.0, attention_probs_dropout_prob: 0.0}"
    still = TINY.replace("shape: {}", f"shape: {still}")
    (configs / "model" / "still.yaml").write_text(still.replace("name: tiny", "name: still"))
    words = [word for word in RUN if word != "model=tiny"]
    words += ["model=still", "method.dropout=0", "train.precision=fp32"]
    found = {}
    for processes in (1, 2):
        record = train(tmp_path, processes, *words)["lora"]
        found[processes] = ResultsFolder(tmp_path / f"by-{processes}").predictions(record), record
    (one, alone), (two, together) = found[1], found[2]
    np.testing.assert_allclose(two["scores"], one["scores"], atol=2e-4)
    assert together.metrics == pytest.approx(alone.metrics, abs=1e-3)
    losses = [[point["loss"] for point in record.curve] for record in (alone, together)]
    assert losses[1] == pytest.approx(losses[0], abs=1e-4)


def test_a_last_batch_of_fewer_rows_than_processes_is_trained_on(tmp_path):
    zoo.write_configs(tmp_path / "configs")
    words = [word for word in RUN if not word.startswith(("size=", "budget.steps="))]
    words += ["size=17", "train.batch_size=16", "budget.steps=4"]  # batches of 16, 1, 16, 1
    record = train(tmp_path, 2, *words)["lora"]
    assert (record.work["steps"], record.work["examples"]) == (4, 34)
    assert 0.3 < record.curve[-1]["loss"] < 1.5


def test_a_record_says_how_many_it_took(both):
    _, records = both
    assert records[2]["lora"].environment["device"].startswith("2 × ")
    assert not records[1]["lora"].environment["device"].startswith("2 × ")


def test_an_interrupted_run_goes_on_exactly(tmp_path):
    zoo.write_configs(tmp_path / "configs")
    words = tiny("method=slow", "size=100", "budget.steps=50")
    straight = train(tmp_path, 2, *words)["slow"]
    expected = ResultsFolder(tmp_path / "by-2").predictions(straight)
    (tmp_path / "by-2").rename(tmp_path / "straight")
    (tmp_path / "slow").touch()
    (tmp_path / "journal").unlink()
    process = subprocess.Popen(
        **command(tmp_path, 2, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    end = time.monotonic() + 200
    while not (tmp_path / "journal").exists() or (tmp_path / "journal").read_text().count("\n") < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 130, out.decode()
    (tmp_path / "slow").unlink()
    record = train(tmp_path, 2, *words)["slow"]
    assert record.work["resumed"]
    found = ResultsFolder(tmp_path / "by-2").predictions(record)
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def ended(pid):
    """Whether a process is gone, or waits for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.parametrize(
    ("victim", "kinds"),
    [("rank_worker", ("exit", "killed", "memory")), ("worker", ("killed", "memory"))],
)
def test_one_process_that_dies_ends_the_run_and_says_so(tmp_path, victim, kinds):
    zoo.write_configs(tmp_path / "configs")
    (tmp_path / "slow").touch()
    words = tiny("method=slow", "size=100", "budget.steps=2000")
    process = subprocess.Popen(
        **command(tmp_path, 2, *words), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    journal, end = tmp_path / "journal", time.monotonic() + 200
    while not journal.exists() or journal.read_text().count("\n") < 2:
        assert time.monotonic() < end
        time.sleep(0.1)
    time.sleep(1.0)
    pids = {int(line.split()[1]) for line in journal.read_text().splitlines()}
    module = f"peftbench.runner.{victim}".encode()
    os.kill(
        next(pid for pid in pids if module in Path(f"/proc/{pid}/cmdline").read_bytes()),
        signal.SIGKILL,
    )
    out, _ = process.communicate(timeout=200)
    assert process.returncode == 1, out.decode()
    (failed,) = (tmp_path / "by-2" / "failures").glob("*.json")
    assert json.loads(failed.read_text())["kind"] in kinds
    end = time.monotonic() + 20
    while not all(map(ended, pids)):
        assert time.monotonic() < end, "a process of the run was left alone"
        time.sleep(0.1)
