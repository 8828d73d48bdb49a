"""Exported folders are loaded by transformers and peft alone, and give the run's logits."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from short_runs import one
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    pipeline,
)

import peftbench
from peftbench.cli.exporting import export
from peftbench.config.sweep import plan
from peftbench.core.configs import WheelsConfig
from peftbench.core.errors import ConfigError, RecordError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import batching, loading, prompting
from peftbench.exporting import card, prediction
from peftbench.exporting.folder import export_run
from peftbench.exporting.kept_run import rebuild
from peftbench.exporting.loading import CalledModel
from peftbench.exporting.probe import probe_logits, probe_tokens
from peftbench.methods.base import SAME_LOGITS, build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.system import hub
from peftbench.training.trainer import TrainingOutput, execute

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds

KEEP = RuntimeConfig(device="cpu", save_weights=True)
WORDS = ("train.precision=fp32", "train.lr=1e-2", "budget.steps=6", "train.num_evals=1", tiny.WIDE)


#: What trainings gave, by the key of the run: several tests export the same.
TRAINED: dict[str, TrainingOutput] = {}


def kept(folder, *words):
    """A short run with its weights in a results folder."""
    run = one(tiny.own_task(folder), *WORDS, *words)
    if run.key not in TRAINED:
        TRAINED[run.key] = execute(run, KEEP)
    done, results = TRAINED[run.key], ResultsFolder(folder / "runs")
    return results.save(replace(done.record, run=run), done.predictions, done.trained), results


def validation_scores(folder, model, run) -> np.ndarray:
    """What a model of transformers' interface gives for the validation texts."""
    texts = loading.load_split(run.task, "validation", None).texts
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with torch.inference_mode():
        return model(**tokenizer(*texts, padding=True, return_tensors="pt")).logits.numpy()


@pytest.mark.parametrize(
    "method",
    [
        ("method=full",),
        ("method=bitfit",),
        ("method=head",),
        ("method=layernorm",),
        ("method=random_mask", "method.keep=0.05"),
        ("method=robust_partial", "method.base_method=full"),
        ("method=robust_partial", "method.base_method=bitfit", "method.choose=lisa"),
    ],
    ids=lambda words: "-".join(word.rpartition("=")[2] for word in words),
)
def test_a_model_is_a_folder_of_transformers(tmp_path, method):
    record, results = kept(tmp_path, *method)
    export_run(record, results, tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    found = validation_scores(tmp_path / "out", model, record.run)
    known = results.predictions(record)["scores"]
    assert np.ptp(known[:, 0]) > 0.01
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    assert model.config.id2label == {0: "other", 1: "vowel"}


def test_default_forms_are_as_documented():
    """In the page, and of the first two in the help of `--form`."""
    default = {}
    for name in sorted({*tiny.METHODS} - {"robust_partial", "sparse_adapter"}):  # of their base's
        try:
            (default[name], *_) = build_method(tiny.one_run(f"method={name}").method).export_forms()
        except ValueError:
            default[name] = "none"
    page = (Path(__file__).parents[2] / "docs/export.md").read_text()
    told = {}
    for form, methods in re.findall(r"^\| `?(\w+)`? \|.*\| (`[^|]+) \|$", page, re.MULTILINE):
        told |= dict.fromkeys(re.findall(r"`(\w+)`", methods), form)
    assert told == default
    (option,) = [one for one in export.params if one.name == "form"]
    for form in ("model", "peft"):
        (methods,) = re.findall(rf"\b{form} for ([\w, ]+);", option.help)
        assert {*methods.split(", ")} == {name for name, one in default.items() if one == form}


@pytest.mark.parametrize("method", ["full", "lora", "adapter"])
def test_weights_that_were_rounded_to_bf16_are_exported_as_they_were_used(tmp_path, method):
    record, results = kept(tmp_path, f"method={method}", "model.dtype=bf16")
    export_run(record, results, tmp_path / "out", validation=False)
    model = peftbench.load_exported(tmp_path / "out")
    known = results.predictions(record)["scores"]
    found = validation_scores(tmp_path / "out", model, record.run)
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| Weights | the checkpoint's are rounded to bf16, what trained is fp32;" in card
    if method == "full":
        assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == "float32"
        weights = load_file(tmp_path / "out/model.safetensors")
        assert {t.dtype for t in weights.values()} == {torch.float32}
    else:
        assert (method == "lora") == (", dtype='bfloat16').float()  # rounded" in card)
        weights = load_file(next((tmp_path / "out").glob("*.safetensors")))
        assert {t.dtype for t in weights.values()} == {torch.float32}


FEW = ("gpt2", "modernbert", "roberta")  # one linear for three, transposed ones, a head of two


@pytest.mark.parametrize(
    "family",
    [name if name in FEW else pytest.param(name, marks=pytest.mark.slow) for name in tiny.FAMILIES],
)
@pytest.mark.parametrize("method", [pytest.param("full", marks=pytest.mark.slow), "lora"])
def test_every_family_has_a_model(tmp_path, family, method):
    words = (f"model.family={family}", f"method={method}")
    record, results = kept(tmp_path, *words)
    export_run(record, results, tmp_path / "out", "model", validation=False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    found = validation_scores(tmp_path / "out", model, record.run)
    known = results.predictions(record)["scores"]
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "method",
    [
        ("method=lora",),
        ("method=lora", "method.use_dora=true", "method.rank_scaling=0.5"),
        ("method=ia3",),
        (
            *("method=sparse_adapter", "method.base_method=lora"),
            *("method.score=random", "method.keep=0.5"),
        ),
        ("method=robust_partial", "method.base_method=lora"),
        ("method=peft", "method.type=LORA"),
        ("method=peft", "method.type=IA3"),
        ("method=peft", "method.type=VERA", "method.config={r: 4}"),
    ],
    ids=lambda words: "-".join(word.rpartition("=")[2] for word in words),
)
def test_an_adapter_is_merged_too(tmp_path, method):
    from peft import PeftModel

    record, results = kept(tmp_path, *method)
    known = results.predictions(record)["scores"]
    export_run(record, results, tmp_path / "merged", "model", validation=False)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    found = validation_scores(tmp_path / "merged", model, record.run)
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)
    export_run(record, results, tmp_path / "adapter", validation=False)
    config = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tmp_path / "adapter/base")
    for name, said in (("merged", "from_pretrained('merged')"), ("adapter", "(base, 'adapter')")):
        card = (tmp_path / name / "README.md").read_text()
        assert said in card
        assert str(tmp_path) not in card
    base = AutoModelForSequenceClassification.from_pretrained(config["base_model_name_or_path"])
    before = {name: t.clone() for name, t in base.state_dict().items()}
    adapted = PeftModel.from_pretrained(base, tmp_path / "adapter").eval()
    found = validation_scores(tmp_path / "adapter", adapted, record.run)
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    after = adapted.unload().state_dict()
    for name, tensor in before.items():  # the head is the adapter's
        assert name.startswith("classifier") or torch.equal(after[name], tensor), name


