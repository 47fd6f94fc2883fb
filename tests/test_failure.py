"""A failure is described completely, within bounds, and without raising whatever the exception does."""

import asyncio
import concurrent.futures
import pickle

import pytest

from taskscope.failure import KEYS, MESSAGE, STACK, VALUE, cut, describe, reason_of, short_repr


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:  # noqa: BLE001 - hostile ones are meant
        return caught


class Custom(Exception):
    pass


def test_the_class_is_said_with_its_module_unless_it_is_built_in():
    assert describe(ValueError()).kind == "ValueError"
    assert describe(Custom()).kind == f"{__name__}.Custom"
    assert describe(raised(KeyError("a"))).message == "'a'"


def test_the_stack_holds_the_whole_chain():
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        stack = describe(error).stack

    assert stack.startswith("Traceback")
    assert stack.index("KeyError: 'inner'") < stack.index("direct cause") < stack.index("ValueError: outer")


def test_the_outermost_frames_can_be_left_out():
    def inner() -> None:
        raise ValueError("here")

    try:
        inner()
    except ValueError as error:
        whole, without = describe(error).stack, describe(error, skip=1).stack
        none = describe(error, skip=10).stack

    assert "in test_the_outermost" in whole
    assert "in test_the_outermost" not in without
    assert "in inner" in without
    assert none == "ValueError: here\n"


def test_groups_and_notes_are_part_of_the_stack():
    error = ExceptionGroup("several", [ValueError("one"), KeyError("two")])
    error.add_note("while trying")

    stack = describe(raised(error)).stack

    assert all(text in stack for text in ("several", "ValueError: one", "KeyError: 'two'", "while trying"))


def test_a_message_and_a_stack_are_cut_in_the_middle():
    error = describe(raised(ValueError("a" * 1_000_000 + "THE END")))

    assert MESSAGE - 40 < len(error.message) <= MESSAGE
    assert STACK - 40 < len(error.stack) <= STACK
    assert error.message.startswith("aaa")
    assert error.message.endswith("THE END")
    assert error.stack.startswith("Traceback")
    assert "characters cut" in error.stack


def test_the_exceptions_own_attributes_are_kept_by_repr_within_bounds():
    error = Custom("x")
    error.order, error.text, error.rows = 17, "t" * 10_000, list(range(1_000_000))
    for number in range(100):
        setattr(error, f"more_{number}", number)

    data = describe(error).data

    assert data["order"] == "17"
    assert len(data) == KEYS
    assert all(len(value) <= VALUE for value in data.values())
    assert data["rows"].startswith("[0, 1, 2")


class Subclass(str):
    def __len__(self) -> int:
        raise RuntimeError


def hostile(error: BaseException) -> list[type[BaseException]]:
    """Exception classes whose every method raises this."""

    def explode(*_: object) -> None:
        raise error

    class Text(Exception):
        __str__ = __repr__ = explode

    class Attributes(Exception):
        __dict__ = property(explode)

    class Chain(Exception):
        __cause__ = __context__ = __traceback__ = __notes__ = property(explode)

    class Everything(Exception):
        __getattribute__ = __str__ = __repr__ = __reduce__ = __eq__ = __hash__ = explode

    return [Text, Attributes, Chain, Everything]


@pytest.mark.parametrize("inside", [RuntimeError("x"), SystemExit(1), KeyboardInterrupt(), RecursionError()])
@pytest.mark.parametrize("place", range(4))
def test_no_exception_is_too_hostile(inside, place):
    error = describe(raised(hostile(inside)[place]("message")))

    assert error.kind.startswith(f"{__name__}.hostile.")
    assert isinstance(error.message, str)
    assert error.stack


def test_texts_and_attributes_of_odd_types_are_made_plain():
    class Odd(Exception):
        def __str__(self) -> str:
            return Subclass("odd")

    class Deep:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    error = Odd()
    error.deep, error.loop = Deep(), []
    error.loop.append(error.loop)
    setattr(error, Subclass("key"), 1)

    described = describe(raised(error))

    assert (type(described.message), described.message) == (str, "odd")
    assert described.data["deep"] == "<cannot be shown>"
    assert described.data["key"] == "1"
    assert described.data["loop"].startswith("[")


def test_a_class_without_a_module_has_a_name_still():
    odd = type("Odd", (Exception,), {"__module__": 7})

    assert describe(odd()).kind == "7.Odd"


def test_it_travels_between_processes():
    error = describe(raised(ValueError("x")))

    assert pickle.loads(pickle.dumps(error)) == error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError(), "error"),
        (TimeoutError(), "timeout"),
        (concurrent.futures.TimeoutError(), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (concurrent.futures.CancelledError(), "cancelled"),
        (type("Mine", (asyncio.CancelledError,), {})(), "cancelled"),
        (GeneratorExit(), "cancelled"),
        (SystemExit(1), "error"),
    ],
)
def test_the_reason_is_one_of_three(error, reason):
    assert reason_of(error) == reason


def test_what_is_short_is_not_cut():
    assert cut("abc", 3) == "abc"
    assert cut("a" * 100 + "b" * 100, 60) == "a" * 10 + "\n… 180 characters cut …\n" + "b" * 10
    assert short_repr({"a": 1}) == "{'a': 1}"
