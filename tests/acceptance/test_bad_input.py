"""Bad input gets the specified 4xx and changes no row: one table over all routes, on real processes."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from cluster import MODEL, Api, Cluster, running_cluster, script

from api.routes import ROUTES
from qlaud_actors.connectors import links
from qlaud_actors.connectors.connection import Owner
from qlaud_actors.db.pool import Pool
from qlaud_actors.ids import new_uuid
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.lifecycle import NewKey
from qlaud_actors.keys.model import BOOTSTRAP_ACCOUNT

MAX_BODY = 20 * 1024
NOTHING_TO_SEND = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/metrics"),
    ("GET", "/v1/account"),
    ("GET", "/v1/keys"),
    ("GET", "/v1/tools"),
    ("GET", "/v1/builtins"),
    ("GET", "/v1/mcp-catalog"),
    ("DELETE", "/v1/threads/empty"),
    ("GET", "/v1/catalog"),
    ("GET", "/v1/models"),
    ("GET", "/v1/webhooks"),
    ("GET", "/v1/mcp-servers"),
    ("GET", "/v1/billing/balance"),
    ("GET", "/v1/billing/topups/done"),
}

THREADS, THREAD = "/v1/threads", "/v1/threads/{thread_id}"
BRANCHES, COPY = THREAD + "/branches", THREAD + "/copy"
IMPORT = "/v1/threads/import"
THREAD_EXPORT, USER_EXPORT = THREAD + "/export", "/v1/end-users/{end_user_id}/export"
RETENTION, THREAD_RETENTION = "/v1/retention", THREAD + "/retention"
USER, DELETION = "/v1/end-users/{end_user_id}", "/v1/deletions/{deletion_id}"
SEND, RESULT = f"{THREAD}/messages", f"{THREAD}/tool-results/{{tool_use_id}}"
APPROVALS, APPROVE = f"{THREAD}/approvals", f"{THREAD}/approvals/{{tool_use_id}}"
TURN, CANCEL, STREAM = (f"{THREAD}/turns/{{turn_id}}{end}" for end in ("", "/cancel", "/stream"))
KEYS, KEY, KEY_USAGE = "/v1/keys", "/v1/keys/{key_id}", "/v1/keys/{key_id}/usage"
TOOLS, TOOL = "/v1/tools", "/v1/tools/{tool_id}"
SEARCH, SCHEMAS, EXECUTE = "/v1/tools/search", "/v1/tools/schemas", "/v1/tools/execute"
HOOKS, HOOK = "/v1/webhooks", "/v1/webhooks/{webhook_id}"
SERVERS, SERVER = "/v1/mcp-servers", "/v1/mcp-servers/{server_id}"
CONNECT, CALLBACK = "/connect/{token}", "/connect/oauth/callback"
DELIVERIES, REDELIVER = f"{HOOK}/deliveries", f"{HOOK}/deliveries/{{delivery_id}}/redeliver"
MESSAGES_FOUND, FOUND = "/v1/search", f"{THREAD}/search"
JOBS, JOB = "/v1/jobs", "/v1/jobs/{job_id}"
CONNECTIONS, USAGE, EXPORT = "/v1/connections", "/v1/usage", "/v1/usage/export"
HOSTED_TOOLS = (
    *("web_search", "web_search_preview", "file_search", "code_interpreter", "computer", "mcp"),
    *("computer_use_preview", "image_generation", "shell", "tool_search", "programmatic_tool_calling"),
)


class Row(NamedTuple):
    """A request: what is left out is right. `ids` replaces the right ids of the path by others."""

    status: int
    method: str
    route: str
    body: Any = None
    query: str = ""
    ids: dict[str, str] = {}  # noqa: RUF012 - never changed
    key: str = "admin"
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed
    at: str = ""
    """The path, where that is not the route with its ids."""


def message(**fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "max_tokens": 64, "content": "hello", **fields}


def tool(**fields: Any) -> dict[str, Any]:
    right = {
        "name": "fresh",
        "description": "d",
        "input_schema": {"type": "object"},
        "webhook_url": "https://hooks.example/x",
    }
    return {**right, **fields}


def builtin(provider: str, config: Any = None, **fields: Any) -> dict[str, Any]:
    """A built-in; without `config` when it is None."""
    right = {"name": "fresh", "provider": f"qlaud-builtin/{provider}"}
    return {**right, **({} if config is None else {"config": config}), **fields}


def malformed() -> list[Row]:
    """What is no JSON, no object, too deep or too long, on every route that takes a body."""
    deep = b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}"
    bodies = [(400, raw) for raw in (b"{", b'"text"', b"[]", b'{"a":"\xff"}', deep, b'{"a":1}x')]
    bodies.append((413, b'{"a":"' + b"x" * MAX_BODY + b'"}'))
    takers = [
        ("POST", route)
        for route in (
            *(THREADS, SEND, RESULT, KEYS, TOOLS, SEARCH, SCHEMAS, EXECUTE, CONNECTIONS, HOOKS, JOBS),
            *(SERVERS, "/mcp", APPROVE),
        )
    ] + [("PATCH", THREAD), ("PATCH", KEY), ("PUT", RETENTION), ("PUT", THREAD_RETENTION)]
    return [Row(status, method, route, raw) for method, route in takers for status, raw in bodies]


def turns() -> list[Row]:
    """Sending messages, and what belongs to turns."""
    bad: list[dict[str, Any]] = [
        {"model": ""},
        {"model": 5},
        {"max_tokens": 0},
        {"max_tokens": "64"},
        {"max_tokens": 1.5},
        {"content": None},
        {"content": ""},
        {"content": []},
        {"content": [{"type": "tool_result", "tool_use_id": "x", "content": "y"}]},
        {"content": [{"type": "text", "text": 5}]},
        {"stream": "yes"},
        {"system": 5},
        {"tools": "x"},
        {"tools": ["x"], "tools_mode": "dynamic"},
        {"tools_mode": "all"},
        {"client_tools": [{"name": "a b", "input_schema": {}}]},
        {"client_tools": [{"name": "a", "input_schema": {"type": "object"}}] * 2},
        {"client_tools": [{"name": "a", "input_schema": {"type": "nonsense"}}]},
        {"client_tools": [{"name": "a", "input_schema": {"type": "object", "$ref": "https://x.example"}}]},
        {"thinking": {"budget_tokens": 64}},
        {"temperature": 3},
        {"qlaud_runtime": {"max_iterations": "8"}},
        {"qlaud_runtime": {"approval": "sometimes"}},
        {"qlaud_runtime": {"approval": True}},
        *({"qlaud_runtime": {"approval_timeout_s": seconds}} for seconds in (0, -1, "60", 1e9, 604_801)),
        {"models": "x"},
        {"models": [MODEL] * 9},
        {"models": [""]},
        {"max_turn_usd": "1"},
        {"max_turn_usd": -1},
    ]
    return [
        *(Row(400, "POST", SEND, message(**fields)) for fields in bad),
        *(Row(400, "POST", SEND, message(stream=True, **fields)) for fields in bad[:3]),
        Row(404, "POST", SEND, message(model="no-such-model")),
        Row(404, "POST", SEND, message(model="no-such-model", stream=True)),
        Row(404, "POST", SEND, message(model="\x00")),
        Row(404, "POST", SEND, message(models=["no-such-model"])),
        Row(402, "POST", SEND, message(max_turn_usd=0)),
        Row(404, "POST", SEND, message(tools=["tool_" + "0" * 32])),
        Row(404, "POST", SEND, message(tools=["{foreign_tool}"])),
        Row(404, "POST", SEND, message(tools=["\x00"])),
        Row(400, "POST", SEND, message(), headers={"idempotency-key": "x" * 256}),
        Row(400, "POST", SEND, message(), headers={"idempotency-key": ""}),
        Row(402, "POST", SEND, message(), key="broke", ids={"thread_id": "{broke_thread}"}),
        *(
            Row(404, "POST", SEND, message(), ids={"thread_id": other})
            for other in ("{foreign}", "{none}", "x")
        ),
        Row(404, "POST", SEND, message(), key="user", ids={"thread_id": "{admins}"}),
        *(Row(404, "POST", RESULT, {"output": 1}, ids={"tool_use_id": i}) for i in ("x", "%00", "x" * 600)),
        Row(404, "POST", RESULT, {"output": 1}, ids={"thread_id": "{foreign}"}),
        Row(400, "POST", RESULT, {"output": 1, "is_error": "no"}),
        *approvals(),
        *(
            Row(404, method, route, ids=ids)
            for method, route in (("GET", TURN), ("GET", STREAM), ("POST", CANCEL))
            for ids in (
                {"thread_id": "{foreign}"},
                {"turn_id": "{none}"},
                {"turn_id": "x"},
                {"thread_id": "{admins}"},
            )
        ),
        *(
            Row(400, "GET", STREAM, query=f"?after={after}")
            for after in ("x", "-1", "1.5", "9" * 30, "%D9%A3")
        ),
        Row(400, "GET", STREAM, headers={"last-event-id": "x"}),
    ]


def approvals() -> list[Row]:
    """A person's word on calls that wait for it; here none does."""
    yes = {"approve": True}
    bad: list[Any] = [{}, {"approve": "yes"}, {"approve": None}]
    bad += [{**yes, "reason": reason} for reason in (5, "\x00", "x" * 2001)]
    return [
        *(Row(400, "POST", APPROVE, body) for body in bad),
        *(Row(404, "POST", APPROVE, yes, ids={"tool_use_id": i}) for i in ("x", "%00", "x" * 600)),
        *(
            Row(404, method, route, body, ids={"thread_id": other})
            for method, route, body in (("GET", APPROVALS, None), ("POST", APPROVE, yes))
            for other in ("{foreign}", "{none}", "x")
        ),
        Row(404, "GET", APPROVALS, ids={"thread_id": "{admins}"}, key="user"),
        Row(404, "POST", APPROVE, yes, ids={"thread_id": "{admins}"}, key="user"),
    ]


