"""What mutes what, decided by a real Alertmanager with the shipped configuration."""

import pytest
import yaml

from services.process import until
from services.receivers import ALERTS, shipped

NIGHTLY = {"scheduler": "billing", "job_name": "nightly"}
HOURLY = {"scheduler": "billing", "job_name": "hourly"}
WEEKLY = {"scheduler": "billing", "job_name": "weekly"}
ELSEWHERE = {"scheduler": "mail", "job_name": "nightly"}
MAILS = {"scheduler": "billing", "queue": "mails"}
A = {"job": "taskscope", "instance": "a:9750"}
B = {"job": "taskscope", "instance": "b:9750"}
UNSEEN = ("SchedulerAbsent", "info", {"scheduler": "billing"})
ABSENT = ("SchedulerAbsent", "critical", {"scheduler": "billing"})
TOLD = {"team": "payments"}  # labels that say nothing of what an alert is about

CASES = {
    "a critical alert mutes the warning of its name about the same job": (
        [("JobFailing", "critical", NIGHTLY)],
        [("JobFailing", "warning", NIGHTLY | TOLD), ("JobFailing", "info", NIGHTLY)],
        [
            ("JobFailing", "warning", HOURLY),
            ("JobFailing", "warning", ELSEWHERE),
            ("RunTooLong", "warning", NIGHTLY),
        ],
    ),
    "a critical alert about one instance mutes nothing about another": (
        [("EventsDropped", "critical", A)],
        [("EventsDropped", "warning", A)],
        [("EventsDropped", "warning", B)],
    ),
    "a critical alert mutes nothing in another cluster": (
        [("JobFailing", "critical", NIGHTLY | {"cluster": "eu"})],
        [("JobFailing", "warning", NIGHTLY | {"cluster": "eu"})],
        [("JobFailing", "warning", NIGHTLY | {"cluster": "us"}), ("JobFailing", "warning", NIGHTLY)],
    ),
    "one failing job is one message": (
        [
            ("JobConsecutiveFailures", "critical", NIGHTLY),
            ("JobOverdue", "critical", HOURLY),
            ("JobOverdue", "critical", WEEKLY),
        ],
        [("JobLastRunFailed", "warning", NIGHTLY), ("JobNoSuccess", "warning", HOURLY)],
        [
            ("JobLastRunFailed", "warning", HOURLY),
            ("JobNoSuccess", "warning", NIGHTLY),
            ("JobNoSuccess", "critical", WEEKLY),
            ("JobLastRunFailed", "warning", NIGHTLY | {"scheduler": "mail"}),
            ("JobNoSuccess", "warning", HOURLY | {"scheduler": "mail"}),
        ],
    ),
    "what an inspection found and a rule noticed is one message": (
        [
            ("FoundNewError", "warning", NIGHTLY | {"inspection": "hourly", "finding": "1f"}),
            ("FoundRegression", "critical", HOURLY | {"inspection": "hourly"}),
            ("FoundFailingEntity", "critical", NIGHTLY | {"inspection": "hourly"}),
            ("ErrorBurst", "critical", HOURLY),
            ("JobOverdue", "critical", WEEKLY),
            ("JobSlow", "warning", NIGHTLY),
        ],
        [
            ("NewError", "warning", NIGHTLY | TOLD),
            ("ErrorRegression", "critical", {"scheduler": "billing"}),
            ("FoundErrorRise", "warning", HOURLY | {"inspection": "hourly"}),
            ("FoundSilence", "warning", WEEKLY | {"inspection": "hourly"}),
            ("FoundSlowJob", "warning", NIGHTLY | {"inspection": "hourly"}),
        ],
        [
            ("NewError", "warning", HOURLY),
            ("JobLastRunFailed", "warning", NIGHTLY),  # it may have failed for somebody else, or about nobody
            ("ErrorRegression", "critical", {"scheduler": "mail"}),
            ("FoundErrorRise", "warning", NIGHTLY),
            ("FoundSilence", "warning", NIGHTLY),
            ("FoundSlowJob", "warning", HOURLY),
            ("InspectionFailing", "warning", {"inspection": "hourly"}),
        ],
    ),
    "a taskscope that is down mutes what it said of itself, and no other": (
        [("Down", "critical", A)],
        [("ProcessMemoryHigh", "critical", A), ("PipelineLagging", "warning", A)],
        [
            ("PipelineLagging", "warning", B),
            ("PipelineLagging", "warning", A | {"job": "other"}),
            ("Down", "critical", A | {"instance": "c:9750"}),
            ("Absent", "critical", {"job": "other"}),
            ("JobFailing", "warning", NIGHTLY),
            ("JobOverdue", "critical", NIGHTLY),
        ],
    ),
    "in the first hour without taskscope no alert about a job pages": (
        [("Down", "critical", A), UNSEEN, ABSENT],
        [
            UNSEEN,  # by the critical one; it goes on muting
            ("JobOverdue", "critical", NIGHTLY),
            ("JobNoSuccess", "critical", NIGHTLY),
            ("JobNoSuccess", "warning", HOURLY),
            ("JobConsecutiveFailures", "critical", HOURLY),
            ("TriggerError", "critical", HOURLY),
            ("QueueBacklog", "warning", {"scheduler": "billing", "queue": "default"}),
        ],
        [
            ("Down", "critical", A),
            ABSENT,
            ("JobOverdue", "critical", ELSEWHERE),
            ("JobFailing", "warning", ELSEWHERE),
            ("StoreDown", "critical", B),
        ],
    ),
    "after an hour without taskscope jobs that do not run page, and nothing else about jobs": (
        [("Down", "critical", A), ABSENT],
        [
            ("SchedulerPaused", "info", {"scheduler": "billing"}),  # no other info mutes as UNSEEN does
            ("JobNoSuccess", "warning", HOURLY),
            ("JobConsecutiveFailures", "critical", HOURLY),
            ("TriggerError", "critical", HOURLY),
        ],
        [
            ABSENT,
            ("JobOverdue", "critical", NIGHTLY),
            ("JobNoSuccess", "critical", NIGHTLY),
        ],
    ),
    "without any worker one message says so, and not what waits or which worker": (
        [("WorkersDown", "critical", {"scheduler": "billing"})],
        [
            ("WorkerDown", "warning", {"scheduler": "billing", "worker": "w1"}),
            ("QueueBacklog", "critical", MAILS),
            ("QueueGrowing", "warning", MAILS),
            ("QueueMessageTooOld", "warning", MAILS),
            ("QueueWithoutConsumers", "critical", MAILS),
        ],
        [
            ("QueueFailing", "warning", MAILS),
            ("QueueRunsMissing", "warning", MAILS),
            ("WorkerDown", "warning", {"scheduler": "mail", "worker": "w1"}),
            ("QueueBacklog", "warning", MAILS | {"scheduler": "mail"}),
            ("JobFailing", "warning", NIGHTLY),
        ],
    ),
    "a queue that nobody consumes is no backlog besides, and a scheduler that fails fails in every queue": (
        [
            ("QueueWithoutConsumers", "critical", MAILS),
            ("FailureRateHigh", "critical", {"scheduler": "billing"}),
        ],
        [
            ("QueueBacklog", "warning", MAILS),
            ("QueueGrowing", "warning", MAILS),
            ("QueueMessageTooOld", "warning", MAILS),
            ("QueueFailing", "warning", MAILS),
        ],
        [
            ("QueueBacklog", "warning", MAILS | {"queue": "other"}),
            ("QueueFailing", "warning", MAILS | {"scheduler": "mail"}),
            ("JobFailing", "warning", NIGHTLY),
        ],
    ),
    "without beat it is no news that its jobs do not run and that nobody reads its schedule": (
        [("BeatDown", "critical", {"scheduler": "billing"})],
        [
            ("JobOverdue", "warning", NIGHTLY),
            ("JobNoSuccess", "warning", HOURLY),
            ("ReadingsStale", "warning", {"scheduler": "billing", "reading": "jobs"}),
        ],
        [
            ("JobOverdue", "critical", WEEKLY),
            ("JobFailing", "warning", NIGHTLY),
            ("JobOverdue", "warning", ELSEWHERE),
        ],
    ),
    "a scheduler that is down mutes warnings about its jobs": (
        [("SchedulerDown", "critical", {"scheduler": "billing"})],
        [("JobFailing", "warning", NIGHTLY), ("ReadingsStale", "warning", {"scheduler": "billing"})],
        [
            ("SchedulerDown", "critical", {"scheduler": "billing"}),
            ("JobOverdue", "critical", NIGHTLY),
            ("JobFailing", "warning", ELSEWHERE),
        ],
    ),
}


