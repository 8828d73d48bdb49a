"""A run from its words to its record: the same each time, and fair between methods."""

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from pyarrow import parquet
from short_runs import CPU, SHORT, Watched, one

from peftbench.config.sweep import plan
from peftbench.core.configs import MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.core.run import ROLES
from peftbench.core.runtime import RuntimeConfig
from peftbench.core.tuning import Question, subject
from peftbench.data import batching, loading
from peftbench.methods.base import Method
from peftbench.metrics import task_metrics
from peftbench.models.adapted_model import AdaptedModel
from peftbench.training import measurement, session, trainer
from peftbench.training.predictor import PredictionOutOfMemory
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return tiny.own_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def warm():
    """What a worker keeps from run to run."""
    return WarmCache()


def test_all_methods_see_the_same_batches_and_start_from_the_same_head(task, warm):
    seen, heads = [], []
    words = (*task, *SHORT)
    first = plan(f"method={','.join(tiny.METHODS)}", "seed=0", *words).runs
    for run in (*first, *plan(f"method={tiny.METHODS[0]}", "seed=1", *words).runs):
        Watched.batches.clear(), Watched.heads.clear()
        watched = MethodConfig(name="watched", target="short_runs.Watched", base_method=run.method)
        execute(replace(run, method=watched), CPU, warm=warm)
        seen.append([ids.tolist() for ids in Watched.batches])
        heads.append(Watched.heads[0])
    *batches, others = seen
    assert all(each == batches[0] for each in batches)
    assert others != batches[0]
    *starts, other = heads
    for name, p in starts[0].items():
        assert all(torch.equal(start[name], p) for start in starts)
    assert not torch.equal(other["classifier.weight"], starts[0]["classifier.weight"])


def test_seeds_of_roles_are_those_of_the_run_with_this_seed(task, warm):
    words = ("method=lora", *task, *SHORT)
    own = [f"seed.{role}=1" for role in ROLES]
    (one_,), (same,), (order,) = (
        plan(*words, *more).runs
        for more in (("seed=1",), ("seed=0", *own), ("seed=0", "seed.order=1"))
    )
    scores = [execute(r, CPU, warm=warm).predictions["scores"] for r in (one_, same, order)]
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])


def parts(outcome):
    """A record without what a clock or a memory said."""
    record = outcome.record.to_json()
    for measured in ("seconds", "speed", "memory", "energy_joules"):
        record.pop(measured)
    for point in record["curve"]:
        point.pop("seconds")
    return record


def same(first, second):
    assert first.predictions.keys() == second.predictions.keys()
    for name, array in first.predictions.items():
        assert np.array_equal(array, second.predictions[name])
    assert parts(first) == parts(second)
    return True


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_same_run_gives_the_same_bits(precision, task, warm):
    run = one(task, f"train.precision={precision}")
    torch.manual_seed(99)  # what a process drew before is of no consequence
    first = execute(run, CPU, warm=warm)
    execute(one(task, "method=full", "seed=3"), CPU, warm=warm)
    assert same(first, execute(run, CPU, warm=warm))
    assert same(first, execute(run, CPU))


def test_the_first_step_of_a_budget_of_seconds_has_a_rate(task, warm, monkeypatch):
    """Half its own share of the warm-up, by the pace of a pass before it."""
    words = ("model=tiny", "method=lora", "size=24", "budget=seconds", "budget.seconds=40")
    (run,) = plan(*task, *words, "train.lr=1e-2", "train.warmup_steps=0.1").runs
    training = trainer.prepare(trainer.TrainingJob(run, CPU, warm), None).training
    assert 0 < training.learning_rate < 1e-2
    assert all(p.grad is None for p in training.predictor.model.trained().values())
    monkeypatch.setattr(session, "step_seconds", lambda *_: 2.0)
    training = trainer.prepare(trainer.TrainingJob(run, CPU, warm), None).training
    assert training.learning_rate == pytest.approx(1e-2 * (1 / 40) / 0.1)


def test_seed_changes_the_predictions(task, warm):
    first, other = (execute(one(task, f"seed={seed}"), CPU, warm=warm) for seed in (0, 1))
    assert not np.array_equal(first.predictions["scores"], other.predictions["scores"])


