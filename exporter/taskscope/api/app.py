"""The application: finds the endpoints, checks each request, writes each answer."""

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from multidict import MultiDict

from taskscope.api.auth import Gate, Open
from taskscope.api.backend import Backend
from taskscope.api.body import read_body, read_bytes
from taskscope.api.endpoint import Call, Endpoint, endpoints
from taskscope.api.errors import ApiError, of_status
from taskscope.api.params import Reader
from taskscope.api.pool import Pool
from taskscope.api.wire import encode, takes_gzip

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]

_log = logging.getLogger(__name__)
_WORTH_PACKING = 1_024  # bytes
PATIENCE = 60.0
"""Seconds from the head of a request to the last byte of its answer taken."""


def application(backend: Backend, pool: Pool, host: str | None) -> web.Application:
    """All endpoints, guarded; `host` is the address that they will be served on.

    None: a socket file, which its permissions guard. There are probes there, and what takes events.
    """
    body = backend.settings.limits.body
    app = web.Application(middlewares=[_delivered, _explained, _bounded(body)], client_max_size=body)
    gate, known = Gate(backend, host) if host is not None else Open(), endpoints()
    for endpoint in known if host is not None else filter(_is_for_processes, known):
        route = _Route(endpoint, backend, pool, gate, known)
        for path in _spellings(endpoint.path):
            if endpoint.method == "GET":
                app.router.add_get(path, route.answer)  # and HEAD
            else:
                app.router.add_route(endpoint.method, path, route.answer)
    return app


class _Route:
    """Checks a request against the declaration of its endpoint and calls it."""

    def __init__(
        self, endpoint: Endpoint, backend: Backend, pool: Pool, gate: Gate | Open, known: tuple[Endpoint, ...]
    ) -> None:
        self._endpoint, self._gate = endpoint, gate
        self._context = (backend, pool, known)
        hints, limits = endpoint.hints, backend.settings.limits
        self._path = Reader(hints["path"], limits) if "path" in hints else None
        self._query = Reader(hints.get("query", _Nothing), limits)
        self._wants_query = "query" in hints
        self._needs_body = endpoint.wants_body
        self._body, self._takes, self._limits = hints.get("body"), endpoint.takes, limits

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """What the endpoint says."""
        self._gate.check(request, self._endpoint.scope)
        arguments = self._arguments(request)
        if self._takes:
            arguments["body"] = await read_bytes(request, self._takes, self._limits)
        elif self._body is not None and not self._needs_body and not request.can_read_body:
            arguments["body"] = self._body()
        elif self._body is not None:
            arguments["body"] = await read_body(request, self._body, self._limits)
        result = await self._endpoint.handler(Call(request, *self._context), **arguments)
        if isinstance(result, web.StreamResponse):
            return result
        response = json_response(request, result)
        if self._endpoint.file:
            name = quote(self._endpoint.file.format(**request.match_info), safe="")
            response.headers["Content-Disposition"] = f"inline; filename*=UTF-8''{name}"
        return response

    def _arguments(self, request: web.Request) -> dict[str, Any]:
        query = self._query.read(request.query)
        arguments: dict[str, Any] = {"query": query} if self._wants_query else {}
        if self._path:
            arguments["path"] = self._path.read(MultiDict(request.match_info))
        return arguments


class _Nothing(msgspec.Struct, frozen=True):
    """The query of an endpoint that takes none."""


def json_response(request: web.Request, value: Any, status: int = 200) -> web.Response:
    """The value as JSON, packed where that is worth it and understood."""
    body = encode(value)
    response = web.Response(body=body, status=status, content_type="application/json", headers=_HEADERS)
    if len(body) > _WORTH_PACKING and takes_gzip(request.headers.get("Accept-Encoding", "")):
        response.enable_compression(web.ContentCoding.gzip)
    return response


def _is_for_processes(endpoint: Endpoint) -> bool:
    return endpoint.path.startswith(("/-/", "/api/ingest/"))


def _spellings(path: str) -> tuple[str, ...]:
    """The path as aiohttp reads it; one that ends with a slash also without it."""
    routed = path.replace("{name}", r"{name:[\s\S]+}")  # a job's name holds any character, also a slash
    return (routed, routed.rstrip("/")) if path.endswith("/") and path != "/" else (routed,)


@web.middleware
async def _delivered(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Hangs up on whoever does not take the answer, so that slow readers cannot use up the connections."""
    late = asyncio.get_running_loop().call_later(PATIENCE, _hang_up, request)
    try:
        response = await handler(request)
        await response.prepare(request)
        await response.write_eof()
        return response
    except ConnectionError:  # the client is gone, or too slow; that is no fault of ours
        return web.Response()  # to nobody
    finally:
        late.cancel()


def _hang_up(request: web.Request) -> None:
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        # Without lingering the kernel drops what is unsent too, instead of holding it for the slow reader.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.transport.abort()


@web.middleware
async def _explained(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Answers with every error in the one form."""
    try:
        return await handler(request)
    except ApiError as error:
        return _problem(request, error)
    except web.HTTPException as refusal:
        return _problem(request, _of_server(refusal, request))
    except ConnectionError:
        raise
    except Exception:  # noqa: BLE001 - the one place where a fault becomes an answer
        fault = uuid4().hex[:12]
        _log.exception("fault %s in %s %s", fault, request.method, request.rel_url.raw_path)
        return _problem(request, ApiError(500, f"A fault of taskscope; its log says more under {fault}."))


def _of_server(refusal: web.HTTPException, request: web.Request) -> ApiError:
    """What aiohttp itself refused."""
    error = of_status(refusal.status, request.method, request.path)
    if "Allow" in refusal.headers:
        error.headers["Allow"] = refusal.headers["Allow"]
    return error


def _problem(request: web.Request, error: ApiError) -> web.Response:
    response = json_response(request, error.problem, error.status)
    response.headers.update(error.headers)
    return response


def _bounded(most: int) -> Middleware:
    @web.middleware
    async def bounded(request: web.Request, handler: Answer) -> web.StreamResponse:
        """Refuses a body beyond the bound before anybody reads it."""
        if (request.content_length or 0) > most:
            raise ApiError(
                413, f"The request body is larger than {most} bytes.", headers={"Connection": "close"}
            )
        return await handler(request)

    return bounded


_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
