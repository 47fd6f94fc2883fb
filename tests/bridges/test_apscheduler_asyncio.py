"""Coroutines and functions under an event loop."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable

import recorded
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from watching import now, reasons, statuses

from taskscope.run import RunFilter, current_run
from taskscope.testing import Recorder


def under_a_loop(attach, body: Callable[[AsyncIOScheduler], Awaitable[None]]) -> None:
    """Run `body` with a watched, started scheduler."""

    async def main() -> None:
        scheduler = AsyncIOScheduler(timezone="UTC")
        attach(scheduler)
        scheduler.start()
        try:
            await body(scheduler)
        finally:
            if scheduler.running:
                scheduler.shutdown()
            await asyncio.sleep(0)

    asyncio.run(main())


async def ends(seen: Recorder, count: int) -> None:
    async with asyncio.timeout(10):
        while sum(fact.status in ("success", "failed", "skipped") for fact in seen.facts) < count:
            await asyncio.sleep(0.01)


def test_coroutines_are_told_as_they_were(attach, ledger, seen):
    async def body(scheduler):
        for number in range(3):
            scheduler.add_job(
                recorded.awaits, "date", [ledger.path, f"job-{number}", 0.05], id=f"job-{number}"
            )
        scheduler.add_job(recorded.awaits_and_fails, "date", [ledger.path, "broken"], id="broken")
        await ends(seen, 4)

    under_a_loop(attach, body)

    ledger.agrees_with(seen.runs())
    assert reasons(seen) == {("success", ""): 3, ("failed", "error"): 1}
    assert "in awaits_and_fails" in seen.runs("broken").popitem()[1][-1].error.stack


def test_functions_in_the_loops_threads_are_told_as_they_were(attach, ledger, seen):
    async def body(scheduler):
        scheduler.add_job(recorded.work, "interval", [ledger.path, "often", 0.02], seconds=0.1, id="often")
        await ends(seen, 3)

    under_a_loop(attach, body)

    ledger.agrees_with(
        {native: facts for native, facts in seen.runs().items() if facts[-1].status == "success"}
    )


def test_overlapping_coroutines_know_each_their_own_run(attach, ledger, seen):
    async def body(scheduler):
        scheduler.add_job(
            recorded.awaits, "interval", [ledger.path, "long", 0.3], seconds=0.1, id="long", max_instances=3
        )
        async with asyncio.timeout(20):
            while reasons(seen)["success", ""] < 3:
                await asyncio.sleep(0.01)
            scheduler.remove_all_jobs()
            while any(facts[-1].status == "started" for facts in seen.runs().values()):
                await asyncio.sleep(0.01)

    under_a_loop(attach, body)

    ledger.agrees_with(
        {native: facts for native, facts in seen.runs().items() if facts[-1].status == "success"}
    )
    assert reasons(seen)["success", ""] >= 3


def test_a_coroutine_cancelled_by_the_shutdown_failed_for_that_reason(attach, ledger, seen):
    async def body(scheduler):
        scheduler.add_job(recorded.awaits, "date", [ledger.path, "long", 60], id="long")
        async with asyncio.timeout(10):
            while "started" not in {fact.status for fact in seen.facts}:
                await asyncio.sleep(0.01)
        scheduler.shutdown()
        await ends(seen, 1)

    under_a_loop(attach, body)

    assert statuses(seen) == [["queued", "started", "failed"]]
    assert reasons(seen) == {("failed", "cancelled"): 1}
    assert seen.facts[-1].error.kind == "asyncio.exceptions.CancelledError"


def test_a_coroutine_cancelled_before_it_began_was_skipped(attach, ledger, seen):
    async def body(scheduler):
        executor = scheduler._executors["default"]
        scheduler.add_job(recorded.awaits, "date", [ledger.path, "never"], run_date=now(), id="never")
        async with asyncio.timeout(10):
            while not executor._pending_futures:
                await asyncio.sleep(0)
                if executor._pending_futures:
                    executor.shutdown()
                    break
        await ends(seen, 1)

    under_a_loop(attach, body)

    assert reasons(seen) == {("skipped", "cancelled"): 1}
    assert ledger.lines("begin") == []


def test_a_function_that_goes_on_after_the_shutdown_tells_its_own_end(attach, ledger, seen, tmp_path):
    gate = tmp_path / "gate"

    async def body(scheduler):
        scheduler.add_job(recorded.work_until, "date", [ledger.path, "stubborn", str(gate)], id="stubborn")
        async with asyncio.timeout(10):
            while "started" not in {fact.status for fact in seen.facts}:
                await asyncio.sleep(0.01)
        scheduler.shutdown()
        async with asyncio.timeout(10):
            while scheduler._executors["default"]._instances:  # until the loop hears of the cancelled future
                await asyncio.sleep(0.01)
        assert statuses(seen) == [["queued", "started"]]
        gate.touch()
        await ends(seen, 1)

    under_a_loop(attach, body)

    ledger.agrees_with(seen.runs())
    assert reasons(seen) == {("success", ""): 1}


def test_log_lines_within_a_coroutine_say_of_which_run_they_are(attach, seen):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append((record.getMessage(), record.job_name, record.run_id))

    logger, handler = logging.getLogger("the-program"), Keep()
    handler.addFilter(RunFilter())
    logger.addHandler(handler)

    async def talks(name: str, both: list[asyncio.Event]) -> None:
        both.pop().set()
        logger.warning("%s begins", name)
        await asyncio.sleep(0.02)
        await asyncio.to_thread(logger.warning, "%s in a thread", name)
        assert current_run().job_name == name

    async def body(scheduler):
        both = [asyncio.Event(), asyncio.Event()]
        for name in ("one", "two"):
            scheduler.add_job(talks, "date", [name, both], id=name)
        await ends(seen, 2)
        logger.warning("outside")

    under_a_loop(attach, body)
    logger.removeHandler(handler)

    ids = {name: {run for text, job, run in records if job == name} for name in ("one", "two", "-")}
    assert ids["-"] == {"-"}
    assert len(ids["one"]) == len(ids["two"]) == 1
    assert ids["one"].isdisjoint(ids["two"])
    assert all(text.startswith(job) for text, job, _ in records if job != "-")
    assert reasons(seen) == {("success", ""): 2}


def test_no_thread_of_ours_is_needed_for_a_loop(attach, ledger, seen):
    def ours():
        return {thread for thread in threading.enumerate() if thread.name.startswith("taskscope")}

    async def body(scheduler):
        scheduler.add_job(recorded.awaits, "date", [ledger.path, "job"], id="job")
        await ends(seen, 1)
        assert ours() == before

    before = ours()  # of fixtures that live as long as the session

    under_a_loop(attach, body)
