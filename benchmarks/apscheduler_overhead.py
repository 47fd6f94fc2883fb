"""What watching costs a real APScheduler: no-op jobs through ten threads, unobserved, with taskscope, with the peer.

The peer is apscheduler-exporter (PyPI). Each kind runs in turn, several times; the medians and their ratios count.
"""

import gc
import logging
import statistics
import tempfile
import threading
import time
import timeit
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any

from apscheduler.events import EVENT_JOB_EXECUTED, EVENT_JOB_SUBMITTED, JobExecutionEvent, JobSubmissionEvent
from apscheduler.executors.debug import DebugExecutor
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.date import DateTrigger
from benchmarks.show import finish

from taskscope import Exporter, bridges
from taskscope.bridges._apscheduler_runs import Submission
from taskscope.events import Fact
from taskscope.testing import FakeScheduler

JOBS, ROUNDS, THREADS = 3000, 5, 10
LATE_SECONDS, LATE_RATE = 10.0, 1000


def main() -> dict[str, Any]:
    """Jobs a second and CPU µs a job by kind, and how late another thread of the program is."""
    logging.disable(logging.CRITICAL)
    kinds: dict[str, Callable[[Any], AbstractContextManager[Any]]] = {
        "unobserved": lambda scheduler: nullcontext(),
        "taskscope": watched,
        "peer": peer,
    }
    rounds: dict[str, list[dict[str, float]]] = {kind: [] for kind in kinds}
    for _ in range(ROUNDS):
        for kind, watch in kinds.items():
            rounds[kind].append(dispatch(watch))
    figures = {kind: {name: median(rows, name) for name in rows[0]} for kind, rows in rounds.items()}
    return {
        **figures,
        **ratios(figures),
        "lateness_ms": {"unobserved": late(nullcontext), "taskscope": late_watched()},
        **recording(),
    }


def watched(scheduler: Any) -> AbstractContextManager[Any]:
    """taskscope with its SQLite history, without a port."""
    return Exporter(scheduler, history=f"sqlite:///{tempfile.mkdtemp()}/runs.db", port=None)


def peer(scheduler: Any) -> AbstractContextManager[Any]:
    """The existing exporter."""
    from apscheduler_metrics.exporter import APSchedulerExporter
    from prometheus_client import CollectorRegistry

    return nullcontext(APSchedulerExporter(scheduler, CollectorRegistry()))


def dispatch(watch: Callable[[Any], AbstractContextManager[Any]]) -> dict[str, float]:
    """Let JOBS one-shot jobs run as fast as the scheduler starts them."""
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(THREADS)},
        job_defaults={"misfire_grace_time": None},
        timezone="UTC",
    )
    finished = Countdown(JOBS)
    cpu = time.process_time()
    with watch(scheduler):
        scheduler.start(paused=True)
        due = datetime.now(UTC)
        for _ in range(JOBS):
            scheduler.add_job(finished.one, DateTrigger(due), name="job")
        gc.collect()  # a full collection of what earlier rounds left would cost more than a whole round
        begin, cpu = time.perf_counter(), time.process_time()
        scheduler.resume()
        finished.wait()
        took = time.perf_counter() - begin
        scheduler.shutdown()
    return {"jobs_per_second": JOBS / took, "cpu_us_per_job": (time.process_time() - cpu) / JOBS * 1e6}


class Countdown:
    """Becomes true after so many jobs."""

    def __init__(self, count: int) -> None:
        self._left, self._lock, self._done = count, threading.Lock(), threading.Event()

    def one(self) -> None:
        """One less; this is the job."""
        with self._lock:
            self._left -= 1
            if not self._left:
                self._done.set()

    def wait(self) -> None:
        """Until none is left."""
        assert self._done.wait(120), f"{self._left} jobs did not run"


