"""The smallest client that shows all of an answer."""

import http.client
import json
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

NOW = 1_763_750_000.0
"""The moment at which the tests take place, in seconds."""


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Client:
    """Asks a server on this host."""

    def __init__(self, port: int, token: str = "") -> None:
        self.port = port
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(
        self, path: str, query: Any = (), method: str = "GET", body: bytes | None = None, **headers: str
    ) -> Answer:
        """`query` is what urlencode takes; the underscores of header names are hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        target = f"{path}?{urlencode(query, doseq=True)}" if query else path
        sent = self._headers | {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()


def job_path(scheduler: str, name: str) -> str:
    return f"/api/job/{quote(scheduler, safe='')}/{quote(name, safe='')}"
