"""When it is inspected, how often, by whom, and what becomes of an inspection that cannot end."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inspecting import HOUR, HOURLY, T0, Past
from msgspec.structs import replace

from taskscope import inspection
from taskscope.configure import LOOKS
from taskscope.events import Defined, Job, SchedulerState
from taskscope.inspection.inspector import Inspector
from taskscope.inspection.ledger import settled
from taskscope.inspection.scene import Found
from taskscope.settings import Inspection, Settings, Source
from taskscope.sinks.history.finding_records import Finding
from taskscope.sinks.history.queries import Queries


def test_what_can_be_looked_for_is_what_settings_may_name():
    assert inspection.looks().keys() == set(LOOKS) == set(Inspection().looks)


def test_it_is_inspected_once_an_hour(past):
    assert [one.through for one in past.inspect()] == [int(T0 * 1000)]
    assert past.inspect() == []
    past.wait(0.9)
    assert past.inspect() == []
    past.wait(0.1)
    (made,) = past.inspect()
    assert (made.through, made.at, made.failure) == (int((T0 + HOUR) * 1000),) * 2 + ("",)
    assert past.queries.inspections() == {"hourly": made}


def test_after_a_long_absence_one_inspection_stands_for_all_that_were_missed(past):
    past.inspect()
    for _ in range(20):
        past.fails()
        past.wait()
    assert len(past.inspect()) == 1
    (found,) = past.findings()
    assert (found.kind, found.details["count"]) == ("new_error", 20)

    past.wait(1000)
    (made,) = past.inspect()
    assert made.through == int((T0 + 1020 * HOUR) * 1000)
    assert past.states() == [("new_error", "recovered")]


def test_an_inspection_that_takes_too_long_gives_up_and_the_next_looks_at_its_window_too(file, monkeypatch):
    past = file(hourly=replace(HOURLY, timeout=1e-9))
    past.inspect()
    past.fails()
    past.wait()
    (made,) = past.inspect()

    assert made.failure == "it took longer than 1e-09 s (its `timeout`), at new_errors"
    assert past.findings() == []
    assert past.inspect() == [], "it is not tried again and again"
    past.wait()
    assert [one.failure != "" for one in past.inspect()] == [True]
    past.wait()
    past.settings.inspections["hourly"] = HOURLY
    (made,) = past.inspect()
    assert made.failure == ""
    assert past.states() == [("new_error", "open")]


def test_a_fault_of_one_inspection_is_told_and_stops_no_other(file, monkeypatch):
    past = file(broken=replace(HOURLY, looks=("silence",)), hourly=replace(HOURLY, looks=("new_errors",)))
    monkeypatch.setattr("taskscope.inspection.silence.look", lambda scene: iter([scene.nothing]))
    past.fails()
    past.wait()

    failures = {one.name: one.failure for one in past.inspect()}
    assert failures == {"broken": "AttributeError: 'Scene' object has no attribute 'nothing'", "hourly": ""}
    assert past.states() == [("new_error", "open")]


def test_one_that_is_disabled_is_only_looked_at_when_asked(file):
    past = file(hourly=replace(HOURLY, enabled=False))
    past.fails()
    past.wait()

    assert past.inspect() == []
    assert [one.kind for one in past.inspector.look("hourly", round(past.clock() * 1000))] == ["new_error"]
    assert past.findings() == [], "and nothing is written"


def test_what_an_inspection_found_that_is_no_more_has_recovered(file):
    past = file(old=HOURLY, hourly=HOURLY)
    past.fails()
    past.wait()
    past.inspect()
    del past.settings.inspections["old"]
    past.settings.inspections["hourly"] = replace(HOURLY, looks=("silence",))
    past.inspector = past.another()
    past.wait()
    past.inspect()

    assert past.states() == [("new_error", "recovered")] * 2


def test_schedulers_are_chosen_by_what_they_belong_to(file):
    rules = replace(HOURLY, labels={"environment": ("prod", "stag*"), "project": ("shop",)})
    past = file(hourly=rules)
    labels = {
        "s": {"environment": "prod", "project": "shop"},
        "staging": {"environment": "staging", "project": "shop"},
        "other": {"environment": "prod", "project": "bank"},
        "bare": {},
    }
    for scheduler, told in labels.items():
        past.live.fold([_state(scheduler, told)])
        past.fails(scheduler=scheduler)
    past.wait()
    past.inspect()

    assert {one.scheduler for one in past.findings()} == {"s", "staging"}


def test_schedulers_are_left_out_by_what_they_belong_to(file):
    past = file(hourly=replace(HOURLY, labels={"environment": ("!stag*",)}))
    for scheduler, told in {
        "s": {"environment": "prod"},
        "staging": {"environment": "staging"},
        "bare": {},
    }.items():
        past.live.fold([_state(scheduler, told)])
        past.fails(scheduler=scheduler)
    past.wait()
    past.inspect()

    assert {one.scheduler for one in past.findings()} == {"s", "bare"}


def test_of_one_that_was_not_told_of_the_settings_say_what_it_belongs_to(file):
    past = file(hourly=replace(HOURLY, labels={"environment": ("prod",)}))
    source = Source(system="fake", labels={"environment": "prod"})
    past.settings = replace(past.settings, schedulers={"s": source})
    past.inspector = past.another()
    past.fails()
    past.fails(scheduler="other")
    past.wait()
    past.inspect()

    assert {one.scheduler for one in past.findings()} == {"s"}


def test_what_a_program_that_died_belongs_to_is_known_also_after_a_restart(file):
    past = file(hourly=replace(HOURLY, labels={"environment": ("prod",)}))
    past.live.fold([Defined(scheduler="s", at=T0, job=Job(name="job", key="1"))])
    for _ in range(25):
        past.live.fold([_state("s", {"environment": "prod"}, past.clock())])
        past.runs()
        past.remember()
        past.wait()
        past.inspect()
    past.fails(entity="shop-7")
    past.wait()
    past.live.expire(past.clock())
    past.inspect()
    past.wait()
    past.live.expire(past.clock())
    past.inspect()
    told = past.states()
    assert ("failing_entity", "open") in told, "it was killed, nothing has succeeded"

    past.store.keep_labels(past.live.labels())
    past.restart(0.1)
    past.wait(2)
    past.inspect()
    assert ("failing_entity", "open") in past.states()
    assert ("silence", "open") in past.states()


def _state(scheduler, labels, at=T0):
    return SchedulerState(scheduler=scheduler, system="fake", at=at, up=True, running=True, labels=labels)


def test_of_two_replicas_one_inspects(postgres_url):
    with ExitStack() as stack:
        past = Past(postgres_url)
        stack.callback(past.close)
        others = []
        for _ in range(2):
            queries = Queries(postgres_url, past.settings)
            stack.callback(queries.close)
            others.append(Inspector(past.settings, queries, past.keep, past.clock))
        _take_turns(past, others)


def _take_turns(past, others):
    past.fails()
    past.wait()
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            made = [one for of in pool.map(lambda other: other.catch_up(), others) for one in of]
            made += [one for other in others for one in other.catch_up()]
            assert len(made) == 1
            past.wait()
    with past.queries.alone("inspect") as mine, past.queries.alone("inspect") as other:
        assert (mine, other) == (True, False)
    assert [one.catch_up() for one in others].count([]) == 1, "the lock was given back"


KEYS = st.sampled_from(["a", "b", "c"])


def _found(key: str, at: int) -> Found:
    return Found(kind="k", scheduler="s", job="j", object="o", key=key, title="t", overview="o", at=at)


@given(st.lists(st.sets(KEYS), max_size=12))
def test_a_finding_is_open_as_long_as_it_is_found_and_recovers_a_window_later(windows):
    kept: dict[bytes, Finding] = {}
    for number, keys in enumerate(windows):
        begin, end = number * 10, number * 10 + 10
        known = list(kept.values())
        for one in settled("i", "l", known, [_found(key, begin + 1) for key in sorted(keys)], begin, end):
            kept[one.id] = one
        still = {one.key for one in kept.values() if not one.recovered}
        assert still == keys
        assert all(one.recovered == end for one in kept.values() if one.recovered > begin)
    for key in "abc":
        spans = [(one.started, one.recovered) for one in kept.values() if one.key == key]
        begun = [n for n, keys in enumerate(windows) if key in keys and (n == 0 or key not in windows[n - 1])]
        assert sorted(start for start, _ in spans) == [n * 10 + 1 for n in begun]


def test_a_window_that_is_not_over_recovers_nothing():
    (one,) = settled("i", "l", [], [_found("a", 1)], 0, 10)

    assert list(settled("i", "l", [one], [], 5, 15)) == []
    assert [gone.recovered for gone in settled("i", "l", [one], [], 10, 20)] == [20]
    assert list(settled("i", "other", [one], [], 10, 20)) == [], "each look speaks of its own"


@pytest.mark.parametrize("name", ["hourly"])
def test_the_settings_are_read_from_yaml(tmp_path, name):
    from taskscope.configure import load

    file = tmp_path / "taskscope.yaml"
    file.write_text(
        f"inspections: {{{name}: {{window: 2h, timeout: 30s, notify: {{silence: 4h, receivers: [ops]}}}}}}\n"
    )
    settings = load(path=file, environ={})

    assert isinstance(settings, Settings)
    assert settings.inspections[name].window == 7200
    assert settings.inspections[name].notify.receivers == ("ops",)
