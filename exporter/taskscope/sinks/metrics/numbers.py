"""Numbers as Prometheus' clients write them, many at a time."""

from array import array

import msgspec
from prometheus_client.utils import floatToGoString

_encode = msgspec.json.encode


def number(value: float) -> str:
    """One number, exactly as the standard client writes it."""
    text: str = floatToGoString(value)
    return text


def numbers(values: "array[float]") -> list[str]:
    """Each number exactly as `number` writes it.

    JSON writes most of them the same way, all in one call; the others (1e6 and more, less than 1e-4, infinite)
    are looked at again.
    """
    floats = values.tolist()
    joined = _encode(floats).decode()
    texts = joined[1:-1].split(",")
    if max(floats) >= 1e6 or "e" in joined or "n" in joined or "0.0000" in joined:
        pairs = zip(floats, texts, strict=True)
        return [text if 1e-4 <= value < 1e6 else _other(value, text) for value, text in pairs]
    return texts


def _other(value: float, text: str) -> str:
    if 1e6 <= value < 1e16:  # timestamps: worth the shortcut
        dot = text.index(".")
        return f"{text[0]}.{text[1:dot]}{text[dot + 1 :]}".rstrip("0.") + f"e+{dot - 1:02d}"
    return text if value == 0 else number(value)
