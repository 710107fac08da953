"""Seals secrets at rest: AES-256-GCM under a versioned key ring.

A sealed value names its key, so that old ones open after a rotation, and is bound to where it is
stored (`aad`), so that a ciphertext moved to another row does not open.
"""

import base64
import os
import re
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qlaud_actors.settings import Secret, SettingsError

FORMAT = 1
NONCE_BYTES = 12
KEY_BYTES = 32
KEY_ID = re.compile(r"[a-z0-9]{1,16}")


class VaultError(Exception):
    """A sealed value does not open: wrong place, wrong key ring, or damaged."""


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Keys by id; the first one seals, all of them open."""

    keys: dict[str, bytes]

    @classmethod
    def parse(cls, text: str) -> "Keyring":
        """Read `id:base64,id:base64,…`, newest first. Raises SettingsError without naming any key."""
        keys: dict[str, bytes] = {}
        for part in filter(None, (p.strip() for p in text.split(","))):
            key_id, _, encoded = part.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except ValueError:
                key = b""
            if not KEY_ID.fullmatch(key_id) or len(key) != KEY_BYTES or key_id in keys:
                raise SettingsError(
                    "QLAUD_KEYRING must be `id:base64 of 32 bytes`, comma separated, ids unique"
                )
            keys[key_id] = key
        if not keys:
            raise SettingsError("QLAUD_KEYRING has no key")
        return cls(keys)

    @staticmethod
    def generate() -> str:
        """The text of a new key ring with one key."""
        key = base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode()
        return f"k{secrets.token_hex(4)}:{key}"


class Vault:
    """Seals and opens."""

    def __init__(self, keyring: Keyring) -> None:
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keyring.keys.items()}
        self._newest = next(iter(keyring.keys))

    def seal(self, plaintext: str, aad: str) -> bytes:
        """`format, key id length, key id, nonce, ciphertext`."""
        key_id = self._newest
        nonce = os.urandom(NONCE_BYTES)
        sealed = self._ciphers[key_id].encrypt(nonce, plaintext.encode(), _bound(aad, key_id))
        return bytes([FORMAT, len(key_id)]) + key_id.encode() + nonce + sealed

    def open(self, sealed: bytes, aad: str) -> Secret:
        """What was sealed for this very place. Raises VaultError."""
        try:
            version, size = sealed[0], sealed[1]
            key_id = sealed[2 : 2 + size].decode()
            nonce, body = sealed[2 + size : 2 + size + NONCE_BYTES], sealed[2 + size + NONCE_BYTES :]
            if version != FORMAT:
                raise VaultError("unknown format")
            return Secret(self._ciphers[key_id].decrypt(nonce, body, _bound(aad, key_id)).decode())
        except KeyError:
            raise VaultError("sealed with a key that is not in the key ring") from None
        except (InvalidTag, IndexError, UnicodeDecodeError, ValueError):
            raise VaultError("does not open here") from None


def _bound(aad: str, key_id: str) -> bytes:
    """What a ciphertext is bound to: its place, and the key that it names."""
    return f"{aad}|{key_id}".encode()
