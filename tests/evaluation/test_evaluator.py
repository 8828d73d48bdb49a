"""Sets of a suite that share a pass: what is said of each is its own."""

import weakref

import numpy as np
import pytest
import tiny
import torch
from short_runs import CPU, SHORT
from torch.utils._python_dispatch import TorchDispatchMode

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import prompting
from peftbench.data.tokenizer import load_tokenizer
from peftbench.evaluation import evaluator
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.training.trainer import execute

PROMPT = (
    *("prompt=demonstrations", "prompt.num_demonstrations=1", "prompt.verbalizer=[no,yes]"),
    "prompt.masked='{0} so {answer}'",
)


@pytest.mark.filterwarnings("ignore")  # of kinds of noise that these words do not have
def test_texts_that_are_cut_are_counted_in_each_set(tmp_path):
    words = (*tiny.own_task(tmp_path), *SHORT, *PROMPT, "method=head", "train.precision=fp32")
    suite = ("suite=noise", "suite.kinds={deletions:0.5,order:0.2}", "suite.intensities=[1]")

    def tokens(evaluation):
        run = evaluation.run
        encode = prompting.coder(run, load_tokenizer(run.model), None)
        sets = base.build_suite(evaluation.suite).sets(run, None)
        return {name: encode(table) for name, table in sets.items()}

    (whole,) = plan(*words, *suite, "train.max_length=96").evaluations
    median = int(np.median(tokens(whole)["clean"].lengths))
    (evaluation,) = plan(*words, *suite, f"train.max_length={median}").evaluations
    cut = {name: one.truncated for name, one in tokens(evaluation).items()}
    assert cut["deletions/1"] < cut["clean"] < 24
    results = ResultsFolder(tmp_path / "runs")
    made = execute(evaluation.run, RuntimeConfig(device="cpu", save_weights=True))
    results.save(made.record, made.predictions, made.trained)
    done, _ = evaluate_suite(evaluation, results, CPU)
    assert done.findings["truncated"] == cut


def test_norms_inside_a_wrapper_have_moved_and_are_not_inserted():
    method = build_method(tiny.one_run("method=pfeiffer", "method.train_norms=true").method)
    model = AdaptedModel(tiny.backbone("bert"), classes=2, seed=0)
    method.insert(model)
    before = evaluator.moved(model)
    wrapped = [n for n in model.trained() if n not in model.pretrained and "LayerNorm" in n]
    name = next(n for n in wrapped if n.endswith("LayerNorm.part.weight"))
    with torch.no_grad():
        model.module.get_parameter(name).add_(0.5)
    after = evaluator.moved(model)
    assert (before["l2"], after["l2"]) == (0, pytest.approx(0.5 * 32**0.5))
    assert after["inserted_l2"] == before["inserted_l2"]


class Doubles(TorchDispatchMode):
    """The most bytes of fp64 tensors that are alive at once."""

    def __init__(self):
        super().__init__()
        self.alive, self.most = {}, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and made.dtype == torch.float64:
            place = made.untyped_storage().data_ptr()
            self.alive[place] = weakref.ref(made), made.nbytes
            self.most = max(
                self.most, sum(n for one, n in self.alive.values() if one() is not None)
            )
        return made


def test_weights_are_compared_in_fp64_one_tensor_at_a_time():
    """All of them at once would take 24 bytes a parameter beside the weights."""
    model = AdaptedModel(tiny.backbone("roberta"), classes=2, seed=0)
    build_method(tiny.one_run("method=full").method).insert(model)
    with torch.no_grad():
        for name, p in model.trained().items():
            p.add_(0 if model.in_head(name) else -0.25)
    with Doubles() as doubles:
        moved = evaluator.moved(model)
    outside = [p for name, p in model.pretrained.items() if not model.in_head(name)]
    count, largest = sum(p.numel() for p in outside), max(p.numel() for p in outside)
    norm = torch.cat([p.flatten() for p in outside]).double().norm()
    assert moved["mean_abs"] == pytest.approx(0.25)
    assert moved["l2"] == pytest.approx(0.25 * count**0.5)
    assert moved["relative"] == pytest.approx(0.25 * count**0.5 / norm)
    assert moved["inserted_l2"] == 0
    assert 8 * largest <= doubles.most < 8 * (largest + 100)
