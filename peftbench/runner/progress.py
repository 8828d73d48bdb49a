"""Progress of a sweep: live bars in a terminal, plain lines elsewhere, and a file for `status`."""

import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from peftbench.analysis.grouping import differences
from peftbench.core.errors import RecordError
from peftbench.core.evaluation import Evaluation, Job
from peftbench.core.run import Json
from peftbench.core.text import command, format_duration
from peftbench.metrics.task_metrics import factor
from peftbench.results import in_flight
from peftbench.results.store import ResultsFolder
from peftbench.runner.worker_pool import Event

#: Seconds between two lines on runs in progress, where there is no terminal.
LINE = 60

#: Seconds between two writings of the progress file.
FILE = 5


class Display:
    """The display of a worker pool's events.

    Args:
        jobs: that are to do.
        weights: how much of the whole each is, by key.
        workers: lines to draw.
        results: where the records are.
        quiet: print nothing but failures.
        shown_as: what `status` shows of this work; None for the command line.
    """

    def __init__(
        self,
        jobs: Sequence[Job],
        weights: dict[str, float],
        workers: int,
        results: ResultsFolder,
        quiet: bool = False,
        shown_as: str | None = None,
    ):
        self.console = Console(stderr=True, highlight=False)
        self._quiet = quiet
        self._shown_as = shown_as or command(*sys.argv[1:])
        self._results = results
        self._total = len(jobs)
        self._finished = 0
        self._told: set[tuple[str, str]] = set()
        self._titles = _titles(jobs)
        self._names = _short_names(self._titles)
        self._jobs: dict[str, Json] = {}  # in progress, by key
        self._last_line = self._last_file = 0.0
        self._start: float | None = None  # of the first training: processes take seconds to begin
        self._weight = dict(weights)
        self._spent = dict.fromkeys(self._weight, 0.0)
        self._begun: dict[str, float] = {}  # what of each was done by an earlier command
        self._lines: dict[int, Any] = {}
        self._flying: defaultdict[int, dict[str, float]] = defaultdict(dict)  # in a pack, several
        self._bars: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._draw(workers)

    def __enter__(self) -> "Display":
        self._write_file()  # workers load for some seconds before the first step
        if self._bars is not None:
            self._live = Live(self._bars, console=self.console, refresh_per_second=4)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._live.stop()
        in_flight.remove(self._results)

    def __call__(self, event: Event) -> None:
        """Show one event."""
        key = event.job.key
        if event.kind == "step":
            now = time.monotonic()
            if self._start is None:
                self._start = self._last_line = now
            self._spent[key] = min(1.0, event.fields["fraction"])
            self._begun.setdefault(key, event.fields.get("resumed", 0.0))
            self._step(event)
            self._note_step(event, now)
            return
        if event.kind == "note":
            self._say(f"[dim]{escape(event.fields['text'])}[/]")
            return
        if event.kind == "waiting":
            reason = event.fields.get("reason", "another process has it")
            if (key, reason) not in self._told:  # the pool repeats it every second
                self._told.add((key, reason))
                self._say(f"[dim]wait[/] {escape(self._titles[event.job.key])}: {escape(reason)}")
            return
        if event.fields.get("elsewhere"):
            self._weight[key] = 0.0  # what others did says nothing of the speed here
        elif event.kind == "failed" and (part := self._spent[key]) < 1:
            self._weight[key] *= part  # the rest of it will not be done
            self._begun[key] = self._begun[key] / part if part else 0.0
        self._spent[key] = 1.0
        self._finished += 1
        self._jobs.pop(key, None)
        self._over(event)
        count = self._count()
        left = f"[dim]{_left(self._seconds_left())}[/]"
        if event.kind == "failed":
            what = f"[red]{event.fields['kind']}[/] {escape(event.fields['reason'])}"
            self._say(
                f"{count} [red]failed[/] {escape(self._titles[event.job.key])}: {what}", always=True
            )
        elif event.kind == "done":
            self._say(
                f"{count} {escape(self._titles[event.job.key])}  {self._result(event)}  {left}"
            )
        self._overall()

    def _result(self, event: Event) -> str:
        where = " (done elsewhere)" if event.fields.get("elsewhere") else ""
        try:
            return self._scores(event, where)
        except (OSError, RecordError) as error:  # removed or damaged since
            return f"[yellow]its record cannot be read: {escape(str(error))}[/]"

    def _scores(self, event: Event, where: str) -> str:
        if isinstance(event.job, Evaluation):
            found = self._results.evaluated(event.job.key)
            shown = escape(found.headline_text)
            return f"[bold]{shown}[/]  {sum(found.seconds.values()):.1f} s{where}"
        record = self._results.load(event.job.key)
        scores = record.metrics
        if record.work.get("trial"):
            held = record.selection or {}
            scores = {f"{n} held out": held.get(n) for n in record.run.task.metrics}
        parts = [f"{n} {_percent(v, factor(n.split()[0]))}" for n, v in scores.items()]
        if record.collapsed:
            parts.append("[yellow]collapsed[/]")
        seconds = record.seconds["train"]
        how = "training" + ", by calibration" * bool(record.environment.get("packed"))
        return f"[bold]{', '.join(parts)}[/]  {seconds:.1f} s {how}{where}"

    def _count(self) -> str:
        return f"[dim]{self._finished:>{len(str(self._total))}}/{self._total}[/]"

    def _note_step(self, event: Event, now: float) -> None:
        """A line a minute where there are no bars, and the file that `status` reads."""
        told: Json = {"title": self._titles[event.job.key], "fraction": self._spent[event.job.key]}
        told |= {name: event.fields[name] for name in ("step", "loss") if name in event.fields}
        self._jobs[event.job.key] = told
        if now - self._last_file >= FILE:
            self._last_file = now
            self._write_file(now)
        if self._bars is None and now - self._last_line >= LINE:
            self._last_line = now
            loss = f", loss {told['loss']:.3f}" if "loss" in told else ""
            part = f"{100 * told['fraction']:.0f} %{loss}"
            left_text = _left(self._seconds_left(now))
            title = escape(self._titles[event.job.key])
            self._say(f"{self._count()} {title}: {part}  [dim]{left_text}[/]")

    def _write_file(self, now: float | None = None) -> None:
        """Write the file that `status` and the live page read."""
        left, jobs = self._seconds_left(now), list(self._jobs.values())
        in_flight.write(self._results, self._shown_as, self._finished, self._total, left, jobs)

    def _seconds_left(self, now: float | None = None) -> float | None:
        total = sum(self._weight.values())
        done = sum(self._weight[key] * part for key, part in self._spent.items())
        here = done - sum(self._weight[key] * part for key, part in self._begun.items())
        if self._start is None or here <= 0 or done >= total:
            return None
        now = time.monotonic() if now is None else now
        return (now - self._start) * (total - done) / here

    def _say(self, text: str, always: bool = False) -> None:
        if always or not self._quiet:
            self.console.print(text, soft_wrap=True)

    # bars

    def _draw(self, workers: int) -> None:
        narrow = Column(no_wrap=True)
        news = Column(no_wrap=True, overflow="ellipsis", ratio=1)
        self._bars = Progress(
            TextColumn("{task.description}", table_column=narrow),
            BarColumn(16, table_column=Column(min_width=16)),
            TextColumn("{task.fields[news]}", table_column=news),
            expand=True,
        )
        self._all = self._bars.add_task("all", total=1.0, news="")
        for number in range(workers):
            self._lines[number] = self._bars.add_task(str(number), total=1.0, news="idle")

    def _step(self, event: Event) -> None:
        if self._bars is None:
            return
        news, flying = event.fields, self._flying[event.worker]
        flying[event.job.key] = news["fraction"]
        pack = f"{len(flying)} runs, one of them " if len(flying) > 1 else ""
        rate = news.get("speed")  # evaluations that time themselves have none
        speed = f" · {rate:.0f} ex/s" if rate else ""
        where = f" · step {news['step']} · loss {news['loss']:.3f}" if "loss" in news else ""
        name = escape(self._names[event.job.key])
        self._bars.update(
            self._lines[event.worker],
            completed=sum(flying.values()) / len(flying),
            news=f"{pack}{name}{where}{speed}",
        )
        self._overall()

    def _over(self, event: Event) -> None:
        self._flying[event.worker].pop(event.job.key, None)
        if self._bars is not None and not self._flying[event.worker]:
            self._bars.update(self._lines[event.worker], completed=0.0, news="idle")

    def _overall(self) -> None:
        if self._bars is not None:
            total = sum(self._weight.values())
            done = sum(self._weight[key] * part for key, part in self._spent.items())
            news = f"{self._finished} of {self._total} · {_left(self._seconds_left())}"
            self._bars.update(self._all, completed=done / total if total else 1.0, news=news)


def _titles(jobs: Sequence[Job]) -> dict[str, str]:
    """By key, what names each of the jobs in a line."""
    runs = {job.key: job.run if isinstance(job, Evaluation) else job for job in jobs}
    behind = differences(runs.values())
    return {job.key: job.title + behind[runs[job.key].key] for job in jobs}


def _short_names(full: dict[str, str]) -> dict[str, str]:
    """Titles without the parts that all jobs share, by key: 80 columns have no room for these."""
    parts = {key: title.split(" · ") for key, title in full.items()}
    if len({len(one) for one in parts.values()}) != 1 or len(parts) == 1:
        return full
    kept = [
        place for place, same in enumerate(zip(*parts.values(), strict=True)) if len({*same}) > 1
    ]
    return {key: " · ".join(one[place] for place in kept or [0]) for key, one in parts.items()}


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{format_duration(seconds)} left"


def _percent(value: float | None, factor: float) -> str:
    return "undefined" if value is None else f"{factor * value:.{1 if factor == 100 else 3}f}"


def note(text: str) -> None:
    """A line to the person, beside the results on standard output."""
    print(text, file=sys.stderr)
