"""Any fields of the records by any others: what a cell says, what shares one, what is best."""

import shutil
import statistics
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import records
from click.testing import CliRunner, Result
from scipy import stats

from peftbench.analysis import best_in_column, grouping, pivot
from peftbench.cli.main import main
from peftbench.core.errors import ConfigError
from peftbench.core.run import Record
from peftbench.reports import scores
from peftbench.results.frame import load_frame
from peftbench.results.store import ResultsFolder

EXAMPLES = 400
ODD = "a_b%&<script>alert(1)</script>#$|{x}~^\\"


def saved(folder: Path, made: list[Record], right: dict[str, float] | None = None) -> ResultsFolder:
    """The records in a folder; with shares by method, predictions of which so many are right."""
    results = ResultsFolder(folder)
    label = np.arange(EXAMPLES) % 2
    hard = np.random.default_rng(0).random(EXAMPLES)
    for record in made:
        arrays = records.predictions()
        if right:
            wobble = np.random.default_rng(record.run.seed).normal(0, 0.01, EXAMPLES)
            good = hard + wobble < right[record.run.method.name]
            scores = 2.0 * np.eye(2)[np.where(good, label, 1 - label)]
            arrays = {"item": np.arange(EXAMPLES), "label": label, "scores": scores}
            record = replace(record, metrics={"accuracy": float(good.mean())})
        results.save(record, arrays)
    return results


def told(results: ResultsFolder, *words: str, code: int = 0) -> Result:
    command = ["report", "table", *words, "--results", str(results.folder)]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == code, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def lines(results: ResultsFolder, *words: str) -> list[list[str]]:
    """Cells of the Markdown table, the rule left out."""
    text = told(results, *words, "--format", "markdown").stdout
    found = [line.strip("| ").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line] for line in (found[0], *found[2:])]


SCORES = [0.7, 0.74, 0.79, 0.81]


@pytest.fixture
def four(tmp_path):
    runs = records.runs("method=lora", "seed=0,1,2,3")
    made = [records.record(run, score) for run, score in zip(runs, SCORES, strict=True)]
    return saved(tmp_path / "r", made)


def test_a_cell_is_what_scipy_says(four):
    mean, sd = 100 * statistics.fmean(SCORES), 100 * statistics.stdev(SCORES)
    assert lines(four)[-1] == ["lora", f"{mean:.1f} ± {sd:.1f} (4)"]
    low, high = stats.t.interval(0.95, 3, mean, sd / 2)
    assert lines(four, "summary=interval")[-1][1] == f"{mean:.1f} [{low:.1f}, {high:.1f}] (4)"
    q1, middle, q3 = 100 * np.percentile(SCORES, (25, 50, 75))
    assert lines(four, "summary=median")[-1][1] == f"{middle:.1f} [{q1:.1f}, {q3:.1f}] (4)"
    assert lines(four)[1] == ["constant prediction", "50.0"]
    assert lines(four, "cell=trained", "columns=none") == [
        ["method", "trained"],
        ["lora", "2,048 (4)"],
    ]
    assert lines(four, "cell=memory")[-1][1] == "100 (4)"


def test_numbers_for_programs(four):
    head, line = told(four, "summary=interval", "--format", "csv").stdout.splitlines()
    assert head == "method,task,n,defined,mean,low,high,trivial,collapsed,seeds,best"
    low = statistics.fmean(SCORES) - stats.t.ppf(0.975, 3) * statistics.stdev(SCORES) / 2
    assert float(line.split(",")[5]) == pytest.approx(low, abs=1e-9)
    assert line.split(",")[-3:] == ["0", "0 1 2 3", "false"]


def test_equal_scores_deviate_by_nothing(tmp_path):
    """Their rounded mean is another number: 3 x 0.6838235294117647 / 3."""
    runs = records.runs("method=lora", "seed=0,1,2")
    results = saved(tmp_path / "r", [records.record(run, 0.6838235294117647) for run in runs])
    head, line = told(results, "--format", "csv").stdout.splitlines()
    assert line.split(",")[head.split(",").index("sd")] == "0"


def test_one_seed_has_no_interval_and_the_note_says_so(four):
    done = told(four, "where=seed=1", "summary=interval", "--format", "markdown")
    assert lines(four, "where=seed=1", "summary=interval")[-1][1] == "74.0 (1)"
    assert "One defined seed has no interval" in done.stdout