def branches(bad: list[dict[str, Any]]) -> list[Row]:
    """Branches and copies of threads; `bad` are fields that no thread may have."""
    return [
        *(Row(400, "POST", BRANCHES, {"from_seq": seq}) for seq in (0, -1, 2**31, "1", 1.5, None, [], 9)),
        *(Row(400, "POST", BRANCHES, fields) for fields in ({}, {"from_seq": 1, "seq": 1})),
        *(Row(400, "POST", BRANCHES, {"from_seq": 1, **fields}) for fields in bad),
        *(Row(400, "POST", COPY, fields) for fields in (*bad, {"from_seq": 1}, {"end_user_id": "bob"})),
        *(Row(400, "GET", BRANCHES, query=f"?{query}") for query in ("limit=0", "limit=201", "after=x")),
        *(
            Row(404, method, route, body, ids={"thread_id": other}, key="user")
            for method, route, body in (
                ("GET", BRANCHES, None),
                ("POST", BRANCHES, {"from_seq": 1}),
                ("POST", COPY, {}),
            )
            for other in ("{foreign}", "{admins}", "{none}", "x")
        ),
    ]


def exports() -> list[Row]:
    """Copies of threads and of what is kept of an end user."""
    cursors = ("x", "x//0", "{none}/x/0", "{none}//-1", "{none}/message/x", "{none}/turn/" + "9" * 19)
    return [
        *(Row(400, "GET", THREAD_EXPORT, query=f"?after={cursor}") for cursor in cursors),
        *(
            Row(404, "GET", THREAD_EXPORT, ids={"thread_id": name}, key="user")
            for name in ("{foreign}", "{admins}", "x")
        ),
        Row(400, "GET", USER_EXPORT, query="?after=x", ids={"end_user_id": "ada"}),
        *(Row(400, "GET", USER_EXPORT, ids={"end_user_id": bad}) for bad in ("x" * 513, "%00")),
        Row(403, "GET", USER_EXPORT, ids={"end_user_id": "ada"}, key="user"),
        *(Row(400, "DELETE", USER, ids={"end_user_id": bad}) for bad in ("x" * 513, "%00")),
        Row(403, "DELETE", USER, ids={"end_user_id": "ada"}, key="user"),
        *(Row(404, "GET", DELETION, ids={"deletion_id": bad}) for bad in (str(new_uuid()), "x")),
        Row(403, "GET", DELETION, ids={"deletion_id": str(new_uuid())}, key="user"),
        *(
            Row(400, method, route, body)
            for body in ({"ttl_days": 0}, {"ttl_days": "5"}, {"keep_latest_messages": -1}, {"days": 1}, [])
            for method, route in (
                ("PUT", RETENTION),
                ("POST", RETENTION + "/preview"),
                ("PUT", THREAD_RETENTION),
            )
        ),
        Row(403, "GET", RETENTION, key="user"),
        Row(403, "PUT", RETENTION, {}, key="user"),
        Row(403, "POST", RETENTION + "/preview", {}, key="user"),
        Row(403, "PUT", THREAD_RETENTION, {}, key="user"),
        *(Row(404, "PUT", THREAD_RETENTION, {}, ids={"thread_id": name}) for name in ("{foreign}", "x")),
    ]


def imports() -> list[Row]:
    """Conversations from elsewhere."""
    blocks: list[tuple[str, Any]] = [
        ("user", [{}]),
        ("user", [{"type": 5}]),
        ("user", [{"type": "text"}]),
        ("user", [{"type": "text", "text": "a\x00"}]),
        ("user", [{"type": "tool_use", "id": "t", "name": "n", "input": {}}]),
        ("assistant", [{"type": "tool_use", "id": "t", "name": "n", "input": "{}"}]),
        ("assistant", [{"type": "tool_result", "tool_use_id": "t"}]),
        ("assistant", [{"type": "image", "source": "x"}]),
        ("assistant", "\x00"),
        ("assistant", 5),
        ("system", "Hi"),
    ]
    said = {"messages": [{"role": "user", "content": "Hi"}]}
    return [
        *(Row(400, "POST", IMPORT, {"messages": [{"role": r, "content": c}]}) for r, c in blocks),
        *(Row(400, "POST", IMPORT, fields) for fields in ({}, {"messages": "x"}, {"messages": [5]})),
        Row(400, "POST", IMPORT, {"messages": [{"role": "user", "content": "Hi", "created_at": -1}]}),
        Row(400, "POST", IMPORT, {"messages": [{"role": "user", "content": [{}] * 1001}]}),
        *(
            Row(400, "POST", IMPORT, {**said, name: bad})
            for name, bad in (
                *(("external_id", value) for value in ("", "x" * 256, "\x00", 5)),
                *(("title", value) for value in (5, "x" * 513, "\x00")),
                *(("metadata", value) for value in ([], "x", {"a": "\x00"})),
                ("thread_id", "x"),
            )
        ),
        *(Row(400, "POST", IMPORT, {**said, "compactions": [bad]}) for bad in foreign_compactions()),
        *(Row(400, "POST", IMPORT, {**said, "artifacts": [bad]}) for bad in foreign_artifacts()),
        Row(403, "POST", IMPORT, {**said, "end_user_id": "bob"}, key="user"),
    ]


