"""Events on their way to another taskscope: whoever tells them never waits, nothing that is not taken is forgotten."""

import itertools
import json
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from services.ingesting import receiving, taken
from services.process import free_port, until
from taskscope.errors import BadEvent
from taskscope.sinks.forward.address import Address
from taskscope.sinks.forward.forwarder import Forwarder
from taskscope.sinks.forward.outbox import Line
from taskscope.sinks.forward.spool import Spool


def encode(number):
    """Tests tell numbers; `None` is not worth sending."""
    if number is None:
        return None
    if isinstance(number, tuple):
        key, number = number
        return Line(json.dumps({"key": key, "n": number}).encode(), key=key)
    return Line(json.dumps({"n": number}).encode())


def forwarding(url, timeout=5.0, encode=encode, **how):
    return closing_soon(Forwarder(Address(url, timeout=timeout), encode, **{"interval": 0.01} | how))


@contextmanager
def closing_soon(forwarder):
    try:
        yield forwarder
    finally:
        forwarder.close(0.5)


def tell(forwarder, numbers):
    for number in numbers:
        forwarder.emit(number)


def busy(_):
    return 503, {"error": "the history is away"}


def test_events_arrive_once_and_in_order():
    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        tell(forwarder, range(20_000))
        assert forwarder.flush(20)

    assert receiver.numbers == list(range(20_000))
    assert len(receiver.batches) >= 4
    assert forwarder.dropped == {}
    assert {headers["Content-Type"] for headers in receiver.asked} == {"application/x-ndjson"}


def test_large_batches_are_packed_and_small_ones_are_not():
    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        forwarder.emit(1)
        assert forwarder.flush(10)
        assert "Content-Encoding" not in receiver.asked[-1]
        tell(forwarder, range(1_000))
        assert forwarder.flush(10)
        assert receiver.asked[-1]["Content-Encoding"] == "gzip"


def test_a_socket_file_gets_them_unpacked(tmp_path):
    with receiving(file=tmp_path / "sock") as receiver, forwarding(receiver.url) as forwarder:
        tell(forwarder, range(1_000))
        assert forwarder.flush(10)

    assert receiver.numbers == list(range(1_000))
    assert "Content-Encoding" not in receiver.asked[-1]


def test_what_is_not_taken_is_held_and_sent_again_in_order(caplog):
    caplog.set_level(logging.INFO)
    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        receiver.answer = busy
        tell(forwarder, range(100))
        until(lambda: forwarder.failure is not None)
        assert "503" in str(forwarder.failure)
        tell(forwarder, range(100, 200))
        until(lambda: "it is tried again" in caplog.text)
        receiver.answer = taken
        until(lambda: receiver.numbers == list(range(200)))
        until(lambda: forwarder.failure is None)

    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "it is tried again" in line]) == 1
    assert len([line for line in told if "again" in line]) == 2, "and that it is over"


def test_attempts_are_further_and_further_apart():
    moments = []

    def answer(events):
        moments.append(time.monotonic())
        return busy(events)

    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        receiver.answer = answer
        forwarder.emit(1)
        until(lambda: len(moments) >= 4)

    first, _, last = (later - sooner for sooner, later in pairwise(moments[:4]))
    assert last > first


def test_one_that_comes_later_gets_everything():
    port = free_port()
    with forwarding(f"http://127.0.0.1:{port}") as forwarder:
        tell(forwarder, range(50))
        until(lambda: forwarder.failure is not None)
        with receiving(port=port) as receiver:
            until(lambda: receiver.numbers == list(range(50)))


def test_telling_waits_for_nobody_and_memory_is_bounded_while_nobody_answers():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with forwarding(url, timeout=1, limit=1_000) as forwarder:
            for number in range(10_000):
                forwarder.emit(number)
                assert forwarder.backlog <= 2_000
            assert forwarder.failure is None, "all was told before the first request was given up"
            until(lambda: forwarder.failure is not None)

    assert forwarder.dropped["overflow"] >= 8_000
    assert forwarder.dropped["overflow"] + forwarder.dropped["unsaved"] == 10_000


