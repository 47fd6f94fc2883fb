"""What may come in."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.admission import Admission, clean
from taskscope.errors import BadEvent
from taskscope.events import Error, Fact, Job, Jobs, SchedulerState
from taskscope.facts import row_of
from taskscope.settings import JobRule, Limits, Settings, Source

NOW = 1_700_000_000.0


def fact(**fields):
    return Fact(**{"scheduler": "s", "native": "n", "status": "success", "at": NOW, "job": "j"} | fields)


def test_a_clean_event_goes_through_as_it_is():
    event = fact()

    assert Admission(Settings()).admit(event, NOW) is event


@given(st.text(st.characters(blacklist_categories=()), max_size=50))
def test_any_text_becomes_one_that_databases_and_pages_can_hold(text):
    cleaned = clean(text, 40)

    assert len(cleaned) <= 40
    assert "\0" not in cleaned
    assert cleaned.encode("utf-8").decode() == cleaned


@pytest.mark.parametrize(
    "field", ["native", "job", "queue", "worker", "instance", "entity", "key", "result", "reason", "trace_id"]
)
def test_every_name_of_a_fact_is_cleaned(field):
    admitted = Admission(Settings()).admit(fact(**{field: "a\0b\ud800"}), NOW)

    assert getattr(admitted, field) == "a\N{REPLACEMENT CHARACTER}b?"


def test_what_a_run_says_of_itself_is_bounded_and_without_secrets():
    told = {"key": "order?token=abc " + "k" * 999, "result": "password=abc " + "r" * 999}
    admitted = Admission(Settings(limits=Limits(name=600))).admit(fact(**told), NOW)

    assert (admitted.key[:16], len(admitted.key)) == ("order?token=*** ", 500)
    assert (admitted.result[:13], len(admitted.result)) == ("password=*** ", 600)


def test_an_error_is_bounded_and_keeps_both_ends_of_its_stack():
    settings = Settings(limits=Limits(message=10, stack=200, args=5))
    error = Error(kind="E", message="m" * 99, stack="first" + "x" * 999 + "last", data={"k": "v" * 99})

    admitted = Admission(settings).admit(fact(error=error), NOW).error

    assert len(admitted.message) == 10
    assert len(admitted.stack) <= 200
    assert (admitted.stack[:5], admitted.stack[-4:]) == ("first", "last")
    assert admitted.data == {"k": "vvvv…"}


@pytest.mark.parametrize("anchor", [NOW - 31 * 86400, NOW + 2 * 86400, float("nan")])
def test_an_anchor_outside_of_the_kept_time_is_refused(anchor):
    with pytest.raises(BadEvent, match=r"^anchor=.* check the clock of 'web-1:1:a'$"):
        Admission(Settings()).admit(fact(anchor=anchor, instance="web-1:1:a"), NOW)


def test_without_an_anchor_a_time_that_is_not_kept_is_named_as_it_was_written():
    with pytest.raises(BadEvent, match=r"^at=1.0 is outside .*; check the clock of who tells it$"):
        Admission(Settings()).admit(fact(at=1.0), NOW)


def test_a_rule_renames_and_ignores_jobs_in_facts_and_readings():
    rules = (JobRule(match="report-*", name="report"), JobRule(match="s/debug*", ignore=True))
    admission = Admission(Settings(jobs=rules))
    reading = Jobs(
        scheduler="s", at=NOW, jobs=tuple(Job(name=name, key=name) for name in ("report-7", "debug-1", "j"))
    )

    assert admission.admit(fact(job="report-7"), NOW).job == "report"
    assert admission.admit(fact(job="debug-1"), NOW) is None
    assert [job.name for job in admission.admit(reading, NOW).jobs] == ["report", "j"]


def test_the_memory_of_known_names_is_bounded():
    admission = Admission(Settings())

    for number in range(10_500):
        admission.admit(fact(job=f"job-{number}"), NOW)

    assert len(admission._known) <= 10_000


@pytest.mark.parametrize("field", ["at", "due", "enqueued", "started", "duration"])
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), -float("inf"), 32_503_680_000.0])
def test_a_number_that_is_no_time_is_refused_by_its_name(field, value):
    with pytest.raises(BadEvent, match=f"^{field}="):
        Admission(Settings()).admit(fact(**{"anchor": NOW, field: value}), NOW)


@pytest.mark.parametrize("attempt", [-1, 2**31])
def test_an_attempt_that_is_no_count_is_refused(attempt):
    with pytest.raises(BadEvent, match=r"^attempt="):
        Admission(Settings()).admit(fact(attempt=attempt), NOW)


def test_the_greatest_numbers_are_admitted():
    event = fact(attempt=2**31 - 1, due=0.0, duration=32_503_679_999.0)

    assert Admission(Settings()).admit(event, NOW) is event


def test_details_are_admitted_as_they_are():
    details = {"rows": 3, "tables": ["a", "b"], "nested": {"x": None, "y": 1.5}}

    assert Admission(Settings()).admit(fact(details=details), NOW).details == details


def test_details_that_are_too_large_show_their_beginning():
    settings = Settings(limits=Limits(details=1_000))
    details = {"text": '"' * 5_000}

    admitted = Admission(settings).admit(fact(details=details), NOW).details

    assert (admitted["truncated"], admitted["bytes"]) == (True, 10_011)
    assert admitted["beginning"].startswith('{"text":"')
    assert len(msgspec.json.encode(admitted)) <= 1_000


class Broken:
    def __repr__(self):
        raise RuntimeError


def test_what_a_scheduler_belongs_to_is_told_with_its_readings():
    source = Source(system="celery", labels={"environment": "staging", "tier": "1"})
    settings = Settings(labels={"environment": "prod", "project": "shop"}, schedulers={"watched": source})

    def labels(scheduler, **told):
        state = SchedulerState(scheduler=scheduler, system="x", at=NOW, up=True, running=True, labels=told)
        return Admission(settings).admit(state, NOW).labels

    assert labels("s") == {"environment": "prod", "project": "shop"}
    assert labels("watched") == {"environment": "staging", "project": "shop", "tier": "1"}
    assert labels("s", project="bank") == {"environment": "prod", "project": "bank"}, "it knows best itself"


def looped():
    loop = {}
    loop["self"] = loop
    return loop


def nested(depth):
    value = "bottom"
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        "lone \ud800",
        {"key \ud800": 1},
        2**5_000,
        10**5_000,
        float("nan"),
        nested(5_000),
        looped(),
        Broken(),
        {1: 2, None: 3, ("a", Broken()): 4},
        {1, 2},
        b"\xff",
        datetime(2025, 1, 1, tzinfo=UTC),
        object,
    ],
    ids=lambda value: type(value).__name__,
)
def test_details_of_any_kind_can_be_stored(value):
    details = Admission(Settings()).admit(fact(details={"value": value, "rows": 3}), NOW).details

    stored = row_of(fact(details=details), b"id").detail.details
    assert "value" in details
    assert details["rows"] == 3
    assert msgspec.json.decode(stored) == msgspec.json.decode(msgspec.json.encode(details))
