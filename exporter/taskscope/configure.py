"""Settings from where people put them: defaults < YAML file < environment < arguments, checked once.

Every error is a `BadArgument` of one sentence: which setting, what is wrong with it and what to give instead.
"""

import os
import re
from collections.abc import Hashable, Iterator, Mapping
from datetime import datetime
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import yaml
from cronsim import CronSim, CronSimError

from taskscope.errors import BadArgument
from taskscope.links import wrong_links
from taskscope.redaction import HIDDEN, Redaction
from taskscope.settings import Health, Inspection, Settings
from taskscope.values import bare, masked, members, parse, read, unknown, written

FILE = "taskscope.yaml"
"""The settings file, in the working directory unless TASKSCOPE_CONFIG names another."""
PREFIX = "TASKSCOPE_"
SCOPES = ("metrics", "monitoring", "manage", "ingest")
SEVERITIES = ("", "critical", "warning", "info")
HEALTH_CHECKS = {
    "worker_down": False,
    "scheduler_down": False,
    "queue_backlog": True,
    "failure_rate": True,
    "stale_job": True,
    "stuck_run": True,
    "trigger_error": False,
    "store": False,
    "taskscope": True,
}
"""What `taskscope.checks` defines, and whether it has a threshold."""
LOOKS = ("new_errors", "slow_jobs", "silence", "failing_entities")
"""What `taskscope.inspection` looks for."""

_RESERVED = (
    "TASKSCOPE_CONFIG",
    "TASKSCOPE_HOME",
    "TASKSCOPE_SCHEDULER",
)  # the last is read by `taskscope exec`
_KUBERNETES = re.compile(r"TASKSCOPE_(SERVICE_HOST|SERVICE_PORT\w*|PORT_\d+_\w+)")
"""A Kubernetes Service that is called `taskscope` puts these into every pod, and PORT as `tcp://…`."""


def load(
    settings: Settings | None = None,
    *,
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    **arguments: Any,
) -> Settings:
    """The settings in force. `settings`, if given, stands in place of file and environment.

    Raises `BadArgument`.
    """
    if settings is not None:
        sources = [read(settings, Settings, "")]
    else:
        sources = [_from_file(path, environ), _from_environment(environ)]
    merged: dict[str, Any] = {}
    for source in [*sources, read(arguments, Settings, "")]:
        merged = _merge(merged, source)
    if merged.get("forward"):  # neither is kept here, unless somebody says so
        merged = {"history": None, "port": None} | merged
    return check(msgspec.convert(read(merged, Settings, ""), Settings))


def describe(settings: Settings) -> str:
    """The settings in force as YAML, without secrets."""
    plain = written(settings, Settings)
    return str(
        yaml.safe_dump(_redacted(plain, Redaction(settings.redact)), sort_keys=False, allow_unicode=True)
    )


def check(settings: Settings) -> Settings:
    """The same settings, if what they say fits together. Raises `BadArgument`."""
    for wrong in _contradictions(settings):
        raise BadArgument(wrong)
    return settings


def _from_file(path: Path | None, environ: Mapping[str, str]) -> dict[str, Any]:
    named = path or environ.get("TASKSCOPE_CONFIG")
    file = Path(named or FILE)
    try:
        found = yaml.load(file.read_text(encoding="utf-8"), _Loader)
    except FileNotFoundError:
        if named:
            raise BadArgument(f"settings file {file} does not exist; create it or name another one") from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadArgument(f"settings file {file} cannot be read ({error}); make it a readable text") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise BadArgument(f"settings file {file}, line {line}: {error.problem}; write valid YAML") from None
    except yaml.YAMLError as error:
        raise BadArgument(f"settings file {file} is no YAML ({error}); write valid YAML") from None
    if not isinstance(found, Mapping | None):
        raise BadArgument(f"settings file {file} must hold `name: value` lines, not {type(found).__name__}")
    settings: dict[str, Any] = read(found or {}, Settings, f"{file}: ")
    return settings


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that is given twice is an error, rather than one of them silently lost."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for n, (key, _) in enumerate(node.value):
            if keys[n] in keys[:n]:
                raise yaml.MarkedYAMLError(problem=f"{keys[n]} is given twice", problem_mark=key.start_mark)
        return super().construct_mapping(node, deep)


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable in sorted(environ):
        text = environ[variable]
        if variable.startswith(PREFIX) and text and not _is_foreign(variable, text):
            path = variable.removeprefix(PREFIX).lower().split("__")
            hint = _hint(path, variable)
            value = read(parse(text, hint, variable), hint, variable)
            for name in reversed(path):
                value = {name: value}
            found = _merge(found, value)
    return found


