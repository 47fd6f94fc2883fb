"""How long the history takes to answer with a million runs, beside OFFSET paging with an exact total.

    python -m benchmarks.queries [--runs 1000000] [--postgres URL] [--json FILE]

The peer walks the same table as history pages usually do: `LIMIT 50 OFFSET n` and `count(*)`. Without a URL, PostgreSQL
is a private server, or left out where none is installed. Everything is warm and on one connection.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

from taskscope import identity
from taskscope.events import Error, Fact
from taskscope.facts import Row, row_of
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.reader import Reader
from taskscope.sinks.history.records import Filter
from taskscope.sinks.history.sql import SqlStore

JOBS, DAYS, DEPTH, ROUNDS, BATCH = 50, 30, 100_000, 100, 5_000
DAY = 86_400_000
CURSOR, OFFSET = "page at depth 100 000: cursor", "page at depth 100 000: OFFSET + count(*)"


def main() -> None:
    arguments = parser().parse_args()
    results = measure(arguments.runs, arguments.postgres)
    show(results)
    text = json.dumps(results, indent=2)
    if arguments.json:
        Path(arguments.json).write_text(text)
    else:
        print(text)


def measure(runs: int = 1_000_000, postgres: str | None = None) -> dict[str, Any]:
    """ms by store and question, and how many times faster than the peer's deep page ours is."""
    results: dict[str, Any] = {"runs": runs}
    with tempfile.TemporaryDirectory() as folder:
        results["sqlite"] = ask(f"sqlite:///{folder}/runs.db", runs)
    with server(postgres) as url:
        if url:
            results["postgresql"] = ask(url, runs)
    for store in set(results) - {"runs"}:
        deep, peers = results[store][CURSOR], results[store][OFFSET]
        results[store]["ratio"] = {
            "median": peers["median"] / deep["median"],
            "p95": peers["p95"] / deep["p95"],
        }
    return results


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=1_000_000)
    parser.add_argument("--postgres", help="URL of an empty database")
    parser.add_argument("--json", help="write the figures to this file")
    return parser


@contextmanager
def server(url: str | None) -> Iterator[str | None]:
    """An empty database: the given one, or one on a private server."""
    if url:
        yield url
        return
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from services.postgres import PLACES, Postgres

    if not PLACES:
        print("PostgreSQL is not installed: left out", file=sys.stderr)
        yield None
        return
    private = Postgres()
    try:
        private.start()
        private.execute("CREATE DATABASE bench")
        yield private.url("bench")
    finally:
        private.remove()


