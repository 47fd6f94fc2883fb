from collections.abc import Iterator

import pytest
from drivers import DRIVERS, Driver

from taskscope.bridges import find
from taskscope.contracts import Bridge


@pytest.fixture(params=DRIVERS, ids=lambda kind: kind.system)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = request.param()
    yield driver
    driver.close()


@pytest.fixture
def bridge(driver: Driver) -> Iterator[Bridge]:
    """The bridge on the driver's scheduler, not attached yet."""
    bridge = find(driver.target)(driver.target, "exam")
    yield bridge
    bridge.detach()
