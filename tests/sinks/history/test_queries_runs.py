"""Every answer equals what plain lists say, on SQLite and on PostgreSQL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from histories import done, opened, row
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from past import BEGIN, Past, filters, matching, ordered, rows, runs

from taskscope.errors import BadArgument
from taskscope.events import Error
from taskscope.settings import Limits, Settings
from taskscope.sinks.history import pages
from taskscope.sinks.history.pages import MAX_OFFSET
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter, Page

FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@contextmanager
def history(url: str, told: list[Past]) -> Iterator[Queries]:
    """A history of exactly these runs."""
    empty(url)
    with opened(url) as store:
        store.apply(rows(told))
        queries = Queries(url, Settings())
        try:
            yield queries
        finally:
            queries.close()


def empty(url: str) -> None:
    if url.startswith("sqlite"):
        for ending in ("", "-wal", "-shm"):
            Path(url.removeprefix("sqlite:///") + ending).unlink(missing_ok=True)
        return
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS taskscope CASCADE")


def ids(page: Page) -> list[bytes]:
    return [run.id for run in page.runs]


@FEW
@given(told=runs(), asked=st.lists(filters(), min_size=30, max_size=30), descending=st.booleans())
def test_a_filter_gives_what_a_plain_list_gives(
    history_url: str, told: list[Past], asked: list[Filter], descending: bool
):
    with history(history_url, told) as queries:
        for filter in asked:
            expected = [run.id for run in matching(told, filter)]
            page = queries.runs(filter, limit=100, descending=descending)

            assert ids(page) == (expected if descending else expected[::-1]), filter
            assert (page.total, page.exact, page.after) == (len(expected), True, None)
            assert [run.id for run in queries.iterate(filter)] == expected


@FEW
@given(told=runs(), asked=filters(), limit=st.integers(1, 7), descending=st.booleans())
def test_the_cursor_and_the_offset_walk_all_runs_once_and_in_order(
    history_url: str, told: list[Past], asked: Filter, limit: int, descending: bool
):
    with history(history_url, told) as queries:
        expected = [run.id for run in matching(told, asked)][:: 1 if descending else -1]
        walked, after = [], None
        while True:
            page = queries.runs(asked, limit=limit, after=after, descending=descending)
            assert page.total == len(expected), "a total is that of all pages"
            assert ids(page) == ids(
                queries.runs(asked, limit=limit, offset=len(walked), descending=descending)
            )
            walked += ids(page)
            if (after := page.after) is None:
                break

    assert walked == expected


@FEW
@given(told=runs(), asked=filters(), offset=st.integers(0, 5), descending=st.booleans())
def test_a_column_sorts_with_the_id_as_tie_break_and_the_unknown_last(
    history_url: str, told: list[Past], asked: Filter, offset: int, descending: bool
):
    with history(history_url, told) as queries:
        for column in ("started_at", "ended_at", "duration", "task", "status"):
            for filter in (Filter(), asked):
                expected = ordered(matching(told, filter), column, descending)
                page = queries.runs(filter, limit=10, offset=offset, sort=column, descending=descending)

                assert ids(page) == [run.id for run in expected[offset : offset + 10]], column
                assert (page.total, page.after) == (len(expected), None)


@pytest.mark.parametrize("descending", [True, False])
def test_several_values_of_several_fields_are_paged_as_one_list(history_url: str, descending: bool):
    statuses = ("failed", "skipped", "started", "success")
    told = [
        Past(n, statuses[n % 4], job=("b", "it's", "nightly")[n % 3], anchor=BEGIN + n * 1000)
        for n in range(240)
    ]
    with history(history_url, told) as queries:
        for status in (statuses[:2], statuses[:3], statuses[1:]):
            wanted = Filter(job=("b", "nightly"), status=status)
            expected = [run.id for run in matching(told, wanted)][:: 1 if descending else -1]
            for offset in (0, 7, 50, len(expected) - 3, len(expected)):
                page = queries.runs(wanted, limit=10, offset=offset, descending=descending)

                assert (ids(page), page.total) == (expected[offset : offset + 10], len(expected))


@FEW
@given(told=runs())
def test_a_run_and_the_names_come_back_as_they_were_told(history_url: str, told: list[Past]):
    with history(history_url, told) as queries:
        for run in told:
            found = queries.run(run.id)
            shown = {
                field: getattr(found, field) for field in Past._fields if field not in ("number", "anchor")
            }
            assert shown == {field: getattr(run, field) for field in shown}
            assert found.stack == ("at" if run.exception else "")

        assert queries.run(bytes(16)) is None
        assert queries.names() == sorted({run.job for run in told})
        assert queries.names(["S2"]) == sorted({run.job for run in told if run.scheduler == "S2"})
        assert queries.names(["never seen"]) == []


def test_only_one_run_or_an_export_carries_the_heavy_texts(history_url: str):
    error = Error(kind="E", message="why", stack="where", data={"code": "7"})
    with opened(history_url) as store:
        store.apply([failed := row(1, "failed", error=error, details={"items": 3})])
        queries = Queries(history_url, Settings())

        (listed,) = queries.runs(Filter(), limit=1).runs
        assert (listed.message, listed.stack, listed.data, listed.details) == ("why", "", "", "")
        for full in (queries.run(failed.id), next(queries.iterate(Filter()))):
            assert (full.message, full.stack, full.data, full.details) == (
                "why",
                "where",
                '{"code":"7"}',
                '{"items":3}',
            )
        queries.close()


def test_a_run_whose_name_is_not_known_yet_is_listed_but_is_no_name(history_url: str):
    with opened(history_url) as store:
        store.apply([nameless := done(1, job="")])
        queries = Queries(history_url, Settings())

        assert ids(queries.runs(Filter(), limit=5)) == [nameless.id]
        assert queries.names() == []
        queries.close()


def test_a_lost_run_is_unknown_until_it_ends_after_all(history_url: str):
    with opened(history_url) as store:
        queries = Queries(history_url, Settings())
        store.apply([row(1, "started")])
        store.apply([row(1, "unknown")])
        assert queries.runs(Filter(status=("unknown",)), limit=5).total == 1

        store.apply([done(1)])

        assert queries.runs(Filter(status=("unknown",)), limit=5).total == 0
        assert queries.runs(Filter(status=("success",)), limit=5).total == 1
        queries.close()


@pytest.mark.parametrize("text", ["\0", "\ud800", "%" * 100_000, "'; DROP TABLE run; --", "()*[]{}"])
def test_odd_texts_are_only_texts(history_url: str, text: str):
    with history(history_url, [Past(1, "success")]) as queries:
        odd = (
            Filter(q=text),
            Filter(job=(text,)),
            Filter(queue=(text,)),
            Filter(exception=(text,)),
            Filter(trace_id=text),
        )

        assert [queries.runs(filter, limit=5).total for filter in odd] == [0] * 5
        assert queries.runs(Filter(), limit=5).total == 1


def test_many_values_of_many_fields_are_bearable(history_url: str):
    told = [Past(number, "failed", job=f"job {number}") for number in range(600)]
    names = tuple(run.job for run in told[:500])
    with history(history_url, told) as queries:
        assert queries.runs(Filter(job=names), limit=5).total == 500
        assert queries.runs(Filter(job=names, status=("failed", "skipped", "success")), limit=5).total == 500
        assert queries.runs(Filter(job=names, status=("failed", "skipped")), limit=5).total == 500
        assert queries.runs(Filter(slow_by_job={("s", name): 1.0 for name in names}), limit=5).total == 0


def test_totals_beyond_the_exact_ones_are_marked_and_near(history_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pages, "EXACT", 50)
    told = [Past(n, "failed" if n % 2 else "success", anchor=BEGIN + n * 1000) for n in range(1000)]
    with history(history_url, told) as queries:
        for filter, true in (
            (Filter(), 1000),
            (Filter(status=("failed",)), 500),
            (Filter(job=("b",), since=BEGIN + 500_000), 500),
        ):
            page = queries.runs(filter, limit=5)
            assert not page.exact
            assert page.total == pytest.approx(true, rel=0.1), filter

        few = queries.runs(Filter(until=BEGIN + 50_000), limit=5)
        assert (few.total, few.exact) == (50, True)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 1001}, "limit"),
        ({"limit": 5, "offset": -1}, "offset"),
        ({"limit": 5, "offset": MAX_OFFSET + 1}, "cursor"),
        ({"limit": 5, "after": bytes(16), "sort": "duration"}, "cursor"),
        ({"limit": 5, "after": bytes(16), "offset": 5}, "cursor"),
    ],
)
def test_a_page_that_cannot_be_is_refused_by_name(sqlite_url: str, wrong: dict[str, object], why: str):
    queries = Queries(sqlite_url, Settings())
    with pytest.raises(BadArgument, match=why):
        queries.runs(Filter(), **wrong)


def test_the_longest_page_is_a_setting(sqlite_url: str):
    with history(sqlite_url, [Past(1, "success")]):
        queries = Queries(sqlite_url, Settings(limits=Limits(page=10)))
        with pytest.raises(BadArgument, match="between 1 and 10"):
            queries.runs(Filter(), limit=11)
        assert len(queries.runs(Filter(), limit=10).runs) == 1
        queries.close()
