"""Applications that the operator has registered with vendors, for signing in by OAuth."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from qlaud_actors.settings import Secret

PREFIX = "QLAUD_OAUTH_"
ID, SECRET = "_CLIENT_ID", "_CLIENT_SECRET"


class OAuthAppError(Exception):
    """The variables of an application are not usable; the message names one, never a value."""


@dataclass(frozen=True, slots=True)
class OAuthApp:
    """Who asks, at one vendor."""

    client_id: str
    client_secret: Secret


def variable(slug: str, end: str) -> str:
    """The name of a variable of a connector: its slug in capitals, `-` as `_`."""
    return f"{PREFIX}{slug.upper().replace('-', '_')}{end}"


def read_apps(environ: Mapping[str, str], slugs: Collection[str]) -> dict[str, OAuthApp]:
    """The applications by connector; `slugs` are those that can sign in so. Raises OAuthAppError."""
    given = {name: value.strip() for name, value in environ.items() if name.startswith(PREFIX)}
    known = {variable(slug, end) for slug in slugs for end in (ID, SECRET)}
    if unknown := sorted(given.keys() - known):
        raise OAuthAppError(f"{unknown[0]}: no connector signs in by OAuth with this name")
    apps = {}
    for slug in slugs:
        client_id, secret = (given.get(variable(slug, end), "") for end in (ID, SECRET))
        if bool(client_id) != bool(secret):
            missing = variable(slug, SECRET if client_id else ID)
            raise OAuthAppError(f"{missing} is missing: an application has an id and a secret")
        if client_id:
            apps[slug] = OAuthApp(client_id, Secret(secret))
    return apps
