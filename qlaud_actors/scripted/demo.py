"""Without a script: a small model by rules that finds a tool, uses it and says what came of it."""

from typing import Any

import msgspec

from qlaud_actors.scripted.arguments import arguments
from qlaud_actors.scripted.plan import Block, Plan
from qlaud_actors.scripted.script import by_words, tool_block
from qlaud_actors.scripted.view import Exchange, Offer, View

WORD_MS = 15
SEARCH, SCHEMAS, EXECUTE = "qlaud_search_tools", "qlaud_get_tool_schemas", "qlaud_multi_execute"


def answer(view: View) -> Plan:
    """The next answer: a call as long as one is due, then words."""
    exchanges = view.exchanges
    call = _following_call(view, exchanges[-1]) if exchanges else _first_call(view)
    if call is not None:
        return Plan((call,), stop_reason="tool_use", delay_ms=WORD_MS)
    text = _report(exchanges[-1], view.question) if exchanges else _reply(view)
    return Plan((Block("text", by_words(text)),), delay_ms=WORD_MS)


def summary(view: View) -> Plan | None:
    """A few words of what there is to sum up, where the system prompt asks for a summary and nothing else."""
    if view.tools or "write one summary" not in view.system.lower():
        return None
    text = f"They spoke of: {_short(view.question, 300).replace('<<', '').replace('>>', '')}"
    return Plan((Block("text", by_words(text)),))


def _first_call(view: View) -> Block | None:
    """A search where the meta-tools are offered, else the first ordinary tool."""
    offers = {tool.name for tool in view.tools} if view.tool_choice != "none" else set()
    if SEARCH in offers and view.tool_choice in ("auto", "any"):
        return tool_block(view, SEARCH, {"intent": _short(view.question, 200)})
    tool = _ordinary(view) if offers else None
    return tool_block(view, tool.name, arguments(tool.schema, view.question)) if tool else None


def _following_call(view: View, last: Exchange) -> Block | None:
    """After a search the schema of what it found, after the schema the call itself."""
    offers = {tool.name for tool in view.tools}
    known = None if last.result.is_error else _json(last.result.text)
    if last.call.name == SEARCH and (name := _first(known, "results").get("name")):
        if SCHEMAS in offers:
            return tool_block(view, SCHEMAS, {"tools": [name]})
        return _execute(view, name, {"query": view.question}) if EXECUTE in offers else None
    if last.call.name == SCHEMAS and EXECUTE in offers and (found := _first(known, "schemas")):
        return _execute(
            view, str(found.get("name")), arguments(found.get("input_schema") or {}, view.question)
        )
    return None


def _execute(view: View, name: str, values: dict[str, Any]) -> Block:
    return tool_block(view, EXECUTE, {"calls": [{"tool": name, "args": values}]})


def _ordinary(view: View) -> Offer | None:
    """The tool that must be called, or the first that is not one of the meta-tools."""
    named = next((tool for tool in view.tools if tool.name == view.tool_choice), None)
    return named or next((tool for tool in view.tools if not tool.name.startswith("qlaud_")), None)


def _report(last: Exchange, question: str) -> str:
    """What came of the last call, in two to four sentences."""
    asked = _short(question, 120)
    if last.call.name == SEARCH and not last.result.is_error:
        return f"I looked for a tool that could help, but found none. You asked: “{asked}”."
    name, output, failed = _outcome(last)
    if failed:
        return f"I tried {name}, but it failed. It said: {output}. You asked: “{asked}”."
    return f"I looked into it with {name}. It answered: {output}. That is what I know about “{asked}”."


def _outcome(last: Exchange) -> tuple[str, str, bool]:
    """The tool that ran, what it gave and whether it failed; looks into multi_execute."""
    inner = _first(_json(last.result.text), "results") if last.call.name == EXECUTE else {}
    if "tool" not in inner:
        return last.call.name, _short(last.result.text, 400), last.result.is_error
    return str(inner["tool"]), _short(_plain(inner.get("output")), 400), bool(inner.get("is_error"))


def _reply(view: View) -> str:
    earlier = view.earlier_questions
    memory = f"I remember {earlier} earlier message{'' if earlier == 1 else 's'} from you."
    return (
        f"You asked: “{_short(view.question, 400)}”. {memory} I am the scripted model, so I make nothing up."
    )


def _json(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return None


def _first(value: Any, key: str) -> dict[str, Any]:
    """The first object of the list at `key`; empty where there is none."""
    items = value.get(key) if isinstance(value, dict) else None
    return items[0] if isinstance(items, list) and items and isinstance(items[0], dict) else {}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _short(text: str, length: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= length else flat[: length - 1].rstrip() + "…"
