"""Where settings come from, and the sentence for every wrong one."""

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from taskscope.configure import check, describe, keys, load, name_in_environment
from taskscope.errors import BadArgument
from taskscope.settings import JobRule, Retention, Settings, Source, Token

HASH = "a" * 64
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        file = tmp_path / "taskscope.yaml"
        file.write_text(text)
        return file

    return write


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def sentence(**how: object) -> str:
    """What is said about wrong settings."""
    with pytest.raises(BadArgument) as caught:
        load(**{"environ": {}, **how})
    return str(caught.value)


def test_without_anything_the_defaults_hold() -> None:
    assert load(environ={}) == Settings()


def test_the_environment_beats_the_file_and_an_argument_beats_both(write: Write) -> None:
    file = write("port: 1\nbatch_size: 1\nqueue_size: 1\n")
    environ = {"TASKSCOPE_BATCH_SIZE": "2", "TASKSCOPE_QUEUE_SIZE": "2"}

    settings = load(path=file, environ=environ, queue_size=3)

    assert (settings.port, settings.batch_size, settings.queue_size) == (1, 2, 3)


def test_mappings_are_merged_and_lists_are_replaced(write: Write) -> None:
    file = write("retention: {max_age: 90d, max_runs: 7}\npercentiles: [1, 2]\n")
    environ = {"TASKSCOPE_RETENTION__MAX_AGE": "1h30m", "TASKSCOPE_PERCENTILES": "50"}

    settings = load(path=file, environ=environ)

    assert settings.retention == Retention(max_age=5400.0, max_runs=7)
    assert settings.percentiles == (50.0,)


def test_the_file_of_the_working_directory_is_found(write: Write) -> None:
    write("service: billing")

    assert load(environ={}).service == "billing"


def test_the_environment_names_another_file(write: Write, tmp_path: Path) -> None:
    write("service: billing")
    (tmp_path / "other.yaml").write_text("service: other")

    assert load(environ={"TASKSCOPE_CONFIG": "other.yaml"}).service == "other"


def test_an_empty_file_sets_nothing(write: Write) -> None:
    assert load(path=write("# nothing yet\n"), environ={}) == Settings()


def test_everything_can_be_set_in_the_file(write: Write) -> None:
    text = f"""
        tokens: [{{name: grafana, sha256: {HASH}, scopes: [metrics, monitoring]}}]
        jobs: [{{match: "nightly-*", team: finance, grace: 5m}}]
        schedulers: {{main: {{system: rq, target: redis://h/0}}}}
        buckets: {{wait: [1, 2.5]}}
    """

    settings = load(path=write(text), environ={})

    assert settings.tokens == (Token(name="grafana", sha256=HASH, scopes=("metrics", "monitoring")),)
    assert settings.jobs == (JobRule(match="nightly-*", team="finance", grace=300.0),)
    assert settings.schedulers == {"main": Source(system="rq", target="redis://h/0")}
    assert settings.buckets.wait == (1.0, 2.5)


@pytest.mark.parametrize("key", list(keys()))
def test_the_environment_variable_of_every_setting_reaches_it(key: str) -> None:
    variable = name_in_environment(key)
    wrong_unless_text = {variable: "[{"}

    if key in ("service", "spool", "version"):
        assert getattr(load(environ=wrong_unless_text), key) == "[{"
    else:
        assert sentence(environ=wrong_unless_text).startswith((variable, key))


def test_given_settings_stand_for_file_and_environment(write: Write) -> None:
    write("port: 1")

    assert load(Settings(batch_size=2), environ={"TASKSCOPE_PORT": "1"}, queue_size=3) == Settings(
        batch_size=2, queue_size=3
    )


def test_given_settings_are_checked_too() -> None:
    assert (
        sentence(settings=Settings(port=-1)) == "port must be a whole number from 0 to 65535, or null, not -1"
    )


def test_structs_are_arguments_too() -> None:
    settings = load(environ={}, retention=Retention(max_runs=5), jobs=[JobRule(match="x")])

    assert settings.retention.max_runs == 5
    assert settings.jobs == (JobRule(match="x"),)


