"""What the scripts of benchmarks write, what they do without time, and what travels to a GPU."""

import ast
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import datasets
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

import peftbench

sys.path.append(str(ROOT / "scripts"))
benchmark = importlib.import_module("benchmark")
bench_gpu = importlib.import_module("bench_gpu")
bench_pack = importlib.import_module("bench_pack")
simulation = importlib.import_module("simulation")

FIGURES = ROOT / "results" / "benchmarks"


def bench(seconds=60.0):
    end = time.monotonic() + seconds
    return bench_gpu.Bench("cpu", Path(), steps=4, pack=2, large=3, full=2, seeds=1, end=end)


def closure(*names):
    """Packages that are needed by these, in the environment of the tests."""
    found, left = set(), [Requirement(name) for name in names]
    while left:
        one = left.pop()
        key = canonicalize_name(one.name), frozenset(one.extras)
        if key not in found:
            found.add(key)
            left += wanted(*key)
    return {name for name, _ in found}


@cache
def wanted(name, extras):
    """What a package requires here, with these extras."""
    return [
        one
        for one in map(Requirement, importlib.metadata.requires(name) or [])
        if one.marker is None or any(one.marker.evaluate({"extra": e}) for e in ("", *extras))
    ]


def test_the_bundle_brings_every_package_that_a_bare_pytorch_machine_does_not_have():
    script = (ROOT / "scripts" / "gpu_bundle.sh").read_text()
    bare, brought = (
        re.search(rf'^{name}="([^"]*)"', script, re.MULTILINE)[1].split()
        for name in ("bare", "brought")
    )
    needed = closure("peftbench")
    assert needed - closure(*bare) - set(brought) == {"peftbench"}
    assert {"rouge-score", "nltk", "hydra-core"} <= set(brought) <= needed


@pytest.fixture
def bundle(tmp_path):
    """A bundle without wheels, and its `run` in a checkout: the exit code, output and errors."""
    script = (ROOT / "scripts" / "gpu_bundle.sh").read_text()
    made = tmp_path / "build" / "gpu"
    (made / "wheels").mkdir(parents=True)
    (made / "wheels" / "pytest-0-py3-none-any.whl").touch()  # what is there already stays
    (made / "run").write_text(re.search(r"<<'EOF'\n(#!.*?)^EOF$", script, re.DOTALL | re.M)[1])
    (made / "bare").write_text("pytest\n")
    (tmp_path / "pyproject.toml").write_text('version = "1.2"\n')
    (tmp_path / "tmp").mkdir()

    def run(*words):
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        return subprocess.run(
            ["bash", made / "run", *words],
            cwd=tmp_path,
            env=os.environ | {"PATH": path, "TMPDIR": str(tmp_path / "tmp")},
            capture_output=True,
            text=True,
        )

    return run


def test_a_machine_without_what_the_bundle_leaves_out_is_told_so_at_once(bundle, tmp_path):
    assert bundle("echo", "made").stdout == "made\n"
    (tmp_path / "build" / "gpu" / "bare").write_text("pytest\nno-such-package\n")
    done = bundle("echo", "made")
    assert (done.returncode, done.stdout) == (1, "")
    assert "this machine has no no-such-package" in done.stderr


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "of another bundle"])
def test_weights_in_three_calls_are_put_together_or_what_is_missing_is_named(
    broken, bundle, tmp_path
):
    build = tmp_path / "build"
    (tmp_path / "weights").write_text("the weights")
    subprocess.run(["tar", "-cf", "whole", "weights"], cwd=tmp_path, check=True)
    subprocess.run(["split", "-n", "3", "whole", "part."], cwd=tmp_path, check=True)
    told = "sha256sum < whole > build/gpu/weights.sha256"
    subprocess.run(["bash", "-c", told], cwd=tmp_path, check=True)
    for number, name in enumerate("abc", 1):
        part = build / f"gpu_weights_{number}" / "part"
        part.parent.mkdir()
        (tmp_path / f"part.a{name}").rename(part)
        if broken and number == 2:
            part.write_bytes(part.read_bytes() + b"more")
        done = bundle("true")
        part.unlink()  # as it is in the next call
        here = " ".join(f"part.{n}" for n in range(1, number + 1))
        assert (f"there is only {here}:" in done.stderr) is (number < 3)
    unpacked = tmp_path / "tmp" / "peftbench-site" / "weights"
    assert (done.returncode, unpacked.exists()) == ((1, False) if broken else (0, True))
    assert ("carry all three again" in done.stderr) is broken