def test_what_is_missing_or_collapsed_is_listed(tmp_path):
    run = records.runs("method=lora,bitfit", "task=mrpc,cola", "seed=0,1")
    made = [
        records.record(one, None if gone else 0.7, collapsed=gone)
        for one in run
        if (one.method.name, one.task.name) != ("bitfit", "mrpc")
        for gone in [one.task.name == "cola" and one.seed == 1]
    ]
    text = told(saved(tmp_path / "r", made), "--format", "markdown").stdout
    assert "35.0 ± 49.5 (2) †1" in text
    assert "Collapsed: bitfit: cola matthews (seed 1); lora: cola matthews (seed 1)." in text
    assert "No record: bitfit: mrpc." in text or "No record: bitfit: mrpc accuracy." in text


def test_a_table_of_collapsed_runs_is_a_table(tmp_path):
    runs = records.runs("method=lora", "task=cola", "seed=0,1")
    made = [records.record(run, None, collapsed=True) for run in runs]
    results = saved(tmp_path / "r", made)
    assert lines(results)[-1] == ["lora", "0.0 ± 0.0 (2) †2"]
    assert "none of these records has a value" in told(results, "cell=energy", code=2).stderr


def test_settings_that_differ_in_a_cell_are_told(tmp_path):
    runs = records.runs("method=lora,bitfit", "train.lr=1e-4,1e-3", "size=32,64", "seed=0,1")
    results = saved(tmp_path / "r", [records.record(run) for run in runs])
    table = lines(results, "rows=method", "columns=task")
    assert table[0][:3] == ["method", "size", "train.lr"]
    assert len(table) == 2 + 8
    assert all("(2)" in row[-1] for row in table[2:])
    assert lines(results, "rows=method,lr", "columns=size")[0][:2] == ["method", "lr"]
    pooled = told(results, "mix=lr", "columns=size", "--format", "markdown").stdout
    assert "(4)" in pooled
    assert "Pooled where records differ in it, as asked: lr." in pooled


def test_a_null_is_another_setting_than_a_number(tmp_path):
    runs = records.runs("method=lora", "train.micro_batch_size=null,8", "seed=0,1")
    results = saved(tmp_path / "r", [records.record(run) for run in runs])
    assert lines(results)[0][:2] == ["method", "train.micro_batch_size"]


def test_costs_of_a_calibration_are_not_those_of_a_run_alone(tmp_path):
    runs = records.runs("method=lora", "seed=0,1")
    packed = records.ENVIRONMENT | {"packed": True}
    made = [records.record(runs[0]), records.record(runs[1], environment=packed)]
    results = saved(tmp_path / "r", made)
    assert "(2)" in lines(results)[-1][1]  # a score does not depend on it
    error = told(results, "cell=seconds", code=2).stderr
    assert "differ in packed (true, –)" in error
    assert "where='packed=true'" in error
    (row,) = scores.costs(made).rows
    assert row[-3:] == ["mixed"] * 3
    assert scores.costs(made[1:]).notes[0].startswith("Runs that were trained in a pack have no")
    assert scores.costs(made[:1]).notes == []


def test_what_does_not_compare_is_refused(tmp_path):
    runs = records.runs("method=lora", "seed=0,1")
    other = records.ENVIRONMENT | {"threads": 2}
    made = [records.record(runs[0]), records.record(runs[1], environment=other)]
    results = saved(tmp_path / "r", made)
    assert "(2)" in lines(results)[-1][1]  # a score does not depend on threads
    error = told(results, "cell=seconds", code=2).stderr
    assert "differ in threads (1, 2)" in error
    for way in ("where='threads=1'", "rows=method,threads", "mix=threads"):
        assert way in error
    assert lines(results, "cell=seconds", "rows=method,threads")[-1][:2] == ["lora", "2"]
    assert "(2)" in lines(results, "cell=seconds", "mix=threads")[-1][1]
    (later,) = records.runs("method=lora", "seed=2")
    results.save(records.record(replace(later, protocol=2)), records.predictions())
    assert "differ in protocol (1, 2)" in told(results, code=2).stderr
    assert lines(results, "rows=method,protocol")[-1][1] == "2"


