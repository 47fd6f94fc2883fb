"""How values are written: JSON, UTC times with milliseconds, durations in milliseconds."""

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from taskscope.failure import plain, repr_of

Moment = Annotated[
    str,
    Meta(description="RFC 3339, UTC, milliseconds.", extra_json_schema={"format": "date-time"}),
]
Milliseconds = Annotated[float, Meta(description="Milliseconds.")]


def moment(ms: int | None) -> str | None:
    """`2025-11-21T18:56:15.042Z` for ms since the epoch; None where unknown."""
    if ms is None:
        return None
    minute, rest = divmod(ms, 60_000)
    return f"{_minute(minute)}:{rest / 1000:06.3f}Z"


def moment_of(seconds: float | None) -> str | None:
    """The same for seconds since the epoch; None and 0 are unknown."""
    return moment(round(min(max(seconds, 0), _LATEST) * 1000)) if seconds else None


def milliseconds(seconds: float | None) -> float | None:
    """A duration in seconds as milliseconds."""
    return None if seconds is None else round(seconds * 1000, 3)


def encode(value: Any) -> bytes:
    """As JSON. What foreign objects and broken strings hold is written as well as can be, never refused."""
    try:
        return _ENCODER.encode(value)
    except (UnicodeError, TypeError, ValueError, OverflowError, RecursionError):
        return _ENCODER.encode(plain(value))


def decode(text: str) -> Any:
    """The value of JSON that was stored; the text itself where it is none, None where it is empty."""
    try:
        return msgspec.json.decode(text) if text else None
    except msgspec.DecodeError:
        return text


@lru_cache(maxsize=1024)
def _minute(number: int) -> str:
    """The times of a page are near each other."""
    return (_EPOCH + timedelta(minutes=number)).isoformat("T", "minutes")


_EPOCH = datetime(1970, 1, 1)
_LATEST = 253_402_300_799.0  # the last second of the year 9999
_ENCODER = msgspec.json.Encoder(enc_hook=repr_of)


def takes_gzip(accepted: str) -> bool:
    """Whether this Accept-Encoding allows it; `gzip;q=0` forbids it."""
    for one in accepted.lower().split(","):
        coding, _, quality = one.partition(";")
        if coding.strip() == "gzip":
            return quality.replace(" ", "").rstrip("0.") != "q="
    return False
