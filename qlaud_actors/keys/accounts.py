"""A new account comes with its first admin key, or not at all."""

from dataclasses import dataclass

from qlaud_actors.billing import wallet
from qlaud_actors.billing.wallet import Account, Billing
from qlaud_actors.db.pool import Pool
from qlaud_actors.keys import lifecycle
from qlaud_actors.keys.model import ApiKey
from qlaud_actors.settings import Secret


@dataclass(frozen=True, slots=True)
class NewAccount:
    """What the operator says of a new account."""

    name: str
    billing: Billing = "prepaid"
    credit_nanos: int = 0


async def create(pool: Pool, new: NewAccount) -> tuple[Account, ApiKey, Secret]:
    """The account, its admin key, and that key's secret, which is nowhere else."""
    async with pool.acquire() as connection, connection.transaction():
        account_id = await wallet.open_account(connection, new.name, new.billing, new.credit_nanos)
        admin = lifecycle.NewKey("admin", scope="admin", thread_access="account")
        key, secret = await lifecycle.mint_within(connection, account_id, admin)
        return await wallet.get_account(connection, account_id), key, secret
