"""`/-/healthy` and `/-/ready`: is it alive, and does every part do its work?"""

from typing import Annotated, Literal

import msgspec
from aiohttp import web
from msgspec import Meta

from taskscope.api.endpoint import Call, get
from taskscope.api.wire import Milliseconds, Moment, encode, moment_of


class Healthy(msgspec.Struct, frozen=True):
    """It answers."""

    status: Literal["healthy"] = "healthy"


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A part of taskscope."""

    name: str
    kind: Literal["bridge", "pipeline", "store"]
    ready: bool
    at: Annotated[Moment | None, Meta(description="Its last sign of life.")]
    age: Annotated[Milliseconds | None, Meta(description="How long ago that was.")]
    message: Annotated[str | None, Meta(description="What is wrong.")]


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """Whether every part does its work."""

    ready: bool
    parts: list[Part]


@get("/-/healthy", tag="Probes", scope="")
async def healthy(call: Call) -> Healthy:
    """Say that the process answers; it says so also while the history is away."""
    return Healthy()


@get("/-/ready", tag="Probes", scope="", also=(503,))
async def ready(call: Call) -> web.StreamResponse | Ready:
    """Say which part does its work and how old its last sign of life is; 503 unless all do."""
    now = call.backend.clock()
    parts = [
        Part(
            name=part.name,
            kind=part.kind,
            ready=part.ready,
            at=moment_of(part.at),
            age=None if part.at is None else round(max(0.0, now - part.at) * 1000, 3),
            message=part.message or None,
        )
        for part in call.backend.ready()
    ]
    answer = Ready(ready=all(part.ready for part in parts), parts=parts)
    status = 200 if answer.ready else 503
    return web.Response(body=encode(answer), status=status, content_type="application/json")
