"""Run ids: 16 bytes that order by time and are the same whenever the same run is told again."""

from hashlib import sha256
from uuid import UUID


def run_id(scheduler: str, native: str, attempt: int, anchor_ms: int) -> bytes:
    """48 bits of anchor (ms since the epoch), then 74 bits of a hash over scheduler, native id and attempt.

    The time in front keeps inserts, retention, pages and partitions local to one end of the index. The rest are the
    version and variant bits of a UUID of version 8 ("custom", RFC 9562).
    """
    parts = f"{len(scheduler)}:{scheduler}{len(native)}:{native}{attempt}"
    digest = sha256(parts.encode("utf-8", "surrogatepass")).digest()
    low = int.from_bytes(digest[6:16], "big") & _HASH | _VERSION_8
    return (anchor_ms << 80 | low).to_bytes(16, "big")


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
    digits = run.hex()  # by hand: twice as fast as by UUID, and pages hold many
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def parse(text: str) -> bytes:
    """The id behind its text. Raises ValueError."""
    return UUID(text).bytes


_HASH = 0x0FFF_3FFF_FFFF_FFFF_FFFF
_VERSION_8 = 0x8000_8000_0000_0000_0000
"""Of the 80 bits after the time: those of the hash, and those that make it a UUID of version 8."""