def foreign_compactions() -> list[Any]:
    """What cannot stand for one message."""
    good = {"version": 1, "summary": "s", "summarized_through_seq": 1, "trimmed_through_seq": 0}
    bad: list[tuple[str, Any]] = [
        *(("version", value) for value in (0, 1_000_000_001, "x")),
        *(("summary", value) for value in ("", None, "\x00", "x" * 10_001, 5)),
        *((name, value) for name in list(good)[2:] for value in (-1, 2, "x")),
        *(("model", value) for value in ("\x00", "x" * 256)),
        ("created_at", -1),
        ("cost_nanos", 5),
    ]
    return [5, {}, *({**good, name: value} for name, value in bad)]


def foreign_artifacts() -> list[Any]:
    """What no tool could have kept."""
    good = {"name": "a", "mime": "text/plain", "content": "eA=="}
    bad: list[tuple[str, Any]] = [
        *(("name", value) for value in ("", "x" * 201, "\x00", 5)),
        *(("mime", value) for value in ("text/html", "image/png", "image/png\r\nx: y", 5)),
        *(("content", value) for value in ("x", "/w==", 5)),
        ("mime", "application/json"),
        ("updated_at", -1),
        ("owner", "account"),
    ]
    return [5, {}, *({**good, name: value} for name, value in bad)]


def threads() -> list[Row]:
    """Threads, their lists and their messages."""
    bad: list[dict[str, Any]] = [
        {"title": 5},
        {"title": "x" * 513},
        {"title": "a\x00b"},
        {"metadata": []},
        {"metadata": "x"},
        {"metadata": {"a": "\x00"}},
        {"metadata": {"\x00": 1}},
        {"approval": "maybe"},
        {"approval": 5},
    ]
    return [
        *(Row(400, "POST", THREADS, fields) for fields in bad),
        *(Row(400, "PATCH", THREAD, fields) for fields in bad),
        *compactions(),
        Row(400, "POST", THREADS, {"end_user_id": 5}),
        Row(400, "POST", THREADS, {"end_user_id": "\x00"}),
        Row(400, "POST", THREADS, {"end_user_id": "x" * 600}),
        Row(403, "POST", THREADS, {"end_user_id": "bob"}, key="user"),
        Row(400, "PATCH", THREAD, {"metadata": None}),
        Row(400, "PATCH", THREAD, {"metadata": {"a": "x" * 15_000, "b": ["y" * 100] * 14}}),
        *(
            Row(404, method, route, body, ids={"thread_id": other})
            for method, route, body in (
                ("GET", THREAD, None),
                ("PATCH", THREAD, {"title": "stolen"}),
                ("DELETE", THREAD, None),
                ("GET", SEND, None),
            )
            for other in ("{foreign}", "{none}", "x", "%00")
        ),
        Row(404, "DELETE", THREAD, ids={"thread_id": "{admins}"}, key="user"),
        *branches(bad),
        *(
            Row(400, "GET", THREADS, query=f"?{query}")
            for query in ("limit=0", "limit=-1", "limit=x", "limit=%D9%A3", "after=x", "after=%00")
        ),
        *(Row(400, "GET", THREADS, query=f"?after={after}") for after in ("{foreign}", "{none}")),
        Row(400, "GET", THREADS, query="?end_user_id=%00"),
        *(
            Row(400, "GET", SEND, query=f"?{query}")
            for query in (
                "limit=0",
                "limit=1e2",
                "order=up",
                "after_seq=x",
                "after_seq=-1",
                "before_seq=9999999999",
            )
        ),
    ]


def compactions() -> list[Row]:
    """What a thread says of its length."""
    bad: list[dict[str, Any]] = [
        *({"compaction": mode} for mode in ("on", "", 5, True)),
        *({"compaction_threshold": share} for share in (0, 0.05, 0.99, 1, -1, "0.5", 1e400)),
        *({"compaction_model": slug} for slug in ("", 5, "x" * 201, "text-embedding-3-small")),
    ]
    return [
        *(
            Row(400, method, route, fields)
            for method, route in (("POST", THREADS), ("PATCH", THREAD))
            for fields in bad
        ),
        *(
            Row(404, method, route, {"compaction_model": slug})
            for method, route in (("POST", THREADS), ("PATCH", THREAD))
            for slug in ("nobody-knows-it", "a\x00")
        ),
    ]


def searches() -> list[Row]:
    """Searching messages."""
    bad = (
        *("", "?q=", "?q=%20%0A", "?q=a%00b", f"?q={'x' * 2_001}", "?q=a&limit=0", "?q=a&limit=x"),
        *("?q=a&offset=-1", "?q=a&offset=451", "?q=a&mode=exact", "?q=a&role=system", "?q=a&after=x"),
        "?q=a&before=-1",
    )
    return [
        *(Row(400, "GET", route, query=q, key="user") for q in bad for route in (MESSAGES_FOUND, FOUND)),
        Row(400, "GET", MESSAGES_FOUND, query=f"?q=a&end_user_id={'x' * 513}"),
        *(
            Row(404, "GET", FOUND, query="?q=a&mode=text", ids={"thread_id": other}, key="user")
            for other in ("{none}", "{admins}", "{foreign}", "x")
        ),
        Row(503, "GET", MESSAGES_FOUND, query="?q=a"),
        Row(503, "GET", FOUND, query="?q=a&mode=hybrid", key="user"),
    ]