def test_evaluations_leave_no_trace(task, warm):
    often, once = (
        execute(one(task, f"train.num_evals={count}"), CPU, warm=warm) for count in (4, 1)
    )
    assert np.array_equal(often.predictions["scores"], once.predictions["scores"])
    assert [point["step"] for point in often.record.curve] == [1, 2, 3, 4]


def test_micro_batches_are_the_batch(task, warm):
    """Without dropout only the order of sums differs."""
    words = ("train.precision=fp32", "method.dropout=0", "train.lr=1e-4")
    shape = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
    whole, parts_ = (
        execute(one(task, *words, shape, f"train.micro_batch_size={size}"), CPU, warm=warm)
        for size in ("null", 5)
    )
    assert np.allclose(whole.predictions["scores"], parts_.predictions["scores"], atol=1e-5)


def test_record_is_what_happened(task, warm):
    outcome = execute(one(task, "budget.steps=5"), replace(CPU, save_weights=True), warm=warm)
    record, predictions = outcome.record, outcome.predictions
    work = record.work
    assert (work["steps"], work["train_size"], work["held_out"]) == (5, 24, 0)
    assert work["examples"] in (24 + 24 + 8, 24 + 24 + 16)
    assert work["epochs"] == work["examples"] / 24
    assert 0 < work["tokens"] <= work["padded_tokens"]
    assert work["overshoot_seconds"] is None
    assert predictions["item"].tolist() == list(range(24))
    assert predictions["scores"].shape == (24, 2)
    names = record.run.task.metrics
    assert record.metrics == task_metrics.score(names, predictions["scores"], predictions["label"])
    assert [point["step"] for point in record.curve] == [3, 5]
    assert record.curve[-1]["fraction"] == 1
    assert {name: record.curve[-1][name] for name in names} == record.metrics
    assert record.collapsed == task_metrics.collapsed(predictions["scores"], predictions["label"])
    assert record.parameters["trained"] == 2 * 2 * 8 * (32 + 32)
    assert record.flops > 0
    assert record.energy_joules is None
    assert set(record.seconds) == {"load", "tokenise", "warmup", "train", "evaluate"}
    assert outcome.trained
    assert record.selection is None


@pytest.mark.parametrize(("processes", "measured"), [(1, [None, CPU.device]), (2, [None])])
def test_energy_is_that_of_the_only_process(processes, measured, task, warm, monkeypatch):
    """Of several there would be the joules of the first GPU beside the work of all."""
    given = []
    peers = SimpleNamespace(count=processes, same=lambda model: None)
    monkeypatch.setattr(trainer, "Energy", lambda device: given.append(device and device.type))
    monkeypatch.setattr(trainer, "ProcessGroup", lambda accelerator: peers)
    trainer.prepare(trainer.TrainingJob(one(task), CPU, warm), None)
    assert given == measured


def test_selection_is_carved_out_of_train(task, warm):
    words = (
        "checkpoint_selection=best_on_holdout",
        "checkpoint_selection.fraction=0.25",
        "checkpoint_selection.patience=9",
        "train.num_evals=4",
    )
    record = execute(one(task, *words), CPU, warm=warm).record
    assert (record.work["train_size"], record.work["held_out"]) == (24, 6)
    assert record.work["evaluated"] == 4 * 6 + 24  # points of the curve, and what is reported
    assert record.selection in record.curve
    scores = [point["accuracy"] for point in record.curve]
    assert record.selection["accuracy"] == max(scores)
    assert record.selection["step"] == record.curve[scores.index(max(scores))]["step"]
    assert set(record.metrics) == {"accuracy", "f1"}


def test_further_splits_are_scored_apart(task, warm):
    run = one(task)
    both = execute(
        replace(run, task=replace(run.task, extra={"again": "validation"})), CPU, warm=warm
    )
    assert both.record.work["evaluated"] == 2 * 24 + 24
    assert both.record.metrics["accuracy/again"] == both.record.metrics["accuracy"]
    assert np.array_equal(both.predictions["scores/again"], both.predictions["scores"])


