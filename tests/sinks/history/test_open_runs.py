"""Runs whose facts know no common anchor: the first fact that comes chooses the id, all others find it."""

import threading
import time
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import count
from typing import Any

import hypothesis.strategies as st
import pytest
from histories import NOW, opened, select, stored
from hypothesis import HealthCheck, given, settings

from taskscope.counts import Counts
from taskscope.events import Error, Fact
from taskscope.exporter import Exporter
from taskscope.facts import merge, row_of
from taskscope.identity import anchor_ms, key, run_id
from taskscope.settings import Retention as Rules
from taskscope.settings import Settings
from taskscope.sinks.history import open_runs
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.retention import Retention
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.history.store import Applied
from taskscope.waiting import Waiting

EXAMPLES = settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EXAMPLE = count()
HOUR = 3_600.0
DAY = 24 * HOUR
OTHER = Settings(service="another")
AnyStore = SqlStore | MemoryStore


def fact(native: object, status: str, at: float = NOW, **known: Any) -> Fact:
    """A fact that knows no anchor, unless told."""
    return Fact(**{"scheduler": "s", "native": str(native), "status": status, "at": at, "job": "job"} | known)


def ended(native: object, at: float = NOW + 5, **known: Any) -> Fact:
    return fact(native, "success", at, started=at - 1, duration=1.0, **known)


def tell(store: AnyStore, *facts: Fact) -> Applied:
    """Hand facts over as the pipeline does: as rows under ids that know only this batch."""
    waiting = Waiting(1_000, pytest.fail)
    for one in facts:
        waiting.add(one, NOW)
    return store.apply(waiting.batch(1_000))


@st.composite
def told(draw: st.DrawFn, scheduler: str) -> list[list[Fact]]:
    """Facts about a few runs of two attempts, some with an anchor; in some order, some of them twice, in batches."""
    facts = draw(st.lists(one_fact(scheduler), min_size=1, max_size=10))
    facts += draw(st.lists(st.sampled_from(facts), max_size=5))
    facts = draw(st.permutations(facts))
    cuts = sorted(draw(st.lists(st.integers(0, len(facts)), max_size=5)))
    return [facts[start:end] for start, end in zip([0, *cuts], [*cuts, len(facts)], strict=True)]


@st.composite
def one_fact(draw: st.DrawFn, scheduler: str) -> Fact:
    """What is said of one run does not quarrel, so that counts can be compared to the last bucket."""
    native, attempt = draw(st.integers(0, 2)), draw(st.integers(0, 1))
    begin = NOW + 10 * native + 100 * attempt
    status = draw(st.sampled_from(["queued", "started", "success", "failed", "unknown"]))
    known: dict[str, Any] = {"enqueued": begin, "started": begin + 2, "queue": "q", "due": begin - 3}
    known = {name: value for name, value in known.items() if draw(st.booleans())}
    if status in ("success", "failed") and draw(st.booleans()):
        known |= {"duration": 3.0, "started": begin + 2}
    at = {"queued": begin, "started": begin + 2}.get(status, begin + 5)
    error = Error(kind="E", message=f"{native}") if status == "failed" else None
    anchor = begin if native == 2 else None
    job = draw(st.sampled_from(["", "job"]))
    return fact(
        native, status, at, scheduler=scheduler, attempt=attempt, anchor=anchor, job=job, error=error, **known
    )


def runs_of(facts: Iterable[Fact]) -> dict[bytes, Any]:
    """The rows that these facts make, by what all ids of a run have in common."""
    rows: dict[bytes, Any] = {}
    for one in facts:
        row = row_of(one, run_id(one.scheduler, one.native, one.attempt, 0))
        rows[key(row.id)] = merge(rows[key(row.id)], row) if key(row.id) in rows else row
    return rows


def first_times(facts: Iterable[Fact]) -> dict[bytes, int]:
    """Of each run the anchor that its first fact gives it, in ms."""
    times: dict[bytes, int] = {}
    for one in facts:
        anchor = one.at if one.anchor is None else one.anchor
        times.setdefault(key(run_id(one.scheduler, one.native, one.attempt, 0)), round(anchor * 1000))
    return times


def counted(store: AnyStore, scheduler: str) -> dict[str, Counts]:
    return {job: counts for (of, job), counts in store.totals().items() if of == scheduler}


@pytest.mark.parametrize("restarts", [False, True], ids=["one process", "restarts"])
@EXAMPLES
@given(data=st.data())
def test_order_repetition_and_batching_make_one_run_of_all_its_facts(
    history_url: str, restarts: bool, data: st.DataObject
):
    scheduler = f"s{next(EXAMPLE)}"
    batches = data.draw(told(scheduler))
    at_once, batched = MemoryStore(Settings()), MemoryStore(Settings())
    everything = [one for facts in batches for one in facts]
    tell(at_once, *everything)

    with ExitStack() as stack:
        store = stack.enter_context(opened(history_url))
        for facts in batches:
            if restarts:
                stack.close()
                store = stack.enter_context(opened(history_url))
            tell(store, *facts)
            tell(batched, *facts)

        wanted = runs_of(everything)
        found = stored(history_url, scheduler)
        assert {key(run): (columns[0], columns[2]) for run, columns in found.items()} == {
            run: (row.facts, row.job) for run, row in wanted.items()
        }
        assert {key(run): anchor_ms(run) for run in found} == first_times(everything)
        assert len(found) == len(wanted)
        assert counted(store, scheduler) == counted(batched, scheduler) == counted(at_once, scheduler)