@pytest.mark.slow
def test_a_fresh_process_needs_no_peftbench(tmp_path):
    record, results = kept(tmp_path, "method=lora")
    lines = export_run(record, results, tmp_path / "adapter", validation=False)
    merged = export_run(record, results, tmp_path / "merged", "model", validation=False)
    text = loading.load_split(record.run.task, "validation", None).texts[0][0]
    for code, folder in ((lines, "adapter"), (merged, "merged")):
        program = [
            "import sys",
            *code,
            "from transformers import AutoTokenizer",
            f"tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / folder)!r})",
            f"logits = model.eval()(**tokenizer({text!r}, return_tensors='pt')).logits",
            "assert not any(name.startswith('peftbench') for name in sys.modules)",
            "print(logits.tolist())",
        ]
        done = subprocess.run(
            [sys.executable, "-c", "\n".join(program)], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])[0]
        known = results.predictions(record)["scores"][0]
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)


def test_two_adapters_on_one_base_do_not_disturb_each_other(tmp_path):
    from peft import PeftModel

    records = {}
    for seed in (0, 1):
        records[seed], results = kept(tmp_path, "method=lora", f"seed={seed}")
        export_run(records[seed], results, tmp_path / str(seed), validation=False)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "0/base")
    model = PeftModel.from_pretrained(base, tmp_path / "0", adapter_name="0")
    model.load_adapter(tmp_path / "1", adapter_name="1")
    for seed in (1, 0, 1):
        model.set_adapter(str(seed))
        found = validation_scores(tmp_path / "0", model.eval(), records[seed].run)
        known = results.predictions(records[seed])["scores"]
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "ia3"])
def test_unloading_an_adapter_gives_back_the_base_bit_for_bit(tmp_path, method):
    from peft import PeftModel

    record, results = kept(tmp_path, f"method={method}")
    export_run(record, results, tmp_path / "out", validation=False)
    kind = AutoModelForSequenceClassification
    base = kind.from_pretrained(tmp_path / "out/base").eval()
    before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
    logits = validation_scores(tmp_path / "out", base, record.run)
    model = PeftModel.from_pretrained(base, tmp_path / "out").eval()
    adapted = validation_scores(tmp_path / "out", model, record.run)
    assert np.abs(adapted - logits).max() > 1e-3
    with model.disable_adapter():
        again = validation_scores(tmp_path / "out", model, record.run)
    np.testing.assert_array_equal(again, logits)
    original = model.base_model.model.classifier.original_module
    plain = model.unload()
    plain.classifier = original  # peft leaves the head of the adapter there
    found = plain.eval().state_dict()
    assert found.keys() == before.keys()
    assert all(torch.equal(found[name], before[name]) for name in before)
    again = validation_scores(tmp_path / "out", plain, record.run)
    np.testing.assert_array_equal(again, logits)


