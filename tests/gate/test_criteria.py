"""Criteria of a gate from answers made by hand."""

import numpy as np
import pytest
from scipy.stats import beta
from sklearn.metrics import roc_auc_score

from peftbench.core.errors import ConfigError
from peftbench.gate import abnormal, criteria, thresholds
from peftbench.gate.criteria import PASS, SHOWN, STOP, UNDECIDED, Criterion
from peftbench.gate.measure import Answers, Measured

LIMITS = thresholds.read(None)


def probabilities(right, label, sure: float = 0.9):
    """Two classes: of each row the confidence in its label, or in the other one."""
    own = np.where(right, sure, 1 - sure)
    made = np.empty((len(label), 2))
    made[np.arange(len(label)), label] = own
    made[np.arange(len(label)), 1 - label] = 1 - own
    return made


def measured(old, new, rows: int = 200, **changes) -> Measured:
    """Answers of two models, by the rows that each has right."""
    label = np.arange(rows) % 2
    plain = changes.get("plain") or Answers(
        label, probabilities(old(rows), label), probabilities(new(rows), label)
    )
    unsure = np.linspace(0.5, 0.95, 24)
    given = {
        "plain": plain,
        "noise": {},
        "shift": {},
        "abnormal": {"empty": (unsure, unsure)},
        "seconds": (np.linspace(1, 2, 50), np.linspace(1, 2, 50)),
        "size": (100, 100),
    }
    return Measured(**given | changes)


def wrong_on(*places: int):
    return lambda rows: ~np.isin(np.arange(rows), places)


def by_name(found) -> dict[str, Criterion]:
    return {one.name: one for one in found.criteria}


def test_a_model_replaces_itself():
    same = wrong_on(*range(20))
    found = criteria.judge(measured(same, same), "accuracy", LIMITS)
    assert found.passes
    told = by_name(found)
    assert told["score"].old == pytest.approx(0.9)
    for name in ("calibration error", "abnormal input"):
        assert (told[name].change, told[name].low, told[name].high) == (0, 0, 0), name
    score = told["score"]  # 200 rows without a difference do not show that there is none
    assert (score.change, score.high) == (0, -score.low)
    assert score.low == pytest.approx(-(1 - 0.025 ** (1 / 200)), abs=5e-4)
    flips = told["negative flips"]
    assert (flips.change, flips.low) == (0, 0)
    assert flips.high == pytest.approx(1 - 0.025 ** (1 / 200))
    assert told["latency (ms)"].change == told["size (MB)"].change == 1


def test_flips_hide_behind_an_equal_score():
    """Ten rows are lost and ten are won: the score stays, and 5 % of the rows flip."""
    found = criteria.judge(
        measured(wrong_on(*range(10)), wrong_on(*range(50, 60))), "accuracy", LIMITS
    )
    told = by_name(found)
    assert told["score"].change == 0
    assert told["negative flips"].change == 0.05
    assert told["negative flips"].verdict == PASS  # at most 10 %, by its interval up to 9.0 %
    assert [flip.place for flip in found.flips] == list(range(50, 60))
    assert (found.flips[0].label, found.flips[0].answer) == (0, 1)
    assert found.gained.count == 10
    strict = thresholds.Thresholds(**{**vars(LIMITS), "negative_flips": 0.06})
    assert (
        by_name(criteria.judge(measured(wrong_on(), wrong_on(*range(10))), "accuracy", strict))[
            "negative flips"
        ].verdict
        == UNDECIDED
    )


def binomial_limit(lost: int, rows: int) -> float:
    """The upper end of Clopper and Pearson's 95 % interval."""
    return float(beta.ppf(0.975, lost + 1, rows - lost))