def test_scores_in_several_precisions_are_not_pooled(tmp_path):
    runs = records.runs("method=lora,bitfit", "seed=0,1")
    other = records.ENVIRONMENT | {"precision": "fp32"}  # auto, on a CPU without bf16
    places = {0: records.ENVIRONMENT, 1: other}
    made = [records.record(run, environment=places[run.seed]) for run in runs]
    results = saved(tmp_path / "r", made)
    error = told(results, code=2).stderr
    assert "differ in precision (bf16, fp32)" in error
    assert "(2)" in lines(results, "mix=precision")[-1][1]
    assert "(1)" in lines(results, "where=precision=fp32")[-1][1]
    assert lines(results, "rows=method,precision")[-1][1] in ("bf16", "fp32")
    by_row, split = grouping.of_records(made)
    assert split == ["precision"]
    assert set(by_row) == {(m, p) for m in ("lora", "bitfit") for p in ("bf16", "fp32")}


def test_a_precision_that_was_asked_for_is_told_once(tmp_path):
    runs = records.runs("method=lora", "train.precision=bf16,fp32", "seed=0,1")
    made = [
        records.record(run, environment=records.ENVIRONMENT | {"precision": run.train.precision})
        for run in runs
    ]
    assert grouping.of_records(made)[1] == ["train.precision"]
    assert lines(saved(tmp_path / "r", made), "rows=method,train.precision")[-1][1] == "fp32"


def test_scores_after_seconds_depend_on_the_machine(tmp_path):
    runs = records.runs("method=lora", "budget=seconds", "budget.seconds=60", "seed=0,1")
    other = records.ENVIRONMENT | {"device": "Another CPU"}
    made = [records.record(runs[0]), records.record(runs[1], environment=other)]
    error = told(saved(tmp_path / "r", made), code=2).stderr
    assert "score after a budget of seconds does not compare" in error


def test_conditions(four):
    def counted(where: str) -> str:
        return lines(four, f"where={where}")[-1][1].partition("(")[2]

    assert [counted(w) for w in ("seed=0,3", "seed>=1 seed!=2", "score<0.75", "size=32")] == [
        "2)",
        "2)",
        "2)",
        "4)",
    ]
    assert counted("run.augmentation=none") == "4)"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rows=methd"], "did you mean method"),
        (["cel=score"], "did you mean cell"),
        (["cell=device"], "holds no numbers"),
        (["summary=mode"], "allowed: interval, mean, median"),
        (["where=task=synthetic_paraphrasing"], "did you mean synthetic_paraphrase"),
        (["where=seed=x"], "'x' is no number"),
        (["where=task"], "is no condition"),
        (["where=task='"], "No closing quotation"),
        (["rows=method", "rows=lr"], "given twice"),
        (["rows="], "at least one field"),
        (["-o", "x.doc"], "or set --format"),
        (["--check"], "--output"),
    ],
)
def test_bad_words_end_with_what_to_do(four, words, message):
    error = told(four, *words, code=2).stderr
    assert message in error
    assert "Traceback" not in error


def test_an_empty_folder(tmp_path):
    (tmp_path / "none").mkdir()
    assert "holds no records" in told(ResultsFolder(tmp_path / "none"), code=2).stderr
    assert not list((tmp_path / "none").iterdir())


def found(results: ResultsFolder, *words: str) -> best_in_column.Best:
    return best_in_column.find_best(
        pivot.cross(load_frame(results), pivot.parse_spec(words)), results
    )


WORDS = ("method=full,lora,bitfit", "seed=0,1,2")
RANKED = ("full", "lora", "bitfit")


def test_best_is_marked_only_when_it_is_significant(tmp_path):
    made = [records.record(run) for run in records.runs(*WORDS)]
    clear = saved(tmp_path / "a", made, {"full": 0.7, "lora": 0.85, "bitfit": 0.6})
    assert found(clear).found == {("synthetic_paraphrase",): ("lora",)}
    assert any(row[0] == "lora" and row[1].startswith("**8") for row in lines(clear))
    assert "(intersection-union)" in told(clear, "--format", "markdown").stdout
    close = saved(tmp_path / "b", made, {"full": 0.7, "lora": 0.702, "bitfit": 0.4})
    assert not found(close).found
    assert "No row is significantly best: synthetic_paraphrase" in told(close).stdout
    assert "**" not in told(close, "--format", "markdown").stdout
    assert not found(clear, "cell=seconds").undecided


def test_what_keeps_the_best_from_being_tested(tmp_path):
    made = [records.record(run) for run in records.runs(*WORDS)]
    results = saved(tmp_path / "a", made, {"full": 0.7, "lora": 0.85, "bitfit": 0.6})
    assert list(found(results, "where=seed=0").untested) == ["rows of one seed"]
    gone = next(one for one in made if one.run.method.name == "full")
    nothing = replace(gone, metrics={"accuracy": None})  # as with labels of one class
    results.save(nothing, records.predictions())
    column = ("synthetic_paraphrase",)
    assert found(results).left_out == {column: [("full",)]}
    assert found(results).found == {column: ("lora",)}
    shutil.rmtree(results.folder / "predictions")
    assert list(found(results).untested) == ["predictions are missing"]


