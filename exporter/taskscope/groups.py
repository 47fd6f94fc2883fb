"""Which group an error belongs to: its signature, its job, and the user's rules about errors."""

from hashlib import sha256

import msgspec

from taskscope.counts import OTHER
from taskscope.events import JobKey
from taskscope.fingerprint import Signature, signature
from taskscope.masks import masked
from taskscope.rules import error_rule_for
from taskscope.settings import Settings

FINGERPRINT = 8
"""Bytes of a fingerprint; written as hex it has twice as many digits."""


class Group(msgspec.Struct, frozen=True):
    """A group as an error names it."""

    fingerprint: bytes
    kind: str
    place: str = ""
    name: str = ""
    """What a rule calls it."""


class Grouping:
    """Finds the group of every error."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._foreign = settings.errors.foreign

    def of(self, key: JobKey, kind: str, message: str, stack: str) -> Group | None:
        """The group of this error of the job; None where a rule says to ignore it."""
        found = signature(kind, message, stack, self._foreign)
        rule = error_rule_for(self._settings, key, found, message) if self._settings.errors.rules else None
        if rule is None:
            return Group(_digest(key, found), kind, found.place)
        if rule.ignore:
            return None
        if rule.split:
            return Group(_digest(key, found, masked(message)), kind, found.place)
        return Group(_hashed(*key, "named", rule.name), kind, found.place, rule.name)


def other(key: JobKey) -> Group:
    """Where errors of the job are counted together for which there is no room."""
    return Group(_hashed(*key, OTHER), OTHER)


def _digest(key: JobKey, found: Signature, *more: str) -> bytes:
    return _hashed(*key, *found.kinds, "", *(found.places or ("", found.message)), *more)


def _hashed(*texts: str) -> bytes:
    joined = "".join(f"{len(text)}:{text}" for text in texts)
    return sha256(joined.encode("utf-8", "surrogatepass")).digest()[:FINGERPRINT]