def test_two_prefixes_on_one_base_do_not_disturb_each_other(tmp_path):
    """Each has a table of positions of its own, beside the base's."""
    from peft import PeftModel

    records = {}
    for seed in (0, 1):
        words = ("method=prefix", "method.length=5", f"seed={seed}")
        records[seed], results = kept(tmp_path, *words)
        export_run(records[seed], results, tmp_path / str(seed), validation=False)
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "0/base")
    positions = base.bert.embeddings.position_embeddings.weight.clone()
    model = PeftModel.from_pretrained(base, tmp_path / "0", adapter_name="0")
    model.load_adapter(tmp_path / "1", adapter_name="1")
    for seed in (1, 0):
        model.set_adapter(str(seed))
        found = validation_scores(tmp_path / "0", model.eval(), records[seed].run)
        known = results.predictions(records[seed])["scores"]
        np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    table = base.bert.embeddings.position_embeddings.original_module.weight
    assert torch.equal(table, positions)


@pytest.mark.parametrize("family", ["albert", "distilbert"])
def test_a_prefix_that_peft_cannot_load_is_refused(tmp_path, family):
    words = ("method=prefix", "method.length=5", f"model.family={family}")
    record, results = kept(tmp_path, *words)
    with pytest.raises(ConfigError, match="takes no keys and values from outside in transformers"):
        export_run(record, results, tmp_path / "out", validation=False)
    assert not (tmp_path / "out").exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".out")]


