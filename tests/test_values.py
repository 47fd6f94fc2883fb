"""Values as people write them, and back."""

from datetime import timedelta
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from taskscope.errors import BadArgument
from taskscope.settings import Seconds
from taskscope.values import duration_text, masked, parse, read, wanted


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("90s", 90),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1m500ms", 60.5),
        (timedelta(minutes=2), 120),
        (7, 7),
    ],
)
def test_a_duration_is_seconds_or_text_with_units(text: object, seconds: float) -> None:
    assert read(text, Seconds, "grace") == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "5 s", "h", "1h 30m", "-1s", "1e3s", "5parsecs", "0s", True, float("nan")]
)
def test_anything_else_is_no_duration(text: object) -> None:
    with pytest.raises(BadArgument, match=r"grace must be a duration above 0 such as `90s` or `1h30m`, not "):
        read(text, Seconds, "grace")


@given(st.integers(1, 10**12))
def test_a_duration_is_written_as_it_can_be_read(milliseconds: int) -> None:
    written = duration_text(milliseconds / 1000)

    assert read(written, Seconds, "grace") == pytest.approx(milliseconds / 1000, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("007", str, "007"),
        ("null", str, "null"),
        ("null", str | None, None),
        ("null", int | None, None),
        ("8", int, 8),
        ("true", bool, True),
        ("a, b", tuple[str, ...], ["a", "b"]),
        ("[1, 2]", tuple[int, ...], [1, 2]),
        ("{a: 1}", dict[str, int], {"a": 1}),
    ],
)
def test_text_from_the_environment_is_read_by_its_type(text: str, hint: object, value: object) -> None:
    assert read(parse(text, hint, "KEY"), hint, "KEY") == value


@pytest.mark.parametrize(
    ("hint", "words"),
    [
        (bool, "true or false"),
        (str | None, "text, or null"),
        (Annotated[int, Meta(ge=0, le=9)], "a whole number from 0 to 9"),
        (Annotated[int, Meta(ge=1)], "a whole number of at least 1"),
        (Annotated[float, Meta(gt=0, lt=1)], "a number above 0 and below 1"),
        (tuple[str, ...], "a list, each item text"),
        (dict[str, Seconds], "a mapping, each value a duration above 0 such as `90s` or `1h30m`"),
    ],
)
def test_what_belongs_there_is_said_in_words(hint: object, words: str) -> None:
    assert wanted(hint) == words


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@host/db",
        "redis://:s3cret@host:6379/0",
        "postgresql://me:s3@cret/s3cret@host/db",
        "postgresql://host/db?user=me&password=s3cret&sslmode=require",
    ],
)
def test_passwords_in_urls_are_hidden_and_the_rest_is_not(url: str) -> None:
    assert "cret" not in masked(url)
    assert "***" in masked(url)
    assert "host" in masked(url)


def test_a_long_wrong_value_is_shown_shortened() -> None:
    with pytest.raises(BadArgument) as caught:
        read("x" * 10_000, int, "port")

    assert len(str(caught.value)) < 120
