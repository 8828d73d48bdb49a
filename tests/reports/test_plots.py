"""What is drawn is what the records say; a method looks the same everywhere; files are stable."""

import io
import itertools
import statistics
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import records
from click.testing import CliRunner
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from peftbench.analysis import convention
from peftbench.analysis.failures import Diverged
from peftbench.cli.main import main
from peftbench.config.sweep import plan
from peftbench.core.evaluation import Evaluated, Evaluation
from peftbench.core.run import Record
from peftbench.reports import learning_curves, noise, pareto, registry, score_vs_time, seeds, sizes
from peftbench.reports.base import Inputs
from peftbench.reports.plotting import line_plots, palette
from peftbench.reports.plotting.line_plots import defined_points, mean_curve
from peftbench.reports.plotting.palette import Palette
from peftbench.reports.plotting.style import FORMATS
from peftbench.results.store import ResultsFolder


def grown(*words: str) -> list[Record]:
    """Records whose scores follow from method, size and seed."""
    made = records.runs("size=100,400", "seed=0,1,2", *words)
    add = {"lora": 0.1, "full": 0.05}
    return [
        records.record(r, 0.5 + r.size / 2000 + r.seed / 100 + add.get(r.method.name, 0.0))
        for r in made
    ]


def evaluated(
    run: Any, points: list[tuple[int, float, float, float | None]], **more: Any
) -> Record:
    """A record with this curve of (step, seconds, loss, score), which ends with its score."""
    curve = [
        {"step": step, "fraction": 1.0, "seconds": at, "examples": 16 * step, "loss": loss}
        | dict.fromkeys(run.task.metrics, score)
        for step, at, loss, score in points
    ]
    return records.record(run, points[-1][-1], curve=curve, **more)


def drawn(picture: Any, method: str) -> list[Any]:
    """Lines of a method's colour, with points."""
    colour = palette.known()[method]["color"].lower()
    return [
        line
        for axis in picture.figure.axes
        for line in axis.get_lines()
        if to_hex(line.get_color()) == colour and len(line.get_xdata())
    ]


# looks

