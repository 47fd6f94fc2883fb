"""A web application (aiohttp) with a scheduler inside; a request starts a job at once.

python examples/web_app.py
curl -X POST http://127.0.0.1:8080/newsletter
curl 'http://127.0.0.1:9750/api/task/?task=newsletter'
"""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import datetime

from aiohttp import web
from apscheduler.schedulers.asyncio import AsyncIOScheduler

import taskscope


async def newsletter() -> None:
    """A job that somebody asks for."""
    await asyncio.sleep(0.5)


async def tidy() -> None:
    """A job that runs on its own."""


SCHEDULER = web.AppKey("scheduler", AsyncIOScheduler)


async def watched_scheduler(app: web.Application) -> AsyncIterator[None]:
    """The scheduler lives as long as the application, and is watched as long as it lives."""
    scheduler = app[SCHEDULER] = AsyncIOScheduler()
    scheduler.add_job(tidy, "interval", seconds=5, id="tidy")
    async with taskscope.Exporter(scheduler, service="web-app"):
        scheduler.start()
        yield
        scheduler.shutdown()


async def send(request: web.Request) -> web.Response:
    """Start the newsletter."""
    request.app[SCHEDULER].add_job(newsletter, id="newsletter", next_run_time=datetime.now().astimezone())
    return web.Response(status=202, text="it is on its way\n")


def application() -> web.Application:
    """The application; an ASGI framework's lifespan does what `cleanup_ctx` does here."""
    app = web.Application()
    app.cleanup_ctx.append(watched_scheduler)
    app.router.add_post("/newsletter", send)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=int(os.environ.get("PORT", "8080")))
