"""Who may ask."""

import logging
from hashlib import sha256

import pytest
from asking import job_path

from taskscope.api.auth import refuse_open
from taskscope.errors import BadArgument
from taskscope.settings import Settings, Token


def token(name, *scopes):
    return Token(name=name, sha256=sha256(name.encode()).hexdigest(), scopes=scopes)


TOKENS = (
    token("scraper", "metrics"),
    token("reader", "monitoring"),
    token("boss", "manage"),
    token("app", "ingest"),
)
SETTINGS = Settings(history=None, tokens=TOKENS)
OPEN = ("/-/healthy", "/-/ready")
MONITORING = ("/", "/sd", "/api/openapi.json", "/api/job/", "/api/task/info", "/api/queue/")


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic cmVhZGVy", "reader", "Bearer nobody", "Bearer ü"]
)
def test_without_a_known_token_everything_but_the_probes_is_closed(serve, header):
    client = serve(SETTINGS)
    headers = {"Authorization": header.encode()} if header else {}

    for path in (*MONITORING, "/metrics"):
        answer = client.ask(path, **headers)
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="taskscope"')
        assert answer.json.keys() == {"error", "errors"}
    for path in OPEN:
        assert client.ask(path, **headers).status == 200


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("scraper", ("/metrics",)), ("reader", MONITORING), ("boss", MONITORING), ("app", ())],
)
def test_a_token_opens_what_its_scopes_cover(serve, name, allowed):
    client = serve(SETTINGS, token=name)

    for path in (*MONITORING, "/metrics"):
        answer = client.ask(path)
        assert answer.status == (200 if path in allowed else 403), path
        if answer.status == 403:
            scope = "metrics" if path == "/metrics" else "monitoring"
            assert answer.json["error"] == f"This token lacks the scope {scope}."


def test_metrics_open_opens_nothing_else(serve):
    client = serve(Settings(history=None, tokens=TOKENS, metrics_open=True))

    assert client.ask("/metrics").status == 200
    assert client.ask("/").status == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:9750", "127.0.0.1.evil.example", "10.0.0.1", "[fe80::1]:1"]
)
def test_without_tokens_a_host_name_of_elsewhere_is_refused(client, host):
    answer = client.ask("/api/job/", Host=host)

    assert (answer.status, answer.json["error"].split()[0]) == (403, host)


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:9750", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:9750"]
)
def test_without_tokens_a_host_name_of_this_host_is_served(client, host):
    assert client.ask("/api/job/", Host=host).status == 200


def test_with_tokens_any_host_name_is_served(serve):
    assert serve(SETTINGS, token="reader").ask("/api/job/", Host="jobs.example").status == 200


@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "http://evil.example"}],
)
def test_without_tokens_a_page_of_elsewhere_changes_nothing(client, headers):
    answer = client.ask(job_path("main", "nightly"), method="DELETE", **headers)

    assert (answer.status, answer.json["error"].split(" may")[0]) == (403, "A page of elsewhere")
    assert client.ask("/api/job/", **headers).status == 200, "it may lead here"


def test_without_tokens_a_page_of_ours_and_programs_may(client):
    for headers in ({"Sec_Fetch_Site": "same-origin"}, {"Origin": f"http://127.0.0.1:{client.port}"}, {}):
        answer = client.ask(job_path("main", "nightly"), method="DELETE", **headers)
        assert answer.status == 409, "of what the job itself does not let"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "jobs.example"])
def test_listening_beyond_this_host_needs_tokens_or_insecure(host):
    with pytest.raises(BadArgument, match="set tokens, or insecure=true"):
        refuse_open(Settings(), host)
    refuse_open(Settings(insecure=True), host)
    refuse_open(SETTINGS, host)


def test_the_log_tells_tokens_apart_by_their_names_only(serve, caplog):
    caplog.set_level(logging.DEBUG, logger="taskscope")
    client = serve(SETTINGS, token="scraper")

    client.ask("/metrics")
    client.ask("/api/job/")

    assert "token scraper asked for metrics: granted" in caplog.messages
    assert "token scraper asked for monitoring: refused" in caplog.messages
    assert "Bearer" not in caplog.text
