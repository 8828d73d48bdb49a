"""Predictions for a file: those of the record, from a run and from its export, piece by piece."""

import csv
import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from short_runs import CPU, one

import peftbench
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import loading
from peftbench.exporting import prediction
from peftbench.exporting.folder import export_run
from peftbench.gate import measure
from peftbench.models import heads
from peftbench.results.store import ResultsFolder
from peftbench.system import io
from peftbench.training.trainer import execute

pytestmark = pytest.mark.filterwarnings("ignore")  # the libraries' own, of many kinds

KEEP = RuntimeConfig(device="cpu", save_weights=True)
WORDS = ("train.precision=fp32", "train.lr=1e-2", "budget.steps=6", "train.num_evals=1", tiny.WIDE)


def kept(folder, *words, task=None):
    run = one(task or tiny.own_task(folder), *WORDS, *words)
    done = execute(run, KEEP)
    results = ResultsFolder(folder / "runs")
    return results.save(done.record, done.predictions, done.trained), results


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def probabilities(scores: np.ndarray) -> np.ndarray:
    odds = np.exp(scores.astype(np.float64) - scores.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def check_classes(found, record, results):
    known = results.predictions(record)["scores"]
    names = record.run.task.class_names
    assert [row["label"] for row in found] == [names[i] for i in known.argmax(1)]
    likely = [float(row["probability"]) for row in found]
    np.testing.assert_allclose(likely, probabilities(known).max(1), atol=2e-6)
    assert [row["row"] for row in found] == [str(i + 2) for i in range(len(known))]


@pytest.mark.parametrize("method", ["full", "lora", "adapter", "bayes_hybrid", "mc_dropout"])
def test_a_run_predicts_what_its_record_says(tmp_path, method):
    """Also where predictions are drawn: the same draws."""
    record, results = kept(tmp_path, f"method={method}")
    source = prediction.open_run(record, results, CPU)
    prediction.predict_file(source, tmp_path / "validation.csv", tmp_path / "out.csv")
    check_classes(rows(tmp_path / "out.csv"), record, results)


@pytest.mark.parametrize(
    ("method", "form"),
    [("bitfit", "model"), ("lora", "model"), ("lora", "peft"), ("adapter", "peftbench")],
)
def test_an_export_predicts_what_the_record_says(tmp_path, method, form):
    record, results = kept(tmp_path, f"method={method}")
    export_run(record, results, tmp_path / "folder", form, validation=False)
    source = prediction.open_export(tmp_path / "folder", CPU)
    prediction.predict_file(source, tmp_path / "validation.csv", tmp_path / "out.csv")
    check_classes(rows(tmp_path / "out.csv"), record, results)


def values_task(folder, per_letter: float) -> tuple[str, ...]:
    """Words for a regression on the first letter: the letter a is 1900 + 97 per_letter."""
    for name in ("train", "validation"):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["sentence", "label"])
            letters = "abcdefgh" * 4
            rows = [[f"{x} {i}", 1900 + per_letter * ord(x)] for i, x in enumerate(letters)]
            writer.writerows(rows)
    paths = [
        f"task.path='{folder}/train.csv'",
        f"task.validation_path='{folder}/validation.csv'",
    ]
    return ("task=file", "task.name=own", "task.kind=regression", *paths)


@pytest.mark.parametrize(
    ("method", "form", "family"),
    [
        ("bitfit", "model", "bert"),
        ("lora", "peft", "bert"),
        ("prefix", "peft", "roberta"),
    ],
)
def test_years_have_all_their_digits_from_a_folder_of_a_bf16_run(tmp_path, method, form, family):
    """Numbers in bf16 are 8 apart around 2000; the run's own head computes in fp32."""
    words = (f"method={method}", f"model.family={family}", "train.precision=bf16")
    record, results = kept(tmp_path, *words, task=values_task(tmp_path, per_letter=1))
    export_run(record, results, tmp_path / "folder", form, validation=False)
    source = prediction.open_export(tmp_path / "folder", CPU)
    prediction.predict_file(source, tmp_path / "validation.csv", tmp_path / "out.csv")
    found = [float(row["value"]) for row in rows(tmp_path / "out.csv")]
    known = results.predictions(record)["scores"][:, 0]
    assert 1990 < known.mean() < 2010
    np.testing.assert_allclose(found, known, rtol=0, atol=0.2)  # the labels' deviation is 2.3


