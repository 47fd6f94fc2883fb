"""Starting a job's work again, over REST and from the page."""

import logging
import threading
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urlencode

import pytest
from asking import job_path

import taskscope
from services.process import until
from taskscope.api import backfill as api
from taskscope.backfill import backfills
from taskscope.errors import BadArgument
from taskscope.settings import Settings, Token

PATH = f"{job_path('main', 'nightly')}/backfill"
FORM = "application/x-www-form-urlencoded"
MANAGE = Token(name="boss", sha256=sha256(b"boss").hexdigest(), scopes=("manage",))
READ = Token(name="reader", sha256=sha256(b"reader").hexdigest(), scopes=("monitoring",))
CLOSED = Settings(history=None, tokens=(MANAGE, READ))
ELSEWHERE = (
    {"Sec_Fetch_Site": "cross-site"},
    {"Sec_Fetch_Site": "same-site"},
    {"Origin": "http://evil.example"},
)


@pytest.fixture(autouse=True)
def program(monkeypatch):
    """A program that has registered nothing yet."""
    for held in ("_functions", "_running", "_ended"):
        monkeypatch.setattr(backfills, held, {})


@pytest.fixture
def calls():
    """How the registered function was called."""
    asked = []

    @taskscope.on_backfill("nightly")
    def again(entity, force):
        asked.append((entity, force, threading.current_thread().name))
        return len(asked)

    return asked


@pytest.fixture
def held():
    """A registered function that runs until it is let go."""
    gate = threading.Event()

    @taskscope.on_backfill("nightly")
    def again(entity, force):
        gate.wait(20)
        return "made 3"

    yield gate
    gate.set()


def post(client, path=PATH, query=(), **headers):
    return client.ask(path, query, method="POST", **headers)


def send(client, token="", site="same-origin", **fields):
    form = {"scheduler": "main", "job": "nightly", "entity": "", "force": "false", "token": token} | fields
    return client.ask(
        "/backfill", method="POST", body=urlencode(form).encode(), Content_Type=FORM, Sec_Fetch_Site=site
    )


def job(client):
    return client.ask(job_path("main", "nightly")).json


def fails(what):
    @taskscope.on_backfill("nightly")
    def again(entity, force):
        raise what


class Page(HTMLParser):
    """Its text, and the inputs of its form by name."""

    def __init__(self, answer):
        super().__init__()
        self.tags, self.inputs, self.text = set(), {}, ""
        self.feed(answer.body.decode())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "input":
            self.inputs.setdefault(dict(attrs)["name"], dict(attrs))

    def handle_data(self, data):
        self.text += data


def test_the_program_s_function_is_called_with_what_was_asked_for_and_its_answer_told(client, calls):
    some, everything = post(client, query={"entity": "shop 7"}), post(client, query={"force": "true"})

    thread = "taskscope-backfill"
    assert calls == [("shop 7", False, thread), (None, True, thread)]
    assert (some.status, some.json["entity"], some.json["result"]) == (200, "shop 7", "1")
    assert (everything.json["force"], everything.json["result"], everything.json["actor"]) == (
        True,
        "2",
        None,
    )
    assert everything.json["ended_at"] is not None


def test_a_job_says_whether_it_can_be_started_again_and_what_came_of_it(client, calls):
    post(client)
    rows = {row["name"]: row for row in client.ask("/api/job/").json["data"]}

    assert {name: row["backfill"] for name, row in rows.items()} == {
        "nightly": True,
        "odd/name ü?#%2F": False,
    }
    assert rows["nightly"]["last_backfill"]["result"] == "1"
    assert rows["odd/name ü?#%2F"]["last_backfill"] is None


def test_a_job_without_a_function_is_a_404_that_says_who_can(client, calls):
    odd = post(client, f"{job_path('main', 'odd/name ü?#%2F')}/backfill")
    strange = post(client, f"{job_path('nobody', 'nightly')}/backfill")

    assert (odd.status, strange.status) == (404, 404)
    assert "@taskscope.on_backfill" in odd.json["error"]
    assert "collector" in odd.json["error"]
    assert strange.json["error"] == "There is no job 'nightly' of scheduler 'nobody'."