def late(
    watch: Callable[[], AbstractContextManager[Any]], tell: Callable[[], object] = lambda: None
) -> dict[str, float]:
    """How late a thread that sleeps 1 ms wakes up, in ms, while `tell` is called LATE_RATE times a second."""
    delays: list[float] = []
    stop = threading.Event()

    def sleeper() -> None:
        while not stop.is_set():
            begin = time.perf_counter()
            time.sleep(0.001)
            delays.append((time.perf_counter() - begin - 0.001) * 1e3)

    thread = threading.Thread(target=sleeper)
    with watch():
        thread.start()
        begin = time.perf_counter()
        for number in range(int(LATE_SECONDS * LATE_RATE)):
            tell()
            time.sleep(max(0.0, begin + number / LATE_RATE - time.perf_counter()))
        stop.set()
        thread.join()
    delays.sort()
    return {"p50": delays[len(delays) // 2], "p99": delays[len(delays) * 99 // 100], "max": delays[-1]}


def late_watched() -> dict[str, float]:
    """The same while a scripted scheduler's runs are recorded."""
    scheduler = FakeScheduler()
    job = scheduler.job("job")
    return late(lambda: watched(scheduler), job.run)


def recording() -> dict[str, Any]:
    """µs a run: handing over its end, on the thread of its job, and with all that the scheduler's thread does, too.

    Beside it the peer's listeners: that of the end, on the thread of the job, and both.
    """
    pipeline = Exporter(FakeScheduler(), history=None, port=None).pipeline
    fact = Fact(scheduler="s", native="n", status="success", at=time.time(), job="j")
    bare, ours, theirs = (hooked(watch) for watch in (lambda _: nullcontext(), bridged, peer))
    return {
        "handing_over_us": best(lambda: pipeline.emit(fact)),
        "job_thread_us": beside(followed(), heard()),
        "all_hooks_us": beside(ours - bare, theirs - bare),
    }


def beside(ours: float, theirs: float) -> dict[str, float]:
    """Both, and how many times less ours is."""
    return {"taskscope": ours, "peer": theirs, "ratio": theirs / ours}


def followed() -> float:
    """µs that a job's own thread spends for taskscope: the function called by way of ours, less the bare function."""
    with debugged(bridged) as (job, executor):
        due, bridge = job.next_run_time, executor.submit_job.__self__
        runs = iter([Submission(bridge, job, [due]) for _ in range(2000 * 9)])
        return best(lambda: next(runs).func()) - best(lambda: job.func())


def heard() -> float:
    """µs that a job's own thread spends in the peer's listener: the end told, less what telling costs anyway."""
    return ended(peer) - ended(lambda _: nullcontext())


def ended(watch: Callable[[Any], AbstractContextManager[Any]]) -> float:
    """µs for which a scheduler tells its listeners of the end of a run."""
    with debugged(watch) as (job, executor):
        tell, due = executor._scheduler._dispatch_event, job.next_run_time
        begin = JobSubmissionEvent(EVENT_JOB_SUBMITTED, job.id, "default", [due])
        end = JobExecutionEvent(EVENT_JOB_EXECUTED, job.id, "default", due)
        return best(lambda: (tell(begin), tell(end))) - best(lambda: tell(begin))


def hooked(watch: Callable[[Any], AbstractContextManager[Any]]) -> float:
    """µs of one run through the debug executor, which executes where it is called: no other thread disturbs."""
    with debugged(watch) as (job, executor):
        due, scheduler = job.next_run_time, executor._scheduler

        def run() -> None:
            executor.submit_job(job, [due])
            scheduler._dispatch_event(JobSubmissionEvent(EVENT_JOB_SUBMITTED, job.id, "default", [due]))

        return best(run)


@contextmanager
def debugged(watch: Callable[[Any], AbstractContextManager[Any]]) -> Iterator[tuple[Any, Any]]:
    """A job and its executor, which executes where it is called, of a scheduler that is watched and does nothing."""
    scheduler = BackgroundScheduler(
        executors={"default": DebugExecutor()}, job_defaults={"misfire_grace_time": None}, timezone="UTC"
    )
    with watch(scheduler):
        scheduler.start(paused=True)
        job = scheduler.add_job(time.time, DateTrigger(datetime.now(UTC)), name="job")
        yield job, scheduler._lookup_executor("default")
        scheduler.shutdown()


@contextmanager
def bridged(scheduler: Any) -> Iterator[None]:
    """The bridge alone: its events go nowhere."""
    bridge = bridges.find(scheduler)(scheduler, "s")
    bridge.attach(deque[Any](maxlen=10).append)
    yield
    bridge.detach()


def best(call: Callable[[], object]) -> float:
    """µs of one call, the best of several rounds."""
    return min(timeit.repeat(call, number=2000, repeat=9)) / 2000 * 1e6


def median(rows: list[dict[str, float]], name: str) -> float:
    """Of one figure."""
    return statistics.median(row[name] for row in rows)


def ratios(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """How much of its throughput an observed scheduler keeps."""
    bare, ours, theirs = (figures[kind] for kind in ("unobserved", "taskscope", "peer"))
    return {"throughput_kept": ours["jobs_per_second"] / bare["jobs_per_second"]} | {
        "peer_throughput_kept": theirs["jobs_per_second"] / bare["jobs_per_second"]
    }


if __name__ == "__main__":
    finish("apscheduler_overhead", main)
