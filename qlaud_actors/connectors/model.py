"""What a connector file declares: a vendor, how to sign in, and what can be done there.

The classes are the file format (`docs/reference/connector-files.md`); unknown fields are refused.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from qlaud_actors.connectors.template import Template

Slug: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9-]{1,31}$")]
Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Line: TypeAlias = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f]+$")]
Prose: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2000)]
Path: TypeAlias = Annotated[str, Meta(max_length=200, pattern=r"^(-?\w[\w-]*|\*)(\.(-?\w[\w-]*|\*))*$")]
"""Steps into an answer, joined by dots: a key, a position (`-1` is the last) or `*` (each of a list)."""
RequestLine: TypeAlias = Annotated[str, Meta(pattern=r"^(GET|POST|PUT|PATCH|DELETE) /[^\s?#]*$")]
HeaderName: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9-]{0,63}$")]
Https: TypeAlias = Annotated[str, Meta(max_length=500, pattern=r"^https://[^\s]+$")]

Effect: TypeAlias = Literal["read", "idempotent", "write"]
"""What a repetition may do: nothing, the same thing, or a second thing."""

Category: TypeAlias = Literal[
    "analytics", "automation", "calendar", "chat", "commerce", "crm", "data", "design", "developer",
    "documents", "email", "files", "forms", "hosting", "marketing", "monitoring", "payments", "projects",
    "support", "telephony",
]  # fmt: skip
Encoding: TypeAlias = Literal["json", "form"]
Lists: TypeAlias = Literal["repeat", "comma", "brackets", "indexed"]
"""A list in a query or form: `a=1&a=2`, `a=1,2`, `a[]=1&a[]=2` or `a[0]=1&a[1]=2`."""


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of a file."""


class Field(Part, frozen=True, kw_only=True):
    """Something that a person gives when connecting; the page's form is drawn from these."""

    name: Name
    label: Line
    help: Prose
    """Where to find it, in words."""
    help_url: Https | None = None
    secret: bool = False
    pattern: Annotated[str, Meta(max_length=300)] | None = None
    """Must match the whole value."""
    example: Line | None = None
    default: Line | None = None
    optional: bool = False


class Lookup(Part, frozen=True, kw_only=True):
    """A call after the sign-in that finds more connection fields."""

    url: Https
    fields: dict[Name, Path]


class OAuth2(Part, frozen=True, kw_only=True):
    """The authorization-code flow of a vendor."""

    authorize_url: Https
    token_url: Https
    scopes: tuple[Line, ...] = ()
    scope_separator: Literal[" ", ","] = " "
    scope_param: Literal["scope", "user_scope"] = "scope"
    pkce: bool = True
    refresh: Literal["rotating", "kept", "none"] = "rotating"
    """`rotating`: each refresh gives a new refresh token; `kept`: the first stays; `none`: no expiry."""
    client_auth: Literal["body", "basic"] = "body"
    token_body: Encoding = "form"  # noqa: S105 - the name of an encoding
    token_path: Path = "access_token"  # noqa: S105 - a path into the answer
    authorize_params: dict[str, Line] = {}
    keep: dict[Name, Path] = {}
    """Connection fields taken from the token's answer."""
    lookup: Lookup | None = None
    revoke_url: Https | None = None
    """Where a token is revoked as in RFC 7009; only where that leaves other connections alone."""
    app_url: Https | None = None
    """Where an operator registers the application."""


class Auth(Part, frozen=True, kw_only=True):
    """One way to sign in."""

    scheme: Literal["api_key", "bearer", "basic", "oauth2"]
    label: Line
    fields: tuple[Field, ...] = ()
    headers: dict[HeaderName, Line] = {}
    query: dict[str, Line] = {}
    username: Line | None = None
    password: str | None = None
    oauth2: OAuth2 | None = None
    base_url: Https | None = None
    """Where this way of signing in has another address."""


class Verify(Part, frozen=True, kw_only=True):
    """A cheap call that proves a credential and says whose it is."""

    request: RequestLine | None = None
    query: dict[str, Template] = {}
    document: str | None = None
    body: Any = None
    base_url: Https | None = None
    connected_as: Line
    account_id: Line
    whose: Literal["person", "workspace", "bot"] = "person"


class Limits(Part, frozen=True, kw_only=True):
    """How the vendor says that it was too much. `Retry-After` is always read."""

    statuses: tuple[int, ...] = (429,)
    codes: tuple[Line, ...] = ()
    remaining: HeaderName | None = None
    reset: HeaderName | None = None
    reset_is: Literal["seconds", "epoch", "epoch_ms", "iso"] = "epoch"


