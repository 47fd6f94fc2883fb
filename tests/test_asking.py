"""Asking a taskscope that runs, where something else does."""

import pytest

from services.ingesting import NONSENSE, saying
from taskscope.asking import asked
from taskscope.check import findings
from taskscope.errors import Unavailable


@pytest.mark.parametrize("said", NONSENSE)
def test_one_that_speaks_something_else_is_no_taskscope(said):
    with saying(said) as url, pytest.raises(Unavailable, match="no taskscope answers"):
        asked(url, "/x")


def test_a_port_that_something_else_has_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with saying(NONSENSE[0]) as url:
        (port,) = [
            one for one in findings(history=None, port=int(url.rpartition(":")[2])) if one.about == "port"
        ]

    assert not port.good
