"""Templates of links, filled with what is known."""

import pytest

from taskscope.links import filled, host_of, wrong_links

KNOWN = {
    "scheduler": "shop",
    "job_name": "näm/e %&",
    "started": 1_763_750_000_123,
    "trace": "",
    "ended": None,
}


def test_fields_are_percent_encoded_and_places_are_no_links():
    links = {
        "logs": "https://l/?q={job_name}&from={started}&again={job_name}",
        "wiki": "https://w/%7B",
        "grafana": "g",
    }

    assert filled(links, KNOWN) == {
        "logs": "https://l/?q=n%C3%A4m%2Fe%20%25%26&from=1763750000123&again=n%C3%A4m%2Fe%20%25%26",
        "wiki": "https://w/%7B",
    }


@pytest.mark.parametrize("field", ["trace", "ended", "host"])
def test_a_link_of_which_a_field_is_not_known_is_left_out(field):
    assert filled({"there": f"https://t/{{scheduler}}/{{{field}}}"}, KNOWN) == {}


@pytest.mark.parametrize(
    ("template", "field"), [("{scheduler.__class__}", "{scheduler.__class__}"), ("{}", "{}"), ("{0}", "{0}")]
)
def test_nothing_but_fields_is_taken(template, field):
    (sentence,) = wrong_links({"there": f"https://t/{template}"})

    assert sentence.startswith(f"links.there has a field {field} that is none; there are scheduler, job_name")


@pytest.mark.parametrize(
    ("instance", "worker", "host"),
    [("box:17:0a1b", "celery@other", "box"), ("", "celery@box", "box"), ("odd", "worker-1", "")],
)
def test_the_host_is_that_of_the_process_or_of_the_worker(instance, worker, host):
    assert host_of(instance, worker) == host