def test_a_regression_predicts_values_in_the_unit_of_the_file(tmp_path):
    task = values_task(tmp_path, per_letter=10)
    record, results = kept(tmp_path, "method=lora", task=task)
    known = results.predictions(record)["scores"][:, 0]
    assert 2800 < known.mean() < 3000
    export_run(record, results, tmp_path / "folder", "model")
    sources = {
        "run": prediction.open_run(record, results, CPU),
        "folder": prediction.open_export(tmp_path / "folder", CPU),
    }
    for name, source in sources.items():
        prediction.predict_file(source, tmp_path / "validation.csv", tmp_path / f"of_{name}.csv")
        found = [float(row["value"]) for row in rows(tmp_path / f"of_{name}.csv")]
        np.testing.assert_allclose(found, known, rtol=1e-5)
    facts = json.loads((tmp_path / "folder/reference.json").read_text())
    assert facts["predictions"]["value"]["mean"] == pytest.approx(known.mean(), rel=1e-5)


@pytest.mark.parametrize(
    ("family", "method"),
    [
        ("llama", "lora"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (("llama", "ia3"), ("llama", "adapter"), ("qwen2", "lora"))
        ),
    ],
)
def test_prompts_predict_by_words(tmp_path, family, method):
    own = ("prompt=words", "prompt.verbalizer=[yes,no]", "prompt.causal='{0} {answer}'")
    given = (f"method={method}", f"model.family={family}")
    words = (*given, "prompt.masked='{0} {answer}'", *own)
    record, results = kept(tmp_path, *words, "prompt.num_demonstrations=2", "prompt.reserved=6")
    export_run(record, results, tmp_path / "folder", validation=False)
    card = (tmp_path / "folder/README.md").read_text()
    assert "2 solved training examples in front" in card
    assert "These examples are not in this folder: `peftbench predict` reads them" in card
    for name, source in (
        ("run", prediction.open_run(record, results, CPU)),
        ("folder", prediction.open_export(tmp_path / "folder", CPU)),
    ):
        prediction.predict_file(source, tmp_path / "validation.csv", tmp_path / f"of_{name}.csv")
        check_classes(rows(tmp_path / f"of_{name}.csv"), record, results)


@pytest.mark.parametrize(("family", "method"), [("llama", "lora"), ("bert", "lora")])
def test_words_are_scored_in_fp32_from_a_folder_of_a_bf16_run(tmp_path, family, method):
    """In bf16 scores of words are 1/16 apart, so that some are equal and the first class wins."""
    own = ("prompt=words", "prompt.verbalizer=[e,h]", "prompt.masked='{0} {answer}'")
    words = (f"method={method}", f"model.family={family}", "prompt.causal='{0} {answer}'", *own)
    record, results = kept(tmp_path, *words, "train.precision=bf16")
    export_run(record, results, tmp_path / "folder", validation=False)
    known = results.predictions(record)["scores"]
    source = prediction.open_export(tmp_path / "folder", CPU)
    columns = loading.load_split(record.run.task, "validation", None).texts
    tokens = source.tokenize(columns)
    scores = source.predictor.predict(tokens, np.arange(len(tokens)))["scores"]
    np.testing.assert_allclose(scores, known, atol=2e-2)
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert (scores != rounded).mean() > 0.9
    np.testing.assert_allclose(source.predict(columns), probabilities(known), atol=5e-3)


