"""A private Redis, empty for every test."""

import socket

import pytest

from services.process import Server, again, once, program


class Redis(Server):
    """Redis on loopback, without persistence."""

    def __init__(self) -> None:
        self._redis = program("redis-server", "Redis")
        super().__init__("redis")

    def command(self) -> list[str]:
        return [
            self._redis,
            "--bind",
            "127.0.0.1",
            "--port",
            str(self.port),
            "--save",
            "",
            "--appendonly",
            "no",
        ]

    def ready(self) -> bool:
        return self.ask("PING") == b"+PONG\r\n"

    def ask(self, command: str) -> bytes:
        """The answer to one inline command; empty when nobody answers."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(command.encode() + b"\r\n")
                return connection.recv(4096)
        except OSError:
            return b""


redis = once(Redis)
"""The session's Redis. Tests that disturb it take `redis_server`."""
redis_server = again("redis")
"""The session's Redis to stop, start and pause; afterwards it runs again."""


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of an empty database."""
    assert redis_server.ask("FLUSHALL") == b"+OK\r\n"
    return f"redis://127.0.0.1:{redis_server.port}/0"
