"""Serves the API: inside a running loop (`Listener`), or in a thread of ours (`Server`)."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import Future
from typing import Any, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from taskscope.api.app import application
from taskscope.api.auth import refuse_open
from taskscope.api.backend import Backend
from taskscope.api.pool import Pool
from taskscope.errors import BadArgument, Unavailable
from taskscope.settings import Settings

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 75.0  # seconds; longer than the usual scrape interval. Also the time to send a request's head
_FAREWELL = 2.0  # seconds that answers under way get when the server stops
_BUSY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 54\r\n\r\n"
    b'{"error":"Too many connections are open.","errors":{}}'
)


class Listener:
    """An open port, answered by the running loop."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pool = Pool()
        self._runner: web.AppRunner | None = None
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0.

        Raises `BadArgument` for a host that needs tokens and for a bad certificate, `Unavailable` for a
        taken port.
        """
        settings = self._backend.settings
        refuse_open(settings, host)
        secure = tls(settings)
        app = application(self._backend, self._pool, host)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_Calm(_log, {}),
            keepalive_timeout=_KEEP_ALIVE,
            shutdown_timeout=_FAREWELL,
            handle_signals=False,
            auto_decompress=False,  # bodies are inflated by us, within their bound
        )
        self._socket = bound(host, port)
        await self._runner.setup()
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=self._socket, ssl=secure
        )
        return cast(int, self._socket.getsockname()[1])

    async def close(self) -> None:
        """Take no more connections, finish answers under way, close all. May be called twice."""
        if self._server is not None:
            await self._close_port(self._server)
        if self._runner is not None:
            await self._runner.cleanup()
        await self._pool.close()

    async def _close_port(self, server: asyncio.Server) -> None:
        """Connections that were just accepted come to be first: asyncio would leave them open for ever."""
        if server.is_serving() and self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            for _ in range(4):
                await asyncio.sleep(0)
        server.close()

    def abandon(self) -> None:
        """Let go of the port in a forked child, where no thread of ours runs; the parent keeps it."""
        if self._socket is not None:
            self._socket.close()

    def _connection(self) -> asyncio.Protocol:
        server = cast(web.Server, self._runner and self._runner.server)
        if len(server.connections) >= self._backend.settings.limits.connections:
            return _Refusal()
        return cast(asyncio.Protocol, server())


class Server:
    """A listener in a daemon thread with a loop of its own."""

    def __init__(self, backend: Backend) -> None:
        self._listener = Listener(backend)
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None

    def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises as `Listener.open` does."""
        started: Future[int] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve(host, port, started)), name="taskscope-http", daemon=True
        )
        self._thread.start()
        try:
            return started.result()
        except BaseException:
            self._thread.join()
            raise

    def stop(self) -> None:
        """Close the port and end the thread. May be called twice, and without `start`."""
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed already
                self._loop.call_soon_threadsafe(self._stop.set)
        if self._thread is not None:
            self._thread.join()

    def abandon(self) -> None:
        """Let go of the port in a forked child."""
        self._listener.abandon()
        self._thread = self._loop = None

    async def _serve(self, host: str, port: int, started: Future[int]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            actual = await self._listener.open(host, port)
        except BaseException as error:  # noqa: BLE001 - it is raised by `start`
            await self._listener.close()
            started.set_exception(error)
            return
        started.set_result(actual)
        await self._stop.wait()
        await self._listener.close()


class _Calm(logging.LoggerAdapter[logging.Logger]):
    """Keeps what strangers send in place of HTTP from filling the log; faults are still told."""

    def exception(self, msg: object, *args: object, exc_info: Any = True, **kwargs: Any) -> None:
        """Log with a traceback."""
        level = logging.DEBUG if isinstance(exc_info, HttpProcessingError) else logging.ERROR
        self.log(level, msg, *args, exc_info=exc_info, **kwargs)


class _Refusal(asyncio.Protocol):
    """Answers a connection beyond the bound."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say so and hang up."""
        cast(asyncio.Transport, transport).write(_BUSY)
        transport.close()


def rehearse(settings: Settings) -> None:
    """Raise what `Listener.open` would raise; leaves the port free."""
    if settings.port is not None:
        refuse_open(settings, settings.host)
        tls(settings)
        bound(settings.host, settings.port).close()


def bound(host: str, port: int) -> socket.socket:
    """A socket that owns this port. Raises `Unavailable` that names it."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise Unavailable(
            f"cannot listen on {host}:{port}: {why}; set another port (0 takes a free one) or host"
        ) from error


def tls(settings: Settings) -> ssl.SSLContext | None:
    """What the certificate settings ask for; None without them. Raises `BadArgument`."""
    if settings.tls_certificate is None:
        if settings.tls_key is not None:
            raise BadArgument("tls_key is set without tls_certificate: set both, or none")
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise BadArgument(
            f"tls_certificate={settings.tls_certificate!r} with its key cannot be used: {error}"
        ) from error
    return context
