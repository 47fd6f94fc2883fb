"""An answer that may be a minute old."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Minutely(Generic[T]):
    """The answer to a question that is asked at most once a minute."""

    def __init__(self, ask: Callable[[], T]) -> None:
        self._ask = ask
        self._known: tuple[T, float] | None = None

    def __call__(self) -> T:
        """Ask, unless it was asked within the last minute."""
        known = self._known
        if known is None or time.monotonic() > known[1]:
            known = self._known = (self._ask(), time.monotonic() + 60)
        return known[0]
