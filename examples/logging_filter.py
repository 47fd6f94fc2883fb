"""Every log line says which run of which job it belongs to; the same id finds the run in the history.

python examples/logging_filter.py
curl http://127.0.0.1:9750/api/task/<run_id of a line>
"""

import logging
import time

from apscheduler.schedulers.blocking import BlockingScheduler

import taskscope

logger = logging.getLogger("shop")


def reorder() -> None:
    """A job that logs, and that knows its own run."""
    logger.info("looking for empty shelves")
    time.sleep(0.3)
    run = taskscope.current_run()
    logger.info("ordered 12 boxes, reference %s", run.run_id[-8:] if run else "none")


if __name__ == "__main__":
    handler = logging.StreamHandler()
    handler.addFilter(taskscope.RunFilter())
    handler.setFormatter(logging.Formatter("%(asctime)s %(job_name)s %(run_id)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("apscheduler").setLevel(logging.WARNING)

    scheduler = BlockingScheduler()
    scheduler.add_job(reorder, "interval", seconds=2, id="reorder")
    taskscope.watch(scheduler, service="logging-filter")
    try:
        scheduler.start()
    except KeyboardInterrupt:
        scheduler.shutdown()
