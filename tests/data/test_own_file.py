"""A user's own files as people have them: read as they are, or refused with the line."""

import codecs
import json

import numpy as np
import pandas as pd
import pytest
import records

from peftbench.config.sweep import plan
from peftbench.core.errors import ConfigError
from peftbench.data import data_report, delimited, loading

WORDS = ("model=tiny", "method=full")


def sentences(count=40, names=("good", "bad")):
    return [(f"This is text {n}.", names[n % len(names)]) for n in range(count)]


def write(path, rows, header=("sentence", "label"), delimiter=","):
    lines = [delimiter.join(header), *(delimiter.join(map(str, row)) for row in rows)]
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def task_of(path, *words):
    return plan("task=file", f"task.path='{path}'", *WORDS, *words).runs[0].task


def texts_of(path, *words):
    task = task_of(path, *words)
    parts = [loading.load_split(task, part, None) for part in ("train", "validation")]
    return sorted(text for part in parts for text in part.texts[0])


def refused(path, *words):
    with pytest.raises(ConfigError) as told:
        task_of(path, *words)
    assert len(str(told.value)) < 700
    return str(told.value)


# quotation marks


def test_raw_quotation_marks_of_a_tsv_are_refused_or_kept(tmp_path):
    rows = sentences()
    rows[3] = ('"' + rows[3][0], "bad")
    rows[7] = (rows[7][0] + '"', "bad")
    path = write(tmp_path / "raw.tsv", rows, delimiter="\t")
    told = refused(path)
    assert "line 5 opens a text that goes on to line 9" in told
    assert "4 rows would be lost" in told
    assert "task.quoting=none" in told
    assert texts_of(path, "task.quoting=none") == sorted(text for text, _ in rows)


@pytest.mark.parametrize("ending", [".csv", ".tsv"])
def test_a_mark_that_is_not_closed_and_one_inside_a_text(ending, tmp_path):
    comma = {".csv": ",", ".tsv": "\t"}[ending]
    for bad in ('"Great movie', '"Great" movie'):
        path = write(tmp_path / f"raw{ending}", [*sentences(9), (bad, "bad")], delimiter=comma)
        told = refused(path)
        assert "line 11" in told
        assert "task.quoting=none" in told
        assert bad in texts_of(path, "task.quoting=none")


def test_texts_over_several_lines_are_one_example(tmp_path):
    path = tmp_path / "mine.csv"
    frame = pd.DataFrame(sentences(), columns=["sentence", "label"])
    frame.loc[4, "sentence"] = 'Dear "sir",\nyes, good,\n\nbye'
    frame.to_csv(path, index=False)
    assert texts_of(path) == sorted(frame["sentence"])
    assert texts_of(path, "task.quoting=standard") == sorted(frame["sentence"])


def test_swallowed_rows_of_a_regression(tmp_path):
    rows = [(f"text {n}", n / 4) for n in range(30)]
    rows[2], rows[5] = ('"open', 0.5), ('close"', 1.25)
    path = write(tmp_path / "raw.tsv", rows, delimiter="\t")
    assert "line 4 opens a text that goes on to line 7" in refused(path, "task.kind=regression")


@pytest.mark.parametrize("text", ["Buy:\nmilk, 2\nbread, 1\nThanks", "Scores\n\nhome, 3\n\n"])
@pytest.mark.parametrize("first", ["label", "sentence"])
def test_a_text_of_several_lines_with_numbers_swallows_nothing(text, first, tmp_path):
    """A line such as `milk, 2` looks like a row of a regression; the lines around it do not."""
    path = tmp_path / "mine.csv"
    frame = pd.DataFrame({"sentence": [f"text {n}" for n in range(30)], "label": np.arange(30) / 4})
    frame.loc[7, "sentence"] = text
    frame[[first, ({"label", "sentence"} - {first}).pop()]].to_csv(path, index=False)
    assert texts_of(path, "task.kind=regression") == sorted(frame["sentence"])


def test_marks_that_are_taken_off_are_counted(tmp_path):
    rows = sentences()
    rows[6] = (f'"{rows[6][0]}"', "good")
    path = write(tmp_path / "raw.tsv", rows, delimiter="\t")
    assert (
        "raw.tsv: 1 of 40 texts of 'sentence' stand in quotation marks (first: line 8), which are "
        "taken off; task.quoting=none keeps them"
    ) in data_report.data_lines(task_of(path), None)


