"""The cryptography of secrets at rest; it does no I/O.

A secret is sealed (AES-256-GCM) with its account's data key, and the data key is wrapped with a key of
the ring. A ciphertext names its key and is bound to its place: account, row and field. Copied to any
other place it does not open there. `store.py` keeps the data keys.

Every ciphertext is: form, length of the key's id, the key's id, nonce, ciphertext with its tag.
"""

import base64
import os
import re
import secrets
import uuid
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from qlaud_actors.settings import Secret, SettingsError

OLD_FORM = 1
"""A secret sealed with a key of the ring itself, as before there were data keys: opened, no longer made."""

SECRET_FORM = 2
WRAPPED_FORM = 3

NONCE_BYTES = 12
TAG_BYTES = 16
KEY_BYTES = 32
KEY_ID = re.compile(r"[a-z0-9]{1,16}")


class VaultError(Exception):
    """A ciphertext does not open: wrong place, wrong key ring, or damaged."""


class UnknownKey(VaultError):
    """A ciphertext names a key that is not at hand."""

    def __init__(self, key_id: str) -> None:
        super().__init__(f"sealed with the key {key_id!r}, which is not in the key ring")
        self.key_id = key_id


@dataclass(frozen=True, slots=True)
class Place:
    """Where a secret is kept: the account, the row (`tool:<id>`, `webhook:<id>`, …), the field."""

    account_id: uuid.UUID
    owner: str
    field: str = "secret"


class ClosedSecret(Protocol):
    """A sealed secret on its way to whoever uses it."""

    async def open(self, purpose: str) -> Secret:
        """The secret; the opening is on record before. Raises VaultError."""


@dataclass(frozen=True, slots=True)
class Ciphertext:
    """A stored value, taken apart."""

    form: int
    key_id: str
    nonce: bytes
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> "Ciphertext":
        """Raises VaultError for what cannot be one."""
        size = data[1] if len(data) > 1 else 0
        head, rest = data[2 : 2 + size], data[2 + size :]
        key_id = head.decode("ascii", "replace")
        if not KEY_ID.fullmatch(key_id) or len(head) != size or len(rest) < NONCE_BYTES + TAG_BYTES:
            raise VaultError("this is no ciphertext of the vault")
        return cls(data[0], key_id, rest[:NONCE_BYTES], rest[NONCE_BYTES:])


@dataclass(frozen=True, slots=True, repr=False)
class DataKey:
    """The key that seals the secrets of one account."""

    id: str
    account_id: uuid.UUID
    key: bytes

    @classmethod
    def generate(cls, account_id: uuid.UUID) -> "DataKey":
        """A new random key."""
        return cls(secrets.token_hex(8), account_id, secrets.token_bytes(KEY_BYTES))

    def seal(self, plaintext: str, place: Place) -> bytes:
        """The ciphertext for one place of the key's account."""
        assert place.account_id == self.account_id
        return _encrypt(SECRET_FORM, self.id, self.key, plaintext.encode(), _bound_to(place, self.id))

    def open(self, sealed: bytes, place: Place) -> Secret:
        """What was sealed for this very place. Raises VaultError."""
        ciphertext = Ciphertext.parse(sealed)
        if ciphertext.form != SECRET_FORM:
            raise VaultError("this is no sealed secret")
        if ciphertext.key_id != self.id:
            raise VaultError(f"sealed with the data key {ciphertext.key_id!r}, which is not the account's")
        return _secret(_decrypt(ciphertext, self.key, _bound_to(place, self.id)))


@dataclass(frozen=True, slots=True, repr=False)
class Keyring:
    """Keys by id; the first one wraps, all of them unwrap."""

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

    @property
    def newest(self) -> str:
        """The id of the key that wraps."""
        return next(iter(self.keys))

    def wrap(self, data_key: DataKey) -> bytes:
        """A data key as it is stored, under the newest key."""
        key_id = self.newest
        bound = _wrapped_for(data_key.account_id, data_key.id, key_id)
        return _encrypt(WRAPPED_FORM, key_id, self.keys[key_id], data_key.key, bound)

    def unwrap(self, wrapped: bytes, account_id: uuid.UUID, data_key_id: str) -> DataKey:
        """The data key of this account and id. Raises UnknownKey, VaultError."""
        ciphertext = Ciphertext.parse(wrapped)
        if ciphertext.form != WRAPPED_FORM:
            raise VaultError("this is no wrapped data key")
        bound = _wrapped_for(account_id, data_key_id, ciphertext.key_id)
        return DataKey(data_key_id, account_id, _decrypt(ciphertext, self._named(ciphertext), bound))

    def open_old(self, sealed: bytes, place: Place) -> Secret:
        """A secret in the old form. Raises UnknownKey, VaultError."""
        ciphertext = Ciphertext.parse(sealed)
        if ciphertext.form != OLD_FORM:
            raise VaultError("this is no secret in the old form")
        kind, _, row_id = place.owner.partition(":")
        bound = f"{kind}:{place.account_id}:{row_id}|{ciphertext.key_id}".encode()
        return _secret(_decrypt(ciphertext, self._named(ciphertext), bound))

    def _named(self, ciphertext: Ciphertext) -> bytes:
        try:
            return self.keys[ciphertext.key_id]
        except KeyError:
            raise UnknownKey(ciphertext.key_id) from None


def _encrypt(form: int, key_id: str, key: bytes, plaintext: bytes, bound: bytes) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    head = bytes([form, len(key_id)]) + key_id.encode()
    return head + nonce + AESGCM(key).encrypt(nonce, plaintext, bound)


def _decrypt(ciphertext: Ciphertext, key: bytes, bound: bytes) -> bytes:
    try:
        return AESGCM(key).decrypt(ciphertext.nonce, ciphertext.body, bound)
    except InvalidTag:
        raise VaultError("does not open here") from None


def _secret(plaintext: bytes) -> Secret:
    return Secret(plaintext.decode())


def _bound_to(place: Place, key_id: str) -> bytes:
    return _joined("secret", str(place.account_id), place.owner, place.field, key_id)


def _wrapped_for(account_id: uuid.UUID, data_key_id: str, key_id: str) -> bytes:
    return _joined("data key", str(account_id), data_key_id, key_id)


def _joined(*parts: str) -> bytes:
    """Parts with their lengths, so that no two lists of them look alike."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in (text.encode() for text in parts))