def test_a_loss_that_is_not_finite_ends_the_run(task, warm):
    run = one(task, "method=full", "train.lr=1e30", "train.max_grad_norm=null", "budget.steps=20")
    with pytest.raises(FloatingPointError, match=r"the loss is .* at step \d+; try a smaller"):
        execute(run, CPU, warm=warm)


# static shapes, as on a GPU


@pytest.mark.parametrize(
    ("length", "padded"), [(1, 16), (16, 16), (17, 32), (64, 64), (65, 96), (250, 256), (300, 320)]
)
def test_a_bucket_holds_its_examples(length, padded):
    assert batching.bucket(length, 512) == padded
    assert batching.bucket(length, length) == length  # nothing is padded beyond the longest


@pytest.fixture
def shapes_seen(monkeypatch):
    """By phase, whether in training and the shapes of inputs and of wanted places, as on a GPU."""
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    monkeypatch.setattr(batching, "BUCKETS", ((512, 2),))
    seen = {"warmup": set(), "train": set(), "evaluate": set()}
    now = []
    phase = measurement.Phases.phase

    @contextmanager
    def watched(self, name):
        now.append(name)
        with phase(self, name):
            yield
        now.pop()

    def spied(self, batch):
        if now and now[-1] in seen:
            wanted = batch["places"].shape[1:] if "places" in batch else ()
            seen[now[-1]].add((self.training, *batch["input_ids"].shape, *wanted))
        return forward(self, batch)

    forward = AdaptedModel.forward
    monkeypatch.setattr(measurement.Phases, "phase", watched)
    monkeypatch.setattr(AdaptedModel, "forward", spied)
    return seen


def test_no_shape_is_seen_first_while_the_clock_runs(task, shapes_seen):
    """Batches of an epoch that was never warmed up have shapes that were."""
    words = ("method=bitfit", "size=42", "train.batch_size=4", "train.micro_batch_size=3")
    execute(one(task, *words, "budget.steps=24"), CPU)
    train = shapes_seen["train"]
    assert {rows for _, rows, _ in train} == {3, 1, 2}  # 4 is 3 and 1; the last batch 2
    assert len({length for _, _, length in train}) > 2
    assert train | shapes_seen["evaluate"] <= shapes_seen["warmup"]


def texts_task(folder):
    """Words for a task whose targets have from one to five words."""
    for part, count in (("train", 24), ("validation", 4)):
        rows = [f"{'say ' * (1 + n % 3)}{n},{' abc' * (1 + n % 5)}" for n in range(count)]
        (folder / f"{part}.csv").write_text("\n".join(["input,target", *rows]))
    paths = f"task.path='{folder}/train.csv'", f"task.validation_path='{folder}/validation.csv'"
    words = ("task=file", "task.kind=generation", "task.max_new_tokens=24", *paths)
    return (*words, "model.family=llama", tiny.WIDE, "method=lora", "method.dropout=0")


def test_no_number_of_wanted_tokens_is_seen_first_while_the_clock_runs(tmp_path, shapes_seen):
    execute(one(texts_task(tmp_path), "train.batch_size=2", "budget.steps=24"), CPU)
    train = shapes_seen["train"]
    assert len({wanted for *_, wanted in train}) > 2
    assert len(train) > len({length for _, _, length, _ in train})  # pairs of the two
    assert train <= shapes_seen["warmup"]


def test_wanted_tokens_padded_to_buckets_change_no_step(tmp_path, monkeypatch):
    run = one(texts_task(tmp_path), "train.precision=fp32", "budget.steps=9")
    plain = execute(run, CPU).record
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    bucketed = execute(run, CPU).record
    assert plain.curve[-1]["loss"] == pytest.approx(bucketed.curve[-1]["loss"], rel=1e-4)
    assert plain.work["tokens"] == bucketed.work["tokens"]


