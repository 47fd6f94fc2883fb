"""Work that somebody asks to start again: the answers of REST and of the page `/backfill` alike."""

import asyncio
import logging
from concurrent.futures import Future
from functools import partial
from typing import Annotated
from urllib.parse import urlencode

import msgspec
from msgspec import Meta

from taskscope.admission import clean
from taskscope.api.backend import Backend
from taskscope.api.endpoint import Call
from taskscope.api.errors import ApiError, missing
from taskscope.api.params import Text
from taskscope.api.wire import Moment, moment_of
from taskscope.backfill import Backfill, Function, backfills
from taskscope.errors import Unavailable
from taskscope.events import JobKey
from taskscope.redaction import Redaction

logger = logging.getLogger("taskscope")

PATIENCE = 5.0
"""Seconds that whoever asked waits for the end."""
LONGEST = 1_024
"""Characters of an entity."""


class BackfillRow(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for, and what came of it."""

    entity: Annotated[str | None, Meta(description="What is meant; null for all.")]
    force: Annotated[bool, Meta(description="Everything anew; else only what is missing.")]
    actor: Annotated[str | None, Meta(description="Who asked: the token's name; null where none is needed.")]
    started_at: Moment
    ended_at: Annotated[Moment | None, Meta(description="Null while it runs.")]
    result: Annotated[
        str | None, Meta(description="What the program's function said: how much, or a sentence.")
    ]
    error: Annotated[str | None, Meta(description="What it raised: class and message.")]


class BackfillQuery(msgspec.Struct, frozen=True, kw_only=True):
    """What to start again."""

    entity: Annotated[
        Text, Meta(max_length=LONGEST, description="A shop, a tenant, a database; left empty: all.")
    ] = ""
    force: Annotated[
        bool, Meta(description="Create everything anew, also what failed; else only what is missing.")
    ] = False


async def backfilled(call: Call, key: JobKey, query: BackfillQuery) -> Backfill:
    """What came of it, or, after some seconds, what still runs. Raises 404, 409, and 502 where the function raised."""
    function = function_for(call, key)
    asked = Backfill(
        *key, query.entity.strip() or None, query.force, actor=call.actor, started=call.now / 1000
    )
    try:
        end = backfills.start(asked, function, partial(_shown, call.backend))
    except Unavailable as error:
        raise ApiError(409, str(error)) from error
    _log(asked, "begins")
    end.add_done_callback(partial(_record, call.backend))
    try:
        ended = await asyncio.wait_for(asyncio.wrap_future(end), PATIENCE)
    except TimeoutError:
        return asked
    if ended.error:
        raise ApiError(502, f"The program's function failed: {ended.error}")
    return ended


def function_for(call: Call, key: JobKey) -> Function:
    """What the program registered for a job. Raises 404."""
    scheduler, job = key
    live = call.backend.live
    with live.lock:
        known = key in live.jobs or scheduler in live.schedulers
    if not known:
        raise missing(f"job {job!r} of scheduler {scheduler!r}")
    if (function := backfills.function(key)) is None:
        raise ApiError(
            404,
            f"Nothing here starts {job!r} of {scheduler!r} again: its program does, by a function under "
            "@taskscope.on_backfill. Ask the taskscope in that program; a collector can only where it imports it.",
        )
    return function


def page_of(key: JobKey, entity: str = "") -> str:
    """Where people start the work of a job again, as seen from our pages, also behind a proxy with a path."""
    return "backfill?" + urlencode({"scheduler": key[0], "job": key[1], "entity": entity}, errors="replace")


def backfill_row(one: Backfill) -> BackfillRow:
    """As the API writes it."""
    return BackfillRow(
        entity=one.entity,
        force=one.force,
        actor=one.actor or None,
        started_at=moment_of(one.started) or "",
        ended_at=moment_of(one.ended),
        result=one.result or None,
        error=one.error or None,
    )


def _record(backend: Backend, end: Future[Backfill]) -> None:
    """Leave a trace of what came of it."""
    ended = end.result()
    outcome = "failed" if ended.error else "success"
    backend.metrics.add("backfills_total", 1, *ended.key, outcome)
    _log(ended, f"failed: {ended.error}" if ended.error else f"ended: {ended.result or 'it says nothing'}")


def _log(one: Backfill, what: str) -> None:
    logger.log(
        logging.ERROR if one.error else logging.INFO,
        "the backfill of %r (entity: %s, force: %s), asked for by %s, %s",
        one.job,
        "all" if one.entity is None else repr(one.entity),
        str(one.force).lower(),
        one.actor or "local",
        what,
        extra={"scheduler": one.scheduler},
    )


def _shown(backend: Backend, text: str) -> str:
    settings = backend.settings
    return clean(Redaction(settings.redact).text(text), settings.limits.message)
