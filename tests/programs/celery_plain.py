"""A shop whose work is done by Celery and that knows nothing of taskscope. Broker and ledger are in the environment."""

import json
import os
import time
from pathlib import Path

from celery import Celery
from celery.exceptions import Reject
from ledger import note

LEDGER = os.environ.get("SHOP_LEDGER", "")

app = Celery("plain", broker=os.environ.get("SHOP_BROKER"), set_as_current=False)
app.conf.update(
    broker_connection_retry_on_startup=True,
    broker_transport_options=json.loads(os.environ.get("SHOP_TRANSPORT", "{}")),
    task_ignore_result=True,
    task_routes={"shop.mailed": {"queue": "mail"}},
    task_send_sent_event=os.environ.get("SHOP_SENT", "1") == "1",
    worker_prefetch_multiplier=2,
)


@app.task(name="shop.work")
def work(seconds=0.0):
    """Takes this long."""
    note(LEDGER, "shop.work", "begin")
    time.sleep(seconds)
    note(LEDGER, "shop.work", "end")


@app.task(name="shop.mailed")
def mailed():
    """Comes from a queue of its own."""
    note(LEDGER, "shop.mailed", "begin")


@app.task(name="shop.fail")
def fail():
    """Fails with a cause."""
    note(LEDGER, "shop.fail", "begin")
    try:
        {}["missing"]
    except KeyError as cause:
        raise ValueError("cannot\ngo on") from cause


@app.task(name="shop.flaky", bind=True, max_retries=2, default_retry_delay=0.1)
def flaky(self):
    """Succeeds the third time."""
    note(LEDGER, "shop.flaky", "begin")
    if self.request.retries < 2:
        raise self.retry(exc=ConnectionError(f"attempt {self.request.retries}"))


@app.task(name="shop.soft", soft_time_limit=0.3)
def soft():
    """Is told to end, and does."""
    note(LEDGER, "shop.soft", "begin")
    time.sleep(20)


@app.task(name="shop.hard", time_limit=1)
def hard():
    """Is killed by its time limit."""
    note(LEDGER, "shop.hard", "begin")
    time.sleep(20)


@app.task(name="shop.die")
def die():
    """Is killed as by the kernel when memory runs out."""
    note(LEDGER, "shop.die", "begin")
    os.kill(os.getpid(), 9)


@app.task(name="shop.reject", acks_late=True)
def reject():
    """Does not want its message."""
    note(LEDGER, "shop.reject", "begin")
    raise Reject("not mine", requeue=False)


@app.task(name="shop.parent")
def parent():
    """Sends another."""
    note(LEDGER, "shop.parent", "begin")
    work.delay()


@app.task(name="shop.gated")
def gated(gate):
    """Goes on until the file `gate` is there."""
    note(LEDGER, "shop.gated", "begin")
    deadline = time.monotonic() + 60
    while not Path(gate).exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    note(LEDGER, "shop.gated", "end")
