from itertools import count
from random import Random

import hypothesis.strategies as st
from histories import NOW, batch, done, expected, row, select, stored
from hypothesis import HealthCheck, given, settings
from msgspec.structs import replace

from taskscope.admission import Admission
from taskscope.counts import Counts
from taskscope.events import Error, Fact
from taskscope.facts import Change, Row, row_of
from taskscope.settings import Settings
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.sql import SqlStore

EXAMPLES = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
EXAMPLE = count()
STATUSES = ("queued", "started", "success", "failed", "retried", "skipped", "unknown")
TEXTS = st.sampled_from(["", "a", "b", "B", "ä", "\N{GRINNING FACE}", "aa", "\uffff"])
TIMES = st.sampled_from([None, NOW, NOW + 0.001, NOW + 50, NOW + 4_000_000])


@st.composite
def quarrelling(draw: st.DrawFn, scheduler: str) -> Row:
    """A fact about one of three runs, which may say anything."""
    names = ("job", "reason", "queue", "worker", "instance", "entity", "trace_id", "key", "result")
    texts = {name: draw(TEXTS) for name in names}
    times = {name: draw(TIMES) for name in ("due", "enqueued", "started")}
    error = Error(kind=draw(TEXTS), message=draw(TEXTS), stack=draw(TEXTS), data={"x": draw(TEXTS)})
    return row(
        draw(st.integers(0, 2)),
        draw(st.sampled_from(STATUSES)),
        scheduler=scheduler,
        at=draw(TIMES) or NOW,
        attempt=draw(st.integers(0, 1)),
        duration=draw(st.sampled_from([None, 0, 0.02, 7, 100_000])),
        error=error if draw(st.booleans()) else None,
        details=draw(st.sampled_from([None, {"a": 1}, {"b": 2}])),
        **texts,
        **times,
    )


@st.composite
def agreeing(draw: st.DrawFn, scheduler: str) -> Row:
    """A fact about one of three runs, of which nobody says two different things."""
    number = draw(st.integers(0, 2))
    started = NOW + number
    known = {
        "due": started - 3,
        "enqueued": started - 2,
        "started": started,
        "queue": "q",
        "reason": f"r{number}",
    }
    status = draw(st.sampled_from(STATUSES))
    told = {name: value for name, value in known.items() if draw(st.booleans())} | {"reason": known["reason"]}
    ending = status in ("success", "failed", "retried")
    return row(
        number,
        status,
        scheduler=scheduler,
        at={"queued": started - 2, "started": started}.get(status, started + number / 8),
        job=draw(st.sampled_from(["", f"job{number % 2}"])),
        **told | ({"duration": number / 8, "started": started} if ending and draw(st.booleans()) else {}),
        error=Error(kind=f"E{number}") if status in ("failed", "retried") else None,
    )


@st.composite
def batches(draw: st.DrawFn, facts: st.SearchStrategy[Row]) -> list[list[Row]]:
    """Some facts, some of them repeated, in some order, cut into batches."""
    told = draw(st.lists(facts, min_size=1, max_size=8))
    told += draw(st.lists(st.sampled_from(told), max_size=4))
    told = draw(st.permutations(told))
    cuts = sorted(draw(st.lists(st.integers(0, len(told)), max_size=4)))
    return [told[start:end] for start, end in zip([0, *cuts], [*cuts, len(told)], strict=True)]


def rounded(counts: Counts) -> Counts:
    """Sums of floats depend on their order in the last digits."""
    for histogram in counts.histograms.values():
        histogram.sum = round(histogram.sum, 6)
    return counts


def counted(store: SqlStore | MemoryStore, scheduler: str) -> dict[str, Counts]:
    return {job: rounded(counts) for (of, job), counts in store.totals().items() if of == scheduler}


@EXAMPLES
@given(data=st.data())
def test_order_repetition_and_batching_change_neither_rows_nor_what_is_counted(
    store: SqlStore, history_url: str, data: st.DataObject
):
    scheduler = f"s{next(EXAMPLE)}"
    told = data.draw(batches(quarrelling(scheduler)))
    batched, at_once = MemoryStore(Settings()), MemoryStore(Settings())
    at_once.apply(batch(row for rows in told for row in rows))

    for rows in told:
        changes = store.apply(batch(rows)).changes
        wanted = batched.apply(batch(rows)).changes
        assert [plain(change) for change in changes] == [plain(change) for change in wanted]

    assert stored(history_url, scheduler) == expected(row for rows in told for row in rows)
    assert numbers(counted(store, scheduler)) == numbers(counted(at_once, scheduler))


