"""A call of a model whose wire is not its caller's: decoded, and written again in the caller's dialect."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from qlaud_actors.gateway.asks import Writer
from qlaud_actors.providers.caller import Call
from qlaud_actors.providers.model import MessageEnded
from qlaud_actors.providers.reply import ReplyBuilder, characters
from qlaud_actors.usage import Usage


@dataclass(slots=True)
class Translation:
    """One such call; it offers what `providers.passage.Passage` does."""

    call: Call
    writer: Writer
    streamed: bool
    ended: bool = False
    """The answer is complete with the bytes that come next."""
    output_characters: int = 0

    @property
    def accepted(self) -> bool:
        """The provider works on it, and bills."""
        return self.call.accepted

    @property
    def begun(self) -> bool:
        """A part of the answer has come."""
        return self.call.begun

    def billable(self) -> Usage | None:
        """What to bill as things stand; None when the provider never began."""
        return self.call.produced_usage(self.output_characters)

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The answer in the caller's dialect: frames as they come, or one body. Raises ProviderError."""
        reply = ReplyBuilder()
        async with aclosing(self.call.events()) as events:
            async for event in events:
                self.output_characters += characters(event)
                self.ended = isinstance(event, MessageEnded)
                if not self.streamed:
                    reply.add(event)
                elif frames := self.writer.frames(event):
                    yield frames
        if not self.streamed:
            yield self.writer.whole(reply.build())

    async def whole(self) -> bytes:
        """The answer in one body. Raises ProviderError."""
        async with aclosing(self.events()) as pieces:
            return b"".join([piece async for piece in pieces])
