"""What a gate found as a table for a terminal, as JSON and as one HTML page."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from peftbench.core.run import Json
from peftbench.gate.criteria import PASS, SHOWN, UNDECIDED, Criterion, Findings, Flip
from peftbench.gate.held_out import HeldOut
from peftbench.gate.thresholds import Thresholds
from peftbench.reports.tables.document import Section, document
from peftbench.reports.tables.markdown import Table

#: Flips that the terminal and the page list at most; the JSON has all.
_FEW, _MOST = 10, 1_000

#: Characters of a text on the page.
_LONG = 300


@dataclass(frozen=True)
class Named:
    """What the page calls a model.

    Attributes:
        given: as it was named.
        title: of its run.
        key: of its run.
    """

    given: str
    title: str
    key: str


@dataclass(frozen=True)
class Gate:
    """A gate that was passed or not.

    Attributes:
        new, old: the models.
        held: the file.
        shifts: further files, by name.
        thresholds: the limits.
        findings: what was found.
        device: that was timed.
        show_texts: whether texts of the file may be shown.
    """

    new: Named
    old: Named
    held: HeldOut
    shifts: dict[str, HeldOut]
    thresholds: Thresholds
    findings: Findings
    device: str
    show_texts: bool

    @property
    def answer(self) -> str:
        """The decision in one sentence, with the criteria that stop it."""
        if self.findings.passes:
            return "Pass: NEW may replace OLD."
        failed = [one for one in self.findings.criteria if one.verdict not in (PASS, SHOWN)]
        return f"Stop: {', '.join(one.name for one in failed)}."

    def lines(self) -> list[str]:
        """What to read below the answer."""
        found = self.findings
        open_ = [one for one in found.criteria if one.verdict == UNDECIDED]
        told = [
            "Change: NEW less OLD in points, or NEW by OLD, with the interval of 95 %; all limits "
            "must hold at once, so that their number needs no correction. OLD and NEW have no "
            "interval of their own: on the same rows only their difference decides."
        ]
        if open_:
            told.append(
                f"Undecided ({', '.join(one.name for one in open_)}): the figure is within the "
                "limit and its interval is not, or it is not defined. More rows decide it."
            )
        if not self.shifts:
            told.append("Shift is not measured: give labelled files from elsewhere with --shift.")
        for name, parts in (("Noise", found.noise), ("Abnormal input", found.abnormal)):
            if not parts:
                told.append(f"{name} is not measured: the thresholds name no kind of it.")
        told += [f"{one.name}: no interval, {one.why}." for one in found.criteria if one.why]
        return told

    def table(self) -> Table:
        """All criteria, narrow enough for 80 columns."""
        return _table(f"NEW against OLD ({self.findings.metric})", self.findings.criteria)

    def flip_line(self) -> str:
        """The places of the first negative flips."""
        flips = self.findings.flips
        if not flips:
            return "No row was right before and is wrong now."
        some = ", ".join(str(self.held.rows[flip.place]) for flip in flips[:_FEW])
        more = f" and {len(flips) - _FEW:,} more" if len(flips) > _FEW else ""
        return f"Right before, wrong now, the surest first: {self.held.unit}s {some}{more}."

    def to_json(self) -> Json:
        """All figures; texts only where they may be shown."""
        found = self.findings

        def told(several: Sequence[Criterion]) -> list[Json]:
            return [asdict(one) | {"verdict": one.verdict} for one in several]

        return {
            "peftbench": version("peftbench"),
            "pass": found.passes,
            "answer": self.answer,
            "new": asdict(self.new),
            "old": asdict(self.old),
            "file": {"name": self.held.name, "sha256": self.held.content},
            "rows": len(self.held.label),
            "device": self.device,
            "thresholds": asdict(self.thresholds),
            "not_measured": self.thresholds.not_measured(shift=bool(self.shifts)),
            "criteria": told(found.criteria),
            "noise": told(found.noise),
            "abnormal": told(found.abnormal),
            "gained": {
                "rows": found.gained.count,
                "share": found.gained.value,
                "low": found.gained.low,
                "high": found.gained.high,
            },
            "negative_flips": [self._flip(flip) for flip in found.flips],
        }

    def _flip(self, flip: Flip) -> Json:
        names, held = self.held.names, self.held
        told: Json = {
            self.held.unit: held.rows[flip.place],
            "label": names[flip.label],
            "new": names[flip.answer],
            "confidence": flip.confidence,
        }
        return told | ({"texts": self._texts(flip)} if self.show_texts else {})

    def _texts(self, flip: Flip) -> list[str]:
        return [column[flip.place] for column in self.held.new]

    def html(self) -> str:
        """The page."""
        found = self.findings
        title = f"Gate: {self.new.given} against {self.old.given}"
        parts = [
            Section("Decision", self.lines(), [_table("Criteria", found.criteria)]),
            self._flip_section(),
            *(
                [Section("Noise", [_NOISE], [_table("Score by kind of noise", found.noise)])]
                if found.noise
                else []
            ),
            *(
                [Section("Abnormal input", [_ABNORMAL], [_table("AUROC by kind", found.abnormal)])]
                if found.abnormal
                else []
            ),
            Section("What was compared", [], [self._facts()]),
        ]
        rows = f"{len(self.held.label):,} rows of {self.held.name}, answered by both models."
        return document(title, self.answer, found.passes, [rows], parts)

    def _flip_section(self) -> Section:
        found, names = self.findings, self.held.names
        texts = ["text"] if self.show_texts else []
        rows: list[list[Any]] = []
        for flip in found.flips[:_MOST]:
            joined = " | ".join(self._texts(flip)) if self.show_texts else ""
            cut = joined if len(joined) <= _LONG else f"{joined[:_LONG]}…"
            rows.append(
                [
                    str(self.held.rows[flip.place]),
                    names[flip.label],
                    names[flip.answer],
                    f"{flip.confidence:.3f}",
                    *([cut] if texts else []),
                ]
            )
        lines = [
            f"Rows that OLD has right and NEW has wrong: {len(found.flips):,} of "
            f"{len(self.held.label):,}. The other way round: {found.gained.text()}."
        ]
        if len(found.flips) > _MOST:
            lines.append(f"The surest {_MOST:,} are listed; --json has all.")
        if not self.show_texts:
            lines.append("Texts are shown only with --show-texts.")
        columns = [self.held.unit, "label", "answer of NEW", "confidence", *texts]
        table = Table("From the surest on", columns, rows, labels=3, prose=len(texts))
        return Section("Negative flips", lines, [table] if rows else [])

    def _facts(self) -> Table:
        files = {"FILE": self.held} | {f"--shift {name}": one for name, one in self.shifts.items()}
        rows = [
            *(
                [name, f"{one.given}: {one.title} (key {one.key})"]
                for name, one in (("NEW", self.new), ("OLD", self.old))
            ),
            *(
                [name, f"{one.name}, {len(one.label):,} rows, SHA-256 {one.content[:12]}"]
                for name, one in files.items()
            ),
            ["metric", self.findings.metric],
            ["decided by", f"the {self.thresholds.decide_by}"],
            ["timed on", self.device],
            ["peftbench", version("peftbench")],
        ]
        return Table("Facts", ["", "value"], rows, prose=1)


_NOISE = "Both models answer copies of the rows with typing errors and the like; no text is shown."

_ABNORMAL = (
    "AUROC: probability that a model is surer of a row of the file than of a text that it should "
    "not answer; 50 is chance. Below it, such texts pass a cut-off on the confidence."
)


def _table(title: str, criteria: Sequence[Criterion]) -> Table:
    rows = [
        [
            *(one.name, _figure(one, one.old), _figure(one, one.new), _change(one), _limit(one)),
            *(str(one.n), one.verdict),
        ]
        for one in criteria
    ]
    columns = ["", "OLD", "NEW", "change", "limit", "n", ""]
    return Table(title, columns, rows, prose=1, narrow=True)


def _figure(one: Criterion, value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.1f}" if one.kind == "ratio" else f"{100 * value:.1f}"


def _change(one: Criterion) -> str:
    if one.change is None:
        return "undefined"
    several = [one.change, *([] if one.low is None or one.high is None else [one.low, one.high])]
    if one.kind == "ratio":
        told = [f"{value:.2f}" for value in several]
    else:
        told = [_points(value) for value in several]
    return told[0] + (f" [{told[1]}, {told[2]}]" if told[1:] else "")


def _points(value: float) -> str:
    """Points, as short as a terminal needs them."""
    return f"{100 * value:.{0 if abs(value) >= 0.0995 else 1}f}"


def _limit(one: Criterion) -> str:
    if one.limit is None:
        return "–"
    sign = "≥" if one.at_least else "≤"
    return f"{sign} {one.limit:g}" if one.kind == "ratio" else f"{sign} {100 * one.limit:g}"
