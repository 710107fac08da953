"""Requests of connectors: what is sent where, and that no argument can leave its place."""

import base64
import string
import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Connector
from qlaud_actors.connectors.request import Access, Request, RequestProblem, address, build, verification
from qlaud_actors.settings import Secret

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from specs.sent import access, sample

CONNECTORS = ConnectorCatalog.load({}).connectors
ACTIONS = [(connector, action) for connector in CONNECTORS.values() for action in connector.actions]
HOSTILE = [
    "..", ".", "a/b", "a?b=c", "a#b", "a&b=c", "\r\nX-Evil: 1", "%2e%2e", "//evil.example", "@evil", "\x00",
    "é", "[x]",
]  # fmt: skip
TEXTS = st.sampled_from(HOSTILE) | st.text(min_size=1, max_size=12)


def call(name: str, arguments: dict[str, Any], **more: Any) -> Request:
    """The request of `vendor/action`."""
    slug, _, action_name = name.partition("/")
    connector = CONNECTORS[slug]
    action = connector.action(action_name)
    assert action is not None
    return build(connector, action, arguments, more.pop("access", access(connector)), **more)


def body(request: Request) -> Any:
    assert request.body is not None
    return msgspec.json.decode(request.body)


def test_inputs_go_into_path_and_body() -> None:
    """What the path names goes there, the rest into the body under its own name."""
    request = call("github/create_issue", {"owner": "octo", "repo": "hello", "title": "T", "labels": ["a"]})
    assert (request.method, request.url) == ("POST", "https://api.github.com/repos/octo/hello/issues")
    assert body(request) == {"title": "T", "labels": ["a"]}
    assert request.headers["Authorization"] == "Bearer sample-secret"
    assert request.headers["X-GitHub-Api-Version"] == "2022-11-28"


def test_a_document_is_sent_with_its_variables() -> None:
    """A GraphQL action posts its document; variables that were left out are not sent as null."""
    request = call("linear/create_issue", {"team_id": "t1", "title": "T"})
    assert request.url == "https://api.linear.app/graphql"
    assert body(request)["variables"] == {"input": {"teamId": "t1", "title": "T"}}
    assert body(request)["query"].strip().startswith("mutation")


def test_forms_spell_tables_and_lists_as_the_vendor_does() -> None:
    """Stripe's bodies are forms with brackets, and carry the call's idempotency key."""
    request = call(
        "stripe/create_payment_link", {"price": "p", "metadata": {"a b": "c&d"}}, idempotency_key="call_1"
    )
    form = dict(parse_qsl((request.body or b"").decode()))
    assert form == {"line_items[0][price]": "p", "line_items[0][quantity]": "1", "metadata[a b]": "c&d"}
    assert request.headers["Idempotency-Key"] == "call_1"
    assert "Idempotency-Key" not in call("stripe/get_balance", {}, idempotency_key="call_1").headers


def test_a_key_cannot_name_another_table() -> None:
    """Brackets in a key of the model's would reach beside the table that the file names."""
    request = call("stripe/create_customer", {"metadata": {"a][source": "x", "b]=1&email": "y"}})
    names = [name for name, _ in parse_qsl((request.body or b"").decode())]
    assert all(name.startswith("metadata[") and name.count("[") == 1 for name in names)


def test_a_table_of_the_model_does_not_replace_what_is_named() -> None:
    """`...` takes in more properties; those with inputs of their own stay."""
    more = {"email": "eve@example.com", "city": "Paris"}
    arguments = {"email": "ada@example.com", "other_properties": more}
    assert body(call("hubspot/create_contact", arguments)) == {
        "properties": {"email": "ada@example.com", "city": "Paris"}
    }


def test_constants_beside_absent_values_are_left_out() -> None:
    """A filter's constant part is not sent alone."""
    assert body(call("notion/search", {})) == {"page_size": 20}
    assert body(call("notion/search", {"kind": "page"}))["filter"] == {"value": "page", "property": "object"}


