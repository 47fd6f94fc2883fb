"""Reads what a request sends: JSON of a declared type, with every refusal explained."""

import asyncio
import json
import zlib
from collections.abc import Collection
from typing import TypeVar

import msgspec
from aiohttp import web

from taskscope.api.endpoint import JSON
from taskscope.api.errors import ApiError, refused
from taskscope.settings import Limits

T = TypeVar("T")

_SOON = 64 * 1024  # bytes that are unpacked, whatever they hold, in less time than is worth a thread
_CHUNK = 16 * 1024  # bytes that are unpacked at once: zlib copies what follows the end of a member
_MEMBERS = 10_000  # of one body; nobody packs less than an event into each


async def read_body(request: web.Request, kind: type[T], limits: Limits) -> T:
    """The body as this type. Raises 400 that names the field, 413 and 415."""
    return decode(await read_bytes(request, (JSON,), limits), kind)


async def read_bytes(request: web.Request, types: Collection[str], limits: Limits) -> bytes:
    """The body of one of these types, inflated. Raises 400, 413 and 415."""
    if request.content_type not in types:
        wanted = " or ".join(types)
        raise ApiError(415, f"The body must have the Content-Type {wanted}, not {request.content_type}.")
    encoding = request.headers.get("Content-Encoding", "").strip().lower() or "identity"
    if encoding not in ("identity", "gzip"):
        raise ApiError(
            415, f"The body must be packed by gzip (Content-Encoding: gzip) or not at all, not by {encoding}."
        )
    try:
        body = await request.read()
    except web.RequestPayloadError:
        raise ApiError(400, "The body ended early, or is not encoded as its headers say.") from None
    if encoding == "identity":
        return body
    if len(body) <= _SOON:
        return inflated(body, limits.body)
    return await asyncio.to_thread(inflated, body, limits.body)  # the loop may be that of the user's program


def inflated(packed: bytes, most: int) -> bytes:
    """What was packed by gzip. Raises 400, and 413 as soon as it is larger than `most` bytes."""
    parts: list[bytes] = []
    room, rest = most, memoryview(packed)
    while rest:  # members follow each other
        if len(parts) == _MEMBERS:
            raise ApiError(413, f"The body is packed in more than {_MEMBERS} pieces; pack it in one.")
        part, rest = _member(rest, room)
        parts.append(part)
        room -= len(part)
        if room < 0:
            raise ApiError(413, f"The request body, unpacked, is larger than {most} bytes.")
    return b"".join(parts)


def _member(packed: memoryview, room: int) -> tuple[bytes, memoryview]:
    """What the first member holds, hardly more than there is `room` for, and what follows it. Raises 400."""
    member, parts = zlib.decompressobj(wbits=31), []
    while room >= 0 and not member.eof:
        if not packed:
            raise ApiError(400, "The body ends in the middle of what was packed by gzip.")
        chunk = packed[:_CHUNK]
        try:
            parts.append(member.decompress(chunk, room + 1))
        except zlib.error:
            raise ApiError(400, "The body is not packed by gzip as its Content-Encoding says.") from None
        packed = packed[len(chunk) - len(member.unused_data) :]
        room -= len(parts[-1])
    return b"".join(parts), packed


def decode(body: bytes | msgspec.Raw, kind: type[T], place: str = "") -> T:
    """JSON as this type; `place` is where it stands in the body. Raises 400 that names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise refused(_explained(str(error), place)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        mended = _mended(bytes(body))
        if mended is None:
            raise refused({place or "body": "is not JSON"}) from None
        return decode(mended, kind, place)


def _explained(error: str, place: str) -> dict[str, str]:
    """`Expected `int`, got `str` - at `$.a[0]`` as the field `a[0]` and what is wrong with it."""
    why, _, where = error.partition(" - at ")
    field = place + where.strip("`").removeprefix("$")
    if "missing required field" in why:
        return {f"{field}.{why.split('`')[1]}".lstrip("."): "is missing"}
    return {field.lstrip(".") or "body": why.replace("`", "").replace("Expected", "must be")[:200]}


def _mended(body: bytes) -> bytes | None:
    """JSON without what no text can hold (half a surrogate pair, say); None where that was not what was wrong."""
    try:
        told = json.loads(body.decode("utf-8", "replace"))
        mended = json.dumps(told, ensure_ascii=False).encode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None
    return mended if mended != body else None
