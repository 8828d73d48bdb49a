"""Tasks that want texts: from a user's file to a record, its suites and further texts."""

import csv
import json
from dataclasses import replace

import checkpoints
import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from safetensors.torch import load

from peftbench.cli.main import main
from peftbench.config.derived_overrides import run_overrides
from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import batching, loading, prompt_config, prompting
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenizer import load_tokenizer
from peftbench.evaluation import evaluator
from peftbench.evaluation.continual import run_continual
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.exporting import prediction
from peftbench.exporting.folder import export_run
from peftbench.methods.base import Method, build_method, task_loss
from peftbench.models import decoding, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.results.store import ResultsFolder
from peftbench.runner import packs
from peftbench.suites import base
from peftbench.training import trainer
from peftbench.training.measurement import Phases
from peftbench.training.trainer import HELD, TrainingJob, execute, load_task_data
from peftbench.training.warm_cache import WarmCache

CPU = RuntimeConfig(device="cpu", save_weights=True)
LLAMA = ("model=tiny", "model.family=llama", tiny.WIDE)
SHORT = ("budget=steps", "train.num_evals=1", "train.precision=fp32", "train.batch_size=8")
NAMES = ["ann", "bob", "cy", "dee", "eve", "flo"]


def files(folder, start: int = 0, **bad: str) -> tuple[str, ...]:
    """Words for a task: repeat a name that the text has, behind a number."""
    folder.mkdir(exist_ok=True)
    for part, count in (("train", 48), ("validation", 12)):
        with open(folder / f"{part}.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["input", "target"])
            for number in range(count):
                name = NAMES[number % 6]
                writer.writerow(
                    [f"{start + number} {name}", bad.get(part, name) if number == 3 else name]
                )
    paths = f"task.path='{folder}/train.csv'", f"task.validation_path='{folder}/validation.csv'"
    return ("task=file", "task.kind=generation", "task.max_new_tokens=6", *paths)


@pytest.fixture
def task(tmp_path):
    return files(tmp_path / "data")


def one(task, *words, model=LLAMA):
    given = {word.partition("=")[0]: word for word in (*SHORT, "method=full", *words)}
    (run,) = plan(*task, *model, *given.values()).runs  # the last one counts
    return run


# prompts


def coded(run, table: LabelledTexts, most=512):
    tokenizer = load_tokenizer(run.model)
    prompt = prompting.build_prompt(run, None)
    return tokenizer, prompt.encode(table, tokenizer, most)


def test_what_is_wanted_follows_the_question(task):
    run = one(task, "prompt=generate", "prompt.causal='Say {0}: {answer}'")
    table = LabelledTexts([["7 bob"]], np.zeros(1, np.int64), ["bob"])
    tokenizer, tokens = coded(run, table)
    assert tokenizer.decode(tokens.ids) == "[CLS]Say 7 bob: bob[SEP]"
    assert tokens.wanted.tolist() == [len(" bob") + 1], "the blank is written, and the end"
    assert tokens.answer.tolist() == [len(tokens.ids) - 1 - 5]
    questions = tokens.questions()
    assert tokenizer.decode(questions.ids) == "[CLS]Say 7 bob:"
    assert questions.lengths.tolist() == [tokens.answer[0] + 1]
    batch = batching.collate(tokens, np.array([0, 0]), 0, "causal")
    assert batch["labels"].tolist() == [tokens.ids[-5:].tolist()] * 2
    assert batch["places"][0].tolist() == list(range(tokens.answer[0], tokens.answer[0] + 5))


def test_a_prompt_that_is_not_named_is_that_of_the_option(task):
    assert one(task).key == one(task, "prompt=generate").key
    assert one(task).prompt.template == "{0}\n{answer}"
    assert one(task).key != one(task, "prompt=generate", "prompt.num_demonstrations=2").key


def test_demonstrations_are_solved_and_never_trained_on(task):
    run = one(task, "prompt=generate", "prompt.num_demonstrations=2")
    train = loading.load_split(run.task, "train", None)
    shown = prompt_config.reserved(run, train.label)
    assert len(shown) == 8
    first, second = (train.take(shown[[n]]) for n in (0, 1))
    table = LabelledTexts([["7 bob"]], np.zeros(1, np.int64), ["bob"])
    tokenizer, tokens = coded(run, table)
    front = "".join(f"{t.texts[0][0]}\n{t.targets[0]}\n\n" for t in (second, first))
    assert tokenizer.decode(tokens.ids) == f"[CLS]{front}7 bob\nbob[SEP]"
    outcome = execute(replace(run, budget=replace(run.budget, steps=1)), CPU)
    assert outcome.record.work["train_size"] == 40


def test_texts_that_are_too_long_are_cut_and_counted(task):
    run = one(task)
    table = LabelledTexts(
        [["x" * 100, "y" * 10, "z"]], np.zeros(3, np.int64), ["short", "t" * 100, "ok"]
    )
    tokenizer, tokens = coded(run, table, most=40)
    assert tokens.truncated == 2
    assert tokens.lengths.max() <= 40
    assert tokens.wanted.tolist() == [6, 20, 3], "half of the room at most, ends included"
    first = tokenizer.decode(tokens.ids[: tokens.ends[0]])
    assert first.endswith("\nshort[SEP]")
    assert "x" * 25 in first


def test_what_is_scored_is_cut_the_same_whatever_is_wanted(tmp_path):
    task = files(tmp_path / "data", validation="t" * 30)
    text = "abcdefghij" * 8
    for part in ("train", "validation"):
        path = tmp_path / "data" / f"{part}.csv"
        path.write_text(path.read_text().replace(" ", f" {text} "))
    run = one(task, "train.max_length=40", "budget.steps=1", "seed=1")
    trained = execute(run, CPU)
    assert trained.record.work["truncated"] == {"train": 48, "validation": 12}
    results = ResultsFolder(tmp_path / "results")
    results.save(trained.record, trained.predictions, trained.trained)
    table = loading.load_split(run.task, "validation", None)
    source = prediction.open_run(results.load(run.key), results, CPU)
    texts = list(source.predict(table.texts)[:, 0])
    assert np.array_equal(decoding.digests(texts), trained.predictions["text_sha256"])

    held = one(task, "train.max_length=40", "checkpoint_selection=best_on_holdout")
    clock = Phases(torch.device("cpu"))
    data = load_task_data(TrainingJob(held, CPU), load_tokenizer(run.model), 0, clock)
    questions = data.tokens[HELD].questions()
    train = loading.load_split(run.task, "train", None).take(data.held)
    _, alone = coded(held, train.asked(), most=40)
    assert np.array_equal(questions.ids, alone.questions().ids)
    assert data.targets[HELD] == train.targets


# the loss


def test_loss_is_that_of_transformers(task):
    run = one(task)
    tokenizer = load_tokenizer(run.model)
    texts = loading.load_split(run.task, "train", None).take(np.array([0, 3, 5]))
    texts.targets[1] = "a longer target"
    tokens = prompting.coder(run, tokenizer, None)(texts)
    language = pretrained.skeleton(run.model, language=True).eval()
    backbone = Backbone(run.model, loaded=language, verbalizer_ids=[])
    model = AdaptedModel(backbone, 0, seed=0).eval()
    batch = batching.collate(tokens, np.arange(3), 0, "causal")
    ours = Method.compute_loss(_Plain(), model, batch)
    oracle = pretrained.skeleton(run.model, language=True).eval()
    labels = batch["input_ids"].clone()
    place = torch.arange(labels.shape[1])
    wanted = (place > batch["answer"][:, None]) & (place < batch["lengths"][:, None])
    theirs = oracle(
        input_ids=batch["input_ids"],
        attention_mask=(place < batch["lengths"][:, None]).long(),
        labels=labels.masked_fill(~wanted, -100),
    ).loss
    torch.testing.assert_close(ours, theirs)
    parts = [batching.collate(tokens, np.array([n]), 0, "causal") for n in range(3)]
    whole = sum(
        task_loss(model(part), part["labels"]) * batch["weights"][n] / 3
        for n, part in enumerate(parts)
    )
    torch.testing.assert_close(whole, theirs), "micro-batches add up"


class _Plain(Method):
    """The loss of every method that has none of its own."""


def test_a_tied_head_trains_with_the_word_embeddings(task):
    model = (*LLAMA[:2], "model.shape={initializer_range:0.1,tie_word_embeddings:true}")
    run = one(task, model=model)
    language = pretrained.skeleton(run.model, language=True)
    model = AdaptedModel(Backbone(run.model, loaded=language, verbalizer_ids=[]), 0, seed=0)
    build_method(run.method).insert(model)
    head, words = model.module.get_output_embeddings(), model.module.get_input_embeddings()
    assert head.weight is words.weight
    assert words.weight.requires_grad
    counts = model.counts()
    assert counts["trained"] == counts["total"] == sum(p.numel() for p in language.parameters())
    state = {name: tensor.clone() for name, tensor in model.state().items()}
    again = AdaptedModel(model.backbone, 0, seed=0)
    state["model.embed_tokens.weight"] += 1
    again.restore(state)
    assert torch.equal(again.module.lm_head.weight, state["model.embed_tokens.weight"])


# a run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generation")
    run = one(files(folder / "data"), "budget.steps=150", "train.lr=1e-2", "prompt=generate")
    results = ResultsFolder(folder / "results")
    warm = WarmCache()
    outcome = execute(run, CPU, results=results, warm=warm)
    results.save(outcome.record, outcome.predictions, outcome.trained)
    return results.load(run.key), results, warm


def test_it_learns_to_write(trained):
    record, results, _ = trained
    assert list(record.metrics) == ["rouge_l", "rouge1", "rouge2", "exact_match", "token_f1"]
    assert record.score == record.metrics["rouge_l"] > 0.9
    nothing = {"rouge2": 0.0}  # of one word
    constant = dict.fromkeys(record.metrics, pytest.approx(1 / 6)) | nothing  # one of six names
    assert record.trivial == constant
    assert not record.collapsed
    found = results.predictions(record)
    assert found["scores"].shape == (12, 5)
    assert record.metrics["exact_match"] == pytest.approx(found["scores"][:, 3].mean())
    assert found["text_sha256"].shape == (12, 32)
    assert set(found) == {"item", "label", "scores", "text_sha256", "new_tokens"}, "no texts"
    assert record.work["texts"]["empty"] == 0
    assert 3 <= record.work["texts"]["mean_tokens"] <= 6
    shown = CliRunner().invoke(main, ["show", record.run.key, "--results", str(results.folder)])
    mean = record.work["texts"]["mean_tokens"]
    assert f"texts        {mean:.1f} tokens on average, 0 empty, " in shown.output


def test_predict_writes_texts(trained, tmp_path):
    record, results, _ = trained
    path = tmp_path / "more.csv"
    path.write_text("input\n3 dee\n4 eve\n")
    source = prediction.open_run(results.load(record.run.key), results, CPU)
    assert prediction.predict_file(source, path, tmp_path / "out.csv") == 2
    lines = list(csv.reader(open(tmp_path / "out.csv")))  # noqa: SIM115
    assert lines[0] == ["row", "text"]
    assert [line[1] for line in lines[1:]] == ["dee", "eve"]
    with pytest.raises(ConfigError, match="there is no export; `peftbench predict"):
        export_run(record, results, tmp_path / "folder")


def page_of(results, path, *words):
    told = CliRunner().invoke(
        main, ["report", "html", "--results", str(results.folder), "-o", str(path), *words]
    )
    return told, path.read_text() if path.exists() else ""


def table_of_texts(page):
    script = page.partition('<script type="application/json"')[2].partition(">")[2]
    data = json.loads(script.partition("</script>")[0])
    (table,) = [one for one in data["tables"] if one["about"] == "texts"]
    return table


def test_the_page_shows_texts_beside_those_that_were_wanted(trained, tmp_path):
    _, results, _ = trained
    told, page = page_of(results, tmp_path / "page.html", "--show-texts")
    assert told.exit_code == 0, told.output
    table = table_of_texts(page)
    assert table["columns"] == ["text", "input", "wanted", "Full fine-tuning"]
    assert table["rows"][3] == ["4", "3 dee", "dee", "dee (100)"]
    assert len(table["rows"]) == 12
    assert (table["labels"], table["prose"]) == (1, 3)
    assert len(table["notes"]) == 1, "all are those that were scored, and all rows have weights"
    assert "ROUGE-L" in table["notes"][0]
    _, page = page_of(results, tmp_path / "plain.html")
    assert "3 dee" not in page


def test_texts_need_weights_that_write_them(trained, tmp_path):
    record, results, _ = trained
    bare = ResultsFolder(tmp_path / "bare")
    bare.save(replace(record, trained_sha256=None), results.predictions(record))
    told, page = page_of(bare, tmp_path / "page.html", "--show-texts")
    assert (told.exit_code, page) == (2, "")
    assert "no run here has kept any; train with --save-weights" in told.output
    words = ["report", "html", "--results", str(results.folder), "--show-texts", "--live"]
    told = CliRunner().invoke(main, words)
    assert (told.exit_code, "a page that is served holds no texts" in told.output) == (2, True)


def test_what_was_not_trained_needs_no_weights_to_write_its_texts(tmp_path):
    run = one(files(tmp_path / "data"), "budget.steps=0", "prompt=generate", "method=lora")
    results = ResultsFolder(tmp_path / "results")
    outcome = execute(run, replace(CPU, save_weights=False), results=results)
    results.save(outcome.record, outcome.predictions, outcome.trained)
    told, page = page_of(results, tmp_path / "page.html", "--show-texts")
    assert told.exit_code == 0, told.output
    table = table_of_texts(page)
    assert table["columns"][-2:] == ["wanted", "untrained"]
    assert len(table["notes"]) == 1, "all are those that were scored"


def asked(record, results, warm, *words):
    task = record.run.task
    own = (
        *("task=file", "task.kind=generation", "task.max_new_tokens=6"),
        *(f"task.path='{task.path}'", f"task.validation_path='{task.validation_path}'"),
    )
    run_words = ("budget.steps=150", "train.lr=1e-2", "prompt=generate", "method=full")
    (evaluation,) = plan(*own, *LLAMA, *SHORT, *run_words, *words).evaluations
    assert evaluation.run.key == record.run.key
    return evaluation


def test_demonstrations_at_test_time(trained):
    record, results, warm = trained
    evaluation = asked(*trained, "suite=in_context", "suite.counts=[0,2]")
    done, arrays = evaluate_suite(evaluation, results, CPU, warm=warm)
    assert done.findings["scores"][0] == pytest.approx(record.score)
    assert done.findings["flips"][0] == 0.0
    assert 0 <= done.findings["flips"][1] <= 1
    assert arrays["scores/shown/2"].shape == (12, 5)


def test_the_task_under_another_file(trained, tmp_path):
    record, results, warm = trained
    files(tmp_path / "other", validation="ann ann", start=100)
    target = f"{{path:'{tmp_path}/other/validation.csv',kind:generation}}"
    evaluation = asked(*trained, "suite=shift", f"suite.targets={{again:{target}}}")
    done, arrays = evaluate_suite(evaluation, results, CPU, warm=warm)
    told = done.findings["targets"]["again"]
    assert told["metric"] == "rouge_l"
    assert told["scores"]["rouge_l"] > 0.8 > 0.5 > told["untrained"]["rouge_l"]
    assert told["gap"] == pytest.approx(record.score - told["scores"]["rouge_l"])
    assert told["trivial"] == 0.0
    assert told["texts"]["trained"]["cut"] == 0  # it has learned to end
    assert told["texts"]["untrained"]["mean_tokens"] > told["texts"]["trained"]["mean_tokens"]
    assert {name.partition("/")[0] for name in arrays} == {"label", "scores", "new_tokens"}


def test_an_empty_text_is_one_without_letters_however_many_tokens_it_has(task):
    """One token may be an answer, and blanks before the end are none."""
    [run] = plan(*task, *LLAMA, *SHORT, "budget.steps=1").runs
    outputs = {
        "new_tokens": np.array([1, 1, 2, 6]),
        "text_sha256": decoding.digests(["A", "", "", "no"]),
    }
    told = trainer._texts(run, outputs)
    assert told == {"mean_tokens": 2.5, "empty": 2, "cut": 1}


def test_other_tasks_in_their_own_words(trained):
    _, results, warm = trained
    evaluation = asked(*trained, "suite=transfer", "suite.targets={synthetic_paraphrase:{}}")
    done, arrays = evaluate_suite(evaluation, results, CPU, warm=warm)
    told = done.findings["targets"]["synthetic_paraphrase"]
    assert (told["metric"], told["home"], told["gap"]) == ("accuracy", None, None)
    scores = arrays["scores/synthetic_paraphrase"]
    assert scores.shape[1] == 2
    # the rows of the label words are those of the trained table
    there = evaluation_run(evaluation)
    assert not np.allclose(scores, arrays["scores/untrained/synthetic_paraphrase"])
    assert there.prompt.verbalizer == ["No", "Yes"]


def test_demonstrations_of_another_task_are_its_own_and_not_scored(trained):
    _, results, warm = trained
    targets = (
        "{plain:{task:synthetic_paraphrase,examples:40},"
        "shown:{task:synthetic_paraphrase,examples:40,demonstrations:3}}"
    )
    evaluation = asked(*trained, "suite=transfer", f"suite.targets={targets}")
    suite = base.build_suite(evaluation.suite)
    sets = suite.sets(evaluation.run, None)
    assert sets["plain"].texts == sets["shown"].texts
    front = suite.demonstrations("shown", evaluation.run, None)
    assert front.label.tolist() == [0, 1, 0]
    scored = set(zip(*sets["shown"].texts, strict=True))
    assert not scored & set(zip(*front.texts, strict=True))
    assert suite.demonstrations("plain", evaluation.run, None) is None
    there = suite.asked_as("shown", evaluation.run)
    tokenizer = load_tokenizer(there.model)
    prompt = prompting.build_prompt(there, None, None, front)
    said = tokenizer.decode(prompt.encode(sets["shown"].take(np.array([0])), tokenizer, 512).ids)
    words = [there.prompt.verbalizer[label] for label in front.label]
    assert said.count("The same?") == 4
    assert [part.split()[0] for part in said.split("The same?")[1:4]] == words[::-1]
    done, _ = evaluate_suite(evaluation, results, CPU, warm=warm)
    assert list(done.findings["targets"]) == ["plain", "shown"]
    cut = done.findings["truncated"]  # 128 tokens are too few for three of them
    assert cut["plain"] < cut["shown"] == 40


def test_untrained_outputs_are_made_once_for_all_runs_of_a_model(trained, monkeypatch):
    _, results, _ = trained
    warm, made, told = WarmCache(), [], []
    answer = evaluator.KeptModel.answer

    def counted(self, *given, untrained=False):
        made.append(untrained)
        return answer(self, *given, untrained=untrained)

    monkeypatch.setattr(evaluator.KeptModel, "answer", counted)
    targets = (
        "{a:{task:synthetic_paraphrase,examples:20},b:{task:synthetic_acceptability,examples:9}}"
    )
    evaluation = asked(*trained, "suite=transfer", f"suite.targets={targets}")
    first, _ = evaluate_suite(evaluation, results, CPU, warm=warm, report=told.append)
    second, _ = evaluate_suite(evaluation, results, CPU, warm=warm)
    assert (made.count(True), made.count(False)) == (2, 4)
    assert first.findings == second.findings
    # of all passes together: 20 and 9 texts, each for the trained model and the untrained one
    ends = [news["fraction"] for news in told]
    assert ends == pytest.approx([20 / 58, 40 / 58, 49 / 58, 1.0])


def test_cells_of_a_sweep_without_a_suite(task):
    asks = ("suite=transfer,null", "suite.targets={synthetic_paraphrase:{}}")
    planned = plan(*task, *LLAMA, *SHORT, "budget.steps=1", "method=lora,full", *asks)
    assert (len(planned.runs), len(planned.evaluations)) == (2, 2)
    when = "when=method=full: suite=null"
    planned = plan(
        *task, *LLAMA, *SHORT, "budget.steps=1", "method=lora,full", asks[1], "suite=transfer", when
    )
    (evaluation,) = planned.evaluations
    assert (len(planned.runs), evaluation.run.method.name) == (2, "lora")


def evaluation_run(evaluation):
    return base.build_suite(evaluation.suite).asked_as("synthetic_paraphrase", evaluation.run)


@pytest.mark.parametrize(
    ("method", "model"),
    [("full", LLAMA), ("full", ("model=tiny",)), ("bitfit", ("model=tiny",)), ("lora", LLAMA)],
)
def test_label_words_in_another_order_keep_their_trained_rows(method, model):
    words = ("task=synthetic_paraphrase", "prompt=words", "size=32", "train.max_length=48")
    learn = ("budget.steps=6", "train.lr=1e-2", "train.micro_batch_size=8")
    (run,) = plan(*SHORT, *words, *learn, *model, f"method={method}").runs
    outcome = execute(run, CPU)
    warm, cpu = WarmCache(), torch.device("cpu")
    backbone, tokenizer = warm.backbone(run, cpu)
    kept = evaluator.KeptModel(
        run, load(outcome.trained), backbone.verbalizer_ids, tokenizer, warm, cpu, "fp32"
    )
    swapped = replace(run, prompt=replace(run.prompt, verbalizer=run.prompt.verbalizer[::-1]))
    table = loading.load_split(run.task, "validation", None).take(np.arange(20))
    own, other = (
        kept.answer(one, prompting.coder(one, tokenizer, None)(table))["scores"]
        for one in (run, swapped)
    )
    assert np.allclose(own, other[:, ::-1], atol=1e-6)
    before = kept.answer(run, prompting.coder(run, tokenizer, None)(table), untrained=True)
    assert not np.allclose(own, before["scores"], atol=1e-3)


TIED = ("model=tiny", "model.family=llama", "model.shape={tie_word_embeddings:true}")


@pytest.mark.parametrize("model", [LLAMA, TIED])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_label_words_that_were_trained_leave_the_whole_vocabulary(task, method, model):
    words = ("task=synthetic_paraphrase", "prompt=words", "size=32", "train.max_length=48")
    learn = ("budget.steps=6", "train.lr=1e-2", "train.micro_batch_size=8")
    (run,) = plan(*SHORT, *words, *learn, *model, f"method={method}").runs
    state, warm, cpu = load(execute(run, CPU).trained), WarmCache(), torch.device("cpu")
    backbone, tokenizer = warm.backbone(run, cpu)
    ids = backbone.verbalizer_ids
    kept = evaluator.KeptModel(run, state, ids, tokenizer, warm, cpu, "fp32")
    writes = one(task, model=model)
    table = loading.load_split(writes.task, "validation", None).asked()
    tokens = prompting.coder(writes, tokenizer, None)(table)
    written = kept.answer(writes, tokens)["written"]
    # the same weights in a model that has its head as it was pretrained
    method = build_method(run.method)
    plain = AdaptedModel(Backbone(run.model, cpu, verbalizer_ids=[]), 0, 0)
    with torch.random.fork_rng():
        method.insert(plain)
    inner = {name: tensor for name, tensor in state.items() if "lm_head" not in name}
    with torch.no_grad():
        for name, parameter in plain.module.named_parameters():
            if name in inner:
                parameter.copy_(inner[name])
    asked_of = tokens.questions()
    view = batching.collate(asked_of, np.arange(len(tokens)), tokenizer.pad_token_id, "causal")
    plain.eval()
    with torch.inference_mode():
        how = decoding.of_run(writes, tokenizer)
        assert np.array_equal(decoding.greedy(plain, view, how).numpy(), written)


def test_rounds(trained):
    _, results, warm = trained
    evaluation = asked(*trained, "suite=continual", "suite.chunks=[20,20]")
    done, _ = run_continual(evaluation, results, CPU, warm=warm)
    assert done.findings["metrics"] == ["rouge_l"]
    assert done.findings["validation"][1] > 0.5


# no step


def test_without_a_step_the_model_is_scored_as_it_is(task):
    (run, other) = (one(task, "budget.steps=0", f"method={m}") for m in ("full", "lora"))
    outcome = execute(run, CPU)
    record = outcome.record
    assert record.work["steps"] == record.work["examples"] == 0
    assert record.speed == {"examples_per_second": None, "tokens_per_second": None}
    assert (record.run.row, record.curve[0]["loss"]) == ("untrained", None)
    assert execute(other, CPU).record.metrics == record.metrics, "both start where the model is"
    assert packs.together(run) is None


def test_runs_that_write_texts_are_not_packed(task):
    given = [one(task, f"seed={seed}") for seed in range(2)]
    assert [len(unit) for unit in packs.units(given, 64, 1)] == [1, 1]


# what is refused


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("model.family=bert",), r"tiny is an encoder, which writes none; choose a causal"),
        (("prompt=words",), r"are texts, not classes; use prompt=generate"),
        (("train.class_weights=balanced",), "has texts, which are no classes"),
        (("augmentation=noise", "augmentation.kinds.typos=0.1"), "noise would change"),
        (("task.max_new_tokens=0",), "task.max_new_tokens must be"),
        (("task.template='no slots'",), "must hold each of"),
        (("suite=calibration",), "calibration: .* wants texts"),
        (("suite=noise", "suite.kinds.typos=0.1"), "noise: .* wants texts"),
        (("suite=latency",), "latency: .* wants texts"),
        (("suite=shift", "suite.targets={synthetic_paraphrase:{}}"), "suite=transfer asks each"),
        (
            ("suite=transfer", "suite.targets={synthetic_paraphrase:{demonstrations:2}}"),
            r"synthetic_paraphrase.demonstrations=2 are examples that are not scored; set how many",
        ),
        (("task.stop=''",), "task.stop is a text"),
        (("task.stop=ann",), r"8 of 48 texts of 'target' have task.stop='ann' inside"),
        (("prompt=generate", "prompt.separator=''"), "prompt.separator='' is a text between"),
        (("suite=transfer",), r"transfer: no targets are known .* suite.targets={qqp:{},rte:{}}"),
        (
            ("suite=transfer", "suite.targets={synthetic_paraphrase:{above:1}}"),
            "transfer: synthetic_paraphrase has classes; `above` cuts values",
        ),
    ],
)
def test_refused_when_planned(task, words, told):
    given = {word.partition("=")[0]: word for word in (*task, *LLAMA, *words)}
    with pytest.raises(ConfigError, match=told):
        plan(*SHORT, "budget.steps=1", "method=full", *given.values())


