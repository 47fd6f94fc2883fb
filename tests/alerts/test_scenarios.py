"""The rules under promtool: each file is valid, each scenario holds, and no alert is without its scenarios."""

import os
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskscope.shipped import shipped

RULES = sorted(shipped("alerts").glob("*.yml"))
SCENARIOS = sorted(Path(__file__).parents[2].glob("alerts/tests/*.yml"))
ALWAYS = {"TaskscopeWatchdog"}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@cache
def content(path: Path) -> dict[str, Any]:
    """Read once, and by libyaml: they are long, and every test asks for all of them."""
    found: dict[str, Any] = yaml.load(path.read_text(), yaml.CSafeLoader)
    return found


def name_of(path: Path) -> str:
    return path.stem


def alerts_of(path: Path) -> list[dict[str, Any]]:
    groups = content(path)["groups"]
    return [rule for group in groups for rule in group["rules"] if "alert" in rule]


REVERSED = ("health", "muting", "queues", "schedulers")
"""Those whose groups take from each other what is true now."""


def orders(path: Path) -> list[list[str]]:
    """In which the groups of a scenario are evaluated: Prometheus has none, each has its own moment of the minute."""
    scenario = content(path)
    files = [content((path.parent / file).resolve()) for file in scenario["rule_files"]]
    groups = sorted(group["name"] for file in files for group in file["groups"])
    if "group_eval_order" in scenario:
        return [[]]
    return [groups, groups[::-1]] if path.stem in REVERSED else [groups]


ALERTS = sorted({alert["alert"] for path in RULES for alert in alerts_of(path)})
OF_JOBS = sorted({alert["alert"] for path in RULES if path.stem == "jobs" for alert in alerts_of(path)})


def seconds(time: str) -> int:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", time))


def scenarios() -> Iterator[dict[str, Any]]:
    for path in SCENARIOS:
        yield from content(path)["tests"]


def looks(scenario: dict[str, Any], alert: str) -> list[tuple[int, list[dict[str, Any]]]]:
    """When a scenario looks at an alert, and what it expects to fire then; in the order of time."""
    tests = (test for test in scenario.get("alert_rule_test", []) if test["alertname"] == alert)
    return sorted(
        ((seconds(test["eval_time"]), test["exp_alerts"]) for test in tests), key=lambda look: look[0]
    )


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    few_collections = os.environ | {"GOGC": "400"}  # a sixth less time
    return subprocess.run(command, capture_output=True, text=True, timeout=110, env=few_collections)


@pytest.mark.parametrize("path", RULES, ids=name_of)
def test_promtool_finds_the_rules_valid(promtool: str, path: Path) -> None:
    checked = run(promtool, "check", "rules", "--lint-fatal", path)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "order"),
    [
        pytest.param(path, order, id=path.stem + " in reverse" * number)
        for path in SCENARIOS
        for number, order in enumerate(orders(path))
    ],
)
def test_the_rules_do_in_every_scenario_what_they_should(
    promtool: str, path: Path, order: list[str], tmp_path: Path
) -> None:
    text = path.read_text().replace("../", f"{path.parents[1]}/")
    (tmp_path / path.name).write_text(f"{text}group_eval_order: {order}\n" if order else text)

    tested = run(promtool, "test", "rules", tmp_path / path.name)

    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_scenario_in_which_it_fires(alert: str) -> None:
    fired = [firing for scenario in scenarios() for _, firing in looks(scenario, alert) if firing]

    assert fired
    # promtool takes an expectation without annotations for one of an alert that has none.
    assert all(each.keys() == {"exp_labels", "exp_annotations"} for firing in fired for each in firing)


@pytest.mark.parametrize("alert", sorted(set(ALERTS) - ALWAYS))
def test_every_alert_is_silent_before_it_fires_and_after_the_recovery(alert: str) -> None:
    stories = [[bool(firing) for _, firing in looks(scenario, alert)] for scenario in scenarios()]

    assert any(story[:1] == [False] and True in story for story in stories)
    assert any(True in story and story[-1:] == [False] for story in stories)


@pytest.mark.parametrize("alert", OF_JOBS)
def test_every_alert_about_a_job_says_which_and_whose_it_is(alert: str) -> None:
    fired = [each for scenario in scenarios() for _, firing in looks(scenario, alert) for each in firing]

    assert all({"scheduler", "job_name", "severity"} <= each["exp_labels"].keys() for each in fired)
    assert any("team" in each["exp_labels"] for each in fired)


@pytest.mark.parametrize("path", RULES, ids=name_of)
def test_every_alert_says_why_it_waits_as_long_as_it_does(path: Path) -> None:
    blocks = re.split(r"\n(?=(?: *#.*\n)*      - (?:alert|record):)", path.read_text())
    waits = [
        re.search(r"\n        (?:for: \S+ # \S|# at once)", block) for block in blocks if "- alert:" in block
    ]

    assert len(waits) == len(alerts_of(path))
    assert all(waits)