def test_an_empty_variable_is_as_if_not_set() -> None:
    assert load(environ={"TASKSCOPE_PORT": "", "TASKSCOPE_HISTORY": ""}) == Settings()


def test_what_kubernetes_says_about_a_service_of_our_name_is_not_taken_for_settings() -> None:
    environ = {
        "TASKSCOPE_PORT": "tcp://10.0.0.1:9750",
        "TASKSCOPE_PORT_9750_TCP": "tcp://10.0.0.1:9750",
        "TASKSCOPE_PORT_9750_TCP_ADDR": "10.0.0.1",
        "TASKSCOPE_SERVICE_HOST": "10.0.0.1",
        "TASKSCOPE_SERVICE_PORT": "9750",
        "TASKSCOPE_SERVICE_PORT_HTTP": "9750",
    }

    assert load(environ=environ) == Settings()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"prot": 1}, "prot is no setting; did you mean `port`?"),
        ({"zzz": 1}, "zzz is no setting; `taskscope config` lists all there are"),
        ({"retention": {"max_agee": 1}}, "retention.max_agee is no setting; did you mean `max_age`?"),
        ({"port": "x"}, "port must be a whole number from 0 to 65535, or null, not 'x'"),
        ({"port": 65536}, "port must be a whole number from 0 to 65535, or null, not 65536"),
        ({"port": True}, "port must be a whole number from 0 to 65535, or null, not True"),
        ({"insecure": "yes"}, "insecure must be true or false, not 'yes'"),
        ({"batch_size": None}, "batch_size must be a whole number of at least 1, not None"),
        (
            {"poll_interval": "5 s"},
            "poll_interval must be a duration above 0 such as `90s` or `1h30m`, not '5 s'",
        ),
        ({"percentiles": [50, 100]}, "percentiles[1] must be a number above 0 and below 100, not 100"),
        ({"percentiles": 50}, "percentiles must be a list, each item a number above 0 and below 100, not 50"),
        (
            {"retention": {"max_age": 0}},
            "retention.max_age must be a duration above 0 such as `90s` or `1h30m`, or null, not 0",
        ),
        (
            {"inspections": {"a": {"window": "30m"}}},
            "inspections.a.window must be a duration of at least 1h, not '30m'",
        ),
        (
            {"inspections": {"a": {"look_back": "10m"}}},
            "inspections.a.look_back must be a duration of at least 1h, or null, not '10m'",
        ),
        (
            {"inspections": {"a": {"timeout": 0}}},
            "inspections.a.timeout must be a duration above 0 such as `90s` or `1h30m`, not 0",
        ),
        ({"inspections": {"a": {"rise": 0.5}}}, "inspections.a.rise must be a number above 1, not 0.5"),
        ({"jobs": [{"team": "x"}]}, "jobs[0] has no `match`; add it"),
        ({"schedulers": {"main": {}}}, "schedulers.main has no `system`; add it"),
        ({"schedulers": {"main": {"system": 1}}}, "schedulers.main.system must be text, not 1"),
        (
            {"labels": {"a-b": "x"}},
            "labels.a-b must be text that matches ^[a-zA-Z_][a-zA-Z0-9_]*$: a name of letters, digits and `_`, "
            "no digit first",
        ),
        (
            {"jobs": [{"match": "x", "severity": "loud"}]},
            "jobs[0].severity must be critical, warning or info, not 'loud'",
        ),
        (
            {"tokens": [{"name": "a", "sha256": "hunter2", "scopes": ["metrics"]}]},
            "tokens[0].sha256 must be text that matches ^[0-9a-f]{64}$: SHA-256 of the token, as hex",
        ),
        (
            {"tokens": [{"name": "a", "sha256": HASH, "scopes": ["admin"]}]},
            "tokens[0].scopes must be of metrics, monitoring, manage, ingest, not 'admin'",
        ),
        (
            {"tokens": [{"name": "a", "sha256": HASH, "scopes": []}]},
            "tokens[0].scopes must be a list of at least 1, each item text, not []",
        ),
        (
            {"history": "mysql://me:hunter2@host/db"},
            "history must be `sqlite:///file`, `postgresql://user@host/database`, `auto`, or null for none, "
            "not 'mysql://me:***@host/db'",
        ),
        (
            {"history": ""},
            "history must not be empty; give null (in Python: None) to keep no history, or `auto`",
        ),
        (
            {"host": "0.0.0.0"},
            "host 0.0.0.0 is reachable from other machines and no tokens are set; "
            "add `tokens`, listen on 127.0.0.1, or say `insecure: true`",
        ),
        (
            {"tls_key": "key.pem"},
            "tls_key is set without tls_certificate; give the certificate's PEM file too",
        ),
        (
            {"tls_certificate": "nowhere.pem"},
            "tls_certificate names nowhere.pem, which is no file; give the path of a PEM file",
        ),
        (
            {"reading_ttl": 10, "poll_interval": 10},
            "reading_ttl must be longer than poll_interval (10 s), or readings vanish before the next come",
        ),
        (
            {"lost_after": 5},
            "lost_after must be longer than heartbeat (10 s), or runs of a living process count as lost",
        ),
        (
            {"inspections": {"a b": {}}},
            "inspections.a b must be a name of letters, digits, `_`, `-` and `.`: it stands in addresses",
        ),
        (
            {"inspections": {"a": {"schedule": "61 * * * *"}}},
            "inspections.a.schedule must be a cron expression such as `0 * * * *`, not '61 * * * *' (bad minute)",
        ),
        (
            {"inspections": {"a": {"timezone": "Europe/Berl"}}},
            "inspections.a.timezone must be a time zone such as Europe/Berlin, not 'Europe/Berl'",
        ),
        (
            {"inspections": {"a": {"looks": ["slow"]}}},
            "inspections.a.looks must be of new_errors, slow_jobs, silence, failing_entities, not 'slow'",
        ),
        (
            {"inspections": {"a": {"notify": {"levels": ["loud"]}}}},
            "inspections.a.notify.levels must be of critical, warning and info, not 'loud'",
        ),
        (
            {"inspections": {"a": {"window": "90m"}}},
            "inspections.a.window must be whole hours, such as 1h or 24h, not 5400 s",
        ),
        (
            {"alertmanager": "am:9093"},
            "alertmanager must be an address such as http://localhost:9093, not 'am:9093'",
        ),
        (
            {"links": {"grafana": "g"}},
            "links.grafana must be an address such as http://localhost:9093, not 'g'",
        ),
        (
            {"links": {"logs": "http://l/?q={job}"}},
            "links.logs has a field {job} that is none; there are scheduler, job_name, queue, worker, host, entity, "
            "key, run, trace, error, started, ended",
        ),
        (
            {"links": {"logs": "http://l/?q={job_name}}"}},
            "links.logs has a brace without its other half; write %7B and %7D for those that are no field's",
        ),
        (
            {"links": {f"l{n}": "http://l" for n in range(11)}},
            "links has 11 templates, and there may be 10 besides config, grafana, taskscope",
        ),
        (
            {"buckets": {"wait": [1, 1]}},
            "buckets.wait must be numbers above 0 in ascending order, such as 0.1, 1, 10",
        ),
        (
            {"buckets": {"delay": []}},
            "buckets.delay must be numbers above 0 in ascending order, such as 0.1, 1, 10",
        ),
        ({"buckets": {"delay": ["x"]}}, "buckets.delay[0] must be a number, not 'x'"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(arguments: dict[str, object], words: str) -> None:
    assert sentence(**arguments) == words


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"TASKSCOPE_PROT": "1"}, "TASKSCOPE_PROT is no setting; did you mean `TASKSCOPE_PORT`?"),
        (
            {"TASKSCOPE_RETENTION__MAX_AG": "1"},
            "TASKSCOPE_RETENTION__MAX_AG is no setting; did you mean `TASKSCOPE_RETENTION__MAX_AGE`?",
        ),
        ({"TASKSCOPE_PORT__X": "1"}, "TASKSCOPE_PORT__X is no setting; did you mean `TASKSCOPE_PORT`?"),
        ({"TASKSCOPE_PORT": "x"}, "TASKSCOPE_PORT must be a whole number from 0 to 65535, or null, not 'x'"),
        (
            {"TASKSCOPE_PORT": "[{"},
            "TASKSCOPE_PORT must be a whole number from 0 to 65535, or null, not '[{'",
        ),
        (
            {"TASKSCOPE_PERCENTILES": "50,x"},
            "TASKSCOPE_PERCENTILES[1] must be a number above 0 and below 100, not 'x'",
        ),
        ({"TASKSCOPE_JOBS": "[{team: x}]"}, "TASKSCOPE_JOBS[0] has no `match`; add it"),
        ({"TASKSCOPE_SCHEDULERS__MAIN__TARGET": "x"}, "schedulers.main has no `system`; add it"),
        (
            {"TASKSCOPE_CONFIG": "gone.yaml"},
            "settings file gone.yaml does not exist; create it or name another one",
        ),
    ],
)
def test_a_wrong_variable_is_named_as_such(environ: dict[str, str], words: str) -> None:
    assert sentence(environ=environ) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot: 1", "prot is no setting; did you mean `port`?"),
        ("port: x", "port must be a whole number from 0 to 65535, or null, not 'x'"),
        ("- a", "must hold `name: value` lines, not list"),
        ("port: [", "line 1: expected the node content, but found '<stream end>'; write valid YAML"),
        ("port: 1\nport: 2", "line 2: port is given twice; write valid YAML"),
        (
            "service: !!python/object/apply:os.getcwd []",
            "line 1: could not determine a constructor for the tag",
        ),
        ("service: '\x00'", "special characters are not allowed"),
    ],
)
def test_a_wrong_file_is_named_with_the_place(text: str, words: str, write: Write) -> None:
    file = write(text)

    said = sentence(path=file)

    assert str(file) in said
    assert words in said


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    assert "cannot be read" in sentence(path=tmp_path / "binary")
    assert "cannot be read" in sentence(path=tmp_path)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_this_host_needs_no_tokens(host: str) -> None:
    assert load(environ={}, host=host).host == host


