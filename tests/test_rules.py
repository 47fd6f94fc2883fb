from taskscope.rules import name_for, rule_for
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


def test_a_rule_holds_for_the_name_that_it_gives() -> None:
    rule = JobRule(match="shop-*", name="shops", team="t", severity="critical", slow_after=0.02)
    settings = Settings(jobs=(rule, JobRule(match="*", team="others")))

    assert name_for(settings, "main", "shop-1") == "shops"
    assert rule_for(settings, ("main", "shops")) == rule
    assert rule_for(settings, ("main", "shop-1")) == rule, "what was stored before there was the rule"


def test_a_name_given_to_jobs_of_one_scheduler_says_nothing_of_other_schedulers() -> None:
    rules = [JobRule(match=f"{scheduler}/import-*", name="import") for scheduler in ("bank", "shop")]
    settings = Settings(jobs=tuple(rules))

    assert rule_for(settings, ("shop", "import")) is rules[1]
    assert rule_for(settings, ("main", "import")) is None


def test_a_job_is_renamed_once() -> None:
    settings = Settings(jobs=(JobRule(match="a", name="b", team="t"), JobRule(match="b", name="c")))

    assert (name_for(settings, "main", "a"), name_for(settings, "main", "b")) == ("b", "c")
    assert rule_for(settings, ("main", "b")) is settings.jobs[0]
