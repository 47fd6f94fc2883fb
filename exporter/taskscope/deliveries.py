"""Events that other processes sent: a sender hears of the end of its delivery when that is durable, or repeats it.

Deliveries are kept by their senders, not here: those under way when the store goes away fail, whole, and what they
told comes again, which merging makes harmless.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from taskscope.admission import Admission
from taskscope.asked import Ask, Asked
from taskscope.errors import BadEvent, Unavailable
from taskscope.events import Event, Fact
from taskscope.identity import key, run_id

Delivered = Sequence[Event]


class Deliveries(Asked[Delivered]):
    """Takes whole deliveries and hands over what is admitted of them, some deliveries at a time."""

    def __init__(self, most: int, admission: Admission, on_ask: Callable[[], None]) -> None:
        """At most `most` events wait."""
        super().__init__(most, on_ask=on_ask)
        self._admission = admission
        self._under_way: list[tuple[Ask[Delivered], dict[int, str]]] = []

    def deliver(self, events: Delivered) -> Future[dict[int, str]]:
        """Have these events carried. Once the future is done all are durable but those which it names: index to why.

        Fails as `Asked` says; nothing of the delivery needs to have been taken then, and all of it may be told again.
        """
        return self.ask(events, len(events))

    @contextmanager
    def turn(self, most: int, now: float, refuse: Callable[[str], None]) -> Iterator[list[Event]]:
        """About `most` admitted events that are durable once the block is left; where it raises, their senders hear."""
        self._under_way = list(self._taken(most))
        try:
            yield [
                event for ask, bad in self._under_way for event in self._admitted(ask.what, bad, now, refuse)
            ]
        except Exception as error:
            for ask, _ in self._under_way:
                ask.end.set_exception(
                    error if isinstance(error, Unavailable) else Unavailable("a fault of taskscope")
                )
            raise
        else:
            for ask, bad in self._under_way:
                ask.end.set_result(bad)
        finally:
            self._under_way = []

    def refuse(self, run: bytes, why: str) -> None:
        """The events under way that told of this run are not taken."""
        for ask, bad in self._under_way:
            for index, event in enumerate(ask.what):
                if isinstance(event, Fact) and _key(event) == key(run):
                    bad[index] = why

    def _taken(self, most: int) -> Iterator[tuple[Ask[Delivered], dict[int, str]]]:
        while most > 0 and (ask := self.next()) is not None:
            most -= ask.size
            yield ask, {}

    def _admitted(
        self, events: Delivered, bad: dict[int, str], now: float, refuse: Callable[[str], None]
    ) -> Iterator[Event]:
        admit = self._admission.admit
        for index, told in enumerate(events):
            try:
                event = admit(told, now)
            except BadEvent as error:
                bad[index] = str(error)
            except Exception as error:  # noqa: BLE001 - isolation: a bad event hurts itself only
                bad[index] = f"{type(error).__name__}: {error}"
            else:
                if event is not None:
                    yield event
        for why in bad.values():
            refuse(why)


def _key(fact: Fact) -> bytes:
    return key(run_id(fact.scheduler, fact.native, fact.attempt, 0))
