import csv
import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskscope import identity
from taskscope.bridges.fake import FakeScheduler
from taskscope.cli import run
from taskscope.events import Captured, Error, Fact
from taskscope.exporter import Exporter

Say = Callable[..., str]


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKSCOPE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TASKSCOPE_CONFIG", raising=False)


def remember(url: str) -> None:
    """Three successes of `good`, two failures of `bad` and a skipped run of `late`."""
    scheduler = FakeScheduler()
    with Exporter(scheduler, names=["script"], history=url, port=None, strict=True):
        for _ in range(3):
            scheduler.job("good").run(duration=0.5)
        for number in range(2):
            scheduler.job("bad").run(duration=1.5 + number, fails=ValueError(f"number {number}\x1b[2J"))
        scheduler.job("late").skip("misfire")


@pytest.fixture
def history(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path}/runs.db"
    remember(url)
    return url


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str], history: str) -> Say:
    """What a command says about the history."""

    def say(*arguments: str, code: int = 0) -> str:
        capsys.readouterr()
        assert run([*arguments, "--history", history]) == code
        output = capsys.readouterr()
        return output.err if code else output.out

    return say


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), delimiter="\t"))


def objects(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_runs_are_shown_newest_first(say: Say):
    rows = lines(say("runs"))
    assert [row["job"] for row in rows] == ["late", "good", "good", "good", "bad", "bad"]
    assert rows[1] | {"when": "", "id": ""} == {
        "when": "",
        "scheduler": "script",
        "job": "good",
        "status": "success",
        "took": "500 ms",
        "why": "",
        "id": "",
    }


def test_failed_runs_say_why_and_cannot_command_the_terminal(say: Say):
    whys = [row["why"] for row in lines(say("runs", "--failed", "--since", "1h"))]
    assert whys == ["ValueError: number 0�[2J", "ValueError: number 1�[2J"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--status", "skipped"], 1),
        (["--failed", "--status", "skipped"], 3),
        (["--job", "good"], 3),
        (["--job", "good", "--job", "late"], 4),
        (["--scheduler", "script"], 6),
        (["--scheduler", "other"], 0),
        (["--limit", "2"], 2),
        (["--since", "1ms"], 0),
    ],
    ids=str,
)
def test_options_choose_runs(say: Say, options: list[str], count: int):
    assert len(lines(say("runs", *options))) == count


def test_runs_as_json_are_one_object_a_line(say: Say):
    rows = objects(say("runs", "--json"))
    assert [row["status"] for row in rows] == ["skipped", "success", "success", "success", "failed", "failed"]
    assert rows[0]["reason"] == "misfire"


def test_runs_can_be_read_beside_the_process_that_writes_them(say: Say, history: str):
    with Exporter(FakeScheduler(), names=["script"], history=history, port=None, strict=True):
        assert len(lines(say("runs"))) == 6


def rich(text: str) -> dict[str, str]:
    """The lines of `show` by what they tell."""
    told, _, _ = text.partition("\n\n")
    return {row["what"]: row["how it is"] for row in lines(told)}


def test_one_run_is_shown_in_full(say: Say):
    failed = max(objects(say("runs", "--failed", "--json")), key=lambda run: str(run["message"]))

    told = say("show", str(failed["id"]))

    shown = rich(told)
    assert (shown["id"], shown["job"], shown["scheduler"]) == (failed["id"], "bad", "script")
    assert (shown["status"], shown["took"]) == ("failed error", "2.5 s")
    assert shown["error"] == "ValueError: number 1\N{REPLACEMENT CHARACTER}[2J"
    assert str(os.getpid()) in shown["instance"]
    assert "worker" not in shown, "what is not known takes no line"
    assert "\nstack trace\n" in told
    assert told.endswith("ValueError: number 1\N{REPLACEMENT CHARACTER}[2J\n")


