"""Methods of one object, with hooks in their place."""

from collections.abc import Callable, Mapping
from typing import Any


class Hooked:
    """Hooks on one object, until they are removed; `found` holds the methods that were there."""

    def __init__(self, target: Any, hooks: Mapping[str, Callable[..., Any]]) -> None:
        self._target, self._hooks = target, dict(hooks)
        self.found = {name: getattr(target, name) for name in hooks}
        self._shadowed = {name: vars(target)[name] for name in hooks if name in vars(target)}
        vars(target).update(self._hooks)

    def remove(self) -> None:
        """Take the hooks out. One that somebody else has hooked again stays, and does nothing."""
        for name, hook in self._hooks.items():
            if vars(self._target).get(name) == hook:
                del vars(self._target)[name]
                if name in self._shadowed:
                    vars(self._target)[name] = self._shadowed[name]
