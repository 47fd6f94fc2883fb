"""Run ids: 16 bytes that order by time and are the same whenever the same run is told again."""

from hashlib import sha256
from struct import pack
from uuid import UUID

_VERSION = 0x8 << 76  # UUID version 8: "custom", RFC 9562
_VARIANT = 0b10 << 62


def run_id(scheduler: str, native: str, attempt: int, anchor_ms: int) -> bytes:
    """48 bits of anchor (ms since the epoch), then 74 bits of a hash over scheduler, native id and attempt.

    The time in front keeps inserts, retention, pages and partitions local to one end of the index.
    """
    parts = (scheduler.encode("utf-8", "surrogatepass"), native.encode("utf-8", "surrogatepass"))
    digest = sha256(b"".join(pack(">I", len(part)) + part for part in parts) + pack(">q", attempt)).digest()
    random = int.from_bytes(digest[:10], "big") >> 6  # 74 bits
    number = anchor_ms << 80 | _VERSION | (random >> 62) << 64 | _VARIANT | random & (1 << 62) - 1
    return number.to_bytes(16, "big")


def anchor_ms(run: bytes) -> int:
    """The anchor that is part of a run id."""
    return int.from_bytes(run[:6], "big")


def first_id(ms: int) -> bytes:
    """The smallest id a run of this moment can have: the border of a range of ids."""
    return max(0, ms).to_bytes(6, "big") + bytes(10)


def text(run: bytes) -> str:
    """The id as people and the API write it."""
    return str(UUID(bytes=run))


def parse(text: str) -> bytes:
    """The id behind its text. Raises ValueError."""
    return UUID(text).bytes