@pytest.mark.parametrize(
    "method",
    [
        ("method=adapter",),
        ("method=pfeiffer",),
        ("method=parallel",),
        ("method=sparse_adapter", "method.keep=0.5"),
        ("method=combined",),
    ],
    ids=lambda words: "-".join(word.rpartition("=")[2] for word in words),
)
def test_adapters_are_loaded_in_one_line(tmp_path, method):
    record, results = kept(tmp_path, *method)
    lines = export_run(record, results, tmp_path / "out", validation=False)
    assert lines[-1] == f"model = peftbench.load_exported({str(tmp_path / 'out')!r})"
    card = (tmp_path / "out/README.md").read_text()
    assert "model = peftbench.load_exported('out')" in card
    assert "| Base model | random weights |" in card
    assert str(tmp_path) not in card
    assert json.loads((tmp_path / "out/peftbench.json").read_text())["base"]["name"] is None
    model = peftbench.load_exported(tmp_path / "out")
    known = results.predictions(record)["scores"]
    found = validation_scores(tmp_path / "out", model, record.run)
    np.testing.assert_allclose(found, known, rtol=1e-4, atol=1e-5)
    other, _ = kept(tmp_path, *method, "seed=1")
    export_run(other, results, tmp_path / "other", validation=False)
    beside = peftbench.load_exported(tmp_path / "other", backbone=model.backbone)
    again = validation_scores(tmp_path / "other", beside, other.run)
    np.testing.assert_allclose(again, results.predictions(other)["scores"], rtol=1e-4, atol=1e-5)
    assert np.array_equal(validation_scores(tmp_path / "out", model, record.run), found)
    plain, bare = pretrained.skeleton(record.run.model).state_dict(), model.unload().state_dict()
    assert plain.keys() == bare.keys()
    for name, tensor in plain.items():
        assert name.startswith("classifier") or torch.equal(bare[name], tensor), name


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (("method=bayes_hybrid",), "BayesHybrid averages draws from a posterior.*could be merged"),
        (("method=blob",), "BLoB averages draws from a posterior.*could be merged"),
        (("method=mc_dropout",), "MCDropout averages passes.*one pass without it could be"),
        (("method=unipelt",), "UniPELT has a gate for each part"),
        (("method=sparse_adapter", "method.score=learned"), "has a gate at each weight.*could be"),
    ],
    ids=lambda given: given[0] if isinstance(given, tuple) else "",
)
def test_others_are_refused_by_name(tmp_path, method, message):
    record, results = kept(tmp_path, *method)
    with pytest.raises(ConfigError, match=message):
        export_run(record, results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_form_that_a_method_has_not_is_refused(tmp_path):
    record, results = kept(tmp_path, "method=bitfit")
    with pytest.raises(ConfigError, match="--form peft is not one of its forms: model"):
        export_run(record, results, tmp_path / "out", "peft")


def test_what_is_not_kept_or_there_already_is_refused(tmp_path):
    record, results = kept(tmp_path, "method=lora")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("")
    with pytest.raises(ConfigError, match="is there already"):
        export_run(record, results, tmp_path / "full")
    weights = results.trained(record.run.key)
    results.write(weights, weights.read_bytes()[:-1] + b"x")
    with pytest.raises(RecordError, match="not the file"):
        export_run(record, results, tmp_path / "out")
    weights.unlink()
    with pytest.raises(ConfigError, match="were saved"):
        export_run(record, results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_base_is_named_so_that_it_is_found_again(tmp_path, monkeypatch):
    """By absolute path, also where a hub model has the name of its folder."""
    made = tmp_path / "bert-base-uncased"
    config = tiny.one_run("model.family=bert", tiny.WIDE).model
    pretrained.skeleton(config).save_pretrained(made)
    from peftbench.data.tokenizer import load_tokenizer

    load_tokenizer(config).save_pretrained(made)
    monkeypatch.chdir(tmp_path)
    words = ("model=auto", "model.checkpoint=./bert-base-uncased", "method=lora")
    given = [word for word in WORDS if word != tiny.WIDE]
    run = one(tiny.own_task(tmp_path), *given, *words)
    done = execute(run, KEEP)
    results = ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", validation=False)
    said = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(made)
    assert said["revision"] is None


def test_the_hub_is_named_with_the_revision(tmp_path):
    """The packaged model's weights are those of a commit on the hub."""
    words = ("model=minilm", "method=lora", "budget.steps=1", "size=24", "train.max_length=32")
    given = [word for word in WORDS if word != tiny.WIDE]
    run = one(tiny.own_task(tmp_path), *given, *words)
    done = execute(run, KEEP)
    results = ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    lines = export_run(record, results, tmp_path / "out", validation=False)
    said = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert said["revision"] == "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
    assert any(said["revision"] in line for line in lines)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.model_max_length == 32
    card = (tmp_path / "out/README.md").read_text()
    assert f"| Record | `{run.key}` |" in card
    assert "base_model: sentence-transformers/all-MiniLM-L6-v2" in card
    assert "0 other, 1 vowel" in card


@pytest.mark.parametrize(
    ("method", "code"),
    [
        ("lora", "base = AutoModelForSequenceClassification.from_pretrained('./mine', num_labels"),
        ("adapter", "model = peftbench.load_exported('out')"),
        ("bitfit", "model = AutoModelForSequenceClassification.from_pretrained('out')"),
    ],
)
def test_a_card_does_not_say_where_a_local_base_is(tmp_path, method, code):
    """Its name and the hash of its weights; what loads the folder here finds it by its path."""
    base = checkpoints.checkpoint(tmp_path / "mine")
    words = ("model=auto", f"model.checkpoint='{base}'", f"method={method}")
    run = one(tiny.own_task(tmp_path), *(word for word in WORDS if word != tiny.WIDE), *words)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    lines = export_run(record, results, tmp_path / "out", validation=False)
    texts = {path.name: path.read_text() for path in (tmp_path / "out").rglob("*.[jm][sd]*")}
    said = {name for name, text in texts.items() if str(tmp_path) in text}
    assert said <= {"peftbench.json", "adapter_config.json"}
    card = texts["README.md"]
    named = f"mine, a local folder (weights {record.run.model.sha256[:12]})"
    assert f"| Base model | {named} |" in card
    assert code in card
    assert ("and the base model `./mine`" in card) == (method != "bitfit")
    if method == "lora":
        assert f"from_pretrained({str(tmp_path / 'mine')!r}, num_labels=2, " in lines[2]
    model = peftbench.load_exported(tmp_path / "out")
    found = validation_scores(tmp_path / "out", model, record.run)
    known = results.predictions(record)["scores"]
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)


def own_checkpoint(folder: Path, family: str, dtype: torch.dtype, language: bool) -> Path:
    """A checkpoint with a head for three classes, or a language model; its config says its type."""
    checkpoints.checkpoint(folder, family, initializer_range=0.2, num_labels=3)
    config = AutoConfig.from_pretrained(folder)
    model = tiny.one_run(f"model.family={family}").model
    config.problem_type = "multi_label_classification"
    made = pretrained.architecture(model, language).from_config(config)
    made.to(dtype).save_pretrained(folder)
    assert AutoConfig.from_pretrained(folder).dtype == dtype
    return folder


def run_card(folder: Path, place: Path, block: int = 0) -> dict:
    """What the code of a card makes, in the folder that holds it."""
    code = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[block]
    namespace: dict = {}
    before = Path.cwd()
    os.chdir(place)
    try:
        exec(code, namespace)
    finally:
        os.chdir(before)
    return namespace


def card_logits(made, run):
    """What the model that a card made answers to the probes."""
    tokens = probe_tokens(run, made["tokenizer"])
    batch = batching.collate(tokens, np.arange(len(tokens)), made["tokenizer"].pad_token_id, "2d")
    ids = prompting.verbalizer_ids(run, made["tokenizer"])
    with torch.inference_mode():
        return CalledModel(made["model"].eval(), ids)(batch)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("method", "form", "family", "words"),
    [
        ("lora", "peft", "bert", ()),
        ("lora", "peft", "llama", ()),
        ("lora", "peft", "roberta", ("model.dtype=bf16",)),
        ("prefix", "peft", "roberta", ("method.length=5",)),
        ("lora", "peft", "llama", ("prompt=words",)),
        ("lora", "peft", "bert", ("prompt=words",)),
        ("lora", "model", "bert", ()),
        ("adapter", "peftbench", "bert", ()),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, tuple) else given,
)
def test_the_code_of_a_card_gives_the_logits_of_the_run(
    tmp_path, method, form, family, words, dtype
):
    """Also where the base has another head, or is kept in 16 bits, and with names of classes."""
    language = "prompt=words" in words
    base = own_checkpoint(tmp_path / "mine", family, dtype, language)
    if language:
        put = "'the film is {0} {answer}'"
        words = (*words, f"prompt.causal={put}", f"prompt.masked={put}")
        words = (*words, "prompt.verbalizer=[good,bad]")
    auto = ("model=auto", f"model.checkpoint='{base}'", f"method={method}")
    given = [word for word in WORDS if word != tiny.WIDE]
    run = one(tiny.own_task(tmp_path), *given, *auto, *words)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", form, validation=False)
    expected = probe_logits(rebuild(record, results))
    made = run_card(tmp_path / "out", tmp_path)
    found = card_logits(made, run)
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    if not language and form != "peftbench":
        assert made["model"].config.id2label == {0: "other", 1: "vowel"}
        assert made["model"].config.label2id == {"other": 0, "vowel": 1}


