"""Bodies on disk: durable, in order, bounded, and gone when they were sent."""

import os
import signal
import subprocess
import sys

import pytest

from taskscope.errors import Refused, Unavailable
from taskscope.sinks.forward.spool import Spool


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", most=100)


def test_bodies_are_sent_in_order_and_forgotten(spool):
    for body in (b"1", b"2", b"3"):
        spool.put(body)
    sent = []

    assert spool.drain(sent.append, pytest.fail) == 3
    assert sent == [b"1", b"2", b"3"]
    assert spool.drain(sent.append, pytest.fail) == 0
    assert spool.size() == 0


def test_one_that_is_refused_does_not_hold_up_the_others(spool):
    for body in (b"bad", b"good"):
        spool.put(body)
    sent, told = [], []

    def send(body):
        if body == b"bad":
            raise Refused("never")
        sent.append(body)

    assert spool.drain(send, told.append) == 1
    assert (sent, told) == ([b"good"], ["never"])
    assert spool.size() == 0


def test_one_that_cannot_be_read_is_told_and_does_not_hold_up_the_others(spool, tmp_path):
    spool.put(b"good")
    (tmp_path / "spool" / "0").mkdir()  # where a file should be
    sent, told = [], []

    assert spool.drain(sent.append, told.append) == 1

    assert sent == [b"good"]
    [sentence] = told
    assert sentence.startswith(f"what waits in {tmp_path}/spool/0 is not sent, because it cannot be read (")
    assert sentence.endswith("delete it")


def test_one_that_cannot_be_removed_is_told_and_sent_once(spool, tmp_path):
    for body in (b"stays", b"good"):
        spool.put(body)
    first = min((tmp_path / "spool").iterdir())
    sent, told = [], []

    def send(body):
        sent.append(body)
        if body == b"stays":  # nobody removes a folder as if it were a file
            first.unlink()
            first.mkdir()

    assert spool.drain(send, told.append) == 2
    assert spool.drain(send, told.append) == 0
    assert sent == [b"stays", b"good"]
    assert set(told) == {told[0]}
    assert told[0].startswith(f"{first} was sent and cannot be removed (")

    first.rmdir()
    first.write_bytes(b"stays")
    assert spool.drain(send, pytest.fail) == 0
    assert spool.size() == 0


def test_what_was_not_taken_waits_on(spool):
    spool.put(b"1")
    spool.put(b"2")

    def away(body):
        raise Unavailable("later")

    with pytest.raises(Unavailable, match="later"):
        spool.drain(away, pytest.fail)
    assert spool.size() == 2


def test_beyond_its_bound_it_says_so_and_keeps_what_it_has(spool):
    spool.put(b"x" * 60)

    with pytest.raises(Unavailable, match=r"spool .* holds 100 bytes already"):
        spool.put(b"x" * 60)
    assert spool.size() == 60


def test_a_folder_that_cannot_be_made_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(Unavailable, match=r"spool .*file/spool cannot be written"):
        Spool(tmp_path / "file" / "spool").put(b"1")


def test_only_its_user_reads_it(spool, tmp_path):
    spool.put(b"1")
    folder = tmp_path / "spool"

    assert folder.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in folder.iterdir()] == [0o600]


def test_two_processes_may_drain_it_at_once(spool, tmp_path):
    for number in range(5):
        spool.put(b"%d" % number)
    other, sent = Spool(tmp_path / "spool"), []

    def send(body):
        sent.append(body)
        if len(sent) == 1:
            other.drain(sent.append, pytest.fail)

    spool.drain(send, pytest.fail)

    assert set(sent) == {b"%d" % number for number in range(5)}
    assert spool.size() == 0


def test_what_was_put_survives_a_kill(tmp_path):
    program = (
        "import os, signal; from pathlib import Path; from taskscope.sinks.forward.spool import Spool\n"
        f"Spool(Path({str(tmp_path)!r})).put(b'kept'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL
    sent = []

    Spool(tmp_path).drain(sent.append, pytest.fail)

    assert sent == [b"kept"]


def test_a_draft_of_a_process_that_was_killed_is_not_sent(tmp_path):
    (tmp_path / ".draft").write_bytes(b"half")
    sent = []

    assert Spool(tmp_path).drain(sent.append, pytest.fail) == 0
    assert os.listdir(tmp_path) == [".draft"]
