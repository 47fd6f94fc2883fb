"""`taskscope assets`: what Grafana, Prometheus and Alertmanager need to show and tell it, for the user's addresses."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import msgspec
import yaml

from taskscope.errors import BadArgument
from taskscope.shipped import URLS, shipped

Files = dict[str, str]
"""Texts by their path below the folder that they are for."""

_TOKEN = "/etc/taskscope/token"
_DASHBOARDS = "/etc/taskscope/grafana/dashboards"
_WITH_TOKEN = re.compile(r"^( *)# (.*?) +# with a token$", re.MULTILINE)
_PLACES = (  # what is shipped, and where it goes
    ("dashboards/json", "*.json", "grafana/dashboards"),
    ("alerts", "*.yml", "prometheus/rules"),
    ("alerts/alertmanager", "**/*.*", "alertmanager"),
    ("examples/systemd", "*.service", "systemd"),
)


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where people and servers find each other, as URLs without a slash at the end."""

    grafana: str = URLS["grafana"]
    taskscope: str = URLS["taskscope"]
    prometheus: str = URLS["prometheus"]
    alertmanager: str = URLS["alertmanager"]
    token_file: str | None = None
    """The file in which the servers find the token for taskscope; None: taskscope asks for none."""


def addresses(token_file: str | None = None, **urls: str) -> Addresses:
    """Checked addresses. Raises `BadArgument`."""
    for name, url in urls.items():
        if not _is_address(url):
            raise BadArgument(
                f"the URL of {name} must be like {URLS[name]} or https://host/path, with a port of 1 to 65535 "
                f"if any, not {url!r}"
            )
    if token_file is not None and not re.fullmatch(r"/[\w./@+\-]+", token_file):
        raise BadArgument(f"the token file must be an absolute path of plain characters, not {token_file!r}")
    return Addresses(token_file=token_file, **{name: url.rstrip("/") for name, url in urls.items()})


def _is_address(url: str) -> bool:
    known = r"https?://[\w.\-]+(:\d+)?(/[\w.~/\-]*)?|https?://\[[\da-fA-F:]+\](:\d+)?/?"
    try:
        return bool(re.fullmatch(known, url)) and urlsplit(url).port != 0
    except ValueError:  # a port that cannot be
        return False


def files(folder: Path, where: Addresses) -> Files:
    """What Grafana, Prometheus and Alertmanager read, to lie below `folder`."""
    found = {
        f"{target}/{source.relative_to(shipped(place)).as_posix()}": source
        for place, pattern, target in _PLACES
        for source in sorted(shipped(place).glob(pattern))
        if source.is_file()
    }
    for kind in ("datasources", "dashboards"):
        path = f"grafana/provisioning/{kind}/taskscope.yaml"
        found[path] = shipped(f"dashboards/provisioning/{kind}.yaml")
    texts = {path: adapted(source, where, folder) for path, source in found.items()}
    config = shipped("examples/stack/prometheus.yml").read_text("utf-8")
    return texts | {"prometheus/prometheus.yml": _prometheus(config, where)}


def adapted(source: Path, where: Addresses, folder: Path) -> str:
    """The text of a shipped file with the user's addresses, folder and token file."""
    urls = {url: getattr(where, name) for name, url in URLS.items()}
    text = re.sub("|".join(map(re.escape, urls)), lambda hit: urls[hit[0]], source.read_text("utf-8"))
    if where.token_file:
        text = _WITH_TOKEN.sub(r"\1\2", text).replace(_TOKEN, where.token_file)
    dashboards = json.dumps(f"{folder.absolute()}/grafana/dashboards".replace("$", "$$"), ensure_ascii=False)
    return text.replace(f'"{_DASHBOARDS}"', dashboards)


def kubernetes(texts: Mapping[str, str], where: Addresses) -> Files:
    """The same as manifests: dashboards and data sources for Grafana's sidecar, rules for the operator."""
    rules = [yaml.safe_load(text) for path, text in texts.items() if path.startswith("prometheus/rules/")]
    manifests = {
        "rules.yaml": [_manifest("PrometheusRule", "taskscope", spec={"groups": _groups(rules)})],
        "dashboards.yaml": [_config_map("dashboard", *item) for item in _below(texts, "grafana/dashboards/")],
        "datasources.yaml": [
            _config_map("datasource", *item) for item in _below(texts, "grafana/provisioning/datasources/")
        ],
    }
    made = {name: yaml.safe_dump_all(parts, sort_keys=False) for name, parts in manifests.items()}
    for source in sorted(shipped("examples/kubernetes").glob("*.yaml")):
        made[source.name] = adapted(source, where, Path())
    return {f"kubernetes/{name}": text for name, text in made.items()}


