"""Every documented error, in its one form."""

import json

import pytest

from taskscope.settings import Limits, Settings


@pytest.mark.parametrize(
    ("query", "field", "why"),
    [
        ({"nope": "1"}, "nope", "is unknown here; known are scheduler, q, limit, offset"),
        ({"limit": "0"}, "limit", "must be int >= 1"),
        ({"limit": "1001"}, "limit", "is at most 1000"),
        ({"limit": "9" * 400}, "limit", "is at most 1000"),
        ({"limit": "many"}, "limit", "must be a whole number"),
        ({"limit": ["1", "2"]}, "limit", "may be given only once"),
        ({"limit": ""}, "limit", "must be a whole number"),
        ({"offset": "-1"}, "offset", "must be int >= 0"),
        ({"q": "a\0b"}, "q", "must not contain NUL"),
    ],
)
def test_a_bad_parameter_is_refused_by_name(client, query, field, why):
    answer = client.ask("/api/job/", query)

    assert answer.status == 400
    assert answer.json == {"error": f"{field}: {why}", "errors": {field: why}}


def test_all_bad_parameters_are_named_at_once(client):
    answer = client.ask("/api/job/", {"limit": "x", "offset": "y", "nope": "z"})

    assert answer.json["errors"].keys() == {"limit", "offset", "nope"}


def test_the_largest_page_is_a_setting(serve):
    client = serve(Settings(history=None, limits=Limits(page=7)))

    assert client.ask("/api/job/", {"limit": 8}).json["errors"] == {"limit": "is at most 7"}
    assert client.ask("/api/job/").json["limit"] == 7, "the default is not above the most"


@pytest.mark.parametrize(
    "path", ["/nope", "/api/task/runs/1", "/api/job/main", "/%00", "/%ff%fe", "//", "/api/job/%zz"]
)
def test_an_unknown_path_is_a_404_in_the_usual_form(client, path):
    answer = client.ask(path)

    assert answer.status == 404
    assert answer.json.keys() == {"error", "errors"}


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_a_wrong_method_is_a_405_that_lists_the_right_ones(client, method):
    answer = client.ask("/api/job/", method=method)

    assert (answer.status, answer.headers["Allow"]) == (405, "GET,HEAD")
    assert answer.json["error"] == f"/api/job/ does not take {method}."


def test_a_body_beyond_the_bound_is_refused_before_it_is_read(client):
    answer = client.ask("/api/job/", Content_Length=str(10**9))

    assert (answer.status, answer.json["error"]) == (413, "The request body is larger than 4194304 bytes.")


def test_a_request_line_or_header_without_end_is_a_400(client):
    assert client.ask("/" + "x" * 20_000).status == 400
    assert client.ask("/", X_Long="x" * 20_000).status == 400


def test_without_history_the_runs_say_so(client):
    for path in ("/api/task/", "/api/task/unique-tasks", "/api/task/stats"):
        answer = client.ask(path)
        assert (answer.status, answer.json["error"]) == (
            404,
            "This taskscope keeps no history (`history` is null).",
        )


def test_a_fault_is_answered_with_an_id_that_the_log_knows(serve, caplog):
    def broken():
        raise RuntimeError("secret of the inside")

    answer = serve(ready=broken).ask("/-/ready")

    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    fault = answer.json["error"].split()[-1].rstrip(".")
    assert fault in caplog.text
    assert "secret of the inside" in caplog.text


def test_head_answers_as_get_does_without_the_body(client):
    for path in ("/", "/api/job/", "/-/healthy", "/nope", "/metrics"):
        head, get = client.ask(path, method="HEAD"), client.ask(path)
        assert (head.status, head.body) == (get.status, b"")
        assert head.headers["Content-Length"] == str(len(get.body)), path


def test_a_long_answer_is_packed_for_those_who_take_it(client):
    import gzip

    packed = client.ask("/api/openapi.json", Accept_Encoding="gzip")

    assert packed.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(packed.body))["openapi"] == "3.1.0"
    assert client.ask("/api/openapi.json").headers["Content-Encoding"] is None