@pytest.mark.parametrize(
    ("method", "form", "family", "more"),
    [
        ("full", "model", "bert", ()),
        ("lora", "model", "bert", ()),
        ("lora", "model", "llama", ()),
        ("lora", "model", "deberta_v2", ()),
        ("full", "model", "modernbert", ()),
        ("lora", "peft", "bert", ()),
        ("lora", "peft", "bert", ("method.use_dora=true",)),
        ("prefix", "peft", "roberta", ("method.length=5",)),
    ],
    ids=lambda given: "-".join(given) if isinstance(given, tuple) else given,
)
def test_weights_of_a_bf16_run_are_stored_alike_in_all_forms(
    tmp_path, monkeypatch, method, form, family, more
):
    """Or a gate between a key and its folder would find it slower and larger; answers are equal."""
    words = (f"method={method}", f"model.family={family}", "train.precision=bf16", *more)
    record, results = kept(tmp_path, *words)
    export_run(record, results, tmp_path / "folder", form, validation=False)
    columns = loading.load_split(record.run.task, "validation", None).texts
    source = prediction.open_export(tmp_path / "folder", CPU)
    with monkeypatch.context() as patch:
        patch.setattr(heads, "store_as_cast", lambda modules, autocast: None)
        whole = prediction.open_export(tmp_path / "folder", CPU)
    np.testing.assert_array_equal(source.predict(columns), whole.predict(columns))
    key = prediction.open_run(record, results, CPU)
    np.testing.assert_allclose(source.predict(columns), key.predict(columns), atol=5e-3)
    sizes = [measure._size(one) for one in (whole, source, key)]
    assert sizes[1] < sizes[0]
    if form == "model":
        assert sizes[1] <= sizes[2]
    if method == "full":
        assert sizes[1] == sizes[2]


def test_a_stopped_prediction_continues(tmp_path, monkeypatch):
    """Piece by piece, and the end is byte for byte that of one that was not stopped."""
    monkeypatch.setattr(prediction, "PIECE", 7)
    record, results = kept(tmp_path, "method=bayes_hybrid")
    source = prediction.open_run(record, results, CPU)
    data = tmp_path / "validation.csv"
    assert prediction.predict_file(source, data, tmp_path / "whole.csv") == 24

    draft = stopped(source, data, tmp_path / "out.csv", 14)
    assert not (tmp_path / "out.csv").exists()
    with open(draft, "a") as file:
        file.write("19,vow")  # a piece that a killed process did not finish
    starts: list[int] = []
    prediction.predict_file(
        source, data, tmp_path / "out.csv", report=lambda done, total: starts.append(done)
    )
    assert starts == [14, 21, 24]
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not draft.exists()
    with pytest.raises(ConfigError, match="is there already"):
        prediction.predict_file(source, data, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (
            lambda scores: scores * np.inf,
            r"validation.csv, texts 8 to 14: head .* 7 of 7 predictions are not finite \(scores\); "
            r"a run in fp16 answers in fp32 with --device cpu",
        ),
        (
            torch.OutOfMemoryError,
            r"validation.csv, texts 8 to 14: head .*: no memory for one text of up to \d+ tokens",
        ),
    ],
    ids=["not finite", "memory"],
)
def test_texts_without_an_answer_are_named(tmp_path, monkeypatch, fault, message):
    """What was answered before them stays for the next call."""
    monkeypatch.setattr(prediction, "PIECE", 7)
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    answer, batches = source.predictor.method.predict, []

    def predict(model, batch):
        batches.append(batch)
        if len(batches) == 1:  # of the first piece
            return answer(model, batch)
        if isinstance(fault, type):
            raise fault("no memory")
        return {name: fault(t) for name, t in answer(model, batch).items()}

    monkeypatch.setattr(type(source.predictor.method), "predict", staticmethod(predict))
    data, out = tmp_path / "validation.csv", tmp_path / "out.csv"
    with pytest.raises(ConfigError, match=message):
        prediction.predict_file(source, data, out)
    monkeypatch.undo()
    (draft,) = tmp_path.glob(".out.csv.*.part")
    assert len(draft.read_text().splitlines()) == 8
    prediction.predict_file(source, data, out)
    check_classes(rows(out), record, results)


def test_texts_that_are_cut_are_counted(tmp_path, monkeypatch):
    """All of the file, also where a part of it was predicted before."""
    monkeypatch.setattr(prediction, "PIECE", 4)
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    most = record.run.train.max_length
    data, out, told = tmp_path / "new.csv", tmp_path / "out.csv", []
    texts = ["a b", "a " * most, "b a"] * 3
    data.write_text("sentence\n" + "".join(f"{text}\n" for text in texts))
    stopped(source, data, out, 4)
    prediction.predict_file(source, data, out, note=told.append)
    assert told == [f"new.csv: 3 of 9 texts are cut to train.max_length={most} (33.3%)"]


