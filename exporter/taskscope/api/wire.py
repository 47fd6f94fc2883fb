"""How values are written: JSON, UTC times with milliseconds, durations in milliseconds."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
from msgspec import Meta

Moment = Annotated[
    str,
    Meta(description="RFC 3339, UTC, milliseconds.", extra_json_schema={"format": "date-time"}),
]
Milliseconds = Annotated[float, Meta(description="Milliseconds.")]


def moment(ms: int | None) -> str | None:
    """`2025-11-21T18:56:15.042Z` for ms since the epoch; None where unknown."""
    if ms is None:
        return None
    return (_EPOCH + timedelta(0, 0, 0, ms)).isoformat("T", "milliseconds") + "Z"


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


def plain(value: Any, depth: int = 20) -> Any:
    """The value made of what JSON knows; the rest, and what is nested deeper than `depth`, by repr."""
    match value:
        case None | bool():
            return value
        case float():
            return float(value)
        case int():
            return int(value) if abs(value) < _LARGEST else repr_of(value)
        case str():
            return str(value).encode("utf-8", "backslashreplace").decode()
        case _ if depth <= 0:
            return repr_of(value)
        case dict():
            return {plain(_key(key)): plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item, depth - 1) for item in value]
        case msgspec.Struct():
            return {name: plain(item, depth - 1) for name, item in _fields(value)}
    return repr_of(value)


def repr_of(value: Any) -> str:
    """Its repr as valid text, bounded; the class alone where repr itself fails."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - anybody's __repr__
        text = object.__repr__(value)
    return text[:_LONGEST].encode("utf-8", "backslashreplace").decode()


def _key(key: Any) -> str:
    return key if isinstance(key, str) else repr_of(key)


def _fields(struct: msgspec.Struct) -> Iterable[tuple[str, Any]]:
    for field in msgspec.structs.fields(struct):
        yield field.encode_name, getattr(struct, field.name)


_EPOCH = datetime(1970, 1, 1)
_LATEST = 253_402_300_799.0  # the last second of the year 9999
_LARGEST = 2**63
_LONGEST = 2_048
_ENCODER = msgspec.json.Encoder(enc_hook=repr_of)
