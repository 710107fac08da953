"""Runs built-ins: opens the configuration, and hands the call to what does the work."""

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from qlaud_actors.artifacts import store as artifacts
from qlaud_actors.artifacts.model import Origin
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.db.pool import ConnectionLost, Pool
from qlaud_actors.log import get_logger
from qlaud_actors.tools.builtins import artifact_tool, http_call, http_config, image
from qlaud_actors.tools.builtins.calculator import calculate
from qlaud_actors.tools.builtins.catalog import Builtins
from qlaud_actors.tools.builtins.http_call import LOCKED
from qlaud_actors.tools.builtins.model import Offer
from qlaud_actors.tools.builtins.template import TemplateProblem
from qlaud_actors.tools.builtins.vendor import VendorTools, no_answer
from qlaud_actors.tools.model import CallContext, Tool, ToolCall, ToolOutcome
from qlaud_actors.tools.secrets import NOT_ON_RECORD, opened
from qlaud_actors.tools.store import session_metadata

logger = get_logger(__name__)


class BuiltinCaller:
    """One for each process."""

    def __init__(
        self,
        builtins: Builtins,
        vendors: VendorTools,
        pool: Pool,
        *,
        allow_private: bool,
        openai_base_url: str | None = None,
    ) -> None:
        self.builtins = builtins
        self._vendors = vendors
        self._sender: Sender = vendors.sender
        self._pool = pool
        self._allow_private = allow_private
        self._openai_base_url = openai_base_url

    async def call(self, tool: Tool, call: ToolCall, context: CallContext) -> ToolOutcome:
        """The outcome; whatever goes wrong is an outcome in words for the model."""
        offer = self.builtins.find(tool.provider)
        if offer is None:
            return _failed("This built-in is no longer offered here: tell the user.")
        try:
            secret = await opened(tool.config, f"tool_call:{call.id}", tool_id=tool.id)
        except ConnectionLost:
            return _failed(NOT_ON_RECORD)
        if secret is None and tool.config is not None:
            return _failed("This tool's configuration cannot be read here: it has to be registered again.")
        config = msgspec.json.decode(secret.reveal(), type=dict[str, str]) if secret else {}
        start = time.monotonic()
        outcome = await self._run(offer, tool, call, config, context)
        logger.info(
            "builtin_call",
            tool_id=tool.id,
            provider=offer.provider,
            call_id=call.id,
            is_error=outcome.is_error,
            ms=round((time.monotonic() - start) * 1000),
        )
        return outcome

    async def _run(
        self, offer: Offer, tool: Tool, call: ToolCall, config: Mapping[str, str], context: CallContext
    ) -> ToolOutcome:
        match offer.builtin.code:
            case None:
                return await self._vendors.run(offer, tool, call, config, context)
            case "calculator":
                return calculate(call.input["expression"])
            case "artifacts":
                return await artifact_tool.run(self._pool, call.input, context)
            case "image":
                return await self._picture(tool, call, config, context)
            case "http_call":
                return await self._http_call(tool, call, config, context)

    async def _http_call(
        self, tool: Tool, call: ToolCall, config: Mapping[str, str], context: CallContext
    ) -> ToolOutcome:
        try:
            configured = http_config.read(config, allow_private=self._allow_private)
            session = await self._session(context) if configured.needs_session else _NO_SESSION
            request = configured.request(call.input, session, call.id)
        except TemplateProblem as problem:
            return _failed(f"The call was not made: {problem}.")
        try:
            received = await self._sender.send(request, seconds=tool.timeout_ms / 1000)
        except SendFailed as failed:
            return no_answer("The endpoint", failed, tool)
        return http_call.outcome(configured, received)

    async def _session(self, context: CallContext) -> dict[str, dict[str, Any]]:
        """What is known of the conversation; a model cannot change it, and only admin keys what is locked."""
        metadata: dict[str, Any] = {}
        vouched: dict[str, Any] = {}
        if context.thread_id is not None:
            metadata, vouched = await session_metadata(self._pool, context.account_id, context.thread_id)
        thread_id = str(context.thread_id) if context.thread_id else None
        return {
            "end_user": {"id": context.end_user_id, "metadata": metadata},
            "thread": {"id": thread_id, "metadata": metadata},
            LOCKED: vouched,
        }

    async def _picture(
        self, tool: Tool, call: ToolCall, config: Mapping[str, str], context: CallContext
    ) -> ToolOutcome:
        request = image.request(config, call.input, self._openai_base_url)
        try:
            trusted = self._openai_base_url is not None
            received = await self._sender.send(request, trusted=trusted, seconds=tool.timeout_ms / 1000)
            content, mime = image.picture(config, received)
        except SendFailed as failed:
            return no_answer("OpenAI", failed, tool)
        except image.NoPicture as problem:
            return _failed(str(problem))
        name = f"image-{call.id}.{mime.rpartition('/')[2]}"
        whose = artifact_tool.owner(context)
        origin = Origin(context.thread_id, context.key_id)
        kept = await artifacts.keep(self._pool, context.account_id, whose, name, mime, content, origin)
        if kept is None:
            return _failed("The picture was made, but there is no room to keep it.")
        told = {"name": name, "mime": mime, "bytes": kept.size, "url": artifact_tool.DOWNLOAD.format(kept.id)}
        return ToolOutcome({"image": told})


_NO_SESSION: dict[str, dict[str, Any]] = {"end_user": {}, "thread": {}, LOCKED: {}}


def _failed(words: str) -> ToolOutcome:
    return ToolOutcome(words, is_error=True)
