"""Serves the API: inside a running loop (`Listener`), or in a thread of ours (`Server`); on a port or a socket file."""

import asyncio
import contextlib
import logging
import os
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import CancelledError, Future
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from taskscope.api.app import application
from taskscope.api.auth import refuse_open
from taskscope.api.backend import Backend
from taskscope.api.pool import Pool
from taskscope.errors import BadArgument, Unavailable
from taskscope.settings import Settings

T = TypeVar("T")

_log = logging.getLogger(__name__)

_KEEP_ALIVE = 75.0  # seconds; longer than the usual scrape interval. Also the time to send a request's head
_PATH_MAX = 107  # bytes of the path of a socket file: what the system has room for
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
        self._file: Path | None = None
        self._inode = 0
        self._server: asyncio.Server | None = None
        self._secure: ssl.SSLContext | None = None

    async def open(self, host: str, port: int) -> int:
        """Listen; returns the port, a free one for 0.

        Raises `BadArgument` for a host that needs tokens and for a bad certificate, `Unavailable` for a
        taken port.
        """
        settings = self._backend.settings
        refuse_open(settings, host)
        self._secure = tls(settings)
        listening = bound(host, port)
        await self._listen(application(self._backend, self._pool, host), listening)
        self._server = await asyncio.get_running_loop().create_server(
            self._connection, sock=listening, ssl=self._secure
        )
        return cast(int, listening.getsockname()[1])

    def renew(self) -> None:
        """Read certificate and key again, for connections from now on. Raises `BadArgument`, and keeps the old ones."""
        settings = self._backend.settings
        if self._secure is not None and tls(settings) is not None and settings.tls_certificate is not None:
            self._secure.load_cert_chain(settings.tls_certificate, settings.tls_key)

    async def open_file(self, path: Path) -> None:
        """Listen on a socket file, for processes of this user; raises `Unavailable` where there can be none."""
        self._file, listening = path, bound_file(path)
        self._inode = path.stat().st_ino
        await self._listen(application(self._backend, self._pool, None), listening)
        self._server = await asyncio.get_running_loop().create_unix_server(self._connection, sock=listening)

    async def _listen(self, app: web.Application, listening: socket.socket) -> None:
        self._socket = listening
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=_Calm(_log, {}),
            keepalive_timeout=_KEEP_ALIVE,
            shutdown_timeout=_FAREWELL,
            handle_signals=False,
            auto_decompress=False,  # bodies are inflated by us, within their bound
        )
        await self._runner.setup()

    async def close(self) -> None:
        """Take no more connections, finish answers under way, close all. May be called twice."""
        if self._file is not None:
            remove_file(self._file, self._inode)
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
        return self._run(partial(self._listener.open, host, port), "taskscope-http")

    def start_file(self, path: Path) -> None:
        """Listen on a socket file. Raises as `Listener.open_file` does."""
        self._run(partial(self._listener.open_file, path), "taskscope-socket")

    def _run(self, listen: Callable[[], Awaitable[T]], name: str) -> T:
        started: Future[T] = Future()
        self._thread = threading.Thread(
            target=_complete, args=[lambda: self._serve(listen, started)], name=name, daemon=True
        )
        self._thread.start()
        try:
            return started.result()
        except BaseException:
            self._thread.join()
            raise

    def renew(self) -> None:
        """Read certificate and key again. Raises `BadArgument`."""
        self._listener.renew()

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

    async def _serve(self, listen: Callable[[], Awaitable[T]], started: Future[T]) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            done = await listen()
        except BaseException as error:  # noqa: BLE001 - it is raised by `start`
            await self._listener.close()
            started.set_exception(error)
            return
        started.set_result(done)
        await self._stop.wait()
        await self._listener.close()


def _complete(serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Serve to the end, in a loop of this thread's own.

    Where gevent makes threads of greenlets, one loop is all that there can be: the second server joins the first.
    """
    running = asyncio._get_running_loop()
    if running is None:
        asyncio.run(serve())
    else:
        with contextlib.suppress(CancelledError):  # the first one has ended
            asyncio.run_coroutine_threadsafe(serve(), running).result()


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


def bound_file(path: Path) -> socket.socket:
    """A socket at this path, for this user alone, in place of one that was left there. Raises `Unavailable`.

    Only who owns what it is about may call this: two would take the path from each other.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listening.bind(str(path))
        path.chmod(0o600)  # before anybody is listened to
    except OSError as error:
        listening.close()
        why = f"its path has more than {_PATH_MAX} bytes" if _is_too_long(path) else error.strerror or error
        raise Unavailable(
            f"cannot listen on {path}: {why}; other processes cannot hand on their runs; have a shorter one"
        ) from error
    return listening


def remove_file(path: Path, inode: int) -> None:
    """Remove a socket file, unless another process has put its own there meanwhile."""
    with contextlib.suppress(OSError):
        if path.stat().st_ino == inode:
            path.unlink()


def _is_too_long(path: Path) -> bool:
    return len(os.fsencode(path)) > _PATH_MAX


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