def test_a_function_of_one_scheduler_is_not_for_the_others(client):
    taskscope.on_backfill("nightly", scheduler="other")(lambda entity, force: "other")
    assert post(client).status == 404

    taskscope.on_backfill("nightly", scheduler="main")(lambda entity, force: None)
    assert (post(client).status, job(client)["last_backfill"]["result"]) == (200, None)


def test_a_slash_in_the_name_of_a_job_is_part_of_it(client):
    taskscope.on_backfill("odd/name ü?#%2F")(lambda entity, force: "odd")

    assert post(client, f"{job_path('main', 'odd/name ü?#%2F')}/backfill").json["result"] == "odd"


def test_while_one_runs_the_second_is_a_409_and_the_first_is_told_of_later(client, held, monkeypatch):
    monkeypatch.setattr(api, "PATIENCE", 0.05)

    first, second = post(client, query={"entity": "a"}), post(client)

    assert (first.status, first.json["ended_at"], first.json["entity"]) == (202, None, "a")
    assert (second.status, second.json["error"]) == (
        409,
        "A backfill of 'nightly' runs already; wait until it has ended.",
    )
    held.set()
    until(lambda: job(client)["last_backfill"]["ended_at"])
    assert job(client)["last_backfill"]["result"] == "made 3"
    assert post(client).status == 200, "and then the next may"


def test_only_a_few_run_at_once(client, monkeypatch):
    monkeypatch.setattr(api, "PATIENCE", 0.05)
    gate = threading.Event()
    for number in range(5):
        taskscope.on_backfill(f"j{number}")(lambda entity, force: gate.wait(20) and None)

    answers = [post(client, f"{job_path('main', f'j{number}')}/backfill") for number in range(5)]
    gate.set()

    assert [answer.status for answer in answers] == [202, 202, 202, 202, 409]
    assert "4 backfills run already" in answers[4].json["error"]
    until(lambda: not backfills._running)


@pytest.mark.parametrize(
    "error", [ValueError("no such shop; password=hunter2"), SystemExit("password=hunter2")]
)
def test_what_the_function_raises_is_named_without_secrets(client, error, caplog):
    fails(error)

    answer = post(client)

    assert answer.status == 502
    assert type(error).__name__ in answer.json["error"]
    assert "hunter2" not in answer.body.decode() + caplog.text
    assert type(error).__name__ in caplog.text
    assert type(error).__name__ in job(client)["last_backfill"]["error"]
    assert post(client).status == 502, "it is not taken to run still"


def test_an_error_without_a_text_is_told_too(client):
    class Broken(Exception):
        def __str__(self):
            raise RuntimeError

    fails(Broken())

    assert "Broken" in post(client).json["error"]


@pytest.mark.parametrize(
    "query", [{"force": "perhaps"}, {"entity": "a\0"}, {"entity": "x" * 1025}, {"nope": "1"}]
)
def test_a_bad_question_is_refused_before_anything_is_done(client, calls, query):
    assert post(client, query=query).status == 400
    assert calls == []


def test_who_asked_for_what_is_logged_and_counted(serve, calls, caplog):
    caplog.set_level(logging.INFO, logger="taskscope")
    client = serve(CLOSED, token="boss")

    assert post(client, query={"entity": "shop-7", "force": "true"}).json["actor"] == "boss"

    asked = "backfill of 'nightly' (entity: 'shop-7', force: true), asked for by boss,"
    assert [record.message for record in caplog.records if "backfill" in record.message] == [
        f"the {asked} begins",
        f"the {asked} ended: 1",
    ]
    assert {record.scheduler for record in caplog.records if "backfill" in record.message} == {"main"}


def test_backfills_are_counted_by_job_and_outcome(client, calls):
    post(client)
    fails(OSError())
    post(client)

    page = client.ask("/metrics").body.decode()

    for outcome in ("success", "failed"):
        labels = f'job_name="nightly",outcome="{outcome}",scheduler="main"'
        assert f"taskscope_backfills_total{{{labels}}} 1" in page


