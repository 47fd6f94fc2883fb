"""Health as a server needs it, where nothing is asked of taskscope itself."""

import time
from typing import Any

from taskscope.checks import Own
from taskscope.health import Health
from taskscope.live import Live
from taskscope.settings import Settings


def health_of(live: Live, settings: Settings, clock: Any = time.time, **own: Any) -> Health:
    """Looks at `live`; `own` is what is true of taskscope itself."""
    return Health(settings, live, lambda now: Own(now=now, **own), lambda key: None, clock)
