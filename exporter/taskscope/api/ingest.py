"""`/api/ingest/…`: events of other processes; the format is told by `events.py` and docs/ingest.md."""

from itertools import islice
from typing import Annotated

import msgspec
from msgspec import Meta

from taskscope.api.endpoint import JSON, Call, post
from taskscope.api.errors import ApiError
from taskscope.api.sent import at_once, one_by_one
from taskscope.events import Event

NDJSON = "application/x-ndjson"

_TOLD = 100
"""Reasons in one answer."""

Sent = Annotated[
    list[Event],
    Meta(
        description="Events. One that is not as described is refused alone.",
        extra_json_schema={
            "items": {
                "anyOf": [
                    *({"$ref": f"#/components/schemas/{kind.__name__}"} for kind in Event.__args__),
                    {"description": "Anything else is refused alone."},
                ]
            }
        },
    ),
]
SentLines = Annotated[str, Meta(description="The same events, one a line; empty lines do not count.")]


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """An event that was not taken."""

    index: Annotated[int, Meta(description="Its place among the events of the request, from 0.")]
    error: Annotated[str, Meta(description="What is wrong with it.")]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the events."""

    accepted: Annotated[
        int, Meta(description="They are durable, were so before, or are about jobs to ignore.")
    ]
    refused: Annotated[int, Meta(description="Sending these again does not help.")]
    errors: Annotated[list[Refusal], Meta(description=f"Of the first {_TOLD} refused ones, why.")]


@post(
    "/api/ingest/events",
    tag="Ingest",
    scope="ingest",
    errors=(422, 429),
    takes={JSON: Sent, NDJSON: SentLines},
)
async def ingest(call: Call, body: bytes) -> Taken:
    """Take in events of other processes.

    The answer comes once they are durable; what is sent twice, late or in another order changes nothing, so that
    whatever was not answered can be sent again. An event that is not understood is refused alone; only where none is
    taken the answer is 422. A body packed by gzip says so by Content-Encoding.
    """
    limits, in_lines = call.backend.settings.limits, call.request.content_type == NDJSON
    batch = at_once(body, in_lines, limits)
    if batch is None:
        batch = await call.ask(one_by_one, body, in_lines, limits)
    errors = dict(batch.errors)
    for why in errors.values():
        call.writer.refuse(why)
    if batch.events:
        refused = await call.durable(call.writer.deliver(batch.events))
        errors |= {batch.places[number]: why for number, why in refused.items()}
    sent = len(batch.events) + len(batch.errors)
    if errors and len(errors) == sent:
        raise _none(errors)
    told = [Refusal(index=place, error=errors[place]) for place in islice(sorted(errors), _TOLD)]
    return Taken(accepted=sent - len(errors), refused=len(errors), errors=told)


def _none(errors: dict[int, str]) -> ApiError:
    """422: none of the events could be taken."""
    told = {f"[{place}]": errors[place] for place in islice(sorted(errors), _TOLD)}
    first, why = next(iter(told.items()))
    return ApiError(422, f"None of the {len(errors)} events could be taken; {first} {why}", told)
