"""No secret leaves the program."""

import json
import time
from datetime import UTC, datetime
from urllib.request import urlopen

import pytest
from apscheduler.schedulers.background import BackgroundScheduler

import taskscope
from services.process import until
from taskscope.admission import Admission
from taskscope.events import Error, Fact, Job, Jobs, Trigger
from taskscope.failure import describe, short_repr
from taskscope.redaction import Redaction
from taskscope.settings import Settings

NOW = 1_700_000_000.0
CANARY = "hunter2-canary"
HIDE = Redaction(Settings().redact)

TEXTS = {
    "a dict by repr": f"{{'Authorization': 'Bearer {CANARY}', 'x': 1}}",
    "another scheme": f"{{'Authorization': 'Basic {CANARY}'}}",
    "a header": f"GET / HTTP/1.1\nAuthorization: Basic {CANARY}\nAccept: *",
    "a cookie": f"Cookie: a=1; session={CANARY}; b=2",
    "JSON": json.dumps({"password": f"it's \"{CANARY}", "b": 2}),
    "JSON by repr": repr(json.dumps({"password": f"it's {CANARY}"})),
    "JSON by repr twice": repr(repr(json.dumps({"api_key": CANARY}))),
    "bytes": f"{{b'passwd': b'{CANARY}'}}",
    "a nested value": f"{{'credentials': {{'user': ['a', ')', '{CANARY}']}}, 'z': 1}}",
    "an object": f"password=SecretBox('{CANARY}')",
    "an object in angles": f"password=<Secret value={CANARY}>",
    "an assignment": f"DB_PASSWORD={CANARY} is wrong",
    "a comparison": f"assert token == '{CANARY}'",
    "an item": f"config['api-key'] = '{CANARY}'",
    "source in a stack": f'  File "a.py", line 3\n    login(password="{CANARY}", user="u")\n',
    "a query": f"https://host/path?a=1&access_token={CANARY}&b=2",
    "a URL": f"could not reach postgresql://me:{CANARY}@db:5432/x",
    "a URL with odd characters": f"amqp://me:a@b/{CANARY}@mq/",
    "a URL without a user": f"redis://:{CANARY}@cache/0",
    "a URL with a token": f"https://{CANARY}@github.com/a/b",
    "a bearer": f"sent bearer {CANARY} in vain",
    "XML": f"<password>{CANARY}</password>",
    "a pair": f"[('X-Api-Key', '{CANARY}')]",
    "a command line": f"mysql --password {CANARY} -h db",
    "a list of arguments": f"['mysql', '--password', '{CANARY}']",
    "a passphrase": f"--passphrase {CANARY}",
    "a short name": f"DB_PWD={CANARY}",
    "a cut text": f"{{'secret': 'aaa\n… 500 characters cut …\n{CANARY}'}}",
    "an open quote": f"{{'secret': '{CANARY}",
    "upper case": f"AUTHORIZATION: BEARER {CANARY}",
    "a private key by name": f"Config(private_key='{CANARY}', user='u')",
    "a private key in camel case": json.dumps({"privateKey": CANARY}),
    "an access key": f"boto3.client('s3', aws_access_key={CANARY!r})",
    "an environment": f"KeyError in {{'SMTP_PASS': '{CANARY}', 'SMTP_USER': 'u'}}",
    "a line of an environment": f"SMTP_PASS={CANARY}",
    "YAML": f"smtp_pass: {CANARY}",
    "a short argument": f"    smtp.login(user='u', pass='{CANARY}')",
    "an option": f"backup --pass {CANARY} --all",
    "a session": f"GET /shop?session_id={CANARY}&page=2",
    "a session in one word": f"sessionid={CANARY}; path=/",
    "a tuple of requests": f"    requests.get(url, auth=('u', '{CANARY}'), timeout=3)",
    "a dict with a tuple": f"{{'auth': ('u', '{CANARY}'), 'timeout': 3}}",
    "an item by name": f"config['auth'] = '{CANARY}'",
}
VALUES = {
    "a kwarg": {"password": CANARY},
    "deep inside": {"a": [{"b": ({"Client-Secret": [CANARY]},)}]},
    "a number": {"password": 4711_4711_4711},
    "a pair": {"headers": [["Authorization", CANARY]]},
    "a command line": {"args": ["--token", CANARY]},
    "a short name": {"env": {"SMTP_PASS": CANARY, "x": 1}},
    "an option": {"args": ["--smtp-pass", CANARY]},
    "a key": {f"redis://:{CANARY}@h": 1},
    "an object": {"client": type("Client", (), {"__repr__": lambda self: f"Client(token='{CANARY}')"})()},
}


