"""MPNet as transformers computes it: relative positions in every score, positions from 2 on."""

import math

import pytest
import tiny
import torch
from torch import Tensor
from transformers import PreTrainedModel

from peftbench.data.batching import Batch
from peftbench.data.tokenizer import load_tokenizer
from peftbench.methods.base import build_method
from peftbench.models import attention, pretrained
from peftbench.models.adapted_model import AdaptedModel
from peftbench.models.backbone import Backbone

TABLE = "mpnet.encoder.relative_attention_bias.weight"
LONG = "model.shape={initializer_range:0.1,max_position_embeddings:402}"


@pytest.fixture(scope="module")
def library() -> PreTrainedModel:
    """Transformers' own, with positions for texts beyond the largest distance that it tells."""
    return pretrained.skeleton(tiny.one_run("model.family=mpnet", LONG).model).eval()


@pytest.fixture(scope="module")
def ours() -> AdaptedModel:
    model = tiny.one_run("model.family=mpnet", LONG).model
    return AdaptedModel(Backbone(model), classes=2, seed=0).eval()


@pytest.fixture(scope="module")
def batch() -> Batch:
    """Texts of 5 to 300 tokens; distances of 128 and more share a bucket."""
    torch.manual_seed(0)
    lengths = torch.tensor([300, 160, 40, 5])
    real = torch.arange(300) < lengths[:, None]
    ids = torch.randint(4, 264, (4, 300)).where(real, 1)
    return {"input_ids": ids, "attention_mask": real[:, None, None, :], "two": real.long()}


def with_head_of(made: AdaptedModel, whole: PreTrainedModel) -> AdaptedModel:
    made.restore({n: p.detach() for n, p in whole.named_parameters() if made.in_head(n)})
    return made


def test_equals_the_librarys_forward(library, ours, batch):
    with_head_of(ours, library)
    with torch.inference_mode():
        theirs = library(input_ids=batch["input_ids"], attention_mask=batch["two"]).logits
        torch.testing.assert_close(ours(batch), theirs, rtol=0, atol=2e-6)
        two = ours.module(input_ids=batch["input_ids"], attention_mask=batch["two"]).logits
        torch.testing.assert_close(two, theirs, rtol=0, atol=2e-6)
        assert float(theirs.std()) > 0.05, "or the tolerance says nothing"


def test_gradients_equal_the_librarys(library, batch):
    """Those of the table of relative positions too, which is summed over blocks and examples."""
    model = tiny.one_run("model.family=mpnet", LONG).model
    made = with_head_of(AdaptedModel(Backbone(model), classes=2, seed=0).eval(), library)
    build_method(tiny.one_run("method=full").method).insert(made)
    library.zero_grad()
    library(
        input_ids=batch["input_ids"], attention_mask=batch["two"]
    ).logits.square().sum().backward()
    made(batch).square().sum().backward()
    found = {n: p.grad for n, p in made.module.named_parameters() if p.grad is not None}
    wanted = {n: p.grad for n, p in library.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    assert float(wanted[TABLE].abs().max()) > 1e-3
    assert int(wanted[TABLE].any(dim=1).sum()) == 31, "all buckets but that of a distance of -0"
    for name, gradient in wanted.items():
        scale = float(gradient.abs().max())
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-5 + 1e-5 * scale)


def test_under_autocast_the_table_trains_as_in_fp32(ours, batch):
    """The CPU's own attention takes the derivative with respect to its mask."""
    model = tiny.one_run("model.family=mpnet", LONG).model
    grads = []
    for half in (False, True):
        made = AdaptedModel(Backbone(model), classes=2, seed=0).eval()
        build_method(tiny.one_run("method=full").method).insert(made)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made(batch).float().square().sum().backward()
        grads.append(made.trained()[TABLE].grad.flatten())
    assert torch.cosine_similarity(*grads, dim=0) > 0.99


def test_relative_positions_are_felt(ours, batch):
    """A word that is moved has other scores; without the table only its own position tells."""
    table = ours.backbone.module.get_parameter(TABLE)
    before = table.clone()
    with torch.inference_mode():
        logits = ours(batch)
        table.zero_()
        assert not torch.allclose(ours(batch), logits, atol=1e-3)
        table.copy_(before)
        assert torch.equal(ours(batch), logits)


