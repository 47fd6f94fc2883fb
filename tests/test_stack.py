"""The compose file, the Kubernetes manifests and the systemd units.

There is no container engine where the tests run. So the compose file is held to the keys that are used here, and what
each container would find at the places of its mounts is checked by the tools of that program.
"""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml

from services.process import program
from taskscope.api.endpoint import endpoints
from taskscope.cli import commands
from taskscope.configure import load
from taskscope.shipped import URLS

ROOT = Path(__file__).parent.parent
STACK = ROOT / "examples" / "stack"
KUBERNETES = ROOT / "examples" / "kubernetes"
UNITS = sorted((ROOT / "examples" / "systemd").glob("*.service"))
PORTS = {name: urlsplit(url).port for name, url in URLS.items()}


class Healthcheck(msgspec.Struct, forbid_unknown_fields=True):
    test: list[str]
    interval: str
    timeout: str
    retries: int


class Dependency(msgspec.Struct, forbid_unknown_fields=True):
    condition: str
    restart: bool = False


class Build(msgspec.Struct, forbid_unknown_fields=True):
    context: str
    dockerfile: str


class Service(msgspec.Struct, forbid_unknown_fields=True):
    """What a service of ours may say: the part of the Compose Specification that it uses."""

    image: Annotated[str, msgspec.Meta(pattern=r"^[\w./-]+:[\w.-]+$")]
    restart: str
    read_only: bool
    user: Annotated[str, msgspec.Meta(pattern=r"^[1-9]\d*:\d+$")]
    cap_drop: list[str]
    security_opt: list[str]
    network_mode: str = ""
    ports: list[str] = []
    command: list[str] = []
    environment: dict[str, str] = {}
    volumes: list[str] = []
    tmpfs: list[str] = []
    depends_on: dict[str, Dependency] = {}
    healthcheck: Healthcheck | None = None
    build: Build | None = None
    init: bool = False
    shm_size: str = ""

    @property
    def mounts(self) -> dict[str, Path]:
        """What of the checkout it finds where."""
        parts = (volume.split(":") for volume in self.volumes)
        return {part[1]: (STACK / part[0]).resolve() for part in parts if part[0].startswith(".")}

    def flag(self, name: str) -> str:
        """The value of a flag of its command."""
        (value,) = [word.partition("=")[2] for word in self.command if word.startswith(f"{name}=")]
        return value


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load((STACK / "compose.yaml").read_text())


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Service]:
    return msgspec.convert(compose["services"], dict[str, Service])


def test_the_stack_is_what_it_says(compose: dict[str, Any], services: dict[str, Service]) -> None:
    assert set(services) == {"network", "postgres", "taskscope", "prometheus", "alertmanager", "grafana"}
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "volumes"}


def test_every_image_is_pinned_to_one_version(services: dict[str, Service]) -> None:
    built = {name for name, service in services.items() if service.build}

    assert built == {"taskscope"}
    for name in services.keys() - built:
        assert re.search(r":v?\d+\.\d+(\.\d+)?(-\w+)?$", services[name].image), name
    for line in (STACK / "Containerfile").read_text().splitlines():
        if line.startswith("FROM"):
            assert re.search(r":\d+\.\d+\.\d+-", line), line


def test_grafana_is_new_enough_and_brings_the_plug_in(services: dict[str, Service]) -> None:
    version = services["grafana"].image.rpartition(":")[2].split(".")

    assert tuple(map(int, version)) >= (12, 4)
    assert re.fullmatch(
        r"yesoreyeram-infinity-datasource@\d+\.\d+\.\d+",
        services["grafana"].environment["GF_PLUGINS_PREINSTALL_SYNC"],
    )


def test_prometheus_is_a_3(services: dict[str, Service]) -> None:
    assert services["prometheus"].image.rpartition(":")[2].startswith("v3.")


def test_only_this_machine_reaches_it_under_the_addresses_that_files_name(
    services: dict[str, Service],
) -> None:
    assert set(services["network"].ports) == {f"127.0.0.1:{port}:{port}" for port in PORTS.values()}
    for name in services.keys() - {"network"}:
        assert services[name].network_mode == "service:network", "so that localhost is the same for all"
        assert services[name].ports == []


def test_no_container_may_do_more_than_it_must(services: dict[str, Service]) -> None:
    for service in services.values():  # that it is not root, the type says
        assert service.read_only
        assert service.cap_drop == ["ALL"]
        assert service.security_opt == ["no-new-privileges:true"]
        assert service.restart == "unless-stopped"


