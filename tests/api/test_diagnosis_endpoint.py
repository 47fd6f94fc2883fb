"""`/api/monitoring/diagnosis`: why runs wait, against a history in which the cause is known."""

from itertools import count

import pytest
from asking import NOW

from taskscope.events import Fact, QueueState, WorkerState
from taskscope.facts import row_of
from taskscope.identity import run_id
from taskscope.live import Live
from taskscope.settings import Settings
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.sql import SqlStore

NATIVE = count()
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
UP = WorkerState(scheduler="main", worker="w1", at=NOW)
DOWN = WorkerState(scheduler="main", worker="w1", at=NOW, up=False)


def read(ready=3, **known):
    return QueueState(scheduler="main", queue="bulk", at=NOW, ready=ready, **known)


def runs(number, status="success", *, came=30 * MINUTE, began=29 * MINUTE, took=10.0, **known):
    """So many, that came and began so long ago."""
    came, began = NOW - came, NOW - began
    fact = {"scheduler": "main", "job": "sync", "queue": "bulk", "anchor": came, "enqueued": came} | known
    if status != "queued":
        fact["started"] = began
    if status == "success":
        fact["duration"] = took
    at = {"queued": came, "started": began}.get(status, began + took)
    return [Fact(native=str(next(NATIVE)), status=status, at=at, **fact) for _ in range(number)]


WEEK = [
    fact
    for n in range(6 * 24 * 8)
    for fact in runs(1, came=(61 + 10 * n) * MINUTE, began=(61 + 10 * n) * MINUTE)
]
"""Every ten minutes one of ten seconds, for eight days until an hour ago: so it is usually."""


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    """An empty history of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/r.db"
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def diagnosed(url, serve):
    """What is said where these facts happened and this was read."""
    settings = Settings(history=url)
    store, queries = SqlStore(url, settings), Queries(url, settings)
    store.open()

    def ask(facts, *readings, **query):
        rows = [
            row_of(fact, run_id(fact.scheduler, fact.native, 0, int(fact.anchor * 1000))) for fact in facts
        ]
        store.apply(sorted(rows, key=lambda row: row.id))
        live = Live()
        live.fold(readings)
        client = serve(settings, queries=queries, live=live)
        return client.ask("/api/monitoring/diagnosis", query).json["data"]

    yield ask
    queries.close()
    store.close()


AS_USUAL = [*WEEK, *runs(6)]

CAUSES = {
    "no worker": ([*WEEK], [read(), DOWN], "no_worker", "None of 1 workers is up."),
    "no consumer": ([*AS_USUAL], [read(consumers=0), UP], "no_consumer", "No worker consumes this queue."),
    "slow runs": (
        [*WEEK, *runs(6, took=30.0)],
        [read(consumers=1), UP],
        "slow_runs",
        "Runs take 30 s on average, and usually 10 s.",
    ),
    "runs that hang": (
        [*WEEK, *runs(1, "started", began=40 * MINUTE)],
        [read(), UP],
        "slow_runs",
        "Runs take 40 min on average, and usually 10 s.",
    ),
    "more than usual": (
        [*WEEK, *runs(20), *runs(3, "queued")],
        [read(), UP],
        "more_work",
        "Runs come at 23 an hour, and usually at 6.",
    ),
    "more than is done": (
        [*WEEK, *runs(4), *runs(4, "queued")],
        [read(4), UP],
        "more_work",
        "Runs come at 8 an hour, and are done at 4.",
    ),
    "it drains": (
        [*WEEK, *runs(6), *runs(6, came=3 * HOUR)],
        [read(oldest=NOW - 2 * HOUR), UP],
        "draining",
        "Runs are done at 12 an hour, and come at 7.5; at this pace nothing waits any more in 40 min.",
    ),
    "nothing to be seen": (
        [*AS_USUAL],
        [read(1), UP],
        "unknown",
        "As far as is known workers are there, runs take as long as usual, and no more come.",
    ),
}


@pytest.mark.parametrize(("facts", "readings", "cause", "explanation"), CAUSES.values(), ids=CAUSES)
def test_the_cause_is_found_and_explained(diagnosed, facts, readings, cause, explanation):
    (row,) = diagnosed(facts, *readings)

    assert (row["scheduler"], row["queue"]) == ("main", "bulk")
    assert (row["cause"], row["explanation"]) == (cause, explanation)
    assert row["advice"].endswith(".")
    assert row["alert"].startswith("Taskscope")


def test_the_numbers_behind_it_are_told(diagnosed):
    (row,) = diagnosed(CAUSES["it drains"][0], *CAUSES["it drains"][1])

    assert {name: row[name] for name in ("waiting", "workers_up", "consumers", "running", "growing")} == {
        "waiting": 3,
        "workers_up": 1,
        "consumers": None,
        "running": 0,
        "growing": False,
    }
    assert row["completions"] == pytest.approx(12 / HOUR)
    assert row["arrivals"] == pytest.approx(7.5 / HOUR), "of what waits for 2 h half came in the last hour"
    assert row["usual_arrivals"] == pytest.approx(6 / HOUR, rel=0.05)
    assert (row["mean"], row["usual_mean"]) == (10_000, 10_000)
    assert row["drains_in"] == pytest.approx(3 / (4.5 / HOUR) * 1000)
    assert row["oldest_at"].startswith("2025-11-21T16:")


def test_on_its_first_day_a_job_is_compared_with_the_hours_before(diagnosed):
    (row,) = diagnosed([*WEEK[: 6 * 10], *runs(6, took=30.0)], read(), UP)

    assert (row["cause"], row["usual_mean"]) == ("slow_runs", 10_000)


def test_what_grows_does_not_drain(diagnosed):
    (row,) = diagnosed(CAUSES["more than is done"][0], *CAUSES["more than is done"][1])

    assert (row["growing"], row["drains_in"]) == (True, None)


def test_queues_that_nobody_reads_are_known_by_their_runs(diagnosed):
    facts = [
        *runs(2, "queued"),
        *runs(3, "queued", scheduler="other", queue=""),
        *runs(1, scheduler="third"),
    ]

    rows = diagnosed(facts, read(0))

    assert [(row["scheduler"], row["queue"], row["waiting"]) for row in rows] == [("other", None, 3)], (
        "what the broker says of a queue holds, and where nothing waits there is nothing to say"
    )
    assert [row["workers_up"] for row in rows] == [None]


def test_rates_of_a_queue_are_not_known_where_runs_do_not_name_theirs(diagnosed):
    (row,) = diagnosed(runs(5, queue=""), read(), UP)

    assert (row["arrivals"], row["completions"], row["mean"], row["cause"]) == (None, None, None, "unknown")


def test_queues_can_be_chosen(diagnosed):
    facts = [*runs(2, "queued"), *runs(1, "queued", queue="mail"), *runs(1, "queued", scheduler="other")]

    assert len(diagnosed(facts)) == 3
    assert [row["queue"] for row in diagnosed([], scheduler="main")] == ["bulk", "mail"]
    assert [row["scheduler"] for row in diagnosed([], queue="bulk")] == ["main", "other"]


def test_without_a_history_workers_and_consumers_are_looked_at(serve):
    live = Live()
    live.fold([read(consumers=0, in_flight=2), UP])

    (row,) = serve(live=live).ask("/api/monitoring/diagnosis").json["data"]

    assert (row["cause"], row["waiting"], row["running"], row["arrivals"]) == ("no_consumer", 3, 2, None)
