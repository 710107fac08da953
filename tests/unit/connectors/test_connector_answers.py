"""Answers of vendors: projected, cut, paged, and failures told in words; never with a credential."""
# ruff: noqa: E501 - the tables are read by rows

from typing import Any

import msgspec
import pytest

from qlaud_actors.connectors.answer import Answer, Received, shaped, verdict
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.failure import Failure
from qlaud_actors.connectors.model import Output

CONNECTORS = ConnectorCatalog.load({}).connectors
NOW = 1_800_000_000.0


def received(body: Any, status: int = 200, **headers: str) -> Received:
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return Received(status, {name.replace("_", "-"): value for name, value in headers.items()}, raw, NOW)


def answer(
    name: str, got: Received, arguments: dict[str, Any] | None = None, secrets: tuple[str, ...] = ()
) -> Answer:
    slug, _, action_name = name.partition("/")
    connector = CONNECTORS[slug]
    action = connector.action(action_name)
    assert action is not None
    return shaped(connector, action, arguments or {}, got, secrets)


def failure(name: str, got: Received) -> Failure:
    found = answer(name, got).failure
    assert found is not None
    return found


def test_only_declared_fields_reach_the_model() -> None:
    """Of an issue the model gets what is useful, where it stands, without nulls."""
    issue = {"number": 1, "title": "T", "state": "open", "html_url": "u", "node_id": "x", "user": {"login": "a", "id": 9},
             "labels": [{"name": "bug", "color": "f00"}], "body": None}  # fmt: skip
    assert answer("github/get_issue", received(issue)).output == {
        "number": 1, "title": "T", "state": "open", "html_url": "u", "user": {"login": "a"}, "labels": [{"name": "bug"}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "body", "headers", "arguments", "cursor"),
    [
        ("notion/list_users", {"results": [{"id": "u"}], "has_more": True, "next_cursor": "c2"}, {}, {}, "c2"),
        ("notion/list_users", {"results": [{"id": "u"}], "has_more": False, "next_cursor": "c2"}, {}, {}, None),
        ("slack/list_users", {"ok": True, "members": [{"id": "u"}], "response_metadata": {"next_cursor": ""}}, {}, {}, None),
        ("stripe/list_prices", {"data": [{"id": "a"}, {"id": "b"}], "has_more": True}, {}, {}, "b"),
        ("asana/list_workspaces", {"data": [{"gid": "1"}], "next_page": {"offset": "o"}}, {}, {}, "o"),
        ("asana/list_workspaces", {"data": [{"gid": "1"}], "next_page": None}, {}, {}, None),
        ("linear/list_teams", {"data": {"teams": {"nodes": [{"id": "t"}], "pageInfo": {"hasNextPage": True, "endCursor": "e"}}}}, {}, {}, "e"),
        ("github/list_commits", [{"sha": "s"}], {"link": '<https://api.github.com/x?page=1>; rel="prev", <https://api.github.com/x?page=3>; rel="next"'}, {}, "3"),
        ("sentry/list_projects", [{"id": "s"}], {"link": '<https://sentry.io/x?cursor=0:100:0>; rel="next"; results="true"; cursor="0:100:0"'}, {}, "0:100:0"),
        ("sentry/list_projects", [{"id": "s"}], {"link": '<https://sentry.io/x?cursor=0:100:0>; rel="next"; results="false"; cursor="0:100:0"'}, {}, None),
        ("slack/search_messages", {"ok": True, "messages": {"matches": [{"ts": "1"}] * 20}}, {}, {}, "2"),
        ("slack/search_messages", {"ok": True, "messages": {"matches": [{"ts": "1"}] * 5}}, {}, {"limit": 5, "cursor": "3"}, "4"),
        ("slack/search_messages", {"ok": True, "messages": {"matches": [{"ts": "1"}] * 19}}, {}, {}, None),
        ("clickup/list_tasks", {"tasks": [{"id": "1"}] * 100}, {}, {}, "1"),
    ],
)  # fmt: skip
def test_next_cursors(
    name: str, body: Any, headers: dict[str, str], arguments: dict[str, Any], cursor: str | None
) -> None:
    """Each kind of paging gives the cursor to go on with, and none at the end."""
    assert answer(name, received(body, **headers), arguments).output.get("next_cursor") == cursor


