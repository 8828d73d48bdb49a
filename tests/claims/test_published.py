"""Numbers in the yamls of papers against a table of what was read of them.

Source of UniPELT: Mao et al. 2022 (arXiv 2110.07577), Tables 1 and 3, BERT-base, mean and standard
deviation of five seeds; of the others as stated at each.
"""

import re
from decimal import ROUND_HALF_UP, Decimal

import pytest
from full_size import trained

from peftbench.claims import schema
from peftbench.config import catalog

#: MRPC F1, CoLA Matthews, STS-B Spearman: at 100, 500 and 1,000 examples, then all (no deviation).
UNIPELT = """
full     81.81 .35 16.56 4.34 74.07 6.51   83.34 .55 36.47 2.69 84.96 1.19   84.87 .64 43.26 2.60 86.39 .34   90.94 62.08 89.76
bitfit   81.09 .17 2.71 1.57 54.53 .56     82.16 .37 3.32 2.59 76.30 .36     83.95 .81 22.44 17.10 79.04 .61
pfeiffer 81.40 .19 2.02 4.04 77.32 1.54    82.53 .36 38.65 3.97 83.52 .33    84.49 .60 42.33 1.98 85.52 .29   89.86 61.51 88.63
prefix   81.22 0 0.00 0 57.69 .02          82.96 1.63 38.16 2.25 79.75 1.49  83.66 1.82 44.07 2.90 82.38 1.25 91.29 55.37 87.19
lora     81.66 .81 13.31 10.0 49.35 21.87  82.53 .70 39.86 2.71 65.05 26.31  86.04 .99 45.50 1.11 81.56 1.97  90.03 60.47 85.65
unipelt  81.86 .70 14.42 10.24 79.14 1.97  83.25 .51 39.84 5.01 84.53 .48    85.86 1.05 44.33 3.55 86.82 .23  90.28 61.15 88.86
"""  # noqa: E501 - a line a method, as in the paper

COLUMNS = ("mrpc f1", "cola matthews", "stsb spearman")
SIZES = (100, 500, 1000)

#: Numbers in sentences, by paper and claim, and where they stand.
SENTENCES = {
    # section 4.3 and Table 1: averages over eight tasks of APL, then of AP, and counts of tasks
    ("unipelt2022", "best_on_average"): [62.59, 69.98, 73.31, 60.80, 69.79, 72.61, 7, 6, 7, 8],
    # Figure 1: Large-Sparse and full fine-tuning
    ("sparse_adapter2022", "large_sparse_beats_full"): [79.6, 79.0],
    # plots, within 0.02: examples, then QQP, then STS-B above 3.5
    ("generalization2024", "classification_transfers"): [
        *(0, 2000, 4000, 6000),
        *(0.45, 0.55, 0.70, 0.72, 3.5, 0.45, 0.61, 0.73, 0.75, 2, 7),
    ],
    # the same at 4,000 examples; majorities of QQP (56.4 %) and STS-B (64.0 %) in their test data
    ("generalization2024", "better_than_the_majority"): [4000, 0.70, 3.5, 0.73, 0.564, 0.640],
}


def papers() -> dict[str, schema.Paper]:
    return {paper.name: paper for paper in schema.read(None, catalog.folders())}


def table() -> dict[tuple[str, str, int | str], tuple[float, float | None]]:
    """Mean and deviation by method, column and size."""
    found: dict[tuple[str, str, int | str], tuple[float, float | None]] = {}
    for line in UNIPELT.strip().splitlines():
        method, *texts = line.split()
        numbers = list(map(float, texts))
        cells = [(size, column) for size in SIZES for column in COLUMNS]
        for place, (size, column) in enumerate(cells):
            found[method, column, size] = numbers[2 * place], numbers[2 * place + 1]
        for column, mean in zip(COLUMNS, numbers[18:], strict=bool(numbers[18:])):
            found[method, column, "full"] = mean, None
    return found


def test_figures_are_those_of_the_papers_tables():
    (figures,) = papers()["unipelt2022"].figures
    found = {}
    for row, by_column in figures.scores.items():
        for column, by_size in by_column.items():
            for size, text in by_size.items():
                mean, _, deviation = text.partition(" ± ")
                place = schema.parse_conditions(row)["method"], column, size
                found[place] = float(mean), float(deviation) if deviation else None
    assert found == table()
    assert len(found) == 69


