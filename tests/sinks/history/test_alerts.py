"""Alerts in a history: what was told, once, whatever came twice, late or never."""

from collections.abc import Iterator
from random import Random

import pytest
from histories import NOW, opened, select
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskscope.settings import Retention, Settings
from taskscope.sinks.history.alert_log import KEPT, AlertLog
from taskscope.sinks.history.memory import MemoryStore
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Alert, AlertFilter, AlertPage
from taskscope.sinks.history.retention import Retention as Cleaning
from taskscope.sinks.history.sql import SqlStore
from taskscope.sinks.history.store import Store

NOW_MS = int(NOW * 1000)
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
SILENCE = 25 * HOUR

JOB = {"alertname": "TaskscopeJobFailing", "severity": "critical", "scheduler": "main", "job_name": "nightly"}


def firing(fingerprint: str = "f", started: int = -HOUR, told: int = 0, **more: str) -> Alert:
    """An alert that began at `started` and was told of at `told`, both in ms from now."""
    return Alert(fingerprint=fingerprint, started=NOW_MS + started, fired=NOW_MS + told, labels=JOB | more)


def resolved(
    fingerprint: str = "f", started: int = -HOUR, ended: int = 0, told: int = 0, **more: str
) -> Alert:
    """The same alert when it was told to be over."""
    return Alert(
        fingerprint=fingerprint,
        started=NOW_MS + started,
        ended=NOW_MS + ended,
        resolved=NOW_MS + told,
        labels=JOB | more,
    )


class Book:
    """A store and how its alerts are read."""

    def __init__(self, store: Store, reader: AlertLog | Queries) -> None:
        self.record, self._reader = store.record, reader

    def page(
        self, *, limit: int = 1000, offset: int = 0, after: bytes | None = None, **filter: object
    ) -> AlertPage:
        wanted = AlertFilter(**{"now": NOW_MS, "silence": SILENCE} | filter)  # type: ignore[arg-type]
        return self._reader.alerts(wanted, limit=limit, offset=offset, after=after)

    def states(self, **filter: object) -> list[tuple[str, int, bool]]:
        """Of each alert: fingerprint, start in ms from now, active."""
        return [(one.fingerprint, one.started - NOW_MS, active) for one, active in self.page(**filter).alerts]


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def book(request: pytest.FixtureRequest) -> Iterator[Book]:
    if request.param == "memory":
        memory = MemoryStore(Settings(history=None))
        yield Book(memory, memory.alert_log)
        return
    url = request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url")
    with opened(url) as store:
        queries = Queries(url, Settings(history=url))
        yield Book(store, queries)
        queries.close()


def test_an_alert_that_fires_is_active_and_recovers_when_that_is_told(book: Book) -> None:
    book.record([firing()])
    assert book.states() == [("f", -HOUR, True)]

    book.record([resolved(ended=-MINUTE)])

    [(alert, active)] = book.page().alerts
    assert (active, alert.ended, alert.labels) == (False, NOW_MS - MINUTE, JOB)


def test_an_end_that_is_told_before_the_start_holds(book: Book) -> None:
    book.record([resolved(ended=-MINUTE, told=-2)])
    book.record([firing(told=-1)])

    assert book.states() == [("f", -HOUR, False)]


def test_one_delivery_may_hold_an_alert_twice(book: Book) -> None:
    book.record([firing(), resolved(ended=-MINUTE), firing()])

    assert book.states() == [("f", -HOUR, False)]


def test_the_same_alert_fires_again_with_a_start_of_its_own(book: Book) -> None:
    book.record(
        [
            firing(started=-3 * HOUR, told=-3 * HOUR),
            resolved(started=-3 * HOUR, ended=-2 * HOUR, told=-2 * HOUR),
        ]
    )
    book.record([firing(started=-HOUR)])

    assert book.states() == [("f", -HOUR, True), ("f", -3 * HOUR, False)]


def test_an_alert_that_alertmanager_took_for_over_while_prometheus_was_cut_off_is_active_again(
    book: Book,
) -> None:
    book.record([firing(told=-50 * MINUTE), resolved(ended=-40 * MINUTE, told=-39 * MINUTE)])
    book.record([firing(told=-20 * MINUTE)])

    assert book.states() == [("f", -HOUR, True)]

    book.record([resolved(ended=-MINUTE, told=0)])
    assert [(one.ended - NOW_MS, active) for one, active in book.page().alerts] == [(-MINUTE, False)]


def test_an_alert_that_is_not_sent_again_for_long_is_past_and_active_when_it_is(book: Book) -> None:
    book.record([firing(started=-2 * DAY, told=-26 * HOUR)])
    assert book.states() == [("f", -2 * DAY, False)]

    book.record([firing(started=-2 * DAY, told=0)])
    assert book.states() == [("f", -2 * DAY, True)]


def test_of_alerts_of_which_no_end_was_told_only_the_newest_start_is_active(book: Book) -> None:
    book.record([firing(started=-3 * HOUR), firing(started=-HOUR), firing("other", started=-2 * HOUR)])

    assert book.states() == [("f", -HOUR, True), ("other", -2 * HOUR, True), ("f", -3 * HOUR, False)]