def test_every_mounted_file_is_there_and_read_only(
    compose: dict[str, Any], services: dict[str, Service]
) -> None:
    named = set()
    for service in services.values():
        for volume in service.volumes:
            source, _, target = volume.partition(":")
            if source.startswith("."):
                assert (STACK / source).exists(), source
                assert target.endswith(":ro"), target
            else:
                named.add(source)
    assert named == set(compose["volumes"]), "every volume is named and used"


def test_whoever_waits_for_health_waits_for_one_that_tells_it(services: dict[str, Service]) -> None:
    for name, service in services.items():
        assert name == "network" or service.healthcheck, name
        for other, dependency in service.depends_on.items():
            healthy = dependency.condition == "service_healthy"
            assert healthy == (services[other].healthcheck is not None), f"{name} waits for {other}"
            assert dependency.restart or healthy


def test_programs_listen_where_the_files_say(services: dict[str, Service]) -> None:
    for name in ("prometheus", "alertmanager"):
        assert services[name].flag("--web.listen-address") == f"0.0.0.0:{PORTS[name]}"
        assert services[name].flag("--web.external-url") == URLS[name]
    assert services["grafana"].environment["GF_SERVER_ROOT_URL"] == URLS["grafana"]
    for name, port in PORTS.items():
        check = services[name].healthcheck
        assert check is not None
        assert f"http://127.0.0.1:{port}/" in check.test[-1], name


def test_taskscope_is_started_with_words_that_it_knows(services: dict[str, Service]) -> None:
    name, *arguments = services["taskscope"].command
    context = commands.commands[name].make_context(name, arguments)

    assert context.params["history"].startswith("postgresql://taskscope@127.0.0.1/")
    assert services["postgres"].environment["POSTGRES_USER"] == "taskscope"
    assert context.params["port"] == PORTS["taskscope"]
    build = services["taskscope"].build
    assert build is not None
    assert (STACK / build.context).resolve() == ROOT
    assert (ROOT / build.dockerfile).is_file()


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_a_program_takes_the_flags_that_it_is_given(services: dict[str, Service], name: str) -> None:
    assert unknown_flags(name, services[name].command) == set()


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_a_program_takes_what_it_finds_at_its_mounts(
    services: dict[str, Service], name: str, tmp_path: Path, promtool: str
) -> None:
    place = inside(services[name], tmp_path)
    config = str(place / services[name].flag("--config.file").lstrip("/"))
    check = [promtool, "check", "config"] if name == "prometheus" else [amtool(), "check-config"]

    done = subprocess.run([*check, config], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    assert name == "alertmanager" or re.search(r"[1-9]\d* rules? found", done.stdout), "it finds the rules"


def test_grafana_finds_dashboards_and_data_sources_at_its_mounts(
    services: dict[str, Service], tmp_path: Path
) -> None:
    place = inside(services["grafana"], tmp_path)
    provisioning = place / "etc/grafana/provisioning"

    (provider,) = yaml.safe_load((provisioning / "dashboards/taskscope.yaml").read_text())["providers"]
    pages = list((place / provider["options"]["path"].lstrip("/")).glob("*.json"))
    sources = yaml.safe_load((provisioning / "datasources/taskscope.yaml").read_text())["datasources"]
    home = services["grafana"].environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert pages
    assert (place / home.lstrip("/")).is_file()
    assert {source["url"] for source in sources} == {URLS["prometheus"], URLS["taskscope"]}


def test_alertmanager_of_the_stack_tells_taskscope_alone() -> None:
    (receiver,) = yaml.safe_load((STACK / "alertmanager.yml").read_text())["receivers"]

    assert set(receiver) == {"name", "webhook_configs"}
    assert [hook["url"] for hook in receiver["webhook_configs"]] == [
        f"{URLS['taskscope']}/api/monitoring/webhook"
    ]


def test_the_image_is_built_from_what_the_build_sees() -> None:
    text = (STACK / "Containerfile").read_text()
    ignored = (STACK / "Containerfile.dockerignore").read_text().split()

    assert "USER 65532:65532" in text
    for needed in (
        "exporter",
        "dashboards",
        "alerts",
        "docs",
        "examples",
        "constraints.txt",
        "pyproject.toml",
    ):
        assert (ROOT / needed).exists()
        assert needed not in ignored


def inside(service: Service, root: Path) -> Path:
    """What the container would see of the checkout, below `root`."""
    for target, source in service.mounts.items():
        place = root / target.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, place) if source.is_dir() else shutil.copy(source, place)
    return root