def test_times_and_details_of_a_run_are_shown_exactly(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    begin = time.time() // 60 * 60
    fact = Fact(
        scheduler="s",
        native="n",
        anchor=begin,
        status="success",
        at=begin + 2.25,
        job="j",
        due=begin,
        enqueued=begin + 0.5,
        started=begin + 2,
        duration=0.25,
        attempt=3,
        queue="q",
        worker="w",
        entity="shop-7",
        key="order-4711",
        result="package 88",
        details={"rows": [1, 2]},
    )
    with Exporter(history=f"sqlite:///{tmp_path}/one.db", port=None, strict=True) as exporter:
        exporter.pipeline.emit(fact)
    id = identity.text(identity.run_id("s", "n", 3, round(begin * 1000)))

    assert run(["show", id.upper(), "--history", f"{tmp_path}/one.db"]) == 0

    told = capsys.readouterr().out
    shown, minute = rich(told), time.strftime("%Y-%m-%d %H:%M", time.gmtime(begin))
    assert [shown[name] for name in ("due", "enqueued", "started", "ended")] == [
        f"{minute}:00.000",
        f"{minute}:00.500",
        f"{minute}:02.000",
        f"{minute}:02.250",
    ]
    assert (shown["took"], shown["waited"], shown["started late by"]) == ("250 ms", "1.5 s", "2.0 s")
    assert (shown["attempt"], shown["queue"], shown["worker"]) == ("3", "q", "w")
    assert (shown["entity"], shown["key"], shown["result"]) == ("shop-7", "order-4711", "package 88")
    assert told.endswith('\ndetails\n{\n  "rows": [\n    1,\n    2\n  ]\n}\n')


def test_one_run_as_json_is_what_an_export_says_of_it(say: Say):
    exported = objects(say("history", "export", "--status", "failed"))[0]

    assert objects(say("show", str(exported["id"]), "--json")) == [exported | {"reported": []}]


def test_what_a_run_reported_and_survived_is_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    now = time.time()
    error = Error(kind="KeyError", message="'rate'", stack="Traceback\n  here\n", data={"shop": "7"})
    captured = Captured(key="k", at=now, error=error)
    told: dict[str, Any] = {"scheduler": "s", "native": "n", "anchor": now, "job": "j", "at": now}
    with Exporter(history=f"sqlite:///{tmp_path}/one.db", port=None, strict=True) as exporter:
        exporter.pipeline.emit(Fact(status="started", captured=captured, **told))
        exporter.pipeline.emit(Fact(status="success", **told))
    id = identity.text(identity.run_id("s", "n", 0, round(now * 1000)))
    which = [id, "--history", f"{tmp_path}/one.db"]

    assert run(["show", *which]) == 0
    shown = capsys.readouterr().out
    assert ": KeyError: 'rate'\nTraceback\n  here\n\ndata of what was reported\n{\n" in shown
    assert run(["show", *which, "--json"]) == 0
    (reported,) = json.loads(capsys.readouterr().out)["reported"]
    assert (reported["exception"], reported["data"]) == ("KeyError", {"shop": "7"})


def test_a_run_that_never_began_has_a_time_in_the_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    now = time.time()
    with Exporter(history=f"sqlite:///{tmp_path}/one.db", port=None, strict=True) as exporter:
        fact = Fact(
            scheduler="s", native="n", status="skipped", at=now, anchor=now, job="j", reason="overlap"
        )
        exporter.pipeline.emit(fact)

    assert run(["runs", "--history", f"{tmp_path}/one.db"]) == 0
    (row,) = lines(capsys.readouterr().out)
    assert row["when"].startswith(time.strftime("%Y-%m-%d", time.localtime(now)))


def test_a_run_can_be_shown_beside_the_process_that_writes_the_history(say: Say, history: str):
    some = objects(say("runs", "--limit", "1", "--json"))[0]
    with Exporter(FakeScheduler(), names=["script"], history=history, port=None, strict=True):
        assert rich(say("show", str(some["id"])))["status"] == "skipped misfire"


def test_a_run_that_is_not_there_is_one_sentence(say: Say):
    error = say("show", "019a6c1e-9f40-8c5d-b3a1-5f0e8d2c4b7a", code=2)
    assert error.count("\n") == 1
    assert "019a6c1e-9f40-8c5d-b3a1-5f0e8d2c4b7a" in error


def test_a_service_names_its_history(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    scheduler = FakeScheduler()
    with Exporter(scheduler, service="billing", port=None, strict=True):
        scheduler.job("invoices").run()
    assert run(["runs", "--service", "billing"]) == 0
    assert [row["job"] for row in lines(capsys.readouterr().out)] == ["invoices"]


@pytest.fixture
def oncall() -> None:
    """The only history that there is."""
    scheduler = FakeScheduler()
    with Exporter(scheduler, service="oncall", port=None, strict=True):
        scheduler.job("page").run()


@pytest.mark.usefixtures("oncall")
def test_the_only_history_is_read_unless_one_is_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    assert run(["runs"]) == 0
    assert [row["job"] for row in lines(capsys.readouterr().out)] == ["page"]
    for command in (["runs"], ["history", "info"], ["history", "export"], ["history", "prune"]):
        assert refused([*command, "--service", "nosuch"], capsys)
    assert refused(["runs", "--history", f"{tmp_path}/home/nosuch.db"], capsys, f"{tmp_path}/home/oncall.db")
    Path("taskscope.yaml").write_text("service: nosuch")
    assert refused(["runs"], capsys)
    Path("taskscope.yaml").unlink()
    monkeypatch.setenv("TASKSCOPE_SERVICE", "nosuch")
    assert refused(["show", "019a6c1e-9f40-8c5d-b3a1-5f0e8d2c4b7a"], capsys)


def refused(command: list[str], capsys: pytest.CaptureFixture[str], there: str = "oncall") -> bool:
    """Does it end with 2 and the one sentence that names the history that there is?"""
    code, output = run(command), capsys.readouterr()
    return (code, output.out, output.err.count("\n")) == (2, "", 1) and f"there is {there}:" in output.err


@pytest.mark.usefixtures("oncall")
def test_where_no_such_file_is_the_files_beside_it_are_told_as_they_can_be_named(
    history: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    there = str(tmp_path / "runs.db")
    assert run(["runs", "--history", "nosuch.db"]) == 2
    assert capsys.readouterr().err == (
        f"taskscope: there is no history {tmp_path}/nosuch.db; there is {there}: name one with --history or --config\n"
    )
    assert run(["runs", "--history", there]) == 0
    assert len(lines(capsys.readouterr().out)) == 6


def test_where_nothing_is_found_the_history_is_named_and_a_job_that_it_never_saw(
    history: str, capsys: pytest.CaptureFixture[str]
):
    assert run(["runs", "--job", "godo", "--history", history]) == 0
    output = capsys.readouterr()
    assert lines(output.out) == []
    assert output.err == f"no such run is in the history {history}; it never saw a job godo, but good\n"


def test_where_nothing_is_found_json_stays_clean(history: str, capsys: pytest.CaptureFixture[str]):
    assert run(["runs", "--job", "late", "--failed", "--json", "--history", history]) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == f"no such run is in the history {history}\n"


@pytest.mark.parametrize(
    "command",
    [
        ["runs"],
        ["show", "019a6c1e-9f40-8c5d-b3a1-5f0e8d2c4b7a"],
        ["history", "info"],
        ["history", "export"],
        ["history", "prune"],
    ],
    ids=" ".join,
)
def test_a_history_that_does_not_exist_is_one_sentence_and_stays_that_way(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run([*command, "--history", f"sqlite:///{tmp_path}/none.db"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none.db" in error
    assert list(tmp_path.glob("none.db*")) == []


def test_an_export_holds_all_that_is_known(say: Say):
    failed = objects(say("history", "export", "--status", "failed"))
    assert len(failed) == 2
    assert "ValueError" in str(failed[0]["stack"])


def test_an_export_goes_into_a_file(say: Say, tmp_path: Path):
    assert say("history", "export", "--format", "csv", "-o", str(tmp_path / "runs.csv")) == ""
    rows = list(csv.DictReader(io.StringIO((tmp_path / "runs.csv").read_text(), newline="")))
    assert [row["job"] for row in rows] == ["late", "good", "good", "good", "bad", "bad"]


def test_a_file_that_cannot_be_written_is_one_sentence(say: Say, tmp_path: Path):
    error = say("history", "export", "-o", str(tmp_path / "no" / "such" / "runs.csv"), code=2)
    assert error.count("\n") == 1
    assert "runs.csv" in error


def test_info_says_what_the_history_holds(say: Say, history: str):
    info = json.loads(say("history", "info", "--json"))
    assert info["runs"] == 6
    assert info["history"] == history
    assert info["bytes"] > 0
    assert info["owner"] is None
    assert info["oldest"] <= info["newest"]


def test_info_names_the_owner(say: Say, history: str):
    with Exporter(FakeScheduler(), history=history, port=None, strict=True):
        assert json.loads(say("history", "info", "--json"))["owner"] == os.getpid()


@pytest.fixture
def few() -> None:
    """Retention that keeps the newest two runs of all, however young the others are."""
    Path("taskscope.yaml").write_text("{dedup_window: 1ms, retention: {max_runs: 2}}")


def planned(say: Say) -> dict[str, int]:
    return {
        row["job"] or row["scheduler"]: int(row["would go"])
        for row in lines(say("history", "prune", "--dry-run"))
    }


def settled(say: Say, count: int) -> dict[str, int]:
    """The plan, once runs of this second may go as well."""
    deadline = time.monotonic() + 10
    while (plan := planned(say))["all"] < count and time.monotonic() < deadline:
        time.sleep(0.1)
    return plan


@pytest.mark.usefixtures("few")
def test_a_dry_run_says_what_goes_and_exactly_that_goes(say: Say):
    before = [row["job"] for row in lines(say("runs"))]
    plan = settled(say, 4)
    assert plan["all"] == 4
    assert [row["job"] for row in lines(say("runs"))] == before
    assert say("history", "prune") == "4 runs were removed.\n"
    after = [row["job"] for row in lines(say("runs"))]
    assert after == before[:2]
    gone = {
        job: before.count(job) - after.count(job) for job in before if before.count(job) > after.count(job)
    }
    assert plan == gone | {"all": 4}
    assert planned(say) == {"all": 0}


@pytest.mark.usefixtures("few")
def test_only_the_owner_prunes_but_everybody_may_ask_what_would_go(say: Say, history: str):
    with Exporter(FakeScheduler(), history=history, port=None, strict=True, retention={"max_runs": None}):
        assert settled(say, 4)["all"] == 4
        error = say("history", "prune", code=2)
    assert f"process {os.getpid()}" in error
    assert error.count("\n") == 1
    assert len(lines(say("runs"))) == 6
