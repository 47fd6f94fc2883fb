import threading

import pytest

from taskscope.bridges import find
from taskscope.facts import Bit, Change, row_of
from taskscope.testing import FakeScheduler, Recorder


@pytest.fixture
def script():
    return FakeScheduler()


@pytest.fixture
def seen(script):
    recorder = Recorder()
    bridge = find(script)(script, "s")
    bridge.attach(recorder.emit)
    yield recorder
    bridge.detach()


def test_it_remembers_events_by_run(script, seen):
    script.job("a").run()
    run = script.job("b").start()

    assert len(seen.runs()) == 2
    assert [fact.status for fact in seen.runs("b")[run.native]] == ["queued", "started"]


def test_it_waits_for_what_comes_and_returns_it(script, seen):
    timer = threading.Timer(0.05, script.job("late").run)
    timer.start()

    run = seen.wait_for(lambda: [fact for fact in seen.facts if fact.status == "success"], timeout=5)

    timer.join()
    assert run[0].job == "late"


def test_it_gives_up_after_the_deadline_and_says_what_it_saw(script, seen):
    script.job("a").start()

    with pytest.raises(AssertionError, match=r"not seen within 0.05 s; seen: \['queued', 'started'\]"):
        seen.wait_for(lambda: "success" in {fact.status for fact in seen.facts}, timeout=0.05)


def test_it_hands_on_what_was_committed(script, seen):
    handed = []
    recorder = Recorder(on_commit=handed.extend)
    script.job("a").run()
    change = Change(row_of(seen.facts[-1], b"0" * 16), Bit.SUCCESS)

    recorder.committed([change])

    assert recorder.changes == handed == [change]
