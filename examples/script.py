"""A script with a scheduler, watched by one line.

python examples/script.py
curl http://127.0.0.1:9750/metrics
taskscope runs --service script
"""

import random
import time

from apscheduler.schedulers.blocking import BlockingScheduler

import taskscope


def send_invoices() -> None:
    """A job that takes a moment, and sometimes fails."""
    time.sleep(random.uniform(0.1, 0.5))
    if random.random() < 0.2:
        raise ConnectionError("mail.example does not answer")


if __name__ == "__main__":
    scheduler = BlockingScheduler()
    scheduler.add_job(send_invoices, "interval", seconds=2, id="send_invoices")
    taskscope.watch(scheduler, service="script")
    try:
        scheduler.start()
    except KeyboardInterrupt:
        scheduler.shutdown()