def test_line_breaks_are_typed_as_escapes(task):
    run = one(
        task, r"task.template='Say {0}\nNow: {answer}'", r"task.stop='\n\n'", "prompt=generate"
    )
    assert (run.prompt.template, run.task.stop) == ("Say {0}\nNow: {answer}", "\n\n")
    own = one(task, r"prompt.causal='{0}\n\t{answer}'", "prompt=generate", r"prompt.separator='\n'")
    assert own.prompt.template == "{0}\n\t{answer}"
    assert (run.prompt.separator, own.prompt.separator) == ("\n\n", None)


def test_prompts_for_texts_are_refused_for_classes():
    with pytest.raises(ConfigError, match="are classes, not texts"):
        plan("task=synthetic_paraphrase", "prompt=generate", *LLAMA)
    with pytest.raises(ConfigError, match="the head of one task cannot answer for another"):
        plan("task=synthetic_paraphrase", "suite=transfer", *LLAMA)


def test_empty_targets_are_named(tmp_path):
    task = files(tmp_path / "data", train=" ")
    with pytest.raises(ConfigError, match=r"1 of 48 texts of 'target' are empty.*line 5"):
        one(task)


@pytest.mark.parametrize("method", ["blob", "mc_dropout", "unipelt"])
def test_methods_that_look_at_whole_texts_are_refused(task, method):
    with pytest.raises(ConfigError, match="the method looks at whole texts, or draws"):
        one(task, f"method={method}")


