"""What is shown and stored of a secret."""

import hashlib

import pytest

from qlaud_actors.ids import new_key_secret
from qlaud_actors.keys.model import SECRET_PATTERN, hash_of, prefix_of


@pytest.mark.parametrize("kind", ["qlk_live_", "qlk_test_"])
def test_the_prefix_shows_four_characters_of_each_end(kind: str) -> None:
    """Enough to tell keys apart, far too little to use one."""
    secret = kind + "0123" + "a" * 56 + "cdef"
    assert prefix_of(secret) == f"{kind}0123…cdef"


def test_only_the_sha256_of_a_secret_is_kept() -> None:
    """The stored form does not contain the secret and is what other tools compute."""
    secret = new_key_secret()
    assert hash_of(secret) == hashlib.sha256(secret.encode()).digest()
    assert secret.encode() not in hash_of(secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "qlk_live_",
        "qlk_live_" + "a" * 63,
        "qlk_live_" + "a" * 65,
        "qlk_live_" + "A" * 64,
        "qlk_prod_" + "a" * 64,
        "sk-ant-" + "a" * 64,
        "qlk_live_" + "a" * 63 + "é",
    ],
)
def test_malformed_secrets_are_recognised_by_their_form(text: str) -> None:
    """They are refused without a question to the database."""
    assert not SECRET_PATTERN.match(text)


def test_minted_secrets_have_the_form_that_is_verified() -> None:
    """What we hand out we take back."""
    assert SECRET_PATTERN.match(new_key_secret())
