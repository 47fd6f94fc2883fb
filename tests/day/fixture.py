"""The fixture `day`: a scripted day as Prometheus and the API know it. Nothing in it is made up but the jobs."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from day.alerts import FIRINGS, notification
from day.prometheus import DayPrometheus
from day.replica import Replica
from day.script import HOUR, LENGTH, MINUTE, Play, beat, mailbox, queues, reports, shop, sibling, workers
from services.process import free_port
from taskscope.bridges.fake import Clock
from taskscope.settings import Inspection, JobRule, Notify, Settings

SCRAPE = 60.0
"""Seconds between two scrapes of the day's last hours; before, twice as long."""

RULES = (
    JobRule(match="render_*", team="media", severity="warning", slow_after=MINUTE),
    JobRule(match="export_*", team="shop", slow_after=10 * MINUTE),
    JobRule(match="nightly_*", team="finance", severity="critical", grace=HOUR, expect_every=26 * HOUR),
    JobRule(match="rebuild_*", team="search", max_duration=HOUR, slow_after=HOUR),
    JobRule(match="*", slow_after=MINUTE),
)
INSPECTIONS = {
    "hourly": Inspection(notify=Notify(receivers=("shop-team",))),
    "hasty": Inspection(timeout=1e-9),
}
LINKS = {
    "config": "https://git.example/shop/taskscope.yaml",
    "logs": "https://logs.example/?q={job_name}&from={started}&to={ended}",
}
_DENSE = 2 * HOUR
_BORN, _DIED = 4 * HOUR, 20 * MINUTE  # before the end


class Day:
    """What the day left behind; `begin` and `end` are seconds since the epoch."""

    def __init__(self, directory: Path, prometheus: DayPrometheus) -> None:
        self.prometheus, self._directory = prometheus, directory
        self.end = time.time() // SCRAPE * SCRAPE
        self.begin = self.end - LENGTH
        self.clock = Clock(self.begin)
        self.play = Play(self.clock)
        self.replica = self._replica("web-1", "shop", "reports", "mailbox")
        self.replica.degraded.add("apscheduler")
        self.sibling = self._replica("web-2", "shop")
        self.api = ""
        """The URL of the API, which `replica` serves."""

    def happen(self) -> None:
        """Play the day, have it scraped, and serve what is left."""
        self.prometheus.remember(self._pages())
        self.api = self.replica.serve()
        self._notify()
        found = self.replica.queries.current_findings(0)
        self.replica.store.tell_findings([one.id for one in found], round(self.end * 1000))
        dead = f"127.0.0.1:{free_port()}"
        self.prometheus.follow({self.replica.name: self.api.removeprefix("http://"), self.sibling.name: dead})

    def go_on(self) -> None:
        """Let time pass until now."""
        self._pass(time.time())
        self.replica.carry()

    def close(self) -> None:
        """Let go of everything."""
        self.replica.close()
        self.sibling.close()

    def _replica(self, name: str, *schedulers: str) -> Replica:
        history = f"sqlite:///{self._directory / name}.db"
        inspected = INSPECTIONS if name == "web-1" else {}
        quiet = {"heartbeat": HOUR, "lost_after": 2 * HOUR}  # each beat is a transaction
        return Replica(
            f"{name}:9750",
            schedulers,
            Settings(history=history, version="1.0", jobs=RULES, inspections=inspected, links=LINKS, **quiet),
            self.clock,
        )

    def _pages(self) -> Iterator[bytes]:
        watched, tell = self.replica.schedulers, self.replica.pipeline.emit
        shop(self.play, watched["shop"], tell)
        reports(self.play, watched["reports"])
        mailbox(self.play, watched["mailbox"])
        born = self.end - _BORN
        sibling(self.play, self.sibling.schedulers["shop"], born)
        for at in self._scrapes():
            self._pass(at)
            yield self.replica.page()
            if at > born:
                yield self.sibling.page() if at < self.end - _DIED else self.sibling.no_page()
            yield from (line for firing in FIRINGS for line in firing.samples(self.end - at, self.end))

    def _notify(self) -> None:
        """Tell the API what Alertmanager would have told it."""
        request = Request(
            f"{self.api}/api/monitoring/webhook",
            notification(self.end),
            {"Content-Type": "application/json"},
        )
        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(urlopen, request, timeout=20)
            while not answer.done():
                self.replica.carry()  # which writes what was told
                time.sleep(0.01)
            answer.result().close()

    def _pass(self, until: float) -> None:
        self.play.go_on(until)
        for reading in (beat(until), *workers(until, self.begin), *queues(until, self.begin)):
            self.replica.pipeline.emit(reading)

    def _scrapes(self) -> Iterator[float]:
        at = self.begin
        while at < self.end:
            at += SCRAPE if at >= self.end - _DENSE else 2 * SCRAPE
            yield at


@pytest.fixture(scope="session")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    """The day, whose last minute is now."""
    prometheus = DayPrometheus()
    past = Day(tmp_path_factory.mktemp("day"), prometheus)
    try:
        past.happen()
        yield past
    finally:
        past.close()
        prometheus.remove()
