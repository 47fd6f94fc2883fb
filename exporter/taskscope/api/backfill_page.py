"""`/backfill`: a page on which people start work again, where links of the dashboards lead."""

from html import escape
from typing import Annotated
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from msgspec import Meta
from multidict import MultiDict

from taskscope.api.auth import admit, guarded
from taskscope.api.backfill import LONGEST, PATIENCE, BackfillQuery, backfilled, function_for, page_of
from taskscope.api.endpoint import Call, get, post
from taskscope.api.errors import ApiError
from taskscope.api.landing import HEADERS
from taskscope.api.params import Reader, Text
from taskscope.backfill import Backfill, backfills

FORM = "application/x-www-form-urlencoded"
_MOST = 16_384  # bytes of a form, which anybody may send
_HEADERS = HEADERS | {
    "Content-Security-Policy": f"{HEADERS['Content-Security-Policy']}; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",  # nobody else shows the button
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Backfill - taskscope</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 40rem; margin: 2rem auto; padding: 0 1rem }}
label {{ display: block; margin: .6rem 0 }}
input:not([type=radio]) {{ display: block; width: 100%; box-sizing: border-box; font: inherit; padding: .3rem }}
button {{ font: inherit; margin-top: .6rem; padding: .4rem 1.2rem }}
</style>
<p><a href="/">taskscope</a></p>
<h1>Backfill</h1>
{body}
</html>
"""
_FORM = """<p>The program that runs the job starts its work again, as it knows best: what is missing, or all of it.</p>
<form method="post" action="backfill">
<label>Scheduler <input name="scheduler" value="{scheduler}" required></label>
<label>Job <input name="job" value="{job}" list="jobs" required></label>
<datalist id="jobs">{jobs}</datalist>
<label>Entity: a shop, a tenant, a database; empty for all
<input name="entity" value="{entity}" maxlength="{longest}"></label>
<label><input type="radio" name="force" value="false" checked> Only what is missing</label>
<label><input type="radio" name="force" value="true"> Everything again, also what failed</label>
{token}<button>Start it again</button>
</form>"""
_TOKEN = """<label>Token with the scope manage
<input name="token" type="password" autocomplete="current-password" required></label>
"""


class BackfillLink(msgspec.Struct, frozen=True, kw_only=True):
    """What the form is filled in with."""

    scheduler: Annotated[Text, Meta(description="Name of the scheduler.")] = ""
    job: Annotated[Text, Meta(description="The job's name.")] = ""
    entity: Annotated[Text, Meta(description="A shop, a tenant, a database.")] = ""


class BackfillForm(BackfillQuery, frozen=True, kw_only=True):
    """The form as it is sent."""

    scheduler: Annotated[Text, Meta(description="Name of the scheduler.")]
    job: Annotated[Text, Meta(description="The job's name.")]
    token: Annotated[Text, Meta(description="A token with the scope `manage`, where any are set.")] = ""


@get("/backfill", tag="Pages", scope="", media="text/html", also=(404,))
async def backfill_page(call: Call, query: BackfillLink) -> web.StreamResponse:
    """Show what will be started again, with a button that does it."""
    if query.scheduler and query.job and not _is_closed(call):
        try:
            function_for(call, (query.scheduler, query.job))
        except ApiError as error:
            return _page(_told(error), error.status)
    return _page(_form(call, query))


@post(
    "/backfill",
    tag="Pages",
    scope="",
    media="text/html",
    also=(202, 401, 403, 404, 409, 502),
    takes={FORM: BackfillForm},
)
async def backfill_sent(call: Call, body: bytes) -> web.StreamResponse:
    """Start a job's work again, as `POST /api/job/{scheduler}/{name}/backfill` does, for people with a browser.

    The form takes the token with it; without one, where any are set, the answer is 401.
    """
    form = _read(call, body)
    try:
        if _is_closed(call):
            admit(call.request, call.backend.settings, "manage", f"Bearer {form.token}")
        done = await backfilled(call, (form.scheduler, form.job), form)
    except ApiError as error:
        return _page(_told(error) + _back(form), error.status, error.headers)
    return _page(_done(done) + _back(form), 200 if done.ended else 202)


def _is_closed(call: Call) -> bool:
    """Only who has a token is told more than what he says himself."""
    return guarded(call.backend.settings, "manage")


def _read(call: Call, body: bytes) -> BackfillForm:
    if len(body) > _MOST:
        raise ApiError(413, f"The form is larger than {_MOST} bytes.")
    given = MultiDict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    return Reader(BackfillForm, call.backend.settings.limits).read(given)


def _form(call: Call, query: BackfillLink) -> str:
    closed = _is_closed(call)
    jobs = () if closed else sorted(_jobs(call, query.scheduler))
    return _FORM.format(
        scheduler=escape(query.scheduler),
        job=escape(query.job),
        jobs="".join(f'<option value="{escape(job)}">' for job in jobs),
        entity=escape(query.entity.strip()),  # Grafana writes a blank for none
        longest=LONGEST,
        token=_TOKEN if closed else "",
    )


def _jobs(call: Call, scheduler: str) -> set[str]:
    live = call.backend.live
    with live.lock:
        known = [key for key in live.jobs if scheduler in ("", key[0])]
    return {key[1] for key in known if backfills.function(key)}


def _done(done: Backfill) -> str:
    what = f"{done.job} of {done.scheduler}, {done.entity or 'all entities'}"
    if done.ended is None:
        return f"<p>{escape(what)}: it still runs after {PATIENCE:g} s; the program's log will say what came of it.</p>"
    return f"<p>{escape(what)}: done. The program says: {escape(done.result or 'nothing')}</p>"


def _told(error: ApiError) -> str:
    return f"<p><b>Not done.</b> {escape(error.problem.error)}</p>"


def _back(form: BackfillForm) -> str:
    return f'<p><a href="{escape(page_of((form.scheduler, form.job), form.entity))}">Back to the form</a></p>'


def _page(body: str, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    text = _PAGE.format(body=body).encode("utf-8", "replace")
    return web.Response(
        body=text,
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers=_HEADERS | (headers or {}),
    )