@pytest.mark.parametrize(
    "open_by_choice",
    [{"insecure": True}, {"port": None}, {"tokens": [{"name": "a", "sha256": HASH, "scopes": ["metrics"]}]}],
)
def test_other_hosts_are_let_in_by_choice_only(open_by_choice: dict[str, object]) -> None:
    assert load(environ={}, host="0.0.0.0", **open_by_choice).host == "0.0.0.0"


def test_no_secret_is_in_the_description() -> None:
    settings = load(
        environ={},
        history="postgresql://me:hunter2@host/db",
        tokens=[{"name": "grafana", "sha256": HASH, "scopes": ["metrics"]}],
        schedulers={"main": {"system": "rq", "target": "redis://:hunter2@h/0"}},
    )
    odd = Source(system="rq", options={"api_key": "hunter2"})

    said = describe(msgspec.structs.replace(settings, schedulers=settings.schedulers | {"odd": odd}))

    assert "hunter2" not in said
    assert HASH not in said
    assert "postgresql://me:***@host/db" in said
    assert "max_age: 30d" in said


def test_a_word_that_is_none_of_those_to_choose_from_is_refused_with_them() -> None:
    with pytest.raises(BadArgument, match="LOG_FORMAT must be text or json, not 'xml'"):
        load(environ={"TASKSCOPE_LOG_FORMAT": "xml"})

    assert load(environ={"TASKSCOPE_LOG_FORMAT": "json"}).log_format == "json"


@pytest.mark.parametrize(("limit", "most"), [("message", 4_096), ("stack", 65_536), ("args", 200)])
def test_a_limit_that_could_not_be_kept_is_refused(limit: str, most: int) -> None:
    assert getattr(load(environ={}, limits={limit: most}).limits, limit) == most
    with pytest.raises(BadArgument, match=f"from 1 to {most}"):
        load(environ={}, limits={limit: most + 1})


def test_the_description_of_settings_can_be_given_back(write: Write) -> None:
    settings = load(
        environ={}, poll_interval="1m30s", reading_ttl="5m", retention={"max_age": None}, history=None
    )

    assert load(path=write(describe(settings)), environ={}) == settings


def test_the_defaults_pass_their_own_check() -> None:
    assert check(Settings()) == Settings()