def stopped(source, data, out, after: int):
    """The draft that a call leaves which ends after some rows."""

    def stop(done: int, total: int) -> None:
        if done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prediction.predict_file(source, data, out, report=stop)
    return next(out.parent.glob(f".{out.name}.*.part"))


def test_a_draft_may_end_anywhere(tmp_path, monkeypatch):
    """In a character of several bytes, in a text of several lines, in the last row of a piece."""
    monkeypatch.setattr(prediction, "PIECE", 2)
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    named = replace(record.run.task, class_names=['ö\rth"er', "vow\r\nël"])
    source = replace(source, run=replace(record.run, task=named))
    data = tmp_path / "few.csv"
    data.write_text("".join((tmp_path / "validation.csv").read_text().splitlines(True)[:8]))
    prediction.predict_file(source, data, tmp_path / "whole.csv")
    whole = (tmp_path / "whole.csv").read_bytes()
    assert {row["label"] for row in rows(tmp_path / "whole.csv")} <= {*named.class_names}
    out = tmp_path / "out.csv"
    first = len(stopped(source, data, out, 2).read_bytes())
    draft = stopped(source, data, out, 4)
    second = len(draft.read_bytes())
    starts: list[int] = []
    inside = [n for n in range(first, second) if whole[n - 1] in b"\r\n" or whole[n] > 127]
    for length in (first - 1, first, *inside[-3:], second - 1, second):
        starts.clear()
        draft.write_bytes(whole[:length])
        prediction.predict_file(source, data, out, report=lambda done, total: starts.append(done))
        assert out.read_bytes() == whole
        assert starts[0] == (0 if length < first else 2 if length < second else 4)
        out.unlink()


def test_two_calls_at_once_do_not_write_the_same_file(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "PIECE", 7)
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    data, out = tmp_path / "validation.csv", tmp_path / "out.csv"
    told: list[str] = []

    def second(done: int, total: int) -> None:
        if done == 14:
            with pytest.raises(ConfigError) as error:
                prediction.predict_file(source, data, out)
            told.append(str(error.value))

    assert prediction.predict_file(source, data, out, report=second) == 24
    assert told == [f"another process writes {out} now; wait for it, or name another file with -o"]
    assert len(rows(out)) == 24

    def write(done: int, total: int) -> None:
        (tmp_path / "late.csv").write_text("mine")

    with pytest.raises(ConfigError, match=r"late.csv is there already"):
        prediction.predict_file(source, data, tmp_path / "late.csv", report=write)
    assert (tmp_path / "late.csv").read_text() == "mine"


def test_a_draft_of_other_data_is_not_continued(tmp_path, monkeypatch):
    monkeypatch.setattr(prediction, "PIECE", 7)
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    data, out = tmp_path / "validation.csv", tmp_path / "out.csv"

    stopped(source, data, out, 7)
    data.write_text(data.read_text().replace("vowel", "other"))  # other bytes
    starts: list[int] = []
    prediction.predict_file(source, data, out, report=lambda done, total: starts.append(done))
    assert starts[0] == 0


@pytest.mark.parametrize(
    ("name", "body", "message"),
    [
        ("a.csv", "text\nx\n", r"a.csv has no column 'sentence'"),
        ("a.csv", "sentence,more\nx,y\nx\n", r"line 3 has 1 fields, the header 2"),
        ("a.csv", "sentence\nx\nsentence\n", r"line 3 holds the column names again"),
        ("a.jsonl", '{"sentence": "x"}\n{"sentence": ["x"]}\n', r"line 2: column 'sentence' holds"),
        ("a.txt", "x", r"a.txt is none of .csv"),
        ("a.csv", None, r"cannot read .*a.csv: No such file"),
    ],
)
def test_bad_rows_are_named(tmp_path, name, body, message):
    record, results = kept(tmp_path, "method=head")
    if body is not None:
        (tmp_path / name).write_text(body)
    source = prediction.open_run(record, results, CPU)
    with pytest.raises(ConfigError, match=message):
        prediction.predict_file(source, tmp_path / name, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("name", "body", "notes", "places"),
    [
        (
            "new.jsonl",
            '{"sentence": "abc"}\n{"sentence": ""}\n\n{"sentence": "xyz", "more": 1}\n',
            ["1 empty cells in 'sentence' (line 2)"],
            ["1", "2", "4"],
        ),
        (
            "new.json",
            '[{"sentence": "abc"}, {"sentence": ""}, {"sentence": "xyz"}]',
            ["1 empty cells in 'sentence' (example 2)"],
            ["1", "2", "3"],
        ),
        (
            "one.csv",
            'sentence\nabc\n  \nxyz\n""\n',
            ["2 empty cells in 'sentence' (lines 3, 5)"],
            ["2", "3", "4", "5"],
        ),
        (
            "two.tsv",
            "sentence\tlabel\nabc\t\n\t\nxyz\t\n",
            ["1 empty cells in 'sentence' (line 3)"],
            ["2", "3", "4"],
        ),
    ],
)
def test_files_need_no_labels_and_odd_texts_are_told(tmp_path, name, body, notes, places):
    """Every row has an answer, also one without a text."""
    record, results = kept(tmp_path, "method=head")
    (tmp_path / name).write_text(body)
    source, told = prediction.open_run(record, results, CPU), []
    out = tmp_path / "out.csv"
    assert prediction.predict_file(source, tmp_path / name, out, note=told.append) == len(places)
    assert told == [f"{name}: {note}" for note in notes]
    assert [row["row"] for row in rows(out)] == places