class Errors(Part, frozen=True, kw_only=True):
    """How to tell a failure, and where its words are."""

    signal: Literal["status", "errors", "ok"] = "status"
    """Besides the HTTP status: a list `errors` in the answer (GraphQL), or `ok: false` (Slack)."""
    message: tuple[Path, ...] = ("message",)
    code: tuple[Path, ...] = ()
    detail: tuple[Path, ...] = ()
    """More words, behind the message."""
    reconnect: tuple[Line, ...] = ()
    """Codes that mean a dead credential, besides HTTP 401."""


class Paging(Part, frozen=True, kw_only=True):
    """How a list goes on. Adds `limit` and `cursor` to an action's input, `next_cursor` to its answer."""

    kind: Literal["cursor", "page", "offset", "link"]
    next: Path | None = None
    """cursor: where the answer has the next cursor."""
    more: Path | None = None
    """Where the answer says whether there is more."""
    param: Line | None = None
    """link, or a cursor that is a URL: the cursor is this parameter of it."""
    query: dict[str, Template] = {}
    body: dict[str, Any] = {}
    first: Literal[0, 1] = 1
    limit: Annotated[int, Meta(ge=1, le=1000)] = 20
    max: Annotated[int, Meta(ge=1, le=1000)] = 100


class Output(Part, frozen=True, kw_only=True):
    """What the model gets of an answer."""

    at: Path | None = None
    """Where in the answer it is; a list there becomes `items`."""
    fields: tuple[Path, ...] = ()
    """Only these; all when empty."""
    headers: dict[Name, HeaderName] = {}
    max_items: Annotated[int, Meta(ge=1, le=1000)] = 100
    max_text: Annotated[int, Meta(ge=50, le=100_000)] = 4_000
    max_chars: Annotated[int, Meta(ge=200, le=200_000)] = 24_000
    kind: Literal["json", "text", "none"] = "json"
    rest: Line | None = None
    """Said when something was cut: how to get the rest."""


class Spec(Part, frozen=True, kw_only=True):
    """The published operation that an action is checked against."""

    file: Line | None = None
    prefix: str = ""
    """Put before the path to get the specification's."""
    operation: Line | None = None
    unchecked: Line | None = None
    """Why there is no specification to check against."""


class Action(Part, frozen=True, kw_only=True):
    """One thing that can be done at a vendor."""

    name: Name
    title: Line
    description: Annotated[str, Meta(min_length=20, max_length=1200)]
    effect: Effect
    request: RequestLine | None = None
    document: str | None = None
    synonyms: tuple[Line, ...] = ()
    uses: tuple[Name, ...] = ()
    required: tuple[Name, ...] = ()
    at_least: Annotated[int, Meta(ge=0, le=10)] = 0
    """How many inputs must be given; a change needs something to change."""
    input: dict[Name, dict[str, Any]] = {}
    query: dict[str, Template] = {}
    headers: dict[HeaderName, Line] = {}
    body: Any = None
    body_under: Path | None = None
    encoding: Encoding | None = None
    base_url: Https | None = None
    paging: Name | None = None
    output: Output = Output()
    spec: Spec = Spec()


class Connector(Part, frozen=True, kw_only=True):
    """One file: a vendor and its actions."""

    slug: Slug
    name: Line
    category: Category
    description: Prose
    docs_url: Https
    base_url: Https
    auth: Annotated[tuple[Auth, ...], Meta(min_length=1, max_length=5)]
    verify: Verify
    actions: Annotated[tuple[Action, ...], Meta(min_length=1, max_length=40)]
    synonyms: tuple[Line, ...] = ()
    aliases: tuple[Line, ...] = ()
    """Other names of the vendor or its products: who says one means this vendor."""
    hosts: tuple[Annotated[str, Meta(pattern=r"^(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)+$")], ...] = ()
    fields: tuple[Field, ...] = ()
    """Asked for by every way of signing in."""
    headers: dict[HeaderName, Line] = {}
    graphql: RequestLine | None = None
    encoding: Encoding = "json"
    lists: Lists = "repeat"
    body_under: Path | None = None
    limits: Limits = Limits()
    errors: Errors = Errors()
    inputs: dict[Name, dict[str, Any]] = {}
    paging: dict[Name, Paging] = {}
    spec: Spec = Spec()

    def action(self, name: str) -> Action | None:
        """The action of this name."""
        return next((action for action in self.actions if action.name == name), None)

    def request_line(self, action: Action) -> tuple[str, str]:
        """Method and path template."""
        method, _, path = (action.request or self.graphql or "").partition(" ")
        return method, path

    def source(self, action: Action) -> Spec:
        """What the action is checked against: its own words before the vendor's."""
        own, shared = action.spec, self.spec
        return Spec(
            file=None if own.unchecked else own.file or shared.file,
            prefix=own.prefix or shared.prefix,
            operation=own.operation,
            unchecked=own.unchecked or (None if own.file else shared.unchecked),
        )

    def pager(self, action: Action) -> Paging | None:
        """How the action's list goes on."""
        return self.paging[action.paging] if action.paging else None
