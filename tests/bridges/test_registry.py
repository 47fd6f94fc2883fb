import subprocess
import sys

import pytest
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.schedulers.blocking import BlockingScheduler

from taskscope import bridges
from taskscope.bridges.apscheduler import APSchedulerBridge
from taskscope.bridges.fake import FakeBridge, FakeScheduler
from taskscope.errors import BadArgument


def test_a_bridge_is_a_file_and_its_name_is_the_files():
    assert {"apscheduler", "fake"} <= set(bridges.systems())
    assert all(bridges.by_name(system).system == system for system in bridges.systems())
    assert not any(system.startswith("_") for system in bridges.systems())


@pytest.mark.parametrize("kind", [BackgroundScheduler, BlockingScheduler, AsyncIOScheduler])
def test_a_scheduler_is_recognised_by_its_class(kind):
    assert bridges.find(kind(timezone="UTC")) is APSchedulerBridge
    assert bridges.find(FakeScheduler()) is FakeBridge


def test_a_class_of_the_users_own_is_recognised_by_its_base():
    class Own(BackgroundScheduler):
        pass

    assert bridges.find(Own(timezone="UTC")) is APSchedulerBridge


@pytest.mark.parametrize("target", [None, "redis://localhost", 3, BackgroundScheduler])
def test_what_cannot_be_watched_is_refused_in_a_sentence_that_says_what_can(target):
    with pytest.raises(BadArgument) as refused:
        bridges.find(target)

    assert "cannot be watched; give one of: " in str(refused.value)
    assert "apscheduler.schedulers.base.BaseScheduler (apscheduler)" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(BadArgument, match=r"there is no bridge 'cron'; there are apscheduler, .*fake"):
        bridges.by_name("cron")


@pytest.mark.parametrize("name", ["_quiet", "__init__", "..errors", ""])
def test_a_file_that_is_no_bridge_is_no_name(name):
    with pytest.raises(BadArgument, match="there is no bridge"):
        bridges.by_name(name)


def test_looking_for_a_bridge_imports_no_scheduler():
    code = """
import sys
from taskscope import bridges
try:
    bridges.find(object())
except ValueError:
    pass
print(*sorted({module.split(".")[0] for module in sys.modules}))
"""

    modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()

    assert not {"apscheduler", "celery", "rq", "redis", "sqlalchemy", "aiohttp"} & set(modules)
