"""What Alertmanager's messages say, and that the shipped receivers really send them."""

import json
import re
import subprocess
from html.parser import HTMLParser
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from services.process import until
from services.receivers import ALERTS, shipped

TEMPLATES = ALERTS / "alertmanager/templates/*.tmpl"
HOSTILE = (
    'nightly <!channel> <http://evil.example|click> "quoted" \\ 50 % +&=\'\n'
    "{{ .Labels }}</p><script>alert(1)</script>"
)
TEXTS = ("title", "text", "slack.title", "slack.text", "slack.color", "pagerduty.severity", "silence_url")


def alert(job="nightly", status="firing", **labels):
    """One alert as a template sees it."""
    named = {
        "alertname": "TaskscopeJobFailing",
        "severity": "critical",
        "scheduler": "billing",
        "job_name": job,
    }
    return {
        "status": status,
        "labels": {name: value for name, value in (named | labels).items() if value is not None},
        "annotations": {
            "summary": "A job fails.",
            "description": f"{job} failed 3 of 4 times.",
            "dashboard_url": "http://localhost:3000/d/taskscope-job?var-scheduler=billing&var-job_name=nightly",
            "runbook_url": "http://localhost:9750/runbook#taskscopejobfailing",
        },
        "startsAt": "2026-11-21T02:00:00Z",
        "endsAt": "2026-11-21T03:01:01.4Z" if status == "resolved" else "0001-01-01T00:00:00Z",
        "generatorURL": "http://localhost:9090/graph?g0.expr=1",
        "fingerprint": "abc",
    }


def group(*alerts, by=("alertname", "scheduler", "job_name")):
    """A notification about these alerts as a template sees it."""

    def common(part):
        shared = set.intersection(*(set(one[part].items()) for one in alerts))
        return dict(shared)

    return {
        "receiver": "any",
        "status": "firing" if any(one["status"] == "firing" for one in alerts) else "resolved",
        "alerts": list(alerts),
        "groupLabels": {name: value for name, value in common("labels").items() if name in by},
        "commonLabels": common("labels"),
        "commonAnnotations": common("annotations"),
        "externalURL": "http://localhost:9093",
    }


@pytest.fixture
def render(amtool, tmp_path):
    """Renders a template of ours, by its name, for a notification."""

    def render(name, data, kind="text"):
        (tmp_path / "data.json").write_text(json.dumps(data))
        template = f'--template.text={{{{ template "taskscope.{name}" . }}}}'
        where = (f"--template.glob={TEMPLATES}", f"--template.data={tmp_path / 'data.json'}")
        command = [amtool, "template", "render", template, f"--template.type={kind}", *where]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return render


class Page(HTMLParser):
    """The links and the tags of a page."""

    def __init__(self, html):
        super().__init__()
        self.links, self.tags, self.text = [], set(), ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.links += [value for name, value in attrs if name == "href"]

    def handle_data(self, data):
        self.text += data


def test_a_firing_alert_says_what_where_since_when_and_what_to_do(render):
    data = group(alert(team="payments"))

    assert render("title", data) == "[CRITICAL] TaskscopeJobFailing: billing/nightly"
    assert render("text", data).splitlines() == [
        "billing/nightly: CRITICAL since 2026-11-21 02:00:00 UTC",
        "A job fails.",
        "nightly failed 3 of 4 times.",
        "Team: payments",
        "Dashboard: http://localhost:3000/d/taskscope-job?var-scheduler=billing&var-job_name=nightly",
        "Runs: http://localhost:3000/d/taskscope-runs?var-scheduler=billing&var-job_name=nightly"
        "&from=1795140000000&to=now",
        "Runbook: http://localhost:9750/runbook#taskscopejobfailing",
        "Query: http://localhost:9090/graph?g0.expr=1",
        "",
        "Silence: http://localhost:9093/#/silences/new?filter=%7Balertname%3D%22TaskscopeJobFailing%22%2C"
        "job_name%3D%22nightly%22%2Cscheduler%3D%22billing%22%7D",
    ]


def test_a_resolved_alert_says_for_how_long_it_was(render):
    data = group(alert(status="resolved"))

    assert render("title", data) == "[RESOLVED] TaskscopeJobFailing: billing/nightly"
    first = render("text", data).splitlines()[0]
    assert first == (
        "billing/nightly: RESOLVED, was from 2026-11-21 02:00:00 UTC to 2026-11-21 03:01:01 UTC (1h1m1s)"
    )
    assert render("slack.color", data) == "good"


def test_a_group_counts_what_still_fires(render):
    data = group(alert("a"), alert("b"), alert("c", status="resolved"), by=("alertname", "scheduler"))

    assert render("title", data) == "[CRITICAL 2] TaskscopeJobFailing: billing"


def test_a_storm_is_told_in_a_message_of_bounded_length(render):
    data = group(*(alert(f"job-{n}") for n in range(500)), by=("alertname", "scheduler"))

    for name, kind in (("text", "text"), ("slack.text", "text"), ("email.html", "html")):
        message = render(name, data, kind)
        assert "job-9" in message
        assert "job-10" not in message
        assert "Firing 500, resolved 0; ten of each are shown." in message
        assert len(message) < 20_000


def test_an_endless_description_is_cut(render):
    data = group(alert() | {"annotations": {"description": "x" * 100_000}})

    for name, kind in (("text", "text"), ("slack.text", "text"), ("email.html", "html")):
        assert render(name, data, kind).count("x" * 1_000) == 1


