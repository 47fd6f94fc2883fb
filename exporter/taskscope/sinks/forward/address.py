"""Where a taskscope listens, and how something is posted to it: over TCP, TLS or the Unix socket beside a history."""

import os
import socket
import ssl
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

from taskscope.errors import BadArgument, Misdirected, Refused, Unavailable

_LATER = (408, 429, 502, 503, 504)
"""What a taskscope, or a proxy before it, answers when the same may be taken later."""
_CORRECTED = (*range(300, 400), 401, 403, 404, 405, 421)
"""The same, after somebody has corrected a token or an address; what waits is worth to be kept until then."""
_HUNG_UP = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
"""What TLS says where a connection breaks; all else that it says is so until somebody corrects something."""
_SHOWN = 300  # characters of a refusal


class Address:
    """One taskscope. Keeps its connection; used by one thread of one process at a time."""

    def __init__(
        self, url: str, token: str = "", certificates: str | None = None, timeout: float = 5.0
    ) -> None:
        """`url` is `http://…`, `https://…` or `unix:///path`; `certificates` a PEM file of who may vouch for it.

        Raises `BadArgument`.
        """
        self._parts = _parts(url)
        self.url, self._token, self._timeout = url, token.strip(), timeout
        self._certificates = certificates
        self._connection: HTTPConnection | None = None

    def post(
        self, path: str, body: bytes, content_type: str = "application/json", encoding: str = ""
    ) -> bytes:
        """The answer, once it is taken. Raises `Unavailable` (take it up later) or `Refused` (give it up)."""
        headers = {"Content-Type": content_type, **({"Content-Encoding": encoding} if encoding else {})}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        while True:
            fresh = self._connection is None
            try:
                return self._exchange(path, body, headers)
            except (OSError, HTTPException, ValueError) as error:  # ValueError: no host can have such a name
                self.close()
                if fresh or isinstance(error, TimeoutError):  # else: the kept connection was closed meanwhile
                    raise self._unanswered(error) from error

    def close(self) -> None:
        """Hang up; the next `post` connects again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abandon(self) -> None:
        """In a forked child: the connection is the parent's, whose thread may hold what it reads by."""
        connection, self._connection = self._connection, None
        if connection is not None and connection.sock is not None:
            with suppress(OSError):  # it was closed at that moment
                os.close(connection.sock.detach())

    def _unanswered(self, error: Exception) -> Unavailable:
        if isinstance(error, ssl.SSLError) and not isinstance(error, _HUNG_UP):
            return Misdirected(
                f"{self.url} cannot be asked over TLS ({error}); give http://… if it speaks no TLS, else in"
                " forward_certificates the PEM file of who vouches for it"
            )
        return Unavailable(f"{self.url} does not answer ({error or type(error).__name__})")

    def _exchange(self, path: str, body: bytes, headers: dict[str, str]) -> bytes:
        if self._connection is None:
            self._connection = self._connected()
        self._connection.request(
            "POST", path if self.local else self._parts.path.rstrip("/") + path, body, headers
        )
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.will_close:
            self.close()
        if answer.status in _LATER or answer.status in _CORRECTED:
            kind = Unavailable if answer.status in _LATER else Misdirected
            raise kind(f"{self.url} takes nothing now: {_words(answer, said)}")
        if answer.status >= 300:
            raise Refused(f"{self.url} refuses it: {_words(answer, said)}")
        return said

    @property
    def local(self) -> bool:
        """Is it a socket file of this host?"""
        return self._parts.scheme == "unix"

    def _connected(self) -> HTTPConnection:
        host, port = self._parts.hostname or "localhost", self._parts.port
        if self.local:
            return _UnixConnection(self._parts.path, self._timeout)
        if self._parts.scheme == "http":
            return HTTPConnection(host, port, timeout=self._timeout)
        return HTTPSConnection(host, port, timeout=self._timeout, context=self._trust())

    def _trust(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._certificates)
        except OSError as error:
            raise Misdirected(
                f"forward_certificates={self._certificates!r} cannot be used ({error}); give the PEM file of who"
                f" vouches for {self.url}"
            ) from error


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        place = parts.path if parts.scheme == "unix" else parts.hostname and str(parts.port or 80)
    except ValueError:  # a port that is no number, half a pair of brackets
        parts, place = SplitResult("", "", "", "", ""), ""
    if parts.scheme not in ("http", "https", "unix") or not place:
        raise BadArgument(
            f"forward={url!r} is no address of a taskscope; give http://HOST:PORT or https://HOST:PORT"
        )
    if "@" in parts.netloc:
        raise BadArgument("forward must hold no password: give the token in forward_token")
    return parts


class _UnixConnection(HTTPConnection):
    """HTTP over the socket file at `path`."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Connect to the file."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _words(answer: HTTPResponse, said: bytes) -> str:
    return f"{answer.status} {said.decode('utf-8', 'replace')[:_SHOWN] or answer.reason}"