@pytest.mark.parametrize(("lost", "rows"), [(0, 36), (1, 150), (4, 60), (12, 500)])
def test_a_model_that_gains_nothing_has_the_interval_of_its_losses(lost, rows):
    """Else a model at the limit of -2 points passed 20 % of the time with one flip in 150 rows."""
    limit = thresholds.Thresholds(**{**vars(LIMITS), "score_difference": -0.02})
    found = criteria.judge(measured(wrong_on(), wrong_on(*range(lost)), rows), "accuracy", limit)
    score = by_name(found)["score"]
    assert score.change == pytest.approx(-lost / rows)
    assert score.low == pytest.approx(-binomial_limit(lost, rows), abs=0.02 * rows**-0.5)
    assert (score.verdict == PASS) == (binomial_limit(lost, rows) <= 0.02)


def test_f1_of_few_positive_rows_is_known_badly():
    label = (np.arange(200) < 5).astype(int)
    same = probabilities(wrong_on()(200), label)
    told = by_name(
        criteria.judge(measured(None, None, plain=Answers(label, same, same)), "f1", LIMITS)
    )
    assert told["score"].change == 0
    # recall of 5 rows that both have right ends at 1 - 0.025^(1/5) = 48 % lost
    recall = 0.025 ** (1 / 5)
    assert told["score"].low == pytest.approx(-(1 - 2 * recall / (1 + recall)), abs=0.03)
    assert told["score"].verdict == UNDECIDED


def test_a_file_without_any_limit_is_refused():
    none = {
        name: None for name in vars(LIMITS) if name.endswith(("_difference", "_ratio", "_flips"))
    }
    with pytest.raises(ConfigError, match="no limit is set"):
        thresholds.Thresholds(**{**vars(LIMITS), **none})


def test_a_loss_stops():
    found = criteria.judge(measured(wrong_on(), wrong_on(*range(30))), "accuracy", LIMITS)
    told = by_name(found)
    score = told["score"]
    assert score.change == pytest.approx(-0.15)
    assert score.low is not None
    assert score.high is not None
    assert -0.21 < score.low < -0.15 < score.high < -0.09
    assert score.verdict == told["negative flips"].verdict == STOP
    assert not found.passes


def test_noise_is_the_mean_of_its_kinds_on_the_same_rows():
    label = np.arange(200) % 2
    fine, half = (probabilities(wrong(200), label) for wrong in (wrong_on(), wrong_on(*range(100))))
    noise = {"typos": Answers(label, fine, half), "casing": Answers(label, fine, fine)}
    found = criteria.judge(measured(wrong_on(), wrong_on(), noise=noise), "accuracy", LIMITS)
    assert [one.change for one in found.noise] == [pytest.approx(-0.5), 0]
    assert {one.verdict for one in found.noise} == {SHOWN}
    assert by_name(found)["noise"].change == pytest.approx(-0.25)
    assert by_name(found)["noise"].verdict == STOP


def test_shift_latency_and_size_have_limits_of_their_own():
    label = np.arange(40) % 2
    worse = Answers(
        label, probabilities(wrong_on()(40), label), probabilities(wrong_on(*range(20))(40), label)
    )
    changes = {
        "shift": {"later.csv": worse},
        "seconds": (np.full(50, 1.0), np.full(50, 1.6)),
        "size": (100, 250),
    }
    told = by_name(criteria.judge(measured(wrong_on(), wrong_on(), **changes), "accuracy", LIMITS))
    assert told["shift: later.csv"].change == pytest.approx(-0.5)
    assert told["shift: later.csv"].n == 40
    latency = told["latency (ms)"]
    assert (latency.old, latency.change) == (1000, pytest.approx(1.6))
    assert {told[n].verdict for n in ("shift: later.csv", "latency (ms)", "size (MB)")} == {STOP}


