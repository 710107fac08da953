"""Rows ↔ webhooks and deliveries; a webhook's secret is sealed for its own row."""

import uuid

from qlaud_actors.connectors.store import Vault
from qlaud_actors.connectors.vault import Place
from qlaud_actors.db.pool import Record, Rows
from qlaud_actors.db.queries import load_queries
from qlaud_actors.deliveries.model import Delivery, DeliveryRecord, Event, Webhook
from qlaud_actors.errors import Conflict, NotFound
from qlaud_actors.ids import new_endpoint_secret, new_uuid
from qlaud_actors.settings import Secret

QUERIES = load_queries("qlaud_actors.deliveries")

MAX_WEBHOOKS = 20
"""Living ones of one account."""


async def insert_webhook(
    rows: Rows, vault: Vault, account_id: uuid.UUID, url: str | None, events: list[Event]
) -> tuple[Webhook, Secret]:
    """A new webhook and its secret, which is told once. Raises Conflict."""
    webhook_id, secret = new_uuid(), new_endpoint_secret()
    sealed = await vault.seal(rows, _place(account_id, webhook_id), secret)
    row = await rows.fetchrow(
        QUERIES.insert_webhook, webhook_id, account_id, url, events, sealed, MAX_WEBHOOKS
    )
    if row is None:
        raise Conflict(
            f"An account may have {MAX_WEBHOOKS} webhooks, and one without a URL: delete or rotate one."
        )
    return _webhook_from(row), Secret(secret)


async def list_webhooks(rows: Rows, account_id: uuid.UUID) -> list[Webhook]:
    """The living webhooks of an account, oldest first."""
    return [_webhook_from(row) for row in await rows.fetch(QUERIES.webhooks, account_id, None)]


async def get_webhook(rows: Rows, account_id: uuid.UUID, webhook_id: uuid.UUID) -> Webhook:
    """One of them. Raises NotFound."""
    row = await rows.fetchrow(QUERIES.webhooks, account_id, webhook_id)
    if row is None:
        raise NotFound("There is no such webhook.")
    return _webhook_from(row)


async def can_tell_address(rows: Rows, account_id: uuid.UUID) -> bool:
    """Whether there is a secret that signs what goes to addresses that jobs name."""
    return await rows.fetchval(QUERIES.job_webhook, account_id) is not None


async def rotate_secret(rows: Rows, vault: Vault, account_id: uuid.UUID, webhook_id: uuid.UUID) -> Secret:
    """Another secret, from the next attempt on. Raises NotFound."""
    secret = new_endpoint_secret()
    sealed = await vault.seal(rows, _place(account_id, webhook_id), secret)
    if await rows.fetchval(QUERIES.replace_secret, account_id, webhook_id, sealed) is None:
        raise NotFound("There is no such webhook.")
    return Secret(secret)


async def delete_webhook(rows: Rows, account_id: uuid.UUID, webhook_id: uuid.UUID) -> None:
    """End a webhook; nothing more is sent to it. Raises NotFound."""
    if await rows.fetchval(QUERIES.delete_webhook, account_id, webhook_id) is None:
        raise NotFound("There is no such webhook.")


async def list_deliveries(rows: Rows, webhook_id: uuid.UUID, limit: int) -> list[DeliveryRecord]:
    """The newest deliveries of a webhook."""
    found = await rows.fetch(QUERIES.deliveries_of_webhook, webhook_id, limit)
    return [DeliveryRecord(**row) for row in found]


async def redeliver(rows: Rows, webhook_id: uuid.UUID, delivery_id: uuid.UUID) -> None:
    """Deliver again under the same id, with all attempts. Raises NotFound."""
    if await rows.fetchval(QUERIES.redeliver, webhook_id, delivery_id) is None:
        raise NotFound("There is no such delivery.")


def delivery_from(row: Record, vault: Vault) -> Delivery:
    """A claimed delivery, with the secret that signs it, still closed."""
    return Delivery(
        id=row["id"],
        webhook_id=row["webhook_id"],
        event=row["event"],
        url=row["url"],
        body=row["body"].encode(),
        epoch=row["epoch"],
        attempts=row["attempts"],
        secret=vault.closed(_place(row["account_id"], row["webhook_id"]), row["secret"]),
    )


def _place(account_id: uuid.UUID, webhook_id: uuid.UUID) -> Place:
    return Place(account_id, f"webhook:{webhook_id}")


def _webhook_from(row: Record) -> Webhook:
    return Webhook(row["id"], row["account_id"], row["url"], row["events"], row["created_at_ms"])