@pytest.mark.parametrize("kind", ["regression", "classification"])
def test_a_pipeline_of_the_code_of_a_card_answers_in_the_words_of_the_data(tmp_path, kind):
    base = own_checkpoint(tmp_path / "mine", "bert", torch.float32, language=False)
    task = tiny.own_task(tmp_path)
    if kind == "regression":
        for name in ("train", "validation"):
            path = tmp_path / f"{name}.csv"
            path.write_text(path.read_text().replace("vowel", "30").replace("other", "10"))
        task = (*task, "task.kind=regression")
    auto = ("model=auto", f"model.checkpoint='{base}'", "method=lora")
    run = one(task, *(word for word in WORDS if word != tiny.WIDE), *auto)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", validation=False)
    made = run_card(tmp_path / "out", tmp_path)
    given = {"model": made["model"].eval(), "tokenizer": made["tokenizer"], "device": "cpu"}
    texts = loading.load_split(run.task, "validation", None).texts[0]
    found = pipeline("text-classification", **given)(texts)
    known = results.predictions(record)["scores"]
    if kind == "regression":
        assert {one["label"] for one in found} == {"value"}
        np.testing.assert_allclose([one["score"] for one in found], known[:, 0], rtol=1e-4)
        assert known.mean() > 10
    else:
        odds = np.exp(known.astype(np.float64))
        likely = (odds / odds.sum(1, keepdims=True)).max(1)
        assert [one["label"] for one in found] == [["other", "vowel"][n] for n in known.argmax(1)]
        np.testing.assert_allclose([one["score"] for one in found], likely, rtol=1e-4)


