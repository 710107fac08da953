"""Signing in at a vendor by OAuth, with the operator's application: there, back, and refreshing later."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from qlaud_actors.connectors import oauth
from qlaud_actors.connectors.answer import Received
from qlaud_actors.connectors.catalog import ConnectorCatalog
from qlaud_actors.connectors.connection import (
    ACCESS_TOKEN,
    REFRESH_TOKEN,
    ConnectRefused,
    RefreshFailed,
    RefreshRefused,
    Tokens,
)
from qlaud_actors.connectors.model import Auth, Connector
from qlaud_actors.connectors.oauth import Client, Grant, GrantRefused, Leaving
from qlaud_actors.connectors.request import Access, Request, RequestProblem
from qlaud_actors.connectors.sending import Sender, SendFailed
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret

CALLBACK = "/connect/oauth/callback"

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class SignedIn:
    """What a sign-in gave: the values of a connection, and when its access token ends."""

    values: Mapping[str, str]
    access_expires_at: datetime | None


class SignIn:
    """OAuth at all vendors for which there is an application; one for each process.

    It is a Refresher and a Revoker.
    """

    def __init__(self, catalog: ConnectorCatalog, sender: Sender, base_url: str) -> None:
        self._catalog = catalog
        self._sender = sender
        self._redirect_uri = base_url + CALLBACK

    def authorize_url(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], leaving: Leaving
    ) -> str:
        """Where the browser goes. Raises ConnectRefused."""
        try:
            return oauth.authorize_url(self._client(connector, auth, settings), leaving, self._redirect_uri)
        except RequestProblem as problem:
            raise ConnectRefused(None, str(problem)) from None

    async def exchange(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], code: str, verifier: str
    ) -> SignedIn:
        """The code that a browser brought back, for the values of a connection. Raises ConnectRefused."""
        try:
            client = self._client(connector, auth, settings)
            request = oauth.exchange_request(client, code, verifier, self._redirect_uri)
            grant = oauth.grant_from(client, await self._send(client, request), (code, verifier))
            found = {**settings, **grant.kept}
            found |= await self._look_up(client, Access(auth, found, {ACCESS_TOKEN: grant.access}))
        except GrantRefused as refused:
            raise ConnectRefused(
                None, f"{connector.name} did not complete the sign-in: {refused.words}"
            ) from None
        except RequestProblem as problem:
            raise ConnectRefused(None, str(problem)) from None
        except SendFailed as failed:
            raise ConnectRefused(None, f"{connector.name} could not be asked: {failed}. Try again.") from None
        values = {**found, ACCESS_TOKEN: grant.access.reveal()}
        if grant.refresh and auth.oauth2 and auth.oauth2.refresh != "none":
            values[REFRESH_TOKEN] = grant.refresh.reveal()
        return SignedIn(values, _end_of(grant))

    async def refresh(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], token: Secret
    ) -> Tokens:
        """New tokens for a refresh token. Raises RefreshRefused, RefreshFailed."""
        try:
            client = self._client(connector, auth, settings)
            received = await self._send(client, oauth.refresh_request(client, token))
            grant = oauth.grant_from(client, received, (token.reveal(),))
        except GrantRefused as refused:
            if refused.dead:
                raise RefreshRefused(refused.words) from None
            logger.warning("refresh_failed", connector=connector.slug, words=refused.words)
            raise RefreshFailed(refused.words) from None
        except (RequestProblem, ConnectRefused, SendFailed) as problem:
            raise RefreshFailed(str(problem)) from None
        return Tokens(grant.access, grant.refresh, _end_of(grant))

    async def revoke(
        self, connector: Connector, auth: Auth, settings: Mapping[str, str], token: Secret
    ) -> int:
        """Tell the vendor that a token is needed no longer: its status. Raises what sending raises."""
        client = self._client(connector, auth, settings)
        return (await self._send(client, oauth.revoke_request(client, token))).status

    async def _look_up(self, client: Client, access: Access) -> dict[str, str]:
        request = oauth.lookup_request(client, access)
        if request is None:
            return {}
        return oauth.looked_up(client, await self._send(client, request), access.spelled())

    async def _send(self, client: Client, request: Request) -> Received:
        return await self._sender.send(request, trusted=client.override is not None)

    def _client(self, connector: Connector, auth: Auth, settings: Mapping[str, str]) -> Client:
        app = self._catalog.apps.get(connector.slug)
        if auth.oauth2 is None or app is None:
            raise ConnectRefused(None, f"Signing in to {connector.name} is not set up on this server.")
        return Client(connector, auth.oauth2, app, settings, self._catalog.overrides.get(connector.slug))


def _end_of(grant: Grant) -> datetime | None:
    return datetime.now(UTC) + timedelta(seconds=grant.lifetime_s) if grant.lifetime_s else None