def test_prefix_has_no_distance():
    """Scores to it are q . p / sqrt(dim); all others have the bias of their distance."""
    made = AdaptedModel(tiny.backbone("mpnet"), classes=2, seed=0).eval()
    words = ("method.length=3", "method.width=0")
    build_method(tiny.one_run("method=prefix", *words).method).insert(made)
    block = made.blocks[0].attention.attn
    x = torch.randn(2, 6, 32)
    real = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])[:, None, None, :]
    model = made.module.mpnet.encoder
    with torch.inference_mode():
        block.prefix = made.module.prefix(2)[0] * 50  # as large as keys are
        bias = super(type(model), model).compute_position_bias(x)
        found = block(x, bias.masked_fill(~real, torch.finfo(bias.dtype).min))[0]
        expected = attended(block, x, real, bias, *block.prefix)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def attended(block, x: Tensor, real: Tensor, bias: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """One example and head at a time."""
    q, k, v = block.q(x), block.k(x), block.v(x)
    rows = []
    for n in range(len(x)):
        heads = []
        for h in range(4):
            part = slice(8 * h, 8 * h + 8)
            near = (q[n, :, part] @ k[n, :, part].T / math.sqrt(8) + bias[n, h]).where(
                real[n, 0], -torch.inf
            )
            far = q[n, :, part] @ keys[:, part].T / math.sqrt(8)
            weights = torch.cat([far, near], 1).softmax(-1)
            heads.append(weights @ torch.cat([values[:, part], v[n, :, part]]))
        rows.append(torch.cat(heads, -1))
    return block.o(torch.stack(rows))


def test_a_mask_of_each_run_alone_is_enough_to_be_a_pack():
    """Runs that share inputs and differ in the table differ in their masks first."""
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 5, 8)
    masks = torch.randn(3, 2, 4, 5, 5)

    def one(mask: Tensor) -> Tensor:
        return attention.attention(torch.nn.Module(), q, k, v, mask)[0]

    found = torch.vmap(one)(masks)
    torch.testing.assert_close(found, torch.stack([one(mask) for mask in masks]))


def test_the_table_is_below_the_blocks():
    made = AdaptedModel(tiny.backbone("mpnet"), classes=2, seed=0)
    assert made.block_of(TABLE) == -1
    method = build_method(tiny.one_run("method=full", "method.layer_decay=0.5").method)
    method.insert(made)
    rates = method.lr_multipliers(made)
    assert rates[TABLE] == rates["mpnet.embeddings.word_embeddings.weight"] == 0.25
    assert rates["mpnet.encoder.layer.1.attention.attn.q.weight"] == 1


def test_bitfit_leaves_the_table_alone():
    """It is called a bias, and is none of a linear layer or a norm, of which a block has eight."""
    made = AdaptedModel(tiny.backbone("mpnet"), classes=2, seed=0)
    build_method(tiny.one_run("method=bitfit").method).insert(made)
    assert TABLE not in made.trained()
    assert made.counts()["trained"] == 2 * (7 * 32 + 64) + 32


def test_positions_start_at_two_and_padding_has_none():
    """Where the library has them: the padding's number is 1 in its code."""
    run = tiny.one_run("model.family=mpnet")
    tokenizer = load_tokenizer(run.model)
    ids = tokenizer(["ab", "a"], padding=True)["input_ids"]
    assert ids == [
        [0, tokenizer.vocab["a"], tokenizer.vocab["b"], 2],
        [0, tokenizer.vocab["a"], 2, 1],
    ]
    made = AdaptedModel(tiny.backbone("mpnet"), classes=2, seed=0)
    seen: list[Tensor] = []
    table = made.module.mpnet.embeddings.position_embeddings
    table.register_forward_hook(lambda module, given, out: seen.append(given[0]))
    made.module(input_ids=torch.tensor(ids))
    assert seen[0].tolist() == [[2, 3, 4, 5], [2, 3, 4, 1]]


def test_language_model_scores_two_words():
    """The head is tied to the embeddings, its bias to the head's: both are narrowed."""
    model = tiny.one_run("model.family=mpnet").model
    whole = pretrained.skeleton(model, language=True).eval()
    backbone = Backbone(model, verbalizer_ids=[7, 9])
    made = AdaptedModel(backbone, classes=2, seed=0).eval()
    tokens = tiny.batch(tiny.tokens(), "mpnet")
    real = tokens["attention_mask"][:, 0, 0].long()
    with torch.inference_mode():
        scores = whole(input_ids=tokens["input_ids"], attention_mask=real).logits
        found = made(tokens | {"answer": torch.full((8,), 2)})
    torch.testing.assert_close(found, scores[:, 2, [7, 9]], rtol=0, atol=1e-6)
