"""What happens on the scripted day: three schedulers, and everything that can go well or wrong with their jobs.

Each job's part is a generator: it yields the moment at which it wants to go on, in seconds since the epoch.
"""

import linecache
from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import count, cycle, islice
from random import Random
from typing import Any, TypeAlias

from taskscope.bridges.fake import Clock, FakeJob, FakeScheduler
from taskscope.events import Fact, QueueState, SchedulerState, Trigger, TriggerState, WorkerState

Part: TypeAlias = Iterator[float]
Tell: TypeAlias = Callable[[Fact], None]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
LENGTH = DAY + HOUR
"""An hour more than a day: the nightly job ran twice, and a range of 24 h is full."""
ENTITIES = ("newsletter", "receipts", "reminders", "digest")
"""What mails are about."""


class Play:
    """The parts of all jobs, played in the order of time."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._order = clock, count()
        self._parts: list[tuple[float, int, Part]] = []

    def add(self, part: Part) -> None:
        """Take one more part in."""
        moment = next(part, None)
        if moment is not None:
            heappush(self._parts, (moment, next(self._order), part))

    def go_on(self, until: float) -> None:
        """Play what happens until then; the clock goes along."""
        while self._parts and self._parts[0][0] <= until:
            moment, _, part = heappop(self._parts)
            self._clock.now = max(self._clock.now, moment)
            self.add(part)
        self._clock.now = until


def shop(play: Play, scheduler: FakeScheduler, tell: Tell) -> None:
    """An application that two processes run, each with the same jobs."""
    now = scheduler.clock()
    play.add(_steady(scheduler.job("sync_stock", queue="fast"), now, every=MINUTE, takes=(1.5, 4.5)))
    play.add(_retries(scheduler.job("send_mails", queue="mail"), now + 70, tell))
    play.add(_flaky(scheduler.job("import_feed"), now + 20))
    play.add(_broken(scheduler.job("charge_cards"), now + 40))
    play.add(_once(scheduler.job("import_feed"), now + 3 * HOUR + 25 * MINUTE))
    play.add(_slow(scheduler.job("render_pictures"), now + 90))
    play.add(_overlapping(scheduler.job("export_orders", overlap=False), now + 100))
    play.add(_misfiring(scheduler.job("refresh_cache"), now + 130))
    play.add(_lost(scheduler.job("send_mails"), now + LENGTH - 5 * HOUR, tell))
    play.add(_waiting(scheduler.job("send_mails"), now + LENGTH - 10 * MINUTE, tell))
    play.add(_paused(scheduler.job("old_feed"), now + 50))


def sibling(play: Play, scheduler: FakeScheduler, begin: float) -> None:
    """What a second process of the same application runs from then on."""
    play.add(_steady(scheduler.job("sync_stock", queue="fast"), begin + 30, every=MINUTE, takes=(1.5, 4.5)))
    play.add(_flaky(scheduler.job("import_feed"), begin + 50))


def reports(play: Play, scheduler: FakeScheduler) -> None:
    """Rare and long jobs, and triggers that cannot fire."""
    now = scheduler.clock()
    play.add(_nightly(scheduler.job("nightly_invoice"), now + HOUR / 2))
    play.add(_endless(scheduler.job("rebuild_index"), now, now + LENGTH - 2 * HOUR))
    play.add(_steady(scheduler.job("totals", queue="fast"), now + 15, every=5 * MINUTE, takes=(0.02, 0.2)))
    weekly = _triggered("weekly_digest", "WAITING", now + LENGTH + 3 * DAY)
    scheduler.job("weekly_digest", next_run=now + LENGTH + 3 * DAY, interval=7 * DAY, triggers=(weekly,))
    scheduler.job("archive", triggers=(_triggered("archive", "ERROR"),))
    scheduler.job("compact", triggers=(_triggered("compact", "BLOCKED"),))


def mailbox(play: Play, scheduler: FakeScheduler) -> None:
    """A scheduler that is gone 40 minutes before the day's end, in the middle of a run."""
    now = scheduler.clock()
    gone = now + LENGTH - 40 * MINUTE
    play.add(_steady(scheduler.job("poll_mailbox"), now + 5, every=2 * MINUTE, takes=(3, 9), until=gone))
    play.add(_gone(scheduler, gone))


def workers(at: float, begin: float) -> list[WorkerState]:
    """Two workers of the shop, as a broker tells of them; the second is gone for the day's last hour."""
    gone = begin + LENGTH - HOUR
    return [
        WorkerState(
            scheduler="shop",
            worker=f"mailer-{number}",
            at=at,
            up=number == 1 or at < gone,
            active=number % 2,
            slots=2 if number == 1 or at < gone else None,
            reserved=number if number == 1 or at < gone else None,
            memory_bytes=100_000_000 * number,
            threads=4,
            cpu_seconds=0.05 * (at - begin),
        )
        for number in (1, 2)
    ]


