"""The opaque cursor: the last run of a page, sealed together with the question that the page answered."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from hashlib import blake2b

from taskscope.api.errors import refused

_SEAL = 8  # bytes; against mistakes: a cursor opens nothing that its question does not
_PAGING = ("cursor", "limit", "offset")


def seal(run: bytes, question: Iterable[tuple[str, str]]) -> str:
    """The cursor for what comes after this run."""
    return urlsafe_b64encode(run + _digest(run, question)).rstrip(b"=").decode()


def unseal(cursor: str, question: Iterable[tuple[str, str]]) -> bytes:
    """The run behind a cursor. Raises 400 for one that is altered, or of another question."""
    try:
        raw = urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    except ValueError:
        raw = b""
    run, digest = raw[:-_SEAL], raw[-_SEAL:]
    if len(run) != 16 or digest != _digest(run, question) or seal(run, question) != cursor:
        raise refused({"cursor": "is not the next_cursor of a page with the same filters"})
    return run


def _digest(run: bytes, question: Iterable[tuple[str, str]]) -> bytes:
    asked = sorted(f"{name}={value}" for name, value in question if name not in _PAGING)
    return blake2b(run + "\0".join(asked).encode("utf-8", "surrogatepass"), digest_size=_SEAL).digest()