def test_padding_to_buckets_changes_no_score(task, monkeypatch):
    still = "model.shape={hidden_dropout_prob:0.0,attention_probs_dropout_prob:0.0}"
    run = one(task, "method=lora", "method.dropout=0", "train.precision=fp32", still)
    plain = execute(run, CPU).predictions["scores"]
    monkeypatch.setattr(batching, "STATIC_SHAPES", {"cpu"})
    bucketed = execute(run, CPU).predictions["scores"]
    assert np.allclose(plain, bucketed, atol=1e-5)


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.parametrize("name", ["sst2", "rte", "wnli"])
def test_a_task_of_glue_is_trained_from_its_folder(name, glue, tmp_path):
    """On real rows: the first 300 of train, or tokenising SST-2 would take most of a minute."""
    folder = tmp_path / name
    folder.mkdir()
    for path in Path(glue, name).glob("*.parquet"):
        table = parquet.read_table(path)
        parquet.write_table(table if "validation" in path.name else table[:300], folder / path.name)
    words = ("model=tiny", "method=bitfit", "size=64", "budget=steps", "budget.steps=2")
    (run,) = plan(
        f"task={name}", f"data.root='{tmp_path}'", "task.examples={}", *words, "train.num_evals=1"
    ).runs
    record = execute(run, RuntimeConfig(device="cpu", data_root=str(tmp_path))).record
    assert record.work["steps"] == 2
    counts = {"sst2": (444, 872), "rte": (146, 277), "wnli": (40, 71)}  # of the larger class, all
    larger, every = counts[name]
    trivial = record.trivial["accuracy"]  # the larger class of 64 rows may be the smaller of these
    assert max(trivial, 1 - trivial) == pytest.approx(larger / every)
    assert 0.3 < record.metrics["accuracy"] < 0.7, "as good as nothing learnt"


def test_a_trial_reads_nothing_of_the_reporting_split(tmp_path, monkeypatch):
    words = tiny.own_task(tmp_path)
    [run] = plan(*words, *SHORT, "method=lora").runs
    [trial, *_] = Question(subject(run), [1e-3], "", 24).trials(1e-3, 1)
    load = loading.load_split

    def poisoned(task, split, *rest):
        if split == "validation":
            raise ConfigError("poison")
        return load(task, split, *rest)

    monkeypatch.setenv("PEFTBENCH_CACHE", str(tmp_path / "cache"))  # no tokens are there yet
    with monkeypatch.context() as patch:
        patch.setattr(loading, "load_split", poisoned)
        with pytest.raises(ConfigError, match="poison"):
            execute(trial, CPU)
        found = execute(trial, replace(CPU, trial=True))
    record, whole = found.record, execute(trial, CPU).record
    assert {n: record.selection[n] for n in ("accuracy", "loss")} == {
        n: whole.selection[n] for n in ("accuracy", "loss")
    }
    assert record.metrics.keys() == whole.metrics.keys()
    assert {*record.metrics.values(), *record.trivial.values()} == {None}
    assert (record.work["trial"], record.work["held_out"], len(found.predictions["label"])) == (
        True,
        6,
        6,
    )
    assert record.work["evaluated"] == 6 * len(record.curve)
    assert set(record.work["truncated"]) == set(record.environment["data"]) == {"train"}
    with monkeypatch.context() as patch:  # resumed behind its last point, nothing is kept of that
        patch.setattr(trainer.PreparedTraining, "reported", property(lambda self: None, _ignored))
        again = execute(trial, replace(CPU, trial=True))
    assert np.array_equal(again.predictions["scores"], found.predictions["scores"])


def _ignored(prepared, outputs):
    """Set nothing."""


def test_predictions_without_memory_are_halved_down_to_one(monkeypatch):
    run = one(("method=full",))
    known, sizes, most = execute(run, CPU), [], 5
    predict = Method.predict

    def scarce(self, model, batch):
        sizes.append(len(batch["labels"]))
        if sizes[-1] > most:
            raise torch.OutOfMemoryError("as a test wants it")
        return predict(self, model, batch)

    monkeypatch.setattr(Method, "predict", scarce)
    with pytest.warns(UserWarning, match="no memory to predict for .* they are halved"):
        found = execute(run, CPU)
    assert np.allclose(found.predictions["scores"], known.predictions["scores"], atol=1e-5)
    assert found.record.work["micro_batch_size"] == known.record.work["micro_batch_size"]
    most = 0
    with (
        pytest.warns(UserWarning, match="2 examples"),
        pytest.raises(PredictionOutOfMemory, match="for one example"),
    ):
        execute(run, CPU)