def test_it_recovers_from_one_that_swallowed_everything():
    port = free_port()
    with forwarding(f"http://127.0.0.1:{port}", timeout=0.3) as forwarder:
        with socket.create_server(("127.0.0.1", port)):
            tell(forwarder, range(10))
            until(lambda: "timed out" in str(forwarder.failure))
        with receiving(port=port) as receiver:
            until(lambda: receiver.numbers == list(range(10)))


def test_a_batch_that_is_refused_is_dropped_counted_and_told_once(caplog):
    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        receiver.answer = lambda _: (413, {"error": "too large"})
        tell(forwarder, range(3))
        assert forwarder.flush(10)
        tell(forwarder, range(4))
        assert forwarder.flush(10)
        receiver.answer = taken
        forwarder.emit(7)
        assert forwarder.flush(10)

    assert receiver.numbers == [7]
    assert forwarder.dropped == {"refused": 7}
    assert len([record for record in caplog.records if "too large" in record.getMessage()]) == 1


def test_a_reading_that_is_too_large_takes_nothing_with_it():
    def large(told):
        return (
            Line(json.dumps({"n": -1, "text": "x" * 600_000}).encode(), key=told)
            if told == "large"
            else encode(told)
        )

    with receiving() as receiver, forwarding(receiver.url, encode=large, interval=60) as forwarder:
        receiver.answer = lambda events: (
            taken(events) if "text" not in str(events) else (413, {"error": "too large"})
        )
        tell(forwarder, [1, "large", ("queue", 2), 3])
        assert forwarder.flush(10)

    assert sorted(receiver.numbers) == [1, 2, 3]
    assert forwarder.dropped == {"refused": 1}


def test_events_that_are_refused_in_a_batch_are_told_once(caplog):
    with receiving() as receiver, forwarding(receiver.url) as forwarder:
        receiver.answer = lambda events: (
            200,
            {"accepted": 0, "refused": 1, "errors": [{"index": 0, "error": "no"}]},
        )
        for _ in range(3):
            forwarder.emit(1)
            assert forwarder.flush(10)

    assert forwarder.dropped == {}, "counted by whoever refused it"
    assert len([record for record in caplog.records if "refused an event" in record.getMessage()]) == 1


def test_an_event_that_cannot_be_made_hurts_itself_only(caplog):
    def picky(told):
        if told == 1:
            raise BadEvent("duration=-1 is no duration")
        if told == 2:
            raise RuntimeError("a fault of somebody's")
        return encode(told)

    with receiving() as receiver, forwarding(receiver.url, encode=picky) as forwarder:
        tell(forwarder, [0, 1, 2, None, 3])
        assert forwarder.flush(10)

    assert receiver.numbers == [0, 3]
    assert forwarder.dropped == {"bad": 2}
    assert len([record for record in caplog.records if "(bad)" in record.getMessage()]) == 1


def test_of_readings_the_latest_alone_is_sent_once_somebody_is_there():
    port = free_port()
    with forwarding(f"http://127.0.0.1:{port}") as forwarder:
        tell(forwarder, [("queue", 1), 10, ("queue", 2), ("other", 3)])
        until(lambda: forwarder.failure is not None)
        with receiving(port=port) as receiver:
            until(lambda: receiver.numbers)

    assert sorted(receiver.numbers) == [2, 3, 10]