def control() -> list[Row]:
    """Keys, usage and tools."""
    wrong_keys: list[dict[str, Any]] = [
        {},
        {"name": ""},
        {"name": 5},
        {"name": "a\nb"},
        {"name": "k", "scope": "root"},
        {"name": "k", "max_spend_usd": -1},
        {"name": "k", "max_spend_usd": "5"},
        {"name": "k", "max_spend_usd": 1e12},
        {"name": "k", "max_spend_usd": True},
        {"name": "k", "end_user_id": ""},
        {"name": "k", "thread_access": "all"},
    ]
    urls = ["http://hooks.example/x", "ftp://hooks.example", "hooks.example", "", "https://", "\x00"]
    private = [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "[::1]",
        "localhost",
        "0.0.0.0",
        "2130706433",
    ]
    wrong_tools: list[dict[str, Any]] = [
        {"name": ""},
        {"name": "a b"},
        {"name": "qlaud-builtin/x"},
        {"name": 5},
        {"description": ""},
        {"description": "\x00"},
        {"input_schema": []},
        {"input_schema": {"type": "string"}},
        {"input_schema": {"type": "object", "properties": 5}},
        {"timeout_ms": 120_001},
        {"timeout_ms": "1"},
        {"effect": "maybe"},
        {"shared": "yes"},
        *({"webhook_url": url} for url in urls),
        *({"webhook_url": f"https://{host}/x"} for host in private),
    ]
    return [
        *(Row(400, "POST", KEYS, fields) for fields in wrong_keys),
        *(
            Row(400, "PATCH", KEY, fields)
            for fields in ({"name": ""}, {"max_spend_usd": -1}, {"max_spend_usd": "9"})
        ),
        Row(400, "PATCH", KEY, {"max_spend_usd": 9, "name": "a\nb"}),
        *(
            Row(404, method, route, {"max_spend_usd": 9}, ids={"key_id": other})
            for method, route in (("GET", KEY), ("PATCH", KEY), ("DELETE", KEY), ("GET", KEY_USAGE))
            for other in ("{foreign_key}", "{none}", "x")
        ),
        Row(409, "DELETE", KEY, ids={"key_id": "{master}"}),
        Row(409, "PATCH", KEY, {"max_spend_usd": 9}, ids={"key_id": "{revoked}"}),
        *(
            Row(400, "GET", route, query=f"?{q}")
            for route in (USAGE, KEY_USAGE, EXPORT)
            for q in ("from_ms=x", "to_ms=-1", "from_ms=2&to_ms=1")
        ),
        *(
            Row(400, "GET", route, query=f"?{q}")
            for route in (USAGE, EXPORT)
            for q in ("key_id=x", "key_id=%00", "model=%00", f"end_user_id={'x' * 513}")
        ),
        *(Row(400, "GET", USAGE, query=f"?group_by={q}") for q in ("colour", "day,day", ",", "day,", "%00")),
        *(Row(400, "GET", USAGE, query=f"?group_by=day&{q}") for q in ("limit=0", "limit=10001", "limit=x")),
        *(
            Row(400, "GET", USAGE, query=f"?group_by=day&after={cursor}")
            for cursor in ("x", "%00", "W10", "WyJcdTAwMDAiLG51bGwsbnVsbCxudWxsLG51bGwsbnVsbF0", "x" * 5_000)
        ),
        *(Row(400, "GET", EXPORT, query=f"?{q}") for q in ("format=xml", "after=x", "after={none}")),
        *(Row(400, "POST", TOOLS, tool(**fields)) for fields in wrong_tools),
        Row(409, "POST", TOOLS, tool(name="taken")),
        *(Row(404, "DELETE", TOOL, ids={"tool_id": other}) for other in ("{foreign_tool}", "x", "%00")),
        Row(400, "POST", SEARCH, {}),
        Row(400, "POST", SEARCH, {"intent": 5}),
        Row(400, "POST", SEARCH, {"intent": "x", "limit": 0}),
        Row(400, "POST", SCHEMAS, {"tools": "x"}),
        Row(400, "POST", SCHEMAS, {"tools": []}),
        Row(400, "POST", EXECUTE, {"calls": []}),
        Row(400, "POST", EXECUTE, {"calls": [{"args": {}}]}),
        *(
            Row(400, "POST", EXECUTE, {"calls": [{"tool": "taken", **fields}]})
            for fields in (
                {"timeout_ms": 99},
                {"timeout_ms": 120_001},
                {"idempotency_key": ""},
                {"idempotency_key": 5},
                {"idempotency_key": "x" * 256},
            )
        ),
        Row(400, "POST", CONNECTIONS, {"action": "explode"}),
        Row(400, "POST", CONNECTIONS, {"action": "connect", "tool": "nothing"}),
        Row(400, "POST", CONNECTIONS, {"action": "connect", "tool": "x" * 129}),
        *(
            Row(400, "POST", CONNECTIONS, {"action": "connect", "tool": tool})
            for tool in ("qlaud-mcp/mcp-linear", "mcp-linear", "mcp-nobody", "mcp-", "mcp-linear/x")
        ),
        Row(400, "POST", CONNECTIONS, {"action": "connect"}),
        Row(400, "POST", CONNECTIONS, {"action": "disconnect", "tool": "linear/no_such_action"}),
        *(
            Row(400, "POST", CONNECTIONS, {"action": "connect", "tool": "linear", "credentials": given})
            for given in ("x", [], {"api_key": 1}, {"api_key": ""}, {"other": "x"}, {"api_key": "x" * 5000})
        ),
        *(
            Row(403, method, route, body, key="user")
            for method, route, body in (
                ("POST", KEYS, {"name": "k"}),
                ("PATCH", KEY, {"max_spend_usd": 9}),
                ("DELETE", KEY, None),
                ("POST", TOOLS, tool()),
                ("DELETE", TOOL, None),
                ("GET", USAGE, None),
                ("GET", EXPORT, None),
            )
        ),
    ]


def relay() -> list[Row]:
    """The compatible surfaces, in both dialects."""
    said = [{"role": "user", "content": "hi"}]
    asked = {"model": MODEL, "max_tokens": 64, "messages": said}
    rows = [Row(404, "GET", "/v1/models/{model_id:.+}")]
    for route in ("/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"):
        rows += [
            Row(400, "POST", route, b"{"),
            Row(400, "POST", route, {}),
            Row(400, "POST", route, {**asked, "messages": "hi"}),
            Row(404, "POST", route, {**asked, "model": "no-such-model"}),
            Row(402, "POST", route, asked, key="broke"),
        ]
    for route in ("/v1/messages", "/v1/chat/completions"):
        rows += [
            Row(400, "POST", route, {**asked, "max_tokens": 0}),
            Row(400, "POST", route, {**asked, "max_tokens": "64"}),
            Row(400, "POST", route, {**asked, "service_tier": "priority"}),
            Row(400, "POST", route, {**asked, "models": "x"}),
            Row(400, "POST", route, {**asked, "models": [MODEL] * 9}),
            Row(404, "POST", route, {**asked, "models": ["no-such-model"]}),
        ]
    return [*rows, *responses()]


