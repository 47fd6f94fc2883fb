"""Runs as JSON lines and as CSV, read back by programs that know nothing of us."""

import csv
import io
import json
from datetime import UTC, datetime

import pytest
from histories import done, opened, row

from taskscope.errors import BadArgument
from taskscope.events import Error
from taskscope.settings import Settings
from taskscope.sinks.history.export import COLUMNS, rfc3339, write_csv, write_json_lines, writer
from taskscope.sinks.history.queries import Queries
from taskscope.sinks.history.records import Filter, Run

RUN = Run(
    id=bytes(range(16)),
    scheduler="s",
    job="nightly",
    status="failed",
    reason="error",
    attempt=1,
    due=None,
    enqueued=0,
    started=1_760_000_000_123,
    ended=1_760_000_001_123,
    duration=1_000_500,
    queue="",
    worker="w",
    instance="",
    entity="",
    key="order-7",
    result="package 88",
    trace_id="",
    exception="ValueError",
    message='a "b",\nc; größe',
    stack="Traceback",
    data='{"code":7}',
)


def as_csv(*runs: Run) -> list[dict[str, str]]:
    out = io.StringIO(newline="")
    assert write_csv(runs, out) == len(runs)
    return list(csv.DictReader(io.StringIO(out.getvalue(), newline="")))


def as_json(*runs: Run) -> list[dict[str, object]]:
    out = io.StringIO()
    assert write_json_lines(runs, out) == len(runs)
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_csv_has_the_columns_in_order_and_unknown_cells_empty():
    (read,) = as_csv(RUN)

    assert tuple(read) == COLUMNS
    assert read["id"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert read["started_at"] == "2025-10-09T08:53:20.123Z"
    assert read["enqueued_at"] == "1970-01-01T00:00:00.000Z"
    assert read["due_at"] == ""
    assert read["duration_ms"] == "1000.5"
    assert read["message"] == 'a "b",\nc; größe'
    assert (read["key"], read["result"]) == ("order-7", "package 88")


def test_json_lines_have_everything_and_null_where_unknown():
    read, empty = as_json(RUN, done_run())

    assert tuple(read) == (*COLUMNS, "stack", "data", "details")
    assert read["message"] == RUN.message
    assert (read["due_at"], read["duration_ms"], read["stack"]) == (None, 1000.5, "Traceback")
    assert (read["data"], read["details"]) == ({"code": 7}, None)
    assert (empty["data"], empty["duration_ms"]) == (None, None)


def done_run() -> Run:
    fields = {field: getattr(RUN, field) for field in RUN.__struct_fields__}
    return Run(**fields | {"data": "", "duration": None})


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_no_cell_of_a_csv_is_a_formula(start: str):
    fields = {field: getattr(RUN, field) for field in RUN.__struct_fields__}
    evil = Run(**fields | {"job": f"{start}cmd|' /C calc'!A0", "worker": f"{start}1"})

    (read,) = as_csv(evil)

    assert read["job"] == f"'{evil.job}"
    assert read["worker"] == f"'{evil.worker}"
    assert as_json(evil)[0]["job"] == evil.job, "a program reads what it was"


def test_nothing_to_export_is_a_header_or_an_empty_file():
    assert as_csv() == []
    assert as_json() == []


@pytest.mark.parametrize(("format", "expected"), [("csv", write_csv), ("jsonl", write_json_lines)])
def test_a_writer_is_known_by_its_format(format: str, expected: object):
    assert writer(format) is expected


def test_an_unknown_format_is_a_wrong_argument():
    with pytest.raises(BadArgument, match="jsonl, csv"):
        writer("xml")


@pytest.mark.parametrize("ms", [0, 1, 999, 1_760_000_000_123, 32_503_679_999_999])
def test_times_are_exact_to_the_ms_and_in_utc(ms: int):
    text = rfc3339(ms)

    assert text is not None
    assert text.endswith("Z")
    moment = datetime.fromisoformat(text)
    assert moment.tzinfo == UTC
    assert round(moment.timestamp() * 1000) == ms


def test_a_history_is_exported_newest_first_in_pieces(history_url: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("taskscope.sinks.history.queries.CHUNK", 7)
    error = Error(kind="E", message="=1+1", stack="where")
    with opened(history_url) as store:
        runs = [done(n) for n in range(30)] + [row(n, "failed", error=error) for n in range(30, 50)]
        store.apply(sorted(runs, key=lambda run: run.id))
        queries = Queries(history_url, Settings())
        out = io.StringIO()
        write_json_lines(queries.iterate(Filter()), out)
        queries.close()

    read = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["id"] for line in read] == sorted((line["id"] for line in read), reverse=True)
    assert len({line["id"] for line in read}) == 50
    assert sum(line["stack"] == "where" for line in read) == 20