@pytest.mark.parametrize("harm", ["altered", "missing"])
def test_a_run_without_its_predictions_is_named_and_left_out_of_tests(tmp_path, harm):
    made = [records.record(run) for run in records.runs(*WORDS)]
    results = saved(tmp_path / "a", made, {"full": 0.7, "lora": 0.85, "bitfit": 0.6})
    whole = lines(results)
    keys = {name: [r.run.key for r in made if r.run.method.name == name] for name in RANKED}

    def spoil(key: str) -> None:
        path = results.folder / "predictions" / f"{key}.npz"
        path.write_bytes(b"PK") if harm == "altered" else path.unlink()

    spoil(first := keys["full"][0])
    done = told(results)
    assert f"left out of tests, predictions of {first} are unreadable" in done.stderr
    assert "1 runs have unreadable predictions: in no test" in done.stderr
    assert f"predictions unreadable: 1 runs, {first}; their scores are shown" in done.stdout
    assert lines(results)[:-1] == whole[:-1]  # the same scores, the same best; less resolution
    spoil(keys["full"][1])
    assert list(found(results).untested) == [
        "rows of one seed, of those whose predictions can be read"
    ]
    spoil(keys["full"][2])
    assert list(found(results).untested) == ["no predictions of a row can be read"]
    assert sorted(found(results).unreadable) == sorted(keys["full"])
    assert "**" not in told(results, "--format", "markdown").stdout


def test_the_best_is_not_another_one_for_want_of_predictions(tmp_path):
    made = [records.record(run) for run in records.runs("method=lora,bitfit", "seed=0,1,2")]
    results = saved(tmp_path / "a", made, {"lora": 0.85, "bitfit": 0.8})
    spoilt = next(one for one in made if one.run.method.name == "bitfit" and one.run.seed == 0)
    results.save(replace(spoilt, metrics={"accuracy": 1.0}), records.predictions())
    (results.folder / "predictions" / f"{spoilt.run.key}.npz").unlink()
    assert list(found(results).untested) == [
        "the highest is another one without runs whose predictions cannot be read"
    ]


@pytest.fixture
def odd(tmp_path):
    """A task with a name in which every format has something to escape."""
    runs = records.runs("method=lora,bitfit", "seed=0,1")
    made = [
        records.record(replace(run, task=replace(run.task, name=ODD)), 0.5 - run.seed)
        for run in runs
    ]
    return saved(tmp_path / "r", made)


def test_names_are_escaped_in_every_format(odd):
    said = {
        form: told(odd, "--format", form).stdout
        for form in ("terminal", "markdown", "csv", "latex", "html")
    }
    assert "<script>" in said["terminal"].replace("\n", "")
    assert f"{ODD}" in said["csv"]
    for form in ("markdown", "latex", "html"):
        assert "<script" not in said[form]
        assert "</script" not in said[form]
    assert r"a\_b\%\&\textless{}script\textgreater{}" in said["latex"]
    assert "a_b%&amp;&lt;script&gt;" in said["html"]
    assert r"#\$\|{x}\~^\\" in said["markdown"]
    assert r"& 0.0 & $\pm$\,70.7 " in said["latex"]
    assert "($n = 2$)" in said["latex"]


def test_files_are_stable_and_checked(odd, tmp_path):
    for suffix in ("md", "csv", "tex", "html", "txt"):
        out = tmp_path / f"t.{suffix}"
        told(odd, "-o", str(out))
        before = out.read_bytes()
        odd.cache("frame").unlink()
        assert "is what the records give" in told(odd, "-o", str(out), "--check").stdout
        out.write_bytes(before + b" ")
        assert told(odd, "-o", str(out), "--check", code=1).stderr == (
            f"{out} is not what the records give; "
            "the same command without --check writes it again\n"
        )
    assert "--output" in told(odd, "-o", str(tmp_path / "t.md" / "below.md"), code=2).stderr


@pytest.fixture
def three(tmp_path):
    """Two methods on three tasks, one seed of each collapsed on one of them."""
    tasks = {"mrpc": ["accuracy"], "stsb": ["pearson"], "cola": ["matthews"]}
    made = []
    for run in records.runs("method=full,lora", "seed=0,1,2"):
        for name, metrics in tasks.items():
            gone = name == "cola" and run.seed == 2
            score = None if gone else 0.7 + run.seed / 100
            task = replace(run.task, name=name, metrics=metrics)
            made.append(records.record(replace(run, task=task), score, collapsed=gone))
    return saved(tmp_path / "r", made)