def responses() -> list[Row]:
    """OpenAI's Responses dialect: what is stored, run at the provider, priced apart or malformed."""
    route = "/v1/responses"
    bad: list[dict[str, Any]] = [
        {"input": None},
        {"input": []},
        {"input": ["hi"]},
        {"input": 5},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"type": "additional_tools", "role": "developer", "tools": []}]},
        {"input": [{"type": ["x"]}]},
        {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"input": [{"role": "user", "content": 5}]},
        {"previous_response_id": "resp_1"},
        {"conversation": "conv_1"},
        {"prompt": {"id": "pmpt_1"}},
        {"background": True},
        {"store": True},
        {"max_output_tokens": 15},
        {"max_output_tokens": "64"},
        {"max_output_tokens": True},
        {"stream": "yes"},
        {"instructions": 5},
        {"tools": "x"},
        {"tools": [5]},
        *({"tools": [{"type": kind}]} for kind in HOSTED_TOOLS),
        {"service_tier": "priority"},
        {"prompt_cache_retention": "24h"},
        {"prompt_cache_options": {"ttl": "12h"}},
        {"reasoning": {"mode": "pro"}},
        {"reasoning": {"effort": "extreme"}},
        {"context_management": [{"type": "compaction"}]},
        {"text": {"format": {"type": "grammar"}}},
    ]
    asked = {"model": MODEL, "input": "hi", "max_output_tokens": 64}
    return [
        *(Row(400, "POST", route, raw) for raw in (b"{", b"[]")),
        *(Row(400, "POST", route, {**asked, **fields}) for fields in bad),
        *(Row(400, "POST", route, {**asked, "stream": True, **fields}) for fields in bad[:3]),
        Row(404, "POST", route, {**asked, "model": "no-such-model"}),
        Row(402, "POST", route, asked, key="broke"),
    ]


def money() -> list[Row]:
    """Accounts, the wallet, rotation."""
    account, rotate = "/v1/accounts/{account_id}", "/v1/keys/{key_id}/rotate"
    return [
        Row(403, "GET", "/v1/accounts", key="user"),
        Row(404, "GET", account, ids={"account_id": "{none}"}),
        Row(400, "PATCH", account, {"billing": "free"}),
        *(Row(400, "PATCH", account, {"low_balance_usd": bad}) for bad in (-1, "5", [], 1e30)),
        Row(400, "POST", "/v1/accounts", {"name": ""}),
        Row(400, "POST", "/v1/accounts", {"name": "x", "billing": "maybe"}),
        Row(400, "POST", "/v1/accounts", {"name": "x", "starter_credit_usd": -1}),
        Row(400, "GET", "/v1/billing/ledger", query="?before=x"),
        Row(400, "POST", "/v1/billing/topups", {"amount_usd": 0}),
        Row(400, "POST", "/v1/billing/topups", {"amount_usd": "5"}),
        Row(403, "POST", "/v1/billing/topups", {"amount_usd": 5}, key="user"),
        Row(400, "POST", "/v1/billing/stripe/webhook", {"type": "checkout.session.completed"}),
        Row(400, "POST", rotate, {"grace_seconds": -1}),
        Row(404, "POST", rotate, {}, ids={"key_id": "{none}"}),
    ]