#: Linear RGB as it is seen, Machado, Oliveira and Fernandes 2009, severity 1.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def cielab(colour: str, seen: Any) -> np.ndarray:
    srgb = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750]]
    to_xyz.append([0.0193339, 0.1191920, 0.9503041])
    t = to_xyz @ np.clip(seen @ linear, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(t > 216 / 24389, np.cbrt(t), (24389 / 27 * t + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("sight", SEEN)
def test_colours_differ_also_for_colour_blind_readers(sight):
    compared = "full bitfit adapter lora combined bayes_hybrid sparse_adapter robust_partial head"
    seen = [
        cielab(palette.known()[name]["color"], np.array(SEEN[sight])) for name in compared.split()
    ]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) >= 25


def test_no_two_methods_look_alike_and_new_ones_get_what_is_left():
    mine = [f"mine{number}" for number in range(12)]
    found = [Palette.for_methods(mine).look(name) for name in [*palette.known(), *mine]]
    assert len({(look["color"], look["marker"]) for look in found}) == len(found)
    assert Palette.for_methods(["mine1", "lora"]).others == ("mine1",)


def test_rows_of_a_method_share_its_hue():
    looks = Palette().looks(["lora, rank=2", "bitfit", "lora, rank=8"])
    assert looks["bitfit"] == palette.known()["bitfit"]
    assert looks["lora, rank=2"]["color"] == palette.known()["lora"]["color"]
    assert looks["lora, rank=8"] != looks["lora, rank=2"]


def test_a_method_has_one_colour_in_all_pictures():
    made = grown("method=full,lora")
    planned = plan(*records.tiny("suite=noise", "method=full,lora", "size=100")).evaluations
    noisy = [Evaluated(e, noise_findings(e), {}, {}, records.ENVIRONMENT, None) for e in planned]
    found, _ = registry.draw_figures(Inputs(made, noisy), ["sizes", "pareto", "seeds", "noise"])
    assert sorted(found) == ["noise", "pareto_synthetic_paraphrase", "seeds", "sizes"]
    for picture in found.values():
        assert drawn(picture, "lora"), picture
        assert drawn(picture, "full"), picture
        assert not drawn(picture, "bitfit"), picture


def noise_findings(e: Evaluation) -> dict[str, Any]:
    places = e.suite["intensities"]
    kinds = {"typos": {"scores": [0.6] * len(places)}, "order": {"scores": [0.4] * len(places)}}
    return {"metric": "accuracy", "clean": 0.7, "kinds": kinds, "intensities": places}


def test_noise_is_the_mean_over_kinds():
    (e,) = plan(*records.tiny("suite=noise", "method=lora", "size=100")).evaluations
    found = Evaluated(e, noise_findings(e), {}, {}, records.ENVIRONMENT, None)
    (picture,) = noise.plot_noise([found], {e.run.key: 1}, Palette())
    assert drawn(picture, "lora")[-1].get_ydata() == pytest.approx([70, *[50] * 3])


# what is drawn


def test_sizes_are_means_and_deviations_of_rows():
    made = grown("method=lora", "method.rank=2,8")
    (picture,) = sizes.plot_sizes(made, Palette())
    (axis,) = picture.figure.axes
    by_row = {
        rank: [
            [
                100 * r.score
                for r in made
                if (r.run.method.hyperparameters["rank"], r.run.size) == (rank, size)
            ]
            for size in (100, 400)
        ]
        for rank in (2, 8)
    }
    means = [line for line in axis.get_lines() if line.get_marker() == "_"]
    assert [list(line.get_ydata()) for line in means] == [
        pytest.approx([statistics.fmean(scores) for scores in by_row[rank]]) for rank in (2, 8)
    ]
    (low, high), _ = axis.collections[0].get_segments()
    assert high[1] - low[1] == pytest.approx(2 * statistics.stdev(by_row[2][0]))
    labels = [text.get_text() for text in picture.figure.legends[0].get_texts()]
    assert labels == ["constant prediction"]
    assert [text.get_text() for text in axis.texts] == ["LoRA, rank=2", "LoRA, rank=8"]
    assert sizes.plot_sizes([r for r in made if r.run.size == 100], Palette()) == []


def test_collapsed_seeds_of_sizes_are_open_and_bars_end_at_the_best_score():
    made = [
        records.record(r, 0.6 if r.seed == 0 else 1.0, collapsed=r.seed == 0)
        for r in records.runs("method=lora", "size=100,400", "seed=0,1,2")
    ]
    (picture,) = sizes.plot_sizes(made, Palette())
    (axis,) = picture.figure.axes
    dots = [line for line in axis.get_lines() if line.get_linestyle() == "None"]
    faces = [to_hex(dot.get_markerfacecolor()) for dot in dots]
    assert [face == "#ffffff" for face in faces] == [True, False, False] * 2
    assert all(dot.get_markeredgewidth() > 0 for dot in dots[::3])
    (low, high), _ = axis.collections[0].get_segments()
    mean, deviation = statistics.fmean((60, 100, 100)), statistics.stdev((60, 100, 100))
    assert mean + deviation > 100
    assert (low[1], high[1]) == pytest.approx((mean - deviation, 100))


def test_what_differs_along_a_line_is_said():
    made = grown("method=lora", "budget.steps=4,8")
    made = [r for r in made if (r.run.size == 100) == (r.run.budget.steps == 4)]
    (picture,) = sizes.plot_sizes(made, Palette())
    assert "Along the lines these differ too: budget.steps." in picture.caption


def test_curves_meet_on_a_common_grid():
    one, two = [(1.0, 10.0), (3.0, 30.0)], [(2.0, 0.0), (4.0, 40.0)]
    # at 2: (20 + 0) / 2; at 3: (30 + 20) / 2
    assert mean_curve([one, two]) == [(2.0, 10.0), (3.0, 25.0)]
    assert mean_curve([one, [(5.0, 1.0)]]) == []
    assert defined_points([(1, 0.5), (2, None), (3, 0.6)]) == [(3, 0.6)]


def test_anytime_curves_by_hand():
    first, second = records.runs("method=lora", "seed=0,1")
    made = [
        evaluated(first, [(n, 10.0 * n, 1 - n / 10, 0.5 + n / 20) for n in (1, 2, 3, 4)]),
        evaluated(second, [(n, 10.0 * n + 10, 1 - n / 5, 0.6 + n / 20) for n in (1, 2, 3, 4)]),
    ]
    (picture,) = score_vs_time.plot_score_vs_time(made, Palette())
    mean = drawn(picture, "lora")[-1]
    assert list(mean.get_xdata()) == [20, 30, 40]
    # the first has 55, 60, 65, 70 at 10, 20, 30, 40 s, the second 65, 70, 75, 80 at 20 to 50 s
    assert mean.get_ydata() == pytest.approx([62.5, 67.5, 72.5])
    assert "evaluation are not counted" in picture.caption
    loss, score = learning_curves.plot_learning_curves(made, Palette())
    assert (loss.part, score.part) == ("loss", "score")
    assert drawn(loss, "lora")[-1].get_ydata() == pytest.approx([0.85, 0.7, 0.55, 0.4])
    short = [
        replace(record, curve=record.curve[:3]) for record in made
    ]  # three points are no curve
    assert learning_curves.plot_learning_curves(short, Palette()) == []
    assert score_vs_time.plot_score_vs_time(short, Palette()) == []


def test_curves_of_a_part_of_the_split_are_lines_of_their_own():
    """Their mean with those of all of it would be of neither."""
    points = [(n, 10.0 * n, 1 - n / 10, 0.5 + n / 20) for n in (1, 2, 3, 4)]
    whole, part = [evaluated(run, points) for run in records.runs("method=lora", "seed=0,1")]
    part = replace(part, work=part.work | {"curve_examples": 16})
    for picture in (
        *score_vs_time.plot_score_vs_time([whole, part], Palette()),
        *learning_curves.plot_learning_curves([whole, part], Palette()),
    ):
        written = [text.get_text() for text in picture.figure.findobj(Text)]
        assert {"LoRA", "LoRA, curve_examples=16"} <= set(written)


def test_ends_of_budgets_make_a_line():
    made = []
    for run in records.runs("method=lora", "seed=0,1", "budget=seconds", "budget.seconds=10,20"):
        spent, score = run.budget.seconds + run.seed, run.budget.seconds / 25 + run.seed / 10
        made.append(records.record(run, score, seconds={"train": spent}))
    (picture,) = score_vs_time.plot_score_vs_time(made, Palette())
    mean = drawn(picture, "lora")[-1]
    assert (list(mean.get_xdata()), list(mean.get_ydata())) == ([10.5, 20.5], [45, 85])


def test_devices_have_panels_of_their_own():
    made = [
        evaluated(run, [(n, n, 0.9, 0.5) for n in (1, 2, 3, 4)], environment=environment)
        for run in records.runs("method=lora,full", "seed=0,1")
        for environment in [records.ENVIRONMENT | {"threads": 1 + run.seed}]
    ]
    (picture,) = score_vs_time.plot_score_vs_time(made, Palette())
    assert [axis.get_title().partition("\n")[2] for axis in picture.figure.axes] == [
        "Some CPU, 1 thread",
        "Some CPU, 2 threads",
    ]
    (costs_,) = pareto.plot_pareto(made, Palette())
    assert len(costs_.figure.axes) == 6


def test_the_line_of_a_front_joins_its_points():
    made = [
        records.record(
            run,
            {"full": 0.9, "lora": 0.8, "bitfit": 0.7, "head": 0.75}[run.method.name],
            parameters={"trained": 10 ** (3 + number), "head": 0, "total": 10**8},
        )
        for number, run in enumerate(records.runs("method=head,bitfit,lora,full"))
    ]
    (picture,) = pareto.plot_pareto(made, Palette(), money=lambda r: 1e-3, currency="EUR")
    first = picture.figure.axes[0]
    steps = [line for line in first.get_lines() if line.get_drawstyle() == "steps-post"]
    assert [list(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in steps] == [
        [(1e3, 75), (1e5, 80)],
        [(1e5, 80), (1e6, 90)],
    ]
    assert "-" not in {line.get_linestyle() for line in steps}  # one seed decides nothing
    assert [axis.get_xlabel() for axis in picture.figure.axes][-1] == "money (EUR)"
    named = {text.get_text() for text in first.texts}
    assert "BitFit" not in named
    assert named >= {"Head only", "LoRA"}
    boxes = [text.get_window_extent() for text in first.texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))


def test_a_front_is_solid_where_intervals_are_apart():
    """Seeds 2 points apart: the interval of three is the mean ± 2.484 deviations of 2."""
    scores = {"full": 0.9, "lora": 0.7, "bitfit": 0.68}
    trained = {"bitfit": 10, "lora": 100, "full": 1000}
    made = [
        records.record(
            run,
            scores[run.method.name] + 0.02 * (run.seed - 1),
            parameters={"trained": trained[run.method.name], "head": 0, "total": 10**8},
        )
        for run in records.runs("method=lora,bitfit,full", "seed=0,1,2")
    ]
    (picture,) = pareto.plot_pareto(made, Palette())
    first = picture.figure.axes[0]
    steps = [line for line in first.get_lines() if line.get_drawstyle() == "steps-post"]
    assert [line.get_linestyle() for line in steps] == ["--", "-"]  # 68 to 70 open, 70 to 90 not
    bars = [line for line in drawn(picture, "lora") if len(line.get_xdata()) == 2]
    assert list(bars[0].get_ydata()) == pytest.approx([65.03, 74.97], abs=0.01)
    assert first.get_ylim()[0] < 50  # where the constant prediction is
    heights = {axis.get_ylim() for axis in picture.figure.axes}
    assert len(heights) == 1  # one scale for the panels of a line: only the first has numbers


def test_the_seeds_have_the_best_rows_first_and_a_title():
    made = grown("method=full,lora")
    (picture,) = seeds.plot_seeds(made, Palette(), "LoRA is better.")
    axis = picture.figure.axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["LoRA", "Full fine-tuning"]
    assert axis.get_title() == "Synthetic paraphrase, 100 examples"
    assert picture.figure.get_suptitle() == "LoRA is better."


def test_collapsed_seeds_are_open_and_in_the_mean():
    made = [
        records.record(run, 0.5 if run.seed == 2 else 0.6 + run.seed / 10, collapsed=run.seed > 0)
        for run in records.runs("method=lora", "seed=0,1,2", "task=synthetic_paraphrase")
    ]
    (picture,) = seeds.plot_seeds(convention.counted_records(made), Palette())
    *dots, mean = drawn(picture, "lora")
    assert [to_hex(dot.get_markerfacecolor()) for dot in dots[1:]] == ["#ffffff"] * 2
    assert to_hex(dots[0].get_markerfacecolor()) == palette.known()["lora"]["color"].lower()
    assert [dot.get_xdata()[0] for dot in dots[:2]] == pytest.approx([60, 70])
    assert dots[2].get_xdata()[0] == 50  # as the constant prediction
    assert mean.get_xdata()[0] == pytest.approx(60)


def test_many_rows_get_a_panel_a_method():
    made = grown("method=lora,bitfit,full", "train.lr=1e-4,1e-3,1e-2")
    (picture,) = sizes.plot_sizes(made, Palette())
    assert picture.part == "synthetic_paraphrase"
    assert [axis.get_title() for axis in picture.figure.axes] == [
        *("BitFit", "Full fine-tuning", "LoRA")
    ]
    assert {text.get_text() for text in picture.figure.axes[2].texts} == {
        "lr=0.0001",
        "lr=0.001",
        "lr=0.01",
    }
    assert line_plots.MOST < 9


# files


def test_bytes_are_stable_and_type_is_text():
    made = grown("method=lora,full")
    png, pdf, svg = first = [sizes.plot_sizes(made, Palette())[0].file(kind) for kind in FORMATS]
    time.sleep(1.05)  # a date would be another one
    assert [sizes.plot_sizes(made, Palette())[0].file(kind) for kind in FORMATS] == first
    colours = {colour for _, colour in Image.open(io.BytesIO(png)).convert("RGB").getcolors()}
    assert {(0, 0, 0), (255, 255, 255), (0x15, 0x3D, 0xBC)} <= colours
    assert b"/Type3" not in pdf
    assert b"/FontFile2" in pdf
    assert b"/CIDFontType2" in pdf
    assert b"CreationDate" not in pdf
    assert b">training examples</text>" in svg
    assert b"date>" not in svg


def test_the_verb_writes_what_was_asked(tmp_path):
    results = ResultsFolder(tmp_path / "results")
    for record in grown("method=lora,full"):
        results.save(record, records.predictions())

    def call(*words: str, code: int = 0) -> str:
        folder = ["--results", str(results.folder), "-o", str(tmp_path / "out")]
        done = CliRunner().invoke(main, ["report", "plots", *folder, *words])
        assert done.exit_code == code, done.output
        assert "Traceback" not in done.output
        return done.output

    assert "did you mean sizes?" in call("size", code=2)
    assert "it takes runs with at least 4 evaluations" in call("learning", code=2)
    assert not (tmp_path / "out").exists()
    call("sizes", "seeds", "--format", "pdf")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "sizes.pdf",
        "seeds.pdf",
        "plots.md",
    }
    assert "bars of one standard deviation" in (tmp_path / "out" / "plots.md").read_text()
    assert "learning: not drawn; it takes" in call("--format", "svg")
    assert (tmp_path / "out" / "paired.svg").exists()


def test_names_are_text_whatever_they_hold():
    made = [
        replace(record, run=replace(record.run, task=replace(record.run.task, name="<b>$x_1$ a/b")))
        for record in grown("method=lora,full")
    ]
    found, _ = registry.draw_figures(Inputs(made))
    assert sorted(found) == ["pareto_b__x_1__a_b", "seeds", "sizes"]
    files = registry.files(found, "svg")
    assert b"&lt;b&gt;$x_1$ a/b" in files["sizes.svg"]
    assert b"&lt;b&gt;$x_1$ a/b: mean score" in files["plots.md"]


def test_a_cost_of_some_seeds_is_no_cost_of_the_row_but_a_latency_is():
    made = [records.record(run, 0.8) for run in records.runs("method=lora", "seed=0,1")]

    def cost(record):
        return 3.0 if record.run.seed == 0 else None

    assert pareto.points({"lora": made}, cost) == {}
    assert pareto.points({"lora": made}, cost, some=True) == {"lora": (80.0, 3.0)}


def test_the_picture_of_costs_names_what_diverged_and_leaves_it_off_the_front():
    made = [
        records.record(run, 0.9 if run.method.name == "lora" else 0.8)
        for run in records.runs("method=lora,bitfit", "seed=0,1")
    ]
    lost = Diverged.from_runs(records.runs("method=lora", "seed=2,3"))
    cell = {name: [r for r in made if r.run.method.name == name] for name in ("lora", "bitfit")}
    points = {"lora": (90.0, 2.0), "bitfit": (80.0, 2.0)}
    assert pareto._fronts(points, cell, True, Diverged()) == [["lora"]]
    assert pareto._fronts(points, cell, True, lost) == [["bitfit"]]
    (picture,) = pareto.plot_pareto(made, Palette(), diverged=lost)
    assert "not shown: lora on synthetic_paraphrase (2). Rows of which" in picture.caption
    (picture,) = seeds.plot_seeds(made, Palette(), diverged=lost)
    assert "not shown: lora on synthetic_paraphrase (2)." in picture.caption
