"""Reads what a request sends: JSON of a declared type, with every refusal explained."""

import json
from typing import TypeVar

import msgspec
from aiohttp import web

from taskscope.api.errors import ApiError, refused

T = TypeVar("T")

_JSON = "application/json"


async def read_body(request: web.Request, kind: type[T]) -> T:
    """The body as this type. Raises 400 that names the field, 413 and 415."""
    if request.content_type != _JSON:
        raise ApiError(415, f"The body must be JSON (Content-Type: {_JSON}), not {request.content_type}.")
    try:
        return decode(await request.read(), kind)
    except web.RequestPayloadError:
        raise ApiError(400, "The body ended early, or is not encoded as its headers say.") from None


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
