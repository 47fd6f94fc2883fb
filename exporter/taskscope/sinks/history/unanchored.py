"""Rows of runs without an anchor: each came under the id that its own facts would have chosen."""

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from taskscope.facts import Bit, Row, merge
from taskscope.identity import key


def provisional(rows: Iterable[Row]) -> dict[bytes, bytes]:
    """The ids of the rows without an anchor, by what every id of their run has in common; the first of each run."""
    ids: dict[bytes, bytes] = {}
    for row in [row for row in rows if row.facts & Bit.UNANCHORED]:  # most batches have none
        ids.setdefault(key(row.id), row.id)
    return ids


def settled(rows: Iterable[Row], ids: Mapping[bytes, bytes]) -> list[Row]:
    """One row for each run, ascending by id: without an anchor under the id that `ids` has for it."""
    runs: dict[bytes, Row] = {}
    for row in rows:
        run = ids[key(row.id)] if row.facts & Bit.UNANCHORED else row.id
        mine = row if run == row.id else replace(row, id=run)
        runs[run] = merge(runs[run], mine) if run in runs else mine
    return [runs[run] for run in sorted(runs)]
