"""The usual questions walk an index in the order of the answer; nothing is sorted but the page itself."""

import sqlite3
from collections.abc import Iterator

import pytest
import sqlalchemy as sa
from past import BEGIN, Past
from test_queries_runs import history

from taskscope.sinks.history import pages
from taskscope.sinks.history.error_records import ErrorFilter
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter

AFTER = Past(2, "success", anchor=BEGIN + 2).id


@pytest.fixture
def asked(sqlite_url: str) -> Iterator[tuple[Queries, list[tuple[str, object]]]]:
    """A history on SQLite, and every statement that it is asked."""
    statements: list[tuple[str, object]] = []

    def listen(_: object, __: object, statement: str, parameters: object, *___: object) -> None:
        if statement.startswith("SELECT"):
            statements.append((statement, parameters))

    told = [
        Past(n, "failed", anchor=BEGIN + n, trace_id="abc", exception="E", entity="e", key="k")
        for n in range(5)
    ]
    with history(sqlite_url, told) as queries:
        sa.event.listen(sa.Engine, "before_cursor_execute", listen)
        yield queries, statements
        sa.event.remove(sa.Engine, "before_cursor_execute", listen)


def plans(url: str, statements: list[tuple[str, object]]) -> list[list[str]]:
    """How SQLite goes about each statement."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        found = [
            [row[-1] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            for statement, parameters in statements
        ]
    connection.close()
    return found


@pytest.mark.parametrize(
    ("filter", "index"),
    [
        (Filter(), "SCAN run"),
        (Filter(since=BEGIN, until=BEGIN + 9), "run USING PRIMARY KEY (id>? AND id<?)"),
        (Filter(status=("failed",)), "run USING COVERING INDEX run_unsuccessful (rank=?)"),
        (Filter(status=("started",)), "run USING COVERING INDEX run_unsuccessful (rank=?)"),
        (
            Filter(status=("failed",), since=BEGIN),
            "run USING COVERING INDEX run_unsuccessful (rank=? AND id>?)",
        ),
        (Filter(status=("failed", "skipped")), "run USING COVERING INDEX run_unsuccessful (rank=?)"),
        (Filter(job=("b",)), "run USING COVERING INDEX run_by_job (job=?)"),
        (Filter(scheduler=("s",)), "run USING COVERING INDEX run_by_job (job=?)"),
        (
            Filter(job=("b",), status=("failed",)),
            "run USING COVERING INDEX run_ended_badly (job=? AND rank=?)",
        ),
        (
            Filter(job=("b",), status=("failed",), until=BEGIN + 9),
            "run USING COVERING INDEX run_ended_badly (job=? AND rank=? AND id<?)",
        ),
        (Filter(job=("b",), status=("success",)), "run USING INDEX run_by_job (job=?)"),
        (Filter(trace_id="abc"), "run USING COVERING INDEX run_by_trace (trace_id=?)"),
        (
            Filter(trace_id="abc", job=("b",), status=("failed", "success")),
            "run USING INDEX run_by_trace (trace_id=?)",
        ),
        (Filter(entity=("e",)), "run USING COVERING INDEX run_by_entity (entity=?)"),
        (Filter(key=("k",)), "run USING COVERING INDEX run_by_key (key=?)"),
        (Filter(key=("k", "l"), since=BEGIN), "run USING COVERING INDEX run_by_key (key=? AND id>?)"),
        (Filter(key=("k",), job=("b",), status=("failed",)), "run USING INDEX run_by_key (key=?)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_usual_filter_walks_its_index(
    asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str, filter: Filter, index: str
):
    queries, statements = asked
    queries.runs(filter, limit=2)

    *_, page = plans(sqlite_url, statements)
    walks = [line for line in page if " run " in f"{line} " and "PRIMARY KEY (id=?)" not in line]
    assert walks
    assert all(line.endswith(index) for line in walks)
    if len(walks) == 1 and len(filter.key) < 2:
        assert "USE TEMP B-TREE FOR ORDER BY" not in page[:-1], "only the page itself is put in order"


@pytest.mark.parametrize("descending", [True, False])
def test_a_cursor_seeks_instead_of_skipping(
    asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str, descending: bool
):
    queries, statements = asked
    queries.runs(Filter(), limit=2, after=AFTER, descending=descending)

    *_, page = plans(sqlite_url, statements)
    assert f"SEARCH run USING PRIMARY KEY (id{'<' if descending else '>'}?)" in page
    assert "USE TEMP B-TREE FOR ORDER BY" not in page[:-1]


def test_a_page_costs_a_handful_of_statements(asked: tuple[Queries, list[tuple[str, object]]]):
    queries, statements = asked
    queries.runs(Filter(), limit=5)  # once a minute the size of the table as well
    statements.clear()
    queries.runs(Filter(), limit=5)

    assert len(statements) == 2, "total and page"


def test_a_page_of_everything_is_one_statement(
    asked: tuple[Queries, list[tuple[str, object]]], monkeypatch: pytest.MonkeyPatch
):
    queries, statements = asked
    monkeypatch.setattr(pages, "EXACT", 0)  # five runs are many
    queries.runs(Filter(), limit=5)
    statements.clear()
    queries.runs(Filter(), limit=5, after=AFTER)

    assert len(statements) == 1


def test_statistics_of_days_read_days(asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str):
    queries, statements = asked
    queries.stats(BEGIN - 30 * 86_400_000, BEGIN + 1_800_000, (50,))

    walks = [
        line
        for plan in plans(sqlite_url, statements)
        for line in plan
        if " rollup " in line or " run " in line
    ]
    assert len(walks) == 4, "hours, days, hours; and the runs of the last half hour"
    assert all("USING PRIMARY KEY" in line for line in walks)


@pytest.mark.parametrize(
    "filter", [ErrorFilter(), ErrorFilter(state=("open",)), ErrorFilter(job=("b",), since=1)]
)
def test_a_list_of_errors_walks_an_index_without_texts(
    asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str, filter: ErrorFilter
):
    queries, statements = asked
    assert queries.errors(filter, limit=2).total

    for plan in plans(sqlite_url, statements):
        for line in plan:
            if "error_group" in line:
                assert "COVERING INDEX" in line or "PRIMARY KEY (fingerprint=?)" in line, plan


def test_occurrences_and_trends_of_an_error_walk_their_indexes(
    asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str
):
    queries, statements = asked
    error = queries.errors(ErrorFilter(), limit=1).groups[0].fingerprint
    statements.clear()
    assert queries.occurrences(error, limit=2)
    queries.error_trend(error, 0, 3_600_000, 3_600_000)
    queries.error_trend(error, 0, 3_600_000, 60_000)
    queries.error_trends(ErrorFilter(), BEGIN, BEGIN + 3_600_000, 3_600_000, 10)
    queries.error_trends(ErrorFilter(job=("b",)), BEGIN, BEGIN + 3_600_000, 60_000, 10)
    queries.errors_of(AFTER)
    queries.runs(Filter(error=(error,)), limit=2)

    lines = [line for plan in plans(sqlite_url, statements) for line in plan]
    assert [line for line in lines if line.startswith(("SCAN occurrence", "SCAN error"))] == []
    assert any("occurrence_captured (run=?)" in line for line in lines)
    assert any("occurrence_by_error (error=?" in line for line in lines)
    assert any("error_rollup_by_error (error=? AND at>?)" in line for line in lines)


def test_what_is_added_up_over_a_span_walks_no_more_than_the_span(
    asked: tuple[Queries, list[tuple[str, object]]], sqlite_url: str
):
    queries, statements = asked
    queries.flows(BEGIN, BEGIN + 9)
    queries.entities(BEGIN, BEGIN + 9)
    queries.failing_entities(BEGIN, BEGIN + 9)
    queries.entity_failures((("s", "b"), "e"), BEGIN, BEGIN, BEGIN + 9)

    lines = [line for plan in plans(sqlite_url, statements) for line in plan if " run " in line]
    usual = (
        "SEARCH run USING PRIMARY KEY (id>?",
        "SEARCH run USING INDEX run_by_entity (entity=? AND id",
        "SCAN run USING COVERING INDEX run_by_entity",  # one row: is there any?
    )
    assert [line for line in lines if not line.startswith(usual)] == []
    assert len(lines) == 8
