"""Calls a model: encodes, sends, decodes; or lets bytes pass that are in the provider's own dialect."""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

import msgspec

from qlaud_actors.outbound.client import Client, Response
from qlaud_actors.providers.catalog import Catalog
from qlaud_actors.providers.exchange import Exchange, Target
from qlaud_actors.providers.media_call import MediaCall
from qlaud_actors.providers.model import Model, ModelEvent, ModelRequest
from qlaud_actors.providers.passage import Passage, RawRequest
from qlaud_actors.providers.wire import Wire
from qlaud_actors.providers.wires import SURFACES, WIRES
from qlaud_actors.settings import Secret


class Caller:
    """Prepares calls; one for each process."""

    def __init__(self, client: Client, catalog: Catalog, wires: Mapping[str, Wire] = WIRES) -> None:
        self._client = client
        self._catalog = catalog
        self._wires = wires

    def call(self, request: ModelRequest, model: Model, call_id: str | None = None) -> "Call":
        """Prepare one call; nothing is sent before its events are read.

        Providers are told `call_id`. Raises ProviderNotConfigured when there is no key for the model's
        provider.
        """
        self._catalog.require_configured(model)
        wire = self._wires[model.provider.wire]
        encoded = wire.encode(request, model)
        body = msgspec.json.encode(encoded.body)
        target = self._target(model, encoded.path, encoded.headers, body, call_id)
        return Call(request, model, wire, target, self._client)

    def pass_through(
        self, raw: RawRequest, request: ModelRequest, model: Model, call_id: str | None = None
    ) -> Passage | MediaCall:
        """Prepare a call whose body is in a dialect that the model's provider takes; nothing is sent yet.

        `request` is what it says, as far as that matters for an estimate. Raises ProviderNotConfigured.
        """
        self._catalog.require_configured(model)
        wire = SURFACES[raw.wire] if raw.wire else self._wires[model.provider.wire]
        target = self._target(model, raw.path or wire.path, raw.headers, raw.body, call_id)
        if raw.reading is not None:
            return MediaCall(request, model, wire, target, self._client, reading=raw.reading)
        return Passage(request, model, wire, target, self._client, raw=raw)

    def _target(
        self, model: Model, path: str, headers: Mapping[str, str], body: bytes, call_id: str | None
    ) -> Target:
        provider = model.provider
        sent = {"content-type": "application/json", **headers}
        sent |= _credentials(provider.auth_header, self._catalog.credentials(provider))
        if call_id is not None:
            sent["x-request-id"] = call_id
        return Target(provider.base_url + path, sent, body)


def _credentials(header: str, key: Secret | None) -> dict[str, str]:
    if key is None:
        return {}
    return {header: key.reveal() if header == "x-api-key" else f"Bearer {key.reveal()}"}


@dataclass(slots=True)
class Call(Exchange[ModelEvent]):
    """One call of a model: its events, and what is known of it when they break off."""

    async def _read(self, response: Response) -> AsyncGenerator[ModelEvent, None]:
        decoder = self._wire.decoder(self.request, self.model)
        ended = False
        while not ended:
            chunk = await anext(response, b"")
            ended = not chunk
            try:
                events = decoder.finish() if ended else decoder.feed(chunk)
            finally:
                self.usage, self.usage_known = decoder.usage, decoder.usage_known
            # Set only now: an error event instead of an answer may still be retried.
            self.begun = True
            for event in events:
                yield event
