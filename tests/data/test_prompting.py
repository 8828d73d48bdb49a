"""Forms: templates to tokens, words to logits, demonstrations that nothing is trained on."""

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from safetensors.torch import load, load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from peftbench.config.sweep import plan
from peftbench.core.configs import CheckpointSelection, MethodConfig
from peftbench.core.errors import ConfigError
from peftbench.core.evaluation import Evaluation
from peftbench.core.runtime import RuntimeConfig
from peftbench.data import batching, loading, prompt_config, prompting, tokenization
from peftbench.data.loading import LabelledTexts
from peftbench.data.tokenizer import load_tokenizer
from peftbench.evaluation.evaluator import evaluate_suite
from peftbench.exporting.folder import export_run
from peftbench.methods import dry_run
from peftbench.methods.base import build_method
from peftbench.models import pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone
from peftbench.models.prepare_for_training import prepare_for_training
from peftbench.reports import in_context
from peftbench.reports.plotting.palette import Palette
from peftbench.results.store import ResultsFolder
from peftbench.training.trainer import execute
from peftbench.training.warm_cache import WarmCache

CPU = RuntimeConfig(device="cpu", save_weights=True)
CLASS = {
    family: tiny.one_run(f"model.family={family}").model.family_config.language_model.kind
    for family in tiny.FAMILIES
}
PAIR = LabelledTexts([["Cats eat."], ["Dogs [MASK] eat."]], np.array([1]))


def run_of(family: str, *words: str):
    """A run with label words on the tiny model of a family."""
    return tiny.one_run("prompt=words", f"model.family={family}", tiny.WIDE, *words)


def of_minilm(*words: str):
    """A run that no plan has: MiniLM has a tokenizer of its own, and no language-model head."""
    return replace(tiny.one_run("prompt=words", *words), model=tiny.one_run("model=minilm").model)


def coded(run, table=PAIR, most=512, count=0):
    tokenizer = load_tokenizer(run.model)
    prompt = prompting.build_prompt(run, None, count)
    return tokenizer, prompt.encode(table, tokenizer, most)


# templates


def test_masked_template_to_tokens():
    tokenizer, tokens = coded(run_of("bert"))
    text = tokenizer.decode(tokens.ids)
    assert text == "[CLS]Cats eat. [MASK] , Dogs [MASK] eat.[SEP]"
    assert tokens.answer.tolist() == [1 + len("Cats eat. ")], "not a mask of the text's own"
    assert tokens.ids[tokens.answer[0]] == tokenizer.mask_token_id
    assert prompting.verbalizer_ids(run_of("bert"), tokenizer) == tokenizer.convert_tokens_to_ids(
        ["N", "Y"]
    )


def test_causal_template_to_tokens():
    """The prompt ends where the answer begins: nothing that a tokenizer adds comes after it."""
    tokenizer, tokens = coded(run_of("gpt2"))
    assert tokenizer.decode(tokens.ids) == "[CLS]Cats eat.\nDogs [MASK] eat.\nThe same? "
    assert tokens.answer.tolist() == [len(tokens.ids) - 1]


def test_space_before_a_word_belongs_to_the_tokenizer():
    """With merged spaces (as in GPT-2) it is part of the word, and the prompt ends before it."""
    tokenizer = load_tokenizer(run_of("gpt2").model)
    tokenizer.add_tokens(["Ġyes", " Yes", " No"])
    prompt = prompting.build_prompt(run_of("gpt2"), None)
    end, first = prompt.lead(tokenizer)
    assert end == ""
    assert first == tokenizer.convert_tokens_to_ids([" No", " Yes"])
    tokens = prompt.encode(PAIR, tokenizer, 512)
    assert tokenizer.decode(tokens.ids).endswith("The same?")


def test_minilm_tokens_of_a_template():
    run = of_minilm("task=cola")
    tokenizer, tokens = coded(run, LabelledTexts([["Hello, world!"]], np.array([0])))
    assert tokenizer.convert_ids_to_tokens(tokens.ids) == [
        *["[CLS]", "hello", ",", "world", "!", "this", "is", "[MASK]", ".", "[SEP]"]
    ]
    assert tokens.answer.tolist() == [7]
    assert prompting.verbalizer_ids(run, tokenizer) == tokenizer.convert_tokens_to_ids(
        ["incorrect", "correct"]
    )


