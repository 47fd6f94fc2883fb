"""The jobs of the example; RQ and taskscope need nothing of it but that it can be imported."""

import random
import time


def send_receipt(order: int) -> None:
    """A job that works."""
    time.sleep(0.1)


def charge_card(order: int) -> None:
    """A job that fails now and then, and is tried again."""
    time.sleep(0.1)
    if random.random() < 0.3:
        raise ConnectionError(f"the bank does not answer (order {order})")


def nightly_report() -> None:
    """A job of `rq cron`."""