def test_auroc_and_its_difference():
    draw = np.random.default_rng(0)
    old, odd = np.round(draw.beta(5, 2, 300), 2), np.round(draw.beta(3, 3, 60), 2)
    new, new_odd = np.round(0.5 * old + 0.5 * draw.beta(5, 2, 300), 2), np.round(odd, 1)
    first, second, low, high = criteria.auroc_difference(old, odd, new, new_odd)
    label = np.r_[np.ones(300), np.zeros(60)]
    assert first == pytest.approx(roc_auc_score(label, np.r_[old, odd]))
    assert second == pytest.approx(roc_auc_score(label, np.r_[new, new_odd]))
    above = [
        (a[:, None] > b).astype(float) + 0.5 * (a[:, None] == b)
        for a, b in ((old, odd), (new, new_odd))
    ]
    drawn = []
    for _ in range(1_000):
        chosen = np.ix_(draw.integers(0, 300, 300), draw.integers(0, 60, 60))
        drawn.append(np.mean(above[1][chosen] - above[0][chosen]))
    assert (high - low) / 2 == pytest.approx(1.96 * np.std(drawn), rel=0.1)
    assert (low + high) / 2 == pytest.approx(second - first)


@pytest.mark.parametrize(
    ("change", "low", "by", "verdict"),
    [
        (-0.01, -0.015, "interval", PASS),
        (-0.01, -0.03, "interval", UNDECIDED),
        (-0.01, -0.03, "value", PASS),
        (-0.03, -0.05, "value", STOP),
        (None, None, "value", UNDECIDED),
    ],
)
def test_what_the_interval_decides(change, low, by, verdict):
    one = Criterion("score", "share", 0.9, 0.9, change, low, 0.0, 100, -0.02, True, by)
    assert one.verdict == verdict


def test_an_undefined_score_decides_nothing():
    label = np.zeros(60, dtype=np.int64)  # Matthews of one class
    plain = Answers(label, probabilities(label == 0, label), probabilities(label == 0, label))
    told = by_name(
        criteria.judge(measured(wrong_on(), wrong_on(), plain=plain), "matthews", LIMITS)
    )
    assert told["score"].verdict == UNDECIDED
    assert "too few rows of a class" in str(told["score"].why)


def test_abnormal_texts_have_as_many_columns_as_the_task():
    rows = [["one text", "another, longer text", ""], ["b", "c", "d"]]
    for kind in abnormal.KINDS:
        made = abnormal.texts(kind, rows)
        assert [len(column) for column in made] == [24, 24], kind
        assert made[0] != made[1]
    assert min(map(len, abnormal.texts("very long", rows)[0])) >= 8_000
    assert abnormal.texts("very long", rows) == abnormal.texts("very long", rows)
    assert min(map(len, abnormal.texts("very long", [["", " "]])[0])) >= 8_000


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("scores_difference: 0", "unknown key scores_difference; did you mean score_difference"),
        ("score_difference: -2", "score_difference must be a number from -1 to 1, got -2"),
        ("latency_ratio: 0", "latency_ratio must be a number greater than 0"),
        ("negative_flips: yes", "negative_flips must be a number from 0 to 1, got True"),
        ("decide_by: hope", "decide_by must be one of interval, value"),
        ("noise: {shouting: 0.1}", "noise: no noise shouting"),
        ("noise: {typos: 2}", "noise.typos is a rate above 0 and at most 1, got 2"),
        ("noise: {typos: abc}", "noise.typos is a rate above 0 and at most 1, got .abc."),
        ("abnormal: [rude]", "abnormal must be one of empty, other language"),
        ("latency_texts: 3", "latency_texts must be a whole number of at least 20, got 3"),
        ("- 1", "must hold key: value lines"),
    ],
)
def test_bad_limits_are_refused_with_their_file(tmp_path, text, told):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as error:
        thresholds.read(path)
    assert "mine.yaml" in str(error.value)


def test_limits_of_a_users_own_stand_beside_the_packaged_ones(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("score_difference: 0.01\nsize_ratio: null\nnoise: {}\nabnormal: []\n")
    mine = thresholds.read(path)
    assert (mine.score_difference, mine.size_ratio) == (0.01, None)
    assert mine.latency_ratio == LIMITS.latency_ratio
    found = criteria.judge(measured(wrong_on(), wrong_on(), abnormal={}), "accuracy", mine)
    told = by_name(found)
    assert told["size (MB)"].verdict == SHOWN
    assert not any(name.startswith(("noise", "abnormal")) for name in told)
