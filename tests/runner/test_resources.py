"""Workers and threads of a sweep: the rule, in numbers."""

import pytest
from checkpoints import checkpoint
from records import predictions, record, runs, tiny
from safetensors import safe_open

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.plan import RunOptions
from peftbench.results.runtime_estimates import Forecast
from peftbench.results.store import ResultsFolder
from peftbench.runner import resources, sweep

GIB = 2**30


@pytest.fixture
def machine(monkeypatch):
    """Set the cores and the free memory of the machine."""

    def make(cores, gib=1000):
        monkeypatch.setattr(resources, "cores", lambda: cores)
        monkeypatch.setattr(resources, "memory", lambda: gib * GIB)

    return make


@pytest.mark.parametrize(
    ("cores", "jobs", "expected"),
    [
        (1, 9, (1, 1)),
        (2, 9, (2, 1)),
        (2, 1, (1, 2)),
        (8, 64, (8, 1)),
        (8, 8, (8, 1)),
        (8, 7, (7, 1)),
        (8, 3, (3, 2)),
        (8, 1, (1, 8)),
    ],
)
def test_one_thread_each_while_runs_fill_the_cores_else_all_cores(machine, cores, jobs, expected):
    machine(cores)
    assert resources.choose_workers(jobs, [], 0) == expected


def test_a_calibrated_budget_is_of_one_process(machine):
    machine(8)
    jobs = runs("method=lora,bitfit", "budget=seconds", "budget.seconds=3")
    alone = runs("method=lora", "budget=seconds", "budget.seconds=3", "budget.calibrated=true")
    assert resources.choose_resources(jobs, [], RunOptions(gpus_per_run=2)).workers == 2
    assert resources.choose_resources([*jobs, *alone], [], RunOptions()).workers == 3
    with pytest.raises(ConfigError, match=r"1 of 3 runs have budget\.calibrated=true"):
        resources.choose_resources([*jobs, *alone], [], RunOptions(gpus_per_run=2))


@pytest.mark.parametrize(
    ("gib", "weights", "expected"),
    [
        (10, 0, (4, 2)),  # 0.8 × 10 GiB hold four workers of 2 GiB
        (10, GIB, (1, 8)),  # one worker of 8 GiB
        (1, 0, (1, 8)),  # never none
    ],
)
def test_memory_limits_workers(machine, gib, weights, expected):
    machine(8, gib)
    assert resources.choose_workers(64, [], weights) == expected


@pytest.mark.parametrize(
    ("workers", "threads", "expected"),
    [
        (2, None, (2, 4)),
        (99, None, (64, 1)),
        (None, 4, (2, 4)),
        (None, 16, (1, 16)),
        (3, 5, (3, 5)),
    ],
)
def test_options_override_the_rule(machine, workers, threads, expected):
    machine(8)
    assert resources.choose_workers(64, [], 0, workers, threads) == expected


def test_processes_of_one_run_share_the_cores(machine):
    machine(8)
    assert resources.choose_workers(64, [], 0, processes=2) == (4, 1)
    assert resources.choose_workers(1, [], 0, processes=2) == (1, 4)


def test_gpus_have_a_worker_each(machine):
    machine(8)
    gpus = ["0", "1", "2", "3"]
    assert resources.choose_workers(64, gpus, 0) == (4, None)
    assert resources.choose_workers(3, gpus, 0) == (3, None)
    assert resources.choose_workers(64, gpus, 0, processes=2) == (2, None)
    assert resources.choose_workers(64, gpus, 0, workers=8, threads=2) == (8, 2)


def test_workers_have_as_many_gpus_as_their_runs_have_processes(machine):
    machine(8)
    jobs = runs("method=lora,bitfit")
    three = ["0", "1", "2"]
    assert resources.choose_resources(jobs, three, RunOptions(gpus_per_run=2)).workers == 1
    told = r"--workers 2 --gpus-per-run 2: 3 GPUs are enough for 1; leave --workers out"
    with pytest.raises(ConfigError, match=told):
        resources.choose_resources(jobs, three, RunOptions(workers=2, gpus_per_run=2))


def test_weights_of_a_checkpoint_are_counted(tmp_path):
    """It was taken for a BERT-base, whatever its size was."""
    folder = checkpoint(tmp_path / "own", whole=True)
    (run,) = runs("model=auto", f"model.checkpoint={folder}", "method=bitfit")
    with safe_open(folder / "model.safetensors", "np") as tensors:
        count = sum(tensors.get_tensor(name).size for name in tensors.keys())  # noqa: SIM118
    assert resources.weight_bytes(run.model) == 4 * count


def test_a_checkpoint_is_read_once_for_all_its_runs(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "own", whole=True)
    jobs = runs("model=auto", f"model.checkpoint={folder}", "method=bitfit", "seed=range(0,5)")
    read, real = [], resources.safetensors_headers.read_headers
    monkeypatch.setattr(
        resources.safetensors_headers, "read_headers", lambda one: read.append(one) or real(one)
    )
    resources.choose_resources(jobs, [], RunOptions())
    assert len(read) == 1


def test_weights_of_the_full_size_are_estimated_within_a_tenth():
    (run,) = runs("model=minilm", "method=bitfit")
    assert resources.weight_bytes(run.model) == pytest.approx(4 * 22_713_216, rel=0.1)


@pytest.mark.parametrize(
    ("gpus", "options", "told"),
    [
        ([], {}, True),
        ([], {"device": "cpu"}, False),  # asked for
        ([], {"quiet": True}, False),
        (["0"], {}, False),
    ],
)
def test_a_sweep_names_the_kind_of_gpu_that_it_does_not_use(
    gpus, options, told, monkeypatch, tmp_path, capsys
):
    monkeypatch.setattr(sweep, "unused_gpus", lambda: "ROCm")
    todo = sweep.Todo(runs("method=lora"), [], None, Forecast([]))
    used = resources.Resources(1, 1, gpus, 1)
    sweep._print_resources(used, todo, ResultsFolder(tmp_path), RunOptions(**options))
    said = "note: torch has ROCm here, which is not used: only NVIDIA's GPUs are\n"
    assert (said in capsys.readouterr().err) is told


def test_weights_that_finished_runs_do_not_have_are_named(tmp_path, capsys):
    results, planned = ResultsFolder(tmp_path), plan(*tiny("method=lora"))
    results.save(record(planned.runs[0]), predictions())
    sweep.do_plan(planned, results, RunOptions(save_weights=True, quiet=True), train=True)
    told = f"without saved weights: 1 finished run ({planned.runs[0].key}); nothing is trained"
    assert told in capsys.readouterr().err