def test_it_says_that_it_lives_and_what_was_dropped_since_it_was_heard():
    def beat(dropped):
        return Line(json.dumps({"dropped": dropped}).encode(), key="beat")

    port = free_port()
    with forwarding(f"http://127.0.0.1:{port}", beat=beat, beat_every=0.05) as forwarder:
        forwarder.emit(1)
        forwarder.drop("overflow", 3)
        until(lambda: forwarder.failure is not None)
        with receiving(port=port) as receiver:
            until(lambda: len(beats(receiver)) >= 2)
            forwarder.drop("bad", 2)
            until(lambda: {"bad": 2} in beats(receiver))
            said = len(beats(receiver))
            until(lambda: len(beats(receiver)) >= said + 2)

    told = [dropped for dropped in beats(receiver) if dropped]
    assert told == [{"overflow": 3}, {"bad": 2}]


def test_what_was_dropped_is_told_again_in_the_same_words_until_it_is_taken():
    serial, heard = itertools.count(), []

    def beat(dropped):
        return Line(json.dumps({"dropped": dropped, "n": next(serial)}).encode(), key="beat")

    def counted_but_not_answered(events):
        heard.extend(events)
        return busy(events)

    with receiving() as receiver:
        receiver.answer = counted_but_not_answered
        with forwarding(receiver.url, beat=beat, beat_every=0.05) as forwarder:
            forwarder.drop("overflow", 3)
            forwarder.emit(7)
            until(lambda: len(heard) > 4)
            forwarder.drop("overflow", 2)
            receiver.answer = taken
            until(lambda: {"overflow": 2} in beats(receiver))

    heard += [event for batch in receiver.batches for event in batch]
    once = {str(event): event["dropped"] for event in heard if "dropped" in event}
    assert [dropped for dropped in once.values() if dropped] == [{"overflow": 3}, {"overflow": 2}]


def beats(receiver):
    return [event["dropped"] for batch in receiver.batches for event in batch if "dropped" in event]


class TestFlush:
    def test_with_nothing_to_send_it_is_done_at_once(self):
        assert Forwarder(Address("http://127.0.0.1:1"), encode).flush(0)

    def test_it_says_whether_all_was_taken_and_asks_one_that_is_away_once(self):
        port = free_port()
        with forwarding(f"http://127.0.0.1:{port}") as forwarder:
            forwarder.emit(1)
            begun = time.monotonic()
            assert not forwarder.flush(10)
            assert time.monotonic() - begun < 5, "a refusal does not take the whole deadline"
            with receiving(port=port) as receiver:
                assert forwarder.flush(10)
                assert receiver.numbers == [1]

    def test_it_waits_no_longer_than_it_may(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with forwarding(url, timeout=2) as forwarder:
                forwarder.emit(1)
                begun = time.monotonic()
                assert not forwarder.flush(0.2)
                assert time.monotonic() - begun < 1.5

    def test_what_nobody_takes_is_safe_on_disk(self, tmp_path):
        spool = Spool(tmp_path / "spool")
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}"
            with forwarding(url, timeout=2, spool=spool) as forwarder:
                tell(forwarder, range(3))
                assert forwarder.flush(0.2)
        sent = []
        spool.drain(sent.append, pytest.fail)

        assert b'{"n": 0}\n{"n": 1}\n{"n": 2}' in sent


def test_after_close_nothing_is_left_and_nothing_waits():
    before = set(threading.enumerate())
    with receiving() as receiver:
        forwarder = Forwarder(Address(receiver.url), encode)
        tell(forwarder, range(5))
        assert forwarder.close(10)
        forwarder.close()
        tell(forwarder, range(5))
        assert receiver.numbers == list(range(5))
        assert forwarder.backlog == 0

    until(lambda: set(threading.enumerate()) <= before)


def test_what_was_paused_gives_back_what_nobody_took_and_goes_on_with_the_next_event():
    port = free_port()
    with forwarding(f"http://127.0.0.1:{port}") as forwarder:
        tell(forwarder, range(3))
        until(lambda: forwarder.failure is not None)
        assert forwarder.pause() == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']
        assert not forwarder.runs
        with receiving(port=port) as receiver:
            forwarder.emit(3)
            assert forwarder.flush(10)
            assert receiver.numbers == [3]


