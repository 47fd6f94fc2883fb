"""The two things one can write: a bridge, which watches a scheduler, and a sink, which does something with what it saw.

Both are read here in one sitting; `taskscope.bridges.fake` and `taskscope.testing.Recorder` are the smallest of each.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

import msgspec

from taskscope.events import Event, Reading
from taskscope.facts import Change

Told: TypeAlias = Event | Callable[[], Event | None]
"""An event, or, where making it costs more than a µs, a function that makes it: called soon, once, on a thread of
ours. It may return None for what is no longer worth telling."""

Emit: TypeAlias = Callable[[Told], None]
"""Hands over one event. It never blocks and never raises, may be called from any thread, and is not called again
once `detach` has returned."""


def made(told: Told) -> Event | None:
    """The event that was told."""
    return told() if callable(told) else told


class NoOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The options of a bridge that takes none."""


class Bridge(ABC):
    """Watches one scheduler and says what happened.

    A file `bridges/<system>.py` with one `Bridge` subclass is all that it takes; the file's name is the system's name.

    What a bridge promises:

    * **The watched program never notices.** Nothing a bridge does on the program's threads blocks, raises, keeps a
      lock of the scheduler, or asks its database. Whatever is slow belongs into `poll`.
    * **Every run is told, each under an id of its own.** `Fact.native` is the same in all facts of a run and different
      for any two runs, also when they overlap, repeat a due time or take no time at all. Every run that started ends
      in a fact: a worker that died is an ending too.
    * **One anchor, or none.** All facts of a run give the same `Fact.anchor`, or none gives any. Without one the fact
      that is stored first chooses the run's id by its own time, and the others find it again, in another batch, process
      or replica, until `dedup_window` after the run has ended; what is told later than that makes another run.
    * **The start is told before the end** where one process sees both; consumers bear any other order all the same.
      An end that says when the run was enqueued and started says that these are facts, too.
    * **Measured, not guessed.** Durations come from the monotonic clock of whoever executes; what a bridge does not
      know, it leaves out.
    * **Nothing is kept.** Memory grows with the runs now in progress, not with the runs and jobs ever seen.
    * **Nothing is left behind.** After `detach` the scheduler is as it was before `attach`: no hook, thread, listener.
    * **Foreign bytes are never executed**: no unpickling of anybody's job, result or message.
    """

    system: ClassVar[str]
    """The kind of scheduler; equal to the file's name."""

    scripted: ClassVar[bool] = False
    """It says what it is told to, for tests and demos, and is not listed among what can be watched."""

    targets: ClassVar[tuple[str, ...]] = ()
    """Class paths (`module.Class`) of the objects it can watch; subclasses of these are recognised too."""

    schemes: ClassVar[tuple[str, ...]] = ()
    """Schemes of the URLs at which it can watch from outside, such as `redis`; empty where it needs the object."""

    Options: ClassVar[type[msgspec.Struct]] = NoOptions
    """What `options` of a scheduler may say in the settings: a frozen struct, keyword-only, each field described as
    in `settings.py`, each with a default."""

    options: msgspec.Struct
    """An instance of `Options`; set by whoever makes the bridge, before `attach`."""

    on_change: Callable[[], None] | None = None
    """Set by whoever polls. A bridge that hears of a change calls it, from any thread, to be polled soon."""

    instance: str = ""
    """The process that executes runs, as facts name it; set by whoever attaches. Empty: `instance.instance()`."""

    @abstractmethod
    def __init__(self, target: Any, name: str) -> None:
        """`target` is what the user gave; `name` is the value of the `scheduler` label. Nothing is hooked yet."""

    @abstractmethod
    def attach(self, emit: Emit) -> None:
        """Begin to watch. Runs already in progress may be told or left out; later ones are all told."""

    def poll(self) -> Iterable[Reading]:
        """What is true right now; called every `poll_interval` seconds on a thread of ours, never by a scrape.

        It may block within its deadline. An exception is counted and shows as `scheduler_up 0`.
        """
        return ()

    @abstractmethod
    def detach(self) -> None:
        """Stop watching and take every hook out. May be called twice, and without `attach`."""

    def abandon(self) -> None:  # noqa: B027 - a bridge without locks and threads has nothing to do
        """In a forked child: let go without touching locks or threads of the parent; hooks that remain do nothing."""


class Sink:
    """Does something with what was seen. Both methods do nothing unless overridden.

    What taskscope promises a sink: calls come one at a time, in order, from one thread of ours. `arrived` sees every
    event exactly as often as it was told; `committed` sees what the store said is new, once, after it is durable.
    An exception is logged once, counted, and keeps nothing from anybody else.
    """

    def arrived(self, events: Sequence[Event]) -> None:
        """These events were told; they are not stored yet."""

    def committed(self, changes: Sequence[Change]) -> None:
        """These runs changed and their change is durable (with `history=None`: is counted)."""

    def close(self) -> None:
        """The last call."""
