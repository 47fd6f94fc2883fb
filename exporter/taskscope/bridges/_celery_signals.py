"""Watches a Celery app by its signals, in whichever of its processes this is."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Thread
from traceback import walk_tb
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import msgspec
from billiard.einfo import ExceptionWithTraceback
from celery import signals
from celery._state import get_current_app
from celery.exceptions import NotRegistered
from celery.utils.dispatch import Signal

from taskscope.bridges._celery_beat import Beat
from taskscope.bridges._celery_mapping import INTERRUPTED, ending, rejected, revoked
from taskscope.bridges._celery_publish import stamp
from taskscope.bridges._celery_runs import Execution, Watch, kept_of
from taskscope.bridges._celery_worker import worker_readings, worker_stopped
from taskscope.bridges._quiet import quiet
from taskscope.contracts import Emit
from taskscope.events import Error, Reading, Status
from taskscope.failure import STACK, cut, describe, reason_of
from taskscope.instance import instance
from taskscope.run import enter, entered, leave

if TYPE_CHECKING:
    from taskscope.bridges.celery import CeleryBridge

_UNKNOWN_TASK = "celery.exceptions.NotRegistered"
_SUCCESS: tuple[Status, str] = ("success", "")
_INERT = (signals.worker_process_init, signals.beat_init)
"""What tells a forked child that it is more than a copy."""
_REPORT = 10.0
"""Seconds between two readings of a beat that is embedded in a worker."""
_FLUSH = 2.0
"""Seconds that a child of a pool waits at its end until what it told is stored."""


class Signals:
    """The receivers of ours. Those about processes and publishing remain as long as the app is watched at all."""

    def __init__(self, bridge: "CeleryBridge") -> None:
        self._bridge, self._app = bridge, bridge.target
        self._watch: Watch | None = None
        self._start: Callable[[], None] | None = None
        self._worker: Any = None
        self._service: Any = None
        self._beat: Beat | None = None
        self._requests: WeakValueDictionary[str, Any] = WeakValueDictionary()
        """The main process's view of the tasks that it has received."""
        self._receivers: list[tuple[Signal, Callable[..., object]]] = []
        self._lost = quiet(_again)

    def defer(self, start: Callable[[], None]) -> None:
        """Only stamp what is published; `start` when this turns out to be a worker or a beat."""
        self._start = start
        self._connect(self._anywhere())

    def attach(self, emit: Emit) -> None:
        """Hear of every task from now on."""
        bridge = self._bridge
        self._watch = Watch(self._app, bridge.name, bridge.instance or instance(), emit)
        self._connect([*self._anywhere(), *self._executing(), *self._receiving()])
        self._watch_beat()

    def poll(self) -> Iterable[Reading]:
        """The worker and the beat that this process is."""
        if self._watch is None:
            return
        name = self._bridge.name
        if self._worker is not None:
            yield from worker_readings(self._worker, name)
        if self._beat is not None:
            yield from self._beat.readings(name)

    def detach(self) -> None:
        """Disconnect every receiver."""
        receivers, self._receivers = self._receivers, []
        for signal, receiver in receivers:
            signal.disconnect(receiver)
        self._let_go()

    def abandon(self) -> None:
        """In a forked child: the same, without locks; only what tells that it is a pool's or a beat remains."""
        receivers, self._receivers = self._receivers, []
        for signal, receiver in receivers:
            if signal in _INERT or (signal is signals.before_task_publish and self._start is not None):
                self._receivers.append((signal, receiver))
            else:
                signal.receivers[:] = [entry for entry in signal.receivers if entry[1] is not receiver]
                signal.sender_receivers_cache.clear()
        self._worker = None
        self._let_go()

    def _let_go(self) -> None:
        self._watch = None
        if self._beat is not None:
            self._beat.remove()
            self._beat = None

    def _connect(self, receivers: Iterable[tuple[Signal, Callable[..., object]]]) -> None:
        connected = [signal for signal, _ in self._receivers]
        for signal, function in receivers:
            if signal not in connected:
                receiver = function if function in (self._prerun, self._postrun) else quiet(function)
                signal.connect(receiver, weak=False)
                self._receivers.append((signal, receiver))

    def _anywhere(self) -> Iterator[tuple[Signal, Callable[..., object]]]:
        yield signals.before_task_publish, stamp
        yield signals.worker_init, self._worker_init
        yield signals.worker_process_init, self._child_init
        yield signals.beat_init, self._beat_init

    def _executing(self) -> Iterator[tuple[Signal, Callable[..., object]]]:
        """What is sent where tasks are executed."""
        yield signals.task_prerun, self._prerun
        yield signals.task_postrun, self._postrun
        yield signals.task_retry, self._retry
        yield signals.task_failure, self._failure
        yield signals.task_internal_error, self._internal_error
        yield signals.worker_process_shutdown, self._child_shutdown

    def _receiving(self) -> Iterator[tuple[Signal, Callable[..., object]]]:
        """What is sent where messages are received."""
        yield signals.task_received, self._received
        yield signals.task_revoked, self._revoked
        yield signals.task_unknown, self._unknown
        yield signals.task_rejected, self._rejected
        yield signals.worker_ready, self._worker_ready
        yield signals.worker_shutdown, self._worker_shutdown

    # Processes

    def _worker_init(self, sender: Any = None, **_: Any) -> None:
        if sender.app is self._app:
            self._worker = sender
            self._begin()

    def _worker_ready(self, **_: Any) -> None:
        self._bridge.changed()

    def _worker_shutdown(self, sender: Any = None, **_: Any) -> None:
        if self._watch is not None and sender is self._worker:
            self._watch.emit(worker_stopped(sender, self._bridge.name))

    def _child_init(self, **_: Any) -> None:
        """A child of a pool begins: forked, spawned, or, in a solo pool, the worker itself."""
        if self._watch is not None or get_current_app() is not self._app:
            return
        if not self._bridge.resume():
            self._begin()

    def _child_shutdown(self, **_: Any) -> None:
        self._bridge.flush(_FLUSH)

    def _beat_init(self, sender: Any = None, **_: Any) -> None:
        if sender.app is self._app:
            self._service = sender
            if self._watch is None and self._bridge.resume():
                # embedded in a worker as a process of its own, which nobody polls
                Thread(target=self._report, name="taskscope-beat", daemon=True).start()
            self._begin()
            self._watch_beat()

    def _report(self) -> None:
        """Tell readings, as long as this process lives."""
        tell = quiet(self._tell_readings)
        while self._watch is not None:
            tell()
            time.sleep(_REPORT)

    def _tell_readings(self) -> None:
        if (watch := self._watch) is not None:
            for reading in self.poll():
                watch.emit(reading)

    def _begin(self) -> None:
        """Here is something to be seen."""
        if self._watch is None and self._start is not None:
            self._start()
        self._bridge.changed()

    def _watch_beat(self) -> None:
        if self._service is not None and self._watch is not None and self._beat is None:
            self._beat = Beat(self._service, self._bridge.changed)
            self._bridge.changed()

    # Where tasks are executed

    def _prerun(self, task: Any = None, **_: Any) -> None:
        """A task begins. What it pays for being watched is paid here and in `_postrun`."""
        try:
            watch = self._watch
            if watch is None or task.app is not self._app:
                return
            run = Execution(watch, task.name, kept_of(vars(task.request_stack.top)), time.time())
            run.handled = id(sys.exception())
            run.token, run.begun = enter(run), time.perf_counter()
            watch.emit(run.start)
        except Exception:  # noqa: BLE001 - `_lost` logs it
            self._lost()

    def _postrun(self, task_id: str = "", state: str | None = None, retval: Any = None, **_: Any) -> None:
        ended = time.perf_counter()
        try:
            run = _executing(task_id)
            if run is None:
                return
            leave(run.token)
            run.token = None
            succeeded = state == "SUCCESS" and id(sys.exception()) == run.handled
            if end := _SUCCESS if succeeded else self._ending(run, state, retval):
                run.duration = ended - run.begun
                run.status, run.reason = end
                run.watch.emit(run.end)
        except Exception:  # noqa: BLE001 - `_lost` logs it
            self._lost()

    def _ending(self, run: Execution, state: str | None, retval: Any) -> tuple[Status, str] | None:
        """Status and reason; None where somebody else tells them."""
        match state:
            case "RETRY":
                return "retried", ending(run.error.kind)[1] if run.error else ""
            case "FAILURE":
                return ending(run.error.kind) if run.error else ("failed", "error")
            case "IGNORED":
                return "skipped", "ignored"
            case "REJECTED":
                return rejected(bool(getattr(retval, "requeue", False)))
        error = sys.exception()
        if not isinstance(error, SystemExit | KeyboardInterrupt) or _is_from_pool(error):
            return None  # the main process tells why it ended the child; `_internal_error` tells the rest
        run.error = describe(error, skip=1)
        return "failed", reason_of(error)

    def _retry(
        self, sender: Any = None, request: Any = None, reason: Any = None, einfo: Any = None, **_: Any
    ) -> None:
        """The attempt will be followed by another; in the main process: its worker or connection is gone."""
        error = _error(getattr(reason, "exc", None) or reason, einfo, skip=0)
        if (run := _executing(request.id)) is not None:
            run.error = error
        elif error is None:
            self._tell(sender, request.id, INTERRUPTED, None, vars(request))
        else:
            self._tell(sender, request.id, ("retried", ending(error.kind)[1]), error, vars(request))

    def _failure(
        self, sender: Any = None, task_id: str = "", exception: Any = None, einfo: Any = None, **_: Any
    ) -> None:
        """The attempt failed; in the main process: by its time limit, or its worker is lost.

        In a child it may come once more after the end; `_internal_error` has told that.
        """
        run, request = _executing(task_id), self._requests.get(task_id)
        if run is not None:
            # of what cannot be pickled `exception` is a substitute
            run.error = _error(sys.exception() or exception, einfo)
        elif request is not None and (error := _error(exception, einfo)) is not None:
            self._tell(sender, task_id, ending(error.kind), error, request.request_dict)

    def _internal_error(
        self, sender: Any = None, task_id: str = "", request: Any = None, exception: Any = None, **_: Any
    ) -> None:
        """Celery itself could not bring the task to its end: its result cannot be stored, for instance."""
        task = {"id": task_id, **(request if isinstance(request, dict) else {})}
        self._tell(sender, task_id, ("failed", reason_of(exception)), describe(exception), task)

    # Where messages are received

    def _received(self, request: Any = None, **_: Any) -> None:
        watch = self._watch
        if watch is None or request.task.app is not self._app:
            return
        self._requests[request.id] = request
        at = time.time()

        def waits() -> Any:
            """Nothing, where it is executed by now: that says more."""
            if request.time_start is not None:
                return None
            return watch.fact(request.task.name, request.request_dict, "queued", at)

        watch.emit(waits)

    def _revoked(self, sender: Any = None, request: Any = None, expired: bool = False, **_: Any) -> None:
        self._tell(sender, request.id, revoked(expired), None, vars(request))

    def _unknown(
        self, sender: Any = None, message: Any = None, name: str = "", id: str = "", **_: Any
    ) -> None:
        self._refuse(sender, message, name, id, NotRegistered(name))

    def _rejected(self, sender: Any = None, message: Any = None, exc: Any = None, **_: Any) -> None:
        """A message of no known form; of one that says which task it is, that task never runs."""
        headers = message.headers or {}
        if exc is not None and headers.get("id") and headers.get("task"):
            self._refuse(sender, message, headers["task"], headers["id"], exc)

    def _refuse(self, consumer: Any, message: Any, job: str, task_id: str, error: Exception) -> None:
        """A message that no task is made of."""
        watch = self._watch
        if watch is None or consumer.app is not self._app:
            return
        said = describe(error)
        status, reason = ending(said.kind)
        if said.kind != _UNKNOWN_TASK:
            status, reason = rejected(requeue=False)
        task = {**message.headers, "id": task_id, "hostname": consumer.hostname}
        watch.tell(job, task | {"delivery_info": message.delivery_info}, status, reason=reason, error=said)

    def _tell(
        self,
        task: Any,
        task_id: str,
        end: tuple[Status, str],
        error: Error | None,
        context: Mapping[str, Any],
    ) -> None:
        """An end that another process than the one executing the task knows of."""
        watch, request = self._watch, self._requests.get(task_id)
        if watch is None or task.app is not self._app:
            return
        started = request.time_start if request is not None else None
        watch.tell(task.name, context, end[0], started=started, reason=end[1], error=error)


def _is_from_pool(error: BaseException) -> bool:
    """Has the pool raised it, because its child was told to end?"""
    frames = [frame for frame, _ in walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith("billiard.")


def _again() -> None:
    """Raise what is being handled."""
    raise


def _executing(task_id: str) -> Execution | None:
    """The execution of this task, if it goes on here."""
    run = entered()
    return run if isinstance(run, Execution) and run.task["id"] == task_id else None


def _error(exception: Any, einfo: Any, skip: int = 1) -> Error | None:
    """What went wrong: from the live exception, without Celery's frame, else what another process says of it."""
    if isinstance(exception, ExceptionWithTraceback):
        exception = exception.exc
    if not isinstance(exception, BaseException):
        return None
    if exception.__traceback__ is not None or einfo is None:
        return describe(exception, skip)
    return msgspec.structs.replace(describe(exception), stack=cut(str(einfo.traceback), STACK))