def test_segments_keep_slashes_and_nothing_else() -> None:
    """A file's path has several segments, each escaped; dots that climb are refused."""
    request = call("github/get_file", {"owner": "o", "repo": "r", "path": "src/a b?.py"})
    assert request.url == "https://api.github.com/repos/o/r/contents/src/a%20b%3F.py"
    for path in ("../../user", "src/../../x", "a//b", "./x", ""):
        with pytest.raises(RequestProblem, match="`path` must not"):
            call("github/get_file", {"owner": "o", "repo": "r", "path": path})


def test_unknown_inputs_and_foreign_cursors_are_refused() -> None:
    """What the schema does not have is not sent, and a page number is a number."""
    with pytest.raises(RequestProblem, match="no input `evil`"):
        call("github/list_my_repositories", {"evil": 1})
    with pytest.raises(RequestProblem, match="next_cursor"):
        call("slack/search_messages", {"query": "x", "cursor": "1&x=y"})


@pytest.mark.parametrize(
    "instance",
    ["https://evil.example", "https://evil.example/x.salesforce.com", "https://x.salesforce.com.evil.example",
     "https://x.salesforce.com@evil.example", "https://evil.example#.salesforce.com", "127.0.0.1",
     "salesforce.com", "https://x.salesforce.com:8443", "https://[::1]",
     "https://x.salesforce.com\\.evil.example", ""],
)  # fmt: skip
def test_a_connection_cannot_point_elsewhere(instance: str) -> None:
    """The filled host must be one of the vendor's, or the credential does not leave."""
    connector = CONNECTORS["salesforce"]
    other = Access(connector.auth[1], {"instance_url": instance}, {"token": Secret("s3cret-token")})
    with pytest.raises(RequestProblem, match="address") as caught:
        call("salesforce/query", {"q": "SELECT Id FROM Account"}, access=other)
    assert "s3cret" not in str(caught.value)


def test_an_override_keeps_the_vendors_path() -> None:
    """Another address stands for the host; one that already ends in the vendor's path is not doubled."""
    for other, expected in (
        ("http://127.0.0.1:9", "http://127.0.0.1:9/api/chat.delete"),
        ("http://127.0.0.1:9/api", "http://127.0.0.1:9/api/chat.delete"),
        ("http://proxy/slack/", "http://proxy/slack/api/chat.delete"),
    ):
        assert call("slack/delete_message", {"channel": "C", "ts": "1"}, override=other).url == expected


def test_basic_credentials_and_their_spellings() -> None:
    """Basic auth is user and password in base64; every spelling of a secret counts as secret."""
    auth = msgspec.structs.replace(
        CONNECTORS["slack"].auth[0], scheme="basic", headers={}, username="{email}/token", password="{token}"
    )
    basic = Access(auth, {"email": "a@b.c"}, {"token": Secret("p&ssword")})
    request = call("slack/list_users", {}, access=basic)
    pair = base64.b64encode(b"a@b.c/token:p&ssword").decode()
    assert request.headers["Authorization"] == f"Basic {pair}"
    assert set(basic.spelled()) == {"p&ssword", pair, "p%26ssword"}
    assert "p&ssword" not in repr(request) + repr(basic)


def test_a_credential_that_cannot_be_a_header_is_refused_without_showing_it() -> None:
    """A line break in a token would be a header of its own."""
    broken = Access(CONNECTORS["slack"].auth[0], {}, {"token": Secret("xoxb-1\r\nX-Evil: 1")})
    with pytest.raises(RequestProblem, match="printable") as caught:
        call("slack/list_users", {}, access=broken)
    assert "xoxb" not in str(caught.value)