def test_quoting_enters_the_key_only_where_it_is_said(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    plain, said = task_of(path), task_of(path, "task.quoting=none")
    assert "quoting" not in plain.to_json()
    assert said.to_json()["quoting"] == "none"
    assert "must be one of standard, none" in refused(path, "task.quoting=double")


# columns and rows


def test_the_same_bytes_read_in_two_ways_are_other_data(tmp_path):
    path = write(tmp_path / "q.csv", sentences())
    ways = [task_of(path), *(task_of(path, f"task.quoting={way}") for way in ("none", "standard"))]
    assert len({loading.fingerprint(task, "train", None) for task in ways}) == 3


def test_a_file_has_no_further_splits(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    assert "score another file with suite=shift" in refused(path, "task.extra={test:test}")


def test_a_list_is_asked_for_as_it_is_typed(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    assert refused(path, "task.texts=text").endswith("is a list; write 'task.texts=[text]'")


def test_no_column_is_proposed_that_cannot_be_one(tmp_path):
    path = tmp_path / "semi.csv"
    path.write_text("sentence;label\n" + "a b;1\n" * 20)
    told = refused(path)
    assert "separated by ';'" in told
    assert "task.texts" not in told
    nested = tmp_path / "nested.json"
    nested.write_text('{"data": [{"sentence": "a", "label": 1}]}')
    assert "[data]" not in refused(nested)


def test_a_draw_without_a_class_is_told(tmp_path):
    rows = [(f"number {n} of many words", "common" if n < 198 else "rare") for n in range(200)]
    words = ("task=file", f"task.path='{write(tmp_path / 'rare.csv', rows)}'", "method=lora")
    (run, other) = records.runs(*words, "size=10", "seed=0,1")
    (told,) = data_report.absent_classes(run, None)
    assert told == (
        "rare, size 10: a draw has no training example of rare; a model cannot learn a class that "
        "it never sees"
    )
    assert data_report.absent_classes(other, None) == [told]
    (whole,) = records.runs(*words, "size=full")
    assert data_report.absent_classes(whole, None) == []


def test_a_column_that_stands_twice(tmp_path):
    rows = [(*row, 1) for row in sentences()]
    path = write(tmp_path / "mine.csv", rows, ("sentence", "label", "label"))
    assert "'label' is the name of columns 2 and 3" in refused(path)
    (tmp_path / "mine.jsonl").write_text('{"sentence": "a", "label": 1, "label": 0}\n' * 9)
    assert "line 1: an object has the key 'label' twice" in refused(tmp_path / "mine.jsonl")
    path = write(tmp_path / "mine.csv", rows, ("sentence", "label", "label "))
    assert "columns 2 and 3" in refused(path)
    path = write(tmp_path / "mine.csv", [(*r, 1) for r in rows], ("sentence", "label", "x", "x"))
    assert len(texts_of(path)) == 40  # a column that nobody asks for


def test_columns_that_are_numbers(tmp_path):
    path = write(tmp_path / "mine.csv", sentences(), ("0", "1"))
    assert len(texts_of(path, "task.texts=[0]", "task.label=1")) == 40
    frame = pd.DataFrame(sentences())
    frame.to_json(tmp_path / "mine.jsonl", orient="records", lines=True)
    assert len(texts_of(tmp_path / "mine.jsonl", "task.texts=[0]", "task.label=1")) == 40


def test_a_label_is_no_text(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    assert "name a column twice" in refused(path, "task.texts=[label]")
    assert "name a column twice" in refused(path, "task.texts=[sentence,sentence]")


def test_rows_are_counted_as_text_editors_do(tmp_path):
    path = tmp_path / "mine.csv"
    good = "".join(f"{text},{label}\n" for text, label in sentences())
    for newline in ("\n", "\r\n", "\r"):
        body = f'sentence,label\n\n\n"two\nlines",good\n{good}\n\na,b,bad\n'
        path.write_bytes(body.replace("\n", newline).encode())
        assert "line 48 has 3 fields, the header 2" in refused(path)


def test_rows_of_empty_cells_are_left_out_and_counted(tmp_path):
    path = write(tmp_path / "mine.csv", [*sentences(), ("", ""), (" ", "")])
    assert len(texts_of(path)) == 40
    told = data_report.data_lines(task_of(path), None)
    assert "mine.csv: 2 rows without any value (first: line 42) left out" in told


def test_rows_of_one_column_that_is_empty(tmp_path):
    """A cell in quotation marks is an empty text; a line with nothing on it is no row."""
    path = tmp_path / "new.csv"
    body = '\ntext\ngood film\n\n  \nbad film\n""\n\n'
    path.write_text(body)

    def read(keep_empty):
        rows = delimited.read_rows(path, body, ",", None, "label", ["text"], keep_empty)
        return rows.cells, rows.lines, rows.notes

    gap = '1 blank line (first: line 4) left out; write an empty text as ""'
    assert read(True) == ([["good film"], ["  "], ["bad film"], [""]], [3, 5, 6, 7], [gap])
    empty = "2 rows without any value (first: line 5) left out"
    assert read(False) == ([["good film"], ["bad film"]], [3, 6], [empty, gap])


@pytest.mark.parametrize("count", [1, 2])
def test_further_header_rows(count, tmp_path):
    more = [("What do you think?", "Would you come again?"), ('"{""id"":""Q1""}"', "id Q2")]
    path = write(tmp_path / "mine.csv", more[:count] + sentences())
    told = refused(path)
    assert ("line 2: " if count == 1 else "lines 2, 3: ") in told
    assert "further header rows" in told
    assert f"task.classes={2 + count}" in told
    assert len(task_of(path, f"task.classes={2 + count}").class_names) == 2 + count


def test_the_header_again_in_the_middle(tmp_path):
    rows = [*sentences(), ("sentence", "label"), *sentences()]
    assert "line 42 holds the column names again" in refused(write(tmp_path / "mine.csv", rows))


def test_a_file_of_other_delimiters_and_one_without_a_header(tmp_path):
    told = refused(write(tmp_path / "mine.csv", sentences(), delimiter=";"))
    assert "separated by ';'" in told
    path = write(tmp_path / "mine.csv", sentences(), ("This is a text", "good"))
    assert "the first line of a file holds the names" in refused(path)


# encodings


@pytest.mark.parametrize(
    ("name", "line"), [("utf-16", 1), ("utf-16-le", 1), ("latin-1", 4), ("utf-32", 1)]
)
@pytest.mark.parametrize("ending", [".csv", ".jsonl"])
def test_encodings_are_named_with_the_line(name, line, ending, tmp_path):
    rows = [*sentences(2), ("Grüße", "good"), *sentences()]
    if ending == ".csv":
        body = "sentence,label\n" + "".join(f"{text},{label}\n" for text, label in rows)
    else:
        line = min(line, 3)
        made = [{"sentence": text, "label": label} for text, label in rows]
        body = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
    path = tmp_path / f"mine{ending}"
    path.write_bytes(body.encode(name))
    told = refused(path)
    assert f"line {line} " in told
    assert "save as UTF-8" in told
    path.write_bytes(codecs.BOM_UTF8 + body.encode())
    assert "Grüße" in texts_of(path)


# json


def test_json_of_columns_and_of_records(tmp_path):
    frame, path = pd.DataFrame(sentences(), columns=["sentence", "label"]), tmp_path / "mine.json"
    for told in ({}, {"orient": "records", "indent": 2}, {"orient": "records", "lines": True}):
        frame.to_json(path, **told)
        assert texts_of(path) == sorted(frame["sentence"])
    path.write_text(json.dumps(frame.to_dict("list"), indent=1))
    assert texts_of(path) == sorted(frame["sentence"])
    for orient in ("split", "table"):
        frame.to_json(path, orient=orient)
        assert "df.to_json(PATH, orient='records', lines=True)" in refused(path)


def test_json_errors_name_the_line(tmp_path):
    lines = [json.dumps({"sentence": text, "label": label}) for text, label in sentences()]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join([*lines[:4], "", "{no", *lines[4:]]))
    assert "line 6: " in refused(path)
    path.write_text("\n".join([*lines, "[1, 2]"]))
    assert "line 41 holds a list where an object is expected" in refused(path)
    path.write_text(
        "[\n" + ",\n".join([*lines[:3], '{"sentence": ["a", "b"], "label": "bad"}']) + "]"
    )
    assert "example 4: column 'sentence' holds a list where a text is expected" in refused(path)
    path.write_text(f"[{lines[0]}, {lines[1]}, 7]")
    assert "example 3 holds a number where an object is expected" in refused(path)
    path.write_text(f'[{lines[0]}, {{"label": 1, "label": 0}}]')
    assert "example 2: an object has the key 'label' twice" in refused(path)
    path.write_text("[\n" + "\n".join(lines) + "]")
    assert "line 3: a comma or the end of the list is missing" in refused(path)


def test_dates_stay_what_they_are(tmp_path):
    made = [
        {"sentence": f"2024-01-{n + 1:02}", "label": "2024-01-01"[: 8 + n % 3]} for n in range(20)
    ]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    assert texts_of(tmp_path / "mine.jsonl")[0] == "2024-01-01"
    assert task_of(tmp_path / "mine.jsonl").class_names[-1] == "2024-01-01"


def test_objects_of_a_parquet_file(tmp_path):
    rows = [{"sentence": {"en": text}, "label": label} for text, label in sentences()]
    pd.DataFrame(rows).to_parquet(tmp_path / "mine.parquet")
    assert "rows 1, 2, 3, 4, 5 and 35 more: column 'sentence' holds an object" in refused(
        tmp_path / "mine.parquet"
    )


# labels


def test_labels_with_blanks_are_read_and_in_two_cases_refused(tmp_path):
    path = write(tmp_path / "mine.csv", sentences(names=("Yes", "Yes ", "No", "\u00a0No")))
    assert task_of(path).class_names == ["No", "Yes"]
    told = data_report.data_lines(task_of(path), None)
    assert (
        "mine.csv: blanks around 20 labels are taken off (lines 3, 5, 7, 9, 11 and 15 more)" in told
    )
    for names in (
        ("Yes", "yes", "No"),
        ("Yes", "Y\u200bes", "No"),
        ("very good", "very  good", "No"),
        ("1", "1.0", "0"),
        ("1.50", "1.5", "2"),
        ("-0", "0.0", "1"),
    ):
        path = write(tmp_path / "mine.csv", sentences(names=names))
        told = refused(path)
        assert "differ in case or blanks alone" in told
        assert "first on line 3" in told
        assert len(task_of(path, "task.classes=3").class_names) == 3


@pytest.mark.parametrize(
    "names",
    [("1", "10", "0"), ("1.5", "1.55"), ("1_0", "10"), ("v1", "v1.0"), ("9" * 30, "9" * 29)],
)
def test_labels_that_are_different_numbers_are_classes(names, tmp_path):
    path = write(tmp_path / "mine.csv", sentences(names=names))
    assert task_of(path).class_names == sorted(names)


def test_labels_that_say_there_is_none(tmp_path):
    path = write(tmp_path / "mine.csv", sentences(names=("good", "bad", "NaN")))
    assert "13 of 40 labels are 'NaN', which is no label (lines 4, 7, " in refused(path)
    assert task_of(path, "task.classes=3").class_names == ["NaN", "bad", "good"]
    path = write(tmp_path / "mine.csv", sentences(names=("good", "bad", "None")))
    told = data_report.data_lines(task_of(path), None)
    assert any(line.startswith("mine.csv: 'None' is taken as a class (lines 4, 7") for line in told)
    path = write(tmp_path / "mine.csv", [*sentences(), ("a", ""), ("b", " ")])
    assert "2 of 42 labels are empty; remove them (lines 42, 43)" in refused(path)


def test_many_classes_are_classes_and_many_numbers_are_not(tmp_path):
    path = write(tmp_path / "mine.csv", sentences(385, [f"intent_{n}" for n in range(77)]))
    assert task_of(path).classes == 77
    path = write(tmp_path / "mine.csv", sentences(385, [str(n) for n in range(77)]))
    told = refused(path)
    assert "look like values; for regression set task.kind=regression" in told
    assert "task.classes=77" in told
    assert task_of(path, "task.classes=77").classes == 77
    assert "task.classes=76, but mine has 77 labels" in refused(path, "task.classes=76")


def test_classes_that_one_part_lacks(tmp_path):
    path = write(tmp_path / "mine.csv", [*sentences(), ("a", "ugly"), ("b", "fair"), ("c", "fair")])
    held = write(tmp_path / "held.csv", sentences(20))
    words = (f"task.validation_path='{held}'",)
    told = data_report.data_lines(task_of(path, *words), None)
    assert "2 without validation examples: fair, ugly" in told[1]
    assert "mine.csv: classes with one example: ugly (line 42)" in told
    held = write(tmp_path / "held.csv", [*sentences(20), ("a", "strange")])
    told = refused(path, f"task.validation_path='{held}'")
    assert "labels that the training part does not have: strange (line 22)" in told
    assert "the classes are bad, fair, good" in told


def test_values_that_are_told(tmp_path):
    rows = [(f"text {n}", n / 4) for n in range(40)]
    words = ("task.kind=regression",)
    path = write(tmp_path / "mine.csv", [*rows, ("a", -999)])
    told = data_report.data_lines(task_of(path, *words), None)
    assert "mine.csv: 1 labels lie far from the others, such as -999 (line 42)" in told
    path = write(tmp_path / "mine.csv", [(text, f"{1e12 * value:.0f}") for text, value in rows])
    told = data_report.data_lines(task_of(path, *words), None)
    assert "mine.csv: labels reach 9.75e+12: a larger unit makes errors readable" in told
    path = write(tmp_path / "mine.csv", [(text, 1e12 + value) for text, value in rows])
    assert "of 40 distinct labels" in refused(path, *words)
    path = write(tmp_path / "mine.csv", [*rows, ("a", '"1,5"')])
    assert "line 42 holds '1,5' (a decimal point is expected)" in refused(path, *words)
    path = write(tmp_path / "mine.csv", [*rows, ("a", "nan"), ("b", "inf"), ("c", "1e39")])
    assert "empty or infinite values (lines 42, 43, 44)" in refused(path, *words)
    path = write(tmp_path / "mine.csv", rows)
    assert "lines 23, 24, 25, 26, 27 and 14 more: labels outside of task.range=[0, 5]" in refused(
        path, *words, "task.range=[0,5]"
    )


# values of options


@pytest.mark.parametrize("fraction", ["1", "1.0", "0", "-0.2", "1.5", "100", "true"])
def test_fractions_that_leave_nothing(fraction, tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    with pytest.raises(ConfigError, match=r"task\.validation_fraction"):
        task_of(path, f"task.validation_fraction={fraction}")


def test_a_fraction_that_rounds_to_all(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    told = refused(path, "task.validation_fraction=0.999")
    assert "task.validation_fraction=0.999 of 40 examples leaves nothing to train on" in told


def test_sizes_beyond_the_rows(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    assert "size=33: mine has 32 training examples" in refused(path, "size=10,33")
    assert task_of(path, "size=32").examples == {}
    told = refused(path, "size=8", "checkpoint_selection=best_on_holdout",
                   "checkpoint_selection.fraction=0.01")  # fmt: skip
    assert "checkpoint_selection.fraction=0.01 of 8 examples leaves nothing to select on" in told
    for fraction in ("-0.2", "1.0"):
        assert "checkpoint_selection.fraction must be" in refused(
            path,
            "checkpoint_selection=best_on_holdout",
            f"checkpoint_selection.fraction={fraction}",
        )


# identity


def test_a_file_that_changed_after_planning_is_refused(tmp_path, cache_folder):
    path = write(tmp_path / "mine.csv", sentences(60))
    task = task_of(path)
    body = path.read_bytes()
    assert len(loading.load_split(task, "train", None).label) == 48
    for changed in (body.replace(b"good", b"fair", 1), body[:-10], b""):
        path.write_bytes(changed)
        with pytest.raises(ConfigError, match="has changed since it was planned"):
            loading.load_split(task, "train", None)
        with pytest.raises(ConfigError, match="has changed since it was planned"):
            loading.check_unchanged(task, None)
    path.unlink()
    with pytest.raises(ConfigError, match="cannot read"):
        loading.check_unchanged(task, None)
    path.write_bytes(body)
    assert len(loading.load_split(task, "train", None).label) == 48


def test_planning_hashes_what_is_there_now(tmp_path):
    """Also where size and time of the file are as before."""
    import os

    path = write(tmp_path / "mine.csv", sentences())
    before, time = task_of(path), path.stat().st_mtime_ns
    path.write_text(path.read_text().replace("0.,good", "0.,evil"))
    os.utime(path, ns=(time, time))
    assert task_of(path).source != before.source


# the report


def test_the_report_is_ten_lines_at_most(tmp_path):
    rows = [*sentences(60, [f"class {n}" for n in range(10)]), ("", "none"), ("", "-"), ("a", "x ")]
    rows += [("b\ufffd", "y"), ("nan", "z"), ("GrÃ¼Ãe", "null")]
    path = write(tmp_path / "mine.csv", rows)
    task = task_of(path, "task.classes=16")
    told = data_report.data_lines(task, None)
    assert len(told) <= 8
    assert told[0] == "mine: 53 training and 13 validation examples (20% of the file)"
    assert told[1].startswith("mine: 16 classes (training + validation): class 1 5 + 1, ")
    assert "… and 10 more, z 1 + 0; 6 without validation examples: " in told[1]
    assert "characters of a text: median 16" in told[2]
    assert "further notes" in told[-1]


@pytest.mark.parametrize(
    ("metrics", "told"),
    [("f1,accuracy", "; f1 of class 'legit'"), ("accuracy,macro_f1", "legit 16 + 4")],
)
def test_the_report_names_the_positive_class(metrics, told, tmp_path):
    """It is the last one in the alphabet, which a person who looks for fraud would not expect."""
    path = write(tmp_path / "mine.csv", sentences(names=("fraud", "legit")))
    lines = data_report.data_lines(task_of(path, f"task.metrics=[{metrics}]"), None)
    assert lines[1].endswith(told)


@pytest.mark.parametrize(("letters", "share"), [("This is text .", 0.2), ("Das ist ein Satz", 1.0)])
def test_a_tokenizer_that_does_not_know_the_language(letters, share, tmp_path, monkeypatch):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {w: n for n, w in enumerate(["[PAD]", "[UNK]", "[CLS]", *letters.split()])}
    fast = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    fast.pre_tokenizer = pre_tokenizers.Whitespace()
    known = PreTrainedTokenizerFast(
        tokenizer_object=fast, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]"
    )
    monkeypatch.setattr("peftbench.data.tokenizer.load_tokenizer", lambda model: known)
    path = write(tmp_path / "mine.csv", sentences())  # This is text 1 .
    run = plan("task=file", f"task.path='{path}'", *WORDS).runs[0]
    told = data_report.token_lines(run, None)
    assert f"longest 5; {share:.1%} unknown; 0 of 32 texts are cut" in told[0]
    assert f"{share:.0%} of the tokens are unknown to it" in told[1]
    assert "does not know the language" in told[1]


def test_a_tokenizer_of_bytes_knows_everything(tmp_path):
    path = write(
        tmp_path / "mine.csv", [(f"漢字 {n}", label) for n, (_, label) in enumerate(sentences())]
    )
    run = plan("task=file", f"task.path='{path}'", *WORDS).runs[0]
    assert [line for line in data_report.token_lines(run, None) if "does not know" in line] == []


def test_a_tokenizer_that_cannot_be_loaded_is_bad_input(tmp_path, monkeypatch):
    def broken(model):
        raise OSError("no vocabulary\nmore")

    monkeypatch.setattr("peftbench.data.tokenizer.load_tokenizer", broken)
    path = write(tmp_path / "mine.csv", sentences())
    run = plan("task=file", f"task.path='{path}'", *WORDS).runs[0]
    with pytest.raises(ConfigError, match=r"cannot load the tokenizer of tiny: no vocabulary$"):
        data_report.token_lines(run, None)


def test_the_tokenizer_line_of_a_run(tmp_path):
    path = write(tmp_path / "mine.csv", sentences())
    run = plan("task=file", f"task.path='{path}'", *WORDS, "train.max_length=16").runs[0]
    assert data_report.token_lines(run, None) == [
        "mine, tokenizer of tiny: median 16 tokens, longest 16; 0.0% unknown; 32 of 32 texts are "
        "cut to train.max_length=16 (100.0%)"
    ]


def test_a_rare_class_on_the_first_line_is_no_header(tmp_path):
    rows = [("so good", "pos"), *((f"bad {i}", "neg") for i in range(12))]
    assert task_of(write(tmp_path / "mine.csv", rows)).class_names == ["neg", "pos"]
    lines = ['{"sentence": "a b", "label": "no"}', '{"sentence": "c d", "label": "yes"}']
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    assert task_of(tmp_path / "mine.jsonl").class_names == ["no", "yes"]


def test_the_override_for_another_column_is_named(tmp_path):
    path = tmp_path / "tickets.csv"
    rows = [(f"c{n}", ("a", "b")[n % 2], f"a long text of ticket {n}") for n in range(20)]
    write(path, rows, ("customer", "kind", "text"))
    words = ["task.label=kind"]
    assert refused(path, *words).endswith("; set 'task.texts=[text]'")
    assert refused(path, *words, "task.texts=[text,customr]").endswith(
        "; set 'task.texts=[text,customer]'"
    )
    assert refused(path, "task.texts=[text]").endswith("; set task.label=COLUMN")
    assert refused(path, "task.texts=[text]", "task.label=kinds").endswith("; set task.label=kind")