def test_a_run_that_the_alert_names_is_linked_itself(render):
    data = group(alert(run_id="0194-a b"))

    assert "Runs: http://localhost:3000/d/taskscope-run?var-run_id=0194-a%20b\n" in render("text", data)


def test_an_alert_about_no_job_has_no_link_to_runs(render):
    data = group(alert(alertname="TaskscopeDown", scheduler=None, job_name=None, instance="web-1:9750"))

    assert render("title", data) == "[CRITICAL] TaskscopeDown: web-1:9750"
    assert "Runs" not in render("text", data) + render("slack.text", data) + render(
        "email.html", data, "html"
    )


def test_alerts_that_share_nothing_still_have_a_message(render):
    bare = {"status": "firing", "labels": {}, "annotations": {}, "startsAt": "2026-11-21T02:00:00Z"}
    data = group(bare, alert())

    assert render("title", data) == "[FIRING 2] alerts"
    assert render("pagerduty.severity", data) == "error"
    assert Page(render("email.html", data, "html")).links


def test_slack_is_told_no_markup_that_a_job_name_holds(render):
    data = group(alert(HOSTILE))

    title, text = render("slack.title", data), render("slack.text", data)

    assert "\n" not in title
    assert "&lt;!channel&gt;" in title
    links = re.findall(r"<([^<>]*)>", title + text)
    assert [link.partition("|")[2] for link in links] == ["Dashboard", "Runs", "Runbook", "Query", "Silence"]
    assert all(link.startswith("http://localhost:") for link in links)


def test_a_mail_shows_a_hostile_job_name_as_text(render):
    page = Page(render("email.html", group(alert(HOSTILE)), "html"))

    assert page.tags <= {"html", "head", "meta", "title", "body", "h2", "div", "p", "strong", "a"}
    assert "<script>alert(1)</script>" in page.text
    assert all(urlsplit(link).scheme == "http" for link in page.links)


def test_links_hold_the_exact_job_name_in_text_and_in_html(render):
    data = group(alert(HOSTILE))
    runs = re.search("Runs: (.*)", render("text", data))[1]
    silence = render("silence_url", data)

    assert parse_qs(urlsplit(runs).query)["var-job_name"] == [HOSTILE]
    quoted = HOSTILE.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    assert f'job_name="{quoted}",scheduler="billing"}}' in unquote(silence)
    assert {runs, silence} <= set(Page(render("email.html", data, "html")).links)


def test_the_silence_link_is_a_filter_that_alertmanager_understands(render, alertmanager, inbox, tmp_path):
    alertmanager.configure(shipped(inbox, tmp_path))
    alertmanager.tell([{"labels": alert(HOSTILE)["labels"]}, {"labels": alert()["labels"]}])
    until(lambda: len(alertmanager.alerts()) == 2)

    filters = unquote(render("silence_url", group(alert(HOSTILE)))).partition("filter=")[2]
    matchers = re.findall(r'\w+="(?:[^"\\]|\\.)*"', filters)

    assert [one["labels"]["job_name"] for one in alertmanager.alerts(filter=matchers)] == [HOSTILE]
    assert "{" + ",".join(matchers) + "}" == filters


def test_no_severity_a_user_may_set_becomes_markup(render):
    data = group(alert(severity="<!here>"))

    assert render("slack.title", data).startswith("[HERE] ")
    assert render("pagerduty.severity", data) == "error"


@pytest.mark.parametrize("name", TEXTS)
def test_every_template_takes_an_alert_without_annotations(render, name):
    data = group(
        {
            "status": "firing",
            "labels": {"alertname": "X"},
            "annotations": {},
            "startsAt": "2026-11-21T02:00:00Z",
        }
    )

    assert "no value" not in render(name, data)


def test_the_shipped_receivers_are_all_told_with_their_secrets(alertmanager, inbox, tmp_path):
    alertmanager.configure(shipped(inbox, tmp_path))

    alertmanager.tell([alert() | {"endsAt": None}, alert("hourly", severity="warning") | {"endsAt": None}])

    until(lambda: inbox.at("/pagerduty") and inbox.mails and len(inbox.at("/taskscope-history")) >= 2)
    until(lambda: len(inbox.at("/slack")) >= 2)
    page = inbox.at("/pagerduty")[0].body
    assert page["routing_key"] == "secret of pagerduty_key"
    assert page["payload"]["severity"] == "critical"
    assert page["payload"]["summary"] == "[CRITICAL] TaskscopeJobFailing: billing/nightly"
    assert [link["text"] for link in page["links"]] == ["Dashboard", "Runbook", "Silence"]
    assert all(link["href"].startswith("http://") for link in page["links"])
    slack = {one.body["attachments"][0]["title"]: one.body["attachments"][0] for one in inbox.at("/slack")}
    assert set(slack) == {
        "[CRITICAL] TaskscopeJobFailing: billing/nightly",
        "[WARNING] TaskscopeJobFailing: billing/hourly",
    }
    assert all("|Runbook>" in one["text"] for one in slack.values())
    mail = inbox.mails[0]
    assert mail["Subject"] == "[WARNING] TaskscopeJobFailing: billing/hourly"
    assert [part.get_content_type() for part in mail.iter_parts()] == ["text/plain", "text/html"]
    assert {one.authorization for one in inbox.at("/taskscope-history")} == {"Bearer secret of token"}