def labels(name, severity, about):
    return {"alertname": f"Taskscope{name}", "severity": severity, **about}


@pytest.mark.parametrize(("sources", "muted", "heard"), CASES.values(), ids=CASES)
def test_inhibition(alertmanager, inbox, tmp_path, sources, muted, heard):
    watchdog = labels("Watchdog", "info", {})
    everything = [watchdog, *(labels(*one) for one in [*sources, *muted, *heard])]
    alertmanager.configure(shipped(inbox, tmp_path))

    alertmanager.tell([{"labels": one} for one in everything])

    def suppressed():
        return [one["labels"] for one in alertmanager.alerts() if one["status"]["state"] == "suppressed"]

    expected = [labels(*one) for one in muted]
    until(lambda: all(one in suppressed() for one in expected), timeout=10, what=f"{expected} being muted")
    assert [one for one in suppressed() if one not in expected] == []
    assert all(one in [alert["labels"] for alert in alertmanager.alerts()] for one in everything)


def test_what_is_muted_is_sent_to_nobody_until_its_source_is_over(alertmanager, inbox, tmp_path):
    alertmanager.configure(shipped(inbox, tmp_path))
    source, overdue = labels(*UNSEEN), labels("JobOverdue", "critical", NIGHTLY)
    alertmanager.tell([{"labels": source}])
    until(lambda: alertmanager.alerts())
    alertmanager.tell([{"labels": overdue}, {"labels": labels("Down", "critical", A)}])
    until(lambda: inbox.at("/pagerduty"))
    assert [one.body["payload"]["class"] for one in inbox.at("/pagerduty")] == ["TaskscopeDown"]

    alertmanager.tell([{"labels": source, "endsAt": "2026-01-01T00:00:00Z"}])

    until(lambda: len(inbox.at("/pagerduty")) >= 2)
    assert inbox.at("/pagerduty")[-1].body["payload"]["class"] == "TaskscopeJobOverdue"


def test_labels_that_tell_two_alerts_of_one_name_apart_are_compared():
    config = yaml.safe_load((ALERTS / "alertmanager/alertmanager.yml").read_text())
    scenarios = [yaml.safe_load(path.read_text()) for path in sorted((ALERTS / "tests").glob("*.yml"))]
    tests = [test for scenario in scenarios for test in scenario["tests"]]
    expected = [
        alert["exp_labels"]
        for test in tests
        for check in test.get("alert_rule_test", ())
        for alert in check["exp_alerts"]
    ]
    used = {name for one in expected for name in one}

    said = {"severity", "team"}  # how loud and to whom, not about what
    details = {"reason", "state", "metric", "reading"}  # a name has one severity whatever they are
    target = {"pod"}  # whatever else a target is called, its instance tells it from others
    assert used - said - details - target <= set(config["inhibit_rules"][0]["equal"])
    assert all("cluster" in rule["equal"] for rule in config["inhibit_rules"])
