"""A page from series: text 0.0.4 or OpenMetrics 1.0, of which only the changed blocks are written anew."""

from collections.abc import Collection, Hashable, Iterable, Iterator
from threading import Lock
from typing import TypeAlias

import msgspec

from taskscope.sinks.metrics.catalog import Metric
from taskscope.sinks.metrics.series import Family

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
END = b"# EOF\n"

Part: TypeAlias = tuple[Hashable, bytes]
"""Some lines of a page, and what tells them from other lines."""

_GROUP = 16  # parts that are compressed together: some 100 kB
_SIZE = 524_288  # bytes from which on a block of the answer is complete
_LARGEST = 1_048_576


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


def parts(family: Family, lock: Lock, openmetrics: bool) -> Iterator[Part]:
    """A family's lines, its header in front; holds the lock for a block at a time."""
    with lock:
        blocks = list(family.blocks)
    front = header(family.metric, openmetrics)
    for block in blocks:
        with lock:
            lines = block.openmetrics() if openmetrics else block.text()
            stamp = block.stamp
        yield stamp, front + lines if front else lines
        front = b""


def header(metric: Metric, openmetrics: bool) -> bytes:
    """The lines above a family's samples."""
    if not openmetrics:
        kind = "gauge" if metric.kind == "info" else metric.kind
        return f"# HELP {metric.sample} {metric.help}\n# TYPE {metric.sample} {kind}\n".encode()
    unit = f"# UNIT {metric.family} {metric.unit}\n" if metric.unit else ""
    return f"# HELP {metric.family} {metric.help}\n# TYPE {metric.family} {metric.kind}\n{unit}".encode()


def only(all_parts: Iterable[Part], names: Collection[str]) -> Iterator[Part]:
    """The parts without the samples of other names."""
    starts = tuple(f"{name}{mark}".encode() for name in names for mark in "{ ")
    for stamp, lines in all_parts:
        kept = [line for line in lines.split(b"\n") if line.startswith((b"# ", *starts))]
        if kept:
            yield stamp, b"\n".join([*kept, b""])


def groups(all_parts: Iterable[Part]) -> Iterator[Part]:
    """Neighbouring parts together, so that a group stays the same while all of its parts do."""
    stamps: list[Hashable] = []
    lines: list[bytes] = []
    for stamp, part in all_parts:
        stamps.append(stamp)
        lines.append(part)
        if len(stamps) == _GROUP:
            yield tuple(stamps), b"".join(lines)
            stamps, lines = [], []
    if stamps:
        yield tuple(stamps), b"".join(lines)


def packed(pieces: Iterable[bytes]) -> list[bytes]:
    """Few large blocks from many small pieces."""
    blocks: list[bytes] = []
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= _SIZE:
            blocks += _cut(b"".join(waiting))
            waiting, size = [], 0
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
