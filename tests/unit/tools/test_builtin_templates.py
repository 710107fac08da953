"""The grammar of http-call: where a value may stand, how it is escaped, what it can never do."""

from typing import Any

import msgspec
import pytest

from qlaud_actors.tools.builtins import http_config
from qlaud_actors.tools.builtins.http_call import HttpCall, blotted
from qlaud_actors.tools.builtins.template import TemplateProblem, fill, parse

SESSION = {
    "end_user": {"id": "ada", "metadata": {"email": "ada@example.com", "plan": {"name": "pro"}}},
    "thread": {"id": "t1", "metadata": {"email": "ada@example.com"}},
    "locked": {"email": "ada@admin.example"},
}
NASTY = 'a"b\\c\n/../..?x=1&y=#z%2e{{secrets.KEY}}é'
API = "https://api.example.com"


def read(**config: str) -> HttpCall:
    """A configuration at a public host."""
    return http_config.read({"url": f"{API}/x", "method": "POST", **config}, allow_private=False)


def test_a_value_stays_in_its_json_string_and_is_not_read_again() -> None:
    """Whatever a model gives is one JSON string, or one JSON value; placeholders in it are only text."""
    template = parse('{"said": "<{{input.x}}>", "raw": {{ input.x }}, "n": {{input.n}}, "no": {{input.no}}}')
    filled = fill(template, {"input": {"x": NASTY, "n": [1, 2.5]}, "secrets": {"KEY": "s3cr3t"}}, "json")
    assert msgspec.json.decode(filled) == {"said": f"<{NASTY}>", "raw": NASTY, "n": [1, 2.5], "no": None}


def test_quotes_that_are_escaped_do_not_end_a_string() -> None:
    """The scanner follows JSON's own rules, across pieces."""
    template = parse(r'{"a": "\"{{input.x}}\\", "b": {{input.x}}}')
    assert msgspec.json.decode(fill(template, {"input": {"x": '"'}}, "json")) == {"a": '""\\', "b": '"'}


def test_a_value_stays_in_its_segment_parameter_and_form_field() -> None:
    """Slashes, ampersands and fragments are escaped; the host and the other parameters are as written."""
    call = read(
        url=f"{API}/users/{{{{input.id}}}}/notes?q={{{{input.id}}}}&key=1",
        headers='{"Content-Type": "application/x-www-form-urlencoded"}',
        body_template="a={{input.id}}&b=2",
    )
    request = call.request({"id": "../x?y=1&z#"}, SESSION, "call_1")
    escaped = "..%2Fx%3Fy%3D1%26z%23"
    assert request.url == f"{API}/users/{escaped}/notes?q={escaped}&key=1"
    assert request.body == f"a={escaped}&b=2".encode()


def test_xml_is_escaped_and_text_is_text() -> None:
    """The content type decides."""
    xml = read(headers='{"content-type": "text/xml"}', body_template="<a b='{{input.x}}'/>")
    assert xml.request({"x": "'<&>"}, SESSION, "c").body == b"<a b='&apos;&lt;&amp;&gt;'/>"
    text = read(headers='{"content-type": "text/plain; charset=utf-8"}', body_template="{{input.x}}!")
    assert text.request({"x": "<&>"}, SESSION, "c").body == b"<&>!"


@pytest.mark.parametrize("value", ["", ".", "..", None])
def test_a_segment_is_never_empty_or_folded_away(value: str | None) -> None:
    """DELETE /users/ and DELETE /users/.. are other calls than the one that was configured."""
    call = read(url=f"{API}/users/{{{{input.id}}}}", method="DELETE")
    with pytest.raises(TemplateProblem, match="path"):
        call.request({"id": value}, SESSION, "call_1")
    with pytest.raises(TemplateProblem, match="path"):
        read(url=f"{API}/.{{{{input.id}}}}/x").request({"id": "."}, SESSION, "call_1")


@pytest.mark.parametrize("value", ["a\r\nX-Admin: 1", "a\nb", "ü", "\x00", "x" * 4001])
def test_a_header_cannot_be_split(value: str) -> None:
    """Line breaks and what is no ASCII refuse the call."""
    with pytest.raises(TemplateProblem, match="header X-User"):
        read(headers='{"X-User": "{{input.x}}"}').request({"x": value}, SESSION, "call_1")


def test_the_session_is_trusted_and_never_made_up() -> None:
    """Locked inputs are what an admin key has said, whatever the model says; what lacks refuses the call."""
    call = read(
        body_template='{"email":"{{input.email}}","id": "{{end_user.id}}","m": "{{thread.metadata.email}}"}',
        lock_input_fields='["email"]',
    )
    sent = msgspec.json.decode(call.request({"email": "eve@evil.example"}, SESSION, "c").body or b"")
    assert sent == {"email": "ada@admin.example", "id": "ada", "m": "ada@example.com"}
    nobody: dict[str, dict[str, Any]] = {**SESSION, "end_user": {}, "locked": {}}
    with pytest.raises(TemplateProblem, match="locked"):
        call.request({"email": "eve@evil.example"}, nobody, "c")
    with pytest.raises(TemplateProblem, match=r"no .*end_user\.id"):
        read(headers='{"X-User": "{{end_user.id}}"}').request({}, nobody, "c")
    ids = read(
        url=f"{API}/{{{{input.end_user_id}}}}/{{{{input.thread_id}}}}",
        lock_input_fields='["end_user_id","thread_id"]',
    )
    assert ids.request({"end_user_id": "eve"}, SESSION, "c").url == f"{API}/ada/t1"


