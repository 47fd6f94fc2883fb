"""Values of settings as people write them: read by their type, explained where they do not fit, written back.

`read` gives plain data (structs stay mappings), so that what several sources say can be merged before it
becomes `Settings`. The words of `wanted` serve error messages and the generated docs alike.
"""

import math
import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from taskscope.errors import BadArgument

_UNITS = {"w": 604_800_000, "d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}  # milliseconds
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[wdhms])")
_PASSWORD = re.compile(r"""://([^:/@\s]*):[^\s'"]{0,512}@|\b(password=)[^&\s]*""")
_HIDDEN = "***"
_DURATION = "a duration above 0 such as `90s` or `1h30m`"
_NOUNS: dict[Any, str] = {bool: "true or false", str: "text", int: "a whole number", float: "a number"}


def read(value: Any, hint: Any, key: str) -> Any:
    """`value` as plain data of the type `hint`.

    Raises `BadArgument`, whose message names `key` and what belongs there.
    """
    kind = bare(hint)
    if isinstance(value, msgspec.Struct):
        value = msgspec.structs.asdict(value)
    if value is None or kind is Any:
        return _leaf(value, hint, key)
    if _is_struct(kind):
        return _read_struct(_checked(value, Mapping, hint, key), kind, key)
    if get_origin(kind) is dict:
        (of_names, item), named = get_args(kind), _checked(value, Mapping, hint, key)
        return {
            read(str(name), of_names, f"{key}.{name}"): read(v, item, f"{key}.{name}")
            for name, v in named.items()
        }
    if get_origin(kind) is tuple:
        item, items = get_args(kind)[0], _checked(value, list | tuple, hint, key)
        return [read(v, item, f"{key}[{n}]") for n, v in enumerate(items)]
    return _leaf(value, hint, key)


def parse(text: str, hint: Any, key: str) -> Any:
    """What an environment variable says: text is text, lists may be separated by commas, the rest is YAML."""
    kind = bare(hint)
    if kind is str:
        return None if text == "null" and _is_nullable(hint) else text
    if get_origin(kind) is tuple and not text.startswith("["):
        return [parse(item.strip(), get_args(kind)[0], key) for item in text.split(",")]
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise wrong(key, hint, text) from None


def wanted(hint: Any) -> str:
    """What belongs there, in words."""
    return _noun(hint) + (", or null" if _is_nullable(hint) else "")


def wrong(key: str, hint: Any, value: Any) -> BadArgument:
    """The error that says so."""
    if any(
        meta.pattern for meta in _metas(hint)
    ):  # whoever pastes a token in place of its hash should not read it
        return BadArgument(f"{key} must be {wanted(hint)}: {description(hint).rstrip('.')}")
    text = masked(repr(value))
    return BadArgument(f"{key} must be {wanted(hint)}, not {text if len(text) <= 60 else text[:57] + '…'}")


def unknown(name: str, names: list[str], prefix: str = "") -> BadArgument:
    """The error for a name that does not exist, with the one that was probably meant."""
    near = get_close_matches(name, names, n=1)
    remedy = f"did you mean `{near[0]}`?" if near else "`taskscope config` lists all there are"
    return BadArgument(f"{prefix}{name} is no setting; {remedy}")


