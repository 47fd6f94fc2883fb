from taskscope.rules import rule_for
from taskscope.settings import JobRule, Settings


def test_the_first_matching_rule_holds() -> None:
    settings = Settings(jobs=(JobRule(match="night*", team="a"), JobRule(match="*", team="b")))

    assert rule_for(settings, ("main", "nightly")) == settings.jobs[0]
    assert rule_for(settings, ("main", "daily")) == settings.jobs[1]


def test_a_pattern_may_name_the_scheduler() -> None:
    settings = Settings(jobs=(JobRule(match="billing/*"),))

    assert rule_for(settings, ("billing", "invoice")) == settings.jobs[0]
    assert rule_for(settings, ("main", "invoice")) is None


def test_patterns_mind_upper_and_lower_case() -> None:
    assert rule_for(Settings(jobs=(JobRule(match="Night*"),)), ("main", "nightly")) is None
