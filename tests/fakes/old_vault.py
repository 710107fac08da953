"""Seals as the vault did before there were data keys, for secrets that must still open."""

import os
import uuid

from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def seal_old(
    key_id: str, key: bytes, plaintext: str, kind: str, account_id: uuid.UUID, row_id: object
) -> bytes:
    """A secret in the old form, for its row."""
    nonce = os.urandom(12)
    bound = f"{kind}:{account_id}:{row_id}|{key_id}".encode()
    head = bytes([1, len(key_id)]) + key_id.encode() + nonce
    return head + AESGCM(key).encrypt(nonce, plaintext.encode(), bound)
