"""A program of yours that `taskscope serve` imports and watches, without a line about taskscope.

cd examples/collector && taskscope serve
"""

import time

from apscheduler.schedulers.background import BackgroundScheduler


def invoice_reminders() -> None:
    """A job."""
    time.sleep(0.1)


scheduler = BackgroundScheduler()
scheduler.add_job(invoice_reminders, "interval", seconds=2, id="invoice_reminders")
scheduler.start()
