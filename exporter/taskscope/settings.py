"""One frozen `Settings`: defaults < YAML file < environment < arguments, checked once.

Durations are seconds; in YAML and in the environment `30d`, `1h30m`, `500ms` are understood too.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from taskscope.counts import Bounds

Seconds = Annotated[float, Meta(gt=0, extra={"unit": "seconds"})]
Hours = Annotated[float, Meta(ge=3600, extra={"unit": "seconds"})]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
LabelName = Annotated[
    str,
    Meta(pattern="^[a-zA-Z_][a-zA-Z0-9_]*$", description="a name of letters, digits and `_`, no digit first"),
]


class JobRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user says about the jobs whose name matches a pattern; of several rules the first match wins."""

    match: Annotated[str, Meta(description="Shell pattern over the job name, or over `scheduler/job`.")]
    name: Annotated[
        str | None,
        Meta(
            description="Count the jobs under this name, for which all else that the rule says holds, too; `*` of the "
            "pattern may be lost. In the program `current_run()` and `RunFilter` tell the scheduler's own name."
        ),
    ] = None
    team: Annotated[str, Meta(description="Who is told when the job fails.")] = ""
    severity: Annotated[str, Meta(description="critical, warning or info: how loud its alerts are.")] = ""
    grace: Annotated[Seconds | None, Meta(description="How late a run may start; then it is overdue.")] = None
    expect_every: Annotated[Seconds | None, Meta(description="Longest silence without a success.")] = None
    max_duration: Annotated[Seconds | None, Meta(description="A run that goes on longer is an alert.")] = None
    slow_after: Annotated[Seconds | None, Meta(description="A run that took longer counts as slow.")] = None
    ignore: Annotated[bool, Meta(description="Do not watch these jobs at all.")] = False


class QueueRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user says about the queues whose name matches a pattern; of several rules the first match wins."""

    match: Annotated[str, Meta(description="Shell pattern over the queue's name, or over `scheduler/queue`.")]
    backlog: Annotated[Count | None, Meta(description="More waiting messages are a backlog; null: 1000.")] = (
        None
    )
    max_age: Annotated[
        Seconds | None, Meta(description="An older waiting message is an alert; null: an hour.")
    ] = None
    team: Annotated[str, Meta(description="Who is told when something is wrong with the queue.")] = ""
    severity: Annotated[str, Meta(description="critical, warning or info: how loud its alerts are.")] = ""


class Check(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a check of health is held to; null leaves it as docs/health.md says."""

    threshold: Annotated[
        Annotated[float, Meta(ge=0)] | None, Meta(description="Beyond it the check fails, if it has one.")
    ] = None
    window: Annotated[
        Seconds | None, Meta(description="Time over which it is measured, or for which it must hold.")
    ] = None
    severity: Annotated[str | None, Meta(description="critical, warning or info.")] = None
    deduction: Annotated[
        Annotated[int, Meta(ge=0, le=100)] | None,
        Meta(description="Points that the score loses while it fails."),
    ] = None
    enabled: Annotated[bool | None, Meta(description="False leaves the check out.")] = None


