from array import array

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.utils import floatToGoString

from taskscope.sinks.metrics.numbers import numbers

EDGES = (
    0.0,
    -0.0,
    1e-4,
    9.9e-5,
    1e-5,
    5e-324,
    999_999.0,
    1e6,
    1_000_000.5,
    1e15,
    1e16,
    1.5e16,
    1e17,
    1e300,
    -1e6,
)


@given(
    st.lists(st.one_of(st.floats(), st.sampled_from(EDGES), st.integers(0, 10**17).map(float)), min_size=1)
)
def test_numbers_are_written_as_the_standard_client_writes_them(values: list[float]) -> None:
    expected = [floatToGoString(value).replace("e+01", "e+1") for value in values]  # old ones write 1e+010

    assert numbers(array("d", values)) == expected
