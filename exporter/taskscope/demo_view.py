"""What the demo shows: where to look, and how each job fares."""

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

from rich.console import Group, RenderableType
from rich.text import Text

from taskscope import __version__, show
from taskscope.contracts import Sink
from taskscope.counts import Bounds, Counts, fold
from taskscope.events import Event, Fact, JobKey
from taskscope.exporter import Exporter
from taskscope.facts import Change
from taskscope.live_job import LiveJob

COLUMNS = (
    show.Column("job"),
    show.Column("scheduler", from_width=120, style="dim"),
    show.Column("what it does", from_width=110, style="dim", cut=True),
    show.Column("last run", least=16, cut=True),
    show.Column("took", right=True, least=7),
    show.Column("runs", right=True),
    show.Column("failed", right=True),
    show.Column("skipped", right=True),
    show.Column("running", right=True),
    show.Column("next in", right=True, least=7),
)


class Tally(Sink):
    """Adds up what was seen."""

    def __init__(self) -> None:
        self.counts: dict[JobKey, Counts] = {}
        self.last: dict[JobKey, Fact] = {}
        """The ending that was told last."""

    def arrived(self, events: Sequence[Event]) -> None:
        """Remember how each job ended last."""
        for event in events:
            if isinstance(event, Fact) and event.status not in ("queued", "started"):
                self.last[event.scheduler, event.job] = event

    def committed(self, changes: Sequence[Change]) -> None:
        """Count what is durable."""
        for key, counts in fold(changes, Bounds()).counts.items():
            self.counts[key] = self.counts.get(key, Counts()).plus(counts)

    def total(self) -> Counts:
        """All jobs together."""
        return reduce(Counts.plus, list(self.counts.values()), Counts())


class View:
    """The screen of the demo, and its lines where there is no screen."""

    def __init__(
        self, exporter: Exporter, tally: Tally, about: Mapping[JobKey, str], links: Sequence[str] = ()
    ) -> None:
        """`about` says something of each job, in the order of the table; `links` is where else to look."""
        self._exporter, self._tally, self._about, self._more = exporter, tally, about, links
        self._began = time.monotonic()
        self._history = str(exporter.settings.history).removeprefix("sqlite:///")

    def screen(self, width: int) -> RenderableType:
        """Everything, for a terminal of this width."""
        title = Text.assemble((f"taskscope {__version__} demo", "bold"), f"  {self._age()}  Ctrl-C ends it")
        jobs = show.table(width, COLUMNS, self._rows())
        return Group(
            title, *map(Text, self.links()), "", jobs, "", Text(f"{self._queued()}; {self._carried()}", "dim")
        )

    def links(self) -> list[str]:
        """Where to look."""
        url = self._exporter.url
        return [
            f"  {url}/            what is watched, and links",
            f"  {url}/metrics     what Prometheus scrapes",
            f"  {url}/api/task/   every run, newest first",
            f"  {url}/api/job/    every job and what makes it due",
            f"  taskscope runs --failed --history {self._history}",
            *self._more,
        ]

    def line(self) -> str:
        """How it stands, in one line."""
        with self._exporter.live.lock:
            running = sum(len(job.running) for job in self._exporter.live.jobs.values())
        return f"{self._age():>5}  {self._totals()}, {running} running; {self._carried()}"

    def farewell(self, kept: bool) -> list[str]:
        """What has been, and what is left of it."""
        left = (
            f"It is all in {self._history}." if kept else "Its history is removed; --history FILE keeps it."
        )
        return [f"The demo ran for {self._age()}: {self._totals()}.", left]

    def _age(self) -> str:
        minutes, seconds = divmod(round(time.monotonic() - self._began), 60)
        return f"{minutes}:{seconds:02}"

    def _totals(self) -> str:
        total = self._tally.total().statuses
        return f"{_ran(total)} runs, {total.get('failed', 0)} failed, {total.get('skipped', 0)} skipped"

    def _queued(self) -> str:
        """Where runs wait for a thread or process."""
        live = self._exporter.live
        with live.lock:
            waiting = [f"{queue} {state.ready}" for (_, queue), state in live.queues.items() if state.ready]
        return f"queued: {', '.join(waiting) or 'nothing'}"

    def _carried(self) -> str:
        """How the pipeline is doing."""
        pipeline = self._exporter.pipeline
        dropped = sum(pipeline.dropped.values())
        return f"history {pipeline.lag * 1000:.0f} ms behind, {dropped} events dropped"

    def _rows(self) -> Iterator[list[show.Cell]]:
        live = self._exporter.live
        with live.lock:
            jobs = {key: (len(job.running), _next_run(job)) for key, job in live.jobs.items()}
        for key, about in self._about.items():
            running, next_run = jobs.get(key, (0, ""))
            yield self._row(key, about, running, next_run)

    def _row(self, key: JobKey, about: str, running: int, next_run: str) -> list[show.Cell]:
        last = self._tally.last.get(key)
        counts = self._tally.counts.get(key, Counts()).statuses
        return [
            key[1],
            key[0],
            about,
            show.status(last.status, last.error.kind if last.error else last.reason) if last else "",
            show.span(last.duration) if last else "",
            _count(_ran(counts)),
            Text(_count(counts.get("failed", 0)), show.STYLES["failed"]),
            Text(_count(counts.get("skipped", 0)), show.STYLES["skipped"]),
            Text(_count(running), show.STYLES["started"]),
            next_run,
        ]


def _ran(statuses: Mapping[str, int]) -> int:
    """How many runs were executed to their end."""
    return sum(count for status, count in statuses.items() if status != "skipped")


def _count(number: int) -> str:
    return f"{number}" if number else ""


def _next_run(job: LiveJob) -> str:
    state = job.state
    if state.paused:
        return "paused"
    if state.removed:
        return "done"
    if not state.next_run:
        return ""
    left = state.next_run - time.time()
    return show.span(left) if left > 0 else "now"
