"""What Redis says, out of bytes as they come. Its library needs 40 us for each message and asks for its bytes in ten
calls, between which another thread takes the interpreter; thousands of them come every second."""

from typing import TypeAlias

from redis.exceptions import ResponseError

Reply: TypeAlias = "bytes | list[Reply]"


class _Incomplete(Exception):
    """More bytes must come first."""


class Replies:
    """Those of both protocols that a connection is sent which only subscribes and pings."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, came: bytes) -> list[Reply]:
        """The replies that these bytes complete. Raises `ResponseError` where Redis refuses, else `ValueError`."""
        data, at, replies = self._rest + came, 0, []
        try:
            while at < len(data):
                reply, at = _reply(data, at)
                replies.append(reply)
        except _Incomplete:
            pass
        self._rest = data[at:]
        return replies


def _reply(data: bytes, at: int) -> tuple[Reply, int]:
    """The reply that begins there, and where the next one does."""
    end = data.find(b"\r\n", at)
    if end < 0:
        raise _Incomplete
    kind, head, end = data[at], data[at + 1 : end], end + 2
    if kind == _BULK and head != b"-1":
        return _bulk(data, end, end + int(head))
    if kind in _LISTS:
        return _list(data, end, int(head))
    if kind == _ERROR:
        raise ResponseError(head.decode(errors="replace"))
    return head, end


def _bulk(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    if len(data) < end + 2:
        raise _Incomplete
    return data[at:end], end + 2


def _list(data: bytes, at: int, length: int) -> tuple[list[Reply], int]:
    parts = []
    for _ in range(length):
        part, at = _reply(data, at)
        parts.append(part)
    return parts, at


_BULK, _ERROR, _LISTS = ord("$"), ord("-"), b"*>"