class Health(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the score of health is made."""

    healthy: Annotated[int, Meta(ge=0, le=100, description="From this score on all is well.")] = 80
    degraded: Annotated[int, Meta(ge=0, le=100, description="Below this score it is unhealthy.")] = 50
    checks: Annotated[dict[str, Check], Meta(description="What differs from docs/health.md, by check.")] = {}
    schedulers: Annotated[
        dict[str, dict[str, Check]], Meta(description="The same for one scheduler, by its name and check.")
    ] = {}


class Notify(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who hears of what an inspection finds."""

    levels: Annotated[
        tuple[str, ...], Meta(description="Of critical, warning and info; findings of others are only kept.")
    ] = ("critical", "warning")
    receivers: Annotated[
        tuple[str, ...],
        Meta(description="Values of the label `receiver`, by which Alertmanager routes them."),
    ] = ()
    silence: Annotated[
        Seconds,
        Meta(description="After a finding has recovered, the same again is not told for so long."),
    ] = 3600.0


class Inspection(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A look at the history now and then; of a filter's shell patterns one must match, none after a `!`."""

    schedule: Annotated[str, Meta(description="When, as a cron expression.")] = "0 * * * *"
    timezone: Annotated[str, Meta(description="In which time zone, such as `Europe/Berlin`.")] = "UTC"
    timeout: Annotated[Seconds, Meta(description="After it an inspection is given up.")] = 60.0
    enabled: Annotated[bool, Meta(description="False: only when `taskscope inspect run` asks for it.")] = True
    looks: Annotated[
        tuple[str, ...],
        Meta(min_length=1, description="For what: new_errors, slow_jobs, silence, failing_entities."),
    ] = ("new_errors", "slow_jobs", "silence", "failing_entities")
    window: Annotated[Hours, Meta(description="At how much of the history it looks: whole hours.")] = 3600.0
    look_back: Annotated[
        Hours | None,
        Meta(
            description="What counts as the past before the window; null: for errors as long as they are kept, "
            "for slow jobs and failing entities a week, for silence a month."
        ),
    ] = None
    rise: Annotated[
        float, Meta(gt=1, description="An error that comes so many times as often as usual rises sharply.")
    ] = 5.0
    slower: Annotated[
        float, Meta(gt=1, description="A job whose p95 is so many times its own past is slow.")
    ] = 2.0
    schedulers: Annotated[tuple[str, ...], Meta(description="Services. All filters: `!x` leaves out.")] = ()
    jobs: Annotated[tuple[str, ...], Meta(description="Jobs, by name or `scheduler/job`.")] = ()
    queues: Annotated[tuple[str, ...], Meta(description="Queues of the jobs.")] = ()
    versions: Annotated[tuple[str, ...], Meta(description="Versions in which an error was seen.")] = ()
    labels: Annotated[
        dict[LabelName, tuple[str, ...]],
        Meta(
            description="Values of the schedulers' `labels`, such as `{environment: [prod]}`; all must match."
        ),
    ] = {}
    notify: Annotated[Notify, Meta(description="Who hears of findings.")] = Notify()


class Token(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A bearer token that may do what its scopes say."""

    name: Annotated[str, Meta(description="What the token is called in the debug log when it is used.")]
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$", description="SHA-256 of the token, as hex.")]
    scopes: Annotated[
        tuple[str, ...], Meta(min_length=1, description="Of `metrics`, `monitoring`, `manage`, `ingest`.")
    ]


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long runs, alerts and error groups are kept. Open and recent runs always are, and active alerts."""

    max_age: Annotated[Seconds | None, Meta(description="Older runs go; null keeps them.")] = 30 * 86400.0
    max_runs: Annotated[Count | None, Meta(description="Beyond the newest N, runs go; null keeps them.")] = (
        1_000_000
    )
    max_age_per_job: Annotated[
        dict[str, Seconds], Meta(description="Maximum age by job pattern, where it differs.")
    ] = {}
    max_runs_per_job: Annotated[Count | None, Meta(description="Newest N of every job.")] = None
    max_alerts: Annotated[
        Count, Meta(description="Newest N of past alerts, and of active ones; `max_age` holds for past ones.")
    ] = 10_000
    alert_silence: Annotated[
        Seconds,
        Meta(
            description="An active alert that Alertmanager did not send again for so long is past; keep it above "
            "Alertmanager's `repeat_interval`."
        ),
    ] = 25 * 3600.0
    max_findings: Annotated[Count, Meta(description="Newest N of past findings of inspections.")] = 10_000
    rollups: Annotated[Seconds, Meta(description="How long hourly rollups are kept.")] = 400 * 86400.0
    errors: Annotated[
        Seconds, Meta(description="How long an error group is kept after it was last seen.")
    ] = 365 * 86400.0
    max_errors: Annotated[
        Count,
        Meta(
            description="Error groups; what is new beyond is counted together as `_other` of its job until the groups "
            "seen longest ago were removed."
        ),
    ] = 10_000
    interval: Annotated[Seconds, Meta(description="How often retention looks; also at start.")] = 600.0
    chunk: Annotated[
        Count, Meta(description="Runs deleted in one transaction; keeps writers from waiting.")
    ] = 500


class ErrorRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the user says about some errors; patterns are the shell's, and of several rules the first match wins."""

    match: Annotated[str, Meta(description="Pattern over the job name, or over `scheduler/job`.")] = "*"
    exception: Annotated[
        str, Meta(description="Pattern over the exception's class, or over one that led to it.")
    ] = "*"
    place: Annotated[str, Meta(description="Pattern over the place, `package.module:function`.")] = "*"
    message: Annotated[
        str, Meta(description="Pattern over the message; `*deadlock*` finds a word in it.")
    ] = "*"
    name: Annotated[
        str,
        Meta(description="All these errors of a job are one group, which is called so: renames, and merges."),
    ] = ""
    split: Annotated[
        bool, Meta(description="Errors from one place are told apart by their messages, too (masked).")
    ] = False
    ignore: Annotated[bool, Meta(description="They belong to no group; the runs failed all the same.")] = (
        False
    )


class Errors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which errors are the same."""

    rules: Annotated[tuple[ErrorRule, ...], Meta(description="What you say about errors, in order.")] = ()
    foreign: Annotated[
        tuple[str, ...],
        Meta(
            description="Patterns of files (`*/vendor/*`) and Java classes that are not the program's own code, "
            "besides the standard library and whatever is installed."
        ),
    ] = ()


class Limits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Bounds on what one event and one request may hold."""

    name: Annotated[Count, Meta(description="Characters of a job, queue or worker name.")] = 16_384
    message: Annotated[int, Meta(ge=1, le=4_096, description="Characters of an error message.")] = 4_096
    stack: Annotated[
        int, Meta(ge=1, le=65_536, description="Characters of a stack trace; the middle is cut.")
    ] = 65_536
    args: Annotated[
        int, Meta(ge=1, le=200, description="Characters of each attribute of an exception, by repr.")
    ] = 200
    details: Annotated[
        Count, Meta(description="Bytes of a run's details as JSON; of longer ones the beginning is kept.")
    ] = 16_384
    captured: Annotated[
        Count,
        Meta(description="Exceptions that one run may report without failing; more are dropped and counted."),
    ] = 100
    body: Annotated[Count, Meta(description="Bytes of a request body, packed and unpacked.")] = 4 * 2**20
    events: Annotated[Count, Meta(description="Events that one request may send.")] = 10_000
    depth: Annotated[
        int, Meta(ge=1, le=200, description="Levels of nesting in what an event adds, when it is sent.")
    ] = 32
    page: Annotated[Count, Meta(description="Rows of one page of the API.")] = 1_000
    connections: Annotated[Count, Meta(description="Connections the HTTP server keeps open.")] = 256


class Source(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A scheduler that `taskscope serve` watches."""

    system: Annotated[str, Meta(description="Its kind: a name that `taskscope bridges` lists.")]
    target: Annotated[str, Meta(description="Where it is: a URL, or `module:attribute`.")] = ""
    options: Annotated[dict[str, Any], Meta(description="Options of that system, as told below.")] = {}
    labels: Annotated[
        dict[LabelName, str], Meta(description="What it belongs to, beside what the setting `labels` says.")
    ] = {}


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that can be set."""

    service: Annotated[
        str,
        Meta(
            description="The application; names its history file (default: the program) and its scheduler (default: "
            "the kind of scheduler). Give each program its own."
        ),
    ] = ""
    version: Annotated[
        str, Meta(description="The application's release, kept with its errors; a bridge may know better.")
    ] = ""
    labels: Annotated[
        dict[LabelName, str],
        Meta(
            description="What it belongs to, such as `{environment: prod, project: shop}`: told with its schedulers, "
            "and to Alertmanager with findings."
        ),
    ] = {}
    history: Annotated[
        str | None,
        Meta(description="`sqlite:///file`, `postgresql://…`, `auto` (a file of ours), or null for none."),
    ] = "auto"
    host: Annotated[str, Meta(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[Port | None, Meta(description="Port to listen on; 0 takes a free one, null none.")] = 9750
    insecure: Annotated[bool, Meta(description="Allow listening beyond this host without tokens.")] = False
    metrics_open: Annotated[bool, Meta(description="`/metrics` needs no token.")] = False
    tokens: Annotated[tuple[Token, ...], Meta(description="Who may ask; none: everybody on this host.")] = ()
    tls_certificate: Annotated[str | None, Meta(description="PEM file; with it the server speaks TLS.")] = (
        None
    )
    tls_key: Annotated[str | None, Meta(description="PEM file of its key.")] = None
    log_format: Annotated[
        Literal["text", "json"], Meta(description="How `taskscope serve` writes its log, on stderr.")
    ] = "text"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"],
        Meta(description="The least that `taskscope serve` logs."),
    ] = "info"
    forward: Annotated[
        str | None,
        Meta(
            description="Another taskscope that takes the runs, such as `http://collector:9750`. This program then "
            "keeps no history and opens no port, unless `history` or `port` are set, too."
        ),
    ] = None
    forward_token: Annotated[
        str | None, Meta(description="A token of that taskscope's with the scope `ingest`.")
    ] = None
    forward_certificates: Annotated[
        str | None, Meta(description="PEM file of who may vouch for it; null: whom the system trusts.")
    ] = None
    spool: Annotated[
        str | None,
        Meta(
            description="Folder in which runs wait on disk while the taskscope that they go to is away, also from one "
            "program to the next; null: they wait in memory."
        ),
    ] = None
    spool_size: Annotated[Count, Meta(description="Bytes that may wait there.")] = 64 * 2**20
    strict: Annotated[bool, Meta(description="Fail at start instead of going on degraded.")] = False

    queue_size: Annotated[Count, Meta(description="Events that may wait; more are dropped and counted.")] = (
        200_000
    )
    batch_size: Annotated[Count, Meta(description="Most events stored in one transaction.")] = 20_000
    flush_interval: Annotated[
        Seconds,
        Meta(
            description="How often what was told is stored. A burst of the program's own runs is let through first, "
            "for at most a second."
        ),
    ] = 0.05
    poll_interval: Annotated[Seconds, Meta(description="How often bridges are asked for readings.")] = 10.0
    poll_timeout: Annotated[
        Seconds, Meta(description="After it an unanswered question is reported; it is not interrupted.")
    ] = 5.0
    reading_ttl: Annotated[Seconds, Meta(description="Age at which a reading disappears.")] = 60.0
    job_ttl: Annotated[Seconds, Meta(description="How long a removed job is still exported.")] = 3_600.0
    dedup_window: Annotated[Seconds, Meta(description="Youngest runs that retention never removes.")] = (
        3_600.0
    )
    heartbeat: Annotated[Seconds, Meta(description="How often this process says that it lives.")] = 10.0
    lost_after: Annotated[
        Seconds, Meta(description="Silence of a process after which its runs are lost.")
    ] = 30.0

    series_budget: Annotated[Count, Meta(description="Series of all run metrics together.")] = 50_000
    job_budget: Annotated[Count, Meta(description="Jobs with series of their own.")] = 1_000
    names_per_job: Annotated[Count, Meta(description="Exceptions, and skip reasons, a job may have.")] = 20
    percentiles: Annotated[
        tuple[Annotated[float, Meta(gt=0, lt=100)], ...], Meta(description="Percentiles that `/stats` gives.")
    ] = (50, 90, 95, 99)
    buckets: Annotated[Bounds, Meta(description="Upper bounds of the histograms, in seconds.")] = Bounds()
    retention: Annotated[Retention, Meta(description="How long runs, alerts and error groups are kept.")] = (
        Retention()
    )
    limits: Annotated[Limits, Meta(description="Bounds on events and requests.")] = Limits()
    jobs: Annotated[tuple[JobRule, ...], Meta(description="What you say about jobs, by pattern.")] = ()
    queues: Annotated[tuple[QueueRule, ...], Meta(description="What you say about queues, by pattern.")] = ()
    health: Annotated[Health, Meta(description="How the score of health is made.")] = Health()
    errors: Annotated[Errors, Meta(description="Which errors are the same.")] = Errors()
    inspections: Annotated[dict[str, Inspection], Meta(description="Looks at the history, by name.")] = {}
    alertmanager: Annotated[
        str | None, Meta(description="URL of the Alertmanager that is told of findings; null: nobody is.")
    ] = None
    links: Annotated[
        dict[str, str],
        Meta(
            description="Where people reach `grafana` and `taskscope`, and edit the settings (`config`): findings link "
            "there. Other names: templates of links of runs and findings (docs/dashboards.md)."
        ),
    ] = {}
    schedulers: Annotated[
        dict[str, Source], Meta(description="What `taskscope serve` watches, by name.")
    ] = {}
    redact: Annotated[
        tuple[str, ...],
        Meta(
            description="Words in keys of values that never leave the program, in any case. One that begins with `_`"
            " must be the last: `_pass` is in `SMTP_PASS`, not in `bypass`."
        ),
    ] = (
        *("password", "passwd", "passphrase", "pwd", "secret", "token", "authorization", "cookie"),
        *("credential", "api_key", "private_key", "access_key", "_session_id", "_auth", "_pass"),
    )
