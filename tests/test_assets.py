"""`taskscope assets`: what it writes is what Grafana, Prometheus and Alertmanager take, for the user's addresses."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.process import program
from taskscope.cli import run
from taskscope.shipped import URLS, shipped

ELSEWHERE = {
    "grafana": "https://graphs.example/grafana",
    "taskscope": "https://jobs.example:8443/taskscope",
    "prometheus": "http://prometheus.example:9095",
    "alertmanager": "https://alerts.example/am",
}
TOKEN = "/run/secrets/taskscope-token"


def options(**urls: str) -> list[str]:
    return [word for name, url in urls.items() for word in (f"--{name}-url", url)]


def written(folder: Path, *arguments: str) -> dict[str, str]:
    """What the command writes into this folder, by path."""
    assert run(["assets", str(folder), *arguments]) == 0
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in files}


def amtool(file: Path) -> str:
    done = subprocess.run(
        [program("amtool", "amtool (of Alertmanager)"), "check-config", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def datasources(texts: dict[str, str]) -> dict[str, Any]:
    listed = yaml.safe_load(texts["grafana/provisioning/datasources/taskscope.yaml"])["datasources"]
    return {source["uid"]: source for source in listed}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "assets"


def test_everything_that_is_shipped_is_written(folder: Path) -> None:
    texts = written(folder)

    pages = {path.name for path in shipped("dashboards/json").glob("*.json")}
    rules = {path.name for path in shipped("alerts").glob("*.yml")}
    templates = {path.name for path in shipped("alerts/alertmanager/templates").iterdir()}
    units = {path.name for path in shipped("examples/systemd").iterdir()}
    assert pages
    assert rules
    assert templates
    assert units
    assert set(texts) == {
        *(f"grafana/dashboards/{name}" for name in pages),
        "grafana/provisioning/datasources/taskscope.yaml",
        "grafana/provisioning/dashboards/taskscope.yaml",
        *(f"prometheus/rules/{name}" for name in rules),
        "prometheus/prometheus.yml",
        "alertmanager/alertmanager.yml",
        *(f"alertmanager/templates/{name}" for name in templates),
        *(f"systemd/{name}" for name in units),
    }


@pytest.mark.parametrize("urls", [URLS, ELSEWHERE], ids=["default", "elsewhere"])
@pytest.mark.parametrize("token", [[], ["--token-file", TOKEN]], ids=["open", "token"])
def test_prometheus_and_alertmanager_take_what_is_written(
    folder: Path, promtool: str, urls: dict[str, str], token: list[str]
) -> None:
    texts = written(folder, *options(**urls), *token)

    whole = [] if not token else ["--syntax-only"]  # else the token's file must be there
    for check in (
        ["config", *whole, "prometheus/prometheus.yml"],
        ["rules", *(path for path in texts if path.startswith("prometheus/rules/"))],
    ):
        done = subprocess.run(
            [promtool, "check", *check], cwd=folder, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in amtool(folder / "alertmanager/alertmanager.yml")


def test_no_default_address_is_left_where_others_are_given(folder: Path) -> None:
    texts = written(folder, *options(**ELSEWHERE), "--kubernetes")

    assert [path for path, text in texts.items() if "localhost" in text] == []


def test_addresses_may_be_those_that_others_have_by_default(folder: Path) -> None:
    swapped = {
        "grafana": URLS["taskscope"],
        "taskscope": URLS["grafana"],
        "prometheus": f"{URLS['grafana']}1",
    }

    sources = datasources(written(folder, *options(**swapped)))

    assert sources["taskscope-api"]["url"] == URLS["grafana"]
    assert sources["taskscope-prometheus"]["url"] == "http://localhost:30001"


def test_alerts_lead_to_the_users_runbook_and_dashboards(folder: Path) -> None:
    texts = written(folder, *options(**ELSEWHERE))

    rules = [
        rule
        for path, text in texts.items()
        if path.startswith("prometheus/rules/")
        for group in yaml.safe_load(text)["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]
    assert rules
    for rule in rules:
        runbook = f"{ELSEWHERE['taskscope']}/runbook#{rule['alert'].lower()}"
        assert rule["annotations"]["runbook_url"] == runbook
        assert rule["annotations"]["dashboard_url"].startswith(f"{ELSEWHERE['grafana']}/d/taskscope-")


def test_prometheus_scrapes_and_tells_whom_it_should(folder: Path) -> None:
    texts = written(folder, *options(**ELSEWHERE), "--token-file", TOKEN)

    config = yaml.safe_load(texts["prometheus/prometheus.yml"])

    assert texts["prometheus/prometheus.yml"].startswith("# Prometheus")
    assert config["rule_files"] == ["rules/*.yml"]
    assert config["scrape_configs"] == [
        {
            "job_name": "taskscope",
            "scheme": "https",
            "metrics_path": "/taskscope/metrics",
            "static_configs": [{"targets": ["jobs.example:8443"]}],
            "authorization": {"credentials_file": TOKEN},
        }
    ]
    assert config["alerting"]["alertmanagers"] == [
        {"scheme": "https", "path_prefix": "/am", "static_configs": [{"targets": ["alerts.example"]}]}
    ]


def test_without_addresses_prometheus_is_configured_as_in_the_stack(folder: Path) -> None:
    texts = written(folder)

    stack = yaml.safe_load(shipped("examples/stack/prometheus.yml").read_text())
    assert yaml.safe_load(texts["prometheus/prometheus.yml"]) == stack


def test_alertmanager_tells_taskscope_with_the_token_where_there_is_one(folder: Path, tmp_path: Path) -> None:
    openly = written(folder)["alertmanager/alertmanager.yml"]
    guarded = written(tmp_path / "guarded", "--token-file", TOKEN)["alertmanager/alertmanager.yml"]

    assert "http_config" not in yaml.safe_dump(yaml.safe_load(openly))
    (hook,) = [
        hook
        for receiver in yaml.safe_load(guarded)["receivers"]
        for hook in receiver.get("webhook_configs", [])
        if hook["url"].startswith(URLS["taskscope"])
    ]
    assert hook["url"] == f"{URLS['taskscope']}/api/monitoring/webhook"
    assert hook["http_config"] == {"authorization": {"credentials_file": TOKEN}}


def test_grafana_asks_the_users_servers_under_the_uids_that_links_rely_on(folder: Path) -> None:
    sources = datasources(written(folder, *options(**ELSEWHERE)))

    prometheus, api = sources["taskscope-prometheus"], sources["taskscope-api"]
    assert (prometheus["name"], prometheus["type"]) == ("Prometheus", "prometheus")
    assert prometheus["url"] == ELSEWHERE["prometheus"]
    assert (api["name"], api["type"]) == ("Taskscope API", "yesoreyeram-infinity-datasource")
    assert api["url"] == ELSEWHERE["taskscope"]
    assert api["jsonData"]["allowedHosts"] == [ELSEWHERE["taskscope"]]
    assert "auth_method" not in api["jsonData"]
    assert "secureJsonData" not in api


def test_grafana_reads_the_token_from_its_file_and_no_file_holds_one(folder: Path) -> None:
    api = datasources(written(folder, "--token-file", TOKEN))["taskscope-api"]

    assert api["jsonData"]["auth_method"] == "bearerToken"
    assert api["secureJsonData"] == {"bearerToken": f"$__file{{{TOKEN}}}"}


def test_an_exemplar_leads_to_the_page_of_its_run(folder: Path) -> None:
    texts = written(folder)

    (link,) = datasources(texts)["taskscope-prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert link["name"] == "run_id"
    assert link["url"].replace("$$", "$") == "/d/taskscope-run?var-run_id=${__value.raw}"


def test_grafana_computes_rates_over_the_interval_at_which_prometheus_scrapes(folder: Path) -> None:
    texts = written(folder)

    every = yaml.safe_load(texts["prometheus/prometheus.yml"])["global"]["scrape_interval"]
    assert datasources(texts)["taskscope-prometheus"]["jsonData"]["timeInterval"] == every


@pytest.mark.parametrize("name", ["assets", 'a "quoted": $HOME #1', "ümläut"])
def test_grafana_finds_the_dashboards_where_they_are_written(tmp_path: Path, name: str) -> None:
    texts = written(tmp_path / name)

    (provider,) = yaml.safe_load(texts["grafana/provisioning/dashboards/taskscope.yaml"])["providers"]
    place = Path(provider["options"]["path"].replace("$$", "$"))
    assert place == tmp_path / name / "grafana/dashboards"
    assert list(place.glob("*.json"))


def test_every_dashboard_stays_json(folder: Path) -> None:
    texts = written(folder, *options(**ELSEWHERE))

    for path, text in texts.items():
        if path.startswith("grafana/dashboards/"):
            assert json.loads(text)["uid"] == f"taskscope-{Path(path).stem}"


def test_written_twice_nothing_changes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = written(folder)
    capsys.readouterr()

    assert written(folder) == before
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("kept  ") for line in lines) == len(before)
    assert not any(line.startswith("wrote") for line in lines)


def test_a_file_that_differs_is_refused_in_a_sentence_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = written(folder)
    mine = folder / "prometheus/prometheus.yml"
    mine.write_text("# mine\n")
    (folder / "alertmanager/alertmanager.yml").unlink()
    capsys.readouterr()

    assert run(["assets", str(folder)]) == 2

    said = capsys.readouterr()
    assert said.err.startswith(f"taskscope: {mine} ")
    assert "--force" in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert mine.read_text() == "# mine\n"
    assert not (folder / "alertmanager/alertmanager.yml").exists()
    after = written(folder, "--force")
    assert after.pop("prometheus/prometheus.yml.before") == "# mine\n"
    assert after == before


@pytest.mark.parametrize("urls", [URLS, ELSEWHERE], ids=["default", "elsewhere"])
@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
def test_links_in_messages_lead_to_the_servers_that_people_reach(
    folder: Path, capsys: pytest.CaptureFixture[str], name: str, urls: dict[str, str]
) -> None:
    texts = written(folder, *options(**urls))

    flag = f"--web.external-url={urls[name]}"
    assert flag in texts[f"systemd/taskscope-{name}.service"].split()
    assert flag in capsys.readouterr().out.split(), "it says so to whoever starts them otherwise"


def test_it_says_what_it_wrote_and_what_to_do_next(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = written(folder)

    said = capsys.readouterr().out
    assert {line[7:] for line in said.splitlines() if line.startswith("wrote  ")} == {
        str(folder / path) for path in texts
    }
    after = said.partition(f"Next, in {folder}:")[2]
    for word in ("yesoreyeram-infinity-datasource", "prometheus/prometheus.yml", "Alertmanager"):
        assert word in after


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--grafana-url", "grafana.example"], "'grafana.example'"),
        (["--taskscope-url", "http://host/a'b"], "taskscope"),
        (["--alertmanager-url", "http://host/100%s"], "alertmanager"),  # messages hold it in format strings
        (["--prometheus-url", "http://host:9090/\nx: y"], "prometheus"),
        (["--token-file", "token"], "'token'"),
        (["--token-file", "/run/a}b"], "token file"),
    ],
)
def test_a_bad_address_is_a_sentence_and_nothing_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    assert run(["assets", str(folder), *arguments]) == 2

    said = capsys.readouterr().err
    assert word in said
    assert said.count("\n") == 1
    assert not folder.exists()


def test_the_manifests_hold_every_rule_and_every_dashboard(folder: Path) -> None:
    texts = written(folder, "--kubernetes")

    manifests = [
        part
        for path, text in texts.items()
        if path.startswith("kubernetes/")
        for part in yaml.safe_load_all(text)
    ]
    (rules,) = [part for part in manifests if part["kind"] == "PrometheusRule"]
    groups = [
        group
        for path, text in texts.items()
        if path.startswith("prometheus/rules/")
        for group in yaml.safe_load(text)["groups"]
    ]
    maps = [part for part in manifests if part["kind"] == "ConfigMap"]
    pages = [part["data"] for part in maps if "grafana_dashboard" in part["metadata"]["labels"]]
    assert rules["spec"]["groups"] == groups
    assert len({group["name"] for group in groups}) == len(groups), "the operator refuses a name given twice"
    assert sorted(text for page in pages for text in page.values()) == sorted(
        text for path, text in texts.items() if path.startswith("grafana/dashboards/")
    )
    assert len({name for page in pages for name in page}) == len(pages), (
        "the sidecar puts them into one folder"
    )
    assert [part for part in maps if part["metadata"]["labels"].get("grafana_datasource") == "1"]
    assert {"Deployment", "Service", "ServiceMonitor"} <= {part["kind"] for part in manifests}
    names = [(part["kind"], part["metadata"]["name"]) for part in manifests]
    assert len(set(names)) == len(names)