def test_the_peer_can_load_the_one_task_of_the_bundle(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "DATA", tmp_path / "glue")
    for task in ("cola", "mrpc"):
        (tmp_path / "glue" / task).mkdir(parents=True)
        for split, count in (("train", 3), ("validation", 2)):
            rows = datasets.Dataset.from_dict({"sentence1": ["a"] * count})
            rows.to_parquet(tmp_path / "glue" / task / f"{split}-00000-of-00001.parquet")
    benchmark.copy_task("mrpc", tmp_path / "bundle")
    made = datasets.load_dataset(
        str(tmp_path / "bundle"), "mrpc", cache_dir=str(tmp_path / "cache")
    )
    assert {name: len(split) for name, split in made.items()} == {"train": 3, "validation": 2}
    assert not (tmp_path / "bundle" / "cola").exists()


@pytest.mark.parametrize("native", [True, False], ids=["native", "not"])
def test_a_cpu_is_written_with_its_number_and_whether_it_has_bf16(native, monkeypatch):
    text = (
        "processor : 0\ncpu family : 6\nmodel : 143\nmodel name : a CPU: v2\nstepping : 8\n\n"
        "processor : 1\ncpu family : 6\nmodel : 1\nmodel name : another\n"
    )
    monkeypatch.setattr(benchmark.Path, "read_text", lambda path: text)
    monkeypatch.setattr(benchmark.hardware, "processor", lambda: "a CPU: v2")
    monkeypatch.setattr(benchmark.hardware, "bf16_on_cpu", lambda: native)
    told = "bf16 instructions" if native else "no bf16 instructions"
    assert benchmark.processor() == f"a CPU: v2 (cpu family 6, model 143, stepping 8, {told})"


@pytest.mark.parametrize("path", sorted((ROOT / "scripts").glob("*.py")), ids=lambda p: p.name)
def test_programs_that_are_strings_import_what_is_there(path):
    """A type checker does not look into strings."""
    for node in ast.walk(ast.parse(path.read_text())):
        text = node.value if isinstance(node, ast.Constant) else None
        if not isinstance(text, str) or "peftbench" not in text:
            continue
        try:
            program = ast.parse(text).body
        except SyntaxError:
            continue  # prose
        lines = [one for one in program if isinstance(one, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(lines, []), path.name, "exec"), {})


def test_figures_are_written_with_the_machine(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "OUT", tmp_path / "out")
    benchmark.write("some", {"rows": [1]}, "### A table", show=False)
    figures = json.loads((tmp_path / "out" / "some.json").read_text())
    assert figures["machine"]["commit"] == benchmark.BEGAN.commit
    assert len(figures["machine"]["load"]) == 2
    assert figures["machine"]["cpu"] == benchmark.processor()
    assert figures["rows"] == [1]
    assert (
        f"\n\n{benchmark.processor()}, {os.cpu_count()} cores; Python"
        in (tmp_path / "out" / "some.md").read_text()
    )


def test_no_side_of_a_comparison_is_first_in_every_round():
    orders = ["".join(benchmark.in_turns("abc", turn)) for turn in range(4)]
    assert orders == ["abc", "bca", "cab", "abc"]


def test_seeds_alone_and_packed_are_compared_seed_by_seed():
    """A shift of a tenth of the seeds' spread, which no test of the two groups would find."""
    alone = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    packed = [0.12, 0.23, 0.31, 0.43, 0.52, 0.61]
    told = bench_pack.paired(alone, packed)
    assert {name: round(value, 4) for name, value in told.items()} == {
        **{"mean": 0.02, "low": 0.0106, "high": 0.0294},
        "p": 0.0312,  # 2 of 64 ways to set the signs
    }


