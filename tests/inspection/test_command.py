"""`taskscope inspect`: tried out without being written, exported, and refused in a sentence."""

import json
import re
import time

import pytest
from inspecting import HOUR, Past

from taskscope.cli import run


@pytest.fixture
def say(tmp_path, monkeypatch, capsys):
    """What a command says about a history in which something failed in the last full hour."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taskscope.yaml").write_text(
        "inspections: {hourly: {}, 'off': {enabled: false, schedule: '0 3 * * *'}}\n"
    )
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    past = Past(url)
    past.clock.now = time.time() // HOUR * HOUR - 60
    past.fails()
    past.close()

    def say(*arguments, code=0):
        assert run(["inspect", *arguments, "--history", url]) == code
        said = capsys.readouterr()
        return said.err if code else said.out

    return say


def test_a_test_run_prints_what_it_would_report_and_writes_nothing(say):
    for name in ("hourly", "off"):
        for _ in range(2):
            header, line = say("run", name).splitlines()
            assert header.split("\t") == ["level", "kind", "scheduler", "job", "since", "overview"]
            assert line.split("\t")[:4] == ["warning", "new_error", "s", "job"]
            assert line.endswith("ValueError: no happened once. It was never seen before.")
    (found,) = json.loads(say("run", "hourly", "--json"))
    assert found["kind"] == "new_error"
    assert json.loads(say("export", "hourly"))["findings"] == []


def test_inspections_are_listed(say):
    header, hourly, off = (line.split("\t") for line in say("list").splitlines())
    assert header[0] == "inspection"
    assert hourly[:4] == ["hourly", "0 * * * *", "UTC", "new_errors, slow_jobs, silence, failing_entities"]
    assert (hourly[6], off[5]) == ("0", "disabled")


def test_an_export_is_what_the_api_says(say):
    told = json.loads(say("export", "off"))

    assert told["settings"]["schedule"] == "0 3 * * *"
    assert (told["enabled"], told["last_at"], told["next_at"]) == (False, None, None)


@pytest.mark.parametrize("command", ["run", "export"])
def test_an_inspection_that_there_is_not_is_refused(say, command):
    said = say(command, "nightly", code=2)

    assert said == "taskscope: there is no inspection 'nightly' in the settings; there are hourly, off\n"


def test_a_run_that_finds_nothing_says_so(say, tmp_path):
    (tmp_path / "taskscope.yaml").write_text("inspections: {hourly: {jobs: [none]}}\n")

    assert re.fullmatch(
        r"it would report nothing of the full hours from [-\d]+ \d\d:00:00 to [-\d]+ \d\d:00:00\n",
        say("run", "hourly"),
    )


def test_a_test_run_knows_labels_and_absences_from_the_history_and_says_what_it_cannot_know(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taskscope.yaml").write_text("inspections: {prod: {labels: {environment: [prod]}}}\n")
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    past = Past(url)
    past.clock.now = time.time() // HOUR * HOUR - 60 * HOUR
    for _ in range(40):
        past.runs()
        past.runs(job="away", scheduler="bare")
        past.remember()
        past.remember("away", "bare")
        past.wait()
    past.inspect()
    arguments = ["inspect", "run", "prod", "--history", url]

    assert run(arguments) == 0
    said = capsys.readouterr()
    assert said.out.startswith("it would report nothing")
    assert said.err == "what bare, s belongs to is not in the history: the taskscope that runs may know\n"

    past.store.keep_labels({"s": {"environment": "prod"}, "bare": {"environment": "staging"}})
    assert run(arguments) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()[1:]
    assert line.split("\t")[:4] == ["warning", "silence", "s", "job"]
    assert said.err.startswith("when jobs were resumed, only the taskscope that runs knows")

    past.restart(19)
    past.close()
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith("it would report nothing"), "nobody was there to see it"