def test_latex_has_tasks_above_names_and_n_once(three):
    text = told(three, "rows=method", "columns=size,task", "--format", "latex").stdout
    lines = text.splitlines()
    assert r"\label{tab:score-by-method-and-size-task}" in lines
    assert any(line.startswith(r"\caption{") and "($n = 3$)" in line for line in lines)
    heads = lines[lines.index(r"\toprule") + 1 :][:3]
    size = lines[lines.index(r"\toprule") + 3].split("{c}{")[1].partition("}")[0]
    assert heads == [
        r" & \multicolumn{2}{c}{CoLA (MCC)} & \multicolumn{2}{c}{MRPC (acc.)}"
        r" & \multicolumn{2}{c}{STS-B (r)} \\",
        r"\cmidrule(lr){2-3}\cmidrule(lr){4-5}\cmidrule(lr){6-7}",
        "method" + rf" & \multicolumn{{2}}{{c}}{{{size}}}" * 3 + r" \\",
    ]
    # the collapsed seed counts as the constant prediction: the mean of 70, 71 and 0
    (row,) = [line for line in lines if line.startswith("LoRA &")]
    assert row == (
        r"LoRA & 47.0 & $\pm$\,40.7\textsuperscript{c1} & 71.0 & $\pm$\,1.0"
        r" & 71.0 & $\pm$\,1.0 \\"
    )
    assert "(3)" not in text.partition(r"\end{table}")[0]


def test_wide_markdown_says_the_usual_count_once(tmp_path):
    """Six columns of three seeds, but for one cell of two."""
    made = [
        records.record(run, 0.7 + run.seed / 100)
        for run in records.runs("method=full,lora", "seed=0,1,2", "size=8,16,32,48,64,100")
        if not (run.method.name == "lora" and run.size == 64 and run.seed == 2)
    ]
    text = told(saved(tmp_path / "r", made), "columns=size", "--format", "markdown").stdout
    rows = [line for line in text.splitlines() if line.startswith(("| full", "| lora"))]
    assert [cell.strip() for cell in rows[0].split("|")[2:-1]] == ["71.0 ± 1.0"] * 6
    assert [cell.strip() for cell in rows[1].split("|")[2:-1]] == [
        *["71.0 ± 1.0"] * 4,
        "70.5 ± 0.7 (2)",
        "71.0 ± 1.0",
    ]
    assert "over seeds (n = 3 where no other number is in brackets);" in text
    narrow = told(saved(tmp_path / "n", made[:3]), "columns=size", "--format", "markdown").stdout
    assert "(number of seeds)" in narrow


def compiled(folder, width):
    """The log of a document with `table.tex` in columns of so many points."""
    (folder / "main.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}"
        r"\usepackage{booktabs,siunitx,threeparttable,textcomp}"
        rf"\begin{{document}}\hsize={width}pt\columnwidth\hsize\textwidth\hsize"
        r"\input{table}\end{document}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "main"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]
    assert (folder / "main.pdf").stat().st_size > 1000
    return done.stdout


@pytest.fixture
def tex():
    """What compiling takes."""
    for package in ("siunitx", "threeparttable", "booktabs"):
        find = shutil.which("kpsewhich")
        if not find or subprocess.run([find, f"{package}.sty"], capture_output=True).returncode:
            pytest.skip(f"no TeX with {package}: apt-get install texlive-science")


@pytest.mark.slow
@pytest.mark.usefixtures("tex")
def test_latex_compiles(odd, tmp_path):
    told(odd, "rows=run.task.metrics,method", "-o", str(tmp_path / "table.tex"))
    assert "\n{[}accuracy" in (tmp_path / "table.tex").read_text()  # \\[ has an argument
    compiled(tmp_path, 500)


@pytest.mark.slow
@pytest.mark.usefixtures("tex")
def test_three_tasks_fit_a_column(three, tmp_path):
    told(three, "rows=method", "columns=task", "-o", str(tmp_path / "table.tex"))
    assert "Overfull" not in compiled(tmp_path, 219)
    assert "Overfull" in compiled(tmp_path, 120)


def test_an_unknown_word_is_refused_in_python():
    with pytest.raises(ConfigError, match="no such word"):
        pivot.parse_spec(["colums=task"])
