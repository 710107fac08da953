"""Secrets at rest."""

import base64
import os

import pytest

from qlaud_actors.connectors.vault import Keyring, Vault, VaultError
from qlaud_actors.settings import SettingsError

OLD, NEW = (f"{name}:{base64.b64encode(bytes([n]) * 32).decode()}" for n, name in enumerate(("old", "new")))
PLAIN, PLACE = "wsk_söcret", "tool:account:1"


def vault(text: str) -> Vault:
    """A vault over a key ring."""
    return Vault(Keyring.parse(text))


def test_what_was_sealed_opens_in_its_place() -> None:
    """A sealed secret opens where it belongs, does not contain it, and is different every time."""
    sealed = vault(OLD).seal(PLAIN, PLACE)
    assert vault(OLD).open(sealed, PLACE).reveal() == PLAIN
    assert PLAIN.encode() not in sealed
    assert vault(OLD).seal(PLAIN, PLACE) != sealed
    assert vault(OLD).open(vault(OLD).seal("", PLACE), PLACE).reveal() == ""


def test_a_change_of_any_byte_is_noticed() -> None:
    """Whichever byte is changed, cut off or added, the value no longer opens."""
    ring = vault(f"{NEW},{OLD}")
    sealed = ring.seal(PLAIN, PLACE)
    broken = [
        sealed[:n] + bytes([sealed[n] ^ flip]) + sealed[n + 1 :]
        for n in range(len(sealed))
        for flip in (1, 0x80)
    ]
    broken += [sealed[:n] for n in range(len(sealed))]
    broken += [sealed + b"\x00", os.urandom(64)]
    for value in broken:
        with pytest.raises(VaultError):
            ring.open(value, PLACE)


@pytest.mark.parametrize("place", ["tool:account:2", "tool:other:1", "", PLACE + "|old"])
def test_a_value_that_was_moved_does_not_open(place: str) -> None:
    """A ciphertext copied to another row is useless there."""
    with pytest.raises(VaultError, match="does not open here"):
        vault(OLD).open(vault(OLD).seal(PLAIN, PLACE), place)


def test_the_newest_key_seals_and_all_keys_open() -> None:
    """After a rotation old values still open, new ones are sealed with the first key."""
    both = vault(f"{NEW},{OLD}")
    assert both.open(vault(OLD).seal(PLAIN, PLACE), PLACE).reveal() == PLAIN
    assert vault(NEW).open(both.seal(PLAIN, PLACE), PLACE).reveal() == PLAIN


def test_an_unknown_key_is_named_as_the_reason() -> None:
    """A value under a key that the ring has lost says so; the same id with other bytes does not open."""
    with pytest.raises(VaultError, match="not in the key ring"):
        vault(NEW).open(vault(OLD).seal(PLAIN, PLACE), PLACE)
    with pytest.raises(VaultError, match="does not open here"):
        vault("old:" + NEW.partition(":")[2]).open(vault(OLD).seal(PLAIN, PLACE), PLACE)


def test_a_renamed_key_does_not_open() -> None:
    """A value is bound to the id of its key as well: two ids of the same bytes are two keys."""
    encoded = OLD.partition(":")[2]
    sealed = vault(f"aaa:{encoded}").seal(PLAIN, PLACE)
    with pytest.raises(VaultError):
        vault(f"bbb:{encoded}").open(sealed.replace(b"aaa", b"bbb"), PLACE)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "nokey",
        "k:",
        "k\n" + OLD[3:],
        "k:c2hvcnQ=",
        "K:" + OLD[4:],
        f"{OLD},{OLD}",
        "k:Ⅷ",
        ":" + OLD[4:],
        f"{OLD[:-1]}",
    ],
)
def test_a_malformed_key_ring_is_refused_without_quoting_it(text: str) -> None:
    """Missing, short, doubled and misspelled keys are an error that shows none of them."""
    with pytest.raises(SettingsError) as caught:
        Keyring.parse(text)
    assert OLD[4:20] not in str(caught.value)


def test_a_generated_key_ring_parses() -> None:
    """A new key ring has one key; two are never alike."""
    first, second = Keyring.generate(), Keyring.generate()
    assert len(Keyring.parse(f" {first} , {second} ").keys) == 2


def test_no_secret_shows_in_a_repr() -> None:
    """Neither keys nor plain text appear when objects or errors are printed."""
    ring = Keyring.parse(OLD)
    keeper = Vault(ring)
    opened = keeper.open(keeper.seal(PLAIN, PLACE), PLACE)
    with pytest.raises(VaultError) as caught:
        keeper.open(keeper.seal(PLAIN, PLACE), "elsewhere")
    shown = f"{ring!r} {ring} {keeper!r} {opened!r} {opened} {caught.value!r} {caught.value.__cause__!r}"
    assert PLAIN not in shown
    assert repr(bytes(32)) not in shown
    assert OLD.partition(":")[2] not in shown
