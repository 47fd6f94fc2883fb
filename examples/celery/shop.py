"""A Celery app that is watched: this is all that taskscope needs, in the module that everybody imports.

Workers tell of their tasks, beat of its schedule; a program that only publishes stamps its messages with the time.
"""

import os
import random
import time

from celery import Celery
from celery.schedules import crontab

import taskscope

app = Celery("shop", broker=os.environ.get("BROKER", "redis://127.0.0.1:6379/0"))
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    beat_schedule={
        "check the stock": {"task": "shop.check_stock", "schedule": 2.0},
        "report at night": {"task": "shop.report", "schedule": crontab(hour=3, minute=30)},
    },
)
taskscope.watch(app, service="shop")


@app.task(name="shop.pack")
def pack(order: int) -> None:
    """Takes a moment."""
    time.sleep(random.uniform(0.05, 0.3))


@app.task(name="shop.charge", bind=True, max_retries=3, default_retry_delay=1)
def charge(self, order: int) -> None:  # type: ignore[no-untyped-def]  # Celery's tasks have no types
    """The bank does not always answer: tried again, each attempt is a run."""
    if random.random() < 0.3:
        try:
            raise ConnectionError(f"the bank does not answer for order {order}")
        except ConnectionError as error:
            raise self.retry(exc=error) from error


@app.task(name="shop.render_catalogue", soft_time_limit=1)
def render_catalogue() -> None:
    """Takes too long now and then."""
    time.sleep(random.uniform(0.2, 1.3))


@app.task(name="shop.check_stock")
def check_stock() -> None:
    """Beat makes it due."""
    time.sleep(0.05)


@app.task(name="shop.report")
def report() -> None:
    """Every night; nobody waits for it here, but everybody sees when it is due."""
