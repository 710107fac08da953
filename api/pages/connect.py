"""The connect page: what it is for and whose, the fields of each way of signing in, and how it went."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from api.pages.html import Html, joined, tag
from api.pages.page import page
from qlaud_actors.connectors.catalog_files import fields_of
from qlaud_actors.connectors.connection import MAX_VALUE, ConnectRefused
from qlaud_actors.connectors.model import Auth, Connector, Field

# Patterns are Python's. Browsers read them as JavaScript with the flag `v`, in which these are the same.
PORTABLE = re.compile(r"[A-Za-z0-9_.@|(){}\[\]+*?:,/=\\^-]*")
NO_WAY = -1
FORM, WAY = "_form", "_way"
"""Names of our own fields; no connector's begins with `_`."""

RESERVED = re.compile(r"[\\/(){}|]")
"""Within brackets."""
LAST_HYPHEN = re.compile(r"(?<!\\)-\]")


@dataclass(frozen=True, slots=True)
class Form:
    """What a page is drawn from: the connector, its ways, for whom, and what came of the last attempt."""

    connector: Connector
    ways: Mapping[int, Auth]
    app: str
    end_user_id: str | None
    action: str
    token: str
    """Proves that the form that is sent was drawn for the browser that sends it."""
    way: int = NO_WAY
    """The way that was tried."""
    given: Mapping[str, str] = field(default_factory=dict)
    """What was given there; secrets among it are not shown again."""
    refused: ConnectRefused | None = None


def form_page(form: Form) -> web.Response:
    """The page with its forms. After a refusal it is 422, with the words where they belong."""
    name = form.connector.name
    title = f"Connect {name} to {form.app}"
    card = tag(
        "div",
        _badges(name, form.app),
        tag("h1", title),
        tag("p", form.connector.description, class_="soft"),
        _whom(form.app, form.end_user_id),
        _refusal(form),
        _abilities(form.connector, form.app),
        *_ways(form),
        class_="card",
    )
    shown = f"Not connected: {title}" if form.refused else title
    return page(shown, card, _promise(name, form.app), status=422 if form.refused else 200)


def success_page(connector: Connector, app: str, connected_as: str) -> web.Response:
    """It is connected, and as whom."""
    as_whom = joined("Connected as ", tag("strong", connected_as), ".") if connected_as else "Connected."
    card = tag(
        "div",
        _badges(connector.name, app, good=True),
        tag("h1", f"{connector.name} is connected to {app}"),
        tag("div", tag("p", as_whom), class_="note good", role="status"),
        tag("p", f"You can close this page and go back to {app}. You can disconnect there at any time."),
        class_="card",
    )
    return page(f"{connector.name} is connected", card)


def leaving_page(connector: Connector, url: str) -> web.Response:
    """On to the vendor. A redirect would be the answer to a form, and browsers hold the whole chain of
    redirects at the vendor to our `form-action`; so the page goes on by itself, and has a link.
    """
    words = f"You are being taken to {connector.name} to sign in."
    card = tag(
        "div",
        tag("h1", f"On to {connector.name}"),
        tag("p", words),
        tag("a", f"Continue to {connector.name}", href=url, rel="noreferrer", class_="button"),
        class_="card",
    )
    return page(f"On to {connector.name}", card, go_to=url)


def _badges(vendor: str, app: str, *, good: bool = False) -> Html:
    left, right = (tag("span", text[:1].upper(), class_="badge") for text in (vendor, app))
    middle = tag("span", "✓", class_="badge good") if good else tag("span", "→")
    return tag("div", left, middle, right, class_="pair", aria_hidden="true")


def _whom(app: str, end_user_id: str | None) -> Html:
    rows = [tag("dt", "App"), tag("dd", app)]
    if end_user_id is None:
        rows += [tag("dt", "For"), tag("dd", "everybody who uses this app")]
    else:
        rows += [tag("dt", "User"), tag("dd", end_user_id)]
    warning = "Continue only if you asked for this yourself, in this app and as this user."
    return joined(tag("dl", *rows, class_="whom"), tag("p", warning))


def _refusal(form: Form) -> Html | None:
    """What is wrong, on top, with the way to the field that is at fault."""
    if form.refused is None:
        return None
    words: str = form.refused.words
    for one in fields_of(form.connector, form.ways[form.way]) if form.way in form.ways else ():
        if one.name == form.refused.field:
            words = joined(tag("a", one.label, href=f"#{_id(form.way, one)}"), ": ", words)
    said = tag("strong", f"{form.connector.name} is not connected.")
    return tag("div", tag("p", said), tag("p", words), class_="note", role="alert")