def check_card(base: Path, method: str, folder: Path) -> None:
    """Train and export on a checkpoint; the code of the card gives the scores of the run."""
    auto = ("model=auto", f"model.checkpoint='{base}'", method)
    run = one(tiny.own_task(folder), *(word for word in WORDS if word != tiny.WIDE), *auto)
    done, results = execute(run, KEEP), ResultsFolder(folder / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, folder / "out", validation=False)
    made = run_card(folder / "out", folder)
    found = validation_scores(folder / "out", made["model"].eval(), run)
    known = results.predictions(record)["scores"]
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)


def test_the_code_of_a_card_takes_away_what_a_wrapper_left(tmp_path):
    """Without it transformers would load none of the weights, and only say so."""
    base = own_checkpoint(tmp_path / "mine", "bert", torch.float32, language=False)
    weights = load_file(base / "model.safetensors")
    wrapped = {f"module.{name}": tensor for name, tensor in weights.items()}
    save_file(wrapped, base / "model.safetensors", {"format": "pt"})
    check_card(base, "method=lora", tmp_path)


def test_the_card_has_the_base_of_the_adapters_library_too(tmp_path):
    """That library is not installed here: all lines before it are run."""
    base = own_checkpoint(tmp_path / "mine", "bert", torch.bfloat16, language=False)
    auto = ("model=auto", f"model.checkpoint='{base}'", "method=pfeiffer", "method.width=16")
    run = one(tiny.own_task(tmp_path), *(word for word in WORDS if word != tiny.WIDE), *auto)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", validation=False)
    readme = tmp_path / "out/README.md"
    text = readme.read_text()
    assert "\nimport adapters\n" in text
    readme.write_text(text.replace("import adapters\n", "").partition("adapters.init")[0] + "```")
    model = run_card(tmp_path / "out", tmp_path, block=1)["model"]
    assert model.classifier.weight.shape[0] == 2
    assert model.config.id2label == {0: "other", 1: "vowel"}
    for name, tensor in AdaptedModel(Backbone(run.model), 2, seed=0).pretrained.items():
        if not name.startswith("classifier"):
            assert torch.equal(model.get_parameter(name), tensor), name


@pytest.mark.parametrize(
    ("method", "family", "words"),
    [("lora", "llama", ()), ("lora", "llama", ("prompt=words",)), ("pfeiffer", "bert", ())],
    ids=["classifier", "words", "peftbench"],
)
def test_a_base_that_only_a_package_has_is_written_beside_the_adapter(
    tmp_path, monkeypatch, method, family, words
):
    """Its name is a title, or the hub has other weights by that name: nobody could load those."""
    language, title = bool(words), "Tiny.Q4_1 (4-bit weights, de-quantised)"
    base = own_checkpoint(tmp_path / "mine", family, torch.float32, language)
    packed = WheelsConfig(group="tiny", archive="tiny.gguf", sha256="0" * 64, conversion="gguf")
    monkeypatch.setattr(hub.wheels, "available", lambda given: given == packed)
    monkeypatch.setattr(hub.wheels, "unpacked", lambda given, patterns: base)
    if language:
        put = "'the film is {0} {answer}'"
        words = (*words, f"prompt.causal={put}", f"prompt.masked={put}")
        words = (*words, "prompt.verbalizer=[good,bad]")
    auto = ("model=auto", f"model.checkpoint='{base}'", f"method={method}", *words)
    given = [word for word in WORDS if word != tiny.WIDE]
    run = one(tiny.own_task(tmp_path), *given, *auto)
    model = replace(run.model, path=None, files_sha256=None, checkpoint=title, wheels=packed)
    run = replace(run, model=model)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", validation=False)
    card = (tmp_path / "out/README.md").read_text()
    assert "base_model:" not in card
    expected = probe_logits(rebuild(record, results))
    if method != "lora":
        assert f"| Base model | {title} |" in card
        assert "no base model but weights from packages" in card
        assert not (tmp_path / "out/base").exists()
        return
    assert f"| Base model | {title}, in `base` |" in card
    said = json.loads((tmp_path / "out/adapter_config.json").read_text())
    assert said["base_model_name_or_path"] == str(tmp_path / "out/base")
    shutil.rmtree(base)
    made = run_card(tmp_path / "out", tmp_path)
    found = card_logits(made, run)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("method", ["lora", "adapter", "bitfit"])
