"""Parts of a file for cross-validation: what stays together, what each part gets, refusals."""

import numpy as np
import pytest

from peftbench.config.sweep import plan
from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.data import data_report, folds, loading
from peftbench.data.splitting import split_training

WORDS = ("model=tiny", "method=full")


def sentences(count):
    """Texts that share few letters in a row, with one of two labels; a third is positive."""
    draw = np.random.default_rng(0)
    letters = list("abcdefghijklmnopqrstuvwxyz")
    return [
        ("".join(draw.choice(letters, 30)), "good" if n % 3 == 0 else "bad") for n in range(count)
    ]


def write(path, rows, header="sentence,label"):
    path.write_text("".join(f"{line}\n" for line in [header, *(",".join(row) for row in rows)]))
    return path


def task_of(path, *words):
    return plan("task=file", f"task.path='{path}'", *WORDS, *words).runs[0].task


def test_texts_that_differ_little_are_near_duplicates():
    texts = [
        "A fine film that I would gladly see again with friends.",
        "a  fine film that I would gladly see again with friends!",
        "A fine film that I would gladly see again with my friends.",
        "Slow, dull, and far too long for the little that happens.",
        "ok",
        "OK",
        "no",
        "",
        " ",
    ]
    assert folds.near_duplicates([texts]).tolist() == [0, 0, 0, 1, 2, 2, 3, 4, 4]
    one, other = ["same text for both"] * 2, ["an answer", "something else"]
    assert len(set(folds.near_duplicates([one, other]).tolist())) == 2


def test_a_pair_at_the_threshold_is_together_and_one_below_it_is_not():
    base = "abcdefghijklmnopqrstuvwxyz"  # 22 shingles
    assert len(set(folds.near_duplicates([[base, base[:-4]]]).tolist())) == 1  # 18 of 22
    assert len(set(folds.near_duplicates([[base, base[:-5]]]).tolist())) == 2  # 17 of 22


@pytest.mark.parametrize("seed", range(3))
def test_what_is_not_compared_is_not_alike(seed):
    """Against all pairs of rows: many of few words, some of them a few letters apart."""
    draw = np.random.default_rng(seed)
    words = ["film", "actor", "plot", "a", "very", "good", "long", "scene", "in", "the"]
    texts = [" ".join(draw.choice(words, draw.integers(0, 9))) for _ in range(400)]
    for place in draw.integers(0, 400, 200):
        text = texts[place]
        cut = int(draw.integers(0, len(text) + 1))
        texts.append(text[:cut] + str(draw.choice([*"xyz", " good", ""])) + text[cut:])
    padded = [" ".join(text.split()).ljust(5, "\0") for text in texts]
    sets = [{text[n : n + 5] for n in range(len(text) - 4)} for text in padded]
    group = list(range(len(texts)))
    for one, mine in enumerate(sets):
        for other in range(one):
            both = len(mine & sets[other])
            if 5 * both >= 4 * (len(mine) + len(sets[other]) - both):
                low, high = sorted((group[one], group[other]))
                group = [low if number == high else number for number in group]
    numbers = {number: place for place, number in enumerate(dict.fromkeys(group))}
    assert folds.near_duplicates([texts]).tolist() == [numbers[number] for number in group]


def test_near_duplicates_are_found_once_for_all_cuts_of_a_file(tmp_path, monkeypatch):
    path, found = write(tmp_path / "mine.csv", sentences(60)), []
    real = folds.near_duplicates
    monkeypatch.setattr(folds, "near_duplicates", lambda texts: found.append(0) or real(texts))
    for seed in range(3):
        loading.cut(task_of(path, "task.folds=4", "task.fold=1", f"task.fold_seed={seed}"))
    assert len(found) == 1


