"""Runs as files for other programs: JSON lines with all that is known, CSV for spreadsheets."""

import csv
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TextIO

import msgspec

from taskscope import identity
from taskscope.errors import BadArgument
from taskscope.sinks.history.records import Run

COLUMNS = (
    "id",
    "scheduler",
    "job",
    "status",
    "reason",
    "attempt",
    "due_at",
    "enqueued_at",
    "started_at",
    "ended_at",
    "duration_ms",
    "queue",
    "worker",
    "instance",
    "entity",
    "trace_id",
    "exception",
    "message",
    "key",
    "result",
)
"""The columns of a CSV export, in this order for ever; new ones come at the end."""


def write_json_lines(runs: Iterable[Run], out: TextIO, **more: Any) -> int:
    """Write one JSON object a line: `COLUMNS`, then `stack`, `data`, `details` and `more`; return how many."""
    count = 0
    for run in runs:
        record = flat(run) | {"stack": run.stack, "data": _object(run.data), "details": _object(run.details)}
        record |= more
        out.write(msgspec.json.encode(record).decode() + "\n")
        count += 1
    return count


def write_csv(runs: Iterable[Run], out: TextIO) -> int:
    """Write a header and a row for each run, unknown cells empty; return how many. `out` has `newline=""`."""
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for run in runs:
        writer.writerow([_cell(value) for value in flat(run).values()])
        count += 1
    return count


def writer(format: str) -> Callable[[Iterable[Run], TextIO], int]:
    """The writer for `jsonl` or `csv`. Raises `BadArgument` for any other format."""
    writers = {"jsonl": write_json_lines, "csv": write_csv}
    if format not in writers:
        raise BadArgument(f"format={format!r} is not known: give one of {', '.join(writers)}")
    return writers[format]


def flat(run: Run) -> dict[str, Any]:
    """A run by `COLUMNS`: times as RFC 3339 in UTC, the duration in ms, None where unknown."""
    return {
        "id": identity.text(run.id),
        "scheduler": run.scheduler,
        "job": run.job,
        "status": run.status,
        "reason": run.reason,
        "attempt": run.attempt,
        "due_at": rfc3339(run.due),
        "enqueued_at": rfc3339(run.enqueued),
        "started_at": rfc3339(run.started),
        "ended_at": rfc3339(run.ended),
        "duration_ms": None if run.duration is None else run.duration / 1000,
        "queue": run.queue,
        "worker": run.worker,
        "instance": run.instance,
        "entity": run.entity,
        "trace_id": run.trace_id,
        "exception": run.exception,
        "message": run.message,
        "key": run.key,
        "result": run.result,
    }


def rfc3339(ms: int | None) -> str | None:
    """A point in time, in ms since the epoch, as `2026-01-31T12:00:00.000Z`."""
    if ms is None:
        return None
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _object(text: str) -> msgspec.Raw | None:
    """JSON text as it is, so that it is not parsed to be written again."""
    return msgspec.Raw(text.encode()) if text else None


def _cell(value: object) -> object:
    """What a spreadsheet shows as text: a job may be called `=cmd()`, and must not become a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n")):
        return "'" + value
    return value