def known_ids(url: str) -> int:
    ((number,),) = select(url, "SELECT count(*) FROM open_run")
    return number


def test_the_fact_that_comes_first_chooses_the_id_whatever_the_others_say(store: SqlStore, history_url: str):
    tell(store, ended("a", NOW + 60))
    applied = tell(store, fact("a", "queued", NOW), fact("a", "started", NOW + 59))

    ((run,),) = select(history_url, "SELECT id FROM run")
    assert anchor_ms(bytes(run)) == (NOW + 60) * 1000
    assert [change.row.id for change in applied.changes] == [bytes(run)]


def test_attempts_are_runs_of_their_own(store: SqlStore, history_url: str):
    tell(store, fact("a", "started"), fact("a", "started", NOW + 9, attempt=1))
    tell(store, fact("a", "retried", NOW + 8), ended("a", NOW + 20, attempt=1))

    assert sorted(columns[1] for columns in stored(history_url).values()) == [4, 6]


def test_runs_with_an_anchor_need_no_row_of_their_own(store: SqlStore, history_url: str):
    tell(store, fact("a", "started", anchor=NOW), ended("a", anchor=NOW))

    assert known_ids(history_url) == 0


def test_another_replica_finds_the_run(postgres_url: str):
    with opened(postgres_url) as one, opened(postgres_url, OTHER) as other:
        tell(one, fact("a", "started"))
        applied = tell(other, ended("a"))
        assert not tell(one, ended("a"), fact("a", "started")).changes

        assert applied.totals["s", "job"].statuses == {"success": 1}
        assert one.totals()["s", "job"].statuses == {}
    assert len(stored(postgres_url)) == 1


def test_replicas_that_hear_of_the_same_runs_at_once_agree(postgres_url: str):
    facts = [fact(number, "started", NOW + number) for number in range(200)]
    ends = [ended(number, NOW + 500 + number) for number in reversed(range(200))]
    with opened(postgres_url) as one, opened(postgres_url, OTHER) as other:
        for turn in range(5):
            both = [
                threading.Thread(target=tell, args=(one, *facts[turn * 40 : turn * 40 + 40])),
                threading.Thread(target=tell, args=(other, *ends[160 - turn * 40 : 200 - turn * 40])),
            ]
            for thread in both:
                thread.start()
            for thread in both:
                thread.join(60)

        total = [sum(c.statuses.get("success", 0) for c in store.totals().values()) for store in (one, other)]
        fired = [sum(c.triggers.get("fired", 0) for c in store.totals().values()) for store in (one, other)]
    rows = stored(postgres_url)
    assert len(rows) == 200
    assert {columns[1] for columns in rows.values()} == {6}
    assert sum(total) == sum(fired) == 200


def test_what_was_rolled_back_chose_nothing(store: SqlStore, history_url: str):
    with pytest.raises(ZeroDivisionError):
        store.apply(_rows(ended("a", NOW)), label=lambda job: 1 / 0)  # type: ignore[arg-type,return-value]
    tell(store, fact("a", "started", NOW + 1))
    tell(store, ended("a", NOW + 9))

    (run,) = stored(history_url)
    assert anchor_ms(run) == (NOW + 1) * 1000


def _rows(*facts: Fact) -> Any:
    waiting = Waiting(1_000, pytest.fail)
    for one in facts:
        waiting.add(one, NOW)
    return waiting.batch(1_000)