def bare(hint: Any) -> Any:
    """The type without its annotations and without null."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, UnionType):
        return bare(next(option for option in get_args(hint) if option is not NoneType))
    return hint


def members(struct: Any) -> dict[str, Any]:
    """The settings that a struct holds, with their types."""
    return get_type_hints(struct, include_extras=True)


def description(hint: Any) -> str:
    """What the setting is for, as its declaration says."""
    return next((meta.description for meta in _metas(hint) if meta.description), "")


def written(value: Any, hint: Any = Any) -> Any:
    """Plain data as one would write it into YAML: durations with units, secrets hidden."""
    kind = bare(hint)
    if _is_struct(kind):
        return {
            name: _HIDDEN if name == "sha256" else written(getattr(value, name), member)
            for name, member in members(kind).items()
        }
    if isinstance(value, Mapping):
        item = get_args(kind)[1] if get_origin(kind) is dict else Any
        return {name: written(v, item) for name, v in value.items()}
    if isinstance(value, list | tuple):
        item = get_args(kind)[0] if get_origin(kind) is tuple else Any
        return [written(v, item) for v in value]
    if isinstance(value, float) and _is_duration(hint):
        return duration_text(value)
    return masked(value) if isinstance(value, str) else value


def masked(text: str) -> str:
    """The text without the passwords of its URLs."""
    return _PASSWORD.sub(_hide, text)


def duration_text(seconds: float) -> str:
    """`30d`, `1h30m`, `50ms`: what `read` takes back, exact to the millisecond."""
    rest, text = round(seconds * 1000), ""
    for unit, size in _UNITS.items():
        count, rest = divmod(rest, size) if unit != "w" else (0, rest)  # days are easier to compare
        text += f"{count}{unit}" if count else ""
    return text or f"{seconds:g}s"


def _hide(found: re.Match[str]) -> str:
    return f"{found[2]}{_HIDDEN}" if found[2] else f"://{found[1]}:{_HIDDEN}@"


def _read_struct(value: Mapping[Any, Any], kind: Any, key: str) -> dict[str, Any]:
    hints = members(kind)
    prefix = f"{key}." if key and not key.endswith(" ") else key
    for name in value:
        if name not in hints:
            raise unknown(str(name), list(hints), prefix)
    for field in msgspec.structs.fields(kind):
        if field.required and field.name not in value:
            raise BadArgument(f"{key} has no `{field.name}`; add it")
    return {name: read(v, hints[name], f"{prefix}{name}") for name, v in value.items()}


def _checked(value: Any, kind: Any, hint: Any, key: str) -> Any:
    least = max((meta.min_length or 0 for meta in _metas(hint)), default=0)
    if not isinstance(value, kind) or len(value) < least:
        raise wrong(key, hint, value)
    return value


def _leaf(told: Any, hint: Any, key: str) -> Any:
    try:
        value = msgspec.convert(_seconds(told) if _is_duration(hint) else told, hint)
    except msgspec.ValidationError:
        raise wrong(key, hint, told) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise wrong(key, hint, told)
    return value


def _seconds(value: Any) -> Any:
    """Seconds where `value` is a duration in words; anything else stays as it is."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and (parts := _PART.findall(value)) and "".join(map("".join, parts)) == value:
        return sum(float(number) * _UNITS[unit] for number, unit in parts) / 1000
    return value


def _noun(hint: Any) -> str:
    kind = bare(hint)
    if _is_duration(hint):
        least = next((meta.ge for meta in _metas(hint) if meta.ge), None)
        return f"a duration of at least {duration_text(least)}" if least else _DURATION
    if get_origin(kind) is tuple:
        return f"a list{_range(hint)}, each item {wanted(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"a mapping, each value {wanted(get_args(kind)[1])}"
    if _is_struct(kind):
        return f"a mapping with {', '.join(f'`{name}`' for name in members(kind))}"
    if get_origin(kind) is Literal:
        return " or ".join(map(str, get_args(kind)))
    return _NOUNS.get(kind, "anything") + _range(hint)


def _range(hint: Any) -> str:
    for meta in _metas(hint):
        if meta.ge is not None and meta.le is not None:
            return f" from {meta.ge} to {meta.le}"
        if meta.gt is not None and meta.lt is not None:
            return f" above {meta.gt} and below {meta.lt}"
        if least := meta.ge or meta.min_length:
            return f" of at least {least}"
        if meta.gt is not None:
            return f" above {meta.gt}"
        if meta.pattern:
            return f" that matches {meta.pattern}"
    return ""


def _metas(hint: Any) -> list[Meta]:
    """All annotations of a type, also of what it is optional of."""
    if get_origin(hint) is Annotated:
        inner, *metas = get_args(hint)
        return [meta for meta in metas if isinstance(meta, Meta)] + _metas(inner)
    if get_origin(hint) in (Union, UnionType):
        return [meta for option in get_args(hint) for meta in _metas(option)]
    return []


def _is_duration(hint: Any) -> bool:
    return any((meta.extra or {}).get("unit") == "seconds" for meta in _metas(hint))


def _is_nullable(hint: Any) -> bool:
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    return NoneType in get_args(hint)


def _is_struct(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)
