"""The servers that stand in for vendors: as strict as the specifications, and in the vendors' own shapes."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import msgspec
import pytest
from fakes.vendors import github
from fakes.vendors.conversations import CONVERSATIONS, Conversation
from fakes.vendors.server import served

from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.failure import failure_of
from qlaud_actors.connectors.request import Access, Request, build, verification
from qlaud_actors.settings import Secret

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import extract_specs  # noqa: E402

CATALOG = ConnectorCatalog.load({})
VENDORS = pytest.mark.parametrize("talk", CONVERSATIONS.values(), ids=list(CONVERSATIONS))


def access(talk: Conversation, credential: str | None = None) -> Access:
    """A connection with the first way of signing in."""
    auth = CATALOG.connectors[talk.slug].auth[0]
    return Access(auth, {}, {auth.fields[0].name: Secret(credential or talk.credential)})


async def sent(session: aiohttp.ClientSession, request: Request) -> tuple[int, dict[str, str], Any]:
    """Status, headers and JSON."""
    async with session.request(
        request.method, request.url, headers=request.headers, data=request.body
    ) as response:
        lowered = {name.lower(): value for name, value in response.headers.items()}
        return response.status, lowered, await response.json()


@VENDORS
async def test_what_the_connector_sends_is_taken(talk: Conversation) -> None:
    """The verification says whose it is; the action makes one thing; nothing is amiss on either side."""
    connector = CATALOG.connectors[talk.slug]
    async with aiohttp.ClientSession() as session, served(talk.double()) as double:
        proved = await sent(session, verification(connector, access(talk), double.url))
        assert failure_of(connector, *proved, 0.0) is None
        action = connector.action(talk.action)
        assert action is not None
        key = "call_1"
        built = build(
            connector, action, talk.arguments, access(talk), idempotency_key=key, override=double.url
        )
        made = await sent(session, built)
        assert failure_of(connector, *made, 0.0) is None
        assert talk.made_id in msgspec.json.encode(made[2]).decode()
        assert len(double.made) == 1
        assert double.mistakes == []
        assert {call.credential for call in double.calls} == {talk.credential}


@VENDORS
async def test_a_wrong_credential_is_refused_as_the_vendor_does(talk: Conversation) -> None:
    """The connector reads the refusal as a dead credential, and nothing was made."""
    connector = CATALOG.connectors[talk.slug]
    async with aiohttp.ClientSession() as session, served(talk.double()) as double:
        refused = await sent(session, verification(connector, access(talk, "wrong-credential"), double.url))
        failure = failure_of(connector, *refused, 0.0)
        assert failure is not None
        assert failure.kind == "reconnect"
        double.revoked = True
        refused = await sent(session, verification(connector, access(talk), double.url))
        assert failure_of(connector, *refused, 0.0) is not None
        assert (double.made, double.mistakes) == ([], [])


@pytest.mark.parametrize(
    ("slug", "method", "path", "body"),
    [
        ("linear", "POST", "/graphql", {"query": "{ viewer { handle } }"}),
        ("linear", "POST", "/graphql", {"query": "query ($id: String!) { issue(id: $id) { id } }"}),
        ("linear", "POST", "/graphql", {"query": "{"}),
        ("linear", "GET", "/graphql", None),
        ("github", "POST", "/repos/acme/website/issues", {"body": "no title"}),
        ("github", "POST", "/repos/acme/website/issues", {"title": "t", "titel": "t"}),
        ("github", "POST", "/repos/acme/website/issues", {"title": "t", "labels": "bug"}),
        ("github", "GET", "/repos/acme/website/issues?state=al", None),
        ("github", "GET", "/repos/acme/website/issues?per_page=many", None),
        ("github", "PUT", "/user", None),
        ("notion", "POST", "/v1/pages", {"properties": {}}),
        ("notion", "POST", "/v1/pages", {"parent": {"page_id": "home"}, "properties": {}}),
        ("notion", "POST", "/v1/search", {"filter": {"value": "database", "property": "object"}}),
        ("slack", "POST", "/api/chat.postMessage", {"text": "no channel"}),
        ("slack", "POST", "/api/chat.postMessage", {"channel": "C1", "text": "t", "thread": "1"}),
        ("slack", "POST", "/api/chat.post", {}),
        ("stripe", "POST", "/v1/customers", {"email": "ada@acme.test"}),  # JSON, where a form is wanted
        ("stripe", "GET", "/v1/customers?mail=ada@acme.test", None),
        ("stripe", "GET", "/v1/customers?limit=many", None),
    ],
)
async def test_what_the_specification_does_not_allow_is_refused(
    slug: str, method: str, path: str, body: Any
) -> None:
    """A wrong path, parameter, field, type or choice is an error, is noted, and makes nothing."""
    talk = CONVERSATIONS[slug]
    headers = {"Authorization": talk.authorization, "Notion-Version": "2025-09-03"}
    async with aiohttp.ClientSession() as session, served(talk.double()) as double:
        async with session.request(method, double.url + path, json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status >= 400 or answer["ok"] is False
        assert len(double.mistakes) >= 1
        assert double.made == []


async def test_stripe_repeats_its_answer_to_a_key() -> None:
    """The same key and form make one customer; another form with that key is refused."""
    talk = CONVERSATIONS["stripe"]
    headers = {"Authorization": talk.authorization, "Idempotency-Key": "call_1"}
    async with aiohttp.ClientSession() as session, served(talk.double()) as double:
        ids = []
        for name, status in (("Ada", 200), ("Ada", 200), ("Eve", 400)):
            url = f"{double.url}/v1/customers"
            async with session.post(url, data={"name": name}, headers=headers) as response:
                assert response.status == status
                ids.append((await response.json()).get("id"))
        assert ids[0] == ids[1]
        assert len(double.made) == 1


@pytest.mark.parametrize("accept", ["application/json", "*/*"])
async def test_githubs_code_is_exchanged_once(accept: str) -> None:
    """The page asks, the code comes back with the state, its verifier is checked, and it works once."""
    double = github.GitHub("gho_canary")
    app = double.oauth
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"  # RFC 7636, appendix B
    asked = {
        "client_id": app.client_id,
        "redirect_uri": "http://127.0.0.1:1/back",
        "state": "s1",
        "code_challenge": challenge,
    }
    form = {"client_id": app.client_id, "client_secret": app.client_secret}
    async with aiohttp.ClientSession(headers={"Accept": accept}) as session, served(double):
        page = f"{double.url}/login/oauth/authorize"

        async def exchanged(proof: str) -> dict[str, str]:
            async with session.post(page, params=asked, allow_redirects=False) as agreed:
                back = dict(parse_qsl(urlsplit(agreed.headers["Location"]).query))
            assert back["state"] == "s1"
            redirect = {"redirect_uri": asked["redirect_uri"]}
            sent = {**form, **redirect, "code": back["code"], "code_verifier": proof}
            async with session.post(f"{double.url}/login/oauth/access_token", data=sent) as response:
                text = await response.text()
                return msgspec.json.decode(text) if accept == "application/json" else dict(parse_qsl(text))

        async with session.get(page, params=asked) as shown:
            assert "<button" in await shown.text()
        assert (await exchanged("wrong"))["error"] == "bad_verification_code"
        assert (await exchanged(verifier))["access_token"] == "gho_canary"
    assert app.codes == {}


def test_the_operations_are_what_the_specifications_say() -> None:
    """Where the specifications are at hand, extracting again gives the same; a clone has the extract."""
    if extract_specs.SPECS.is_dir():
        found = extract_specs.for_doubles(extract_specs.Specs(extract_specs.SPECS))
        assert extract_specs.spelled(found) == extract_specs.DOUBLES.read_text("utf-8")
    assert extract_specs.DOUBLES.stat().st_size < 200_000
