"""What counts as slow: a limit that the request gives, the job's own p95, or the user's rule for the job."""

import re
from typing import Annotated, TypeAlias

from msgspec import Meta

from taskscope.api.endpoint import Call
from taskscope.api.errors import refused
from taskscope.events import JobKey
from taskscope.rules import rule_for
from taskscope.settings import Settings

_PATTERN = r"^(p95|[0-9]{1,12}(\.[0-9]{1,6})?)?$"
Slow = Annotated[str, Meta(extra_json_schema={"pattern": _PATTERN})]

Limits: TypeAlias = tuple[float | None, dict[JobKey, float] | None]
"""One limit for all, in seconds, or one for each job."""


async def limits(call: Call, slow: str) -> Limits:
    """What the parameter `slow` means. Raises 400."""
    if not slow:
        return None, None
    if not re.fullmatch(_PATTERN, slow):
        raise refused({"slow": "must be milliseconds or p95"})
    if slow == "p95":
        return None, await call.ask(call.queries.p95)
    return float(slow) / 1000, None


def by_rule(call: Call) -> dict[JobKey, float]:
    """The limits that rules set for the jobs that are known."""
    if not any(rule.slow_after for rule in call.backend.settings.jobs):
        return {}
    with call.backend.live.lock:
        keys = list(call.backend.live.jobs)
    found = {key: slow_after(call.backend.settings, key) for key in keys}
    return {key: limit for key, limit in found.items() if limit is not None}


def slow_after(settings: Settings, key: JobKey) -> float | None:
    """The limit that a rule sets for a job, in seconds."""
    rule = rule_for(settings, key) if settings.jobs else None
    return rule.slow_after if rule else None
