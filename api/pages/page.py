"""The frame of every page, and the headers that go with it."""

import base64
import hashlib
from functools import cache
from importlib.resources import files

from aiohttp import web

from api.pages.html import Html, joined, tag


@cache
def _style() -> str:
    return files("api.pages").joinpath("connect.css").read_text("utf-8")


@cache
def _headers() -> dict[str, str]:
    """No script, no other site, no frame, no memory, nothing told to whom a link leads to."""
    digest = base64.b64encode(hashlib.sha256(_style().encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "cache-control": "no-store",
        "content-security-policy": policy,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-resource-policy": "same-origin",
        "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
        "x-robots-tag": "noindex, nofollow",
    }


def page(title: str, *body: Html, status: int = 200, go_to: str | None = None) -> web.Response:
    """A page of one card. `go_to` is where the browser goes on to by itself."""
    head = joined(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="refresh", content=f"0; url={go_to}") if go_to else None,
        tag("title", title),
        tag("style", Html(_style())),
    )
    main = tag("main", *body)
    document = tag("html", tag("head", head), tag("body", main), lang="en")
    return web.Response(
        text=f"<!doctype html>\n{document}\n",
        status=status,
        content_type="text/html",
        charset="utf-8",
        headers=_headers(),
    )


def message_page(title: str, *words: str, status: int) -> web.Response:
    """A page that says why there is nothing to do on it."""
    card = tag(
        "div",
        tag("h1", title),
        tag("div", *(tag("p", sentence) for sentence in words), class_="note", role="alert"),
        class_="card",
    )
    return page(title, card, status=status)
