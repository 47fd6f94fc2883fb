"""What a running taskscope takes over when its settings are read again, and what waits for its next start."""

import msgspec
from msgspec.structs import asdict, replace

from taskscope.configure import check
from taskscope.settings import Settings

AT_ONCE = (
    "jobs",
    "queues",
    "health",
    "redact",
    "retention",
    "tokens",
    "metrics_open",
    "schedulers",
    "labels",
    "log_format",
    "log_level",
)
"""Settings that take effect without a start."""


class Change(msgspec.Struct, frozen=True):
    """The way from the settings in force to those that were read."""

    settings: Settings
    """Those that hold from now on."""
    gone: tuple[str, ...]
    """Schedulers that are watched no more."""
    come: tuple[str, ...]
    """Schedulers that are watched from now on, and those that are so in another way."""
    later: tuple[str, ...]
    """What changed and does not take effect."""


def change(old: Settings, new: Settings) -> Change:
    """What changes. Raises `BadArgument` where the new does not go together with what stays."""
    before, after = asdict(old), asdict(new)
    settings = check(replace(old, **{name: after[name] for name in AT_ONCE}))
    return Change(
        settings=settings,
        gone=tuple(name for name in old.schedulers if name not in new.schedulers),
        come=tuple(name for name, source in new.schedulers.items() if old.schedulers.get(name) != source),
        later=tuple(name for name in after if name not in AT_ONCE and after[name] != before[name]),
    )
