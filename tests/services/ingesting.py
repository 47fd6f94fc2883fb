"""What stands at the other end of the wire in tests of the wire: takes events, and answers as it is told to."""

import gzip
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer
from typing import Any

Answer = Callable[[list[Any]], tuple[int, dict[str, Any]]]


def taken(events: list[Any]) -> tuple[int, dict[str, Any]]:
    return 200, {"accepted": len(events), "refused": 0, "errors": []}


class Receiver:
    """Every batch that was taken, and every request that was made."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.asked: list[dict[str, str]] = []
        self.answer: Answer = taken
        self.url = ""

    @property
    def numbers(self) -> list[int]:
        """What was taken, in order: tests number their events."""
        return [event["n"] for batch in self.batches for event in batch if "n" in event]

    def take(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        self.asked.append(headers)
        if headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        events = json.loads(body) if body[:1] == b"[" else [json.loads(line) for line in body.splitlines()]
        status, said = self.answer(events)
        if status == 200:
            self.batches.append(events)
        return status, json.dumps(said).encode()


def handler(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, said = receiver.take(dict(self.headers), body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def address_string(self) -> str:
            return "somebody"

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


class UnixHTTPServer(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@contextmanager
def receiving(
    port: int = 0,
    file: Path | None = None,
    receiver: Receiver | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Receiver]:
    """A receiver on a port, or on a socket file."""
    receiver = receiver or Receiver()
    if file is None:
        server: Any = ThreadingHTTPServer(("127.0.0.1", port), handler(receiver))
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        receiver.url = f"http://127.0.0.1:{server.server_port}"
    else:
        server, receiver.url = UnixHTTPServer(str(file), handler(receiver)), f"unix://{file}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


NONSENSE = [b"220 mail.example ESMTP\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", b""]
"""What somebody says who speaks something else than HTTP, or not to the end."""


@contextmanager
def saying(what: bytes) -> Iterator[str]:
    """The URL of somebody who says this, whatever he is asked, and hangs up; once."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(what)

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        thread.join()