def amtool() -> str:
    return program("amtool", "amtool (of Alertmanager)")


def unknown_flags(name: str, words: list[str]) -> set[str]:
    """Flags that the installed program of this name has not."""
    path = {"prometheus": "prometheus", "alertmanager": "prometheus-alertmanager"}[name]
    done = subprocess.run(
        [program(path, name.capitalize()), "--help"], capture_output=True, text=True, timeout=60, check=False
    )
    known = set(re.findall(r"--[\w.-]+", done.stdout + done.stderr))
    return {word.partition("=")[0] for word in words if word.startswith("--")} - known


def manifests() -> list[dict[str, Any]]:
    return [
        part for path in sorted(KUBERNETES.glob("*.yaml")) for part in yaml.safe_load_all(path.read_text())
    ]


def manifest(kind: str) -> dict[str, Any]:
    (found,) = [part for part in manifests() if part["kind"] == kind]
    return found


def test_the_deployment_is_probed_where_taskscope_answers_anybody() -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    open_to_all = {endpoint.path for endpoint in endpoints() if not endpoint.scope}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}

    assert ports == {"http": PORTS["taskscope"]}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["path"] in open_to_all
        assert container[probe]["httpGet"]["port"] == "http"


def test_the_deployment_runs_as_nobody_and_writes_its_history_alone() -> None:
    spec = manifest("Deployment")["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}

    assert (spec["replicas"], spec["strategy"]["type"]) == (1, "Recreate")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes
    writable = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    home = next(variable["value"] for variable in container["env"] if variable["name"] == "TASKSCOPE_HOME")
    assert writable == {home, "/tmp"}


def test_its_settings_are_accepted_with_the_tokens_of_the_secret(tmp_path: Path) -> None:
    (container,) = manifest("Deployment")["spec"]["template"]["spec"]["containers"]
    name, *arguments = container["args"]
    config = commands.commands[name].make_context(name, arguments).params["config"]
    (tmp_path / config.name).write_text(manifest("ConfigMap")["data"][config.name])
    made = re.search(r'tokens="(.*)"', (KUBERNETES / "taskscope.yaml").read_text())
    assert made is not None

    settings = load(
        path=tmp_path / config.name, environ={"TASKSCOPE_TOKENS": made[1].replace("$HASH", "0" * 64)}
    )

    assert settings.host == "0.0.0.0"
    assert settings.tokens[0].scopes == ("metrics", "monitoring", "ingest")


def test_the_monitor_finds_the_service_and_the_service_the_pod() -> None:
    service, monitor = manifest("Service"), manifest("ServiceMonitor")
    pod = manifest("Deployment")["spec"]["template"]

    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}
    assert endpoint["authorization"]["credentials"] == {"name": "taskscope", "key": "token"}


def unit(path: Path) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # the recipe of its documentation
    parser.read_string(path.read_text().replace("\\\n", " "))
    return parser


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_runs_as_nobody_and_restarts(path: Path) -> None:
    service = unit(path)["Service"]

    assert service["DynamicUser"] == "yes"
    assert service["ProtectSystem"] == "strict"
    assert service["Restart"] == "on-failure"
    assert service["StateDirectory"] == path.stem


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_unit_starts_its_program_with_words_that_it_knows(path: Path) -> None:
    command, *words = shlex.split(unit(path)["Service"]["ExecStart"])

    if path.stem == "taskscope":
        assert command.endswith("/taskscope")
        commands.commands[words[0]].make_context(words[0], words[1:])
    else:
        name = path.stem.removeprefix("taskscope-")
        assert unknown_flags(name, words) == set()
        assert f"--web.external-url={URLS[name]}" in words, "links in messages lead to it"


def test_the_unit_of_the_collector_waits_for_its_word_and_reloads_by_the_signal_that_it_hears() -> None:
    service = unit(ROOT / "examples" / "systemd" / "taskscope.service")["Service"]

    assert service["Type"] == "notify"  # what it says is tried in test_collector_at_work.py
    assert service["ExecReload"] == "/bin/kill -HUP $MAINPID"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_finds_nothing_wrong_with_a_unit(path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed; containers, on CI too, rarely have it")

    done = subprocess.run(
        [analyze, "verify", "--man=no", str(path)], capture_output=True, text=True, timeout=60, check=False
    )

    wrong = [line for line in done.stderr.splitlines() if "is not executable" not in line]
    assert wrong == []
