"""Metrics with something in them."""

from collections.abc import Callable

import pytest
from metrics_scene import Scene


@pytest.fixture
def scene() -> Scene:
    return Scene()


@pytest.fixture
def new_scene() -> Callable[..., Scene]:
    return Scene