class TestSpool:
    def test_while_nobody_is_there_it_takes_what_waits_and_is_sent_first(self, tmp_path):
        port, spool = free_port(), Spool(tmp_path / "spool")
        with forwarding(f"http://127.0.0.1:{port}", spool=spool) as forwarder:
            tell(forwarder, range(100))
            until(lambda: spool.size() and not forwarder.backlog)
            with receiving(port=port) as receiver:
                tell(forwarder, range(100, 200))
                until(lambda: len(receiver.numbers) == 200)
                until(lambda: spool.size() == 0)

        assert receiver.numbers == list(range(200))

    def test_the_next_process_sends_what_a_killed_one_left(self, tmp_path):
        port, spool = free_port(), Spool(tmp_path / "spool")
        program = PROGRAM.format(url=f"http://127.0.0.1:{port}", spool=str(tmp_path / "spool")) + (
            "tell(range(10))\nwhile forwarder.backlog: time.sleep(0.01)\nos.kill(os.getpid(), signal.SIGKILL)"
        )
        assert run(program) == -signal.SIGKILL

        with receiving(port=port) as receiver, forwarding(receiver.url, spool=spool) as forwarder:
            forwarder.emit(10)
            until(lambda: len(receiver.numbers) == 11)
            until(lambda: spool.size() == 0)

        assert receiver.numbers == list(range(11))

    def test_what_is_refused_of_it_is_counted(self, tmp_path):
        spool = Spool(tmp_path / "spool")
        spool.put(b'{"n": 1}\n{"n": 2}')
        with receiving() as receiver, forwarding(receiver.url, spool=spool) as forwarder:
            receiver.answer = lambda _: (422, {"error": "no events"})
            forwarder.start()
            until(lambda: forwarder.dropped == {"refused": 2})
            until(lambda: spool.size() == 0)

    def test_one_file_that_cannot_be_read_is_told_once_and_the_rest_arrives(self, tmp_path, caplog):
        spool = Spool(tmp_path / "spool")
        spool.put(b'{"n": 1}')
        (tmp_path / "spool" / "0").mkdir()
        with receiving() as receiver, forwarding(receiver.url, spool=spool) as forwarder:
            for number in (2, 3):
                forwarder.emit(number)
                assert forwarder.flush(10)
                forwarder._look_at = 0.0
            assert forwarder.failure is None

        assert receiver.numbers == [1, 2, 3]
        assert forwarder.dropped == {}
        assert caplog.text.count(f"{tmp_path}/spool/0 is not sent") == 1

    def test_whatever_else_is_wrong_with_it_keeps_nothing_from_arriving(self, tmp_path, caplog):
        class Torn(Spool):
            def drain(self, send, complain):
                raise MemoryError("a file of 10 GB")

        with receiving() as receiver, forwarding(receiver.url, spool=Torn(tmp_path)) as forwarder:
            forwarder.emit(1)
            assert forwarder.flush(10)

        assert receiver.numbers == [1]
        assert "what waits on disk is not sent (MemoryError: a file of 10 GB)" in caplog.text

    def test_a_fault_of_ours_is_a_failure_and_what_was_told_is_safe(self, tmp_path):
        def beat(dropped):
            raise RuntimeError("a fault of ours")

        spool, sent = Spool(tmp_path / "spool"), []
        with (
            receiving() as receiver,
            forwarding(receiver.url, spool=spool, beat=beat, beat_every=0) as forwarder,
        ):
            forwarder.emit(1)
            until(lambda: "a fault of ours" in str(forwarder.failure))
            assert forwarder.flush(10)

        spool.drain(sent.append, pytest.fail)
        assert sent == [b'{"n": 1}']
        assert forwarder.dropped == {}

    def test_a_full_one_is_told_once_and_memory_keeps_the_rest(self, tmp_path, caplog):
        port, spool = free_port(), Spool(tmp_path / "spool", most=5)
        with forwarding(f"http://127.0.0.1:{port}", spool=spool) as forwarder:
            tell(forwarder, range(100))
            until(lambda: "holds 5 bytes already" in caplog.text)
            assert not forwarder.flush(1)
            assert forwarder.backlog == 100
            with receiving(port=port) as receiver:
                assert forwarder.flush(10)
                assert receiver.numbers == list(range(100))

        assert caplog.text.count("holds 5 bytes already") == 1


