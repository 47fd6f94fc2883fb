"""An asyncio program: taskscope joins the running loop and leaves with it.

python examples/asyncio_app.py
curl 'http://127.0.0.1:9750/api/task/?limit=3'
"""

import asyncio
import contextlib

from apscheduler.schedulers.asyncio import AsyncIOScheduler

import taskscope


async def fetch_rates() -> None:
    """A job that waits for somebody else."""
    await asyncio.sleep(0.3)


async def main() -> None:
    """Run until Ctrl-C."""
    scheduler = AsyncIOScheduler()
    scheduler.add_job(fetch_rates, "interval", seconds=1, id="fetch_rates")
    async with taskscope.Exporter(scheduler, service="asyncio-app"):
        scheduler.start()
        try:
            await asyncio.Event().wait()
        finally:
            scheduler.shutdown()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main())