def test_what_does_not_fit_is_said_and_not_jumped_over() -> None:
    """A list that was cut gives no next cursor: it would begin behind what was left out."""
    people = [{"id": str(number), "name": "x" * 900} for number in range(60)]
    got = answer(
        "notion/list_users", received({"results": people, "has_more": True, "next_cursor": "c2"})
    ).output
    assert 20 < len(got["items"]) < 30
    assert "next_cursor" not in got
    assert got["_note"] == f"Only the first {len(got['items'])} of 60 items fit; ask for fewer at once."


def test_long_texts_are_cut_with_a_word_how_to_get_the_rest() -> None:
    """The model knows that something is missing and where it is."""
    got = answer("notion/get_page_markdown", received({"markdown": "x" * 50_000})).output
    assert got["markdown"] == "x" * 20_000 + "… [50000 characters in all]"
    assert got["_note"] == "Long texts were cut. Read single parts with list_block_children."


def test_no_result_is_larger_than_declared() -> None:
    """Whatever a vendor sends, the result keeps to its limit."""
    wide = {"results": {f"k{n}": "y" * 300 for n in range(3000)}}
    deep: dict[str, Any] = {"properties": {}}
    for n in range(2000):
        deep["properties"][f"p{n}"] = {"rich_text": [{"plain_text": "z" * 100}] * 20}
    for body in (wide, deep):
        got = answer("notion/get_page", received(body)).output
        assert len(msgspec.json.encode(got)) < Output().max_chars + 500


def test_empty_and_plain_answers() -> None:
    """No content is `done`; text is text; what should be JSON and is not is shown as text."""
    assert answer("hubspot/link_records", received(b"", 204)).output == {"done": True}
    assert answer("github/get_file", received(b"print(1)\n")).output == {"text": "print(1)\n"}
    assert answer("github/get_issue", received(b"<html>")).output == {"text": "<html>"}


@pytest.mark.parametrize(
    ("name", "got", "kind", "message", "wait"),
    [
        ("github/create_issue", received({"message": "Validation Failed", "errors": [{"message": "title is too long"}]}, 422), "refused", "GitHub refused the call (422): Validation Failed (title is too long)", None),
        ("github/create_issue", received({"message": "Bad credentials"}, 401), "reconnect", "GitHub no longer accepts this connection (401): Bad credentials. Connect again.", None),
        ("github/create_issue", received({"message": "API rate limit exceeded"}, 403, x_ratelimit_remaining="0", x_ratelimit_reset=str(int(NOW) + 90)), "rate_limited", "GitHub was asked too much at once (403): API rate limit exceeded. Try again later.", 90.0),
        ("github/create_issue", received({"message": "Forbidden"}, 403, x_ratelimit_remaining="12"), "refused", "GitHub refused the call (403): Forbidden", None),
        ("slack/post_message", received({"ok": False, "error": "channel_not_found"}), "refused", "Slack refused the call: channel_not_found", None),
        ("slack/post_message", received({"ok": False, "error": "token_revoked"}), "reconnect", "Slack no longer accepts this connection: token_revoked. Connect again.", None),
        ("slack/post_message", received({"ok": False, "error": "ratelimited"}, 429, retry_after="30"), "rate_limited", "Slack was asked too much at once (429): ratelimited. Try again later.", 30.0),
        ("linear/create_issue", received({"errors": [{"message": "Argument Validation Error", "extensions": {"code": "INPUT_ERROR", "userPresentableMessage": "teamId must be a UUID."}}]}), "refused", "Linear refused the call: teamId must be a UUID.", None),
        ("linear/create_issue", received({"errors": [{"message": "Too many", "extensions": {"code": "RATELIMITED"}}]}, 400, x_ratelimit_requests_reset=str(int(NOW * 1000) + 5000)), "rate_limited", "Linear was asked too much at once (400): Too many. Try again later.", 5.0),
        ("salesforce/get_record", received([{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}], 401), "reconnect", "Salesforce no longer accepts this connection (401): Session expired or invalid. Connect again.", None),
        ("stripe/create_refund", received({"error": {"message": "No such charge", "param": "charge", "type": "invalid_request_error"}}, 400), "refused", "Stripe refused the call (400): No such charge (charge)", None),
        ("asana/get_task", received({"errors": [{"message": "Not a task"}]}, 404), "refused", "Asana refused the call (404): Not a task", None),
        ("clickup/get_task", received({"err": "Token invalid", "ECODE": "OAUTH_025"}, 400), "reconnect", "ClickUp no longer accepts this connection (400): Token invalid. Connect again.", None),
        ("notion/get_page", received(b"<html>down</html>", 503, retry_after="nan"), "unavailable", "Notion is not available (503): HTTP 503.", None),
        ("notion/get_page", received(b"", 429, retry_after="Fri, 15 Jan 2027 08:00:30 GMT"), "rate_limited", "Notion was asked too much at once (429): HTTP 429. Try again later.", 30.0),
    ],
)  # fmt: skip
def test_failures_in_the_vendors_words(
    name: str, got: Received, kind: str, message: str, wait: float | None
) -> None:
    """Each vendor's way to fail becomes a kind, a sentence and a time to wait."""
    found = failure(name, got)
    assert (found.kind, found.message, found.retry_after_s) == (kind, message, wait)


