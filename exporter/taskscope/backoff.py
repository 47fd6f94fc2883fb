"""When something that failed is tried again: later and later, and not at the same moment as others try it."""

import random

FIRST, LAST = 0.5, 30.0  # seconds


class Backoff:
    """Pauses that double up to `last` seconds, each shortened by chance to as little as half."""

    def __init__(self, last: float = LAST) -> None:
        self._last = last
        self._after = min(FIRST, last)

    def next(self) -> float:
        """Seconds until the next try."""
        after, self._after = self._after, min(self._after * 2, self._last)
        return after * random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It works: a failure after this is a new one."""
        self._after = min(FIRST, self._last)
