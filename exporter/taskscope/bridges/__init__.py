"""Watchers: one file per scheduler; the file name is the name everywhere.

Nothing is listed: whatever file lies here is a bridge, unless its name begins with an underscore.
Bridges import their scheduler only when they are given one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the children of process pools import this package: it must cost them nothing
    from taskscope.contracts import Bridge
    from taskscope.settings import Source


def systems() -> tuple[str, ...]:
    """The names of all bridges, in order."""
    from pkgutil import iter_modules

    return tuple(sorted(module.name for module in iter_modules(__path__) if not module.name.startswith("_")))


def by_name(system: str) -> type[Bridge]:
    """The bridge of this name. Raises `BadArgument`."""
    from importlib import import_module

    from taskscope.contracts import Bridge
    from taskscope.errors import BadArgument

    if system not in systems():
        raise BadArgument(f"there is no bridge {system!r}; there are {', '.join(systems())}")
    module = import_module(f"{__name__}.{system}")
    for thing in vars(module).values():
        if isinstance(thing, type) and issubclass(thing, Bridge) and thing.__module__ == module.__name__:
            return thing
    raise BadArgument(f"{module.__file__} holds no Bridge")


def made(target: Any, name: str) -> Bridge:
    """The bridge that watches `target`: an object, or a `Source` that says at which URL. Raises `BadArgument`."""
    from taskscope.settings import Source

    if isinstance(target, Source):
        return _outside(target, name)
    bridge = find(target)(target, name)
    bridge.options = bridge.Options()
    return bridge


def system_of(target: Any) -> str:
    """The kind of scheduler that an object or a `Source` is. Raises `BadArgument`."""
    from taskscope.settings import Source

    return target.system if isinstance(target, Source) else find(target).system


def _outside(source: Source, name: str) -> Bridge:
    """A bridge that watches from outside what a URL names."""
    from msgspec import convert

    from taskscope.errors import BadArgument
    from taskscope.values import masked, read

    kind, scheme = by_name(source.system), source.target.partition("://")[0]
    if scheme not in kind.schemes:
        forms = ", ".join(f"{scheme}://…" for scheme in kind.schemes) or "`module:attribute`"
        raise BadArgument(f"schedulers.{name}.target={masked(source.target)!r} is none of {forms}")
    bridge = kind(source.target, name)
    bridge.options = convert(read(source.options, kind.Options, f"schedulers.{name}.options"), kind.Options)
    return bridge


def find(target: Any) -> type[Bridge]:
    """The bridge that can watch this object, recognised by its class. Raises `BadArgument`."""
    from taskscope.errors import BadArgument

    bridges = [by_name(system) for system in systems()]
    for path in (f"{kind.__module__}.{kind.__qualname__}" for kind in type(target).__mro__):
        for bridge in bridges:
            if path in bridge.targets:
                return bridge
    known = ", ".join(f"{path} ({bridge.system})" for bridge in bridges for path in bridge.targets)
    kind = type(target)
    raise BadArgument(f"a {kind.__module__}.{kind.__qualname__} cannot be watched; give one of: {known}")
