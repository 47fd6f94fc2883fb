"""Looks at the history now and then, and reports what is new, slow, silent or failing.

Nothing is listed: a file here with a function `look` is something that can be looked for, by the file's name.
"""

from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules

from taskscope.inspection.scene import Found, Scene

Look = Callable[[Scene], Iterator[Found]]


def looks() -> dict[str, Look]:
    """Everything that can be looked for, by name."""
    modules = {one.name: import_module(f"{__name__}.{one.name}") for one in iter_modules(__path__)}
    return {name: module.look for name, module in sorted(modules.items()) if hasattr(module, "look")}
