"""A program that already exposes a prometheus_client registry: taskscope adds its metrics there, and no port.

python examples/own_registry.py
curl http://127.0.0.1:8000/metrics
"""

import os
import threading
import time

from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import REGISTRY, Counter, start_http_server

import taskscope

ROWS = Counter("cleaned_rows", "Rows that were deleted.")


def clean_up() -> None:
    """A job with a metric of its own."""
    time.sleep(0.2)
    ROWS.inc(7)


if __name__ == "__main__":
    scheduler = BackgroundScheduler()
    scheduler.add_job(clean_up, "interval", seconds=1, id="clean_up")
    with taskscope.Exporter(scheduler, port=None, history=None) as exporter:
        REGISTRY.register(exporter.collector())
        scheduler.start()
        server, _ = start_http_server(int(os.environ.get("PORT", "8000")), addr="127.0.0.1")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            server.shutdown()
            scheduler.shutdown()
