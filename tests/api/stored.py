"""A small past: what the history of the tests holds."""

import time

from taskscope.events import Error, Fact
from taskscope.facts import Row, row_of
from taskscope.identity import run_id

BEGIN = int(time.time()) - 3_600
"""When the first run was due, in seconds; the runs follow each other by a second."""

ERROR = Error(
    kind="ValueError", message="50 % of naught_", stack="Traceback\n  here\nValueError: 50", data={"n": "1"}
)


def past() -> list[Row]:
    """60 steady successes; 20 flaky runs of which every other failed; a skip, a lost one, and one in progress."""
    facts = [_ended("steady", n, "success", 0.1) for n in range(60)]
    facts += [_ended("flaky", 60 + n, "failed" if n % 2 else "success", 0.5 + n) for n in range(20)]
    facts += [
        _fact("nightly", 80, "skipped", reason="misfire"),
        _fact("nightly", 81, "unknown", started=BEGIN + 81.0),
        _fact(
            "näm/e %",
            82,
            "started",
            started=BEGIN + 82.5,
            queue="q2",
            worker="w9",
            entity="shop-7",
            key="order-4711",
            result="package 88",
            trace_id="abc",
        ),
        _fact("elsewhere", 83, "success", scheduler="other", started=BEGIN + 83.0, duration=0.0001),
    ]
    rows = [
        row_of(fact, run_id(fact.scheduler, fact.native, 0, int((fact.anchor or 0) * 1000))) for fact in facts
    ]
    return sorted(rows, key=lambda row: row.id)


def _ended(job: str, n: int, status: str, duration: float) -> Fact:
    error = {"error": ERROR, "details": {"tries": 3}} if status == "failed" else {}
    return _fact(job, n, status, started=BEGIN + n + 0.25, duration=duration, **error)


def _fact(job: str, n: int, status: str, scheduler: str = "main", **more: object) -> Fact:
    due = float(BEGIN + n)
    fields = {"anchor": due, "due": due, "at": due + 1} | more
    return Fact(scheduler=scheduler, native=f"r{n}", status=status, job=job, **fields)  # type: ignore[arg-type]