def numbers(counts: dict[str, Counts]) -> tuple[dict[str, int], dict[str, int]]:
    """Facts and observations of all jobs together: facts that quarrel may disagree on names and values."""
    statuses: dict[str, int] = {}
    observed: dict[str, int] = {}
    for one in counts.values():
        for status, number in one.statuses.items():
            statuses[status] = statuses.get(status, 0) + number
        for name, histogram in one.histograms.items():
            observed[name] = observed.get(name, 0) + histogram.count
    return statuses, observed


@EXAMPLES
@given(data=st.data())
def test_counts_are_equal_to_the_last_bucket_where_facts_agree(store: SqlStore, data: st.DataObject):
    scheduler = f"s{next(EXAMPLE)}"
    told = data.draw(batches(agreeing(scheduler)))
    at_once = MemoryStore(Settings())
    at_once.apply(batch(row for rows in told for row in rows))

    for rows in told:
        store.apply(batch(rows))

    assert counted(store, scheduler) == counted(at_once, scheduler)


def plain(change: Change) -> tuple[Row, int]:
    """A store need not read the stored texts again, so what it says of them is not compared."""
    return replace(change.row, detail=None), change.added


def test_where_facts_quarrel_what_was_committed_first_is_what_is_counted(store: SqlStore):
    first = row(1, "failed", at=NOW, started=NOW - 1, duration=1.0, job="first", error=Error(kind="First"))
    other = row(1, "failed", at=NOW, started=NOW - 9, duration=9.0, job="other", error=Error(kind="Other"))

    before = store.apply([first]).totals["s", "first"]
    store.apply([other])

    assert (before.statuses, before.exceptions) == ({"failed": 1}, {"First": 1})
    assert before.histograms["duration"].sum == 1.0
    after = store.totals()
    assert after.pop(("s", "first")) == before
    assert [(counts.statuses, counts.exceptions, counts.histograms) for counts in after.values()] == [
        ({}, {}, {})
    ]
    assert after["s", "other"].errors == {"new": 1}, "what it failed of is told anew: the group follows"


def test_names_are_compared_as_texts_not_by_their_number(store: SqlStore, history_url: str):
    store.apply([row(1, "started", queue="zebra"), row(2, "started", queue="ant")][:1])
    store.apply([row(1, "started", queue="ant")])
    store.apply([row(3, "started", queue="ant")])
    store.apply([row(3, "started", queue="zebra")])

    assert {columns[11] for columns in stored(history_url).values()} == {"zebra"}


def test_a_batch_of_every_size_is_merged_whole(store: SqlStore):
    for size in (1, 499, 500, 501, 1_237):
        rows = batch(done(number, scheduler=f"of{size}") for number in range(size))

        assert len(store.apply(rows).changes) == size
        assert not store.apply(rows).changes


def test_texts_that_no_database_can_hold_are_stored_without_what_it_cannot(store: SqlStore, history_url: str):
    error = Error(kind="E\0\udc80", message="m\0", stack="s\udfff")

    said = {"trace_id": "t\0", "key": "k\0", "result": "r\ud800"}
    store.apply([row(1, "failed", job="j\0\ud800", error=error, queue="q" * 16_384, **said)])

    ((_, _, name, *_, queue, _, _, _, trace, key, result, message, stack, _, _),) = stored(
        history_url
    ).values()
    assert (name, trace, message, stack) == ("j\ufffd?", "t\ufffd", "m\ufffd", "s?")
    assert (key, result) == ("k\ufffd", "r?")
    assert len(queue) == 16_384


def test_the_longest_key_and_trace_fit_into_an_index(store: SqlStore, history_url: str):
    endless = "".join(map(chr, Random(7).choices(range(0x10000, 0x10FFFF), k=16_384)))  # nothing to compress
    told = Fact(scheduler="s", native="n", status="success", at=NOW, key=endless, trace_id=endless)

    fact = Admission(Settings()).admit(told, NOW)
    assert isinstance(fact, Fact)
    store.apply([row_of(fact, bytes(16))])

    assert select(history_url, "SELECT length(key), length(trace_id) FROM run") == [(500, 500)]


def test_the_largest_numbers_that_a_fact_can_hold_are_stored(store: SqlStore, history_url: str):
    huge = row(1, "success", attempt=2**62, duration=1e9)

    store.apply([huge])

    assert stored(history_url) == expected([huge])


def test_a_run_that_was_lost_and_ends_after_all_is_a_success_and_counts_as_both(
    store: SqlStore, history_url: str
):
    store.apply([row(1, "started")])
    store.apply([row(1, "unknown")])
    totals = store.apply([done(1)]).totals

    assert totals["s", "job"].statuses == {"unknown": 1, "success": 1}
    assert select(history_url, "SELECT rank FROM run") == [(6,)]
