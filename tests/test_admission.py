"""What may come in."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope.admission import Admission, clean
from taskscope.errors import BadEvent
from taskscope.events import Error, Fact, Job, Jobs
from taskscope.settings import JobRule, Limits, Settings

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
    "field", ["native", "job", "queue", "worker", "instance", "entity", "reason", "trace_id"]
)
def test_every_name_of_a_fact_is_cleaned(field):
    admitted = Admission(Settings()).admit(fact(**{field: "a\0b\ud800"}), NOW)

    assert getattr(admitted, field) == "a\N{REPLACEMENT CHARACTER}b?"


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
    with pytest.raises(BadEvent, match="anchor"):
        Admission(Settings()).admit(fact(anchor=anchor), NOW)


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