def form(*parts: tuple[str, str, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """A form of `(name, what follows the name, data)`, whose boundary is `b`."""
    head = '--b\r\ncontent-disposition: form-data; name="{}"{}\r\n\r\n'
    return b"".join(head.format(name, more).encode() + data + b"\r\n" for name, more, data in parts) + end


def media() -> list[Row]:
    """Vectors, pictures and sound."""
    asked: dict[str, dict[str, Any]] = {
        "/v1/embeddings": {"model": "text-embedding-3-small", "input": "hi"},
        "/v1/images/generations": {"model": "gpt-image-2", "prompt": "hi"},
        "/v1/images/edits": {"model": "gpt-image-2", "prompt": "hi", "image": "iVBORw0KGgo="},
        "/v1/audio/speech": {"model": "tts-1", "input": "hi", "voice": "alloy"},
    }
    rows = []
    for route, body in asked.items():
        rows += [
            *(Row(400, "POST", route, bad) for bad in (b"{", b"[]", {}, {**body, "models": "x"})),
            *(Row(400, "POST", route, {**body, name: 5}) for name in body),
            Row(400, "POST", route, {**body, "model": MODEL}),
            Row(404, "POST", route, {**body, "model": "no-such-model"}),
            Row(402, "POST", route, body, key="broke"),
            Row(413, "POST", route, {**body, "user": "x" * MAX_BODY}),
        ]
    kind = {"content-type": "multipart/form-data; boundary=b"}
    model, named = ("model", "", b"whisper-1"), '; filename="a.mp3"'
    file = ("file", named, b"ID3" + bytes(100))
    forms = [
        (400, form()),
        (400, form(file)),
        (400, form(model)),
        (400, form(model, file, file)),
        (400, form(model, ("file", named, b""))),
        (400, form(model, file, end=b"")),
        (400, form(model, ("prompt", "", b"\xff"), file)),
        (400, form(model, ("response_format", "", b"docx"), file)),
        (400, form(model, ("", "", b"x"), file)),
        (400, form(model, ("file", named + "\r\ncontent-transfer-encoding: base64", b"SUQz"))),
        (400, form(model, ("file", named + "\r\ncontent-encoding: gzip", b"ID3"))),
        (400, form(model, *(("x" + str(n), "", b"") for n in range(64)), file)),
        (400, form(("model", "", b"tts-1"), file)),
        (404, form(("model", "", b"no-such-model"), file)),
        (413, form(model, ("file", named, bytes(MAX_BODY + 1)))),
    ]
    route = "/v1/audio/transcriptions"
    rows += [Row(status, "POST", route, body, headers=kind) for status, body in forms]
    rows += [
        Row(402, "POST", route, form(model, file), headers=kind, key="broke"),
        Row(400, "POST", route, {"model": "whisper-1"}),
        Row(400, "POST", route, form(model, file), headers={"content-type": "multipart/form-data"}),
        Row(400, "POST", "/v1/images/edits", form(("prompt", "", b"hi")), headers=kind),
    ]
    return rows


def prices() -> list[Row]:
    """Prices and their overrides. Only the operator changes them; the admin key here is the master key."""
    price = "/v1/prices/{provider}/{model:.+}"
    here = "/v1/prices/anthropic/claude-haiku-4-5"
    asked = {"price": {"input": 1_000_000, "output": 5_000_000}, "reason": "x"}
    wrong: list[Any] = [
        b"{",
        b"[]",
        {},
        {**asked, "price": None},
        {**asked, "price": {"input": 1}},
        {**asked, "price": {"input": -1, "output": 1}},
        {**asked, "price": {"input": "1", "output": 1}},
        {**asked, "reason": "\x00"},
        {**asked, "source": ""},
        {**asked, "colour": 1},
        {**asked, "tiers": "x"},
        {**asked, "effective_from": 1},
        {**asked, "effective_from": -1},
        {**asked, "price": {"input": 5_000_000, "output": 1}},
    ]
    return [
        *(Row(400, "PUT", price, body, at=here) for body in wrong),
        Row(413, "PUT", price, b'{"a":"' + b"x" * MAX_BODY + b'"}', at=here),
        Row(400, "PUT", price, asked, at="/v1/prices/openai/tts-1"),
        Row(404, "PUT", price, asked, at="/v1/prices/anthropic/gpt-5.4"),
        Row(404, "PUT", price, asked, at="/v1/prices/%00/%00"),
        Row(403, "PUT", price, asked, at=here, key="user"),
        Row(404, "DELETE", price, at=here),
        Row(404, "DELETE", price, at="/v1/prices/nope/nope"),
        Row(400, "DELETE", price, query="?effective_from=x", at=here),
        Row(400, "DELETE", price, query=f"?reason={'x' * 600}", at=here),
        Row(403, "DELETE", price, at=here, key="user"),
        Row(403, "GET", "/v1/prices", key="user"),
        Row(404, "GET", "/v1/prices", query="?model=nope"),
        Row(400, "GET", "/v1/prices", query="?provider=%00"),
        Row(403, "GET", "/v1/prices/audit", key="user"),
        *(Row(400, "GET", "/v1/prices/audit", query=f"?{q}") for q in ("limit=0", "limit=501", "before=x")),
        Row(400, "GET", "/v1/prices/audit", query="?model=%00"),
    ]


def stripe() -> list[Row]:
    """Automatic top-ups, meters of Stripe, and whom it bills for an end user."""
    auto, meter = "/v1/billing/auto-topup", "/v1/billing/stripe-meter"
    retry, end_user = f"{meter}/retry", "/v1/end-users/{end_user_id}/billing"
    rule = {"threshold_usd": 5, "amount_usd": 10, "monthly_ceiling_usd": 50}
    wrong_rules: list[Any] = [
        b"{",
        {},
        {**rule, "threshold_usd": -1},
        {**rule, "threshold_usd": None},
        {**rule, "amount_usd": "10"},
        {**rule, "amount_usd": 0.49},
        {**rule, "amount_usd": 10.001},
        {**rule, "monthly_ceiling_usd": 9},
        {**rule, "monthly_ceiling_usd": 1e12},
    ]
    names = ["", "a b", "a\n", "é", "x" * 101, 5, None]
    customers = ["", "bob", "cus_", "cus_a/b", "cus_a\n", "cus_" + "x" * 300, 5, None]
    other = {"end_user_id": "nobody"}
    return [
        *(Row(400, "PUT", auto, body) for body in wrong_rules),
        Row(409, "PUT", auto, rule),  # the account of this table is postpaid
        *(Row(404, method, auto) for method in ("GET", "DELETE")),
        *(Row(400, "PUT", meter, {"event_name": name}) for name in names),
        Row(400, "PUT", meter, {"event_name": "e", "value": "calls"}),
        *(Row(404, "PUT", meter, {"event_name": "e"}, query=f"?account_id={i}") for i in ("{none}", "x")),
        *(Row(404, method, meter) for method in ("GET", "DELETE")),
        Row(404, "POST", retry, query="?account_id=x"),
        *(Row(400, "PUT", end_user, {"stripe_customer_id": name}, ids=other) for name in customers),
        Row(400, "PUT", end_user, {"stripe_customer_id": "cus_1"}, ids={"end_user_id": "x" * 513}),
        Row(400, "PUT", end_user, {"stripe_customer_id": "cus_1"}, ids={"end_user_id": "%00"}),
        *(Row(404, method, end_user, ids=other) for method in ("GET", "DELETE")),
        Row(400, "POST", "/v1/billing/topups", {"amount_usd": 5, "save_payment_method": "yes"}),
        *(
            Row(403, method, route, body, key="user", ids=other)
            for method, route, body in (
                ("PUT", auto, rule),
                ("GET", auto, None),
                ("DELETE", auto, None),
                ("PUT", meter, {"event_name": "e"}),
                ("GET", meter, None),
                ("DELETE", meter, None),
                ("POST", retry, None),
                ("PUT", end_user, {"stripe_customer_id": "cus_1"}),
                ("GET", end_user, None),
                ("DELETE", end_user, None),
            )
        ),
    ]


def hooks() -> list[Row]:
    """Webhooks of the account and their deliveries."""
    right = {"url": "https://hooks.example/x", "events": ["job.completed"]}
    bad: list[dict[str, Any]] = [
        {"url": 5},
        {"url": "http://hooks.example/x"},
        {"url": "https://127.0.0.1/x"},
        {"url": "https://metadata.google.internal/x"},
        {"url": "https://hooks.example/" + "x" * 2048},
        {"events": []},
        {"events": None},
        {"events": ["job.started"]},
        {"events": "job.completed"},
        {"events": ["job.completed"] * 17},
        {"url": None, "events": ["usage.recorded"]},
    ]
    others = ({"webhook_id": "{foreign_webhook}"}, {"webhook_id": "{none}"}, {"webhook_id": "x"})
    calls = (("DELETE", HOOK), ("POST", f"{HOOK}/rotate"), ("GET", DELIVERIES), ("POST", REDELIVER))
    return [
        *(Row(400, "POST", HOOKS, {**right, **fields}) for fields in bad),
        Row(400, "POST", HOOKS, {"events": ["job.completed"]}),
        *(Row(404, method, route, ids=ids) for method, route in calls for ids in others),
        *(Row(403, method, route, key="user") for method, route in calls),
        Row(403, "POST", HOOKS, right, key="user"),
        Row(404, "POST", REDELIVER, ids={"delivery_id": "{none}"}),
        *(Row(400, "GET", DELIVERIES, query=f"?limit={limit}") for limit in ("0", "201", "x")),
    ]


def jobs() -> list[Row]:
    """Requests that are answered later."""
    asked = {"model": MODEL, "max_tokens": 64, "messages": [{"role": "user", "content": "hi"}]}
    right = {"endpoint": "/v1/messages", "body": asked}
    bad: list[dict[str, Any]] = [
        {"endpoint": "/v1/threads"},
        {"endpoint": ""},
        {"endpoint": 5},
        {"endpoint": "/v1/messages/"},
        {"body": None},
        {"body": "hi"},
        {"body": []},
        {"body": {}},
        {"body": {**asked, "max_tokens": 0}},
        {"body": {**asked, "messages": "hi"}},
        {"body": {**asked, "service_tier": "priority"}},
        {"endpoint": "/v1/chat/completions", "body": {**asked, "n": "2"}},
        {"endpoint": "/v1/responses", "body": asked},
        {"webhook_url": 5},
        {"webhook_url": "http://hooks.example/x"},
        {"webhook_url": "https://10.0.0.1/x"},
        {"webhook_url": "https://hooks.example/no-secret-yet"},
    ]
    return [
        *(Row(400, "POST", JOBS, {**right, **fields}) for fields in bad),
        Row(400, "POST", JOBS, {"endpoint": "/v1/messages"}),
        Row(400, "POST", JOBS, right, headers={"idempotency-key": "x" * 256}),
        Row(404, "POST", JOBS, {**right, "body": {**asked, "model": "no-such-model"}}),
        Row(402, "POST", JOBS, right, key="broke"),
        *(Row(400, "GET", JOBS, query=f"?{q}") for q in ("limit=0", "limit=201", "before=x", "status=done")),
        *(
            Row(404, method, route, ids={"job_id": other})
            for method, route in (("GET", JOB), ("POST", f"{JOB}/cancel"))
            for other in ("{none}", "x", "%00")
        ),
    ]


def from_catalogue() -> list[dict[str, Any]]:
    """What is wrong with registrations of MCP servers that name an entry of the catalogue."""
    key = {"api_key": "lin_api_" + "x" * 40}
    linear = {"catalog_slug": "linear", "config": key}
    return [
        *({"catalog_slug": slug} for slug in ("", "nobody", "LINEAR", "notion", "mcp-linear", 5)),
        *({"catalog_slug": "linear", "config": config} for config in (None, {}, [], {"api_key": 5})),
        *({"catalog_slug": "linear", "config": {"api_key": value}} for value in ("", "x", "é" * 50, "a\nb")),
        {"catalog_slug": "linear", "config": {**key, "more": "x"}},
        {**linear, "auth_mode": "nobody"},
        {**linear, "auth_mode": "per_user"},
        {"catalog_slug": "nobody", "auth_mode": "per_user"},
        {"catalog_slug": "notion", "auth_mode": "per_user"},
        {"catalog_slug": "linear", "auth_mode": "per_user", "auth_headers": {"x": "y"}},
        {"catalog_slug": "linear", "auth_mode": "per_user", "server_url": "https://mcp.example/x"},
        {"catalog_slug": "linear", "auth_mode": "per_user", "config": {}},
        {**linear, "auth_headers": {"x": "y"}},
        {**linear, "server_url": "https://mcp.example/x"},
        {"server_url": "https://mcp.example/x", "config": key},
        {"server_url": "https://mcp.example/x", "auth_mode": "per_user"},
    ]


def mcp_servers() -> list[Row]:
    """MCP servers: their names, addresses and headers, and what is not one's own."""
    right = {"name": "crm", "server_url": "https://mcp.example/x"}
    urls = (
        *("x", "http://mcp.example", "https://127.0.0.1/mcp", "https://169.254.169.254/"),
        *("https://a@b.example", 5),
    )
    names = (
        *("", "CRM", "a b", "a/b", "x" * 32, "qlaud-mcp", "qlaud-builtin", "qlaud_x", "ü", "a\x00"),
        *(5, None),
    )
    headers: list[Any] = [
        {"x": 5},
        {"": "x"},
        {"a b": "x"},
        {"host": "x"},
        {"Content-Length": "1"},
        {"mcp-session-id": "x"},
        {"x": ""},
        {"x": "a\r\nb: c"},
        {"x": "ü"},
        {"x": "x" * 4097},
        {"x": "1", "X": "2"},
        {f"x{n}": "1" for n in range(17)},
        "x",
    ]
    bad: list[dict[str, Any]] = [
        *({"name": name} for name in names),
        *({"server_url": url} for url in urls),
        *({"auth_headers": value} for value in headers),
        *({"timeout_ms": value} for value in (99, 120_001, "1000", 1000.5)),
        {"effect": "none"},
        {"catalog_slug": "linear"},
    ]
    two = {"jsonrpc": "2.0"}
    messages: list[Any] = [{}, {"jsonrpc": "1.0"}, {**two, "id": 1.5}, {**two, "params": []}]
    return [
        *(Row(400, "POST", "/mcp", message) for message in messages),
        *(Row(400, "POST", SERVERS, {**right, **fields}) for fields in bad),
        Row(400, "POST", SERVERS, {"name": "crm"}),
        *(Row(400, "POST", SERVERS, {"name": "crm", **fields}) for fields in from_catalogue()),
        Row(403, "POST", SERVERS, right, key="user"),
        Row(502, "POST", SERVERS, {**right, "server_url": "https://nobody.invalid/mcp"}),
        *(
            Row(status, method, route, ids={"server_id": other}, key=key)
            for method, route in (("DELETE", SERVER), ("POST", f"{SERVER}/refresh"))
            for status, other, key in ((404, "{none}", "admin"), (404, "x", "admin"), (403, "{none}", "user"))
        ),
    ]


def builtins() -> list[Row]:
    """Built-in tools, and what they keep."""
    search = {"brave_api_key": "BSA-1"}
    http = {"url": "https://api.example.com/{{input.id}}"}
    wrong: list[dict[str, Any]] = [
        builtin("nothing"),
        builtin("web-search"),
        builtin("web-search", {}),
        builtin("web-search", {"brave_api_key": ""}),
        builtin("web-search", {"brave_api_key": 5}),
        builtin("web-search", {"brave_api_key": "x" * 4001}),
        builtin("web-search", {**search, "country": "USA"}),
        builtin("web-search", {**search, "safesearch": "no"}),
        builtin("web-search", {**search, "colour": "red"}),
        builtin("web-search", []),
        builtin("web-search", search, name="qlaud-builtin/web-search"),
        builtin("web-search", search, auth_mode="everybody"),
        builtin("web-search", search, auth_mode="per_user"),
        builtin("web-search", search, effect="write"),
        builtin("web-search", search, webhook_url="https://hooks.example/x"),
        builtin("web-search", search, input_schema={"type": "object", "properties": {"x": {}}}),
        builtin("web-search", search, input_schema={"type": "object", "properties": {}}),
        builtin("web-search", search, input_schema={"type": "object", "properties": 5}),
        builtin("web-search", search, description="\x00"),
        builtin("web-search", search, timeout_ms=120_001),
        builtin("linear-create-issue", {"api_key": "lin_oauth"}),
        builtin("zendesk-create-ticket", {"subdomain": "a.b", "email": "a@b", "api_token": "z" * 40}),
        builtin("calculator", auth_mode="per_user"),
        builtin("calculator", {"x": "y"}),
        builtin("http-call"),
        builtin("http-call", {"url": "https://127.0.0.1/x"}),
        builtin("http-call", {"url": "http://api.example.com/x"}),
        builtin("http-call", {"url": "https://{{input.host}}/x"}),
        builtin("http-call", {**http, "method": "TRACE"}),
        builtin("http-call", {**http, "headers": "{"}),
        builtin("http-call", {**http, "headers": {"a": "b"}}),
        builtin("http-call", {**http, "secrets": "[]"}),
        builtin("http-call", {**http, "lock_input_fields": "id"}),
        builtin("http-call", {**http, "body_template": "{{nobody.x}}"}),
        builtin("http-call", {**http, "body_template": "{{secrets.X}}"}),
        builtin("http-call", http, input_schema={"type": "object", "properties": {"other": {}}}),
        tool(config={}),
    ]
    download = "/v1/artifacts/{artifact_id}/download"
    of_thread = f"{THREAD}/artifacts"
    one = of_thread + "/{artifact_id}"
    return [
        *(
            Row(400, "GET", of_thread, query=f"?{query}")
            for query in ("limit=0", "limit=101", "limit=x", "after=x", "after=%00")
        ),
        *(
            Row(404, "GET", route, ids={"thread_id": other, "artifact_id": "{none}"})
            for route in (of_thread, one)
            for other in ("{none}", "x", "%00")
        ),
        *(Row(404, "GET", one, ids={"artifact_id": other}) for other in ("{none}", "x", "%00")),
        *(Row(400, "POST", TOOLS, body) for body in wrong),
        Row(409, "POST", TOOLS, builtin("calculator", name="taken")),
        Row(403, "POST", TOOLS, builtin("calculator"), key="user"),
        *(Row(404, "GET", download, ids={"artifact_id": other}) for other in ("{none}", "x", "%00")),
    ]


def connect_page() -> list[Row]:
    """The connect page: what is no link, and forms that the page does not send."""
    form = {"content-type": "application/x-www-form-urlencoded"}
    no_links = ("x", "A" * 43, "%00", "ü", "x" * 5_000)
    bad = (
        *(b"", b"_way=0", b"_form=x&_way=0&api_key=x", b"_form=%ff", b"_form=x&_form=x", b"a" * 100, b"=&="),
        *(b"\xff=1", b"&".join(b"f%d=1" % number for number in range(40)), b'{"_form":"x"}'),
    )
    unknown = f"?state={'A' * 43}&code=x"
    queries = ("", "?code=x", "?state=x&code=x", unknown, "?error=access_denied", "?state=%00")
    return [
        *(Row(410, "GET", CONNECT, ids={"token": token}) for token in no_links),
        *(Row(410, "POST", CONNECT, b"_way=0", ids={"token": token}, headers=form) for token in no_links),
        *(Row(400, "POST", CONNECT, body, headers=form) for body in bad),
        Row(400, "POST", CONNECT, {"_form": "x"}),
        Row(413, "POST", CONNECT, b"_form=" + b"x" * 66_000, headers=form),
        *(Row(400, "GET", CALLBACK, query=query) for query in queries),
    ]


TABLE = [
    *malformed(),
    *turns(),
    *threads(),
    *searches(),
    *imports(),
    *exports(),
    *control(),
    *relay(),
    *media(),
    *money(),
    *prices(),
    *stripe(),
    *hooks(),
    *mcp_servers(),
    *builtins(),
    *connect_page(),
    *jobs(),
]


async def fingerprint(pool: Pool) -> dict[str, tuple[int, str]]:
    """Count and checksum of every table; when a key was last used, or a process last seen, is no change."""
    tables = await pool.fetch(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'processes'"
    )
    parts = [
        f"SELECT '{table}' AS name, count(*) AS n, md5(COALESCE(string_agg(r, ',' ORDER BY r), '')) AS sum"
        f" FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS r FROM {table} t) rows"
        for (table,) in tables
    ]
    async with pool.acquire() as connection, connection.transaction():
        # Postgres would start processes for it, which takes ten times as long as the tables do.
        await connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
        rows = await connection.fetch(" UNION ALL ".join(parts))
    return {row["name"]: (row["n"], row["sum"]) for row in rows}


async def seed(cluster: Cluster, pool: Pool) -> tuple[dict[str, str], dict[str, Api]]:
    """Something in every table, for this account and for another; ids by name, clients by key."""
    admin = cluster.admin
    user, key_id = await cluster.key(end_user_id="ada")
    broke, _ = await cluster.key(max_spend_usd=0)
    _, revoked = await cluster.key()
    await admin.request("DELETE", f"/v1/keys/{revoked}")
    ids = {"none": str(new_uuid()), "key_id": key_id, "revoked": revoked, "tool_use_id": "x"}
    ids["thread_id"] = (await user.post("/v1/threads", {"title": "T", "metadata": {"a": 1}}))["id"]
    ids["admins"] = (await admin.post("/v1/threads", {}))["id"]
    ids["broke_thread"] = (await broke.post("/v1/threads", {}))["id"]
    done = [event async for event in user.stream(ids["thread_id"], script({"text": "Hello."}))][-1]
    ids["turn_id"] = done["turn_id"]
    ids["tool_id"] = (await admin.post("/v1/tools", tool(name="taken")))["id"]
    ids["delivery_id"] = str(new_uuid())
    hook = {"url": "https://hooks.example/x", "events": ["job.completed"]}
    ids["webhook_id"] = (await admin.post("/v1/webhooks", hook))["id"]
    link = await links.create(pool, Owner(BOOTSTRAP_ACCOUNT, "ada"), "linear", "")
    ids["token"] = link.url.removeprefix("/connect/")
    account = new_uuid()
    ids["account_id"] = str(account)
    await pool.execute("INSERT INTO accounts (id, name) VALUES ($1, 'other')", account)
    key, secret = await lifecycle.mint(pool, account, NewKey("k", scope="admin"))
    stranger = Api(admin.session, admin.base_url, secret.reveal())
    ids["foreign_key"] = str(key.id)
    ids["foreign"] = (await stranger.post("/v1/threads", {}))["id"]
    ids["foreign_webhook"] = (await stranger.post("/v1/webhooks", hook))["id"]
    ids["foreign_tool"] = (await stranger.post("/v1/tools", tool()))["id"]
    async with asyncio.timeout(10):
        while await pool.fetchval("SELECT count(*) FROM search_queue"):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)
    ids["master"] = str(await pool.fetchval("SELECT id FROM keys WHERE is_master"))
    return ids, {"admin": admin, "user": user, "broke": broke}


def filled(text: str, ids: dict[str, str]) -> str:
    """`{name}` of a known id replaced, other braces left alone."""
    return re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], found[0]), text)


