"""A shop whose work is done by Celery; worker and beat import it. Broker and ledger are where the environment says."""

import json
import os
import sqlite3
import time
from pathlib import Path

from celery import Celery, chain, chord, group
from celery.beat import ScheduleEntry, Scheduler
from celery.exceptions import Ignore, Reject
from celery.schedules import crontab, schedule
from kombu import Exchange, Queue
from ledger import note

import taskscope

LEDGER = os.environ["SHOP_LEDGER"]

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ.get("SHOP_RESULTS"))
app.conf.update(
    beat_max_loop_interval=0.5,
    beat_schedule_filename=f"{LEDGER}.schedule",
    beat_schedule={
        "every second": {"task": "shop.work", "schedule": 1.0, "kwargs": {"label": "beat"}},
        "every night": {"task": "shop.nightly", "schedule": crontab(hour=3, minute=30)},
    },
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("SHOP_TRANSPORT", "{}")),
    task_queues=[
        Queue("celery", Exchange("celery"), routing_key="celery"),
        Queue("mail", Exchange("mail"), routing_key="mail"),
        Queue("orders", Exchange("shop", type="topic"), routing_key="orders.placed"),
    ],
    worker_prefetch_multiplier=1,
)
exporter = taskscope.watch(app, service="shop")


@app.task(name="shop.work")
def work(seconds=0.0, label="work"):
    """Takes this long."""
    note(LEDGER, label, "begin")
    time.sleep(seconds)
    note(LEDGER, label, "end")
    return 1


@app.task(name="shop.nightly")
def nightly():
    """Never runs in tests."""


@app.task(name="shop.mailed")
def mailed():
    """Comes from a queue of its own."""
    note(LEDGER, "mailed", "begin")


@app.task(name="shop.total")
def total(numbers, more=0):
    """Adds up what the tasks before it returned."""
    note(LEDGER, "total", "begin")
    return (sum(numbers) if isinstance(numbers, list) else numbers) + more


@app.task(name="shop.fail")
def fail():
    """Fails with a cause."""
    note(LEDGER, "fail", "begin")
    try:
        {}["missing"]
    except KeyError as cause:
        error = ValueError("cannot go on")
        error.order = 17
        raise error from cause


class Unpicklable(Exception):
    """Cannot be sent to the main process."""

    def __init__(self, why):
        super().__init__(why)
        self.lock = open(os.devnull)  # noqa: SIM115 - cannot be pickled, which is the point


@app.task(name="shop.fail_unpicklably")
def fail_unpicklably():
    """Fails with what cannot be pickled."""
    note(LEDGER, "fail_unpicklably", "begin")
    raise Unpicklable("no way out")


@app.task(name="shop.flaky", bind=True, max_retries=2, default_retry_delay=0.1)
def flaky(self):
    """Succeeds the third time."""
    note(LEDGER, "flaky", "begin")
    if self.request.retries < 2:
        try:
            raise ConnectionError(f"attempt {self.request.retries}")
        except ConnectionError as error:
            raise self.retry(exc=error) from error


@app.task(name="shop.soft", soft_time_limit=0.4)
def soft():
    """Is told to end, and does."""
    note(LEDGER, "soft", "begin")
    time.sleep(20)


@app.task(name="shop.hard", time_limit=1)
def hard():
    """Is killed by its time limit."""
    note(LEDGER, "hard", "begin")
    time.sleep(20)


@app.task(name="shop.die")
def die():
    """Is killed as by the kernel when memory runs out."""
    note(LEDGER, "die", "begin")
    time.sleep(0.3)
    os.kill(os.getpid(), 9)


@app.task(name="shop.die_once", acks_late=True, reject_on_worker_lost=True)
def die_once():
    """Is killed, delivered again, and succeeds."""
    first = not Path(f"{LEDGER}.died").exists()
    note(LEDGER, "die_once", "begin")
    if first:
        Path(f"{LEDGER}.died").touch()
        os.kill(os.getpid(), 9)


@app.task(name="shop.leave")
def leave():
    """Ends its process."""
    note(LEDGER, "leave", "begin")
    raise SystemExit(3)


@app.task(name="shop.ignore")
def ignore():
    """Wants no result."""
    note(LEDGER, "ignore", "begin")
    raise Ignore


@app.task(name="shop.reject", acks_late=True)
def reject():
    """Does not want its message."""
    note(LEDGER, "reject", "begin")
    raise Reject("not mine", requeue=False)


@app.task(name="shop.requeue", acks_late=True)
def requeue():
    """Gives its message back once."""
    first = not Path(f"{LEDGER}.requeued").exists()
    note(LEDGER, "requeue", "begin")
    if first:
        Path(f"{LEDGER}.requeued").touch()
        raise Reject("later", requeue=True)


@app.task(name="shop.parent")
def parent():
    """Calls a task as a function does, and sends another."""
    note(LEDGER, "parent", "begin")
    work.apply(kwargs={"label": "eager"})
    work.delay(label="child")


@app.task(name="shop.canvas")
def canvas():
    """Sends tasks that belong together, and writes down which."""
    both = chain(work.s(), total.s(more=2)).apply_async()
    summed = chord(group(work.s(), work.s()), total.s()).apply_async()
    for what, results in {
        "first": [both.parent],
        "last": [both],
        "group": [summed.parent],
        "member": summed.parent.results,
        "callback": [summed],
    }.items():
        for result in results:
            note(LEDGER, result.id, what)


class Entry(ScheduleEntry):
    """An entry that is a row of a database, and may be switched off."""

    enabled = True


class Every(schedule):
    """Describes itself in lines of its own, as the crontab of django-celery-beat does."""

    def __repr__(self):
        """`<freq: 1.00 hour, UTC>`, with its blanks somewhere."""
        return f"<freq: {self.human_seconds},\n          UTC>\n        "


class DatabaseScheduler(Scheduler):
    """Reads the schedule from a database whenever it is asked for, as the schedulers with models do."""

    Entry = Entry

    def setup_schedule(self):
        """Nothing: the database has it."""

    @property
    def schedule(self):
        """The rows."""
        with sqlite3.connect(f"{LEDGER}.database") as database:
            rows = list(database.execute("select name, task, seconds, enabled from entry"))
        for name, task, seconds, enabled in rows:
            if name not in self.data:
                self.data[name] = Entry(
                    name=name, task=task, schedule=Every(seconds, app=self.app), app=self.app
                )
            self.data[name].enabled = bool(enabled)
        return {name: entry for name, entry in self.data.items() if name in {row[0] for row in rows}}

    @schedule.setter
    def schedule(self, entries):
        self.data = dict(entries)
