"""The runbook as a page, where the links of alerts lead."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from taskscope.api.runbook import anchor
from taskscope.settings import Settings, Token
from taskscope.shipped import shipped


class Page(HTMLParser):
    """Its headings by id, the other spellings of these ids, and where its links lead."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.tags, self.headings, self.links = set[str](), dict[str, str](), list[str]()
        self.spellings = dict[str, str]()
        self._open = ""
        self.feed(body.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if tag == "a" and (spelled := values.get("id")):
            assert spelled not in self.spellings, "an id is there once"
            self.spellings[spelled] = self._open
            return
        self._open = values.get("id") or self._open
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        if values.get("id"):
            assert self._open not in self.headings, "an id is there once"
            self.headings[self._open] = ""

    def handle_endtag(self, tag: str) -> None:
        self._open = "" if re.fullmatch(r"h\d", tag) else self._open

    def handle_data(self, data: str) -> None:
        if self._open:
            self.headings[self._open] += data


@pytest.fixture
def page(client) -> Page:
    answer = client.ask("/runbook")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    return Page(answer.body)


def test_every_heading_of_the_runbook_can_be_led_to(page):
    text = re.sub(r"^```.*?^```", "", shipped("docs/runbook.md").read_text(), flags=re.DOTALL | re.MULTILINE)

    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)

    assert headings
    assert [anchor(heading) for heading in headings] == list(page.headings)


def test_the_link_of_every_alert_leads_to_its_heading(page):
    alerts = [
        rule
        for path in shipped("alerts").glob("*.yml")
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]

    assert alerts
    for rule in alerts:
        fragment = rule["annotations"]["runbook_url"].partition("/runbook#")[2]
        assert page.headings.get(fragment) == rule["alert"]


def test_the_list_at_its_top_leads_to_every_alert(page):
    top = shipped("docs/runbook.md").read_text().partition("\n## ")[0]

    listed = re.findall(r"\[(\w+)\]\(#(\w+)\)", top)

    assert [f"taskscope{name.lower()}" for name, _ in listed] == [link for _, link in listed]
    assert sorted(link for _, link in listed) == sorted(list(page.headings)[1:])


def test_an_alert_can_be_led_to_by_its_own_spelling_too(page):
    names = [heading for heading in page.headings.values() if heading.startswith("Taskscope")]

    assert names
    assert {name: page.spellings[name] for name in names} == {name: name.lower() for name in names}
    assert not page.spellings.keys() & page.headings.keys()


def test_its_links_lead_somewhere(page, client):
    for link in page.links:
        if link.startswith("#"):
            assert link[1:] in page.headings, link
        elif link.startswith("/"):
            assert client.ask(link).status == 200, link
        else:
            assert re.match(r"https?://", link), f"{link} leads nowhere from here"


def test_it_runs_and_loads_nothing(page):
    assert page.tags & {"script", "img", "iframe", "link"} == set()


def test_whoever_is_woken_needs_no_token_for_it(serve):
    token = Token(name="x", sha256="0" * 64, scopes=("metrics",))

    client = serve(Settings(history=None, tokens=(token,)))

    assert client.ask("/runbook").status == 200
    assert client.ask("/").status == 401


def test_the_landing_page_leads_to_it(client):
    assert '<a href="/runbook">' in client.ask("/").body.decode()


def test_without_a_runbook_there_is_a_sentence(client, monkeypatch, tmp_path):
    from taskscope.api import runbook

    runbook._page.cache_clear()
    monkeypatch.setattr(runbook, "shipped", lambda path: Path(tmp_path / path))

    answer = client.ask("/runbook")

    assert (answer.status, answer.json["error"]) == (404, "This taskscope was installed without its runbook.")


def test_the_text_of_the_runbook_is_never_taken_for_markup(client, monkeypatch, tmp_path):
    from taskscope.api import runbook

    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/runbook.md").write_text(
        "# A <b>\n\n<script>x</script> and `a < b`\n\n## `Two` words, so\n"
    )
    runbook._page.cache_clear()
    monkeypatch.setattr(runbook, "shipped", lambda path: tmp_path / path)

    answer = client.ask("/runbook")
    runbook._page.cache_clear()

    page = Page(answer.body)
    assert "script" not in page.tags
    assert page.headings == {"a-b": "A <b>", "two-words-so": "Two words, so"}
    assert page.spellings == {"A-b": "a-b", "Two-words-so": "two-words-so"}
