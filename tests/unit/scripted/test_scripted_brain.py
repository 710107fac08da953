"""What the scripted model decides: scripts and the demo's rules, without a socket."""

from typing import Any

import msgspec
import pytest

from qlaud_actors.scripted.brain import decide
from qlaud_actors.scripted.plan import Plan
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import Message, Offer, Part, View

WEATHER = Offer(
    "weather", "Weather", {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
)
META = tuple(
    Offer(name, "", {"type": "object"})
    for name in ("qlaud_search_tools", "qlaud_get_tool_schemas", "qlaud_multi_execute")
)


def said(text: str) -> Message:
    """A message of the user."""
    return Message("user", (Part("text", text),))


def called(name: str, values: dict[str, Any], call_id: str = "c1") -> Message:
    """An answer that calls one tool."""
    text = msgspec.json.encode(values).decode()
    return Message("assistant", (Part("tool_use", text, name=name, input=values, id=call_id),))


def result(value: object, call_id: str = "c1", *, is_error: bool = False) -> Message:
    """The result of a call."""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return Message("user", (Part("tool_result", text, id=call_id, is_error=is_error),))


def view(*messages: Message, **fields: Any) -> View:
    """What the model sees."""
    return View("m", messages, **fields)


def text_of(plan: Plan) -> str:
    """The words of a plan."""
    return "".join(block.text for block in plan.blocks if block.kind == "text")


def calls_of(plan: Plan) -> list[tuple[str, dict[str, Any]]]:
    """Names and inputs of a plan's calls."""
    return [(b.name, msgspec.json.decode(b.text)) for b in plan.blocks if b.kind == "tool_use"]


def test_the_step_is_the_number_of_answers_since_the_question() -> None:
    """Each answer after the question moves the script on; the last step stays."""
    ask = said(
        'hello <<script [{"tools": [{"name": "weather", "input": {"city": "Oslo"}}]}, {"text": "b"}] >> bye'
    )
    first = decide(view(said("before"), ask, tools=(WEATHER,)))
    assert calls_of(first) == [("weather", {"city": "Oslo"})]
    assert first.stop_reason == "tool_use"
    turn = (ask, called("weather", {}), result("rain"))
    assert text_of(decide(view(*turn))) == "b"
    assert text_of(decide(view(*turn, called("weather", {}), result("sun")))) == "b"


def test_a_later_question_ends_an_earlier_script() -> None:
    """Only the last question is searched for a script."""
    plan = decide(view(said('<<script [{"text": "old"}] >>'), said("and now?")))
    assert "and now?" in text_of(plan)
    assert "1 earlier message " in text_of(plan)


@pytest.mark.parametrize(
    "directive",
    [
        "<<script [{]>>",
        '<<script [{"txet": "typo"}] >>',
        '<<script {"text": "no list"} >>',
        "<<script [{}] never closed",
    ],
)
def test_a_script_that_cannot_be_read_is_refused(directive: str) -> None:
    """A typo in a test must not pass as an ordinary question."""
    with pytest.raises(Refusal, match="script cannot be read") as caught:
        decide(view(said(directive)))
    assert caught.value.status == 400


def test_the_json_may_hold_what_closes_a_script() -> None:
    """The directive ends where its JSON ends, not at the first `>>`."""
    assert text_of(decide(view(said('<<script [{"text": "a >> b"}] >> c >> d')))) == "a >> b"


def test_text_is_cut_into_words_or_into_as_many_pieces_as_asked() -> None:
    """Pieces joined are the text again."""
    words = decide(view(said('<<script [{"text": "one two\\nthree "}] >>'))).blocks[0]
    assert words.pieces == ("one ", "two\n", "three ")
    thirds = decide(view(said('<<script [{"text": "abcdefgh", "chunks": 3, "repeat": 2}] >>'))).blocks[0]
    assert (len(thirds.pieces), thirds.text) == (3, "abcdefghabcdefgh")


def test_thinking_comes_first_and_calls_come_last() -> None:
    """The order of blocks is that of a real answer."""
    script = '<<script [{"tools": [{"name": "weather"}], "text": "x", "thinking": "hm"}] >>'
    assert [block.kind for block in decide(view(said(script))).blocks] == ["thinking", "text", "tool_use"]


def test_an_answer_begins_with_a_thought_while_thinking_is_on() -> None:
    """As with the vendor, every answer then has a thinking block in front."""
    plan = decide(view(said('<<script [{"text": "x"}] >>'), thinking=True))
    assert [block.kind for block in plan.blocks] == ["thinking", "text"]


@pytest.mark.parametrize(
    "wire_name", ["linear_create_issue", "linear__create_issue-3fa9", "linear-create_issue_x"]
)
def test_a_slash_name_finds_its_mapped_form(wire_name: str) -> None:
    """Scripts name tools in our form, whatever the wire made of it."""
    tools = (Offer("linear_list", "", {}), Offer(wire_name, "", {}))
    script = '<<script [{"tools": [{"name": "linear/create_issue"}]}] >>'
    assert calls_of(decide(view(said(script), tools=tools))) == [(wire_name, {})]


def test_of_two_mapped_forms_the_closer_one_is_meant() -> None:
    """A tool whose name only goes on further is not the one."""
    tools = (Offer("linear_create_issue_ab12", "", {}), Offer("linear_create_ab34", "", {}))
    script = '<<script [{"tools": [{"name": "linear/create"}]}] >>'
    assert calls_of(decide(view(said(script), tools=tools))) == [("linear_create_ab34", {})]


def test_a_tool_nobody_offered_is_called_all_the_same() -> None:
    """Models invent tools; the platform has to cope."""
    script = '<<script [{"tools": [{"name": "no/such"}]}] >>'
    assert calls_of(decide(view(said(script), tools=(WEATHER,)))) == [("no_such", {})]


def test_echo_tells_what_the_model_saw() -> None:
    """Tests read from it which history, system text and tools arrived."""
    ask = said('hi <<script [{"echo": true}] >>')
    shown = msgspec.json.decode(text_of(decide(view(said("one"), ask, system="be kind", tools=(WEATHER,)))))
    assert shown["system"] == "be kind"
    assert shown["tools"] == ["weather"]
    assert [m["role"] for m in shown["messages"]] == ["user", "user"]
    assert shown["messages"][0]["blocks"] == [{"type": "text", "text": "one"}]


def test_the_demo_searches_reads_the_schema_executes_and_reports() -> None:
    """With the meta-tools it walks the whole way from a question to an answer."""
    talk = [said("What is the weather in Paris today?")]
    [(name, values)] = calls_of(decide(view(*talk, tools=META)))
    assert (name, values) == ("qlaud_search_tools", {"intent": "What is the weather in Paris today?"})
    talk += [called(name, values), result({"results": [{"name": "acme/weather", "kind": "webhook"}]})]
    [(name, values)] = calls_of(decide(view(*talk, tools=META)))
    assert (name, values) == ("qlaud_get_tool_schemas", {"tools": ["acme/weather"]})
    found = {"schemas": [{"name": "acme/weather", "description": "", "input_schema": WEATHER.schema}]}
    talk += [called(name, values), result(found)]
    [(name, values)] = calls_of(decide(view(*talk, tools=META)))
    assert (name, values) == (
        "qlaud_multi_execute",
        {"calls": [{"tool": "acme/weather", "args": {"city": "Paris"}}]},
    )
    talk += [
        called(name, values),
        result({"results": [{"tool": "acme/weather", "output": {"sky": "clear"}}]}),
    ]
    plan = decide(view(*talk, tools=META))
    assert '{"sky":"clear"}' in text_of(plan)
    assert (plan.stop_reason, plan.delay_ms) == ("end_turn", 15)


def test_the_demo_says_so_when_nothing_is_found() -> None:
    """An empty search ends in words."""
    talk = (said("fly me to the moon"), called("qlaud_search_tools", {}), result({"results": []}))
    assert "found none" in text_of(decide(view(*talk, tools=META)))


@pytest.mark.parametrize(
    "failure",
    [
        result("not connected", is_error=True),
        result({"results": [{"tool": "t", "output": "not connected", "is_error": True}]}),
    ],
)
def test_the_demo_reports_a_failed_tool(failure: Message) -> None:
    """A failure is told, not tried again."""
    plan = decide(view(said("go"), called("qlaud_multi_execute", {}), failure, tools=META))
    assert "failed" in text_of(plan)
    assert "not connected" in text_of(plan)


def test_the_demo_calls_the_first_ordinary_tool_once() -> None:
    """Without meta-tools it uses what is offered, then quotes the result."""
    talk = (said("How warm is it in New York?"),)
    assert calls_of(decide(view(*talk, tools=(WEATHER,)))) == [("weather", {"city": "New York"})]
    plan = decide(view(*talk, called("weather", {}), result("21 degrees"), tools=(WEATHER,)))
    assert calls_of(plan) == []
    assert "21 degrees" in text_of(plan)


def test_tool_choice_none_is_obeyed() -> None:
    """A request that forbids tools gets words."""
    assert calls_of(decide(view(said("hi"), tools=(WEATHER,), tool_choice="none"))) == []


def test_a_quote_is_found_in_the_last_results() -> None:
    """`{quote}` of a text becomes what the pattern finds in the results, or says that it found nothing."""
    ask = said('<<script [{"tools": [{"name": "a"}]}, {"text": "It is {quote}!", "quote": "ENG-[0-9]+"}] >>')
    turn = (ask, called("a", {}))
    assert text_of(decide(view(*turn, result({"issue": {"id": "ENG-7"}})))) == "It is ENG-7!"
    assert text_of(decide(view(*turn, result("no such team")))) == "It is (nothing like ENG-[0-9]+)!"


def test_a_quote_must_be_a_pattern() -> None:
    """A pattern that cannot be read is refused as any script that cannot."""
    with pytest.raises(Refusal):
        decide(view(said('<<script [{"text": "{quote}", "quote": "("}] >>')))