PROGRAM = """
import json, os, signal, sys, threading, time
from pathlib import Path
from taskscope.sinks.forward.address import Address
from taskscope.sinks.forward.forwarder import Forwarder
from taskscope.sinks.forward.outbox import Line
from taskscope.sinks.forward.spool import Spool

def line(n):
    return Line(json.dumps({{"n": n, "pid": os.getpid()}}).encode())

def tell(numbers):
    for n in numbers:
        forwarder.emit(n)

spool = {spool!r} and Spool(Path({spool!r}))
forwarder = Forwarder(Address({url!r}), line, spool=spool or None, interval=0.01)
"""


def run(program, **how):
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False, **how)
    return done.returncode


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@needs_fork
def test_a_child_that_ends_with_os_exit_sends_its_own_and_nothing_of_its_parents():
    with receiving() as receiver:
        program = PROGRAM.format(url=receiver.url, spool="") + (
            "tell(range(10)); assert forwarder.flush(10)\n"
            "children = []\n"
            "for child in (100, 200):\n"
            "    tell([child - 1])\n"  # waits, perhaps, when the child begins
            "    children.append(os.fork())\n"
            "    if not children[-1]:\n"
            "        tell(range(child, child + 10))\n"
            "        os._exit(0 if forwarder.flush(10) and len(threading.enumerate()) == 2 else 1)\n"
            "assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]\n"
            "assert forwarder.close(10)\n"
        )
        assert run(program) == 0

    numbers = sorted(receiver.numbers)
    assert numbers == [*range(10), 99, *range(100, 110), 199, *range(200, 210)]
    pids = {event["pid"]: 0 for batch in receiver.batches for event in batch}
    assert len(pids) == 3
    for batch in receiver.batches:
        assert len({event["pid"] for event in batch}) == 1


@needs_fork
def test_a_child_begins_while_its_parent_reads_an_answer():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = Address(f"http://127.0.0.1:{server.getsockname()[1]}")
        forwarder = Forwarder(address, encode)
        forwarder.emit(1)
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            until(lambda: address._connection._HTTPConnection__response, what="the head of an answer")
            time.sleep(0.1)  # it waits for the rest
            child = multiprocessing.get_context("fork").Process(target=int)
            child.start()
            child.join(10)
            child.kill()
            child.join()
        forwarder.close(0)

    assert child.exitcode == 0


def test_under_gevent_it_sends_and_nobody_waits_for_it():
    pytest.importorskip("gevent")
    with receiving() as receiver:
        port = free_port()
        program = (
            "from gevent import monkey; monkey.patch_all()\nimport gevent\n"
            + PROGRAM.format(url=receiver.url, spool="")
            + "ticks = []\n"
            "def tick():\n"
            "    while True:\n"
            "        ticks.append(time.monotonic()); gevent.sleep(0.01)\n"
            "gevent.spawn(tick)\n"
            "tell(range(2000)); assert forwarder.flush(10)\n"
            "import socket\n"
            f"silent = socket.create_server(('127.0.0.1', {port}))\n"
            f"away = Forwarder(Address('http://127.0.0.1:{port}', timeout=2), line, interval=0.01)\n"
            "away.emit(1)\n"
            "assert not away.flush(0.5)\n"
            "assert len(ticks) > 20, len(ticks)\n"
            "assert forwarder.close(5)\n"
        )
        assert run(program) == 0

    assert receiver.numbers == list(range(2000))
