"""Numbers as Prometheus' clients write them, many at a time."""

from array import array

import msgspec
from prometheus_client.utils import floatToGoString

_encode = msgspec.json.encode


def number(value: float) -> bytes:
    """One number, exactly as the standard client writes it."""
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text.encode()


def numbers(values: "array[float]") -> list[bytes]:
    """Each number exactly as `number` writes it.

    JSON writes most of them the same way, all in one call; the others (1e6 and more, less than 1e-4, not finite)
    are looked at again.
    """
    floats = values.tolist()
    joined = _encode(floats)
    texts = joined[1:-1].split(b",")
    if max(floats) >= 1e6 or b"e" in joined or b"n" in joined or b"0.0000" in joined:
        pairs = zip(floats, texts, strict=True)
        return [text if 1e-4 <= value < 1e6 else _other(value, text) for value, text in pairs]
    return texts


def _other(value: float, text: bytes) -> bytes:
    if 1e6 <= value < 1e16:  # timestamps: worth the shortcut
        dot = text.index(b".")
        return (text[:1] + b"." + text[1:dot] + text[dot + 1 :]).rstrip(b"0.") + b"e+%02d" % (dot - 1)
    return text if value == 0 else number(value)