def test_a_local_base_may_be_moved_beside_the_folder(tmp_path, method):
    """As the card says, for another machine; there the hash of its weights is checked."""
    home, there = tmp_path / "home", tmp_path / "there"
    there.mkdir()
    base = checkpoints.checkpoint(home / "mine")
    words = ("model=auto", f"model.checkpoint='{base}'", f"method={method}")
    run = one(tiny.own_task(tmp_path), *(word for word in WORDS if word != tiny.WIDE), *words)
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, home / "out", validation=False)
    shutil.copytree(home / "out", there / "out")
    base.rename(tmp_path / "away")
    known = results.predictions(record)["scores"]
    if method != "bitfit":
        said = f"the base model of {there / 'out'} is neither at {base} nor at {there / 'mine'};"
        with pytest.raises(ConfigError, match=re.escape(said)):
            peftbench.load_exported(there / "out")
        other = checkpoints.checkpoint(there / "mine", initializer_range=0.5)
        with pytest.raises(ConfigError, match="hash to"):
            peftbench.load_exported(there / "out")
        shutil.rmtree(other)
        (tmp_path / "away").rename(there / "mine")
    model = peftbench.load_exported(there / "out")
    found = validation_scores(there / "out", model, record.run)
    np.testing.assert_allclose(found, known, rtol=1e-3, atol=1e-4)
    source = prediction.open_export(there / "out", KEEP)
    texts = loading.load_split(run.task, "validation", None).texts
    odds = np.exp(known.astype(np.float64))
    likely = odds / odds.sum(1, keepdims=True)
    np.testing.assert_allclose(source.predict(texts), likely, atol=1e-4)


def test_names_from_data_are_text_in_a_card(tmp_path):
    """Not tags, links or further cells of a table, in a page that goes on the hub."""
    task = tiny.own_task(tmp_path)
    names = {"vowel": "<unk> a*b*c", "other": "[free](http://x) \\\\|"}
    for name in ("train", "validation"):
        path = tmp_path / f"{name}.csv"
        text = path.read_text()
        for old, new in names.items():
            text = text.replace(old, new)
        path.write_text(text)
    run = one(task, *WORDS, "method=head")
    done, results = execute(run, KEEP), ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    export_run(record, results, tmp_path / "out", validation=False)
    (row,) = re.findall(r"\| Labels .*", (tmp_path / "out/README.md").read_text())
    assert row == r"| Labels | 0 &lt;unk> a\*b\*c, 1 [free\](http://x) \\\\\| |"


def test_the_exported_tokenizer_pads_as_the_run_did(tmp_path):
    """On the right: the positions of GPT-2 would be others, and with them the logits."""
    base = own_checkpoint(tmp_path / "mine", "gpt2", torch.float32, language=False)
    told = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps(told | {"padding_side": "left"}))
    check_card(base, "method=bitfit", tmp_path)


def test_a_folder_whose_name_is_not_utf_8_is_refused(tmp_path):
    """The tokenizers library cannot write there."""
    record, results = kept(tmp_path, "method=head")
    with pytest.raises(ConfigError, match=r"out_\\xe9: the libraries that write it take names in"):
        export_run(record, results, tmp_path / os.fsdecode(b"out_\xe9"), validation=False)


def test_nothing_is_left_where_the_logits_are_others(tmp_path, monkeypatch):
    record, results = kept(tmp_path, "method=full")
    lines = card.loading_lines

    def spoilt(*given):
        return [*lines(*given), "model.classifier.bias.data[0] += 0.01"]

    monkeypatch.setattr(card, "loading_lines", spoilt)
    with pytest.raises(ConfigError, match=r"gives other logits .* than the run \(by 0.01\)"):
        export_run(record, results, tmp_path / "out", validation=False)
    assert not (tmp_path / "out").exists()