def _is_foreign(variable: str, text: str) -> bool:
    """Is it ours, but not a setting?"""
    if variable in _RESERVED or _KUBERNETES.fullmatch(variable):
        return True
    return variable == "TASKSCOPE_PORT" and "://" in text


def _hint(path: list[str], variable: str) -> Any:
    """The type of the setting at `path`."""
    hint: Any = Settings
    for name in path:
        kind = bare(hint)
        if getattr(kind, "__origin__", None) is dict:
            hint = kind.__args__[1]
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct) and name in members(kind):
            hint = members(kind)[name]
        else:
            raise unknown(variable, [name_in_environment(setting) for setting in keys()])
    return hint


def keys(struct: Any = Settings, prefix: str = "") -> Iterator[str]:
    """All settings by their dotted names, without those inside lists."""
    for name, hint in members(struct).items():
        kind = bare(hint)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from keys(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


def name_in_environment(key: str) -> str:
    """The environment variable of a setting: `retention.max_age` is TASKSCOPE_RETENTION__MAX_AGE."""
    return PREFIX + key.upper().replace(".", "__")


def _merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    merged = dict(old)
    for name, value in new.items():
        both = isinstance(value, dict) and isinstance(old.get(name), dict)
        merged[name] = _merge(old[name], value) if both else value
    return merged


def _contradictions(settings: Settings) -> Iterator[str]:
    """What is wrong with the whole, each in a sentence."""
    yield from _history(settings.history)
    yield from _server(settings)
    yield from _forward(settings)
    yield from _tokens(settings)
    yield from _times(settings)
    yield from _buckets(settings)
    for section in ("jobs", "queues"):
        for n, rule in enumerate(getattr(settings, section)):
            if rule.severity not in SEVERITIES:
                yield f"{section}[{n}].severity must be critical, warning or info, not {rule.severity!r}"
    yield from _health(settings.health)

    yield from _errors(settings)
    yield from _inspections(settings)


def _inspections(settings: Settings) -> Iterator[str]:
    for name, rules in settings.inspections.items():
        place = f"inspections.{name}"
        if not re.fullmatch(r"[\w.-]+", name):
            yield f"{place} must be a name of letters, digits, `_`, `-` and `.`: it stands in addresses"
        yield from _timetable(place, rules)
        for look in rules.looks:
            if look not in LOOKS:
                yield f"{place}.looks must be of {', '.join(LOOKS)}, not {look!r}"
        for level in rules.notify.levels:
            if level not in SEVERITIES[1:]:
                yield f"{place}.notify.levels must be of critical, warning and info, not {level!r}"
        if rules.window % 3600:
            yield f"{place}.window must be whole hours, such as 1h or 24h, not {rules.window:g} s"
    for name, url in {"alertmanager": settings.alertmanager, **_links(settings)}.items():
        if url is not None and not re.match(r"https?://[^/\s]", url):
            yield f"{name} must be an address such as http://localhost:9093, not {masked(url)!r}"
    yield from wrong_links(settings.links)


def _links(settings: Settings) -> dict[str, str]:
    return {f"links.{name}": url for name, url in settings.links.items()}


def _timetable(place: str, rules: Inspection) -> Iterator[str]:
    try:
        CronSim(rules.schedule, datetime(2000, 1, 1))
    except CronSimError as error:
        yield (
            f"{place}.schedule must be a cron expression such as `0 * * * *`, not {rules.schedule!r} "
            f"({str(error).lower()})"
        )
    try:
        ZoneInfo(rules.timezone)
    except (ValueError, OSError, KeyError):
        yield f"{place}.timezone must be a time zone such as Europe/Berlin, not {rules.timezone!r}"


def _errors(settings: Settings) -> Iterator[str]:
    for n, rule in enumerate(settings.errors.rules):
        said = [bool(rule.name), rule.split, rule.ignore].count(True)
        if said != 1:
            yield (
                f"errors.rules[{n}] must say one of name, split and ignore, not {said or 'none'} of them: "
                "give each thing that is to be done a rule of its own"
            )


def _history(history: str | None) -> Iterator[str]:
    if history and history != "auto" and not re.match(r"sqlite://|postgresql(\+psycopg)?://", history):
        yield (
            "history must be `sqlite:///file`, `postgresql://user@host/database`, `auto`, or null for none, "
            f"not {masked(history)!r}"
        )
    if history == "":
        yield "history must not be empty; give null (in Python: None) to keep no history, or `auto`"


def _server(settings: Settings) -> Iterator[str]:
    open_to_all = not settings.tokens and not settings.insecure
    if settings.port is not None and open_to_all and not _is_loopback(settings.host):
        yield (
            f"host {settings.host} is reachable from other machines and no tokens are set; "
            "add `tokens`, listen on 127.0.0.1, or say `insecure: true`"
        )
    if settings.tls_key and not settings.tls_certificate:
        yield "tls_key is set without tls_certificate; give the certificate's PEM file too"
    for name in ("tls_certificate", "tls_key"):
        file = getattr(settings, name)
        if file and not Path(file).is_file():
            yield f"{name} names {file}, which is no file; give the path of a PEM file"


def _forward(settings: Settings) -> Iterator[str]:
    forward = settings.forward
    if forward is not None and not re.match(r"(https?://[^/@]+|unix:///[^/].*)(/|$)", forward):
        yield (
            f"forward must be http://HOST:PORT or https://HOST:PORT of a taskscope, or null, not {masked(forward)!r}; "
            "a token belongs into forward_token"
        )
    for name in ("forward_token", "forward_certificates"):
        if forward is None and getattr(settings, name):
            yield f"{name} is set without forward; say where to send to, or leave it out"
    if settings.forward_certificates and not Path(settings.forward_certificates).is_file():
        yield f"forward_certificates names {settings.forward_certificates}, which is no file; give a PEM file"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _tokens(settings: Settings) -> Iterator[str]:
    for n, token in enumerate(settings.tokens):
        for scope in token.scopes:
            if scope not in SCOPES:
                yield f"tokens[{n}].scopes must be of {', '.join(SCOPES)}, not {scope!r}"


def _times(settings: Settings) -> Iterator[str]:
    for long, short, why in (
        ("reading_ttl", "poll_interval", "or readings vanish before the next come"),
        ("lost_after", "heartbeat", "or runs of a living process count as lost"),
    ):
        if getattr(settings, long) <= getattr(settings, short):
            yield f"{long} must be longer than {short} ({getattr(settings, short):g} s), {why}"


def _buckets(settings: Settings) -> Iterator[str]:
    for name, bounds in msgspec.structs.asdict(settings.buckets).items():
        if not bounds or bounds[0] <= 0 or any(a >= b for a, b in pairwise(bounds)):
            yield f"buckets.{name} must be numbers above 0 in ascending order, such as 0.1, 1, 10"


def _health(health: Health) -> Iterator[str]:
    if health.degraded > health.healthy:
        yield f"health.degraded must not be above health.healthy ({health.healthy}): {health.degraded} is"
    places = {f"health.schedulers.{name}": checks for name, checks in health.schedulers.items()}
    for place, checks in {"health.checks": health.checks, **places}.items():
        for name, check in checks.items():
            if name not in HEALTH_CHECKS:
                yield f"{place}.{name} is no check of health; there are {', '.join(HEALTH_CHECKS)}"
            elif check.threshold is not None and not HEALTH_CHECKS[name]:
                yield f"{place}.{name}.threshold must be left out: this check asks for yes or no, not for how much"
            if check.severity is not None and check.severity not in SEVERITIES[1:]:
                yield f"{place}.{name}.severity must be critical, warning or info, not {check.severity!r}"


def _redacted(plain: Any, redaction: Redaction) -> Any:
    """Without the texts of keys that sound secret; `tokens` itself is a list, and is shown."""
    if isinstance(plain, list):
        return [_redacted(item, redaction) for item in plain]
    if not isinstance(plain, dict):
        return plain
    return {
        name: HIDDEN
        if isinstance(value, str) and redaction.sounds_secret(name)
        else _redacted(value, redaction)
        for name, value in plain.items()
    }