def test_a_model_is_shown_neither_locked_inputs_nor_secrets() -> None:
    """Without a schema of its own, each input that the templates name is a text."""
    call = read(
        url=f"{API}/{{{{input.id}}}}?u={{{{input.user}}}}",
        headers='{"Authorization": "Bearer {{secrets.TOKEN}}"}',
        secrets='{"TOKEN": "s3cr3t-token"}',
        lock_input_fields='["user"]',
    )
    schema = http_config.schema_for(call, None)
    assert (list(schema["properties"]), schema["required"]) == (["id"], ["id"])
    given = {"type": "object", "properties": {"id": {"type": "integer"}, "user": {}}, "required": ["user"]}
    assert http_config.schema_for(call, given) == {
        "type": "object",
        "properties": {"id": {"type": "integer"}},
    }
    http_config.check_names(call, schema)


def test_the_call_carries_its_idempotency_key() -> None:
    """Unless it only reads, or the developer has named another."""
    assert read().request({}, SESSION, "call_9").headers == {"Idempotency-Key": "call_9"}
    assert read(method="GET").request({}, SESSION, "call_9").headers == {}
    own = read(headers='{"idempotency-key": "{{thread.id}}-{{call.id}}"}')
    assert own.request({}, SESSION, "c9").headers == {"idempotency-key": "t1-c9"}
    assert [read(method=m).effect for m in ("GET", "PUT", "DELETE", "POST", "PATCH")] == [
        "read", "idempotent", "idempotent", "write", "write",
    ]  # fmt: skip


def test_secrets_are_blotted_out_in_every_spelling() -> None:
    """Plain, percent-encoded, in JSON; in keys as well."""
    call = read(secrets='{"A": "p@ss word\\"1"}')
    answer = {'p@ss word"1': ["x p%40ss%20word%221 y", 'p@ss word\\"1'], "n": 1}
    assert blotted(answer, call.spelled()) == {"[hidden]": ["x [hidden] y", "[hidden]"], "n": 1}


BAD: list[dict[str, str]] = [
    *(
        {"url": url}
        for url in (
            "",
            "api.example.com/x",
            "ftp://api.example.com/x",
            "http://api.example.com/x",
            "https://{{input.host}}/x",
            "https://{{secrets.HOST}}/x",
            "https://api.{{input.x}}.example.com/x",
            "https://api.example.com{{input.x}}",
            "https://api.example.com:{{input.port}}/x",
            "{{input.scheme}}://api.example.com/x",
            "{{input.url}}",
            "https://api.example.com@{{input.x}}/",
            "https://user:pass@api.example.com/x",
            "https://api.example.com\\@evil.example/x",
            "https://api.example.com/x#{{input.x}}",
            "https://api.example.com/a b",
            "https://api.example.com/../x",
            "https://127.0.0.1/x",
            "https://api.example.com/{{input.x",
            "https://api.example.com/{{input x}}",
            "https://api.example.com/{{env.PATH}}",
            "https://api.example.com/{{Input.x}}",
        )
    ),
    *(
        {"headers": headers}
        for headers in (
            "x",
            "[]",
            '{"X": 1}',
            '{"Host": "evil.example"}',
            '{"content-length": "1"}',
            '{"Transfer-Encoding": "chunked"}',
            '{"X Y": "1"}',
            '{"X": "a\\r\\nb"}',
            '{"X": "1", "x": "2"}',
            '{"Content-Type": "{{input.x}}"}',
            '{"X": "{{nobody.x}}"}',
        )
    ),
    {"secrets": "{"},
    {"secrets": '{"A": "short"}'},
    {"secrets": '{"a b": "long enough"}'},
    {"lock_input_fields": "email"},
    {"lock_input_fields": '["a b"]'},
    {"lock_input_fields": '{"a": 1}'},
    {"body_template": '{"a": "{{input.x}}'},
    {"body_template": '{"a": {{input.x}}'},
    {"body_template": "{{}}"},
    {"method": "GET", "body_template": "{}"},
    {"headers": '{"content-type": "application/octet-stream"}', "body_template": "x"},
]


@pytest.mark.parametrize("config", BAD, ids=lambda config: str(next(iter(config.values())))[:40])
def test_a_wrong_configuration_is_refused_in_words(config: dict[str, str]) -> None:
    """The words begin with the field that is at fault."""
    with pytest.raises(
        TemplateProblem, match=r"^`config\.(url|headers|secrets|lock_input_fields|body_template)`: "
    ):
        read(**config)


@pytest.mark.parametrize(
    "placeholder",
    [
        "input.other",
        "secrets.OTHER",
        "secrets",
        "end_user",
        "end_user.name",
        "thread.metadata",
        "thread.key",
        "call.x",
    ],
)
def test_a_placeholder_that_stands_for_nothing_is_refused(placeholder: str) -> None:
    """It is found when the tool is registered, not when it is called."""
    call = read(url=f"{API}/{{{{{placeholder}}}}}", secrets='{"KEY": "long enough"}')
    with pytest.raises(TemplateProblem, match="stands for nothing"):
        http_config.check_names(call, {"type": "object", "properties": {"x": {}}})
