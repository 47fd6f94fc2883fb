"""Where notifications arrive in tests: the shipped Alertmanager configuration, faster and with addresses of ours."""

import json
import re
import socketserver
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar, NamedTuple

import pytest
import yaml

ALERTS = Path(__file__).parents[2] / "alerts"
SPEED = 600  # a group interval of 5 minutes takes half a second
_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Notification(NamedTuple):
    """What a receiver was sent over HTTP."""

    path: str
    authorization: str | None
    body: dict[str, Any]


class Inbox:
    """Takes notifications over HTTP and mail over SMTP, and keeps them in order of arrival."""

    def __init__(self) -> None:
        self.notifications: list[Notification] = []
        self.mails: list[EmailMessage] = []
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _Http)
        self._smtp = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Smtp)
        for server in (self._http, self._smtp):
            server.inbox = self  # type: ignore[attr-defined]
            Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where it takes notifications, on any path."""
        return f"http://127.0.0.1:{self._http.server_port}"

    @property
    def smarthost(self) -> str:
        """Where it takes mail."""
        return f"127.0.0.1:{self._smtp.server_address[1]}"

    def at(self, path: str) -> list[Notification]:
        """What arrived at this path."""
        return [one for one in list(self.notifications) if one.path == path]

    def close(self) -> None:
        """Take no more."""
        for server in (self._http, self._smtp):
            server.shutdown()
            server.server_close()


class _Http(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        notification = Notification(self.path, self.headers["Authorization"], body)
        self.server.inbox.notifications.append(notification)  # type: ignore[attr-defined]
        answer = b'{"status": "success"}'
        self.send_response(202 if self.path == "/pagerduty" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class _Smtp(socketserver.StreamRequestHandler):
    answers: ClassVar = {b"DATA": b"354 go on", b"QUIT": b"221 bye"}

    def handle(self) -> None:
        self._say(b"220 here")
        for line in self.rfile:
            command = line[:4].upper().strip()
            self._say(self.answers.get(command, b"250 well"))
            if command == b"DATA":
                self._take()
            elif command == b"QUIT":
                return

    def _take(self) -> None:
        lines = iter(self.rfile.readline, b".\r\n")
        mail = message_from_bytes(b"".join(line.removeprefix(b".") for line in lines), policy=policy.default)
        self.server.inbox.mails.append(mail)  # type: ignore[attr-defined]
        self._say(b"250 taken")

    def _say(self, answer: bytes) -> None:
        self.wfile.write(answer + b"\r\n")


def shipped(inbox: Inbox, directory: Path, uncommented: str = "http_config") -> dict[str, Any]:
    """The shipped configuration at `SPEED`, with its receivers at `inbox` and its secrets in `directory`.

    Lines that offer the key `uncommented` hold: by default that for a taskscope with tokens.
    """
    text = (ALERTS / "alertmanager/alertmanager.yml").read_text()
    assert f"# {uncommented}:" in text
    settings: dict[str, Any] = yaml.safe_load(text.replace(f"# {uncommented}:", f"{uncommented}:"))
    settings["templates"] = [str(ALERTS / "alertmanager/templates/*.tmpl")]
    settings["global"] |= {"smtp_smarthost": inbox.smarthost, "smtp_require_tls": False}
    for receiver in settings["receivers"]:
        for one in receiver.get("webhook_configs", ()):
            one["url"] = f"{inbox.url}/{receiver['name']}"
        for one in receiver.get("pagerduty_configs", ()):
            one["url"] = f"{inbox.url}/pagerduty"
    _secrets(settings, inbox, directory)
    hurry(settings["route"])
    return settings


def hurry(route: dict[str, Any]) -> None:
    """Divide the intervals of a route, and of those below it, by `SPEED`."""
    for key in ("group_wait", "group_interval", "repeat_interval"):
        if key in route:
            route[key] = f"{round(seconds(route[key]) / SPEED * 1000)}ms"
    for child in route.get("routes", ()):
        hurry(child)


def seconds(duration: str) -> float:
    """A duration of Prometheus, such as `1h30m`, in seconds."""
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)(ms|[smhd])", duration))


def _secrets(part: Any, inbox: Inbox, directory: Path) -> None:
    """Let every `…_file` be a file of the test's; Slack's address is the inbox."""
    for key, value in part.items() if isinstance(part, dict) else enumerate(part):
        if isinstance(value, dict | list):
            _secrets(value, inbox, directory)
        elif str(key).endswith("_file"):
            path = directory / Path(value).name
            path.write_text(f"{inbox.url}/slack" if path.name == "slack_url" else f"secret of {path.name}\n")
            part[key] = str(path)


@pytest.fixture
def inbox() -> Iterator[Inbox]:
    """Takes what Alertmanager sends."""
    inbox = Inbox()
    try:
        yield inbox
    finally:
        inbox.close()
