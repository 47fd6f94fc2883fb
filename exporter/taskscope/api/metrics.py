"""`/metrics`: what Prometheus scrapes; memory only, whatever the store does."""

import asyncio
from collections.abc import Collection
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta

from taskscope.api.backend import Backend, Rendered
from taskscope.api.endpoint import Call, get
from taskscope.api.params import Texts
from taskscope.api.wire import takes_gzip

_AT_ONCE = 2**20  # bytes; copying so few costs less than sending them in pieces


class MetricsQuery(msgspec.Struct, frozen=True):
    """Which samples."""

    names: Annotated[Texts, Meta(description="Only samples of this name; none: all.")] = msgspec.field(
        default=(), name="name[]"
    )


@get("/metrics", tag="Metrics", scope="metrics", media="text/plain")
async def metrics(call: Call, query: MetricsQuery) -> web.StreamResponse:
    """Give all metrics, as OpenMetrics 1.0 or as Prometheus text 0.0.4, whichever Accept prefers.

    It reads memory only and never waits for the history.
    """
    request = call.request
    page = await asyncio.to_thread(  # many series take long, and the loop may be that of the user's program
        _render,
        call.backend,
        request.headers.get("Accept", ""),
        query.names,
        takes_gzip(request.headers.get("Accept-Encoding", "")),
    )
    headers = {"Content-Type": page.content_type, "Vary": "Accept, Accept-Encoding"}
    if page.encoding:
        headers["Content-Encoding"] = page.encoding
    if sum(map(len, page.blocks)) <= _AT_ONCE:
        return web.Response(body=b"".join(page.blocks), headers=headers)
    response = web.StreamResponse(headers=headers)
    response.content_length = sum(map(len, page.blocks))
    await response.prepare(request)
    for block in page.blocks if request.method == "GET" else ():
        await response.write(block)
    return response


def _render(backend: Backend, accept: str, names: Collection[str], compress: bool) -> Rendered:
    backend.refresh()
    return backend.metrics.render(accept, names, compress)
