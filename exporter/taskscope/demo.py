"""`taskscope demo`: real schedulers with real jobs, watched, and a table of what happens."""

import asyncio
import logging
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live as LiveDisplay

from taskscope import demo_stack, show
from taskscope.demo_jobs import Plan, asyncio_plans, background_plans
from taskscope.demo_view import Tally, View
from taskscope.errors import BadArgument
from taskscope.events import JobKey
from taskscope.exporter import Exporter
from taskscope.settings import JobRule, Settings
from taskscope.signals import interrupts_wait, stopped_by_signals

_LINE_EVERY = 5.0  # seconds between two lines where there is no terminal
_NAMES = ("background", "asyncio")


def run(
    console: Console,
    host: str,
    port: int,
    history: str | None = None,
    seconds: float | None = None,
    stack: bool = False,
) -> None:
    """Run the demo until Ctrl-C, SIGTERM or `seconds` are over. `history` is a URL; None: a temporary file.

    Raises `BadArgument` without APScheduler and, with `stack`, without Prometheus and Alertmanager;
    `Unavailable` when the port or the history cannot be had, or one of those does not start.
    """
    stop = threading.Event()
    with ExitStack() as around:
        around.enter_context(stopped_by_signals(stop))
        programs = demo_stack.programs() if stack else {}
        folder = around.enter_context(tempfile.TemporaryDirectory(prefix="taskscope-"))
        schedulers, tally = _schedulers(), Tally()
        settings = demo_settings(host, port, history or f"sqlite:///{folder}/demo.db")
        exporter = around.enter_context(Exporter(*schedulers, names=_NAMES, settings=settings, sinks=[tally]))
        links = around.enter_context(demo_stack.running(programs, str(exporter.url), Path(folder), stop))
        about = around.enter_context(_running(*schedulers, stop))
        around.enter_context(_ended_after(seconds, stop))
        view = View(exporter, tally, about, links)
        _watch(console, view, stop)
    for line in view.farewell(kept=history is not None):
        show.print_line(console, line)


def demo_settings(host: str, port: int, history: str) -> Settings:
    """The demo's settings: quick readings, and something said about a few jobs."""
    return Settings(
        service="taskscope-demo",
        history=history,
        host=host,
        port=port,
        insecure=True,  # it holds nothing but what it made up
        strict=True,
        poll_interval=1.0,
        jobs=(
            JobRule(match="broken", team="payments", severity="critical"),
            JobRule(match="slow", team="reports", severity="warning", slow_after=3.0),
            JobRule(match="long", max_duration=10.0),
        ),
    )


def _schedulers() -> tuple[Any, Any]:
    """A background scheduler with three pools, and one for an event loop."""
    try:
        from apscheduler.executors.pool import ProcessPoolExecutor, ThreadPoolExecutor
        from apscheduler.schedulers.asyncio import AsyncIOScheduler
        from apscheduler.schedulers.background import BackgroundScheduler
    except ImportError as error:
        raise BadArgument("the demo needs APScheduler: pip install 'taskscope[apscheduler]'") from error
    pools = {
        "default": ThreadPoolExecutor(10),
        "narrow": ThreadPoolExecutor(1),
        "process": ProcessPoolExecutor(1),
    }
    # What goes wrong here goes wrong on purpose, and is in the table.
    logging.getLogger("apscheduler").addHandler(logging.NullHandler())
    logging.getLogger("apscheduler").propagate = False
    defaults = {"misfire_grace_time": 30}
    return BackgroundScheduler(executors=pools, job_defaults=defaults), AsyncIOScheduler(
        job_defaults=defaults
    )


@contextmanager
def _running(background: Any, on_loop: Any, stop: threading.Event) -> Iterator[dict[JobKey, str]]:
    """Both schedulers at work; gives what there is to say about each job."""
    now = datetime.now().astimezone()
    plans = dict(zip(_NAMES, (background_plans(stop, now), asyncio_plans(now)), strict=True))
    for scheduler, name in ((background, "background"), (on_loop, "asyncio")):
        _add(scheduler, plans[name])
    loop = threading.Thread(target=asyncio.run, args=[_on_loop(on_loop, stop)], name="demo-asyncio")
    with interrupts_wait():
        background.start()
        loop.start()
    try:
        yield {(name, plan.job["id"]): plan.about for name in _NAMES for plan in plans[name]}
    finally:
        stop.set()
        background.shutdown()
        loop.join()


def _add(scheduler: Any, plans: Sequence[Plan]) -> None:
    for plan in plans:
        scheduler.add_job(**plan.job)


async def _on_loop(scheduler: Any, stop: threading.Event) -> None:
    scheduler.start()
    await asyncio.to_thread(stop.wait)
    scheduler.shutdown()
    await asyncio.sleep(0)


def _watch(console: Console, view: View, stop: threading.Event) -> None:
    """Show what happens until the end: a live table, or a line now and then."""
    if console.is_terminal:
        with LiveDisplay(
            console=console, get_renderable=lambda: view.screen(console.width), refresh_per_second=4
        ):
            while not stop.wait(1):
                pass  # see `stopped_by_signals`
        return
    for line in view.links():
        show.print_line(console, line)
    while not stop.wait(_LINE_EVERY):
        show.print_line(console, view.line())


@contextmanager
def _ended_after(seconds: float | None, stop: threading.Event) -> Iterator[None]:
    """Inside, `stop` is set when the time is over; None: never."""
    timer = threading.Timer(seconds or 0, stop.set)
    if seconds is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