def _abilities(connector: Connector, app: str) -> Html:
    if not connector.actions:
        words = f"{app} will be able to use the tools of this server, as far as you may yourself."
        return tag("p", words)
    reads = [action.title for action in connector.actions if action.effect == "read"]
    changes = [action.title for action in connector.actions if action.effect != "read"]
    what = " and ".join(
        text for text, titles in (("read", reads), ("create or change things", changes)) if titles
    )
    lists = [
        joined(tag("h3", heading), tag("ul", *(tag("li", title) for title in titles)))
        for heading, titles in (("Read", reads), ("Create or change", changes))
        if titles
    ]
    return joined(
        tag("p", f"{app} will be able to {what} in {connector.name}, as far as you may yourself."),
        tag("details", tag("summary", "What exactly"), *lists),
    )


def _ways(form: Form) -> list[Html]:
    """The way that was tried, else the first one, open; the others folded."""
    if not form.ways:
        words = f"Connecting {form.connector.name} is not set up on this server. Ask whoever runs it."
        return [tag("div", tag("p", words), class_="note way")]
    first = form.way if form.way in form.ways else next(iter(form.ways))
    others = [number for number in form.ways if number != first]
    # One that has a single field is named by that field, and one without any by its button.
    labels = [one.label for one in fields_of(form.connector, form.ways[first])]
    named = form.ways[first].oauth2 is not None or labels == [form.ways[first].label]
    heading = tag("h2", form.ways[first].label, class_="hidden" if named else None)
    return [
        tag("section", heading, _way(form, first), class_="way"),
        *(
            tag("details", tag("summary", f"Another way: {form.ways[number].label}"), _way(form, number))
            for number in others
        ),
    ]


def _way(form: Form, number: int) -> Html:
    auth = form.ways[number]
    fields = [_field(form, number, one) for one in fields_of(form.connector, auth)]
    label = auth.label if auth.oauth2 else f"Check and connect {form.connector.name}"
    return tag(
        "form",
        tag("input", type="hidden", name=FORM, value=form.token),
        tag("input", type="hidden", name=WAY, value=str(number)),
        *fields,
        tag("button", label, type="submit"),
        method="post",
        action=form.action,
        autocomplete="off",
    )


def _field(form: Form, number: int, one: Field) -> Html:
    name = _id(number, one)
    refused = form.refused if form.way == number else None
    wrong = refused.words if refused and refused.field == one.name else None
    given = form.given.get(one.name) if form.way == number else None
    described = f"{name}-help {name}-wrong" if wrong else f"{name}-help"
    return tag(
        "div",
        tag("label", one.label, tag("span", " (optional)") if one.optional else None, for_=name),
        tag("p", *_help(one), class_="help", id=f"{name}-help"),
        tag(
            "input",
            type="password" if one.secret else "text",
            id=name,
            name=one.name,
            value=None if one.secret else given or one.default,
            required=not one.optional,
            maxlength=str(MAX_VALUE),
            pattern=browser_pattern(one.pattern),
            title=f"As in {one.example}" if one.example else None,
            autocomplete="off",
            autocapitalize="none",
            spellcheck="false",
            aria_describedby=described,
            aria_invalid="true" if wrong else None,
        ),
        tag("p", wrong, class_="wrong", id=f"{name}-wrong") if wrong else None,
        class_="field",
    )


def _id(number: int, one: Field) -> str:
    return f"way{number}-{one.name}"


def _help(one: Field) -> Iterable[str]:
    yield one.help
    if one.example:
        yield joined(" Example: ", tag("code", one.example), ".")
    if one.help_url:
        new_tab = tag("span", " (opens in a new tab)", class_="hidden")
        link = tag(
            "a", "Where to find it", new_tab, href=one.help_url, target="_blank", rel="noopener noreferrer"
        )
        yield joined(" ", link)


def browser_pattern(pattern: str | None) -> str | None:
    """The pattern for a browser, spaces around the value allowed; None when it may read it otherwise."""
    if pattern is None or not PORTABLE.fullmatch(pattern) or "(?" in pattern:
        return None
    if any(RESERVED.search(inner) for inner in re.findall(r"\[([^\]]*)\]", pattern)):
        return None
    portable = LAST_HYPHEN.sub(r"\\-]", pattern)
    return rf"\s*(?:{portable})\s*"


def _promise(vendor: str, app: str) -> Html:
    words = (
        f"What you enter goes to this server only. It is checked with {vendor}, then kept encrypted. "
        f"{app} and its AI model use it, but are never shown it. This page works for ten minutes, once."
    )
    return tag("footer", tag("p", words))