def queues(at: float, begin: float) -> list[QueueState]:
    """A queue of the shop's broker, in which more and more waits since a worker is gone."""
    late = max(0.0, at - begin - LENGTH + HOUR)
    return [
        QueueState(
            scheduler="shop",
            queue="outbox",
            at=at,
            ready=round(late / MINUTE),
            in_flight=1,
            scheduled=3,
            deferred=2,
            failed=1,
            oldest=at - late,
            consumers=1 if late else 2,
        )
    ]


def beat(at: float) -> SchedulerState:
    """What makes jobs of the shop due, as Celery's beat tells of itself."""
    return SchedulerState(scheduler="shop-beat", system="celery", at=at, up=True, running=True)


def _steady(
    job: FakeJob, begin: float, every: float, takes: tuple[float, float], until: float = float("inf")
) -> Part:
    dice = Random(job.name)
    for due in _dues(begin, every):
        if due > until:
            return
        yield due
        _next(job, due, every)
        run = job.queue()
        yield due + dice.uniform(0.0, 0.8)
        run.start()
        yield job.scheduler.clock() + dice.uniform(*takes)
        run.end()


def _flaky(job: FakeJob, begin: float) -> Part:
    """Every fourth run fails, each time with another exception."""
    errors = cycle(
        [(ConnectionError, "the feed refused us"), (TimeoutError, "the feed said nothing for 10 s")]
    )
    for number, due in enumerate(_dues(begin, 3 * MINUTE)):
        yield due
        _next(job, due, 3 * MINUTE)
        run = job.start()
        yield due + 4 + number % 5
        kind, text = next(errors) if number % 4 == 3 else (None, "")
        run.end(fails=_raised(kind(text)) if kind else None)


def _once(job: FakeJob, begin: float) -> Part:
    """An error that comes once, and is over."""
    yield begin
    run = job.start()
    yield begin + 2
    run.end(fails=_raised(OSError("no space is left for the feed")))


def _broken(job: FakeJob, begin: float) -> Part:
    """It never succeeded."""
    for due in _dues(begin, 10 * MINUTE):
        yield due
        _next(job, due, 10 * MINUTE)
        run = job.start()
        yield due + 0.4
        run.end(fails=_raised(KeyError("no exchange rate for EUR")))


def _slow(job: FakeJob, begin: float) -> Part:
    """Mostly 20 to 50 seconds, every fifth run some minutes."""
    dice = Random(job.name)
    for number, due in enumerate(_dues(begin, 15 * MINUTE)):
        yield due
        _next(job, due, 15 * MINUTE)
        run = job.start()
        yield due + (dice.uniform(200, 400) if number % 5 == 4 else dice.uniform(20, 50))
        run.end()


def _overlapping(job: FakeJob, begin: float) -> Part:
    """A run takes longer than two intervals, so that two runs of three are left out."""
    for number, due in enumerate(_dues(begin, 5 * MINUTE)):
        yield due
        _next(job, due, 5 * MINUTE)
        if number % 3 == 0:
            run = job.start()
        else:
            job.skip("overlap")
        if number % 3 == 2:
            yield due + 2 * MINUTE
            run.end()


def _misfiring(job: FakeJob, begin: float) -> Part:
    for number, due in enumerate(_dues(begin, 10 * MINUTE)):
        yield due
        _next(job, due, 10 * MINUTE)
        if number % 3 == 1:
            job.skip("misfire")
        elif number % 6 == 5:
            job.skip("coalesced")
        else:
            run = job.start()
            yield due + 1
            run.end()


def _paused(job: FakeJob, begin: float) -> Part:
    """It ran for an hour, and was paused."""
    for due in islice(_dues(begin, 5 * MINUTE), 12):
        yield due
        _next(job, due, 5 * MINUTE)
        run = job.start()
        yield due + 2
        run.end()
    job.define(paused=True, next_run=None, triggers=(_triggered(job.name, "PAUSED"),))


def _retries(job: FakeJob, begin: float, tell: Tell) -> Part:
    """The first attempt of every third run fails and is tried again after 20 seconds."""
    for number, due in enumerate(_dues(begin, 5 * MINUTE)):
        yield due
        _next(job, due, 5 * MINUTE)
        attempts = 2 if number % 3 == 0 else 1
        entity = ENTITIES[number % len(ENTITIES)]
        for attempt in range(attempts):
            started = job.scheduler.clock()
            yield started + 6
            tell(_attempt(job, due, started, attempt, attempt == attempts - 1, entity))
            yield started + 26


