"""Reads jobs so that no job store changes: most stores delete what they cannot restore when they are read."""

import pickletools
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import islice
from typing import Any

from taskscope.failure import short_repr


class Unrestored:
    """A stored job that this process cannot restore, for example because its function cannot be imported here."""

    trigger = next_run_time = func = executor = None

    def __init__(self, store: Any, state: Any, error: BaseException) -> None:
        self.id, self.func_ref = _who(state)
        self.name, self.error = self.func_ref, short_repr(error)
        self._jobstore_alias = store._alias


@contextmanager
def sparing(stores: Iterable[Any]) -> Iterator[None]:
    """While this lasts, the present thread removes nothing: what cannot be restored it gets as `Unrestored`."""
    ours = threading.local()
    ours.reading = True  # an attribute of this thread, which no other has, not even one of a forked child
    with ExitStack() as stack:
        for store in stores:
            _shadow(stack, store, "remove_job", partial(_remove, store.remove_job, ours))
            if restore := getattr(store, "_reconstitute_job", None):
                _shadow(stack, store, "_reconstitute_job", partial(_restore, restore, ours, store))
        yield


def _shadow(stack: ExitStack, store: Any, name: str, instead: Callable[..., Any]) -> None:
    """Takes the place of the store's method, until the stack unwinds."""
    if name in vars(store):
        stack.callback(setattr, store, name, vars(store)[name])
    else:
        stack.callback(delattr, store, name)
    setattr(store, name, instead)


def _remove(remove: Callable[[str], None], ours: threading.local, job_id: str) -> None:
    if not hasattr(ours, "reading"):
        remove(job_id)


def _restore(restore: Callable[[Any], Any], ours: threading.local, store: Any, state: Any) -> Any:
    try:
        return restore(state)
    except BaseException as error:  # the store, too, deletes after any of them
        if not hasattr(ours, "reading"):
            raise
        return Unrestored(store, state, error)


def _who(state: Any) -> tuple[str, str]:
    """Id and function of a stored job. A pickle's first words are read, nothing of it is executed."""
    if isinstance(state, dict):
        return str(state.get("id", "?")), str(state.get("func", "?"))
    try:
        words = (word for _, word, _ in pickletools.genops(state) if isinstance(word, str))
        start = list(islice(words, 5))  # "version", "id", its value, "func", its value
    except Exception:  # noqa: BLE001 - raised, any of them would make the store delete the job
        start = []
    return (start[2], start[4]) if start[1:4:2] == ["id", "func"] else ("?", "?")
