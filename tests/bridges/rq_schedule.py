"""What `rq cron` enqueues in the tests."""

import rq_jobs
from rq import cron

cron.register(rq_jobs.work, queue_name="default", args=("/dev/null",), cron="30 3 * * *")
cron.register(rq_jobs.fail, queue_name="default", args=("/dev/null",), interval=3600)