def test_prefix_tuning_of_unipelt_has_the_papers_length():
    """184 K weights: keys and values of 10 places in 12 blocks; ours come from an MLP."""
    (figures,) = papers()["unipelt2022"].figures
    (words,) = [row for row in figures.scores if row.startswith("method=prefix ")]
    conditions = schema.parse_conditions(words)
    assert conditions == {"method": "prefix", "method.length": 10, "method.start_std": 0.02}
    sides = [
        side
        for claim in papers()["unipelt2022"].claims
        for pair in claim.pairs
        for side in pair
        if side and side["method"] == "prefix"
    ]
    assert sides == [conditions] * 3
    assert 2 * 10 * 12 * 768 == 184_320
    assert 2 * 10 * 6 * 384 == 46_080
    assert trained("minilm", *words.removeprefix("method=").split()) == 2_564_864
    caveat = " ".join(figures.caveat.split())
    assert all(count in caveat for count in ("184 K", "2.56 M", "46 K"))


def test_sentences_that_follow_from_the_figures():
    means = {place: mean for place, (mean, _) in table().items()}
    small = [(column, size) for column in COLUMNS for size in SIZES]
    claims = {claim.name: claim.published for claim in papers()["unipelt2022"].claims}
    gaps = [means["full", *place] - means["bitfit", *place] for place in small]
    assert f"by {_tenths(min(gaps))} to {_tenths(max(gaps))}" in claims["bitfit_behind_at_low_data"]
    above = [
        sum(means[method, *place] > means["bitfit", *place] for place in small)
        for method in ("pfeiffer", "prefix", "lora", "unipelt")
    ]
    assert "in {}, {}, {} and {} of nine".format(*above) in claims["bitfit_generally_worst"]
    parts = [means[method, *place] for method in ("pfeiffer", "prefix") for place in small]
    assert all(means["unipelt", *p] > one for p, one in zip(2 * small, parts, strict=True))
    on_stsb = {
        size: [means["pfeiffer", COLUMNS[2], size] - means[other, COLUMNS[2], size] for other in
               ("prefix", "lora")]
        for size in (*SIZES, "full")
    }  # fmt: skip
    low = [gap for size in SIZES for gap in on_stsb[size]]
    said = claims["adapters_ahead_on_stsb"]
    assert f"by {min(low):.1f} to {max(low):.1f} points" in said
    assert "by {:.1f} and {:.1f} on all".format(*on_stsb["full"]) in said
    deviations = {
        method: ", ".join(f"{table()[method, COLUMNS[2], size][1]:.2f}" for size in SIZES)
        for method in ("unipelt", "lora")
    }
    steady = claims["steadier_than_lora"].replace("\n", " ")
    assert f"of AP {deviations['unipelt']} and of LoRA {deviations['lora']}" in steady


def _tenths(gap: float) -> Decimal:
    """Rounded half up, as by hand: 33.15 of hundredths is 33.2."""
    return Decimal(f"{gap:.2f}").quantize(Decimal("0.1"), ROUND_HALF_UP)


@pytest.mark.parametrize("place", SENTENCES, ids=" ".join)
def test_numbers_in_sentences_are_those_that_were_read(place):
    paper, name = place
    (claim,) = [claim for claim in papers()[paper].claims if claim.name == name]
    numbers = [float(n) for n in re.findall(r"\d+(?:\.\d+)?", claim.published.replace(",", ""))
               ]  # fmt: skip
    assert numbers == SENTENCES[place]


def test_claims_with_numbers_of_their_own_are_all_checked():
    derived = {"bitfit_behind_at_low_data", "bitfit_generally_worst", "adapters_ahead_on_stsb"}
    checked = {name for _, name in SENTENCES} | derived | {"steadier_than_lora"}
    plots = {  # read off plots by eye, of which the figures have no numbers
        "demonstrations_do_not_help": ["0.61", "0.48"],
        "demonstrations_help_generation": ["0.24", "0.18", "0.61", "0.48"],
        "demonstrations_help_generation_behind_some": ["0.24", "0.18", "0.61", "0.48"],
        "generation_transfers_negatively": ["0.30", "0.32", "0.16", "0.19"],
        "demonstrations_gain_little": ["0.61", "0.68", "0.70", "0.68"],
    }
    for paper in papers().values():
        for claim in paper.claims:
            text = re.sub(r"margin of \d+ points?", "", claim.published)
            if claim.name in plots:
                assert re.findall(r"0\.\d+", claim.published) == plots[claim.name]
            elif re.search(r"\d\.\d", text):
                assert claim.name in checked