def test_rest_needs_the_scope_manage(serve, calls):
    statuses = {name: post(serve(CLOSED, token=name)).status for name in ("", "reader", "boss")}

    assert statuses == {"": 401, "reader": 403, "boss": 200}


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_without_tokens_a_page_of_elsewhere_starts_nothing(client, calls, headers):
    assert post(client, **headers).status == 403
    assert send(client, site="cross-site").status == 403
    assert calls == []
    assert client.ask("/backfill", **headers).status == 200, "it may lead there"


def test_the_page_is_a_form_filled_in_by_its_link(client, calls):
    answer = client.ask(
        "/backfill", {"scheduler": "main", "job": "nightly", "entity": '"><script>x</script>'}
    )
    page = Page(answer)

    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "form-action 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "script" not in page.tags
    filled = {name: given["value"] for name, given in page.inputs.items()}
    assert filled == {
        "scheduler": "main",
        "job": "nightly",
        "entity": '"><script>x</script>',
        "force": "false",
    }, "and nobody is asked for a token where there is none"
    assert calls == []


def test_the_page_says_at_once_where_nothing_can_be_started(client):
    answer = client.ask("/backfill", {"scheduler": "main", "job": "nightly"})

    assert answer.status == 404
    assert "@taskscope.on_backfill" in Page(answer).text


def test_a_blank_for_no_entity_is_none(client, calls):
    assert Page(client.ask("/backfill", {"entity": " "})).inputs["entity"]["value"] == ""
    send(client, entity=" ")

    assert calls[0][0] is None


def test_the_form_starts_it_and_shows_what_was_made(client, calls):
    answer = send(client, entity="shop-7", force="true")

    assert (answer.status, calls[0][:2]) == (200, ("shop-7", True))
    assert "nightly of main, shop-7: done. The program says: 1" in Page(answer).text


def test_the_form_shows_why_not_and_runs_nothing_of_what_it_shows(client):
    fails(ValueError("<script>x</script>"))

    answer = send(client)

    assert (answer.status, "script" in Page(answer).tags) == (502, False)
    assert "ValueError: <script>x</script>" in Page(answer).text
    assert send(client, job="nothing").status == 404


def test_the_form_says_that_it_still_runs(client, held, monkeypatch):
    monkeypatch.setattr(api, "PATIENCE", 0.05)

    first, second = send(client), send(client)

    assert (first.status, second.status) == (202, 409)
    assert "still runs" in Page(first).text
    held.set()
    until(lambda: not backfills._running)


def test_with_tokens_the_form_takes_one_and_tells_strangers_nothing(serve, calls):
    client = serve(CLOSED)
    known = client.ask("/backfill", {"scheduler": "main", "job": "nightly"})
    unknown = client.ask("/backfill", {"scheduler": "main", "job": "nobody"})

    assert Page(known).inputs["token"]["type"] == "password"
    assert (known.status, unknown.status) == (200, 200)
    assert "nightly" not in unknown.body.decode()
    assert [send(client, token).status for token in ("", "wrong", "reader")] == [401, 401, 403]
    assert calls == []
    assert (send(client, "boss").status, len(calls)) == (200, 1)


def test_a_form_that_is_none_is_refused(client, calls):
    assert send(client, nope="1").status == 400
    assert send(client, force="perhaps").status == 400
    assert send(client, entity="x" * 20_000).status == 413
    assert client.ask("/backfill", method="POST", body=b"{}", Content_Type="application/json").status == 415
    assert calls == []


def test_the_landing_page_leads_to_the_form(client, calls):
    text = client.ask("/").body.decode()

    assert text.count('<a href="backfill?scheduler=main&amp;job=nightly&amp;entity=">') == 1


def test_what_cannot_be_registered_is_refused_at_once():
    async def later(entity, force):
        pass

    with pytest.raises(BadArgument, match="must be a plain function"):
        taskscope.on_backfill("nightly")(later)
    with pytest.raises(BadArgument, match="must be the name of a job"):
        taskscope.on_backfill(later)
