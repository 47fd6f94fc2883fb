"""Writes the pages of docs/ that are generated (`make generate`); tests hold them fresh."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_origin

import msgspec

from taskscope import bridges
from taskscope.api.openapi import markdown as http_api
from taskscope.configure import name_in_environment
from taskscope.settings import Settings
from taskscope.sinks.metrics.catalog import markdown as metrics
from taskscope.values import bare, description, members, wanted, written

EXAMPLE = """\
service: billing
history: postgresql://taskscope@db/taskscope
retention:
  max_age: 90d
jobs:
  - match: "nightly-*"
    team: finance
    severity: critical
    expect_every: 26h
"""


def pages() -> dict[str, Callable[[], str]]:
    """Every generated page and what renders it."""
    return {
        "docs/http-api.md": http_api,
        "docs/metrics.md": metrics,
        "docs/settings.md": settings,
    }


def settings() -> str:
    """The page `docs/settings.md`, from the types and descriptions of `Settings`."""
    parts = [_INTRODUCTION.format(example=EXAMPLE), _table(Settings, "")]
    for name, hint in members(Settings).items():
        if struct := _struct(hint):
            each = {tuple: "Each item of the list:", dict: "Each, under its name:"}.get(
                get_origin(bare(hint)), ""
            )
            key = {tuple: "", dict: f"{name}.<name>."}.get(get_origin(bare(hint)), f"{name}.")
            parts += [f"## {name}", f"{description(hint)} {each}".strip(), _table(struct, key)]
    for system in bridges.systems():
        if members(options := bridges.by_name(system).Options):
            parts += [f"## options of {system}", "In `schedulers`, below `options`:", _table(options, "")]
    return "\n\n".join(parts) + "\n"


def _struct(hint: Any) -> Any:
    """The struct that this setting is, or is a list or mapping of; None if it is plain."""
    kind = bare(hint)
    if get_origin(kind) in (tuple, dict):
        return _struct(get_args(kind)[0 if get_origin(kind) is tuple else 1])
    return kind if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else None


def _table(struct: Any, key: str) -> str:
    """The settings of a struct; `key` begins their names, and is empty where no variable can name them."""
    within = struct is Settings or bool(key)
    rows = [_row(field, members(struct)[field.name], key, within) for field in msgspec.structs.fields(struct)]
    head = ["setting", "what", "value", "default", *(["environment"] if within else [])]
    return "\n".join([_line(head), "|---" * len(head) + "|", *map(_line, rows)])


def _row(field: msgspec.structs.FieldInfo, hint: Any, key: str, within: bool) -> list[str]:
    value = f"[below](#{field.name})" if _struct(hint) else wanted(hint)
    variable = [f"`{name_in_environment(key + field.name)}`"] if within else []
    return [f"`{field.name}`", description(hint), value, _default(field, hint), *variable]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _default(field: msgspec.structs.FieldInfo, hint: Any) -> str:
    if field.required:
        return "*required*"
    if field.default in (msgspec.NODEFAULT, "", ()) or _struct(hint):
        return ""
    value = written(field.default, hint)
    if isinstance(value, list):
        return f"`{', '.join(map(str, value))}`"
    return f"`{value if isinstance(value, str) else msgspec.json.encode(value).decode()}`"


def main() -> None:
    """Write them, below the working directory."""
    for path, page in pages().items():
        Path(path).write_text(page(), encoding="utf-8")


_INTRODUCTION = """\
<!-- Generated from exporter/taskscope/settings.py: change that, then `make generate`. -->
# Settings

Everything has a default. What you set comes from these, a later one before an earlier:

1. a YAML file: `taskscope.yaml` in the working directory, or the one that
   `TASKSCOPE_CONFIG` or `--config` names;
2. the environment: `TASKSCOPE_` and the setting in capitals, `__` between levels:
   `TASKSCOPE_RETENTION__MAX_AGE=90d`. Lists are separated by commas or written as YAML; an empty variable
   counts as not set, `null` as null;
3. arguments: `taskscope.watch(scheduler, port=9751, retention={{"max_age": "90d"}})`.

Mappings are merged level by level, lists are replaced. Durations are seconds, or text with units: `500ms`,
`90s`, `1h30m`, `30d`, `2w`. A setting that is wrong or does not exist is refused at start, in a sentence that
names it; `taskscope config` shows the settings in force, without secrets.

```yaml
{example}```"""

if __name__ == "__main__":
    main()