def test_texts_are_those_that_were_told_last(book: Book) -> None:
    def told(at: int, summary: str) -> Alert:
        return Alert(fingerprint="f", started=NOW_MS, fired=NOW_MS + at, annotations={"summary": summary})

    book.record([told(2, "7 % fail")])
    book.record([told(1, "5 % fail")])

    assert [one.annotations for one, _ in book.page().alerts] == [{"summary": "7 % fail"}]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"status": ("active",)}, ["now", "warning"]),
        ({"status": ("recovered",)}, ["over"]),
        ({"status": ("active", "recovered")}, ["now", "warning", "over"]),
        ({"severity": ("warning", "info")}, ["warning"]),
        ({"name": ("TaskscopeDown",)}, ["over"]),
        ({"scheduler": ("other",)}, ["over"]),
        ({"job": ("nightly",), "status": ("active",)}, ["now", "warning"]),
        ({"job": ("nobody",)}, []),
        ({"since": NOW_MS - 30 * MINUTE}, ["now", "warning"]),
        ({"since": NOW_MS - 5 * HOUR, "until": NOW_MS - 2 * HOUR}, ["over"]),
        ({"until": NOW_MS - HOUR}, ["over"]),
    ],
)
def test_filters_are_joined(book: Book, filter: dict[str, object], found: list[str]) -> None:
    book.record([firing("now"), firing("warning", started=-HOUR, severity="warning")])
    ended = {"started": -6 * HOUR, "ended": -4 * HOUR, "told": -4 * HOUR}
    book.record([resolved("over", **ended, alertname="TaskscopeDown", scheduler="other")])

    assert {one for one, _, _ in book.states(**filter)} == set(found)
    assert book.page(**filter).total == len(found)


def test_the_cursor_visits_every_alert_once_also_while_new_ones_come(book: Book) -> None:
    book.record([firing(f"f{number}", started=-number * MINUTE) for number in range(25)])
    seen, after = [], None
    while True:
        page = book.page(limit=10, after=after)
        seen += [one.fingerprint for one, _ in page.alerts]
        book.record([firing(f"late{len(seen)}", started=1)])
        if (after := page.after) is None:
            break

    assert seen == [f"f{number}" for number in range(25)]
    assert [one for one, _, _ in book.states(limit=2, offset=4)] == ["f1", "f2"], "after three late ones"


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_order_repetition_and_batching_of_what_is_told_do_not_matter(
    data: st.DataObject, tmp_path_factory
) -> None:
    told = data.draw(
        st.lists(
            st.builds(
                Alert,
                fingerprint=st.sampled_from("ab"),
                started=st.sampled_from([NOW_MS - DAY, NOW_MS - HOUR]),
                fired=st.sampled_from([0, NOW_MS - 30 * HOUR, NOW_MS - 2 * MINUTE, NOW_MS]),
                resolved=st.sampled_from([0, NOW_MS - 3 * MINUTE, NOW_MS]),
                ended=st.sampled_from([0, NOW_MS - 5 * MINUTE, NOW_MS]),
                annotations=st.sampled_from([{}, {"summary": "x"}]),
            ),
            max_size=6,
        )
    )
    shuffled = data.draw(st.permutations(told + data.draw(st.lists(st.sampled_from(told))) if told else told))
    one, another = MemoryStore(Settings(history=None)), MemoryStore(Settings(history=None))
    url = f"sqlite:///{tmp_path_factory.mktemp('alerts') / 'runs.db'}"

    one.record(told)
    for alert in shuffled:
        another.record([alert])
    with opened(url) as store:
        store.record(shuffled[:2])
        store.record(shuffled[2:])
    queries = Queries(url, Settings(history=url))

    pages = [Book(one, reader).page() for reader in (one.alert_log, another.alert_log, queries)]
    queries.close()
    assert pages[0] == pages[1] == pages[2]


def test_replicas_that_are_told_at_the_same_time_keep_one_alert(postgres_url: str) -> None:
    from threading import Thread

    def tell(seed: int) -> None:
        told = [firing(f"f{n}") for n in range(50)] + [resolved(f"f{n}") for n in range(50)]
        Random(seed).shuffle(told)
        with opened(postgres_url) as store:
            for start in range(0, 100, 10):
                store.record(told[start : start + 10])

    with opened(postgres_url):
        threads = [Thread(target=tell, args=(seed,)) for seed in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    found = select(postgres_url, "SELECT count(*), min(fired), min(resolved) FROM alert")
    assert found == [(50, NOW_MS, NOW_MS)]


def cleaned(store: SqlStore, rules: Retention) -> None:
    store.settings = Settings(history=None, retention=rules)
    Cleaning(store).prune(NOW)


def test_past_alerts_go_when_they_are_old_or_too_many_and_active_ones_stay(history_url: str) -> None:
    with opened(history_url) as store:
        store.record([resolved("old", started=-60 * DAY, ended=-40 * DAY, told=-40 * DAY)])
        store.record([resolved("long", started=-60 * DAY, ended=-HOUR, told=-HOUR)])
        store.record([firing("active", started=-90 * DAY)])
        store.record(
            [resolved(f"f{n}", started=-n * HOUR, ended=-n * HOUR, told=-n * HOUR) for n in range(1, 6)]
        )

        cleaned(store, Retention(max_alerts=3, chunk=1))

    left = select(history_url, "SELECT fingerprint FROM alert ORDER BY id DESC")
    assert left == [("f1",), ("f2",), ("f3",), ("active",)]


def test_active_alerts_are_bounded_too(history_url: str) -> None:
    with opened(history_url) as store:
        store.record([firing(f"f{n}", started=-n * HOUR) for n in range(10)])

        cleaned(store, Retention(max_alerts=4, max_age=None))

    assert select(history_url, "SELECT fingerprint FROM alert ORDER BY id DESC") == [
        (f"f{n}",) for n in range(4)
    ]


def test_in_memory_alerts_are_bounded_and_active_ones_stay() -> None:
    memory = MemoryStore(Settings(history=None))
    memory.record([firing("active", started=-90 * DAY)])
    memory.record([resolved(f"f{n}", started=-n) for n in range(KEPT + 10)])

    page = Book(memory, memory.alert_log).page(limit=2 * KEPT)
    assert page.total == KEPT
    assert [one.fingerprint for one, active in page.alerts if active] == ["active"]