def test_more_runs_than_are_remembered_are_found_again(
    store: SqlStore, history_url: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(open_runs, "REMEMBERED", 7)

    tell(store, *[fact(number, "started", NOW + number) for number in range(30)])
    tell(store, *[ended(number, NOW + 100) for number in range(30)])

    assert len(store._open_runs._known) == 7
    assert [columns[1] for columns in stored(history_url).values()] == [6] * 30


def test_remembering_no_more_than_the_last_runs_takes_no_quadratic_time(sqlite_url: str):
    rows = [row_of(told, run_id("s", told.native, 0, 0)) for told in map(started, range(120_000))]
    runs = open_runs.OpenRuns()

    with opened(sqlite_url) as store, store.transaction() as connection:
        begin = time.thread_time()
        runs.settle(connection, rows)
        took = time.thread_time() - begin

    assert len(runs._known) == open_runs.REMEMBERED
    assert took < 4


def started(native: int) -> Fact:
    return fact(native, "started")


def test_what_waited_while_the_store_was_away_becomes_one_run(store: SqlStore, history_url: str):
    waiting = Waiting(1_000, pytest.fail)
    for told in (fact("a", "queued", NOW), fact("a", "started", NOW + 1), ended("a", NOW + 9)):
        waiting.add(told, NOW)
        rows = waiting.batch(1_000)  # the store was tried, and was away

    assert len(rows) == 3
    assert store.apply(rows).totals["s", "job"].statuses == {"success": 1}
    waiting.done(rows, NOW)
    assert len(waiting) == 0
    assert len(stored(history_url)) == 1


def test_a_program_that_ends_between_two_facts_of_a_run_goes_on_with_it(history_url: str):
    begin = time.time()
    for told_now in (fact("a", "queued", begin), fact("a", "started", begin + 1), ended("a", begin + 2)):
        with Exporter(history=history_url, port=None, strict=True) as exporter:
            exporter.pipeline.emit(told_now)

    ((run, status),) = select(history_url, "SELECT id, rank FROM run")
    assert (anchor_ms(bytes(run)), status) == (round(begin * 1000), 6)


def sweep(url: str, now: float, told_at: float, *facts: Fact, **rules: Any) -> int:
    """How many ids are kept after these facts and, later, retention."""
    with opened(url, clock=told_at) as store:
        tell(store, *facts)
    chosen = Settings(
        service="tests", retention=Rules(**{"max_age": None, "max_runs": None, "chunk": 2} | rules)
    )
    with opened(url, chosen, clock=now) as store:
        Retention(store).prune(now)
    return known_ids(url)


def test_an_id_is_kept_while_its_run_is_open_and_a_dedup_window_after_its_end(history_url: str):
    open_ = [fact(number, "started", NOW - 9 * DAY) for number in range(5)]
    over = [ended(f"over{number}", NOW - 60) for number in range(5)]

    assert sweep(history_url, NOW + HOUR - 10, NOW, *open_, *over) == 10
    assert sweep(history_url, NOW + HOUR + 10, NOW) == 5


def test_what_is_told_again_within_the_dedup_window_counts_once(history_url: str):
    facts = (fact("a", "started"), ended("a"))
    sweep(history_url, NOW + HOUR - 10, NOW, *facts)

    with opened(history_url, clock=NOW + HOUR) as store:
        assert not tell(store, *reversed(facts)).changes
        assert store.totals()["s", "job"].statuses == {"success": 1}


def test_a_lost_run_that_ends_after_days_is_found_again(history_url: str):
    assert sweep(history_url, NOW + 2 * DAY, NOW, fact("a", "started"), fact("a", "unknown", NOW + 60)) == 1

    with opened(history_url, clock=NOW + 2 * DAY) as store:
        tell(store, ended("a", NOW + 2 * DAY))
    ((status,),) = select(history_url, "SELECT rank FROM run")
    assert status == 6


def test_with_a_run_that_retention_removes_its_id_goes_and_late_facts_change_nothing(history_url: str):
    begin = NOW - 40 * DAY
    facts = (fact("a", "started", begin), ended("a", begin + 5))
    assert sweep(history_url, NOW, begin, *facts, max_age=30 * DAY) == 0

    with opened(history_url) as store:
        before = store.totals()
        applied = tell(store, *facts)
        assert (applied.changes, applied.expired, store.totals()) == ([], 1, before)


def test_a_fact_that_comes_between_the_end_of_its_run_and_of_its_id_is_expired(history_url: str):
    begin = NOW - 40 * DAY
    facts = (fact("a", "started", begin), ended("a", begin + 5))
    with opened(history_url, clock=begin) as store:
        tell(store, *facts)
    chosen = Settings(service="tests", retention=Rules(max_age=30 * DAY), dedup_window=HOUR)
    with opened(history_url, chosen) as store:
        retention = Retention(store)
        while known_ids(history_url) and retention.step(NOW) != 1:
            pass
        assert known_ids(history_url) == 1
        assert tell(store, ended("a", NOW - 1)).expired == 1


def test_looking_through_all_ids_waits_a_dedup_window(sqlite_url: str):
    with opened(sqlite_url, clock=NOW - 2 * HOUR) as store:
        tell(store, ended("a", NOW - 2 * HOUR))
        retention = Retention(store)
        retention.prune(NOW)
        tell(store, ended("b", NOW - 2 * HOUR))
        retention.prune(NOW + HOUR - 1)
        assert known_ids(sqlite_url) == 1
        retention.prune(NOW + HOUR)
        assert known_ids(sqlite_url) == 0


def test_memory_forgets_the_ids_of_runs_that_it_forgets():
    store = MemoryStore(Settings(), kept=10)

    tell(store, fact("open", "started"))
    for number in range(50):
        tell(store, fact(number, "started"))
        tell(store, ended(number))

    assert len(store._ids) == 11
    assert tell(store, ended("open")).totals["s", "job"].statuses["success"] == 51
