import pytest

from taskscope.bridges import find
from taskscope.events import Jobs, QueueState, SchedulerState
from taskscope.testing import Clock, FakeScheduler, Recorder


@pytest.fixture
def clock():
    return Clock(1_800_000_000.0)


@pytest.fixture
def script(clock):
    return FakeScheduler(clock)


@pytest.fixture
def seen(script):
    recorder = Recorder()
    bridge = find(script)(script, "script")
    bridge.attach(recorder.emit)
    recorder.bridge = bridge
    yield recorder
    bridge.detach()


def readings(seen, kind):
    return [reading for reading in seen.bridge.poll() if isinstance(reading, kind)]


def test_a_whole_run_ends_now_and_began_its_duration_ago(script, seen, clock):
    script.job("nightly").run(duration=2.5)

    end = seen.facts[-1]
    assert [fact.status for fact in seen.facts] == ["queued", "started", "success"]
    assert (end.started, end.duration, end.at) == (clock() - 2.5, 2.5, clock())


def test_runs_overlap_as_the_script_says(script, seen, clock):
    job = script.job("long")
    first = job.start()
    clock.advance(1)
    second = job.start()
    clock.advance(1)
    second.end()
    first.end()

    durations = {native: facts[-1].duration for native, facts in seen.runs().items()}
    assert durations == {first.native: 2, second.native: 1}


def test_every_ending_can_be_scripted(script, seen):
    job = script.job("job")
    job.run()
    job.run(fails=KeyError("gone"))
    job.run(fails=TimeoutError())
    job.skip("misfire")
    job.start().die()

    ends = [(fact.status, fact.reason) for fact in seen.facts if fact.status not in ("queued", "started")]
    assert ends == [
        ("success", ""),
        ("failed", "error"),
        ("failed", "timeout"),
        ("skipped", "misfire"),
        ("failed", "worker_lost"),
    ]


def test_readings_say_what_the_script_says(script, seen, clock):
    script.job("one", queue="slow", next_run=clock() + 60, interval=60.0)
    script.job("two", paused=True)
    script.jobs["one"].queue()
    clock.advance(5)
    script.jobs["one"].start()
    script.running = False

    (state,), (jobs,) = readings(seen, SchedulerState), readings(seen, Jobs)
    slow = {queue.queue: queue for queue in readings(seen, QueueState)}["slow"]
    assert (state.up, state.running) == (True, False)
    assert {job.name: (job.paused, job.triggers[0].state) for job in jobs.jobs} == {
        "one": (False, "WAITING"),
        "two": (True, "PAUSED"),
    }
    assert (slow.ready, slow.in_flight, slow.oldest) == (1, 1, clock() - 5)


def test_a_job_can_be_removed_and_asking_can_fail(script, seen):
    script.job("short-lived")
    script.remove("short-lived")
    assert readings(seen, Jobs)[0].jobs == ()

    script.poll_error = ConnectionError("away")
    with pytest.raises(ConnectionError):
        list(seen.bridge.poll())


def test_a_burst_is_as_many_whole_runs(script, seen):
    script.burst(1_000, jobs=7, fails_every=10)

    ends = [facts[-1].status for facts in seen.runs().values()]
    assert (len(ends), ends.count("failed")) == (1_000, 100)
    assert len({fact.job for fact in seen.facts}) == 7