def canary(before, alphabet, length):
    """A credential that is none: put together here, so that no scanner of sources takes it for one."""
    return before + (alphabet * length)[:length]


LETTERS, HEX = "Zx7Qw9Lk3Vb5", "0a1b2c3d4e5f"
SHAPED = {
    "AWS": canary("AK" + "IA", "Z7QW9LK3", 16),
    "GitHub": canary("gh" + "p_", LETTERS, 36),
    "GitHub fine-grained": canary("github" + "_pat_", LETTERS, 40),
    "GitLab": canary("glp" + "at-", LETTERS, 20),
    "Slack": canary("xo" + "xb-", "12345-", 24) + LETTERS,
    "Stripe": canary("sk" + "_live_", LETTERS, 24),
    "Google": canary("AI" + "za", LETTERS, 35),
    "Google OAuth": canary("ya" + "29.", LETTERS, 40),
    "JWT": canary("ey" + "J", LETTERS, 20) + canary(".eyJ", LETTERS, 30) + canary(".", LETTERS, 40),
    "npm": canary("np" + "m_", LETTERS, 36),
    "PyPI": canary("py" + "pi-AgE", LETTERS, 60),
    "SendGrid": canary("S" + "G.", LETTERS, 22) + canary(".", LETTERS, 43),
    "a model": canary("s" + "k-ant-", LETTERS, 40),
    "Hugging Face": canary("h" + "f_", LETTERS, 34),
    "DigitalOcean": canary("dop" + "_v1_", HEX, 64),
    **{f"Shopify {kind}": canary("shp" + kind, HEX, 32) for kind in ("at_", "ca_", "pa_", "ss_")},
    "Twilio": canary("S" + "K", HEX, 32),
    "GitLab for deploying": canary("gld" + "t-", LETTERS, 20),
    "Vault": canary("hv" + "s.", LETTERS, 24),
    "Vault for batches": canary("hv" + "b.", LETTERS, 90),
    "Grafana": canary("gl" + "sa_", LETTERS, 32) + "_0a1b2c3d",
    "Grafana Cloud": canary("gl" + "c_eyJ", LETTERS, 60),
    "Databricks": canary("da" + "pi", HEX, 32),
    "Mailgun": canary("ke" + "y-", HEX, 32),
    "Telegram": canary("123456789" + ":AA", LETTERS, 33),
}
"""Credentials that are known by their shape."""
AROUND = {
    "a private key": (
        "-----BEGIN RSA PRIVATE" + " KEY-----\n{}\n-----END RSA PRIVATE" + " KEY-----",
        LETTERS * 6,
    ),
    "Azure": ("AccountName=a;AccountKey={};EndpointSuffix=b", LETTERS * 4 + "=="),
    "a signed URL": ("https://a.example/b?X-Amz-Date=1&X-Amz-Signature={}", HEX * 5),
    "a shared URL": ("https://a.example/b?sv=1&sig={}", LETTERS * 3 + "%3D"),
    "a webhook": ("https://hooks.slack.com/{}", "services/T0/B0/" + LETTERS * 2),
    "basic": ("sent Basic {} in vain", "Y2FuYXJ5OmNhbmFyeTE="),
    "Telegram in a sentence of requests": (
        "HTTPSConnectionPool(host='api.telegram.org', port=443): Max retries exceeded with url: /bot{}/sendMessage"
        " (Caused by ConnectTimeoutError())",
        SHAPED["Telegram"],
    ),
    "Discord in a sentence of requests": (
        "404 Client Error: Not Found for url: https://discord.com/api/webhooks/{}",
        "112233445566778899/" + LETTERS * 5,
    ),
    "Teams": ("https://a.webhook.office.com/webhookb2/b@c/IncomingWebhook/{}", LETTERS * 3 + "/d"),
    "Azure Service Bus": (
        "Connection string is invalid: Endpoint=sb://a/;SharedAccessKeyName=b;SharedAccessKey={}",
        LETTERS * 3 + "=",
    ),
    "a key of PGP": (
        "gpg: no data in -----BEGIN PGP PRIVATE"
        + " KEY BLOCK-----\n\n{}\n-----END PGP PRIVATE"
        + " KEY BLOCK-----",
        LETTERS * 6,
    ),
}
"""Credentials that are known by what stands beside them."""
CANARIES = {name: (value, value) for name, value in SHAPED.items()} | {
    name: (text.format(value), value) for name, (text, value) in AROUND.items()
}