def test_a_context_that_is_too_short(task):
    run = one(task, "train.max_length=512")
    from peftbench.models.checkpoint_inspection import CheckpointFacts, check_fit

    facts = CheckpointFacts("", 512, None, None, None, [])
    with pytest.raises(ConfigError, match=r"max_length=512 and task.max_new_tokens=6 are more"):
        check_fit(run, facts)


@pytest.mark.slow  # a worker
def test_the_command_line(task, tmp_path):
    """From a file to a table: `run` checks, rehearses, trains; the table has ROUGE."""
    words = [*task, *LLAMA, *SHORT, "budget.steps=2,0", "method=lora"]
    told = CliRunner().invoke(
        main, ["run", *words, "--quiet", "--workers", "1", "--results", str(tmp_path / "r")]
    )
    assert told.exit_code == 0, told.output
    shown = CliRunner().invoke(main, ["report", "--results", str(tmp_path / "r")])
    assert shown.exit_code == 0, shown.output
    (found,) = (tmp_path / "r").rglob("scores.md")
    text = found.read_text()
    assert "rouge_l" in text
    assert "| untrained " in text
    json.loads((next((tmp_path / "r" / "records").glob("*.json"))).read_text())


@pytest.mark.slow  # 88 M parameters are written, read and trained for a step
def test_two_blocks_as_wide_as_those_of_a_billion_parameters(tmp_path):
    """TinyLlama's blocks, from a folder: stored in bf16, activations computed again, LoRA."""
    from peftbench.cli import doctor
    from peftbench.training.memory_need import config_at_hand, memory_need

    shape = {"hidden_size": 2048, "num_attention_heads": 32, "num_key_value_heads": 4}
    shape |= {"head_dim": 64, "intermediate_size": 5632, "vocab_size": 48}
    shape |= {"tie_word_embeddings": True}
    folder = checkpoints.checkpoint(tmp_path / "wide", "llama", **shape)
    model = ("model=auto", f"model.checkpoint='{folder}'", "model.dtype=bf16")
    task = files(tmp_path / "data")
    words = ("train.gradient_checkpointing=true", "train.precision=bf16", "train.max_length=64")
    run = one(task, "method=lora", "budget.steps=1", *words, model=model)
    found = doctor.memory_check(run)
    assert "one with 8 GB" in found.found
    record = execute(run, CPU).record
    assert record.work["steps"] == 1
    need = memory_need(run, config_at_hand(run.model), low_precision=True)
    assert record.parameters["total"] == need.parameters
    assert record.parameters["trained"] == need.trained
    blocks = 2 * (2 * 2048**2 + 2 * 2048 * 256 + 3 * 2048 * 5632)
    assert 2 * blocks < need.weights < 2.1 * blocks + 10 * need.trained


