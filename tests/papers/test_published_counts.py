"""Parameter counts of full-size models, against the papers' and the hub's, without weights."""

import pytest
import tiny
from full_size import adapted_model, bottlenecks, trained
from paths import ROOT

from peftbench.methods.base import build_method
from peftbench.models.adapted_model import AdaptedModel

#: Parameters of the sequence classifiers with two classes, as transformers counts them.
SIZES = {
    "bert_base": 109_483_778,
    "bert_large": 335_143_938,
    "deberta_v3_base": 184_423_682,
    "distilbert": 66_955_010,
    "electra_small": 13_549_314,
    "minilm": 22_713_986,
    "minilm_l3": 17_390_594,
    "modernbert_base": 149_606_402,
    "mpnet_base": 109_488_002,
    "roberta_base": 124_647_170,
    "roberta_large": 355_361_794,
    "smollm2_135m": 134_516_160,
}


def test_every_model_of_a_fixed_size_is_counted():
    assert set(SIZES) == set(tiny.MODELS) - {"auto", "tiny"}


#: Biases of BERT-base (Ben Zaken et al. 2022), as a share of the weights in its blocks' linears.
BIASES = 102_912 / (12 * (4 * 768 * 768 + 2 * 768 * 3072))


@pytest.mark.parametrize("model", SIZES)
def test_size_of_the_model(model):
    assert adapted_model(model, "head").counts()["total"] == SIZES[model]
    assert trained(model, "head") == 0


@pytest.mark.parametrize("model", SIZES)
def test_full_trains_everything(model):
    counts = adapted_model(model, "full").counts()
    assert counts["trained"] + counts["head"] == counts["total"]


def test_mpnet_is_counted_without_its_pooler():
    """109,486,464 of MPNetModel; the head's dense layer is as large as the pooler it replaces."""
    outputs = 2 * 768 + 2
    assert SIZES["mpnet_base"] == 109_486_464 + outputs
    words = ("method.rank=8", "method.target_modules=[query,value]")
    assert trained("mpnet_base", "lora", *words) == 294_912
    assert trained("mpnet_base", "bitfit") == 12 * (9 * 768 + 2 * 768) + 768 == 102_144


def test_lora_of_hu_et_al():
    """Table 2: 0.3 M, rank 8 on query and value: 12 blocks × 2 linears × 8 × (768 + 768)."""
    words = ("method.rank=8", "method.target_modules=[query,value]")
    assert trained("roberta_base", "lora", *words) == 12 * 2 * 8 * (768 + 768) == 294_912


def test_bitfit_of_ben_zaken_et_al():
    """0.09 % of BERT-base; 103 K in UniPELT's table 1. The rest are embedding norm and pooler."""
    names = adapted_model("bert_base", "bitfit").trained()
    blocks = [p.numel() for name, p in names.items() if ".encoder.layer." in name]
    assert sum(blocks) == 12 * (9 * 768 + 2 * 768) == 101_376
    assert trained("bert_base", "bitfit") == 101_376 + 2 * 768 == 102_912
    assert trained("minilm", "bitfit") == 6 * (9 * 384 + 2 * 384) + 2 * 384 == 26_112


def test_adapter_of_houlsby_et_al():
    """Two bottlenecks a block of 2 × 768 × 64 weights, 64 + 768 biases: 2.38 M for base size."""
    assert bottlenecks("roberta_base", "adapter") == 24 * (2 * 768 * 64 + 64 + 768) == 2_379_264
    assert bottlenecks("minilm", "adapter") == 12 * (2 * 384 * 64 + 64 + 384) == 595_200
    norms = 12 * 2 * 2 * 768
    assert trained("roberta_base", "adapter") == 2_379_264 + norms
    assert trained("roberta_base", "adapter", "method.train_norms=false") == 2_379_264


def test_pfeiffer_of_mao_et_al():
    """UniPELT's table 1: 895 K for one bottleneck of 48 in each of 12 blocks, nothing else."""
    assert trained("bert_base", "pfeiffer") == 12 * (2 * 768 * 48 + 48 + 768) == 894_528
    assert trained("minilm", "pfeiffer") == 6 * (2 * 384 * 48 + 48 + 384) == 223_776
    assert trained("minilm", "pfeiffer", "method.width=64") == 297_600


def test_a_shared_block_counts_once():
    """ALBERT applies one block to all depths, and so it does what a method inserts."""
    run = tiny.one_run("method=lora", "model.family=albert")
    inserted = AdaptedModel(tiny.backbone("albert"), classes=2, seed=0)
    build_method(run.method).insert(inserted)
    assert inserted.counts()["trained"] == 2 * 8 * (32 + 32)


@pytest.mark.parametrize(
    ("method", "count"),
    [
        ("parallel", 12 * (2 * 768 * 16 + 16 + 768)),
        ("prefix", 16 * 768 + (768 + 1) * 512 + (512 + 1) * 12 * 2 * 768),
        ("combined", 16 * 768 + (768 + 1) * 800 + (800 + 1) * 12 * 2 * 768 + 304_320),
        (
            "unipelt",
            894_528 + 10 * 768 + (768 + 1) * 512 + (512 + 1) * 12 * 2 * 768 + 12 * 2 * 769,
        ),
        ("blob", 294_912 + 12 * 2 * 8 * 768),
        ("ia3", 12 * (768 + 768 + 3072)),
        ("adalora", 12 * (12 * (4 * (768 + 768) + 2 * (768 + 3072)) + 6 * 12)),
        ("layernorm", 12 * 2 * 2 * 768),
        ("random_mask", 12 * (4 * round(BIASES * 768 * 768) + 2 * round(BIASES * 768 * 3072))),
        ("peft", 294_912),
        ("mc_dropout", 294_912),
    ],
)
def test_counts_of_the_documentation(method, count):
    """What docs/methods.md says of BERT-base, by hand; and of MiniLM, as found."""
    row = next(
        line
        for line in (ROOT / "docs/methods.md").read_text().splitlines()
        if line.startswith(f"| `{method}` |")
    )
    base, small = (int(cell.replace(",", "")) for cell in row.strip("| ").split(" | ")[-2:])
    assert trained("bert_base", method) == count == base
    assert trained("minilm", method) == small


def test_bitfit_of_queries_and_first_layers():
    """The half-size subset: 12 x (768 + 3072), and with it the pooler's bias."""
    words = ("method.target_modules=[query,ffn_in]",)
    assert trained("bert_base", "bitfit", *words) == 12 * (768 + 3072) + 768