def ask(url: str, runs: int) -> dict[str, dict[str, float]]:
    """ms by question: median and 95th percentile."""
    begin = time.perf_counter()
    now = fill(url, runs)
    print(f"{runs} runs stored in {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    queries, reader = Queries(url, Settings()), Reader(url, deadline=60)
    try:
        return {name: timed(question) for name, question in questions(queries, reader, now, runs).items()}
    finally:
        queries.close()
        reader.close()


def fill(url: str, runs: int) -> int:
    """Store so many runs of the last 30 days; return now, in ms."""
    chance, now = random.Random(1), int(time.time() * 1000)
    store = SqlStore(url, Settings())
    store.open()
    for first in range(0, runs, BATCH):
        numbers = range(first, min(first + BATCH, runs))
        store.apply(
            sorted((row(chance, n, now - (runs - n) * DAYS * DAY // runs) for n in numbers), key=by_id)
        )
    store.close()
    if not url.startswith("sqlite"):
        with sa.create_engine(url, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("VACUUM ANALYZE")
    return now


def by_id(row: Row) -> bytes:
    return row.id


def row(chance: random.Random, number: int, at: int) -> Row:
    """A run, every other one about a shop: 3 % fail, 1 % are skipped."""
    status: Any = chance.choices(("success", "failed", "skipped"), (96, 3, 1))[0]
    fact = Fact(
        scheduler="bench",
        native=str(number),
        status=status,
        at=at / 1000,
        anchor=at / 1000,
        started=at / 1000,
        duration=None if status == "skipped" else chance.lognormvariate(0, 1.5),
        job=f"job-{int(chance.paretovariate(1)) % JOBS:02}",
        reason="overlap" if status == "skipped" else "error" if status == "failed" else "",
        queue=f"queue-{number % 5}",
        worker=f"worker-{number % 8}",
        entity=f"shop-{number % 100}" if number % 2 else "",
        error=Error(kind=f"Error{number % 5}", message=f"item {number} is not there")
        if status == "failed"
        else None,
    )
    return row_of(fact, identity.run_id("bench", fact.native, 0, at))


def questions(queries: Queries, reader: Reader, now: int, runs: int) -> dict[str, Callable[[], object]]:
    def page(**fields: Any) -> Callable[[], object]:
        return lambda: queries.runs(Filter(**fields), limit=50)

    depth = min(DEPTH, runs // 2)
    deep = queries.runs(Filter(), limit=1, offset=depth).runs[-1].id
    since = now - DAYS * DAY + 1_234_567
    day = Filter(since=now - DAY, until=now)
    return {
        "newest 50": page(),
        "newest 50: OFFSET 0 + count(*)": lambda: peer(reader, 0),
        "newest 50 of a status": page(status=("failed",)),
        "newest 50 of a job": page(job=("job-07",)),
        "newest 50 of a job and status": page(job=("job-07",), status=("failed",)),
        "newest 50 of two jobs, two statuses": page(job=("job-07", "job-08"), status=("failed", "skipped")),
        CURSOR: lambda: queries.runs(Filter(), limit=50, after=deep),
        OFFSET: lambda: peer(reader, depth),
        "newest 50 with a text, frequent": page(q="JOB-0"),
        "newest 50 with a text, rare": page(q="item 77 is"),
        "newest 50 of a worker": page(worker=("worker-3",)),
        "longest 50 of a day": lambda: queries.runs(day, limit=50, sort="duration"),
        "entities, 24 h": lambda: queries.entities(now - DAY, now),
        "flows of queues, 1 h": lambda: queries.flows(now - 3_600_000, now),
        "one run": lambda: queries.run(deep),
        "names": queries.names,
        "stats, 30 days, all jobs": lambda: queries.stats(since, now, (50, 90, 95, 99), slow=5.0),
        "stats, 24 h, one job": lambda: queries.stats(now - DAY, now, (50, 90, 95, 99), ["job-07"]),
        "trend, 7 days by hour": lambda: queries.trend(now - 7 * DAY, now, 3_600_000, percentiles=(95,)),
    }


def peer(reader: Reader, offset: int) -> object:
    """A page as it is usually made: all columns, `OFFSET`, and the number of all rows."""
    with reader.snapshot() as connection:
        total = connection.exec_driver_sql("SELECT count(*) FROM run").scalar()
        page = connection.exec_driver_sql(
            f"SELECT * FROM run ORDER BY id DESC LIMIT 50 OFFSET {offset}"
        ).all()
    return total, page


def timed(ask: Callable[[], object]) -> dict[str, float]:
    ask()
    times: list[float] = []
    until = time.perf_counter() + 10
    while len(times) < ROUNDS and (time.perf_counter() < until or len(times) < 3):
        begin = time.perf_counter()
        ask()
        times.append((time.perf_counter() - begin) * 1000)
    times.sort()
    return {"median": times[len(times) // 2], "p95": times[int(len(times) * 0.95)]}


def show(results: dict[str, Any]) -> None:
    table = Table(title=f"ms with {results['runs']:,} runs: median / p95")
    table.add_column("question")
    stores = [name for name in ("sqlite", "postgresql") if name in results]
    for name in stores:
        table.add_column(name, justify="right")
    for question in results["sqlite"]:
        cells = [results[name][question] for name in stores]
        table.add_row(question, *(f"{cell['median']:.2f} / {cell['p95']:.2f}" for cell in cells))
    Console(stderr=True).print(table)


if __name__ == "__main__":
    main()