FORMS = {
    "bitfit": ("model", "model.safetensors"),
    "lora": ("peft", "adapter_model.safetensors"),
    "adapter": ("peftbench", "peftbench.safetensors"),
}


def exported(tmp_path, method: str):
    """A folder of a form of its own, and its weights."""
    form, name = FORMS[method]
    record, results = kept(tmp_path, f"method={method}")
    export_run(record, results, tmp_path / "folder", form, validation=False)
    return tmp_path / "folder", tmp_path / "folder" / name


def loads(folder) -> list:
    return [lambda: prediction.open_export(folder, CPU), lambda: peftbench.load_exported(folder)]


@pytest.mark.parametrize("method", FORMS)
def test_other_weights_than_the_exported_ones_are_refused(tmp_path, method):
    """Those of another run of the same shape fit the model, and would predict."""
    folder, weights = exported(tmp_path, method)
    about = json.loads((folder / "peftbench.json").read_text())
    right = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert about["weights_sha256"] == {weights.name: right}
    save_file({n: t + 1 for n, t in load_file(weights).items()}, weights, {"format": "pt"})
    other = hashlib.sha256(weights.read_bytes()).hexdigest()
    said = (
        f"{weights.name} is torn or of another model \\(SHA-256 {other[:12]}, exported {right[:12]}"
    )
    for load in loads(folder):
        with pytest.raises(ConfigError, match=said):
            load()
    weights.unlink()
    for load in loads(folder):
        with pytest.raises(ConfigError, match=f"{weights.name} is missing; export the run again"):
            load()


@pytest.mark.parametrize(
    ("method", "name", "was", "now"),
    [
        ("bitfit", "config.json", '"num_attention_heads": 4', '"num_attention_heads": 2'),
        ("lora", "adapter_config.json", '"lora_alpha": 16', '"lora_alpha": 32'),
        ("lora", "tokenizer_config.json", "model_max_length", "max_length"),
        ("adapter", "tokenizer.json", '"normalizer": null', '"normalizer": {"type": "Lowercase"}'),
    ],
)
def test_a_model_or_tokenizer_that_was_changed_is_refused(tmp_path, method, name, was, now):
    """The weights fit it, and other labels come out."""
    folder, _ = exported(tmp_path, method)
    text = (folder / name).read_text()
    assert was in text
    (folder / name).write_text(text.replace(was, now))
    for load in loads(folder):
        with pytest.raises(ConfigError, match=f"{name} was changed since the export"):
            load()
    (folder / name).unlink()
    for load in loads(folder):
        with pytest.raises(ConfigError, match=f"{name} is missing; export the run again"):
            load()


