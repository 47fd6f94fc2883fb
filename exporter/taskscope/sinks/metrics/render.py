"""A page from series: text 0.0.4 or OpenMetrics 1.0, of which only the changed blocks are written anew."""

from collections.abc import Collection, Iterable, Iterator
from threading import Lock

import msgspec

from taskscope.sinks.metrics.series import Family

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = b"# EOF\n"

_SIZE = 65_536  # bytes up to which pieces are joined
_LARGEST = 1_048_576  # bytes after which a piece is cut


class Rendered(msgspec.Struct, frozen=True):
    """A page, ready to be sent."""

    content_type: str
    encoding: str
    """`gzip`, or empty."""
    blocks: list[bytes]
    """Of at most 1 MiB each, so that other threads go on between two of them."""


def wants_openmetrics(accept: str) -> bool:
    """Is OpenMetrics preferred by this `Accept`? Text is what is sent where nothing says otherwise."""
    text = openmetrics = 0.0
    for accepted in accept.lower().split(","):
        media, *parameters = (part.strip() for part in accepted.split(";"))
        told = dict(part.partition("=")[::2] for part in parameters)
        quality = _quality(told.get("q", "1"))
        if media == "application/openmetrics-text" and told.get("version", "1.0.0") in ("0.0.1", "1.0.0"):
            openmetrics = max(openmetrics, quality)
        elif media == "text/plain":
            text = max(text, quality)
    return openmetrics > 0 and openmetrics >= text


def parts(family: Family, lock: Lock, openmetrics: bool) -> Iterator[bytes]:
    """A family's lines, its header in front; holds the lock for a group at a time."""
    with lock:
        groups = list(family.groups)
    if groups:
        yield family.form.headers[openmetrics]
    for group in groups:
        with lock:
            lines = group.write(openmetrics)
        yield lines


def without_unit(lines: Iterator[bytes]) -> Iterator[bytes]:
    """A family's lines as the standard client restricts it: it keeps help and type alone."""
    for header in lines:
        yield header.partition(b"# UNIT ")[0]
        yield from lines


def only(lines: Iterable[bytes], names: Collection[str]) -> Iterator[bytes]:
    """The lines without the samples of other names."""
    starts = tuple(f"{name}{mark}".encode() for name in names for mark in "{ ")
    for part in lines:
        kept = [line for line in part.split(b"\n") if line.startswith((b"# ", *starts))]
        if kept:
            yield b"\n".join([*kept, b""])


def packed(pieces: Iterable[bytes]) -> list[bytes]:
    """Small pieces together, large ones as they are, too large ones cut."""
    blocks: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        if size + len(piece) > _SIZE:
            blocks += _cut(b"".join(waiting))
            waiting, size = [], 0
        waiting.append(piece)
        size += len(piece)
    return blocks + _cut(b"".join(waiting))


def _cut(block: bytes) -> list[bytes]:
    if len(block) <= _LARGEST:
        return [block] if block else []
    return [block[at : at + _LARGEST] for at in range(0, len(block), _LARGEST)]


def _quality(text: str) -> float:
    try:
        return min(1.0, max(0.0, float(text)))
    except ValueError:
        return 0.0
