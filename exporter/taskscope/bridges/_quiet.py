"""Keeps trouble of ours away from the program that is watched."""

import logging
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("taskscope")


def quiet(function: Callable[..., object]) -> Callable[..., None]:
    """The same function, but what it raises is logged, the first time, and goes no further."""
    reported = False

    def quietly(*args: Any, **kwargs: Any) -> None:
        nonlocal reported
        try:
            function(*args, **kwargs)
        except Exception:  # the program that is watched must not notice
            if not reported:
                reported = True
                logger.exception("taskscope lost an event; further losses of this kind are not logged")

    return quietly
