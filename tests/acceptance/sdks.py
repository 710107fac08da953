"""The two official SDKs behind one face, so that a test is written once for both.

What a test says in neutral words, an SDK says in its own; what comes back is read into an `Answer`.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import anthropic
import openai
from cluster import MODEL, OPENAI_MODEL

Message = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """A tool call."""

    id: str
    name: str
    input: Any


@dataclass(frozen=True)
class Figures:
    """Usage as the SDK shows it; `input` holds all tokens that were read, cached ones too."""

    input: int
    cached: int
    written: int
    output: int


@dataclass(frozen=True)
class Answer:
    """What an answer came to. `said` is the message to hand back in the next request."""

    text: str
    thinking: str
    calls: tuple[Call, ...]
    stop: str
    usage: Figures
    said: Any
    parsed: Any = None


class Claude:
    """Anthropic's SDK."""

    path = "/v1/messages"
    errors = anthropic
    classes = {  # noqa: RUF012 - never changed
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "PaymentRequiredError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        409: "ConflictError",
        413: "ContentTooLargeError",
        422: "UnprocessableEntityError",
        429: "RateLimitError",
        500: "InternalServerError",
        502: "InternalServerError",
        503: "ServiceUnavailableError",
        504: "GatewayTimeoutError",
        529: "OverloadedError",
    }

    def __init__(self, base_url: str, key: str) -> None:
        self.client = anthropic.AsyncAnthropic(api_key=key, base_url=base_url, max_retries=0)

    async def ask(self, model: str, messages: list[Message], *, stream: bool, **fields: Any) -> Answer:
        """A message, read to its end by the SDK's own means."""
        given: dict[str, Any] = {"model": model, "max_tokens": 8_000, "messages": messages, **fields}
        if stream:
            async with self.client.messages.stream(**given) as answer:
                message: Any = await answer.get_final_message()
        elif "output_format" in given:
            message = await self.client.messages.parse(**given)
        else:
            message = await self.client.messages.create(**given)
        usage, of = message.usage, lambda kind: [block for block in message.content if block.type == kind]
        cached, written = usage.cache_read_input_tokens or 0, usage.cache_creation_input_tokens or 0
        return Answer(
            text="".join(block.text for block in of("text")),
            thinking="".join(block.thinking for block in of("thinking")),
            calls=tuple(Call(block.id, block.name, block.input) for block in of("tool_use")),
            stop=message.stop_reason,
            usage=Figures(usage.input_tokens + cached + written, cached, written, usage.output_tokens),
            said={"role": "assistant", "content": message.content},
            parsed=getattr(message, "parsed_output", None),
        )

    async def deltas(self, model: str, messages: list[Message]) -> AsyncIterator[str]:
        """The text of a stream, piece by piece; leaving it closes the connection."""
        given: dict[str, Any] = {"model": model, "max_tokens": 200, "messages": messages}
        async with self.client.messages.stream(**given) as answer:
            async for piece in answer.text_stream:
                yield piece

    def user(self, text: str, *, image: str | None = None, cached: bool = False) -> list[Message]:
        """One message of the user."""
        block: Message = {"type": "text", "text": text}
        blocks = [{**block, "cache_control": {"type": "ephemeral"}} if cached else block]
        if image and image.startswith("data:"):
            head, _, data = image.partition(";base64,")
            source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
            blocks.append({"type": "image", "source": source})
        elif image:
            blocks.append({"type": "image", "source": {"type": "url", "url": image}})
        return [{"role": "user", "content": blocks}]

    def tool(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """A tool on offer."""
        return {"name": name, "description": "A tool.", "input_schema": schema}

    def choice(self, name: str) -> dict[str, Any]:
        """The tool that must be called."""
        return {"type": "tool", "name": name}

    def think(self) -> dict[str, Any]:
        """The fields that ask for thinking."""
        return {"thinking": {"type": "enabled", "budget_tokens": 2_000}}

    def results(self, answer: Answer, output: str) -> list[Message]:
        """The calls' results, the last one a failure, behind the answer that made the calls."""
        blocks = [
            {
                "type": "tool_result",
                "tool_use_id": call.id,
                "content": output,
                "is_error": call is answer.calls[-1],
            }
            for call in answer.calls
        ]
        return [answer.said, {"role": "user", "content": blocks}]

    async def close(self) -> None:
        """Close its connections."""
        await self.client.close()


class Gpt:
    """OpenAI's SDK."""

    path = "/v1/chat/completions"
    errors = openai
    classes = {  # noqa: RUF012 - never changed
        400: "BadRequestError",
        401: "AuthenticationError",
        402: "APIStatusError",
        403: "PermissionDeniedError",
        404: "NotFoundError",
        409: "ConflictError",
        413: "APIStatusError",
        422: "UnprocessableEntityError",
        429: "RateLimitError",
        **dict.fromkeys((500, 502, 503, 504, 529), "InternalServerError"),
    }

    def __init__(self, base_url: str, key: str) -> None:
        self.client = openai.AsyncOpenAI(api_key=key, base_url=f"{base_url}/v1", max_retries=0)

    async def ask(self, model: str, messages: list[Message], *, stream: bool, **fields: Any) -> Answer:
        """A completion, read to its end by the SDK's own means."""
        given: dict[str, Any] = {"model": model, "messages": messages, **fields}
        if "max_tokens" in given:
            given["max_completion_tokens"] = given.pop("max_tokens")
        if wanted := given.pop("output_format", None):
            given["response_format"] = wanted
        completions: Any = self.client.chat.completions
        if stream:
            options = {"include_usage": True}
            async with completions.stream(**given, stream_options=options) as answer:
                async for _ in answer:
                    pass
                completion = await answer.get_final_completion()
        else:
            completion = await (completions.parse if wanted else completions.create)(**given)
        message, usage = completion.choices[0].message, completion.usage
        details = usage.prompt_tokens_details
        written = (details.model_extra or {}).get("cache_write_tokens") or getattr(
            details, "cache_write_tokens", None
        )
        return Answer(
            text=message.content or "",
            thinking=(message.model_extra or {}).get("reasoning_content") or "",
            calls=tuple(
                Call(call.id, call.function.name, json.loads(call.function.arguments))
                for call in message.tool_calls or ()
            ),
            stop=completion.choices[0].finish_reason,
            usage=Figures(
                usage.prompt_tokens, details.cached_tokens or 0, written or 0, usage.completion_tokens
            ),
            said=_said(message),
            parsed=getattr(message, "parsed", None),
        )

    async def deltas(self, model: str, messages: list[Message]) -> AsyncIterator[str]:
        """The text of a stream, piece by piece; leaving it closes the connection."""
        stream: Any = await self.client.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            stream=True,
        )
        try:
            async for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content
        finally:
            await stream.close()

    def user(self, text: str, *, image: str | None = None, cached: bool = False) -> list[Message]:
        """One message of the user."""
        part: Message = {"type": "text", "text": text}
        parts = [{**part, "cache_control": {"type": "ephemeral"}} if cached else part]
        if image:
            parts.append({"type": "image_url", "image_url": {"url": image}})
        return [{"role": "user", "content": parts}]

    def tool(self, name: str, schema: dict[str, Any]) -> dict[str, Any]:
        """A tool on offer."""
        function = {"name": name, "description": "A tool.", "parameters": schema}
        return {"type": "function", "function": function}

    def choice(self, name: str) -> dict[str, Any]:
        """The tool that must be called."""
        return {"type": "function", "function": {"name": name}}

    def think(self) -> dict[str, Any]:
        """The fields that ask for thinking."""
        return {"reasoning_effort": "low"}

    def results(self, answer: Answer, output: str) -> list[Message]:
        """The calls' results behind the answer that made the calls."""
        answers = [{"role": "tool", "tool_call_id": call.id, "content": output} for call in answer.calls]
        return [answer.said, *answers]

    async def close(self) -> None:
        """Close its connections."""
        await self.client.close()


def _said(message: Any) -> Message:
    """The message as OpenAI's guides hand it back: its words and its calls."""
    kept = message.model_dump(exclude_none=True, include={"role", "content", "tool_calls"})
    for call in kept.get("tool_calls", ()):
        call["function"].pop("parsed_arguments", None)
        call.pop("index", None)
    return {"content": None, **kept}


Sdk = Claude | Gpt


class Cell(NamedTuple):
    """Who asks whom, and how."""

    sdk: type[Claude] | type[Gpt]
    model: str
    stream: bool

    @property
    def same_wire(self) -> bool:
        """Whether the bytes pass through."""
        return (self.sdk is Claude) == (self.model == MODEL)

    def __str__(self) -> str:
        return f"{self.sdk.__name__}-{self.model}-{'stream' if self.stream else 'whole'}".lower()


CELLS = [
    Cell(sdk, model, stream)
    for sdk in (Claude, Gpt)
    for model in (MODEL, OPENAI_MODEL)
    for stream in (False, True)
]
