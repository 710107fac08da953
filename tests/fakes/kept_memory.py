"""`tools.model.Kept` in memory, for tests that need no Postgres."""

from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome


class KeptInMemory:
    """Knows of each key what it was told last, and all large results."""

    def __init__(self) -> None:
        self.outcomes: dict[str, ToolOutcome] = {}
        self.results: dict[str, str] = {}

    async def begin(self, key: str, call: ToolCall, tool: Tool, context: CallContext) -> str | ToolOutcome:
        """The outcome of before, or the call's own id."""
        return self.outcomes.get(key, call.id)

    async def finish(self, key: str, call_id: str, outcome: ToolOutcome, context: CallContext) -> None:
        """Note it."""
        self.outcomes[key] = outcome

    async def keep(self, result_id: str, text: str, context: CallContext) -> None:
        """Note it."""
        self.results[result_id] = text

    async def read(self, result_id: str, context: CallContext) -> str | None:
        """As it was kept."""
        return self.results.get(result_id)
