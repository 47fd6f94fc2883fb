"""A burst goes first: the program has the processor, and many events at once cost less than as many few."""

POUR = 500  # events between two looks make a burst
HOLD = 1.0  # seconds for which one is let through first


class Burst:
    """Is there one, and since when?"""

    def __init__(self) -> None:
        self._waited = 0
        self._since = 0.0
        self.holds = False
        """Shall what waits wait on?"""

    def look(self, waiting: int, allowed: bool, now: float) -> bool:
        """Does one hold, with so many events waiting? Only where that is `allowed`."""
        before, self._waited = self._waited, waiting
        pours = waiting - before >= POUR and allowed
        self._since = (self._since or now) if pours else 0.0
        self.holds = pours and now - self._since < HOLD
        return self.holds

    @property
    def since(self) -> float:
        """When the one that holds began; 0 while none does."""
        return self._since if self.holds else 0.0
