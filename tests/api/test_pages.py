"""Probes, service discovery, landing page, metrics, OpenAPI, docs."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
from asking import NOW

from taskscope import __version__
from taskscope.api.backend import Component
from taskscope.api.endpoint import endpoints
from taskscope.api.openapi import markdown
from taskscope.events import SchedulerState
from taskscope.settings import Limits, Settings

BRIDGE = Component(name="main", kind="bridge", ready=True, at=NOW - 2.5)
STORE = Component(name="history", kind="store", ready=False, message="the disk is full")


def test_it_is_healthy_while_it_answers(serve):
    answer = serve(ready=lambda: [STORE]).ask("/-/healthy")

    assert (answer.status, answer.json) == (200, {"status": "healthy"})


def test_ready_names_each_part_its_age_and_what_is_wrong(serve):
    answer = serve(ready=lambda: [BRIDGE, STORE]).ask("/-/ready")

    assert answer.status == 503
    assert answer.json == {
        "ready": False,
        "parts": [
            {
                "name": "main",
                "kind": "bridge",
                "ready": True,
                "at": "2025-11-21T18:33:17.500Z",
                "age": 2500.0,
                "message": None,
            },
            {
                "name": "history",
                "kind": "store",
                "ready": False,
                "at": None,
                "age": None,
                "message": "the disk is full",
            },
        ],
    }
    assert serve(ready=lambda: [BRIDGE]).ask("/-/ready").status == 200


def test_service_discovery_names_the_target_as_it_was_asked(serve):
    client = serve(Settings(history=None, service="shop"))

    answer = client.ask("/sd", Host="localhost:1234")

    labels = {"__metrics_path__": "/metrics", "__scheme__": "http", "service": "shop"}
    assert answer.headers["Content-Type"] == "application/json", "Prometheus insists on it"
    assert answer.json == [{"targets": ["localhost:1234"], "labels": labels}]


class _Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.text = set(), [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_data(self, data):
        self.text += data


OF_HISTORY = tuple(f"/api/{name}/" for name in ("task", "error", "entity", "finding", "inspection"))
"""What is not there without a history."""


def test_the_landing_page_shows_what_is_watched_and_its_links_work(client, live):
    live.fold([SchedulerState(scheduler="<script>x</script>", system="fake", at=NOW, up=True, running=False)])

    answer = client.ask("/")
    page = _Page(answer.body.decode())

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "script" not in page.tags, "a scheduler's name is text"
    assert "<script>x</script>" in page.text
    assert __version__ in page.text
    assert "2 jobs known" in page.text
    assert "/metrics" in page.links
    for link in page.links:
        assert link.startswith("/"), "nothing is loaded from elsewhere"
        assert client.ask(link).status in (
            200,
            404
            if link.startswith(
                ("/api/task/", "/api/error/", "/api/entity/", "/api/finding/", "/api/inspection/")
            )
            else 200,
        ), link


def test_metrics_are_negotiated_and_refreshed_before_each_scrape(client):
    plain = client.ask("/metrics")
    modern = client.ask("/metrics", Accept="application/openmetrics-text; version=1.0.0")
    packed = client.ask("/metrics", Accept_Encoding="gzip")

    assert plain.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    assert b'taskscope_job_first_seen_timestamp_seconds{job_name="nightly",scheduler="main"}' in plain.body
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.body.endswith(b"# EOF\n")
    assert packed.headers["Content-Encoding"] == "gzip"


def test_metrics_can_be_filtered_by_name(client):
    name = "taskscope_job_first_seen_timestamp_seconds"

    lines = client.ask("/metrics", {"name[]": [name]}).body.decode().splitlines()

    assert {line.split("{")[0] for line in lines if not line.startswith("#")} == {name}


def test_every_endpoint_is_described_once_and_all_are_in_the_document(client):
    document = client.ask("/api/openapi.json").json

    known = endpoints()
    assert document["openapi"] == "3.1.0"
    assert set(document["paths"]) == {endpoint.path for endpoint in known}
    assert len({endpoint.name for endpoint in known}) == len(known)
    for endpoint in known:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        assert operation["summary"].endswith("."), endpoint.path
        assert all(parameter["description"] for parameter in operation["parameters"]), endpoint.path


def test_the_most_rows_of_a_page_in_the_document_follow_the_settings(serve):
    document = serve(Settings(history=None, limits=Limits(page=7))).ask("/api/openapi.json").json

    limits = [
        parameter
        for parameter in document["paths"]["/api/job/"]["get"]["parameters"]
        if parameter["name"] == "limit"
    ]
    assert limits[0]["schema"] == {"type": "integer", "minimum": 1, "maximum": 7, "default": 7}


def test_the_docs_are_fresh():
    written = Path(__file__).parents[2] / "docs" / "http-api.md"

    assert written.read_text() == markdown(), "run: make generate"


@pytest.mark.parametrize("path", ["/api/job", "/api/queue", "/api/task/info"])
def test_a_slash_at_the_end_may_be_left_out(client, path):
    assert client.ask(path).status == 200