def _attempt(job: FakeJob, due: float, started: float, attempt: int, last: bool, entity: str) -> Fact:
    return Fact(
        scheduler="shop",
        native=f"mails-{due}",
        status="success" if last else "retried",
        at=started + 6,
        attempt=attempt,
        anchor=due,
        job=job.name,
        due=due,
        enqueued=due,
        started=started,
        duration=6.0,
        queue="mail",
        worker="mailer-1",
        reason="" if last else "error",
        entity=entity,
        key=f"batch-{round(due) // 300}",
        result=f"{200 if last else 17} sent",
        trace_id=f"{round(due * 1000):032x}",
        details={"args": [entity], "kwargs": {"batch": 200, "sent": 200 if last else 17}},
    )


def _lost(job: FakeJob, at: float, tell: Tell) -> Part:
    """The process of a run died, and whoever came next found it."""
    yield at
    tell(
        Fact(
            scheduler="shop",
            native="mails-lost",
            status="unknown",
            at=at,
            anchor=at - 30,
            job=job.name,
            due=at - 30,
            started=at - 29,
            reason="lost",
            queue="mail",
            worker="mailer-1",
            entity="welcome",
        )
    )


def _waiting(job: FakeJob, at: float, tell: Tell) -> Part:
    """A message that nobody takes."""
    yield at
    known = {"scheduler": "shop", "native": "mails-waiting", "job": job.name, "queue": "outbox"}
    tell(Fact(status="queued", at=at, anchor=at, enqueued=at, entity=ENTITIES[1], **known))


def _nightly(job: FakeJob, begin: float) -> Part:
    """It went well the night before; last night it failed."""
    trigger = _triggered(job.name, "WAITING", begin, "cron[hour='2', minute='30']")
    job.define(next_run=begin, interval=DAY, triggers=(trigger,))
    for due, fails in ((begin, None), (begin + DAY, OSError("no space left on device"))):
        yield due
        _next(job, due, DAY)
        run = job.start()
        yield due + 9 * MINUTE
        run.end(fails=_raised(fails) if fails else None)


def _endless(job: FakeJob, begin: float, last: float) -> Part:
    """It takes ten minutes every two hours; the last run does not end."""
    for due in _dues(begin + HOUR, 2 * HOUR):
        yield min(due, last)
        _next(job, due, 2 * HOUR)
        run = job.start()
        if due >= last:
            executing = _triggered(job.name, "EXECUTING", due + DAY)
            job.define(next_run=due + DAY, interval=DAY, triggers=(executing,))
            return
        yield due + 10 * MINUTE
        run.end()


def _gone(scheduler: FakeScheduler, at: float) -> Part:
    yield at
    scheduler.jobs["poll_mailbox"].start()
    scheduler.poll_error = ConnectionError("the scheduler does not answer")


def _dues(begin: float, every: float) -> Iterator[float]:
    return (begin + number * every for number in count())


def _next(job: FakeJob, due: float, every: float) -> None:
    """It fires: its scheduler promises the next time."""
    schedule = job.definition.triggers[0].schedule if job.definition.triggers else f"interval[{every:g} s]"
    trigger = _triggered(job.name, "WAITING", due + every, schedule, previous=due)
    job.define(next_run=due + every, previous_run=due, interval=every, triggers=(trigger,))


def _triggered(
    name: str,
    state: TriggerState,
    next_run: float | None = None,
    schedule: str = "",
    previous: float | None = None,
) -> Trigger:
    return Trigger(
        key=name,
        state=state,
        schedule=schedule,
        timezone="UTC",
        next_run=next_run,
        previous_run=previous,
        misfire_policy="coalesce",
    )


def _raised(error: Exception) -> Exception:
    """The exception with a traceback and a cause, as a job raises it."""
    try:
        JOB["work"](error)
    except type(error):
        assert error.__traceback__
        return error.with_traceback(error.__traceback__.tb_next)  # without this function
    return error


SOURCE = """\
def look_up():
    raise LookupError("nothing in the cache")


def work(error):
    try:
        look_up()
    except LookupError as missing:
        raise error from missing
"""
"""A job of the shop's: its tracebacks are those of a program, not of a test."""
FILE = "/srv/shop/jobs.py"
JOB: dict[str, Any] = {}
exec(compile(SOURCE, FILE, "exec"), JOB)
linecache.cache[FILE] = (len(SOURCE), None, SOURCE.splitlines(keepends=True), FILE)
