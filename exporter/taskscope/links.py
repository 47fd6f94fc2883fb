"""Where people look besides: the addresses of the setting `links`, and the templates among them."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote

PLACES = ("config", "grafana", "taskscope")
"""Names of addresses; every other name is that of a template."""
FIELDS = (
    "scheduler",
    "job_name",
    "queue",
    "worker",
    "host",
    "entity",
    "key",
    "run",
    "trace",
    "error",
    "started",
    "ended",
)
"""What a template may name. Points in time are milliseconds since the epoch."""
_MOST = 10
_FIELD = re.compile(r"\{([^{}]*)\}")


def templates(links: Mapping[str, str]) -> dict[str, str]:
    """Those that are templates."""
    return {name: link for name, link in links.items() if name not in PLACES}


def wrong_links(links: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with templates, each in a sentence."""
    ours = templates(links)
    if len(ours) > _MOST:
        yield f"links has {len(ours)} templates, and there may be {_MOST} besides {', '.join(PLACES)}"
    for name, template in ours.items():
        for field in set(_FIELD.findall(template)) - set(FIELDS):
            yield f"links.{name} has a field {{{field}}} that is none; there are {', '.join(FIELDS)}"
        if re.search(r"[{}]", _FIELD.sub("", template)):
            yield f"links.{name} has a brace without its other half; write %7B and %7D for those that are no field's"


def filled(links: Mapping[str, str], known: Mapping[str, object]) -> dict[str, str]:
    """The templates with what is known; one with a field of which nothing is known is left out."""
    texts = {name: quote(str(value), safe="") for name, value in known.items() if value}
    return {
        name: _FIELD.sub(lambda field: texts[field[1]], template)
        for name, template in templates(links).items()
        if texts.keys() >= set(_FIELD.findall(template))
    }


def host_of(instance: str, worker: str) -> str:
    """The host in `host:pid:uuid`, or else in a worker's name such as `celery@host`."""
    return instance.partition(":")[0] if instance.count(":") == 2 else worker.partition("@")[2]