# what cannot be


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=synthetic_similarity"], "are values, and words stand for classes"),
        (["prompt.masked='{0} {1}'"], "must hold each of {0} {1} {answer} once"),
        (["prompt.masked='{0} {0} {1} {answer}'"], "must hold each of {0} {1} {answer} once"),
        (
            ["model.family=llama", "prompt.causal='{0} {answer} {1}'"],
            "sees nothing after the answer",
        ),
        (["prompt.verbalizer=[yes]"], "has 2 classes, each needs a word of its own, got yes"),
        (["prompt.num_demonstrations=9"], "set prompt.reserved=9 or more"),
        (
            ["prompt.num_demonstrations=-1"],
            "prompt.num_demonstrations must be a whole number of at least 0",
        ),
        (
            ["prompt.verbaliser=[a]"],
            "prompt=words has no prompt.verbaliser; did you mean prompt.verbalizer",
        ),
        (["suite=in_context", "prompt.reserved=4"], "prompt.reserved=4 examples are kept back"),
    ],
)
def test_refused_when_planned(words, message):
    with pytest.raises(ConfigError) as met:
        plan("model=tiny", "prompt=words", *words)
    assert message in str(met.value)


def test_refused_when_planned_for_what_is_not_given(tmp_path):
    with pytest.raises(ConfigError, match=r"no template or words for own; give prompt.masked="):
        plan("model=tiny", "prompt=words", *tiny.own_task(tmp_path))
    with pytest.raises(ConfigError, match="with prompt=head there are no words to show labels by"):
        plan("model=tiny", "suite=in_context")


def test_refused_when_checked():
    with pytest.raises(ConfigError, match=r"must differ, got .*'Yes': 'Y', 'Yea': 'Y'"):
        dry_run.check_prompt(run_of("bert", "prompt.verbalizer=[Yes,Yea]"))
    run = of_minilm("prompt.verbalizer=['☃☃',Yes]")
    with pytest.raises(ConfigError, match="this model does not know ☃☃"):
        dry_run.check_prompt(run)
    with pytest.raises(ConfigError, match="checkpoint of minilm has no language-model head"):
        dry_run.check_prompt(of_minilm())
    with pytest.raises(ConfigError, match="checkpoint of minilm has no language-model head"):
        plan("model=minilm", "prompt=words")
    with pytest.raises(ConfigError, match="checkpoint of minilm has no language-model head"):
        Backbone(run.model, verbalizer_ids=[1, 2])
    with pytest.raises(ConfigError, match="has no head of its own that could train"):
        dry_run.validate_run(run_of("bert", "method=head"))
    dry_run.check_prompt(run_of("roberta"))


def test_head_leaves_the_key_as_it_was():
    assert tiny.one_run("prompt=head").prompt is None
    assert tiny.one_run("prompt=head").key == tiny.one_run().key
    keys = {tiny.one_run(f"prompt={form}").key for form in ("head", "words", "demonstrations")}
    assert len(keys) == 3
    assert run_of("bert", "prompt.num_demonstrations=2").key != run_of("bert").key


# logits


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_logits_are_the_language_models(family, half):
    """At the answer's place, for the words' ids; transformers makes its own masks."""
    run = run_of(family)
    rows = [["A cat.", "Dogs eat all day."], ["Cats.", "All dogs eat."]]
    tokenizer, tokens = coded(run, LabelledTexts(rows, np.array([0, 1])))
    ids = prompting.verbalizer_ids(run, tokenizer)
    config = AutoConfig.for_model(run.model.family_config.model_type, **run.model.shape)
    kind = AutoModelForCausalLM if CLASS[family] == "causal" else AutoModelForMaskedLM
    torch.manual_seed(0)
    theirs = kind.from_config(config, dtype=torch.float32).eval()
    ours = AdaptedModel(Backbone(run.model, verbalizer_ids=ids), classes=2, seed=0).eval()
    assert ours.counts()["head"] == 0
    prepare_for_training(ours, None, torch.arange(264))
    mask = run.model.family_config.mask
    batch = batching.collate(tokens, np.arange(2), tokenizer.pad_token_id, mask)
    real = torch.arange(batch["input_ids"].shape[1]) < batch["lengths"][:, None]
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=half):
        whole = theirs(input_ids=batch["input_ids"], attention_mask=real.long()).logits
        logits = ours(batch)
    assert logits.shape == (2, 2)
    expected = torch.stack([whole[i, batch["answer"][i], ids] for i in range(2)])
    near = 2e-2 if half else 1e-5
    assert logits.dtype == torch.float32, "those of words are not rounded"
    torch.testing.assert_close(logits, expected.float(), rtol=near, atol=near)


