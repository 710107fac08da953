"""What a vendor's wire is here: it checks and reads a request, spells an answer and an error."""

from collections.abc import Mapping
from typing import Any, Protocol

from qlaud_actors.scripted.plan import Piece, Plan, Usage
from qlaud_actors.scripted.refusal import Refusal
from qlaud_actors.scripted.view import View


def bearer(headers: Mapping[str, str]) -> str:
    """The token of an `Authorization: Bearer` header; empty when there is none."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Answer(Protocol):
    """One answer on its way: frames of a stream, or the whole body at once."""

    def start(self, usage: Usage) -> bytes:
        """The frames before the first piece."""

    def piece(self, piece: Piece) -> bytes:
        """The frames of one piece, with those that open and close its block."""

    def end(self, usage: Usage) -> bytes:
        """The frames after the last piece."""

    def broken(self, request_id: str) -> bytes:
        """The frame of an error in the middle."""

    def whole(self, usage: Usage) -> bytes:
        """The body when nothing is streamed."""


class Wire(Protocol):
    """One vendor family's HTTP dialect."""

    name: str
    window: int
    """Input tokens that its models read at most, unless the server is told otherwise."""

    def key(self, headers: Mapping[str, str]) -> str:
        """The caller's API key. Raises Refusal (401, 400) as the vendor does."""

    def read(self, body: Any) -> View:
        """The request as the model sees it. Raises Refusal (400)."""

    def too_long(self, input_tokens: int, window: int) -> Refusal:
        """The refusal of a request that does not fit the context window."""

    def fault(self, status: int, retry_after: float | None) -> Refusal:
        """An error that a script asks for, as the vendor words it."""

    def overloaded(self) -> Refusal:
        """What the vendor answers when it fails before an unstreamed answer is complete."""

    def answer(self, view: View, plan: Plan) -> Answer:
        """The planned answer, to be spelled."""

    def refuse(self, refusal: Refusal, request_id: str) -> bytes:
        """The body of an error."""

    def headers(self, request_id: str) -> dict[str, str]:
        """Headers of every answer."""