def test_a_refused_verification_keeps_the_vendors_words_apart() -> None:
    """Whoever connects is not told to connect again; and what the vendor echoes of the secret is hidden."""
    refusal = received({"message": "Bad credentials: ghp_secret"}, 401)
    found = verdict(CONNECTORS["github"], refusal, ("ghp_secret",))
    assert isinstance(found, Failure)
    assert found.told == "Bad credentials: [hidden]"


def test_partial_graphql_answers_are_failures() -> None:
    """Data beside errors is not taken for success."""
    assert (
        failure("linear/list_teams", received({"data": {"teams": None}, "errors": [{"message": "no"}]})).kind
        == "refused"
    )


def test_no_credential_comes_back() -> None:
    """An echoing vendor's answer is blotted before it is cut, in texts, keys, headers, messages and cursors."""
    secret = "lin_api_0123456789abcdef"
    echo = {
        "markdown": "x" * 19_990 + secret,
        secret: secret,
        "list": [{"Authorization": f"Bearer {secret}"}],
    }
    assert secret[:10] not in str(
        answer("notion/get_page_markdown", received(echo), secrets=(secret,)).output
    )
    refused = answer("github/get_issue", received({"message": f"bad token {secret}"}, 403), secrets=(secret,))
    assert secret not in str(refused)
    body = {"results": [], "has_more": True, "next_cursor": secret}
    assert secret not in str(answer("notion/list_users", received(body), secrets=(secret,)).output)
    who = verdict(CONNECTORS["github"], received({"login": secret, "id": 1}), (secret,))
    assert who == ("[hidden]", "1")


def test_whose_account_it_is() -> None:
    """A verification's answer becomes `connected as …` and an id; what is missing leaves no brackets."""
    viewer = {"data": {"viewer": {"id": "u1", "name": "Ada", "organization": {"name": "Acme"}}}}
    assert verdict(CONNECTORS["linear"], received(viewer)) == ("Ada (Acme)", "u1")
    assert verdict(CONNECTORS["asana"], received({"data": {"gid": "7", "name": "Ada"}})) == ("Ada", "7")
    assert verdict(CONNECTORS["sentry"], received([{"name": "Acme", "id": "9"}])) == ("Acme", "9")
    odd = received([{"name": "Ac\0me\u202e" + "!" * 400, "id": "9\0"}])
    assert verdict(CONNECTORS["sentry"], odd) == ("Ac me " + "!" * 294, "9")
