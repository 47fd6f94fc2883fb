"""Run ids: 16 bytes that order by time and are the same whenever the same run is told again."""

from hashlib import sha256
from uuid import UUID


def run_id(scheduler: str, native: str, attempt: int, anchor_ms: int) -> bytes:
    """48 bits of anchor (ms since the epoch), then 74 bits of a hash over scheduler, native id and attempt.

    The time in front keeps inserts, retention, pages and partitions local to one end of the index. The rest are the
    version and variant bits of a UUID of version 8 ("custom", RFC 9562).
    """
    parts = f"{len(scheduler)}:{scheduler}{len(native)}:{native}{attempt}"
    run = bytearray(sha256(parts.encode("utf-8", "surrogatepass")).digest()[:16])
    run[:6] = anchor_ms.to_bytes(6, "big")
    run[6] = run[6] & 0x0F | 0x80
    run[8] = run[8] & 0x3F | 0x80
    return bytes(run)


def anchor_ms(run: bytes) -> int:
    """The anchor that is part of a run id."""
    return int.from_bytes(run[:6], "big")


def key(run: bytes) -> bytes:
    """What is left of a run id without its anchor: the same in every id that the run could have."""
    return run[6:]


def first_id(ms: int) -> bytes:
    """The smallest id a run of this moment can have: the border of a range of ids."""
    return max(0, ms).to_bytes(6, "big") + bytes(10)


def text(run: bytes) -> str:
    """The id as people and the API write it."""
    return str(UUID(bytes=run))


def parse(text: str) -> bytes:
    """The id behind its text. Raises ValueError."""
    return UUID(text).bytes