@pytest.mark.parametrize(("text", "secret"), CANARIES.values(), ids=CANARIES)
@pytest.mark.parametrize(
    "place", ["{}", "refused: {!r}", "f({{'x': '{}'}})", "https://h/p?q={}&r=1", "a={},b"]
)
def test_a_credential_of_a_known_kind_is_not_shown_wherever_it_stands(text, secret, place):
    told = HIDE.text(place.format(text))

    assert secret not in told
    assert "***" in told


def leaks(told):
    return CANARY in repr(told) or "471147114711" in repr(told)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_shape_of_a_text_shows_a_secret(text):
    assert not leaks(HIDE.text(text))
    assert "***" in HIDE.text(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_no_text_of_a_fact_shows_a_secret(text):
    error = Error(kind="E", message=text, stack=f"Traceback\n{text}\nE: {text}", data={"note": text})
    fact = Fact(
        scheduler="s",
        native="n",
        status="failed",
        at=NOW,
        error=error,
        details={"a": [{"b": text}], "text": text},
    )

    assert not leaks(Admission(Settings()).admit(fact, NOW))


@pytest.mark.parametrize("value", [*VALUES.values(), *({"x": text} for text in TEXTS.values())])
def test_no_value_of_a_job_or_of_details_shows_a_secret(value):
    trigger = Trigger(key="t", state="WAITING", data=value)
    by_repr = {
        "args": [short_repr(value)],
        "kwargs": {name: short_repr(item) for name, item in value.items()},
    }
    jobs = tuple(
        Job(name=name, key=name, properties=value, data=data, triggers=(trigger,))
        for name, data in (("a", value), ("b", by_repr))
    )
    admission = Admission(Settings())
    fact = Fact(scheduler="s", native="n", status="success", at=NOW, details=value)

    assert not leaks(admission.admit(Jobs(scheduler="s", at=NOW, jobs=jobs), NOW))
    assert not leaks(admission.admit(fact, NOW))


@pytest.mark.parametrize("filler", [0, 100, 2_000, 2_040, 10_000])
def test_a_secret_that_a_cut_parts_from_its_name_is_not_shown(filler):
    error = ValueError("x")
    error.body = "x" * filler + json.dumps({"password": "a" * 3_000 + CANARY})
    error.token = CANARY
    fact = Fact(scheduler="s", native="n", status="failed", at=NOW, error=describe(error))

    assert not leaks(Admission(Settings()).admit(fact, NOW))


@pytest.mark.parametrize(
    "text",
    [
        "nothing to hide",
        "jwt.exceptions.InvalidTokenError: Signature has expired",
        "https://host:8080/path?page=2",
        "<Task name='refresh'> failed at 10:00",
        "me@example.org",
        "the token was refused",
        "the auth-token given was refused",
        "Basic authentication failed",
        "task-1 and risk-averse",
        "the SKU SK12 is sold out",
        "the signature= of a function",
        "passed=3 failed=1 bypass=1 passes: 2",
        "first pass: 3 rows, PASS: all",
        "pass_rate=0.5, compass='north'",
        "author='me' authors=2 auth: failed",
        "auth_method=basic, auth_user='me'",
        "['migrate', 'auth', 'shop']",
        "session_idle=3, session id 7",
        "the key-value store and the api of a bot: 12:30",
        "-----BEGIN PUBLIC KEY-----",
    ],
)
def test_what_is_no_secret_stays(text):
    assert HIDE.text(text) == text


def test_only_the_value_goes():
    assert (
        HIDE.text("{'user': 'u', 'password': 'p', 'host': 'h'}")
        == "{'user': 'u', 'password': '***', 'host': 'h'}"
    )
    assert HIDE.text("password=p; it failed") == "password=***; it failed"
    assert HIDE.text("token = load(\nnext line") == "token = ***\nnext line"


def test_the_words_are_the_users():
    hide = Redaction(("pin", "Geheim-Wort"))

    assert hide.text("pin=1234 password=p geheim_wort='x'") == "pin=*** password=p geheim_wort='***'"
    assert Redaction(()).text("password=p") == "password=p"


@pytest.mark.parametrize(
    "unit",
    [
        *("password", "token: ", "://a:", "'token': {", "--token", "a", "'token':'", "\\'secret", "Bearer "),
        *("auth", "_pass", "auth=(", "'auth': ", "--auth ", "BEGIN PRIVATE KEY BLOCK", "1:AA", "/webhooks/1"),
    ],
)
def test_no_text_takes_long(unit):
    text = (unit * 65_536)[:65_536]
    begin = time.perf_counter()

    HIDE.text(text)

    assert time.perf_counter() - begin < 2.0


def test_a_job_that_did_not_change_is_looked_at_once():
    admission = Admission(Settings())
    job = Job(name="j", key="j", data={"password": CANARY})

    first, second = (
        admission.admit(Jobs(scheduler="s", at=NOW + n, jobs=(job,)), NOW).jobs[0] for n in range(2)
    )

    assert first is second
    assert first.data == {"password": "***"}


class Refused(Exception):
    def __init__(self, password, request):
        told = "\n".join(text for text, _ in CANARIES.values())
        super().__init__(f"refused: Authorization: Bearer {CANARY} at redis://:{CANARY}@cache {told}")
        self.password, self.request = password, request
        for n, (text, _) in enumerate(CANARIES.values()):
            setattr(self, f"attribute_{n}", text)


def connect(address, *others, password, headers):
    try:
        raise LookupError(others)
    except LookupError:
        shaped = dict(zip(SHAPED, SHAPED.values(), strict=True))
        taskscope.capture_exception(
            password=password, shaped=shaped, url=f"https://u:{CANARY}@h/?sig={others[0]}"
        )
    taskscope.describe_run(
        entity=f"https://u:{CANARY}@h/?sig={others[0]}",
        key=f"https://u:{CANARY}@h/?sig={others[0]}",
        result=f"password={password}",
    )
    raise Refused(password, {"headers": headers, "url": address, "others": others})


def told(url):
    """What every page says that tells of jobs, runs or errors."""
    run = json.loads(get(f"{url}/api/task/"))["data"][0]["id"]
    groups = json.loads(get(f"{url}/api/error/"))["data"]
    paths = (
        "/api/task/",
        f"/api/task/{run}",
        "/api/task/info",
        "/api/job/",
        "/api/job/apscheduler/connect",
        "/api/error/",
        *(f"/api/error/{group['fingerprint']}" for group in groups),
        "/metrics",
    )
    return {path: get(url + path) for path in paths} | {"run": get(f"{url}/api/task/{run}")}


def get(url):
    with urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def test_no_secret_of_a_job_reaches_a_page_a_log_or_the_file(tmp_path, caplog):
    caplog.set_level("DEBUG", "taskscope")
    file = tmp_path / "runs.db"
    scheduler = BackgroundScheduler(timezone="UTC")
    scheduler.add_job(
        connect,
        "interval",
        hours=1,
        id="connect",
        args=[f"amqp://me:{CANARY}@mq/", *SHAPED.values()],
        kwargs={"password": CANARY, "headers": {"Authorization": f"Bearer {CANARY}"}},
        next_run_time=datetime.now(UTC),
        misfire_grace_time=None,
    )
    try:
        with taskscope.Exporter(
            scheduler, history=f"sqlite:///{file}", port=0, poll_interval=0.1
        ) as exporter:
            scheduler.start()
            until(lambda: "Refused" in get(f"{exporter.url}/api/task/"))
            until(lambda: "LookupError" in get(f"{exporter.url}/api/error/"))
            until(lambda: "connect" in get(f"{exporter.url}/api/job/"))
            pages = told(exporter.url)
    finally:
        scheduler.shutdown()

    stored = b"".join(part.read_bytes() for part in tmp_path.iterdir()).decode(errors="replace")
    log = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("taskscope"))
    secrets = {"canary": CANARY} | {name: secret for name, (_, secret) in CANARIES.items()}
    places = pages | {"file": stored, "log": log}
    assert len(secrets) >= 20
    assert "Refused" in pages["run"]
    assert "LookupError" in pages["/api/error/"]
    assert "***" in pages["run"]
    assert "Refused" in stored
    assert [(n, p) for n, secret in secrets.items() for p, page in places.items() if secret in page] == []
