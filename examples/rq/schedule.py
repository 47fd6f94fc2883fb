"""What `rq cron schedule.py` enqueues."""

import shop
from rq import cron

cron.register(shop.nightly_report, queue_name="reports", cron="30 3 * * *")
cron.register(shop.send_receipt, queue_name="mail", args=(0,), interval=10)
