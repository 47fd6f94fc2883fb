"""From merged runs to the occurrences of errors in them.

What a run failed of is read off all that is known of the run, so that it does not matter what was told first.
"""

from collections.abc import Iterable, Iterator
from hashlib import sha256

from taskscope.facts import Bit, Change, Detail, Row, as_json
from taskscope.groups import Grouping
from taskscope.identity import anchor_ms, first_id
from taskscope.sinks.history.error_records import Sight

BAD = Bit.FAILED | Bit.RETRIED


def suspects(rows: Iterable[Row], changes: Iterable[Change]) -> list[Row]:
    """Of the runs of a batch those that may have an error; mostly there are none."""
    bad = {row.id: row for row in rows if row.detail is not None or row.facts & BAD}
    for change in changes:
        row = change.row
        if row.id in bad or row.facts & BAD:
            bad[row.id] = row
    return [bad[id] for id in sorted(bad)]


def failures(rows: Iterable[Row], grouping: Grouping) -> Iterator[Sight]:
    """What the runs failed of; nothing before the job's name is known."""
    for row in rows:
        if not row.facts & BAD or not row.facts & Bit.NAMED:
            continue
        told = row.detail or _NOTHING
        kind = row.exception or row.reason or "failed"
        if group := grouping.of(row.job_key, kind, told.message, told.stack):
            yield Sight(
                id=row.id,
                run=row.id,
                key=row.job_key,
                group=group,
                at=row.ended or row.started or anchor_ms(row.id),
                message=told.message,
                stack=told.stack,
                data=told.data,
                instance=row.instance,
                version=told.version,
            )


def captures(rows: Iterable[Row], grouping: Grouping) -> Iterator[Sight]:
    """What the runs reported without failing."""
    for row in rows:
        for one in row.detail.captured if row.detail else ():
            error = one.error
            if group := grouping.of(row.job_key, error.kind, error.message, error.stack):
                yield Sight(
                    id=_captured_id(row.id, one.key),
                    run=row.id,
                    key=row.job_key,
                    group=group,
                    at=round(one.at * 1000),
                    message=error.message,
                    stack=error.stack,
                    data=as_json(error.data),
                    instance=one.instance,
                    version=error.version,
                )


def _captured_id(run: bytes, key: str) -> bytes:
    """As a run's id it begins with the run's anchor, so that both are near each other and go together."""
    digest = sha256(run + key.encode("utf-8", "surrogatepass")).digest()
    return first_id(anchor_ms(run))[:6] + digest[:10]


_NOTHING = Detail()