def test_the_place_of_a_base_may_be_changed(tmp_path):
    """It moves with the folder, and others read it there."""
    folder, _ = exported(tmp_path, "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "elsewhere"
    (folder / "adapter_config.json").write_text(json.dumps(config))
    for load in loads(folder):
        load()


@pytest.mark.parametrize("method", FORMS)
def test_an_export_of_an_earlier_version_has_no_hash_of_its_weights(tmp_path, method):
    """It is loaded, and where its weights are torn that is said in one line."""
    folder, weights = exported(tmp_path, method)
    about = io.unsealed(folder / "peftbench.json")
    del about["weights_sha256"], about["files_sha256"]
    (folder / "peftbench.json").write_bytes(io.sealed(about))
    for load in loads(folder):
        load()
    weights.write_bytes(weights.read_bytes()[:-100])
    for load in loads(folder):
        with pytest.raises(
            ConfigError, match=r"(cannot be loaded|is torn).*; export the run again"
        ):
            load()


@pytest.mark.parametrize(
    ("method", "pickle", "missing"),
    [
        ("bitfit", "pytorch_model.bin", "safetensors"),
        ("lora", "adapter_model.bin", "adapter_model.safetensors"),
    ],
)
def test_no_pickle_is_loaded(tmp_path, method, pickle, missing):
    """Not from a folder that says nothing of its weights either, as those of earlier versions."""
    folder, weights = exported(tmp_path, method)
    about = io.unsealed(folder / "peftbench.json")
    del about["weights_sha256"], about["files_sha256"]
    (folder / "peftbench.json").write_bytes(io.sealed(about))
    torch.save(load_file(weights), folder / pickle)
    weights.unlink()
    for load in loads(folder):
        with pytest.raises(ConfigError, match=f"has no {missing}; export the run again"):
            load()


def test_no_code_of_a_folder_is_run(tmp_path, monkeypatch):
    """Nor is anybody asked whether it should be."""
    folder, _ = exported(tmp_path, "bitfit")
    about = io.unsealed(folder / "peftbench.json")
    del about["files_sha256"]
    (folder / "peftbench.json").write_bytes(io.sealed(about))
    config = json.loads((folder / "config.json").read_text())
    code = {"AutoConfig": "own.Own", "AutoModelForSequenceClassification": "own.Model"}
    config |= {"model_type": "own", "auto_map": code}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text("raise SystemExit('it was run')\n")
    monkeypatch.setattr("builtins.input", lambda *given: "y")
    for load in loads(folder):
        with pytest.raises(ConfigError, match=r"cannot be loaded.*contains custom code"):
            load()


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is no folder of `peftbench export`"):
        prediction.open_export(tmp_path, CPU)


# GLUE


def glue_folder(folder, config: str, splits: dict[str, int], texts: list[str], labels: list):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / config).mkdir(parents=True, exist_ok=True)
    for split, count in splits.items():
        columns = {name: [f"{name} {i} {'abc'[i % 3]}" for i in range(count)] for name in texts}
        known = [labels[i % len(labels)] if "test" not in split else -1 for i in range(count)]
        kind = pa.float32() if isinstance(labels[0], float) else pa.int64()
        table = pa.table(columns | {"label": pa.array(known, kind), "idx": list(range(count))})
        pq.write_table(table, folder / config / f"{split}-00000-of-00001.parquet")


def glue_run(tmp_path, name: str):
    """A run on the first rows of a task of GLUE, which are not those of the hub."""
    root = f"{tmp_path}/glue"
    planned = one((f"task={name}", f"data.root='{root}'"), *WORDS, "method=head", "size=12")
    run = replace(planned, task=replace(planned.task, examples={}))
    done = execute(run, replace(KEEP, data_root=root))
    results = ResultsFolder(tmp_path / "runs")
    record = results.save(done.record, done.predictions, done.trained)
    return prediction.open_run(record, results, replace(CPU, data_root=root))