@pytest.mark.parametrize("method", [m for m in tiny.METHODS if m != "head"])
@pytest.mark.parametrize("family", ["bert", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_every_method_trains_by_words(family, method):
    """Thirty steps lower the loss; smoothness penalties find the word embeddings."""
    run = run_of(family, f"method={method}")
    dry_run.validate_run(run)
    table = LabelledTexts([[f"{letter} cat" for letter in "abcdefgh"]] * 2, np.arange(8) % 2)
    tokenizer, tokens = coded(run, table)
    backbone = Backbone(run.model, verbalizer_ids=prompting.verbalizer_ids(run, tokenizer))
    mask = run.model.family_config.mask
    batch = batching.collate(tokens, np.arange(8), tokenizer.pad_token_id, mask)
    model, maker = AdaptedModel(backbone, classes=2, seed=0), build_method(run.method)
    torch.manual_seed(0)
    maker.insert(model)
    maker.on_train_begin(model, iter(lambda: dict(batch), None))
    prepare_for_training(model, None, batch["input_ids"].unique())
    before = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    torch.manual_seed(0)
    first = maker.compute_loss(model.eval(), batch).detach()
    tiny.fit(model, maker, batch, steps=30, lr=1e-2)
    torch.manual_seed(0)
    assert maker.compute_loss(model.eval(), batch).detach() < first
    assert any(not torch.equal(before[n], p) for n, p in model.named_parameters() if n in before)
    if method == "full":
        still = {n for n, p in model.named_parameters() if not p.requires_grad}
        assert not still, "the words' rows and their biases train too"


@pytest.mark.parametrize("penalty", ["rdrop", "smart"])
def test_penalties_by_words(penalty):
    words = ("method=robust_partial", f"method.penalty={penalty}", "method.strength=1000")
    run = run_of("gpt2", *words)
    tokenizer, tokens = coded(run)
    model = AdaptedModel(Backbone(run.model, verbalizer_ids=[4, 5]), classes=2, seed=0)
    build_method(run.method).insert(model)
    batch = batching.collate(tokens, np.arange(1), tokenizer.pad_token_id, "causal")
    model.train()
    with_it = build_method(run.method).compute_loss(model, batch)
    without = build_method(run_of("gpt2", *words[:2], "method.strength=0").method).compute_loss(
        model, batch
    )
    assert with_it > without


# demonstrations


@pytest.mark.parametrize("seed", [0, 1])
def test_demonstrations_are_balanced_fixed_and_nested(seed):
    run = tiny.one_run("prompt=words", "prompt.num_demonstrations=6", f"seed={seed}")
    train = loading.load_split(run.task, "train", None)
    rows = prompt_config.reserved(run, train.label)
    assert len(set(rows)) == 8
    for count in (2, 4, 6, 8):
        assert np.bincount(train.label[rows[:count]]).tolist() == [count // 2] * 2
    shown = prompting.build_prompt(run, None).shown
    assert [texts for texts, _ in shown] == [tuple(c[i] for c in train.texts) for i in rows[:6]]
    assert [label for _, label in shown] == train.label[rows[:6]].tolist()
    assert prompting.build_prompt(run, None, 2).shown == shown[:2]
    small = replace(run, size=100, method=MethodConfig(name="other", target=""))
    assert prompt_config.reserved(small, train.label).tolist() == rows.tolist(), (
        "for all methods and sizes"
    )
    held = set(zip(*loading.load_split(run.task, "validation", None).texts, strict=True))
    assert not held & {texts for texts, _ in shown}


@pytest.mark.parametrize(("size", "left"), [("full", 2992), (2996, 2992), (100, 100)])
def test_demonstrations_are_not_trained_on(size, left):
    run = tiny.one_run("prompt=words", f"size={size}", "checkpoint_selection=best_on_holdout")
    label = loading.load_split(run.task, "train", None).label
    nothing = np.zeros(0)
    tokens = tokenization.TokenizedSplit(nothing, nothing, nothing, label, 0)
    seed, selection = run.seeds()["subset"], run.checkpoint_selection
    rows, held = batching.split_rows(run, tokens, selection, seed)
    kept = set(prompt_config.reserved(run, label).tolist())
    assert not kept & {*rows.tolist(), *held.tolist()}
    assert len(rows) + len(held) == pytest.approx(left, abs=4)
    plain, _ = batching.split_rows(replace(run, prompt=None), tokens, CheckpointSelection(), seed)
    assert {*rows.tolist(), *held.tolist()} == set(plain.tolist()) - kept


def test_demonstrations_stand_in_front_and_leave_from_the_front():
    run = run_of("gpt2", "prompt.num_demonstrations=2")
    tokenizer, tokens = coded(run, count=2)
    near, far = (
        f"{texts[0]}\n{texts[1]}\nThe same? {['No', 'Yes'][label]}\n\n"
        for texts, label in prompting.build_prompt(run, None).shown
    )
    question = "Cats eat.\nDogs [MASK] eat.\nThe same? "
    said = tokenizer.decode(tokens.ids)
    assert said == "[CLS]" + far + near + question
    assert tokens.truncated == 0
    tokenizer, tokens = coded(run, most=len(tokens.ids) - 1, count=2)
    assert tokenizer.decode(tokens.ids) == "[CLS]" + near + question
    assert tokens.truncated == 1
    room = len(tokenizer("[CLS]" + question, add_special_tokens=False)["input_ids"])
    tokenizer, tokens = coded(run, most=room, count=2)
    assert tokenizer.decode(tokens.ids) == "[CLS]" + question
    tokenizer, tokens = coded(run, most=room - 5, count=2)
    assert tokenizer.decode(tokens.ids) == "[CLS]Cats ea\nDogs [MASK] e\nThe same? ", (
        "from both ends"
    )
    assert tokens.answer.tolist() == [len(tokens.ids) - 1]
    with pytest.raises(ConfigError, match=r"train.max_length=8 has no room for the template"):
        coded(run, most=8)


def test_a_text_that_ends_in_a_character_of_several_tokens_is_cut():
    """The letter has two tokens of one place each: cutting between them would cut nothing."""
    run = tiny.one_run("prompt=words", "task=sst2", "train.max_length=100")
    tokenizer = load_tokenizer(run.model)
    table = LabelledTexts([["word word word " + "é" * 40]], np.array([0]))
    tokens = prompting.coder(run, tokenizer, None)(table)
    assert 97 <= len(tokens.ids) <= 100
    assert tokens.truncated == 1


def test_demonstrations_for_a_head():
    """Without any, the tokens are those of prompt=head; with some, they stand in the first text."""
    run = tiny.one_run("prompt=demonstrations", "prompt.num_demonstrations=0", "model=minilm")
    tokenizer = load_tokenizer(run.model)
    table = loading.load_split(run.task, "validation", None)
    plain, none = (
        tokenization.encode(table, tokenizer, 24),
        prompting.build_prompt(run, None).encode,
    )
    same = none(table, tokenizer, 24)
    assert plain.truncated == same.truncated > 0
    for name in ("ids", "types", "ends", "label", "answer"):
        assert np.array_equal(getattr(plain, name), getattr(same, name)), name
    four = prompting.build_prompt(run, None, 4)
    tokens = four.encode(LabelledTexts([["One."], ["Two."]], np.array([0])), tokenizer, 512)
    (label,) = {label for _, label in four.shown[:1]}
    (a, b), word = four.shown[0][0], ["No", "Yes"][label]
    said = tokenizer.decode(tokens.ids)
    assert said.endswith(f"{a} {word}, {b} one. [SEP] two. [SEP]".lower().replace("[sep]", "[SEP]"))
    assert tokens.types.sum() == 3, "the second text alone is the second segment"
    assert prompting.verbalizer_ids(run, tokenizer) is None


# whole runs

LEARN = ("method=full", "train.lr=3e-3", "budget=steps", "budget.steps=150", "train.num_evals=1")
OWN = ("prompt.verbalizer=[yes,no]", "prompt.masked='{0} {answer}'", "prompt.causal='{0} {answer}'")


@pytest.mark.parametrize("family", ["gpt2", "llama", "qwen2"])
def test_tiny_language_model_learns_to_answer(family, tmp_path):
    """Is the first letter a vowel? Half of the texts are of each class."""
    words = (*tiny.own_task(tmp_path, 200, 100), f"model.family={family}", *LEARN, *OWN)
    record = execute(tiny.one_run("prompt=words", *words), CPU).record
    assert record.trivial["accuracy"] == 0.5
    assert record.metrics["accuracy"] > 0.8
    assert record.parameters["head"] == 0


@pytest.mark.parametrize("method", ["full", "lora"])  # a head that trains, and a frozen one
@pytest.mark.parametrize("family", ["bert", "llama"])
def test_scores_of_words_are_not_rounded_to_the_precision_of_the_model(family, method, tmp_path):
    """Logits of a language model are 8 to 32, where bf16 has steps of 1/16 and 1/8: many tie."""
    words = (*tiny.own_task(tmp_path), *OWN, "budget=steps", "budget.steps=2", "train.num_evals=1")
    words += ("prompt=words", f"method={method}", f"model.family={family}")
    run, exact = (tiny.one_run(*words, f"train.precision={one}") for one in ("bf16", "fp32"))
    assert (run.loss_revision, exact.loss_revision) == (2, 1)
    scores = execute(run, CPU).predictions["scores"]
    rounded = torch.from_numpy(scores).bfloat16().float().numpy()
    assert np.mean(scores != rounded) > 0.8


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's
def test_demonstrations_in_training_and_at_test_time(tmp_path):
    """FTICL of a causal LoRA, kept, asked again, exported."""
    words = (
        *(*tiny.own_task(tmp_path), "model.family=llama", *LEARN, *OWN, "method=lora"),
        *(
            "budget.steps=20",
            "prompt.num_demonstrations=2",
            "prompt.reserved=6",
            "train.max_length=96",
        ),
    )
    words = tuple(w for w in words if w not in ("method=full", "budget.steps=150"))
    planned = plan("model=tiny", "prompt=words", "suite=in_context", *words)
    (run,), (evaluation,) = planned.runs, planned.evaluations
    results, warm = ResultsFolder(tmp_path / "runs"), WarmCache()
    outcome = execute(run, CPU, results=results, warm=warm)
    again = execute(run, CPU, warm=WarmCache())
    assert outcome.record.metrics == again.record.metrics
    assert np.array_equal(outcome.predictions["scores"], again.predictions["scores"])
    assert outcome.record.work["train_size"] == 48 - 6
    results.save(outcome.record, outcome.predictions, outcome.trained)
    assert isinstance(evaluation, Evaluation)
    found, predictions = evaluate_suite(evaluation, results, CPU, warm=warm)
    kept = outcome.predictions["scores"]
    assert np.allclose(predictions["scores/shown/2"], kept, atol=2e-2), "as many as in training"
    assert not np.allclose(predictions["scores/shown/0"], kept, atol=2e-2)
    assert found.findings["counts"] == [0, 2, 4, 6]
    assert found.findings["differences"][0] == 0 == found.findings["flips"][0]
    assert found.findings["scores"][1] == pytest.approx(outcome.record.metrics["accuracy"])
    assert set(found.findings["truncated"]) == {f"shown/{count}" for count in (0, 2, 4, 6)}
    (table,) = in_context.tables([found], {run.key: 1})
    assert table.columns[-8:] == ["0", "2", "4", "6", "2 less 0", "4 less 0", "6 less 0", "cut"]
    (picture,) = in_context.plot_in_context([found], {run.key: 1}, Palette())
    assert picture.file("png")[:4] == b"\x89PNG"
    export_run(results.load(run.key), results, tmp_path / "peft")
    _same_in_peft(run, load(outcome.trained), tmp_path / "peft")


def _same_in_peft(run, state, folder):
    from peft import PeftConfig, get_peft_model, set_peft_model_state_dict

    tokenizer, tokens = coded(run, LabelledTexts([["aha"]], np.array([0])))
    ids = prompting.verbalizer_ids(run, tokenizer)
    ours = AdaptedModel(Backbone(run.model, verbalizer_ids=ids), classes=2, seed=0)
    build_method(run.method).insert(ours)
    ours.restore(state)
    config = PeftConfig.from_pretrained(folder)
    assert config.task_type == "CAUSAL_LM"
    theirs = get_peft_model(pretrained.skeleton(run.model, language=True), config)
    missing = set_peft_model_state_dict(theirs, load_file(folder / "adapter_model.safetensors"))
    assert not missing.unexpected_keys
    batch = batching.collate(tokens, np.arange(1), 0, "causal")
    with torch.inference_mode():
        whole = theirs.eval()(input_ids=batch["input_ids"]).logits[:, -1, ids]
        torch.testing.assert_close(ours.eval()(batch), whole, rtol=0, atol=1e-5)