# targets in other letters


def cyrillic(folder):
    """The files with names in Cyrillic, which rouge-score's tokenizer takes for blanks."""
    made = files(folder)
    for path in folder.iterdir():
        text = path.read_text()
        for name, other in zip(NAMES, ["анна", "боря", "вера", "глеб", "дима", "ева"], strict=True):
            text = text.replace(name, other)
        path.write_text(text)
    return made


def test_targets_in_other_letters_are_scored_by_their_words_and_have_keys_of_their_own(tmp_path):
    plain, other = one(files(tmp_path / "plain")), one(cyrillic(tmp_path / "other"))
    assert (plain.task.rouge_tokens, other.task.rouge_tokens) == (None, "unicode")
    said = one(files(tmp_path / "plain"), "task.rouge_tokens=ascii")
    assert said.key == plain.key
    assert "rouge_tokens" not in plain.task.to_json()  # so that English runs keep their keys
    forced = one(cyrillic(tmp_path / "other"), "task.rouge_tokens=ascii")
    assert (forced.task.rouge_tokens, forced.key != other.key) == (None, True)
    with pytest.raises(ConfigError, match=r"task.rouge_tokens must be one of ascii, unicode"):
        one(files(tmp_path / "plain"), "task.rouge_tokens=words")
    classes = ("task=file", f"task.path='{tmp_path}/plain/train.csv'", "task.texts=[input]")
    with pytest.raises(ConfigError, match=r"rouge_tokens=unicode is for task.kind=generation"):
        one(classes, "task.label=target", "task.rouge_tokens=unicode", model=("model=tiny",))


def test_a_run_scores_texts_by_the_words_of_its_task(tmp_path):
    """A text as it was wanted is right in any script."""
    for folder, of in ((tmp_path / "plain", files), (tmp_path / "other", cyrillic)):
        run = one(of(folder))
        table = loading.load_split(run.task, "validation", None)
        tokenizer = load_tokenizer(run.model)
        written = np.zeros((12, 1), np.int64)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(decoding, "texts_of", lambda *_, texts=table.targets: texts)
            found = decoding.scored({"written": written}, table.targets, tokenizer, run.task)
        assert found["scores"][:, :2].tolist() == [[1.0, 1.0]] * 12


def test_overrides_of_a_run_give_the_words_that_it_compares(tmp_path):
    cases = [
        (files, (), {}),
        (files, ("task.stop='\\n\\n'",), {}),
        (cyrillic, (), {}),
        (cyrillic, ("task.rouge_tokens=ascii",), {"task.rouge_tokens": "ascii"}),
    ]
    for number, (of, words, told) in enumerate(cases):
        run = one(of(tmp_path / str(number)), *words, model=("model=smollm2_135m",))
        found = run_overrides(run)
        assert {key: one for key, one in found.items() if key == "task.rouge_tokens"} == told
