from datetime import datetime, timedelta
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskscope import identity
from taskscope.api.wire import moment, takes_gzip


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_a_moment_is_written_in_utc_with_milliseconds(at: datetime):
    ms = (at - datetime(1970, 1, 1)) // timedelta(milliseconds=1)

    assert moment(ms) == at.isoformat("T", "milliseconds") + "Z"


def test_a_moment_beyond_the_calendar_is_refused():
    with pytest.raises(OverflowError):
        moment(2**62)


@given(st.binary(min_size=16, max_size=16))
def test_a_run_id_is_written_as_a_uuid(run: bytes):
    assert identity.text(run) == str(UUID(bytes=run))


@pytest.mark.parametrize(
    ("accepted", "allowed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip; q=1.0, br", True),
        ("gzip;q=0.001", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, identity", False),
        ("xgzip", False),
        ("", False),
    ],
)
def test_gzip_is_what_was_asked_for_and_not_forbidden(accepted: str, allowed: bool):
    assert takes_gzip(accepted) is allowed
