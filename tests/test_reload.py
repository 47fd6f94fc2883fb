"""What a change of the settings does, as it is read."""

import re
from pathlib import Path

import pytest

from taskscope.cli import serve
from taskscope.errors import BadArgument
from taskscope.reload import AT_ONCE, change
from taskscope.settings import JobRule, Settings, Source, Token

TOKEN = Token(name="t", sha256="0" * 64, scopes=("metrics",))


def test_schedulers_come_go_and_stay():
    one, two, three = (Source(system="x", target=f"redis://h/{n}") for n in range(3))
    found = change(
        Settings(schedulers={"same": one, "moved": two, "gone": three}),
        Settings(schedulers={"same": one, "moved": three, "fresh": two}),
    )
    assert (found.come, found.gone, found.later) == (("moved", "fresh"), ("gone",), ())


def test_what_cannot_be_taken_over_is_named_and_left():
    old = Settings(port=1, batch_size=10)
    found = change(old, Settings(port=2, batch_size=20, log_level="debug", jobs=(JobRule(match="*"),)))
    assert found.later == ("port", "batch_size")
    assert (found.settings.port, found.settings.batch_size) == (1, 10)
    assert (found.settings.log_level, found.settings.jobs) == ("debug", (JobRule(match="*"),))


def test_nothing_changes_where_nothing_changed():
    settings = Settings(tokens=(TOKEN,))
    found = change(settings, Settings(tokens=(TOKEN,)))
    assert (found.settings, found.come, found.gone, found.later) == (settings, (), (), ())


def test_the_new_must_go_together_with_what_stays():
    with pytest.raises(BadArgument, match=r"host 0\.0\.0\.0 is reachable from other machines"):
        change(Settings(host="0.0.0.0", tokens=(TOKEN,)), Settings())


def test_each_setting_that_is_taken_over_is_one():
    assert set(AT_ONCE) <= set(Settings.__struct_fields__)


def test_the_documentation_names_each_setting_that_is_taken_over():
    text = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
    table = text.partition("| taken over at once | |\n")[2].partition("\n\n")[0]
    named = re.findall(r"`(\w+)`", " ".join(line.split("|")[1] for line in table.splitlines()))

    assert sorted(named) == sorted([*AT_ONCE, "tls_certificate", "tls_key"])


def test_the_help_of_serve_names_each_setting_that_is_taken_over():
    told = re.findall(r"SIGHUP +reads the settings again: ([^;]*);", serve.help or "")

    assert sorted(re.findall(r"\w+", "".join(told))) == sorted(AT_ONCE)