def write(folder: Path, texts: Mapping[str, str], force: bool) -> Iterator[tuple[str, str]]:
    """Write them; gives what was done (`wrote`, `kept`) with which file. `force` leaves the old one as `….before`.

    Raises `BadArgument` where it may not write, and before it does if a file is there that differs, unless `force`.
    """
    try:
        yield from _written(folder, texts, force)
    except OSError as error:
        raise BadArgument(
            f"{error.filename or folder} cannot be written ({error.strerror}); make that possible or name "
            "another folder"
        ) from error


def _written(folder: Path, texts: Mapping[str, str], force: bool) -> Iterator[tuple[str, str]]:
    now = {path: _content(folder / path) for path in texts}
    other = [path for path, text in texts.items() if now[path] not in (None, text.encode())]
    if other and not force:
        more = f" and {len(other) - 1} more" if other[1:] else ""
        raise BadArgument(
            f"{folder / other[0]}{more} would be overwritten, and differ: --force does so, or name another folder"
        )
    for path, text in texts.items():
        if path in other:
            (folder / path).replace(folder / f"{path}.before")
        if now[path] != text.encode():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
        yield "kept" if now[path] == text.encode() else "wrote", path


def next_steps(folder: Path, where: Addresses, with_kubernetes: bool) -> Iterator[str]:
    """What is left to do by hand, a line each."""
    yield f"Next, in {folder}:"
    yield "  Prometheus    start it with prometheus/prometheus.yml and --enable-feature=exemplar-storage,"
    yield "                or take rule_files, scrape_configs and alerting from there into yours"
    yield f"                and, so that links in messages lead to it, --web.external-url={where.prometheus}"
    yield "  Alertmanager  fill in the receivers of alertmanager/alertmanager.yml and start it with that file"
    yield f"                and, so that messages lead to it, --web.external-url={where.alertmanager}"
    yield "  Grafana       install the plug-in yesoreyeram-infinity-datasource, link the two taskscope.yaml of"
    yield "                grafana/provisioning into the folders of /etc/grafana/provisioning, restart it"
    if with_kubernetes:
        yield "  Kubernetes    kubectl apply --server-side -n monitoring -f kubernetes"


def _prometheus(text: str, where: Addresses) -> str:
    """Its configuration, which has URLs in pieces; the comment above it stays."""
    config = yaml.safe_load(text)
    head = re.match(r"(#.*\n)*", text)
    (scrape,), (alerting,) = config["scrape_configs"], config["alerting"]["alertmanagers"]
    _at(scrape, where.taskscope, "metrics_path", "/metrics")
    _at(alerting, where.alertmanager, "path_prefix", "")
    if where.token_file:
        scrape["authorization"] = {"credentials_file": where.token_file}
    return (head[0] if head else "") + str(yaml.safe_dump(config, sort_keys=False))


def _at(part: dict[str, Any], url: str, key: str, path: str) -> None:
    """Let this part of the configuration speak to this URL."""
    address = urlsplit(url)
    part["scheme"] = address.scheme
    part["static_configs"] = [{"targets": [address.netloc]}]
    if address.path + path:
        part[key] = address.path + path


def _below(texts: Mapping[str, str], place: str) -> Iterator[tuple[str, str]]:
    """The files of one place: name and text."""
    for path, text in texts.items():
        if path.startswith(place):
            yield PurePosixPath(path).name, text


def _groups(rules: list[Any]) -> list[Any]:
    return [group for file in rules for group in file["groups"]]


def _config_map(kind: str, name: str, text: str) -> dict[str, Any]:
    """One that Grafana's sidecar takes; one for each file, as none may be larger than 1 MiB."""
    unique = name if name.startswith("taskscope") else f"taskscope-{name}"
    stem = PurePosixPath(name).stem.lower()
    manifest = _manifest("ConfigMap", f"taskscope-{kind}-{stem}", data={unique: text})
    manifest["metadata"]["labels"][f"grafana_{kind}"] = "1"
    return manifest


def _manifest(kind: str, name: str, **rest: Any) -> dict[str, Any]:
    version = "v1" if kind == "ConfigMap" else "monitoring.coreos.com/v1"
    labels = {"app.kubernetes.io/name": "taskscope"}
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "labels": labels}, **rest}


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
