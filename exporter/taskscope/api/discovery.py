"""`/sd`: tells Prometheus by HTTP service discovery what to scrape."""

import re

import msgspec

from taskscope.api.endpoint import Call, get

_HOST = re.compile(r"[A-Za-z0-9._-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?")


class Targets(msgspec.Struct, frozen=True):
    """Where to scrape, and the labels of what is scraped there."""

    targets: list[str]
    labels: dict[str, str]


@get("/sd", tag="Metrics")
async def sd(call: Call) -> list[Targets]:
    """List what Prometheus should scrape, under the name by which it was asked."""
    request = call.request
    labels = {"__metrics_path__": "/metrics", "__scheme__": "https" if request.secure else "http"}
    if call.backend.settings.service:
        labels["service"] = call.backend.settings.service
    return [Targets([_own_name(call)], labels)]


def _own_name(call: Call) -> str:
    host = call.request.headers.get("Host", "")
    if _HOST.fullmatch(host):
        return host
    name, port = call.request.get_extra_info("sockname")[:2]
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
