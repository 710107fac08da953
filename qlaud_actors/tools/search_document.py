"""What the search knows of a tool or of a connector's action: its names and texts, in words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from qlaud_actors.connectors.inputs import input_schema
from qlaud_actors.connectors.model import Action, Connector, Effect
from qlaud_actors.tools.model import Tool
from qlaud_actors.tools.search_words import stems

REMEMBERED = 20_000
"""Documents kept by their text, so that the same tools are not read anew for every search."""

MAX_TEXT = 1_000
"""Characters of a description that are searched."""

SYNONYMS_TOGETHER = 3
"""Synonyms that share a vector: one alone says little, all together say nothing clearly."""


@dataclass(frozen=True, eq=False)
class SearchDocument:
    """One thing that may be found. Equal only to itself: the same text gives the same document."""

    name: str
    kind: str
    """As results say it: `webhook`, `mcp`, `builtin`."""
    description: str
    title: str
    """The name in words."""
    effect: Effect
    parameters: str = ""
    synonyms: tuple[str, ...] = ()
    connector: str | None = None
    vendor: str = ""
    """The vendor's name, of a connector's action."""
    about: str = ""
    """The vendor's synonyms."""

    @cached_property
    def family(self) -> str:
        """What it shares a page with in moderation: a vendor, an MCP server, a system."""
        return self.connector or self.name.partition("/")[0]

    @cached_property
    def meaning(self) -> str:
        """The text whose vector stands for the whole."""
        also = f" ({', '.join(self.synonyms)})" if self.synonyms else ""
        return f"{self.vendor} {self.title}{also}. {self.description[:MAX_TEXT]}".strip()

    @cached_property
    def phrases(self) -> tuple[str, ...]:
        """Short texts, of which the nearest to an intent counts."""
        step = SYNONYMS_TOGETHER
        groups = (self.synonyms[start : start + step] for start in range(0, len(self.synonyms), step))
        return (self.title, *(", ".join(group) for group in groups))

    @cached_property
    def stems(self) -> dict[str, list[str]]:
        """The stems of each field."""
        return {
            "title": stems(self.title),
            "synonyms": stems(" ".join(self.synonyms)),
            "description": stems(self.description[:MAX_TEXT]),
            "parameters": stems(self.parameters),
            "about": stems(self.about),
        }


def of_tools(tools: Sequence[Tool]) -> tuple[SearchDocument, ...]:
    """A document for each tool."""
    return tuple(
        _of_tool(
            tool.name,
            tool.wire_kind,
            tool.description,
            _parameters(tool.input_schema),
            tool.effect,
            tool.connector if tool.kind == "mcp" else None,
        )
        for tool in tools
    )


@lru_cache(maxsize=REMEMBERED)
def _of_tool(
    name: str, kind: str, description: str, parameters: str, effect: Effect, connector: str | None
) -> SearchDocument:
    title = name.replace("/", " ").replace("_", " ")
    return SearchDocument(name, kind, description, title, effect, parameters, connector=connector)


def _parameters(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    return " ".join(properties) if isinstance(properties, dict) else ""


def of_connector(connector: Connector) -> list[SearchDocument]:
    """A document for each of its actions."""
    return [_of_action(connector, action) for action in connector.actions]


def _of_action(connector: Connector, action: Action) -> SearchDocument:
    return SearchDocument(
        name=f"{connector.slug}/{action.name}",
        kind="mcp",
        description=action.description,
        title=f"{action.title} {action.name.replace('_', ' ')}",
        effect=action.effect,
        parameters=_parameters(input_schema(connector, action)),
        synonyms=action.synonyms,
        connector=connector.slug,
        vendor=connector.name,
        about=" ".join(connector.synonyms),
    )