def test_a_peer_of_a_step_has_the_sizes_of_ours():
    bench_step = importlib.import_module("bench_step")  # imports torch and peft
    (run,) = peftbench.plan("method=prefix", "model=minilm").runs
    made = bench_step.peer_configs(run.model)
    prefix, lora = made["prefix"], made["lora"]
    assert (prefix.num_virtual_tokens, prefix.encoder_hidden_size) == (16, 512)
    assert (lora.r, lora.lora_alpha, lora.lora_dropout) == (8, 16, 0.1)
    assert lora.target_modules == {"query", "value"}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with the code of one commit."""
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    for folder in benchmark.CODE:
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "benchmark.py").write_text("1")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    return git


def test_a_benchmark_is_of_the_commit_that_it_began_with(checkout):
    began = benchmark.State.now()
    assert (len(began.commit), began.changed) == (40, False)
    (benchmark.ROOT / "README.md").write_text("no code")
    subprocess.run([*checkout, "add", "-A"], check=True)
    subprocess.run([*checkout, "commit", "-qm", "two"], check=True)
    assert began.code() == f"commit {began.commit[:12]}"
    (benchmark.ROOT / "configs" / "benchmark.py").write_text("2")
    subprocess.run([*checkout, "commit", "-qam", "three"], check=True)
    assert began.code() == f"commit {began.commit[:12]} with changes meanwhile"
    (benchmark.ROOT / "scripts" / "more.py").write_text("untracked")
    later = benchmark.State.now()
    assert later.commit != began.commit
    assert later.code() == f"commit {later.commit[:12]} with uncommitted changes"


def test_a_copied_tree_and_a_machine_without_git_have_no_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "ROOT", tmp_path)
    assert benchmark.State.now().code() == "commit unknown"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert benchmark.State.now().commit is None


def test_seconds_of_the_readme_are_measured_ones():
    readme = " ".join((ROOT / "README.md").read_text().split())
    pack = (FIGURES / "pack.md").read_text()
    for name, said in (
        ("(c) `peftbench run --pack off`", "On two CPU cores a sweep of 24 runs took 229 s"),
        ("(b) the same, two at a time", "with peft took 401 s, two processes at a time"),
    ):
        (seconds,) = re.findall(rf"^\| {re.escape(name)} \| (\d+) \|", pack, re.MULTILINE)
        assert f"{seconds} s" in said
        assert said in readme
    assert "AMD EPYC, 2 cores" in pack


# simulate_*.py


@pytest.mark.parametrize("name", ["paired", "advice"])
def test_committed_tables_of_simulations_are_what_their_figures_give(name):
    script = importlib.import_module(f"simulate_{name}")
    folder = ROOT / "results" / "simulations"
    figures = json.loads((folder / f"{name}.json").read_text())
    assert (folder / f"{name}.md").read_text() == script.markdown(figures)


def test_simulated_columns_name_their_code_and_are_replaced_only_by_name(
    tmp_path, monkeypatch, capsys
):
    def simulate(*words):
        monkeypatch.setattr(sys, "argv", ["simulate", "--output", str(tmp_path), *words])
        simulation.write("some", "about", 5, lambda repeats: {"repeats": repeats}, json.dumps)
        return json.loads((tmp_path / "some.json").read_text())

    assert simulate()["after"] == {"repeats": 5, "code": benchmark.BEGAN.code()}
    assert simulate("--repeats", "6")["after"]["repeats"] == 6, "the same code"
    with pytest.raises(SystemExit):
        simulate("--code", "another")
    assert "replace them with --label after" in capsys.readouterr().err
    assert simulate("--code", "another", "--label", "new")["new"]["code"] == "another"
    assert simulate("--code", "another", "--label", "after")["after"]["code"] == "another"


# bench_gpu.py


def fails(bench):
    yield {"run": "1"}
    raise SystemExit("the peer is not here")


def fails_elsewhere(bench):
    code = "import sys; sys.exit('Traceback\\n  ' + 'a' * 300 + '\\nValueError: no data files')"
    benchmark.last_json([sys.executable, "-c", code], threads=1)
    yield {}


def slow(bench):
    for number in bench.in_time((1, 2, 3)):
        if number == 2:
            bench.end = time.monotonic()
        yield {"run": str(number)}


def ended(bench):
    yield {"run": "1"}
    subprocess.run(["sleep", "60"], timeout=bench.left)


@pytest.fixture
def parts(monkeypatch):
    made = {"fails": fails, "slow": slow, "ended": ended, "later": fails}
    made["fails_elsewhere"] = fails_elsewhere
    monkeypatch.setattr(bench_gpu, "PARTS", {name: (part, name) for name, part in made.items()})


def test_a_part_that_fails_says_why_and_the_next_one_follows(parts):
    made = bench()
    assert bench_gpu.measure(made, ["fails", "later"], "here") == []
    for part in ("fails", "later"):
        said = {"run": f"{part} stopped", "refuses": "SystemExit: the peer is not here"}
        assert made.rows[part] == [{"run": "1"}, said]


def test_a_part_whose_command_fails_says_the_last_line_of_what_that_printed(parts):
    made = bench()
    bench_gpu.measure(made, ["fails_elsewhere"], "here")
    (row,) = made.rows["fails_elsewhere"]
    assert row["refuses"] == "SystemExit: ValueError: no data files"


def test_a_part_that_was_cut_is_named_among_what_was_left_out(parts):
    made = bench()
    left = bench_gpu.measure(made, ["fails", "slow", "later"], "here")
    assert left == ["slow (the rest)", "later"]
    assert made.rows["slow"] == [{"run": "1"}, {"run": "2"}]
    told = bench_gpu.markdown(made, "here", left)
    assert told.endswith("Not measured for want of time: slow (the rest), later.")


def test_a_command_is_ended_when_the_minutes_are_over(parts):
    made, start = bench(0.5), time.monotonic()
    assert bench_gpu.measure(made, ["ended", "later"], "here") == ["ended (the rest)", "later"]
    assert time.monotonic() - start < 10


def test_some_parts_do_not_overwrite_the_table_of_all(parts, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "OUT", tmp_path)
    made = bench()
    made.device = "cuda"  # no part here looks at it
    bench_gpu.measure(made, ["fails", "later"], "here")
    bench_gpu.measure(made, list(bench_gpu.PARTS), "here")
    assert sorted(path.name for path in tmp_path.glob("*.md")) == ["gpu.md", "gpu_fails_later.md"]


def test_the_peer_is_compared_at_its_pace_and_with_all_that_comes_before(monkeypatch):
    found = {"examples_per_s": 8.0, "second_half_s": 2.0, "wall_s": 30.0}
    monkeypatch.setattr(bench_gpu, "last_json", lambda *words: found)
    made = bench()
    made.rows["alone"] = [
        {"run": "1, bitfit", "examples_per_second": 1.0, "with_warmup": 1.0},
        {"run": "2, lora", "examples_per_second": 64.0, "with_warmup": 4.0},
    ]
    row, _ = bench_gpu.peer(made, "lora")
    assert row["examples_per_second"] == 16 * 2 / 2.0
    assert (row["ours_to_it"], row["ours_to_it_with_warmup"]) == (4.0, 0.5)


def test_a_part_without_a_row_is_left_out_whole(parts):
    assert bench_gpu.measure(bench(-1), ["slow", "later"], "here") == ["slow", "later"]


@pytest.mark.parametrize(
    ("graphs", "cell"),
    [
        ("12 shapes captured", "12 shapes captured"),
        (
            "CUDA out of memory. Tried to allocate 384.00 MiB.",
            "launched one by one: CUDA out of memory",
        ),
    ],
)
def test_why_there_are_no_graphs_does_not_read_as_a_failure(graphs, cell):
    assert bench_gpu._cell("graphs", graphs) == cell


@pytest.mark.slow
@pytest.mark.data
def test_the_script_trains_in_packs_and_alone_on_a_cpu(glue):
    """All parts that need neither the peer nor a process for each row."""
    command = [sys.executable, str(ROOT / "scripts" / "bench_gpu.py"), "--smoke"]
    done = subprocess.run(
        [*command, "--minutes", "30", "--only", "alone,peer,packed,equal,large,kernels"],
        env=os.environ | {"PEFTBENCH_DATA": glue, "PEFTBENCH_PEER": "/nonexistent"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [line.split(" ", 1) for line in done.stdout.splitlines() if re.match(r"\w+ \{", line)]
    found = {}
    for part, row in rows:
        found.setdefault(part, []).append(json.loads(row))
    assert {part: len(rows) for part, rows in found.items()} == {
        **{"alone": 10, "peer": 1, "packed": 3, "equal": 5, "large": 4, "kernels": 4}
    }
    assert "refuses" in found["peer"][0]
    assert not any("refuses" in row for row in (*found["packed"], *found["equal"], *found["large"]))
    assert found["alone"][9]["to_its_first"] > 0
    *methods, again = (row["largest_difference_of_scores"] for row in found["equal"])
    assert all(float(apart) < 1e-6 for apart in methods)
    assert again == "none, bit for bit"
