"""Sets of a suite that share a pass: what is said of each is its own."""

import pytest
import tiny
from short_runs import CPU, SHORT

from peftbench.config.sweep import plan
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import prompting
from peftbench.data.tokenizer import load_tokenizer
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.results.store import ResultsFolder
from peftbench.suites import base
from peftbench.training.trainer import execute

PROMPT = ("prompt=demonstrations", "prompt.verbalizer=[no,yes]", "prompt.masked='{0} so {answer}'")


@pytest.mark.filterwarnings(
    "ignore"
)  # of word order and synonyms, which the words here do not have
def test_texts_that_are_cut_are_counted_in_each_set(tmp_path):
    words = (*tiny.own_task(tmp_path), *SHORT, *PROMPT, "method=head", "train.precision=fp32")
    suite = ("suite=noise", "suite.kinds={deletions:0.5,order:0.2}", "suite.intensities=[1]")
    length = "train.max_length=24"
    (evaluation,) = plan(*words, *suite, length).evaluations
    run = evaluation.run
    encode = prompting.coder(run, load_tokenizer(run.model), None)
    sets = base.build_suite(evaluation.suite).sets(run, None)
    cut = {name: encode(table).truncated for name, table in sets.items()}
    assert len({*cut.values()}) > 1, cut  # letters that are gone are not cut
    results = ResultsFolder(tmp_path / "runs")
    made = execute(run, RuntimeConfig(device="cpu", save_weights=True))
    results.save(made.record, made.predictions, made.trained)
    done, _ = evaluate_suite(evaluation, results, CPU)
    assert done.findings["truncated"] == cut