@pytest.mark.parametrize(
    ("name", "texts", "labels", "splits", "files", "allowed"),
    [
        ("cola", ["sentence"], [0, 1], ["test"], ["CoLA.tsv"], {"0", "1"}),
        (
            "rte",
            ["sentence1", "sentence2"],
            [0, 1],
            ["test"],
            ["RTE.tsv"],
            {"entailment", "not_entailment"},
        ),
        (
            "mnli",
            ["premise", "hypothesis"],
            [0, 1, 2],
            ["test_matched", "test_mismatched"],
            ["MNLI-m.tsv", "MNLI-mm.tsv"],
            {"entailment", "neutral", "contradiction"},
        ),
        ("stsb", ["sentence1", "sentence2"], [0.0, 2.5, 5.0], ["test"], ["STS-B.tsv"], None),
    ],
)
def test_the_servers_files(tmp_path, name, texts, labels, splits, files, allowed):
    held = ["validation_matched", "validation_mismatched"] if name == "mnli" else ["validation"]
    counts = {"train": 24, **dict.fromkeys(held, 12), **dict.fromkeys(splits, 9)}
    glue_folder(tmp_path / "glue", name, counts, texts, labels)
    source = glue_run(tmp_path, name)
    made = prediction.predict_glue(source, tmp_path / "server")
    assert [path.name for path in made] == files
    for path in made:
        lines = path.read_text().splitlines()
        assert lines[0] == "index\tprediction"
        table = [line.split("\t") for line in lines[1:]]
        assert [int(index) for index, _ in table] == list(range(9))
        if allowed is None:
            assert all(0 <= float(value) <= 5 for _, value in table)
        else:
            assert {value for _, value in table} <= allowed


def test_the_diagnostic_set_is_answered_by_mnli(tmp_path):
    texts, told = ["premise", "hypothesis"], []
    counts = {"train": 24, "validation_matched": 12, "validation_mismatched": 12}
    counts |= {"test_matched": 9, "test_mismatched": 9}
    glue_folder(tmp_path / "glue", "mnli", counts, texts, [0, 1, 2])
    source = glue_run(tmp_path, "mnli")
    made = prediction.predict_glue(source, tmp_path / "without", told.append)
    assert [path.name for path in made] == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    (note,) = told
    assert note.startswith("AX.tsv is not written, as its texts are missing: mnli: no ax/test-")
    glue_folder(tmp_path / "glue", "ax", {"test": 7}, texts, [0])
    made = prediction.predict_glue(source, tmp_path / "server", told.append)
    assert [path.name for path in made] == ["MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv"]
    assert len(told) == 1
    matched, _, diagnostic = ([*csv.reader(p.open(), delimiter="\t")] for p in made)
    assert diagnostic == matched[:8]  # the same texts by the same model, in names


def test_stopped_files_of_the_server_are_continued(tmp_path, monkeypatch):
    """What the first file has is not predicted again; all files come up together."""
    counts = {"train": 24, "validation_matched": 12, "validation_mismatched": 12}
    texts, tests = ["premise", "hypothesis"], {"test_matched": 9, "test_mismatched": 9}
    glue_folder(tmp_path / "glue", "mnli", counts | tests, texts, [0, 1, 2])
    source = glue_run(tmp_path, "mnli")
    whole = prediction.predict_glue(source, tmp_path / "whole")
    monkeypatch.setattr(prediction, "PIECE", 4)
    told: list[int] = []

    def stop(done: int, total: int) -> None:
        told.append(done)
        if told == [0, 4, 8, 9, 0, 4]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prediction.predict_glue(source, tmp_path / "server", report=stop)
    assert [path.suffix for path in (tmp_path / "server").iterdir()] == [".part"] * 2
    told.clear()
    made = prediction.predict_glue(source, tmp_path / "server", report=stop)
    assert told == [9, 4, 8, 9]
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in whole]
    assert sorted((tmp_path / "server").iterdir()) == made
    with pytest.raises(ConfigError, match=r"MNLI-m.tsv is there already"):
        prediction.check_glue(source.run.task, tmp_path / "server")


def test_a_missing_split_is_told_before_the_first_file(tmp_path):
    counts = {"train": 24, "validation_matched": 12, "validation_mismatched": 12, "test_matched": 9}
    glue_folder(tmp_path / "glue", "mnli", counts, ["premise", "hypothesis"], [0, 1, 2])
    source, told = glue_run(tmp_path, "mnli"), []
    with pytest.raises(ConfigError, match="no mnli/test_mismatched-"):
        prediction.predict_glue(source, tmp_path / "server", report=lambda *done: told.append(done))
    assert told == []


def test_another_task_is_none_of_glues(tmp_path):
    record, results = kept(tmp_path, "method=head")
    source = prediction.open_run(record, results, CPU)
    with pytest.raises(ConfigError, match="own is no task of GLUE"):
        prediction.predict_glue(source, tmp_path / "server")
