"""Names that no run needs any more go; none goes that a run, a process or the store itself still needs."""

from collections.abc import Iterator

import pytest
from histories import NOW, batch, done, opened, row, select
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.process import until
from taskscope.settings import Retention as Rules
from taskscope.settings import Settings
from taskscope.sinks.history import unused
from taskscope.sinks.history.replica import company
from taskscope.sinks.history.retention import Retention
from taskscope.sinks.history.sql import SqlStore

COLUMNS = ("reason", "exception", "queue", "worker", "instance", "entity")
DAY = 86_400


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unused, "FEW", 0)
    monkeypatch.setattr(unused, "_HOP", 2)


def names(url: str) -> set[str]:
    return {text for (text,) in select(url, "SELECT text FROM name")}


def dangling(url: str) -> list[tuple[object, ...]]:
    """References to names that are not there."""
    missing = " OR ".join(f"({c} <> 0 AND {c} NOT IN (SELECT id FROM name))" for c in COLUMNS)
    return select(url, f"SELECT id FROM run WHERE {missing}")


def forget_run(store: SqlStore, number: int) -> None:
    """As retention does."""
    with store.transaction() as connection:
        marks = "?" if connection.dialect.name == "sqlite" else "%s"
        connection.exec_driver_sql(f"DELETE FROM run WHERE id = {marks}", (done(number).id,))


def swept(store: SqlStore, chunk: int = 2) -> int:
    return sum(unused.remove(store, chunk))


def test_names_of_runs_that_were_removed_go_and_all_others_stay(store: SqlStore, history_url: str) -> None:
    used = {"reason": "misfire", "queue": "q", "worker": "w", "instance": "h:1:x", "entity": "shop"}
    store.apply(batch([row(1, "skipped", **used), done(2, entity="gone", worker="gone too", queue="q")]))
    store.apply(batch([done(number, entity=f"old-{number}") for number in range(10, 17)]))
    store.beat(["h:2:y"], NOW)
    for number in (2, *range(10, 17)):
        forget_run(store, number)

    removed = swept(store)

    assert names(history_url) == {*used.values(), "h:2:y"}
    assert removed == 9
    assert store.apply([done(3, entity="gone")]).changes, "a name that went can come again"
    assert names(history_url) == {*used.values(), "h:2:y", "gone"}
    assert dangling(history_url) == []


def test_a_name_that_is_used_again_while_a_pass_goes_on_stays(store: SqlStore, history_url: str) -> None:
    store.apply(batch([done(number, entity=f"shop-{number}") for number in range(1, 8)]))
    forget_run(store, 1)
    forget_run(store, 2)

    sweep = unused.remove(store, 2)
    for _ in range(3):
        next(sweep)
    store.apply([done(1, entity="shop-1")])  # behind what was read already
    for _ in sweep:
        pass

    assert names(history_url) == {"shop-1", *(f"shop-{number}" for number in range(3, 8))}
    assert dangling(history_url) == []


def test_a_pass_ends_when_the_store_had_to_forget_what_it_remembers(
    store: SqlStore, history_url: str
) -> None:
    store.apply(batch([done(number, entity=f"shop-{number}") for number in range(1, 8)]))
    forget_run(store, 1)

    sweep = unused.remove(store, 2)
    next(sweep)
    store.names.forget()
    assert sum(sweep) == 0

    assert "shop-1" in names(history_url)


Step = tuple[str, int, int]


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    before=st.lists(st.tuples(st.integers(1, 12), st.integers(0, 5)), max_size=12),
    meanwhile=st.lists(
        st.tuples(st.sampled_from(["merge", "remove", "sweep"]), st.integers(1, 12), st.integers(0, 5)),
        max_size=25,
    ),
)
def test_whatever_happens_during_a_pass_no_run_loses_a_name(
    tmp_path_factory: pytest.TempPathFactory, before: list[tuple[int, int]], meanwhile: list[Step]
) -> None:
    url = f"sqlite:///{tmp_path_factory.mktemp('names') / 'runs.db'}"
    with opened(url) as store:
        store.apply(batch([_run(*told) for told in before]))
        sweep: Iterator[int] = unused.remove(store, 1)
        for what, number, entity in meanwhile:
            if what == "merge":
                store.apply([_run(number, entity)])
            elif what == "remove":
                forget_run(store, number)
            else:
                next(sweep, None)
            assert dangling(url) == []
        for _ in sweep:
            assert dangling(url) == []


def _run(number: int, entity: int):  # type: ignore[no-untyped-def]
    return done(number, entity=f"shop-{entity}", worker=f"w{number % 3}")


def alone(store: SqlStore) -> bool:
    """Has the server noticed that the others have gone?"""
    with store.transaction() as connection:
        return company(connection).writers == 1


def test_of_replicas_none_removes_names_that_another_may_remember(postgres_url: str) -> None:
    with opened(postgres_url) as store:
        store.apply(batch([done(1, entity="gone"), done(2, entity="stays")]))
        forget_run(store, 1)

        with opened(postgres_url):
            assert swept(store) == 0, "another is there"

        until(lambda: alone(store))
        sweep = unused.remove(store, 2)
        next(sweep)
        with opened(postgres_url) as other:
            other.apply([done(3, entity="gone")])
        until(lambda: alone(store))
        assert sum(sweep) == 0, "another was there"
        assert dangling(postgres_url) == []

        forget_run(store, 3)
        assert swept(store) == 1, "alone again"
    assert names(postgres_url) == {"stays"}


def test_retention_removes_names_once_a_day_and_only_where_there_are_many(
    history_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = Settings(service="tests", retention=Rules(max_age=DAY))
    with opened(history_url, rules, clock=NOW - 3 * DAY) as store:
        old = {"at": NOW - 3 * DAY, "anchor": NOW - 3 * DAY}
        store.apply(batch([done(number, entity=f"old-{number}", **old) for number in range(1, 6)]))
        store.apply([done(9, entity="new")])
        retention = Retention(store)
        monkeypatch.setattr(unused, "FEW", 6)
        retention.prune(NOW)
        assert len(names(history_url)) == 6, "few"

        monkeypatch.setattr(unused, "FEW", 5)
        retention.prune(NOW + 600)
        assert len(names(history_url)) == 6, "not again on the same day"

        retention.prune(NOW + 2000)
        Retention(store).prune(NOW)
        assert names(history_url) == {"new"}
