"""Reports an exception that a run survives: it belongs to the run, and the run does not fail of it."""

import logging
import sys
import time
from typing import Any
from uuid import uuid4

from taskscope.run import current_making

_log = logging.getLogger(__name__)


def capture_exception(error: BaseException | None = None, /, **data: Any) -> None:
    """Report this exception, by default the one that is being handled, as one that the current run survives.

    `data` is kept with it, by repr and without secrets. Never raises and never blocks; outside of a run, and where
    nobody watches, it does nothing.
    """
    try:
        _capture(error or sys.exception(), data)
    except Exception:  # noqa: BLE001 - whatever is wrong here, the program has trouble enough
        _log.debug("taskscope could not capture an exception", exc_info=True)


def _capture(error: BaseException | None, data: dict[str, Any]) -> None:
    making = current_making()
    tell = getattr(making, "tell", None)
    if making is None or tell is None or error is None:
        return
    from taskscope.events import Captured, Fact  # slow to import, and a pool has many children
    from taskscope.failure import describe_caught

    run, now = making(), time.time()
    captured = Captured(key=uuid4().hex, at=now, error=describe_caught(error, data))
    tell(
        Fact(
            scheduler=run.scheduler,
            native=run.native,
            attempt=run.attempt,
            anchor=run.anchor,
            job=run.job_name,
            due=run.due,
            status="started",
            at=now,
            captured=captured,
        )
    )
