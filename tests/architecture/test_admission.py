"""Nobody calls a model but through the meter: the shape that makes it so."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]


def attributes(path: Path) -> set[str]:
    """Every attribute that a file reads."""
    return {
        node.attr
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }


def test_handlers_and_actors_do_not_touch_the_caller() -> None:
    """The process holds one `Caller`; the front door and the workers never take it from there."""
    sources = [path for package in ("api", "workers") for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in sources if "caller" in attributes(path)] == []


def test_the_relay_calls_only_through_tickets() -> None:
    """In the gateway one module has the `Caller`, and it opens calls from a ticket or counts for nothing."""
    users = [
        path.name for path in (ROOT / "qlaud_actors/gateway").glob("*.py") if "caller" in attributes(path)
    ]
    assert users == ["admission.py"]