async def send(row: Row, ids: dict[str, str], api: Api, *, chunked: bool = False) -> tuple[int, Any]:
    """Status and JSON of a row's request."""
    own = {name: filled(value, ids) for name, value in row.ids.items()}
    path = filled(row.at or row.route, {**ids, **own}) + filled(row.query, ids)
    body = row.body
    if body is not None and not isinstance(body, bytes):
        body = filled(json.dumps(body), ids).encode()
    headers = {"x-api-key": api.key, "content-type": "application/json", **row.headers}
    data = _chunks(body) if chunked else body
    async with api.session.request(row.method, api.base_url + path, data=data, headers=headers) as response:
        if row.route.startswith("/connect/"):  # for people
            text = await response.text()
            page = response.content_type == "text/html" and 'role="alert"' in text
            return response.status, {"error": {"type": "page"}} if page else text
        return response.status, await response.json(content_type="application/json")


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    yield body


def test_every_route_is_in_the_table() -> None:
    """A new route is not forgotten here: each one that takes anything has a row."""
    served = {(route.method, route.path) for table in ROUTES for route in table}  # type: ignore[attr-defined]
    assert served - NOTHING_TO_SEND == {(row.method, row.route) for row in TABLE}
    assert len(TABLE) >= 60


async def test_bad_input_is_refused_and_changes_nothing(
    database_url: str, redis_url: str, pool: Pool
) -> None:
    """Each row gets its status with a typed JSON error, and every table is as it was before."""
    wrong = []
    async with running_cluster(
        database_url,
        redis_url,
        QLAUD_MAX_BODY_BYTES=str(MAX_BODY),
        QLAUD_ALLOW_PRIVATE_WEBHOOKS="0",
        STRIPE_SECRET_KEY="sk_test_x",
        STRIPE_WEBHOOK_SECRET="whsec_x",
    ) as cluster:
        ids, keys = await seed(cluster, pool)
        before = await fingerprint(pool)
        for row in TABLE:
            for chunked in (False, True) if row.status == 413 else (False,):
                status, answer = await send(row, ids, keys[row.key], chunked=chunked)
                after = await fingerprint(pool)
                changed = [name for name in after if after[name] != before.get(name)]
                typed = isinstance(answer, dict) and "type" in answer.get("error", {})
                if status != row.status or changed or not typed:
                    wrong.append((status, changed, str(row)[:200], str(answer)[:200]))
                before = after
    assert not wrong, "\n".join(map(str, wrong))
