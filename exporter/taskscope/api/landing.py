"""`/`: a page for people who open the port in a browser: what is watched, where to go on."""

from collections.abc import Iterable
from html import escape
from urllib.parse import quote

from aiohttp import web

from taskscope import __version__
from taskscope.api.backfill import page_of
from taskscope.api.endpoint import Call, Endpoint, get
from taskscope.api.wire import moment_of
from taskscope.backfill import backfills
from taskscope.events import JobKey, SchedulerState
from taskscope.live_job import LiveJob

_MOST = 50  # schedulers, and jobs, named on the page

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>taskscope</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884; white-space: nowrap }}
td:first-child, td:last-child {{ white-space: normal; overflow-wrap: break-word }}
code {{ font: .9em ui-monospace, monospace }}
small {{ opacity: .7 }}
</style>
<h1>taskscope <small>{version}</small></h1>
<p>{summary}</p>
<h2>Watched</h2>
<table><tr><th>Scheduler</th><th>Kind</th><th>State</th><th>Jobs</th><th>Running now</th></tr>
{schedulers}
</table>
<h2>Jobs <small>times in UTC</small></h2>
<table><tr><th>Job</th><th>Last run</th><th>Last success</th><th>Failures in a row</th><th>Running</th>
<th>Next run</th></tr>
{jobs}
</table>
<h2>Where to go on</h2>
<table>
{links}
</table>
</html>
"""


@get("/", tag="Pages", media="text/html")
async def landing(call: Call) -> web.StreamResponse:
    """Show what is watched, with links to everything else."""
    live = call.backend.live
    with live.lock:
        states = sorted(live.schedulers.values(), key=lambda state: state.scheduler)
        jobs = sorted(live.jobs.items(), key=_first_what_fails)[:_MOST]
        rows = "\n".join(_job(key, job) for key, job in jobs if not job.state.removed)
        counts = _counts(
            (key[0], len(job.running)) for key, job in live.jobs.items() if not job.state.removed
        )
    page = _PAGE.format(
        version=escape(__version__),
        summary=_summary(counts, call.backend.settings.service),
        schedulers="\n".join(_line(state, counts) for state in states[:_MOST]) or _NOTHING,
        jobs=rows or "<tr><td colspan=6>None is known yet.</td></tr>",
        links="\n".join(_link(endpoint) for endpoint in call.endpoints),
    )
    body = page.encode("utf-8", "replace")
    return web.Response(body=body, content_type="text/html", charset="utf-8", headers=HEADERS)


HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "X-Content-Type-Options": "nosniff",
}
"""Of a page for people, which loads nothing from elsewhere and runs nothing."""
_NOTHING = "<tr><td colspan=5>Nothing was read yet.</td></tr>"


def _counts(running: Iterable[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    """By scheduler: its jobs, and its runs in progress."""
    counts: dict[str, tuple[int, int]] = {}
    for scheduler, runs in running:
        jobs, total = counts.get(scheduler, (0, 0))
        counts[scheduler] = (jobs + 1, total + runs)
    return counts


def _summary(counts: dict[str, tuple[int, int]], service: str) -> str:
    jobs, runs = sum(jobs for jobs, _ in counts.values()), sum(runs for _, runs in counts.values())
    return f"{escape(service) + ': ' if service else ''}{jobs} jobs known, {runs} runs in progress."


def _line(state: SchedulerState, counts: dict[str, tuple[int, int]]) -> str:
    jobs, runs = counts.get(state.scheduler, (0, 0))
    does = "running" if state.running else "not running" if state.up else "down"
    cells = (state.scheduler, state.system, does, str(jobs), str(runs))
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _first_what_fails(item: tuple[JobKey, LiveJob]) -> tuple[int, JobKey]:
    return -item[1].state.consecutive_failures, item[0]


def _job(key: JobKey, job: LiveJob) -> str:
    scheduler, name = key
    path = f"/api/job/{quote(scheduler, safe='')}/{quote(name, safe='', errors='replace')}"
    state = job.state
    due = "paused" if state.paused else _moment(state.next_run)
    cells = (_moment(state.last_run), _moment(state.last_success), str(state.consecutive_failures))
    running = (str(len(job.running)), due)
    again = (
        f' <small><a href="{escape(page_of(key))}">backfill</a></small>' if backfills.function(key) else ""
    )
    linked = f'<td><a href="{escape(path)}">{escape(name)}</a>{again}</td>'
    return f"<tr>{linked}{''.join(f'<td>{escape(cell)}</td>' for cell in (*cells, *running))}</tr>"


def _moment(seconds: float) -> str:
    """In UTC, to the second."""
    return (moment_of(seconds) or "never").replace("T", " ").partition(".")[0]


def _link(endpoint: Endpoint) -> str:
    path = escape(endpoint.path)
    followed = endpoint.method == "GET" and "{" not in path
    shown = f'<a href="{path}"><code>{path}</code></a>' if followed else f"<code>{path}</code>"
    return f"<tr><td>{shown}</td><td>{escape(endpoint.summary)}</td></tr>"
