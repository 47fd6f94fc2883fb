"""`/runbook`: what each alert means and what to do about it, where the links of alerts lead."""

import asyncio
import re
from functools import lru_cache
from html import escape
from itertools import pairwise

from aiohttp import web

from taskscope.api.endpoint import Call, get
from taskscope.api.errors import ApiError
from taskscope.api.landing import HEADERS
from taskscope.shipped import shipped

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} - taskscope</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 50rem; margin: 2rem auto; padding: 0 1rem }}
:target, :has(> a:target) {{ background: #fc06 }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8884 }}
pre {{ overflow-x: auto; padding: .5rem .8rem; background: #8882 }}
code {{ font: .9em ui-monospace, monospace }}
</style>
<p><a href="/">taskscope</a></p>
{body}</html>
"""


@get("/runbook", tag="Pages", scope="", media="text/html", errors=(404,))
async def runbook(call: Call) -> web.StreamResponse:
    """Show what each alert means, how to see it and what to do."""
    page = await asyncio.to_thread(_page)
    return web.Response(body=page, content_type="text/html", charset="utf-8", headers=HEADERS)


def anchor(heading: str) -> str:
    """The id of a heading: in lower case, words joined by hyphens."""
    return _spelled(heading).lower()


def _spelled(heading: str) -> str:
    """The same in the heading's own letters: a table of alerts can write nothing else into its links."""
    return re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-")


@lru_cache(maxsize=1)  # anybody may ask for it, and it costs some 20 ms
def _page() -> bytes:
    source = shipped("docs/runbook.md")
    if not source.is_file():
        raise ApiError(404, "This taskscope was installed without its runbook.")
    title, body = _rendered(source.read_text("utf-8"))
    return _PAGE.format(title=escape(title), body=body).encode()


def _rendered(text: str) -> tuple[str, str]:
    """The first heading, and the text as HTML."""
    from markdown_it import MarkdownIt  # whoever serves no runbook loads no parser
    from markdown_it.token import Token

    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(text)
    headings = [(token, inside) for token, inside in pairwise(tokens) if token.type == "heading_open"]
    for token, inside in headings:
        token.attrSet("id", anchor(inside.content))
        if (spelled := _spelled(inside.content)) != anchor(inside.content):
            mark = Token("html_inline", "", 0, content=f'<a id="{spelled}"></a>')
            inside.children = [mark, *(inside.children or ())]
    html = parser.renderer.render(tokens, parser.options, {})
    return headings[0][1].content if headings else "Runbook", str(html)