def test_reference_describes_the_validation_texts_without_them(tmp_path):
    record, results = kept(tmp_path, "method=bitfit")
    export_run(record, results, tmp_path / "out")
    body = (tmp_path / "out/reference.json").read_text()
    found = json.loads(body)
    texts = loading.load_split(record.run.task, "validation", None).texts[0]
    assert not any(text in body for text in texts)
    assert found["texts"] == len(texts) == 24
    lengths = [len(text) + 2 for text in texts]  # bytes, start and end
    assert found["length"]["mean"] == pytest.approx(np.mean(lengths))
    assert found["length"]["quantiles"][-1] == max(lengths)
    assert found["tokens"]["total"] == sum(map(len, texts))
    letters = {letter for text in texts for letter in text}
    assert found["tokens"]["distinct"] == len(letters)
    frequent = [x for x in letters if sum(x in text for text in texts) >= 5]
    assert len(found["tokens"]["counts"]) == len(frequent)
    counted = sum(found["tokens"]["counts"].values())
    assert counted == sum(text.count(x) for x in frequent for text in texts)
    assert found["tokens"]["others"] == found["tokens"]["total"] - counted
    scores = results.predictions(record)["scores"].astype(np.float64)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    confidence = (odds / odds.sum(1, keepdims=True)).max(1)
    assert found["predictions"]["confidence"]["mean"] == pytest.approx(confidence.mean())
    assert sum(found["predictions"]["share"].values()) == pytest.approx(1)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    with torch.inference_mode():
        means = [
            model.bert(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
            for text in texts
        ]
    mean = torch.stack(means).mean(0).numpy()
    np.testing.assert_allclose(found["embedding"]["mean"], mean, rtol=1e-3, atol=1e-4)


def test_reference_refuses_other_texts(tmp_path):
    record, results = kept(tmp_path, "method=bitfit")
    path = tmp_path / "validation.csv"
    path.write_text(path.read_text().replace("vowel", "other"))
    with pytest.raises(ConfigError, match="has changed since it was planned"):
        export_run(record, results, tmp_path / "out")
    export_run(record, results, tmp_path / "out", validation=False)
    assert not (tmp_path / "out/reference.json").exists()
    about = json.loads((tmp_path / "out/peftbench.json").read_text())
    assert "path" not in about["run"]["task"]  # where the training data lie is nobody's business


def test_the_backbone_is_not_written_to(tmp_path):
    """Merging makes linears of its own: whoever shares the backbone sees nothing of it."""
    for words in (("method=lora",), ("method=peft", "method.type=LORA")):
        record, results = kept(tmp_path, *words)
        one = rebuild(record, results)
        before = {n: p.clone() for n, p in one.model.pretrained.items()}
        expected = probe_logits(one)
        one.method.merge(one.model)
        for name, parameter in one.model.pretrained.items():
            assert torch.equal(parameter, before[name])
        apart = (probe_logits(one) - expected).abs().max()
        assert apart < SAME_LOGITS


def test_a_model_keeps_its_bits(tmp_path):
    """What did not train is the checkpoint's, bit for bit; what did is what was kept."""
    record, results = kept(tmp_path, "method=bitfit")
    export_run(record, results, tmp_path / "out", validation=False)
    found = load_file(tmp_path / "out/model.safetensors")
    plain = AdaptedModel(Backbone(record.run.model), 2, seed=0).pretrained
    from safetensors.torch import load

    trained = load(results.weights(record))
    assert len(trained) > 10
    for name, tensor in found.items():
        assert torch.equal(tensor, trained.get(name, plain[name].detach())), name


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_full_export_is_where_another_task_starts(tmp_path, family):
    """With three classes where there were two, as from MNLI to MRPC; its head is said to go."""
    record, results = kept(tmp_path, "method=full", f"model.family={family}")
    folder = tmp_path / "out"
    export_run(record, results, folder, validation=False)
    rows = [
        f"{word},{'abc'[n % 3]}"
        for n, word in enumerate(["one", "two", "six", "ten", "ran", "sat"] * 6)
    ]
    (tmp_path / "next.csv").write_text("\n".join(["sentence,label", *rows]) + "\n")
    auto = ("model=auto", f"model.checkpoint='{folder}'")
    words = (*auto, "task=file", f"task.path='{tmp_path}/next.csv'", "method=bitfit")
    planned = plan(*words, "budget=steps", "budget.steps=2", "train.num_evals=1")
    last = {"bert": "classifier.weight", "roberta": "classifier.out_proj.weight"}[family]
    [note] = planned.notes
    assert note.startswith(f"out: its checkpoint has a head of its own ({last}, 2 outputs), which")
    (run,) = planned.runs
    model = AdaptedModel(Backbone(run.model), run.task.classes, seed=0)
    assert model.module.get_parameter(last).shape[0] == 3
    trained = load_file(folder / "model.safetensors")
    name = f"{family}.encoder.layer.1.output.dense.weight"
    assert torch.equal(model.pretrained[name], trained[name])
    assert execute(run, RuntimeConfig(device="cpu")).record.work["steps"] == 2
