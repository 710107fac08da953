"""Servers on loopback that stand in for vendors whose tools a connector calls.

Each keeps its own state, takes its one credential, holds every request against the vendor's own
specification (`tests/data/vendor_operations.json`; Linear's schema) and answers, also refusals, in the
vendor's shapes. What it was asked is in `calls`, what it made in `made`; `mistakes` says which requests
or answers did not fit the specification, and a test wants it empty.
"""

import contextlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.test_utils import TestServer
from fakes.stripe_schema import typed, unflatten
from jsonschema import Draft202012Validator

DATA = Path(__file__).parents[2] / "data"
FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Answer:
    """What is sent back."""

    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Refused(Exception):
    """The vendor says no."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


@dataclass(frozen=True)
class Call:
    """One request, read; `credential` is what it signed in with."""

    operation: str
    path: dict[str, str]
    query: dict[str, Any]
    headers: Mapping[str, str]
    body: Any
    credential: str


class VendorDouble(ABC):
    """One vendor; the subclasses say what is the vendor's own."""

    slug: ClassVar[str]
    file: ClassVar[str]
    """Which specification it is held against."""

    def __init__(self, credential: str) -> None:
        self.credential = credential
        self.url = ""
        self.calls: list[Call] = []
        self.made: list[dict[str, Any]] = []
        self.mistakes: list[str] = []
        self.revoked = False
        """Whether the credential was taken back."""
        self.faults: list[Answer] = []
        """Answers to the next requests, in place of what would be answered."""

    def forget(self) -> None:
        """Begin anew: nothing was asked, nothing made."""
        self.calls.clear()
        self.made.clear()
        self.mistakes.clear()

    @abstractmethod
    def answer(self, call: Call) -> Answer:
        """The answer to a request that fits the specification."""

    @abstractmethod
    def unauthenticated(self, credential: str) -> Answer:
        """The refusal of a wrong credential; an empty one is none at all."""

    @abstractmethod
    def invalid(self, problems: list[str]) -> Answer:
        """The refusal of a request that does not fit the specification."""

    @abstractmethod
    def unknown(self) -> Answer:
        """The refusal of a path or method that does not exist."""

    def extra_routes(self, app: web.Application) -> None:  # noqa: B027 - most have none
        """Pages beside the API, such as those of OAuth."""

    def operation(self, method: str, path: str) -> tuple[str, dict[str, Any], dict[str, str]] | None:
        """Name, description and path parameters of the operation at a path."""
        for name, said in operations(self.file).items():
            theirs, _, template = name.partition(" ")
            pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
            if method == theirs and (found := re.fullmatch(pattern, path)):
                return name, said, {key: unquote(value) for key, value in found.groupdict().items()}
        return None

    def app(self) -> web.Application:
        """The server's application."""
        app = web.Application(client_max_size=4 * 1024 * 1024)
        self.extra_routes(app)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        try:
            answer = await self._answered(request)
        except Refused as refused:
            answer = refused.answer
        body = msgspec.json.encode(answer.body)
        return web.Response(
            status=answer.status, body=body, headers=answer.headers, content_type="application/json"
        )

    async def _answered(self, request: web.Request) -> Answer:
        found = self.operation(request.method, request.rel_url.raw_path)
        if found is None:
            self.mistakes.append(f"{request.method} {request.path} does not exist")
            return self.unknown()
        name, said, path = found
        call, problems = await self._read(request, name, said, path)
        self.calls.append(call)
        if self.faults:
            return self.faults.pop(0)
        if call.credential != self.credential or self.revoked:
            return self.unauthenticated(call.credential)
        if problems:
            self.mistakes += [f"{name}: {problem}" for problem in problems]
            return self.invalid(problems)
        answer = self.answer(call)
        if "answer" in said and answer.status < 300:
            self.mistakes += [f"answer of {name}: {p}" for p in misfits(said["answer"], answer.body)]
        return answer

    async def _read(
        self, request: web.Request, name: str, said: dict[str, Any], path: dict[str, str]
    ) -> tuple[Call, list[str]]:
        parameters = {p["name"]: p for p in said.get("parameters", ())}
        known = {n: p["schema"] for n, p in parameters.items() if p["in"] == "query"}
        wanted = [n for n, p in parameters.items() if p["in"] == "query" and p["required"]]
        schema = {"type": "object", "properties": known, "required": wanted, "additionalProperties": False}
        query, problems = read_form(dict(request.query), schema)
        steps = {n: p["schema"] for n, p in parameters.items() if p["in"] == "path"}
        problems += read_form(path, {"properties": steps})[1]
        body, more = await self.read_body(request, said)
        credential = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return Call(name, path, query, request.headers.copy(), body, credential), problems + more

    async def read_body(self, request: web.Request, said: dict[str, Any]) -> tuple[Any, list[str]]:
        """The body with types, and what is wrong with it."""
        raw, schema = await request.read(), said.get("body")
        if schema is None:
            return None, ["a body is sent, and the operation has none"] if raw else []
        if not raw:
            return None, misfits(schema, {})
        if request.content_type != said.get("content_type", request.content_type):
            return None, [f"the body is {request.content_type}"]
        if request.content_type == FORM:
            form = {key: str(value) for key, value in (await request.post()).items()}
            return read_form(form, schema)
        try:
            body = json.loads(raw)
        except ValueError:
            return None, ["the body is not JSON"]
        return body, misfits(schema, body)


@cache
def document() -> dict[str, Any]:
    """What was taken of the vendors' specifications."""
    read: dict[str, Any] = json.loads((DATA / "vendor_operations.json").read_text("utf-8"))
    return read


def operations(file: str) -> dict[str, dict[str, Any]]:
    """The operations of a specification by name."""
    found: dict[str, dict[str, Any]] = document()[file]
    return found


def read_form(form: dict[str, str], schema: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Texts as the types that a schema wants, and what is wrong with them."""
    try:
        fields: dict[str, Any] = typed(unflatten(form), schema)
    except (ValueError, KeyError, AttributeError, AssertionError) as error:
        return {}, [f"a field cannot be read: {error}"]
    return fields, misfits(schema, fields)


def misfits(schema: dict[str, Any], value: Any) -> list[str]:
    """Where a value does not fit a schema, in words."""
    checker = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message[:300]}" for error in checker.iter_errors(value)]


@contextlib.asynccontextmanager
async def served(double: VendorDouble) -> AsyncIterator[VendorDouble]:
    """Serve one on loopback as long as the block runs."""
    async with TestServer(double.app()) as server:
        double.url = str(server.make_url("")).rstrip("/")
        yield double