def test_each_part_has_the_shares_of_the_whole_and_groups_stay_in_one():
    rows = sentences(150)
    label = np.array([label == "good" for _, label in rows]).astype(int)
    texts = [text for text, _ in rows]
    customers = [str(n // 4) if n < 100 else "" for n in range(150)]
    found = folds.cut(folds.near_duplicates([texts]), label, 2, 5, 0, customers)
    sizes = np.bincount(found.part)
    assert sizes.min() >= 26
    assert sizes.max() <= 34
    for part in range(5):
        assert label[found.part == part].sum() == pytest.approx(10, abs=2)
    for number in range(25):
        assert len(set(found.part[4 * number : 4 * number + 4])) == 1
    assert len(np.unique(found.group)) == 25 + 50
    assert found.alike == 0
    other = folds.cut(folds.near_duplicates([texts]), label, 2, 5, 1, customers)
    assert (other.part != found.part).any()


def test_near_duplicates_join_the_groups_of_a_column():
    rows = sentences(40)
    texts = [text for text, _ in rows]
    texts[7] = texts[3] + "!"
    given = ["" for _ in texts]
    given[7] = given[20] = "one customer"
    found = folds.cut(folds.near_duplicates([texts]), np.arange(40) % 2, 2, 4, 0, given)
    assert found.group[3] == found.group[7] == found.group[20]
    assert found.part[3] == found.part[7] == found.part[20]
    assert found.alike == 2


@pytest.mark.parametrize(
    ("label", "parts", "told"),
    [([0] * 18 + [1] * 2, 5, "rarest class has 2 rows"), ([0, 1], 5, "has 2; use task.folds=2")],
)
def test_what_cannot_be_cut_is_refused(label, parts, told):
    texts = [text for text, _ in sentences(len(label))]
    with pytest.raises(ConfigError, match=told):
        folds.cut(folds.near_duplicates([texts]), np.array(label), 2, parts, 0)


def test_the_folds_of_a_file_hold_each_row_out_once(tmp_path):
    rows = sentences(60)
    rows[11] = (rows[5][0] + ".", "bad")
    path = write(tmp_path / "mine.csv", rows)
    task = task_of(path, "task.folds=4", "task.fold=1")
    assert task.validation_fraction is None
    seen = []
    for fold in range(4):
        task = task_of(path, "task.folds=4", f"task.fold={fold}")
        train, held = (loading.load_split(task, part, None) for part in ("train", "validation"))
        assert len(train.label) + len(held.label) == 60
        assert not set(train.texts[0]) & set(held.texts[0])
        assert (rows[5][0] in held.texts[0]) == (rows[11][0] in held.texts[0])
        here = loading.held_rows(task).tolist()
        assert held.texts[0] == [rows[row][0] for row in here]
        columns, lines = loading.load_columns(task, "validation", None)
        assert columns["sentence"] == held.texts[0]
        assert lines.tolist() == [row + 2 for row in here]
        seen += here
    assert sorted(seen) == list(range(60))
    assert "(part 4 of 4)" in data_report.data_lines(task, None)[0]
    assert data_report.data_lines(task, None, brief=True) == []
    prints = {
        loading.fingerprint(task_of(path, "task.folds=4", f"task.fold={fold}"), "train", None)
        for fold in (0, 1)
    }
    assert len(prints) == 2


def test_folds_make_runs_of_their_own_and_the_column_of_groups_is_read(tmp_path):
    rows = [(text, label, str(n % 12)) for n, (text, label) in enumerate(sentences(60))]
    path = write(tmp_path / "mine.csv", rows, "sentence,label,customer")
    words = ("task=file", f"task.path='{path}'", *WORDS)
    plain = plan(*words).runs
    cut = plan(*words, "task.folds=3", "task.fold=0,1,2", "task.fold_seed=null,1").runs
    assert len({run.key for run in [*plain, *cut]}) == 7
    assert "fold" not in plain[0].task.to_json()
    grouped = task_of(path, "task.folds=3", "task.fold=0", "task.group=customer")
    held = set(loading.held_rows(grouped) % 12)
    assert not held & set(np.setdiff1d(np.arange(60), loading.held_rows(grouped)) % 12)
    with pytest.raises(ConfigError, match="no column 'client'"):
        task_of(path, "task.folds=3", "task.fold=0", "task.group=client")


def held(fold=None):
    return CheckpointSelection(fraction=0.25, patience=1, fold=fold)


def test_groups_are_trained_on_or_selected_on_as_a_whole(tmp_path):
    """Else early stopping and learning rates are chosen by what a run memorises."""
    rows = [(text, label, str(n % 20)) for n, (text, label) in enumerate(sentences(100))]
    path = write(tmp_path / "mine.csv", rows, "sentence,label,customer")
    cut = ("task=file", f"task.path='{path}'", *WORDS, "task.folds=4", "task.fold=0")
    whole, few = (plan(*cut, "task.group=customer", f"size={n}").runs[0] for n in ("full", 30))
    label = loading.load_split(whole.task, "train", None).label
    customer = np.flatnonzero(loading.cut(whole.task).part != 0) % 20
    selected = []
    for fold in range(4):
        made = split_training(whole, label, held(fold))
        assert not set(customer[made.train]) & set(customer[made.selection])
        assert len(made.train) + len(made.selection) == len(label)
        assert len(made.selection) >= len(label) / 10
        selected += made.selection.tolist()
    assert sorted(selected) == list(range(len(label)))
    made = split_training(few, label)
    assert len(made.train) == 30
    assert not set(customer[made.train]) & set(customer[made.unused])
    (plain,) = plan(*cut).runs
    assert loading.training_groups(plain.task) is None  # no two rows are alike


def test_groups_that_leave_nothing_to_select_on_are_refused(tmp_path):
    rows = [(text, label, str(n % 3)) for n, (text, label) in enumerate(sentences(60))]
    path = write(tmp_path / "mine.csv", rows, "sentence,label,customer")
    cut = ("task.folds=3", "task.fold=0", "task.group=customer")
    (run,) = plan("task=file", f"task.path='{path}'", *WORDS, *cut).runs
    label = loading.load_split(run.task, "train", None).label
    with pytest.raises(ConfigError, match="so large that nothing is left to select on"):
        split_training(run, label, held(3))


def test_few_values_have_fewer_strata():
    """Forty values in five parts: of ten strata each would have four."""
    found = folds.cut(np.arange(40), np.arange(40.0), 1, 5, 0)
    assert np.bincount(found.part).tolist() == [8] * 5
    for part in range(5):
        held = np.flatnonzero(found.part == part)
        assert np.bincount(held // 5, minlength=8).tolist() == [1] * 8


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["task.fold=0"], "task.fold without task.folds"),
        (["task.folds=3"], "from 0 to 2"),
        (["task.folds=3", "task.fold=3"], "from 0 to 2"),
        (["task.folds=1", "task.fold=0"], "at least 2"),
        (["task.folds=3", "task.fold=0", "task.fold_seed=-1"], "at least 0"),
        (["task.folds=3", "task.fold=0", "task.validation_path='{path}'"], "leave"),
    ],
)
def test_folds_that_cannot_be_are_refused(tmp_path, words, told):
    path = write(tmp_path / "mine.csv", sentences(30))
    with pytest.raises(ConfigError, match=told):
        task_of(path, *(word.format(path=path) for word in words))


def test_parts_after_the_first_are_described_only_where_a_class_has_no_examples(tmp_path):
    text = "the same rare sentence four times"  # near duplicates stay in one part
    rows = [*sentences(60), *((text + mark, "odd") for mark in ("", ".", "!", "?"))]
    path = write(tmp_path / "mine.csv", rows)
    told = [
        data_report.data_lines(task_of(path, "task.folds=4", f"task.fold={fold}"), None, brief=True)
        for fold in range(4)
    ]
    (holds,) = [place for place, lines in enumerate(told) if "training" in " ".join(lines)]
    for fold, lines in enumerate(told):
        what = "training" if fold == holds else "validation"
        first = f"mine (part {fold + 1} of 4): 1 without {what} examples: odd"
        assert lines[0] == first
