"""What shares a cell of a table, what things cost, what a part of the split would have said."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import records

from peftbench.analysis import advice, comparability, costs, grouping
from peftbench.analysis.costs import Prices
from peftbench.analysis.failures import Diverged
from peftbench.config import catalog
from peftbench.core.configs import CheckpointSelection
from peftbench.core.errors import ConfigError
from peftbench.core.run import Json, Record, Run
from peftbench.reports import advice as told
from peftbench.reports import builder, cheap_validation, pareto, pivot_table, scores, spending
from peftbench.reports.html import cells
from peftbench.reports.html.data import contents
from peftbench.reports.plotting.palette import Palette
from peftbench.results.store import ResultsFolder
from peftbench.results.tuned import Tuned


def made(*words: str) -> list[Record]:
    return [records.record(run) for run in records.runs(*words)]


def test_seeds_share_a_cell():
    table = scores.scores(made("method=lora", "seed=0,1,2"))
    assert table.columns[:1] == ["method"]
    assert [row[0] for row in table.rows] == ["constant prediction", "lora"]
    assert "(3)" in table.rows[1][1]


def test_hosts_are_rows_of_their_own():
    found = made("method=sparse_adapter", "method.base_method=lora,adapter", "method.score=random")
    table = scores.scores(found)
    assert table.columns[:2] == ["method", "method.base_method"]
    assert sorted(row[1] for row in table.rows[1:]) == ["adapter", "lora"]


def test_what_differs_inside_one_host_is_a_column():
    words = ("method=sparse_adapter", "method.base_method=adapter", "method.base_method.width=8,16")
    table = scores.scores(made(*words))
    assert table.columns[:2] == ["method", "method.base_method.width"]


def test_another_revision_is_another_row():
    words = ("model=auto", "model.family=bert", "model.checkpoint=a/b", "model.revision=c1,c2")
    table = scores.scores(made(*words))
    assert table.columns[:2] == ["method", "model.revision"]


def test_costs_have_a_line_for_each_method_and_task():
    found = made("method=lora,bitfit", "task=synthetic_paraphrase,synthetic_similarity", "seed=0,1")
    table = scores.costs(found)
    assert table.columns == ["method", "task", "trained", "seconds", "examples/s", "peak MiB"]
    assert len(table.rows) == 4


# spending


def spent(*words: str, prices: Prices | None = None, **changes: Any) -> dict[str, dict[str, str]]:
    found = [records.record(run, **changes) for run in records.runs(*words)]
    table = spending.spending_table(found, prices or Prices())
    return {row[0]: dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_without_prices_there_is_no_money():
    row = spent("method=lora")["lora"]
    assert set(row) == {
        *("method", "task", "score", "train s", "TFLOP", "saved MB"),
        *("s to 95 % of reference", "s to 99 % of reference", "Pareto front"),
    }
    assert row["saved MB"] == f"{4 * (2048 + 66) / 1e6:.2f}"


def test_money_by_hand():
    prices = Prices(currency="EUR", core_hour=9.0, gb_month=1e6, months=2)
    # 4 seconds on one core; 2,114 weights of 4 bytes for two months
    euros = 9.0 * 4 / 3600 + 2 * 1e6 * 4 * 2114 / 1e9
    assert spent("method=lora", prices=prices)["lora"]["EUR"] == f"{euros:.4f}"
    (one,) = made("method=lora")
    assert Prices(currency="EUR", kwh=0.3).money(one) is None  # its energy was not measured
    joules = records.record(one.run, energy_joules=7.2e6)
    assert Prices(currency="EUR", kwh=0.3).money(joules) == pytest.approx(0.6)
    assert Prices(currency="EUR", gpu_hour=2.0).money(one) is None  # it ran on a CPU
    on_gpu = records.record(one.run, environment=records.ENVIRONMENT | {"cuda": "13.0"})
    assert Prices(currency="EUR", gpu_hour=2.0).money(on_gpu) == pytest.approx(2 * 4 / 3600)


@pytest.mark.parametrize(
    ("environment", "hours"),
    [
        ({"device": "4 × Some GPU", "cuda": "13.0"}, 4),
        ({"device": "2 × Some CPU", "threads": 3}, 6),
        ({"device": "Some CPU × 2", "threads": 3}, 3),  # its own name
    ],
)
def test_all_processes_of_a_run_cost_money(environment, hours):
    (one,) = made("method=lora")
    several = records.record(one.run, environment=records.ENVIRONMENT | environment)
    prices = Prices(currency="EUR", core_hour=9.0, gpu_hour=9.0)
    assert prices.money(several) == pytest.approx(9 * hours * 4 / 3600)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"core_hour": 1.0}, "no currency is given; add one"),
        ({"currency": "EUR", "kwh": -1}, "kwh is a number of at least 0"),
        ({"currency": "EUR", "months": "two"}, "months is a number"),
    ],
)
def test_bad_prices_are_refused(given, told):
    with pytest.raises(ConfigError, match=told):
        Prices(**given)


def test_a_file_of_prices(tmp_path):
    packaged = catalog.packaged() / "prices.yaml"
    assert builder.read_prices(packaged) == Prices()  # nothing is known before it is filled in
    own = tmp_path / "prices.yaml"
    own.write_text("currency: EUR\ncore_hour: 0.05\n")
    assert builder.read_prices(own) == Prices(currency="EUR", core_hour=0.05)
    own.write_text("core_hours: 0.05\n")
    with pytest.raises(ConfigError, match="did you mean core_hour"):
        builder.read_prices(own)
    with pytest.raises(ConfigError, match="--prices"):
        builder.read_prices(tmp_path / "none.yaml")


def test_seconds_to_come_near_the_reference_are_those_of_the_curve():
    def curve(*points: tuple[float, float]) -> list[Json]:
        return [
            {"step": 1, "fraction": 1, "seconds": s, "loss": 1, "accuracy": a} for s, a in points
        ]

    full, lora = (records.runs(f"method={name}")[0] for name in ("full", "lora"))
    many = {"trained": 9000, "head": 66, "total": 9066}
    found = [
        records.record(full, 0.8, parameters=many, curve=curve((1.0, 0.5), (2.0, 0.8))),
        records.record(lora, 0.79, curve=curve((0.5, 0.78), (1.5, 0.79), (2.5, 0.7))),
    ]
    table = spending.spending_table(found, Prices())
    row = {line[0]: dict(zip(table.columns, line, strict=True)) for line in table.rows}
    reach = "s to 95 % of reference"
    # 95 % of the way from the constant prediction, 50, to 80: 78.5; 1.5 rounds to 2
    assert (row["full"][reach], row["lora"][reach]) == ("2", "2")
    assert row["lora"]["s to 99 % of reference"] == "> 2 (0 of 1)"
    # their curves are of held-out training examples
    early = CheckpointSelection(fraction=0.2, patience=3)
    held = [replace(one, run=replace(one.run, checkpoint_selection=early)) for one in found]
    table = spending.spending_table(held, Prices())
    assert {dict(zip(table.columns, line, strict=True))[reach] for line in table.rows} == {"–"}
    low = [replace(one, trivial={"accuracy": 0.8}) for one in found]
    table = spending.spending_table(low, Prices())  # any run comes near a constant prediction
    assert {dict(zip(table.columns, line, strict=True))[reach] for line in table.rows} == {"–"}


UNMEASURED = {"cpu_peak_rss_bytes": {"train": None, "evaluate": None}}


def test_a_peak_that_was_not_measured_is_none_and_never_zero():
    one, two = made("method=lora", "seed=0,1")
    without = records.record(one.run, memory=UNMEASURED)
    assert costs.peak(without) is None
    assert costs.mean_peak([without]) is None
    assert costs.mean_peak([without, two]) == 100 * 2**20
    assert scores.costs([without]).rows[0][-1] == "–"
    other = records.record(records.runs("method=full")[0], memory=UNMEASURED)
    (picture,) = pareto.plot_pareto([without, other], Palette())  # no panel without a point
    labels = [axis.get_xlabel() for axis in picture.figure.axes]
    assert labels == ["trained weights", "training seconds"]
    assert pareto.plot_pareto([without], Palette()) == []


def elsewhere(run: Run, **changes: Any) -> Record:
    return records.record(run, 0.9, environment=records.ENVIRONMENT | changes)


def test_a_front_is_of_one_file_though_two_have_one_name():
    """Scores of other data do not beat each other."""
    full, lora = (records.runs(f"method={name}")[0] for name in ("full", "lora"))
    other = replace(lora, task=replace(lora.task, label="other"))
    for found, (of_full, fronts) in {
        (records.record(full, 0.8), records.record(lora, 0.9)): ("", []),
        (records.record(full, 0.8), records.record(other, 0.9)): ("yes", ["seconds", "trained"]),
    }.items():
        table = spending.spending_table(list(found), Prices())
        lines = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
        assert [line["Pareto front"] for line in lines] == [of_full, "yes"]
        by_row, _ = grouping.of_records(list(found))
        made = cells.cells(by_row, Tuned(), Diverged())
        assert [cell.front for cell in made] == [fronts, ["seconds", "trained"]]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"device": "Another CPU"}, ("Another CPU, 1 thread", "Some CPU, 1 thread")),
        ({"threads": 2}, ("Some CPU, 1 thread", "Some CPU, 2 threads")),
        ({"packed": True}, ("Some CPU, 1 thread", "Some CPU, 1 thread, by calibration")),
        ({"cores": 64}, ("Some CPU, 1 thread, 2 cores", "Some CPU, 1 thread, 64 cores")),
        (
            {"cuda": "13.0"},
            ("Some CPU, 1 thread, CUDA 13.0", "Some CPU, 1 thread, CUDA off"),
        ),
    ],
)
def test_money_of_several_machines_is_not_compared(changes, told):
    full, lora = (records.runs(f"method={name}")[0] for name in ("full", "lora"))
    found = [records.record(full, 0.8), elsewhere(lora, **changes)]
    prices = Prices(currency="EUR", core_hour=9.0, gpu_hour=9.0)
    table = spending.spending_table(found, prices)
    lines = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    size = "synthetic_paraphrase 32, "
    assert sorted(line["task"].removeprefix(size) for line in lines) == sorted(told)
    assert [line["Pareto front"] for line in lines] == ["yes", "yes"]  # each alone on its machine
    machines = {costs.machine(record) for record in found}
    assert len(machines) == 2
    assert len(advised(found)) == 2


def advised(found: list[Record]) -> list[str]:
    """Machines that advice names."""
    told, _ = advice.distance_notes(advice.AdviceQuestion(found[0].run, 32, None), found)
    assert told[-1] == "which are not to be compared"
    return told[-2].split(" and of ")


def test_the_index_refuses_by_the_same_fields():
    assert {path.removeprefix("environment.") for path in comparability.MACHINE} == set(
        costs.Machine._fields
    )


# cheap validation


def test_a_part_that_ranks_alike_has_a_tau_of_one():
    label = np.arange(400) % 2
    right = {"full": 1.0, "lora": 0.75, "bitfit": 0.5}

    def load(record: Record) -> dict[str, np.ndarray]:
        share = right[record.run.method.name]
        said = np.where(np.arange(400) % 4 < 4 * share, label, 1 - label)
        return {"item": np.arange(400), "label": label, "scores": np.eye(2)[said]}

    found = made("method=full,lora,bitfit")
    table = cheap_validation.cheap_validation_table(found, load)
    assert table is not None
    assert table.rows[0][:3] == ["synthetic_paraphrase 32", "3", "400"]
    assert table.rows[0][-1] == "1.00 ± 0.00, best 20/20"
    assert cheap_validation.cheap_validation_table(found[:2], load) is None


def test_noise_ranks_worse_on_smaller_parts():
    generator = np.random.default_rng(0)
    label = generator.integers(0, 2, 1000)
    answers = {}
    for number, run in enumerate(records.runs("method=full,lora,bitfit,head,ia3")):
        wrong = generator.random(1000) < 0.3 + 0.02 * number
        scores = np.eye(2)[np.where(wrong, 1 - label, label)]
        answers[run.key] = {"item": np.arange(1000), "label": label, "scores": scores}
    table = cheap_validation.cheap_validation_table(
        made("method=full,lora,bitfit,head,ia3"), lambda record: answers[record.run.key]
    )
    assert table is not None
    taus = [float(cell.split(" ")[0]) for cell in table.rows[0][3:]]
    assert taus == sorted(taus)
    assert taus[0] < taus[-1] < 1


def test_rates_and_budgets_are_in_the_order_of_their_numbers():
    found = made("method=lora", "train.lr=5e-05,1e-4,2e-4,1e-3,0.01")
    table = scores.scores(found)
    rates = [row[1] for row in table.rows[1:]]
    assert rates == ["5e-05", "0.0001", "0.0002", "0.001", "0.01"]
    steps = scores.scores(made("method=lora", "budget.steps=4,16,128"))
    assert [row[1] for row in steps.rows[1:]] == ["4", "16", "128"]


def test_a_warning_stands_wherever_costs_are_shown(tmp_path):
    results = ResultsFolder(tmp_path)
    for record in made("method=lora,bitfit", "seed=0,1"):
        results.save(record, records.predictions())
    text = "Seconds were taken on a busy machine."
    (tmp_path / costs.NOTES).write_text(f"costs: {text}\n")
    files = builder.write(results)
    for name in ("costs.md", "spending.md", "plots.md"):
        (path,) = [path for path in files if path.name == name]
        assert text in path.read_text(), name
    assert text not in (results.reports() / "scores.md").read_text()
    data = contents(results)
    costing = next(one for one in data["summary"] if one["heading"] == "What it costs")
    assert (data["warning"], costing["sentences"][0]) == (text, text)
    words = ["cell=seconds", "rows=method"]
    assert text in pivot_table.build_pivot_table(results, words, "markdown", None).text
    assert text not in pivot_table.build_pivot_table(results, [], "markdown", None).text
    words = ("task=synthetic_paraphrase", "model=tiny", "size=32")
    assert told.as_json(advice.from_folders(words, [results]))["warnings"] == [text]
    (tmp_path / costs.NOTES).write_text("cost: 3\n")
    with pytest.raises(ConfigError, match="holds one line of text"):
        builder.write(results)