def test_what_no_wire_can_carry_is_refused() -> None:
    """Half of a surrogate pair, which JSON can spell, and an address that is none in an e-mail."""
    with pytest.raises(RequestProblem, match="cannot be sent"):
        call("slack/list_users", {"cursor": "\ud800"})
    slack = CONNECTORS["slack"]
    mail = msgspec.structs.replace(slack.actions[-1], body={"raw": "{*:rfc822}"})
    for to in ("a@b.c\r\nBcc: x@y.z", "<", "\x00", "a@", "@[", "=?utf-8?q?=0A?="):
        try:
            request = build(slack, mail, {"channel": "C", "topic": "t"}, Access(slack.auth[0], {"to": to}))
        except RequestProblem:
            continue
        raw = base64.urlsafe_b64decode(body(request)["raw"]).decode()
        assert "\nBcc:" not in raw


def test_too_large_arguments_are_refused() -> None:
    """An address and a body have a limit."""
    with pytest.raises(RequestProblem, match="too long"):
        call("slack/list_users", {"cursor": "x" * 9000})
    with pytest.raises(RequestProblem, match="larger than"):
        call("slack/post_message", {"channel": "C", "text": "x" * 2_000_000})


@pytest.mark.parametrize("slug", sorted(CONNECTORS))
def test_every_verification_can_be_built(slug: str) -> None:
    """For each way of signing in, at the vendor and at an override, with the credential aboard."""
    connector = CONNECTORS[slug]
    for auth in connector.auth:
        signed = access(connector, auth)
        request = verification(connector, signed, "http://127.0.0.1:9")
        assert request.url.startswith("http://127.0.0.1:9/")
        assert verification(connector, signed).url.startswith("https://")
        carried = [*request.headers.values(), request.url]
        assert any("sample-secret" in value or value.startswith("Basic ") for value in carried)


def hostile(schema: dict[str, Any], text: str) -> Any:
    """A value of the schema's kind, made of hostile text."""
    if schema.get("type") == "array":
        return [hostile(schema.get("items", {}), text)]
    if schema.get("type") == "object" and not schema.get("properties"):
        return {text: text}
    kind = schema.get("type")
    return text if kind == "string" or kind is None or isinstance(kind, list) else sample(schema)


def shape(request: Request) -> tuple[Any, ...]:
    """What no argument may change: method, host, number of segments, names of parameters and headers."""
    parts = urlsplit(request.url)
    names = sorted(name.split("[")[0] for name, _ in parse_qsl(parts.query, keep_blank_values=True))
    return request.method, parts.netloc, parts.path.count("/"), names, sorted(request.headers), parts.fragment


def built(connector: Connector, action: Action, arguments: dict[str, Any]) -> Request:
    return build(connector, action, arguments, access(connector), idempotency_key="call_1")


@pytest.mark.parametrize("slug", sorted(CONNECTORS))
@settings(max_examples=12, deadline=None)
@given(text=TEXTS)
def test_no_argument_leaves_its_place(slug: str, text: str) -> None:
    """Whatever a text is, the request has the shape that harmless words give it, or is refused."""
    connector = CONNECTORS[slug]
    for action in connector.actions:
        if "segments" in (action.request or ""):
            continue
        properties = input_schema(connector, action)["properties"]
        calm = {name: hostile(prop, "calm") for name, prop in properties.items()}
        wild = {name: hostile(prop, text) for name, prop in properties.items()}
        for arguments in (calm, wild):
            arguments.pop("cursor", None)
        try:
            request = built(connector, action, wild)
        except RequestProblem:
            continue
        assert shape(request) == shape(built(connector, action, calm))
        assert all(char in string.printable and char not in " \r\n" for char in request.url)
        segments = [unquote(part) for part in urlsplit(request.url).path.split("/")[1:]]
        assert not {".", ".."} & set(segments)


@given(value=st.text(max_size=30) | st.sampled_from(["a.b", "evil.example/", "x@y", "a:1", "::1", "%00"]))
def test_no_setting_leaves_the_vendors_hosts(value: str) -> None:
    """Whatever a connection's field holds, the address is below the vendor's domain or refused."""
    try:
        url = address("https://{name}.vendor.example/api", ("*.vendor.example",), {"name": value})
    except RequestProblem:
        return
    assert (urlsplit(url).hostname or "").endswith(".vendor.example")
    assert urlsplit(url).path == "/api"
