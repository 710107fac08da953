"""Secrets of tools, opened at the moment of their use."""

from qlaud_actors.connectors.vault import ClosedSecret, VaultError
from qlaud_actors.log import get_logger
from qlaud_actors.settings import Secret

NOT_ON_RECORD = "The tool was not called: the use of its secret could not be put on record."

logger = get_logger(__name__)


async def opened(secret: Secret | ClosedSecret | None, purpose: str, **owner: str) -> Secret | None:
    """The secret; None when it does not open: its tool fails, the others work.

    Raises ConnectionLost when the opening cannot be put on record.
    """
    if secret is None or isinstance(secret, Secret):
        return secret
    try:
        return await secret.open(purpose)
    except VaultError as error:
        logger.error("tool_secret_lost", reason=str(error), **owner)  # noqa: TRY400 - no trace needed
        return None
